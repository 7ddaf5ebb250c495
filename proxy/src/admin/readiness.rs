//! `/readyz`: what keeps the pod from being ready, and what is not as it should be.

use jiff::{SignedDuration, Timestamp};
use xmpp_edge_crds::{edge_config::GatewayMode, negotiation::MethodSet};

use crate::{config::ActiveConfig, stream::context::StreamContext};

/// A new pod waits for its sidecars so long: a cluster's DNS may give old answers for half a minute, and what
/// came meanwhile would bounce.
const SIDECARS_WAIT: SignedDuration = SignedDuration::from_secs(45);

/// How an edge is.
#[derive(Debug, Default)]
pub struct Readiness {
    /// What is waited for. Empty: ready.
    pub waits: Vec<String>,
    /// What keeps nobody from being ready, a line each.
    pub remarks: Vec<String>,
}

impl Readiness {
    #[must_use]
    pub fn of(context: &StreamContext) -> Self {
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
