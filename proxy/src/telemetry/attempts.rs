//! The newest attempts, by partner or gateway and by domain: why federation with X fails, and where.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use xmpp_edge_crds::{domain::DomainName, verdict::Direction};

use super::{
    attempt::{AttemptStep, Step},
    metrics::direction_label,
};
use crate::{config::ActiveConfig, edge::Edge, negotiation::Side, routing::route::Route};

/// Domains remembered in all; a flood of strangers does not push partners out, it is not taken.
const MOST: usize = 20_000;

/// What is remembered of the peers' domains.
#[derive(Debug, Default)]
pub struct Attempts {
    peers: Mutex<HashMap<(Side, DomainName), Peer>>,
}

#[derive(Clone, Debug, Default)]
struct Peer {
    inbound: Attempt,
    outbound: Attempt,
    next_attempt: Option<Timestamp>,
    last_connected: Option<Timestamp>,
    /// Something failed, in either direction, since a stream stood.
    troubled: bool,
    /// Since when the edge does not get through.
    failing_since: Option<Instant>,
    withdrawn: bool,
    /// When any of this last changed.
    changed: Option<Timestamp>,
}

#[derive(Clone, Debug, Default)]
struct Attempt {
    steps: Vec<ShownStep>,
}

/// A step as `/status` shows it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownStep {
    pub step: Step,
    pub outcome: &'static str,
    pub direction: &'static str,
    pub domain: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    pub text: String,
    pub milliseconds: u64,
    pub time: Timestamp,
}

/// What `/status` shows of one domain.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    pub last_attempt: Vec<ShownStep>,
    pub next_attempt_time: Option<Timestamp>,
    pub last_connected_time: Option<Timestamp>,
    pub reachable: Option<bool>,
    /// Something failed since a stream stood.
    pub troubled: bool,
    /// When any of this last changed.
    pub changed: Option<Timestamp>,
}

impl Attempts {
    /// A new attempt of ours begins: the steps of the one before go.
    pub fn begin(&self, config: &ActiveConfig, side: Side, peer: &DomainName) {
        self.with(config, side, peer, |entry| {
            let attempt = match side {
                Side::Partner => &mut entry.outbound,
                Side::Gateway => &mut entry.inbound,
            };
            attempt.steps.clear();
        });
    }

    /// A step was taken.
    pub fn note(&self, edge: &Edge, config: &ActiveConfig, side: Side, step: AttemptStep) {
        let partner = match side {
            Side::Partner => config
                .partner(&step.domain)
                .map(|partner| partner.name.as_str()),
            Side::Gateway => None,
        };
        if side == Side::Partner {
            edge.metrics
                .attempt(partner, step.direction, step.step.as_str(), step.outcome);
        }
        let ok = step.outcome == "Ok";
        let repeats = &edge.repeats;
        let name = partner.unwrap_or("other");
        if !ok && repeats.is_worth_a_line("attempt", name, step.direction, step.outcome) {
            tracing::info!(
                side = ?side, domain = %step.domain, step = step.step.as_str(),
                outcome = step.outcome, address = ?step.address,
                "attempt: {}", step.text.escape_debug()
            );
        }
        let shown = ShownStep {
            step: step.step,
            outcome: step.outcome,
            direction: direction_label(step.direction),
            domain: step.domain.to_string(),
            address: step.address.map(|address| address.to_string()),
            text: step
                .text
                .chars()
                .take(500)
                .flat_map(escape_control)
                .collect(),
            milliseconds: u64::try_from(step.took.as_millis()).unwrap_or(u64::MAX),
            time: Timestamp::now(),
        };
        self.with(config, side, &step.domain, |entry| {
            let attempt = match step.direction {
                Direction::Inbound => &mut entry.inbound,
                Direction::Outbound => &mut entry.outbound,
            };
            if attempt.steps.len() >= 32 {
                attempt.steps.remove(0);
            }
            attempt.steps.push(shown);
            entry.troubled |= !ok;
        });
    }

    /// An attempt of ours failed at every target. What a peer does on streams of its own, or somebody
    /// in its name, never makes it unreachable.
    pub fn failed(&self, config: &ActiveConfig, side: Side, peer: &DomainName) {
        self.with(config, side, peer, |entry| {
            entry.troubled = true;
            entry.failing_since.get_or_insert_with(Instant::now);
        });
    }

