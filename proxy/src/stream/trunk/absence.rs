//! Since when no trunk leads to where stanzas go, and why none does: how long they wait follows from that.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use xmpp_edge_crds::domain::DomainName;

use crate::{
    config::trunk_name::TrunkName,
    routing::failure::{Failure, FailureKind},
};

/// So long stanzas wait for a trunk at all; where none has led there for longer they are answered at once.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Why no trunk leads there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AbsenceCause {
    /// None stands.
    NoTrunk,
    /// One stands, to a sidecar that does not reach its server.
    ServerDown {
        instance: TrunkName,
        /// What the server said, or the network.
        text: String,
    },
}

/// That no trunk leads there.
#[derive(Clone, Debug)]
pub struct Absence {
    pub since: Instant,
    pub since_time: Timestamp,
    pub cause: AbsenceCause,
}

impl Absence {
    /// As the answer to what waits for `who`, an edge or a sidecar. Refused: no longer waited for.
    #[must_use]
    pub(super) fn failure(&self, who: &str, now: Instant) -> Failure {
        let kind = if self.is_long(now) {
            FailureKind::Refused
        } else {
            FailureKind::Unreachable
        };
        let time = self.since_time.strftime("%H:%M:%S");
        let text = match &self.cause {
            AbsenceCause::NoTrunk => format!("no {who} is connected since {time}"),
            AbsenceCause::ServerDown { instance, text } => {
                format!("the server beside {instance}, {who}, is away since {time}: {text}")
            }
        };
        Failure::new(kind, text)
    }

    #[must_use]
    pub(super) fn is_long(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= PATIENCE
    }
}

/// A place that trunks lead to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TrunkPlace {
    /// To a sidecar: any edge.
    Edges,
    /// To an edge: the server of this own domain, behind a sidecar that speaks for it.
    Server(DomainName),
}

/// Whether a trunk leads to each of the places that one is to lead to, and since when none does.
#[derive(Debug)]
pub(super) struct TrunkWays(HashMap<TrunkPlace, TrunkWay>);

#[derive(Clone, Copy, Debug)]
enum TrunkWay {
    Leads,
    Gone(Instant, Timestamp),
}

impl TrunkWay {
    fn gone_now() -> Self {
        Self::Gone(Instant::now(), Timestamp::now())
    }
}

impl Default for TrunkWays {
    fn default() -> Self {
        // An edge is never asked for this one.
        Self([(TrunkPlace::Edges, TrunkWay::gone_now())].into())
    }
}

impl TrunkWays {
    /// Trunks are to lead to the servers of these domains from here on, and to those of no others. Nobody was waited
    /// for where none was to lead before.
    pub(super) fn expect(&mut self, domains: &HashSet<DomainName>) {
        self.0.retain(|place, _| match place {
            TrunkPlace::Edges => true,
            TrunkPlace::Server(domain) => domains.contains(domain),
        });
        for domain in domains {
            let place = TrunkPlace::Server(domain.clone());
            self.0.entry(place).or_insert_with(TrunkWay::gone_now);
        }
    }

    /// Looks at each place whether a trunk leads there now.
    pub(super) fn look(&mut self, leads: impl Fn(&TrunkPlace) -> bool) {
        for (place, way) in &mut self.0 {
            *way = match (*way, leads(place)) {
                (_, true) => TrunkWay::Leads,
                (TrunkWay::Leads, false) => TrunkWay::gone_now(),
                (same, false) => same,
            };
        }
    }

