//! The newest attempts, by partner object or gateway and by domain: why federation with X fails, and
//! where.
//!
//! Bounded in bytes for each partner object, whoever names what: a domain that the object lists has its
//! place; of those that only a wildcard of it matches the newest few are kept, those that never had a
//! stream apart from those that had. A flood of names costs its own partner a constant, and others nothing.
//!
//! What a peer does before it has proved its name says who it claims to be: it is kept apart, so that it hides
//! nothing that our own attempts and proven peers told.

mod steps;

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use jiff::Timestamp;
use parking_lot::Mutex;
use xmpp_edge_crds::{domain::DomainName, remedy, verdict::Direction};

pub use self::steps::ShownStep;
use self::steps::{ATTEMPT_BYTES, Attempt, RemedyOf, TakenStep, shown_text};
use super::{
    attempt::AttemptStep,
    log_limiter::{LogLimiter, limited},
    metrics::{Metrics, OTHER, direction_label},
};

/// Domains of one partner's wildcards that had a stream; the one of which nothing was noted for longest
/// goes.
const CONNECTED_DOMAINS: usize = 16;
/// Domains of one partner's wildcards that never had one: anybody can name these.
const NAMED_DOMAINS: usize = 8;

/// Most bytes that one wildcard domain takes.
pub const DOMAIN_BYTES: usize = 3 * ATTEMPT_BYTES + size_of::<DomainAttempts>() + 256;
/// Most bytes that all wildcard domains of one partner object take, whatever names are tried.
pub const WILDCARD_BYTES: usize = (CONNECTED_DOMAINS + NAMED_DOMAINS) * DOMAIN_BYTES;

/// Whom something is noted of, as the configuration in force has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptPeer<'a> {
    /// A domain of this partner object; `listed`: by its name, not by a wildcard.
    Partner { object: &'a str, listed: bool },
    /// A domain of no partner. Counted, not remembered.
    Stranger,
    /// An own domain that a gateway serves.
    Gateway,
    /// Inside, and served by no gateway. Not remembered.
    NoGateway,
}

impl AttemptPeer<'_> {
    fn side(self) -> &'static str {
        match self {
            Self::Partner { .. } | Self::Stranger => "partner",
            Self::Gateway | Self::NoGateway => "gateway",
        }
    }
}

/// What is remembered of the peers' domains.
#[derive(Debug)]
pub struct Attempts {
    metrics: Arc<Metrics>,
    log: Arc<LogLimiter>,
    state: Mutex<AttemptState>,
}

#[derive(Debug, Default)]
struct AttemptState {
    partners: HashMap<String, PartnerRecord>,
    gateways: HashMap<DomainName, DomainAttempts>,
}

/// One partner object.
#[derive(Debug, Default)]
struct PartnerRecord {
    listed: HashMap<DomainName, DomainAttempts>,
    /// Domains of its wildcards, the one noted last at the end.
    connected: VecDeque<(DomainName, DomainAttempts)>,
    named: VecDeque<(DomainName, DomainAttempts)>,
    last_connected: Option<Timestamp>,
    changed: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct DomainAttempts {
    inbound: Attempt,
    outbound: Attempt,
    /// Inbound, of peers that have not proved to be this domain, since one that did.
    claimed: Attempt,
    next_attempt: Option<Timestamp>,
    last_connected: Option<Timestamp>,
    /// Something failed, in either direction, since a stream stood.
    troubled: bool,
    /// An attempt of ours failed at every target since a stream stood.
    unreachable: bool,
    /// When any of this last changed.
    changed: Option<Timestamp>,
}

/// What `/status` shows of a partner or of a gateway's domain.
#[derive(Clone, Debug, Default)]
pub struct ShownAttempts {
    /// The newest failure since the last success, else what came last. What was only claimed comes first.
    pub last_attempt: Vec<ShownStep>,
    pub next_attempt_time: Option<Timestamp>,
    pub last_connected_time: Option<Timestamp>,
    /// Whether the last attempt of ours succeeded; none before the first.
    pub reachable: Option<bool>,
}

impl Attempts {
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, log: Arc<LogLimiter>) -> Self {
        Self {
            metrics,
            log,
            state: Mutex::default(),
        }
    }

    /// A new attempt of ours begins: the steps of the one before go.
    pub fn begin(&self, peer: AttemptPeer<'_>, domain: &DomainName) {
        self.change(peer, domain, |entry| *entry.ours(peer) = Attempt::default());
    }

