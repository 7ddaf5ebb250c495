//! What a link notes of its server, for who looks at the gateway: that it is reached, or away, and what it does not
//! let the edge do although it is reached.

use std::{collections::BTreeSet, net::SocketAddr};

use super::{dialled::SignOfLife, link_settings::LinkMoment};
use crate::{
    sip::{code::StatusCode, method::SipMethod, wire::SipResponse},
    telemetry::log_limiter::limited,
};

/// The server takes the edge for a user.
pub(super) const AUTHENTICATION: &str = "AuthenticationDemanded";
/// The server has no presence agent.
pub(super) const EVENT: &str = "EventRefused";
/// The server takes subscriptions, and its NOTIFYs do not come.
pub(super) const NOTIFY: &str = "NotifyMissing";

/// What a reached server refuses, noted once for as long as it does.
#[derive(Debug, Default)]
pub(super) struct ServerNotes {
    refused: BTreeSet<&'static str>,
}

impl ServerNotes {
    /// It gave this sign of life, on a connection from this address.
    pub(super) fn alive(
        &mut self,
        moment: &LinkMoment<'_>,
        address: Option<SocketAddr>,
        sign: SignOfLife,
    ) {
        match sign {
            SignOfLife::Known => return,
            SignOfLife::OneMore => {}
            SignOfLife::Reached => {
                self.refused.clear();
                limited!(
                    info,
                    moment.context.log.lines_of("SIP", "Reached"),
                    gateway = moment.settings.name(),
                    "the SIP server is reached"
                );
            }
        }
        moment.note("Ok", "the server answers".to_owned(), address);
        moment.connected();
        self.say_again(moment, address);
    }

    /// It refused what no user of it is the cause of.
    pub(super) fn refuses(
        &mut self,
        moment: &LinkMoment<'_>,
        address: Option<SocketAddr>,
        outcome: &'static str,
        code: StatusCode,
    ) {
        let text = || format!("{} {}", code.get(), code.phrase());
        self.lacks(moment, address, outcome, text);
    }

    /// It granted a subscription, and no NOTIFY came.
    pub(super) fn is_silent(&mut self, moment: &LinkMoment<'_>, address: Option<SocketAddr>) {
        let text = || {
            let name = &moment.settings.sip.edge_name;
            format!("a SUBSCRIBE was granted, and no NOTIFY came to {name} within 32 s")
        };
        self.lacks(moment, address, NOTIFY, text);
    }

    /// A NOTIFY came.
    pub(super) fn notifies(&mut self, moment: &LinkMoment<'_>, address: Option<SocketAddr>) {
        if self.refused.remove(NOTIFY) {
            moment.note("Ok", "a NOTIFY came".to_owned(), address);
            self.say_again(moment, address);
        }
    }

    fn lacks(
        &mut self,
        moment: &LinkMoment<'_>,
        address: Option<SocketAddr>,
        outcome: &'static str,
        text: impl FnOnce() -> String,
    ) {
        if self.refused.insert(outcome) {
            moment.note(outcome, text(), address);
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
        moment.note("Ok", format!("{method}: {code}"), address);
        self.say_again(moment, address);
    }

    /// What came last is what holds.
    fn say_again(&self, moment: &LinkMoment<'_>, address: Option<SocketAddr>) {
        for outcome in &self.refused {
            moment.note(outcome, "as before".to_owned(), address);
        }
    }
}