    /// Since when none does; since now where one leads there, or none was to.
    pub(super) fn absent_since(&self, place: &TrunkPlace) -> (Instant, Timestamp) {
        match self.0.get(place) {
            Some(TrunkWay::Gone(since, time)) => (*since, *time),
            Some(TrunkWay::Leads) | None => (Instant::now(), Timestamp::now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::fixture, stream::context::StreamContext};

    fn absence(cause: AbsenceCause) -> Absence {
        Absence {
            since: Instant::now(),
            since_time: Timestamp::UNIX_EPOCH,
            cause,
        }
    }

    #[test]
    fn what_waits_is_told_who_is_away_since_when_and_is_not_kept_for_ever() {
        let absence_of_all = absence(AbsenceCause::NoTrunk);
        let soon = absence_of_all.failure("sidecar of org.example", absence_of_all.since);
        assert_eq!(soon.kind, FailureKind::Unreachable);
        let text = "no sidecar of org.example is connected since 00:00:00";
        assert_eq!(&*soon.text, text);
        let later = absence_of_all.since + PATIENCE;
        let late = absence_of_all.failure("sidecar of org.example", later);
        assert_eq!(late.kind, FailureKind::Refused);
        let down = absence(AbsenceCause::ServerDown {
            instance: "prosody-0".parse().expect("a name"),
            text: "connection refused".to_owned(),
        });
        let said = down.failure("sidecar of org.example", down.since);
        let text = "the server beside prosody-0, sidecar of org.example, is away since 00:00:00: connection refused";
        assert_eq!(&*said.text, text);
    }

    fn server(domain: &str) -> TrunkPlace {
        TrunkPlace::Server(DomainName::parse(domain).expect("valid"))
    }

    fn expected(domains: &[&str]) -> HashSet<DomainName> {
        let domains = domains.iter().map(|own| DomainName::parse(own));
        domains.collect::<Result<_, _>>().expect("valid")
    }

    #[test]
    fn absence_counts_from_when_the_last_way_went() {
        let (mut ways, org) = (TrunkWays::default(), server("org.example"));
        ways.expect(&expected(&["org.example"]));
        let began = ways.absent_since(&org).0;
        ways.look(|_| false);
        assert_eq!(ways.absent_since(&org).0, began, "none was there yet");
        ways.look(|_| true);
        ways.look(|_| false);
        let gone = ways.absent_since(&org).0;
        assert!(gone > began);
        ways.look(|_| false);
        assert_eq!(ways.absent_since(&org).0, gone);
    }

    /// A gateway that is new to an edge that has run for hours, and one that was taken away and comes again.
    #[test]
    fn where_no_trunk_was_to_lead_nobody_is_absent_before_one_is_to() {
        let (mut ways, org) = (TrunkWays::default(), server("org.example"));
        ways.expect(&expected(&["other.example"]));
        let before = Instant::now();
        assert!(ways.absent_since(&org).0 >= before, "none was to");
        ways.expect(&expected(&["org.example"]));
        let first = ways.absent_since(&org).0;
        assert!(first >= before);
        ways.expect(&expected(&["org.example", "other.example"]));
        assert_eq!(ways.absent_since(&org).0, first, "it goes on");
        ways.expect(&expected(&[]));
        ways.expect(&expected(&["org.example"]));
        assert!(ways.absent_since(&org).0 > first, "it begins anew");
    }

    /// A sidecar whose certificate does not cover a domain of its gateway.
    #[test]
    fn a_domain_that_no_sidecar_speaks_for_is_absent_for_as_long_as_it_is_so() {
        let mut ways = TrunkWays::default();
        ways.expect(&expected(&["org.example", "org2.example"]));
        let org2 = server("org2.example");
        let since = ways.absent_since(&org2).0;
        ways.look(|place| *place == server("org.example"));
        assert_eq!(ways.absent_since(&org2).0, since);
        assert!(ways.absent_since(&server("org.example")).0 > since);
    }

    /// An edge that has run for longer than anybody is waited for: what comes for a gateway that is new to it waits.
    #[test]
    fn a_gateway_is_absent_since_the_configuration_with_it_came_into_force() {
        let (context, _dials) = StreamContext::alone(fixture::active_config(|_| ()));
        let org = server("org.example");
        let by_sidecar = || {
            fixture::active_config(|document| {
                document["gateways"][0]["mode"] = "Sidecar".into();
                document["gateways"][0]["sidecar"] = serde_json::json!({});
            })
        };
        let before = Instant::now();
        context.store_config(by_sidecar());
        let since = context.trunks.absence(&org).since;
        assert!(since >= before);
        context.store_config(by_sidecar());
        assert_eq!(context.trunks.absence(&org).since, since);
    }
}
