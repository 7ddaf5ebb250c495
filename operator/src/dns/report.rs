//! What came of publishing one pool, place by place, and the condition that says it.

use std::{collections::BTreeSet, time::Duration};

use xmpp_edge_crds::kinds::conditions::Reason;

use super::{
    error::DnsError,
    marker::OwnerId,
    plan::PlanResult,
    wanted::{Availability, DesiredRecords, PendingAddress, RecordGroup},
};

/// How long until a pool that is published is to be looked at again: load balancers' names change
/// their addresses, and people edit zones.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// The same where another pool's return or a server's would change something.
const LOOK_SOON: Duration = Duration::from_secs(5);

/// What DNS holds of a pool at one place; asked after the last update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordGroupState {
    Published,
    /// Withdrawn, or never there.
    Withdrawn,
    /// No pod is ready, but these are the last records: they stay.
    KeptAsLast,
    /// Someone else had put all of it there: it leads partners to the pool, and will stay.
    Foreign,
}

/// The outcome at each place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsReport {
    pub standing: Availability,
    pub address_pending: Option<PendingAddress>,
    pub places: Vec<(RecordGroup, Result<RecordGroupState, DnsError>)>,
    /// Places no longer wanted whose zone the server denies: records of the pool may be there still.
    pub denied: Vec<(RecordGroup, DnsError)>,
    /// The Secret cannot be used now; what was done was done with the key last read.
    pub key_fault: Option<DnsError>,
    /// Other operators' ids that stand in markers of a pool of the same namespace and name.
    pub namesakes: BTreeSet<OwnerId>,
}

/// `DnsPublished`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsCondition {
    pub status: bool,
    pub reason: Reason,
    pub message: String,
}

impl RecordGroupState {
    pub(super) fn of(settled: &PlanResult) -> Self {
        match settled {
            settled if settled.kept_as_last => Self::KeptAsLast,
            settled if settled.published => Self::Published,
            settled if !settled.foreign.is_empty() => Self::Foreign,
            _ => Self::Withdrawn,
        }
    }

    /// Whether partners are led to the pool by it.
    #[must_use]
    pub fn leads(&self) -> bool {
        *self != Self::Withdrawn
    }
}

