//! `/readyz`: what keeps the pod from being ready, and what is not as it should be.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use xmpp_edge_crds::{edge_config::GatewayMode, negotiation::MethodSet};

use crate::{
    config::ActiveConfig,
    stream::{
        context::StreamContext,
        trunk::figures::{DialFailure, DialOutcome, ShownEdge},
    },
    trunk::nonza::ServerState,
};

/// A new pod waits for its sidecars so long: a cluster's DNS may give old answers for half a minute, and what
/// came meanwhile would bounce.
const SIDECARS_WAIT: SignedDuration = SignedDuration::from_secs(45);

/// Edges that are told of at a time.
const MOST_TOLD: usize = 20;
const NO_EDGES: &str = "an edge to dial: name one in spec.gateways[].sidecar.edges of the EdgePool and copy sidecar.json anew, or give --edge";

/// How an edge or a sidecar is.
#[derive(Debug, Default)]
pub struct Readiness {
    /// What is waited for. Empty: ready.
    pub waits: Vec<String>,
    /// What keeps nobody from being ready, a line each.
    pub remarks: Vec<String>,
}

impl Readiness {
    /// For who asks: of a sidecar its edges and its server too.
    #[must_use]
    pub fn of(context: &StreamContext) -> Self {
        let mut readiness = Self::in_force(context);
        if context.config().edge_dials.is_some() {
            let trunks = &context.trunks;
            readiness.edges(&trunks.edges(), &trunks.unresolved());
            readiness.server(&trunks.own_server());
        }
        readiness
    }

