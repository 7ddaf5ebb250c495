//! The pairs of an outbound stream: the first, further ones by dialback (XEP-0220 section 2.6), the
//! reverse ones of bidi; and the answers to `db:result`, `db:verify` and probes.

use xmpp_edge_crds::negotiation::Method;

use super::{Outbound, OutboundState, Purpose};
use crate::{
    negotiation::{
        Environment, Fault, KeyVerification, Link, MAX_PAIRS, Output, Pair, PeerRole, Step,
        Unavailable, VerifyRequest,
        dialback::{self, Body, Kind, Message},
        pairs::{self, AuthenticatedPair, PairClaim, Way},
        wire::{self, Writer},
    },
    xml::Element,
};

/// Id of a `db:verify` that only asks for a sign of life, before its number.
const PROBE_ID: &str = "xmpp-edge-probe-";
/// What no server makes as a key, so that a probe never verifies anything.
const PROBE_KEY: &str = "0";

impl Outbound {
    pub(super) fn dialback_answer(
        &mut self,
        element: &Element,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        // What cannot be read was not asked for.
        let Ok(message) = Message::read(element) else {
            return Ok(());
        };
        match message.kind {
            Kind::Result => self.result(&message, environment, out),
            Kind::Verify => self.verified(message, out),
        }
    }

    /// An answer counts if this stream asked for that pair, and once (XEP-0220 section 3.1).
    pub(super) fn result(
        &mut self,
        message: &Message,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let asked = self
            .asked
            .iter()
            .position(|claim| claim.pair.from == message.to && claim.pair.to == message.from);
        let Some(asked) = asked else { return Ok(()) };
        let fault = match &message.body {
            // The peer's own request: it has its own stream for that.
            Body::Key(_) => return Ok(()),
            Body::Valid => None,
            Body::Invalid => Some(Fault::DialbackRejected),
            Body::Error(condition) => Some(Fault::DialbackError {
                condition: condition.clone(),
            }),
        };
        let claim = self.asked.swap_remove(asked);
        let first = match &self.state {
            OutboundState::DialingBack(announced) => Some(announced.id.clone()),
            _ => None,
        };
        match (fault, first) {
            (None, first) => {
                out.push(Output::ok(Step::Dialback, Some(&claim.pair.to)));
                match first {
                    Some(id) => return self.authenticated(claim, id, environment, out),
                    None => self.further_ready(claim, environment, out),
                }
            }
            (Some(fault), Some(_)) => {
                self.asked.push(claim);
                return Err(fault);
            }
            (Some(fault), None) => {
                out.push(Output::failed(&fault, Some(&claim.pair.to)));
                out.push(Output::PairFailed {
                    pair: claim.pair,
                    fault,
                });
            }
        }
        Ok(())
    }

