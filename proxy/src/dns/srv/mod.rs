//! RFC 2782 order over `_xmpps-server` and `_xmpp-server` together (XEP-0368 section 3). Pure.

use xmpp_edge_crds::domain::DomainName;

/// One SRV record that can be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    pub target: DomainName,
    /// From `_xmpps-server`: TLS from the first byte.
    pub direct_tls: bool,
}

/// Puts records in the order in which they are tried: by priority, lower first; within one,
/// drawn without replacement in exact proportion to the weights. Those of weight 0 come after all
/// others of their priority, in random order (RFC 2782 wants for them "a very small chance").
///
/// `below(n)` draws uniformly from `0..n`; it is never asked with 0.
#[must_use]
pub fn order(mut records: Vec<Service>, mut below: impl FnMut(u64) -> u64) -> Vec<Service> {
    records.sort_by_key(|record| record.priority);
    let mut ordered = Vec::with_capacity(records.len());
    let mut rest = records.into_iter().peekable();
    while let Some(first) = rest.next() {
        let priority = first.priority;
        let mut group = vec![first];
        while let Some(next) = rest.next_if(|next| next.priority == priority) {
            group.push(next);
        }
        while !group.is_empty() {
            let chosen = draw(&group, &mut below);
            ordered.push(group.remove(chosen));
        }
    }
    ordered
}

fn draw(group: &[Service], below: &mut impl FnMut(u64) -> u64) -> usize {
    let sum: u64 = group.iter().map(|record| u64::from(record.weight)).sum();
    if sum == 0 {
        let chosen = below(group.len() as u64);
        return usize::try_from(chosen)
            .unwrap_or_default()
            .min(group.len() - 1);
    }
    let mut left = below(sum);
    for (index, record) in group.iter().enumerate() {
        let weight = u64::from(record.weight);
        if left < weight {
            return index;
        }
        left -= weight;
    }
    group.len() - 1
}

/// Draws from `0..n` by the system's randomness; `n` is at least 1.
#[must_use]
pub fn random_below(n: u64) -> u64 {
    let mut bytes = [0; 8];
    // Only the balance between a partner's servers hangs on it: without randomness the first is
    // as good as any.
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        return 0;
    }
    // The bias of a remainder below 2^-40 is not felt: sums of weights stay below 2^24.
    u64::from_ne_bytes(bytes) % n
}

#[cfg(test)]
mod tests;