    /// Whether configuration, certificates and listeners are in force.
    #[must_use]
    pub fn in_force(context: &StreamContext) -> Self {
        let config = context.config();
        let mut readiness = Self {
            waits: context.config_status.waits_for(),
            remarks: context.config_status.remarks(),
        };
        if config.identity.is_none() {
            readiness.waits.push("the pool's certificate".to_owned());
        }
        readiness.issuer(&config, Timestamp::now());
        let age = Timestamp::now().duration_since(context.started);
        for gateway in config.gateways().iter().map(|own| &own.config) {
            let name = gateway.effective_name();
            let is_reached = || !context.trunks.sidecars_of(name).is_empty();
            if gateway.mode == GatewayMode::Sidecar && !is_reached() {
                readiness.no_trunk(name, age);
            }
        }
        if context.stopping.is_cancelled() {
            readiness.waits.push("its end: it drains".to_owned());
        }
        readiness
    }

    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.waits.is_empty()
    }

    /// A sidecar without any trunk carries nothing; with one, those that are missing are told.
    fn edges(&mut self, edges: &[ShownEdge], unresolved: &BTreeMap<String, DialFailure>) {
        let named = unresolved
            .iter()
            .map(|(name, failure)| format!("a trunk to {name}: {}", failure.told()));
        let missing = edges.iter().filter(|edge| edge.trunk.is_none());
        let dialled = missing.filter_map(|edge| match &edge.outcome {
            DialOutcome::None => Some(format!("a trunk to {}", edge.address)),
            DialOutcome::Redundant { .. } => None,
            DialOutcome::Failed(failure) => {
                Some(format!("a trunk to {}: {}", edge.address, failure.told()))
            }
        });
        let mut told: Vec<String> = named.chain(dialled).take(MOST_TOLD).collect();
        if edges.iter().any(|edge| edge.trunk.is_some()) {
            let remarks = told.into_iter();
            self.remarks
                .extend(remarks.map(|text| format!("waiting for {text}")));
            return;
        }
        if told.is_empty() {
            told.push(NO_EDGES.to_owned());
        }
        self.waits.append(&mut told);
    }

    fn server(&mut self, server: &ServerState) {
        if let Some(words) = server.words() {
            self.waits.push(format!("its server: {words}"));
        }
    }

    /// No sidecar of this gateway has a trunk here.
    fn no_trunk(&mut self, gateway: &str, age: SignedDuration) {
        let text = format!("a trunk from a sidecar of gateway {gateway}");
        if age < SIDECARS_WAIT {
            self.waits.push(text);
        } else {
            self.remarks.push(format!("waiting for {text}"));
        }
    }

    fn issuer(&mut self, config: &ActiveConfig, now: Timestamp) {
        match &config.leaves {
            None => self.waits.push("the internal issuer".to_owned()),
            Some(leaves) => {
                let methods = config.gateways().iter().map(|own| own.config.methods);
                self.ended_issuer(leaves.not_after(), methods, now);
            }
        }
    }

    /// An issuer that has ended makes no leaf: without one there is no TLS inside, in neither direction.
    fn ended_issuer(
        &mut self,
        not_after: Timestamp,
        mut gateways: impl Iterator<Item = MethodSet>,
        now: Timestamp,
    ) {
        if now < not_after {
            return;
        }
        let text = format!(
            "a new internal issuer, as the last ended at {not_after} and no stream inside can be set up with TLS: the operator renews it"
        );
        if gateways.any(MethodSet::allows_plaintext) {
            self.remarks.push(format!("waiting for {text}"));
        } else {
            self.waits.push(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use xmpp_edge_crds::negotiation::Method;

    use super::*;
    use crate::telemetry::attempt::Step;

    #[test]
    fn b_41_a_sidecar_names_each_edge_that_it_waits_for_with_step_cause_and_remedy() {
        let failed = |step, label, text: &str| DialFailure::new(step, label, text.to_owned());
        let edge = |last: u8, outcome| ShownEdge {
            address: ([10, 0, 0, last], 23456).into(),
            trunk: None,
            outcome,
        };
        let refused = failed(Step::Tcp, "TcpRefused", "no connection: refused");
        let unresolved = failed(Step::Dns, "DnsNotFound", "no such name");
        let mut readiness = Readiness::default();
        readiness.edges(
            &[
                edge(1, DialOutcome::Failed(refused)),
                edge(
                    2,
                    DialOutcome::Redundant {
                        pool: "hq".parse().expect("a name"),
                        pod: "hq-0".parse().expect("a name"),
                        key: None,
                    },
                ),
                edge(3, DialOutcome::None),
            ],
            &[("hq-trunk:23456".to_owned(), unresolved)].into(),
        );
        let told = readiness.waits.join("\n");
        for part in [
            "hq-trunk:23456: step dns (DnsNotFound): no such name; correct the name",
            "10.0.0.1:23456: step tcp (TcpRefused): no connection: refused; no edge listens",
            "a trunk to 10.0.0.3:23456",
        ] {
            assert!(told.contains(part), "{part}\n{told}");
        }
        assert_eq!(readiness.waits.len(), 3, "{told}");
        let mut alone = Readiness::default();
        alone.edges(&[], &BTreeMap::new());
        assert!(!alone.is_ready());
        alone.server(&ServerState::Refuses {
            text: "not trusted".to_owned(),
        });
        assert!(alone.waits[1].contains("not trusted"), "{alone:?}");
    }

    /// B-30.
    #[test]
    fn a_new_pod_waits_for_its_sidecars_but_not_for_ever() {
        let mut readiness = Readiness::default();
        readiness.no_trunk("org", SIDECARS_WAIT - SignedDuration::from_secs(1));
        assert!(!readiness.is_ready(), "{readiness:?}");
        let mut readiness = Readiness::default();
        readiness.no_trunk("org", SIDECARS_WAIT);
        assert!(readiness.is_ready() && readiness.remarks.len() == 1);
    }

    #[test]
    fn an_issuer_that_ended_is_told_and_keeps_from_being_ready_where_it_is_the_only_way_inside() {
        let now = Timestamp::now();
        let (before, after) = (now - Duration::from_secs(1), now + Duration::from_secs(1));
        let methods = |own: Vec<Method>| MethodSet::try_from(own).unwrap();
        let tls = methods(vec![Method::SaslOverTls, Method::TlsDialback]);
        let plain = methods(vec![Method::TcpDialback]);
        for (not_after, gateways, waits, remarks) in [
            (after, [tls, tls], 0, 0),
            (before, [tls, tls], 1, 0),
            (before, [tls, plain], 0, 1),
            (now, [tls, tls], 1, 0),
        ] {
            let mut readiness = Readiness::default();
            readiness.ended_issuer(not_after, gateways.into_iter(), now);
            let told = (readiness.waits.len(), readiness.remarks.len());
            assert_eq!(told, (waits, remarks), "{readiness:?}");
        }
    }
}