    /// A step was taken: counted, logged where it failed, and remembered.
    pub fn note(&self, peer: AttemptPeer<'_>, step: AttemptStep) {
        self.count(peer, &step);
        let ok = step.outcome == "Ok";
        self.change(peer, &step.domain, |entry| {
            let attempt = match step.direction {
                Direction::Inbound => &mut entry.inbound,
                Direction::Outbound => &mut entry.outbound,
            };
            attempt.push(TakenStep::of(&step));
            entry.troubled |= !ok;
        });
    }

    /// As [`Self::note`], of a partner's peer that has not proved to be the domain.
    pub fn claim(&self, peer: AttemptPeer<'_>, step: &AttemptStep) {
        self.count(peer, step);
        self.enter(peer, &step.domain, |entry| {
            entry.claimed.push(TakenStep::of(step));
        });
    }

    /// The peer at `address` has proved to be the domain: what it claimed, it told.
    pub fn proved(&self, peer: AttemptPeer<'_>, domain: &DomainName, address: SocketAddr) {
        self.enter(peer, domain, |entry| {
            for step in std::mem::take(&mut entry.claimed).steps {
                if step.address == Some(address) {
                    entry.inbound.push(step);
                }
            }
        });
    }

    /// A step of a peer that nobody knows yet, and that has named other domains before: counted and
    /// logged, not remembered.
    pub fn count(&self, peer: AttemptPeer<'_>, step: &AttemptStep) {
        let partner = match peer {
            AttemptPeer::Partner { object, .. } => Some(object),
            _ => None,
        };
        if matches!(peer, AttemptPeer::Partner { .. } | AttemptPeer::Stranger) {
            self.metrics
                .attempt(partner, step.direction, step.step.as_str(), step.outcome);
        }
        if step.outcome != "Ok" {
            let lines = self
                .log
                .lines("attempt", partner, step.direction, step.outcome);
            limited!(
                info, lines,
                side = peer.side(), partner = partner.unwrap_or(OTHER),
                direction = direction_label(step.direction), domain = %step.domain,
                address = step.address.map(tracing::field::display),
                step = step.step.as_str(), outcome = step.outcome, text = %shown_text(&step.text),
                "attempt failed"
            );
        }
    }

    /// An attempt of ours failed at every target. What a peer does on streams of its own, or somebody
    /// in its name, never makes it unreachable.
    pub fn failed(&self, peer: AttemptPeer<'_>, domain: &DomainName) {
        self.change(peer, domain, |entry| {
            entry.troubled = true;
            entry.unreachable = true;
        });
    }

    /// A stream with the domain stands.
    pub fn connected(&self, peer: AttemptPeer<'_>, domain: &DomainName) {
        let now = Timestamp::now();
        self.change(peer, domain, |entry| {
            entry.claimed = Attempt::default();
            entry.last_connected = Some(now);
            entry.next_attempt = None;
            entry.troubled = false;
            entry.unreachable = false;
        });
        if let AttemptPeer::Partner { object, .. } = peer
            && let Some(partner) = self.state.lock().partners.get_mut(object)
        {
            partner.last_connected = Some(now);
            partner.is_connected(domain);
        }
    }

    /// When the next try may be.
    pub fn next_try(&self, peer: AttemptPeer<'_>, domain: &DomainName, until: Instant) {
        let wait = until.saturating_duration_since(Instant::now());
        self.change(peer, domain, |entry| {
            entry.next_attempt = Some(Timestamp::now() + wait);
        });
    }

    /// The newest step that failed towards a domain, for the text of a bounce.
    #[must_use]
    pub fn last_failure(&self, peer: AttemptPeer<'_>, domain: &DomainName) -> Option<String> {
        let mut state = self.state.lock();
        let attempt = state.find(peer, domain)?.ours(peer);
        let failed = attempt.steps.iter().rfind(|step| step.outcome != "Ok")?;
        Some(failed.text.to_string())
    }

    /// When anything was last noted of a partner object.
    #[must_use]
    pub fn changed(&self, object: &str) -> Option<Timestamp> {
        self.state.lock().partners.get(object)?.changed
    }

