//! What the rules say of a pair of domains, whoever writes: found once, and not for each stanza.

use std::sync::atomic::{AtomicU64, Ordering};

use xmpp_edge_crds::{
    jid::DomainRange,
    verdict::{OwnIndex, PartnerIndex},
};

use super::Policy;

/// Which [`Policy`] of the process it is: facts of another one say nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Snapshot(u64);

impl Snapshot {
    pub(super) fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

/// A pair's partner and own domain in one [`Policy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolvedPair {
    snapshot: Snapshot,
    pub(super) partner: Option<PartnerIndex>,
    pub(super) own: Option<OwnIndex>,
}

impl ResolvedPair {
    /// Of an own domain and a partner's, both in the form of a `DomainName`.
    #[must_use]
    pub fn new(policy: &Policy, own: &str, remote: &str) -> Self {
        Self {
            snapshot: policy.snapshot,
            partner: policy.partners.find(remote),
            own: policy.access.own(own),
        }
    }

    /// Whether they were found in this very policy.
    pub(super) fn are_of(&self, policy: &Policy) -> bool {
        self.snapshot == policy.snapshot
    }
}

/// A stanza's pair, and where its two domains, written as the pair has them, stand in its addresses.
#[derive(Clone, Copy, Debug)]
pub struct AddressedPair<'f> {
    pub facts: &'f ResolvedPair,
    pub from: DomainRange,
    pub to: DomainRange,
}
