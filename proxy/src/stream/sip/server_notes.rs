//! What a link notes of its server, for who looks at the gateway: that it is reached, or away, and what it does not
//! let the edge do although it is reached.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use xmpp_edge_crds::verdict::Direction;

use super::link_settings::LinkMoment;
use crate::{
    negotiation::Side,
    sip::{method::SipMethod, wire::SipResponse},
    telemetry::{
        attempt::{AttemptStep, Step},
        log_limiter::limited,
    },
};

/// The server takes the edge for a user.
pub(super) const AUTHENTICATION: &str = "AuthenticationDemanded";
/// The server has no presence agent.
pub(super) const EVENT: &str = "EventRefused";

/// What a reached server refuses, noted once for as long as it does.
#[derive(Debug, Default)]
pub(super) struct ServerNotes {
    refused: BTreeSet<&'static str>,
}

impl ServerNotes {
    /// It answered the first OPTIONS of a connection.
    pub(super) fn reached(&mut self, moment: &LinkMoment<'_>, address: Option<SocketAddr>) {
        self.refused.clear();
        note(moment, address, "Ok", "the server answers".to_owned());
        for domain in &moment.settings.gateway.domains {
            let peer = moment.config.attempt_peer(Side::Gateway, domain);
            moment.context.attempts.connected(peer, domain);
        }
        limited!(
            info,
            moment.context.log.lines_of("SIP", "Reached"),
            gateway = moment.settings.name(),
            "the SIP server is reached"
        );
    }

    /// It cannot be reached, and is tried again then.
    pub(super) fn away(moment: &LinkMoment<'_>, again: Instant) {
        for domain in &moment.settings.gateway.domains {
            let peer = moment.config.attempt_peer(Side::Gateway, domain);
            moment.context.attempts.failed(peer, domain);
            moment.context.attempts.next_try(peer, domain, again);
        }
    }

    /// It refused what no user of it is the cause of.
    pub(super) fn refuses(
        &mut self,
        moment: &LinkMoment<'_>,
        address: Option<SocketAddr>,
        outcome: &'static str,
        text: String,
    ) {
        if self.refused.insert(outcome) {
            note(moment, address, outcome, text);
        }
    }

    /// It gave an answer: what it took it refuses no more.
    pub(super) fn answered(
        &mut self,
        moment: &LinkMoment<'_>,
        address: Option<SocketAddr>,
        response: &SipResponse,
    ) {
        let code = response.code.get();
        if self.refused.is_empty() || !(200..300).contains(&code) {
            return;
        }
        let taken: &[&str] = match response.method {
            SipMethod::Message => &[AUTHENTICATION],
            SipMethod::Subscribe => &[AUTHENTICATION, EVENT],
            _ => &[],
        };
        let before = self.refused.len();
        self.refused.retain(|outcome| !taken.contains(outcome));
        if self.refused.len() == before {
            return;
        }
        let method = response.method.as_str().unwrap_or_default();
        note(moment, address, "Ok", format!("{method}: {code}"));
        // What came last is what holds.
        for outcome in &self.refused {
            note(moment, address, outcome, "as before".to_owned());
        }
    }
}

/// A step at the server, as SIP has it.
pub(super) fn note(
    moment: &LinkMoment<'_>,
    address: Option<SocketAddr>,
    outcome: &'static str,
    text: String,
) {
    let domain = moment.settings.first_domain();
    let step = AttemptStep {
        step: Step::Sip,
        direction: Direction::Inbound,
        domain: domain.clone(),
        outcome,
        address,
        text,
        took: Duration::ZERO,
    };
    let whose = moment.config.attempt_peer(Side::Gateway, domain);
    moment.context.attempts.note(whose, step);
}