    /// What is known of a partner object.
    #[must_use]
    pub fn partner(&self, object: &str) -> ShownAttempts {
        let state = self.state.lock();
        let Some(partner) = state.partners.get(object) else {
            return ShownAttempts::default();
        };
        // What an administrator listed says more than what somebody named.
        let told = partner
            .domains()
            .filter(|(_, _, entry)| !entry.is_empty())
            .max_by_key(|(rank, _, entry)| (entry.troubled, *rank, entry.changed));
        let claimed = partner
            .domains()
            .filter(|(_, _, entry)| !entry.claimed.steps.is_empty())
            .max_by_key(|(rank, _, entry)| (*rank, entry.claimed.newest()));
        // Where a list is cut, it loses its beginning.
        let mut last_attempt = claimed
            .map(|(_, domain, entry)| entry.claims(domain, remedy::of_outcome))
            .unwrap_or_default();
        last_attempt.extend(
            told.map(|(_, domain, entry)| entry.shown(domain, remedy::of_outcome))
                .unwrap_or_default(),
        );
        ShownAttempts {
            last_attempt,
            next_attempt_time: partner
                .domains()
                .filter_map(|(_, _, entry)| entry.next_attempt)
                .max(),
            last_connected_time: partner.last_connected,
            reachable: None,
        }
    }

    /// What is known of a gateway's domain.
    #[must_use]
    pub fn gateway(&self, domain: &DomainName) -> ShownAttempts {
        let state = self.state.lock();
        let Some(entry) = state.gateways.get(domain) else {
            return ShownAttempts::default();
        };
        ShownAttempts {
            last_attempt: entry.shown(domain, remedy::of_gateway),
            next_attempt_time: entry.next_attempt,
            last_connected_time: entry.last_connected,
            reachable: entry.reachable(),
        }
    }

    /// Whether the last attempt to reach a gateway's domain succeeded; none before the first.
    #[must_use]
    pub fn gateway_reachable(&self, domain: &DomainName) -> Option<bool> {
        self.state.lock().gateways.get(domain)?.reachable()
    }

    /// A new configuration: what is no longer in it is forgotten, and a domain that another object has
    /// now goes there. `of` says whose a domain is.
    pub fn reassign<'a>(&self, of: impl Fn(bool, &DomainName) -> AttemptPeer<'a>) {
        let mut state = self.state.lock();
        state
            .gateways
            .retain(|domain, _| of(true, domain) == AttemptPeer::Gateway);
        for (object, partner) in std::mem::take(&mut state.partners) {
            let (last_connected, changed) = (partner.last_connected, partner.changed);
            for (domain, entry) in partner.into_domains() {
                let peer = of(false, &domain);
                if let AttemptPeer::Partner { object, listed } = peer {
                    let partner = state.partners.entry(object.to_owned()).or_default();
                    partner.last_connected = partner.last_connected.max(entry.last_connected);
                    partner.changed = partner.changed.max(entry.changed);
                    partner.insert(domain, listed, entry);
                }
            }
            if let Some(partner) = state.partners.get_mut(&object) {
                partner.last_connected = partner.last_connected.max(last_connected);
                partner.changed = partner.changed.max(changed);
            }
        }
    }

    /// Memory held, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let state = self.state.lock();
        let partners = state.partners.iter().flat_map(|(object, partner)| {
            let own = object.len() + size_of::<PartnerRecord>();
            partner
                .domains()
                .map(|(_, domain, entry)| entry.bytes(domain))
                .chain([own])
        });
        let gateways = state
            .gateways
            .iter()
            .map(|(domain, entry)| entry.bytes(domain));
        partners.chain(gateways).sum()
    }

    /// Changes what is told of a domain.
    fn change(
        &self,
        peer: AttemptPeer<'_>,
        domain: &DomainName,
        change: impl FnOnce(&mut DomainAttempts),
    ) {
        self.enter(peer, domain, |entry| {
            change(entry);
            entry.changed = Some(Timestamp::now());
        });
    }

    /// Changes the entry of a domain, made where there is none. Only configured peers are remembered.
    fn enter(
        &self,
        peer: AttemptPeer<'_>,
        domain: &DomainName,
        change: impl FnOnce(&mut DomainAttempts),
    ) {
        let mut state = self.state.lock();
        let now = Timestamp::now();
        let entry = match peer {
            AttemptPeer::Partner { object, listed } => {
                let partner = match state.partners.get_mut(object) {
                    Some(partner) => partner,
                    None => state.partners.entry(object.to_owned()).or_default(),
                };
                partner.changed = Some(now);
                partner.of(domain, listed)
            }
            AttemptPeer::Gateway => match state.gateways.get_mut(domain) {
                Some(entry) => entry,
                None => state.gateways.entry(domain.clone()).or_default(),
            },
            AttemptPeer::Stranger | AttemptPeer::NoGateway => return,
        };
        change(entry);
    }
}