    pub(super) fn verified(
        &mut self,
        message: Message,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        if matches!(message.body, Body::Key(_)) {
            // A question: asked on the wrong stream, so that no chain of questions can form.
            return Ok(());
        }
        match (&self.state, &self.purpose) {
            (OutboundState::Verifying, Purpose::Verify(question)) => {
                let ours = message.from == question.pair.from
                    && message.to == question.pair.to
                    && message.id.as_deref() == Some(question.stream_id.as_str());
                if !ours {
                    return Ok(());
                }
                let verdict = match message.body {
                    Body::Valid => KeyVerification::Valid,
                    Body::Invalid => KeyVerification::Invalid,
                    Body::Error(_) | Body::Key(_) => {
                        KeyVerification::Unavailable(Unavailable::Refused)
                    }
                };
                out.push(Output::Verified(verdict));
                wire::send_end(None, out);
                out.push(Output::Close(Fault::Done));
                self.state = OutboundState::Closed;
            }
            (OutboundState::Established { .. }, Purpose::Stanzas(_)) => {
                let number = message
                    .id
                    .as_deref()
                    .and_then(|id| id.strip_prefix(PROBE_ID)?.parse().ok());
                let agreed = self
                    .ready
                    .iter()
                    .map(AuthenticatedPair::pair)
                    .any(|pair| pair.from == message.to && pair.to == message.from);
                if let (Some(number), Some(last), true) = (number, self.probe, agreed)
                    && number <= last
                {
                    out.push(Output::ProbeAnswered { number });
                    self.is_proved = true;
                }
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn established_by_sasl(
        &mut self,
        id: Option<String>,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let (Purpose::Stanzas(pair) | Purpose::Trunk(pair)) = &self.purpose else {
            return Err(Fault::NoUsableMethod);
        };
        let claim = PairClaim {
            pair: pair.clone(),
            method: Method::SaslOverTls,
        };
        match self.purpose {
            Purpose::Trunk(_) => self.trunk_ready(claim, id, environment, out),
            _ => self.authenticated(claim, id, environment, out),
        }
    }

    /// Both know each other; the peer has to know what a trunk is, too.
    fn trunk_ready(
        &mut self,
        claim: PairClaim,
        id: Option<String>,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let known = pairs::authenticate(self.ground(environment), claim, Way::ToPeer)?;
        if !self.features.trunk {
            return Err(Fault::TrunkNotOffered);
        }
        out.push(Output::ok(Step::Trunk, Some(&known.pair().to)));
        out.push(Output::TrunkReady {
            peer: known.pair().to.clone(),
        });
        self.ready.push(known);
        self.state = OutboundState::Established { id };
        Ok(())
    }

    /// The first pair is authenticated; stanzas wait for the acks to be agreed on.
    pub(super) fn authenticated(
        &mut self,
        claim: PairClaim,
        id: Option<String>,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let first = pairs::authenticate(self.ground(environment), claim, Way::ToPeer)?;
        let may_ask = self.acks_left && self.terms(environment).is_ok_and(|terms| terms.acks);
        let Some(version) = self.features.acks.filter(|_| may_ask) else {
            return self.establish(first, id, environment, out);
        };
        // The peer knows us now: its stanzas may come before its answer to `<enable/>`.
        self.take_reverse(&first, environment, out);
        Writer::new()
            .raw("<enable xmlns='")
            .raw(version.as_str())
            .raw("'/>")
            .send(out);
        self.state = OutboundState::EnablingAcks { first, id };
        Ok(())
    }

    /// Stanzas flow from here on. What is in force may have changed while the acks were agreed on.
    pub(super) fn establish(
        &mut self,
        first: AuthenticatedPair,
        id: Option<String>,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        pairs::still_holds(self.ground(environment), &first)?;
        self.sasl_rejected = None;
        self.state = OutboundState::Established { id };
        self.pair_ready(first, environment, out);
        Ok(())
    }

    fn pair_ready(
        &mut self,
        known: AuthenticatedPair,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) {
        self.take_reverse(&known, environment, out);
        out.push(known.announce());
        self.ready.push(known);
    }

    /// The peer takes a further pair; what is in force may have changed since it was asked.
    fn further_ready(
        &mut self,
        claim: PairClaim,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) {
        let pair = claim.pair.clone();
        match pairs::authenticate(self.ground(environment), claim, Way::ToPeer) {
            Ok(known) => self.pair_ready(known, environment, out),
            Err(fault) => out.push(Output::PairFailed { pair, fault }),
        }
    }

    /// Bidi takes stanzas of authenticated pairs reversed, and only from a peer whose certificate
    /// proves that domain.
    fn take_reverse(
        &mut self,
        known: &AuthenticatedPair,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) {
        let claim = PairClaim {
            pair: known.pair().reversed(),
            method: known.method(),
        };
        if !self.bidi || self.taken.iter().any(|taken| *taken.pair() == claim.pair) {
            return;
        }
        if let Ok(taken) = pairs::authenticate(self.ground(environment), claim, Way::FromPeer) {
            out.push(taken.announce());
            self.taken.push(taken);
        }
    }

    pub(super) fn add_pair(
        &mut self,
        pair: Pair,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) {
        let id = match &self.state {
            OutboundState::Established { id } => id.clone(),
            // Stanzas do not flow yet: who asks has no time to wait.
            _ => {
                let fault = Fault::NotMultiplexable;
                out.push(Output::PairFailed { pair, fault });
                return;
            }
        };
        if let Some(ready) = self.ready.iter().find(|ready| *ready.pair() == pair) {
            match pairs::still_holds(self.ground(environment), ready) {
                Ok(()) => out.push(ready.announce()),
                Err(fault) => out.push(Output::PairFailed { pair, fault }),
            }
            return;
        }
        if self.asked.iter().any(|asked| asked.pair == pair) {
            return;
        }
        let asked = self
            .method_of_further(&pair, environment)
            .and_then(|method| {
                let claim = PairClaim {
                    pair: pair.clone(),
                    method,
                };
                self.ask(claim, id.as_deref(), environment, out)
            });
        if let Err(fault) = asked {
            out.push(Output::PairFailed { pair, fault });
        }
    }

    /// A further pair is asked for by dialback (XEP-0220 section 2.6), and only where a stream of its
    /// own would bring nothing better: it stands on the certificate where the stream does, else on
    /// dialback.
    pub(super) fn method_of_further(
        &self,
        pair: &Pair,
        environment: &dyn Environment,
    ) -> Result<Method, Fault> {
        if self.ready.len() + self.asked.len() >= MAX_PAIRS {
            return Err(Fault::TooManyPairs);
        }
        let terms = environment.admit(self.side, &pair.to, &pair.from)?;
        if !self.may_ask_for(pair) {
            return Err(Fault::NotMultiplexable);
        }
        let allows = |method| terms.methods.contains(method);
        if self.link == Link::Plain {
            return match allows(Method::TcpDialback) && !terms.methods.uses_tls() {
                true => Ok(Method::TcpDialback),
                // TLS may be had on a stream of its own.
                false => Err(Fault::NotMultiplexable),
            };
        }
        let proven = pairs::prove(environment, self.side, PeerRole::Server, &pair.to).is_ok();
        let by_sasl = self
            .ready
            .first()
            .is_some_and(|first| first.method() == Method::SaslOverTls);
        if allows(Method::SaslOverTls) && proven && by_sasl {
            return Ok(Method::SaslOverTls);
        }
        // Another target may show another certificate, or get EXTERNAL, on a stream of its own.
        let may_do_better = allows(Method::SaslOverTls)
            && !self.has_target(pair)
            && (!proven || self.features.external);
        if allows(Method::TlsDialback) && !may_do_better {
            return Ok(Method::TlsDialback);
        }
        Err(Fault::NotMultiplexable)
    }

    fn has_target(&self, pair: &Pair) -> bool {
        self.ready.iter().any(|known| known.pair().to == pair.to)
    }

    /// A further target wants `<errors/>`. A further sender does not (XEP-0220 section 2.6.1), but a
    /// peer without them may end the whole stream over it: only where XEP-0198 saves the others.
    fn may_ask_for(&self, pair: &Pair) -> bool {
        self.features.dialback_errors
            || self.features.dialback && self.acks && self.has_target(pair)
    }

    pub(super) fn send_probe(&mut self, number: u64, out: &mut Vec<Output>) {
        if !self.can_probe() {
            return;
        }
        let Some(known) = self.ready.first() else {
            return;
        };
        // The receiving domain asks the sending one's server, so the pair is written reversed.
        let question = VerifyRequest {
            pair: known.pair().reversed(),
            stream_id: format!("{PROBE_ID}{number}"),
            key: PROBE_KEY.to_owned(),
            names: self.names,
        };
        dialback::send_verify(&question, out);
        self.probe = Some(self.probe.map_or(number, |last| last.max(number)));
    }
}