impl DnsReport {
    /// Every place, of `wanted` and of `more`, with the same error.
    #[must_use]
    pub fn failed<'a>(
        wanted: &'a DesiredRecords,
        more: impl Iterator<Item = &'a RecordGroup>,
        error: &DnsError,
    ) -> Self {
        let places: BTreeSet<&RecordGroup> = wanted.places.keys().chain(more).collect();
        Self {
            standing: wanted.standing,
            address_pending: wanted.address_pending,
            places: places
                .into_iter()
                .map(|place| (place.clone(), Err(error.clone())))
                .collect(),
            denied: Vec::new(),
            key_fault: None,
            namesakes: BTreeSet::new(),
        }
    }

    /// Each error once, the first places first.
    #[must_use]
    pub fn errors(&self) -> Vec<&DnsError> {
        let places = self.places.iter().filter_map(|(_, it)| it.as_ref().err());
        let denied = self.denied.iter().map(|(_, error)| error);
        let mut seen = Vec::new();
        for error in self.key_fault.iter().chain(places).chain(denied) {
            if !seen.contains(&error) {
                seen.push(error);
            }
        }
        seen
    }

    /// Whether everything is as it should be.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.errors().is_empty()
    }

    /// The own domains and whether DNS leads partners to the pool. A domain of which nothing is known
    /// is left out.
    #[must_use]
    pub fn published(&self) -> Vec<(&str, bool)> {
        let domains = self.places.iter().filter_map(|(place, outcome)| {
            let RecordGroup::Domain(domain) = place else {
                return None;
            };
            let state = outcome.as_ref().ok()?;
            Some((domain.as_str(), state.leads()))
        });
        domains.collect()
    }

    /// The own domains and whether DNS answers what it should, which for a withdrawn pool is nothing:
    /// metric `dns_published`.
    #[must_use]
    pub fn answered(&self) -> Vec<(&str, bool)> {
        let waits = self.address_pending.is_some() && !self.is_withdrawn();
        let domains = self.places.iter().filter_map(|(place, outcome)| {
            let RecordGroup::Domain(domain) = place else {
                return None;
            };
            Some((domain.as_str(), outcome.is_ok() && !waits))
        });
        domains.collect()
    }

    /// Whether the pool is not to be led to, whatever its pods say.
    fn is_withdrawn(&self) -> bool {
        matches!(
            self.standing,
            Availability::OutOfService | Availability::Removed
        )
    }

    /// When to look again although nothing changed.
    #[must_use]
    pub fn look_again(&self) -> Duration {
        let kept = self
            .places
            .iter()
            .any(|(_, outcome)| matches!(outcome, Ok(RecordGroupState::KeptAsLast)));
        if kept && self.standing == Availability::Unready || !self.is_good() {
            LOOK_SOON
        } else {
            LOOK_AGAIN
        }
    }

    /// `DnsPublished`: true where DNS answers what it should, which for a withdrawn pool is nothing.
    #[must_use]
    pub fn condition(&self) -> DnsCondition {
        let failed: BTreeSet<&str> = self
            .places
            .iter()
            .filter(|(_, outcome)| outcome.is_err())
            .map(|(place, _)| place.text())
            .collect();
        // Of a pool that stays, what is no longer wanted and denied is no fault of its own records.
        let goes = self.standing == Availability::Removed && !self.denied.is_empty();
        let errors = self.errors();
        if let Some(first) = errors.first()
            && (self.key_fault.is_some() || !failed.is_empty() || goes)
        {
            let mut message: Vec<String> = errors.iter().map(ToString::to_string).collect();
            message.truncate(3);
            let mut message = message.join("; ");
            if !failed.is_empty() {
                let failed = crate::text::listed(failed);
                message = format!("{message}; concerns {failed}");
            }
            if let Some(left) = self.left() {
                message = format!("{message}; {left}");
            }
            return DnsCondition {
                status: false,
                reason: first.reason(),
                message,
            };
        }
        if let Some(pending) = self.address_pending
            && !self.is_withdrawn()
        {
            let message = match pending {
                PendingAddress::Unknown => {
                    "no address for accessEdge.fqdn is known: set spec.accessEdge.addresses, or wait for the load balancer"
                }
                PendingAddress::OwnName => {
                    "the load balancer is told by accessEdge.fqdn itself, which leads nowhere before its addresses are published: set spec.accessEdge.addresses to the load balancer's address, or take the host name out of spec.service.annotations"
                }
            };
            return DnsCondition {
                status: false,
                reason: Reason::AddressPending,
                message: message.to_owned(),
            };
        }
        DnsCondition {
            status: true,
            reason: Reason::Published,
            message: self.good_message(),
        }
    }

    /// What may be left in zones that the server denies.
    fn left(&self) -> Option<String> {
        let places = self.denied.iter().map(|(place, _)| place.to_string());
        let left = crate::text::listed(places);
        (!self.denied.is_empty())
            .then(|| format!("no longer wanted, and there still unless the zone is gone: {left}"))
    }

    fn good_message(&self) -> String {
        let of = |state: &RecordGroupState| {
            self.places
                .iter()
                .filter(|(_, outcome)| outcome.as_ref() == Ok(state))
                .map(|(place, _)| place.to_string())
                .collect::<Vec<_>>()
        };
        let listed = crate::text::listed;
        let mut parts = Vec::new();
        match self.standing {
            Availability::Serving => {}
            Availability::Unready => {
                parts.push("no pod is ready, so the records are withdrawn".into());
            }
            Availability::OutOfService => {
                parts.push("disabled or suspended: the SRV records are withdrawn".into());
            }
            Availability::Removed => parts.push("the records are withdrawn".into()),
        }
        let kept = of(&RecordGroupState::KeptAsLast);
        if !kept.is_empty() {
            let why = match self.standing {
                Availability::OutOfService => "kept while the pool exists",
                _ => "kept, as nothing else is there",
            };
            parts.push(format!("{why}: {}", listed(kept)));
        }
        let foreign = of(&RecordGroupState::Foreign);
        if !foreign.is_empty() {
            parts.push(format!(
                "already there and not ours, so never changed or removed: {}",
                listed(foreign)
            ));
        }
        if let (Some(left), Some((_, error))) = (self.left(), self.denied.first()) {
            parts.push(format!("{left} ({error})"));
        }
        if !self.namesakes.is_empty() {
            let owners: Vec<String> = self.namesakes.iter().map(ToString::to_string).collect();
            parts.push(format!(
                "records of another operator's pool of this namespace and name are there too (owner {}): another cluster's, or left by an installation that is gone, then delete them with their TXT records",
                listed(owners)
            ));
        }
        parts.join("; ")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn domain(name: &str) -> RecordGroup {
        RecordGroup::Domain(name.to_owned())
    }

    fn report(
        standing: Availability,
        places: Vec<(RecordGroup, Result<RecordGroupState, DnsError>)>,
    ) -> DnsReport {
        DnsReport {
            standing,
            address_pending: None,
            places,
            denied: Vec::new(),
            key_fault: None,
            namesakes: BTreeSet::new(),
        }
    }

    #[test]
    fn the_condition_says_what_dns_answers_and_why() {
        use RecordGroupState::{Foreign, KeptAsLast, Published, Withdrawn};
        let host = || RecordGroup::Host("edge.example".to_owned());
        for (standing, places, says) in [
            (
                Availability::Serving,
                vec![(domain("a.example"), Published)],
                "",
            ),
            (
                Availability::Serving,
                vec![(domain("a.example"), Published), (host(), Foreign)],
                "not ours, so never changed or removed: addresses of edge.example",
            ),
            (
                Availability::Unready,
                vec![
                    (domain("a.example"), Withdrawn),
                    (domain("b.example"), KeptAsLast),
                ],
                "withdrawn; kept, as nothing else is there: SRV of b.example",
            ),
            (
                Availability::OutOfService,
                vec![(domain("a.example"), Withdrawn)],
                "disabled or suspended",
            ),
        ] {
            let places = places.into_iter().map(|(place, state)| (place, Ok(state)));
            let condition = report(standing, places.collect()).condition();
            assert!(condition.status && condition.reason == Reason::Published);
            assert!(condition.message.contains(says), "{}", condition.message);
        }
    }

    #[test]
    fn faults_are_told_once_with_the_names_they_concern() {
        let fault = || DnsError::Unreachable {
            server: "ns.example".to_owned(),
            fault: "refused".to_owned(),
        };
        let mut failing = report(
            Availability::Serving,
            vec![
                (domain("a.example"), Err(fault())),
                (domain("b.example"), Err(fault())),
                (domain("c.example"), Ok(RecordGroupState::Published)),
            ],
        );
        let condition = failing.condition();
        assert!(!condition.status);
        assert_eq!(condition.reason, Reason::DnsServerUnreachable);
        assert_eq!(condition.message.matches("ns.example").count(), 1);
        assert!(condition.message.ends_with("concerns a.example, b.example"));
        assert_eq!(failing.published(), [("c.example", true)]);
        assert_eq!(failing.look_again(), LOOK_SOON);

        failing.key_fault = Some(DnsError::KeyMissing {
            secret: "tsig".to_owned(),
        });
        assert_eq!(failing.condition().reason, Reason::ReferenceMissing);
    }

    #[test]
    fn a_pool_without_addresses_waits_for_them() {
        let mut waiting = report(Availability::Unready, vec![]);
        for (pending, remedy) in [
            (PendingAddress::Unknown, "wait for the load balancer"),
            (
                PendingAddress::OwnName,
                "take the host name out of spec.service.annotations",
            ),
        ] {
            waiting.address_pending = Some(pending);
            let condition = waiting.condition();
            assert_eq!(condition.reason, Reason::AddressPending);
            assert!(condition.message.contains(remedy), "{}", condition.message);
        }
        waiting.standing = Availability::OutOfService;
        assert!(waiting.condition().status);
    }
}