impl AttemptState {
    fn find(&mut self, peer: AttemptPeer<'_>, domain: &DomainName) -> Option<&mut DomainAttempts> {
        match peer {
            AttemptPeer::Partner { object, .. } => self.partners.get_mut(object)?.find(domain),
            AttemptPeer::Gateway => self.gateways.get_mut(domain),
            AttemptPeer::Stranger | AttemptPeer::NoGateway => None,
        }
    }
}

impl PartnerRecord {
    fn find(&mut self, domain: &DomainName) -> Option<&mut DomainAttempts> {
        let Self {
            listed,
            connected,
            named,
            ..
        } = self;
        let wildcards = connected.iter_mut().chain(named);
        listed.get_mut(domain).or_else(|| {
            let mut own = wildcards.filter(|(own, _)| own == domain);
            own.next().map(|(_, entry)| entry)
        })
    }

    /// The entry of a domain, made where there is none, and moved to the end of its queue.
    fn of(&mut self, domain: &DomainName, listed: bool) -> &mut DomainAttempts {
        if listed {
            return self.listed.entry(domain.clone()).or_default();
        }
        let (queue, most) = if self.connected.iter().any(|(own, _)| own == domain) {
            (&mut self.connected, CONNECTED_DOMAINS)
        } else {
            (&mut self.named, NAMED_DOMAINS)
        };
        let entry = match queue.iter().position(|(own, _)| own == domain) {
            Some(at) => queue.remove(at),
            None => None,
        };
        while queue.len() >= most {
            queue.pop_front();
        }
        queue.push_back(entry.unwrap_or_else(|| (domain.clone(), DomainAttempts::default())));
        let last = queue.len() - 1;
        &mut queue[last].1
    }

    /// A wildcard's domain that has a stream goes to those that had one.
    fn is_connected(&mut self, domain: &DomainName) {
        if let Some(at) = self.named.iter().position(|(own, _)| own == domain)
            && let Some(entry) = self.named.remove(at)
        {
            while self.connected.len() >= CONNECTED_DOMAINS {
                self.connected.pop_front();
            }
            self.connected.push_back(entry);
        }
    }

    fn insert(&mut self, domain: DomainName, listed: bool, entry: DomainAttempts) {
        let connected = entry.last_connected.is_some();
        *self.of(&domain, listed) = entry;
        if connected {
            self.is_connected(&domain);
        }
    }

    /// All domains with their rank: listed before those that had a stream, before those that were named.
    fn domains(&self) -> impl Iterator<Item = (u8, &DomainName, &DomainAttempts)> {
        let listed = self.listed.iter().map(|(domain, entry)| (2, domain, entry));
        let connected = self
            .connected
            .iter()
            .map(|(domain, entry)| (1, domain, entry));
        let named = self.named.iter().map(|(domain, entry)| (0, domain, entry));
        listed.chain(connected).chain(named)
    }

    fn into_domains(self) -> impl Iterator<Item = (DomainName, DomainAttempts)> {
        self.listed
            .into_iter()
            .chain(self.connected)
            .chain(self.named)
    }
}

impl DomainAttempts {
    /// The attempts of the direction in which the edge dials.
    fn ours(&mut self, peer: AttemptPeer<'_>) -> &mut Attempt {
        match peer {
            AttemptPeer::Partner { .. } | AttemptPeer::Stranger => &mut self.outbound,
            AttemptPeer::Gateway | AttemptPeer::NoGateway => &mut self.inbound,
        }
    }

    fn is_empty(&self) -> bool {
        self.inbound.steps.is_empty() && self.outbound.steps.is_empty()
    }

    fn reachable(&self) -> Option<bool> {
        if self.unreachable {
            Some(false)
        } else {
            self.last_connected.map(|_| true)
        }
    }

    fn bytes(&self, domain: &DomainName) -> usize {
        let steps = self.inbound.bytes + self.outbound.bytes + self.claimed.bytes;
        size_of::<Self>() + domain.as_str().len() + steps
    }

    fn claims(&self, domain: &DomainName, remedy: RemedyOf) -> Vec<ShownStep> {
        let steps = self.claimed.steps.iter();
        let shown = steps.map(|step| ShownStep {
            unproven: true,
            ..step.shown(domain, remedy)
        });
        shown.collect()
    }

    fn shown(&self, domain: &DomainName, remedy: RemedyOf) -> Vec<ShownStep> {
        let steps = self.inbound.steps.iter().chain(&self.outbound.steps);
        steps.map(|step| step.shown(domain, remedy)).collect()
    }
}

#[cfg(test)]
mod tests;