    /// A stream with the domain stands. Answers whether it had been given up.
    pub fn connected(&self, config: &ActiveConfig, side: Side, peer: &DomainName) -> bool {
        let mut was_withdrawn = false;
        self.with(config, side, peer, |entry| {
            entry.last_connected = Some(Timestamp::now());
            entry.next_attempt = None;
            entry.troubled = false;
            entry.failing_since = None;
            was_withdrawn = std::mem::take(&mut entry.withdrawn);
        });
        was_withdrawn
    }

    /// When the next try may be.
    pub fn next_try(&self, config: &ActiveConfig, route: &Route, until: Instant) {
        let wait = until.saturating_duration_since(Instant::now());
        self.with(config, route.side, &route.pair.to, |entry| {
            entry.next_attempt = Some(Timestamp::now() + wait);
        });
    }

    /// Partners' domains that have failed for `limit` and were not withdrawn yet; they are marked.
    pub fn take_failing(&self, limit: Duration) -> Vec<DomainName> {
        let now = Instant::now();
        let mut failing = Vec::new();
        for ((side, domain), entry) in self.peers.lock().iter_mut() {
            let long = entry
                .failing_since
                .is_some_and(|since| now.duration_since(since) >= limit);
            if *side == Side::Partner && long && !entry.withdrawn {
                entry.withdrawn = true;
                failing.push(domain.clone());
            }
        }
        failing
    }

    /// The newest step that failed towards a domain, for the text of a bounce.
    #[must_use]
    pub fn last_failure(&self, side: Side, domain: &DomainName) -> Option<String> {
        let peers = self.peers.lock();
        let entry = peers.get(&(side, domain.clone()))?;
        let attempt = match side {
            Side::Partner => &entry.outbound,
            Side::Gateway => &entry.inbound,
        };
        attempt
            .steps
            .iter()
            .rev()
            .find(|step| step.outcome != "Ok")
            .map(|step| step.text.clone())
    }

    /// What is known of a domain: the newest failure since the last success, else the newest steps.
    #[must_use]
    pub fn shown(&self, side: Side, domain: &DomainName) -> Shown {
        let peers = self.peers.lock();
        let Some(entry) = peers.get(&(side, domain.clone())) else {
            return Shown::default();
        };
        let last_attempt = entry
            .inbound
            .steps
            .iter()
            .chain(&entry.outbound.steps)
            .cloned()
            .collect::<Vec<_>>();
        Shown {
            reachable: match (entry.failing_since, entry.last_connected) {
                (Some(_), _) => Some(false),
                (None, Some(_)) => Some(true),
                (None, None) => None,
            },
            troubled: entry.troubled,
            changed: entry.changed,
            last_attempt,
            next_attempt_time: entry.next_attempt,
            last_connected_time: entry.last_connected,
        }
    }

    /// Domains of this side that something is known of.
    #[must_use]
    pub fn domains(&self, side: Side) -> Vec<DomainName> {
        self.peers
            .lock()
            .keys()
            .filter(|(own, _)| *own == side)
            .map(|(_, domain)| domain.clone())
            .collect()
    }

    /// Only configured peers are remembered, each domain of a wildcard too.
    fn with(
        &self,
        config: &ActiveConfig,
        side: Side,
        domain: &DomainName,
        change: impl FnOnce(&mut Peer),
    ) {
        let known = match side {
            Side::Partner => config.partner(domain).is_some(),
            Side::Gateway => config.gateway(domain).is_some(),
        };
        if !known {
            return;
        }
        let mut peers = self.peers.lock();
        let key = (side, domain.clone());
        if peers.len() >= MOST && !peers.contains_key(&key) {
            return;
        }
        let peer = peers.entry(key).or_default();
        change(peer);
        peer.changed = Some(Timestamp::now());
    }

    /// Forgets what is no longer configured.
    pub fn forget(&self, config: &ActiveConfig) {
        self.peers.lock().retain(|(side, domain), _| match side {
            Side::Partner => config.partner(domain).is_some(),
            Side::Gateway => config.gateway(domain).is_some(),
        });
    }
}

/// Control characters would forge lines in logs and terminals.
fn escape_control(character: char) -> std::vec::IntoIter<char> {
    if character.is_control() {
        character.escape_default().collect::<Vec<_>>().into_iter()
    } else {
        vec![character].into_iter()
    }
}
