//! Dialback on an inbound stream: the receiving server's part (`db:result`) and the authoritative
//! server's (`db:verify`), XEP-0220 sections 2.1 and 2.2.

use xmpp_edge_crds::negotiation::Method;

use super::{Inbound, InboundState};
use crate::{
    negotiation::{
        Environment, Fault, KeyVerification, Link, MAX_REFUSED_KEYS, Output, Pair, Refusal, Side,
        Step, Terms, VerifyRequest,
        dialback::{
            self, Admitted, Body, DialbackAnswer, DialbackError, KeyRequest, Kind, Message,
            Unreadable,
        },
        pairs::{self, Way},
    },
    xml::Element,
};

impl Inbound {
    pub(super) fn dialback(
        &mut self,
        element: &Element,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let message = match Message::read(element) {
            Ok(message) => message,
            Err(Unreadable::Addresses) => return Err(Fault::StanzaAddressing),
            Err(Unreadable::Name | Unreadable::Form) => {
                return Err(Fault::UnexpectedElement(element.name.clone()));
            }
        };
        let Body::Key(key) = &message.body else {
            // We never ask on a peer's stream: an answer is unsolicited (XEP-0220 section 3.1).
            return Ok(());
        };
        match message.kind {
            Kind::Result => self.result(&message, key, environment, out),
            Kind::Verify => self.verify(&message, key, environment, out),
        }
    }

    /// The peer wants a pair authenticated.
    pub(super) fn result(
        &mut self,
        message: &Message,
        key: &str,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let pair = Pair {
            from: message.from.clone(),
            to: message.to.clone(),
        };
        let method = match self.judge_dialback(message, environment) {
            Ok(method) => method,
            Err((error, fault)) => return self.refuse(message, error, fault, out),
        };
        if key.is_empty() {
            dialback::send_answer(
                message,
                DialbackAnswer::Error(DialbackError::BadRequest),
                out,
            );
            return Ok(());
        }
        let InboundState::Negotiating(now) = &self.state else {
            return Ok(());
        };
        let admitted = match environment.lists(self.side, &pair.from) {
            true => Admitted::ByName,
            false => Admitted::ByWildcard,
        };
        match self
            .receiving
            .request(&pair, admitted, method, message.names)
        {
            KeyRequest::Ask(request) => {
                let question = VerifyRequest {
                    pair,
                    stream_id: now.stream_id.clone(),
                    key: key.to_owned(),
                    names: message.names,
                };
                out.push(Output::Verify { request, question });
            }
            KeyRequest::Authenticated => {
                dialback::send_answer(message, DialbackAnswer::Valid, out);
            }
            KeyRequest::Pending => {}
            KeyRequest::Full => {
                let error = DialbackAnswer::Error(DialbackError::ResourceConstraint);
                dialback::send_answer(message, error, out);
                out.push(Output::failed(&Fault::TooManyPairs, Some(&message.from)));
            }
        }
        Ok(())
    }

    /// The peer asks whether we made a key: we are the authoritative server of `message.to`. Any
    /// replica can tell. Asking needs no authentication, but TLS where the two domains need it.
    pub(super) fn verify(
        &mut self,
        message: &Message,
        key: &str,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let terms = match environment.admit(self.side, &message.from, &message.to) {
            Ok(terms) => terms,
            Err(refusal) => {
                let (error, fault) = refused(refusal);
                return self.refuse(message, error, fault, out);
            }
        };
        if self.link == Link::Plain && !terms.methods.allows_plaintext() {
            return self.refuse(
                message,
                DialbackError::PolicyViolation,
                Fault::TlsRequired,
                out,
            );
        }
        let Some(id) = &message.id else {
            dialback::send_answer(
                message,
                DialbackAnswer::Error(DialbackError::BadRequest),
                out,
            );
            return Ok(());
        };
        let question = VerifyRequest {
            pair: Pair {
                from: message.to.clone(),
                to: message.from.clone(),
            },
            stream_id: id.clone(),
            key: key.to_owned(),
            names: message.names,
        };
        let answer = if environment.dialback().made(&question) {
            DialbackAnswer::Valid
        } else {
            DialbackAnswer::Invalid
        };
        dialback::send_answer(message, answer, out);
        Ok(())
    }

    pub(super) fn judge_dialback(
        &self,
        message: &Message,
        environment: &dyn Environment,
    ) -> Result<Method, (DialbackError, Fault)> {
        let terms = environment
            .admit(self.side, &message.from, &message.to)
            .map_err(refused)?;
        self.dialback_method(terms)
            .map_err(|fault| (DialbackError::PolicyViolation, fault))
    }

    /// The kind of dialback that this connection would be.
    pub(super) fn dialback_method(&self, terms: Terms) -> Result<Method, Fault> {
        let method = match self.link {
            Link::Tls if !terms.methods.uses_tls() => return Err(Fault::TlsNotSupported),
            Link::Tls => Method::TlsDialback,
            Link::Plain => Method::TcpDialback,
        };
        if terms.methods.contains(method) {
            Ok(method)
        } else if self.link == Link::Plain && terms.methods.uses_tls() {
            Err(Fault::TlsRequired)
        } else {
            Err(Fault::DialbackNotAllowed)
        }
    }

    /// Answers with a dialback error; the stream lives on (XEP-0220 section 2.5), unless TLS is what
    /// is missing and nobody is on it yet, or too many were refused while nobody was.
    pub(super) fn refuse(
        &mut self,
        message: &Message,
        error: DialbackError,
        fault: Fault,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        dialback::send_answer(message, DialbackAnswer::Error(error), out);
        if fault == Fault::TlsRequired && self.receiving.is_empty() {
            return Err(fault);
        }
        out.push(Output::failed(&fault, Some(&message.from)));
        if self.is_authenticated() {
            return Ok(());
        }
        self.refused_keys = self.refused_keys.saturating_add(1);
        if self.refused_keys >= MAX_REFUSED_KEYS {
            Err(Fault::TooManyRefusedKeys)
        } else {
            Ok(())
        }
    }

    pub(super) fn verdict(
        &mut self,
        request: u32,
        verdict: KeyVerification,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) {
        // Verdicts of an earlier stream on this connection find nothing here.
        let Some((claim, names)) = self.receiving.settle(request) else {
            return;
        };
        let pair = claim.pair.clone();
        match verdict {
            KeyVerification::Valid => {
                // The configuration may have changed while the authoritative server was asked.
                let known =
                    match pairs::authenticate(self.ground(environment), claim, Way::FromPeer) {
                        Ok(known) => known,
                        Err(fault) => {
                            let error = match fault {
                                Fault::HostUnknown => DialbackError::ItemNotFound,
                                _ => DialbackError::PolicyViolation,
                            };
                            dialback::send_result_answer(
                                &pair,
                                names,
                                DialbackAnswer::Error(error),
                                out,
                            );
                            out.push(Output::failed(&fault, Some(&pair.from)));
                            return;
                        }
                    };
                dialback::send_result_answer(&pair, names, DialbackAnswer::Valid, out);
                self.authenticated(known, out);
                // It is said of a domain that is proven by now.
                out.push(Output::ok(Step::Dialback, Some(&pair.from)));
            }
            KeyVerification::Invalid => {
                dialback::send_result_answer(&pair, names, DialbackAnswer::Invalid, out);
                if self.receiving.is_empty() {
                    // XEP-0220 section 2.1.1: nothing else is on this stream.
                    self.close(Fault::DialbackFailed, environment, out);
                } else {
                    out.push(Output::failed(&Fault::DialbackFailed, Some(&pair.from)));
                }
            }
            KeyVerification::Unavailable(why) => {
                let error = if self.side == Side::Partner && !self.is_authenticated() {
                    DialbackError::to_stranger(why)
                } else {
                    why.into()
                };
                dialback::send_result_answer(&pair, names, DialbackAnswer::Error(error), out);
                out.push(Output::Step {
                    step: Step::Dialback,
                    peer: Some(pair.from),
                    outcome: why.label(),
                    text: why.to_string(),
                });
            }
        }
    }
}

fn refused(refusal: Refusal) -> (DialbackError, Fault) {
    let error = match refusal {
        Refusal::HostUnknown => DialbackError::ItemNotFound,
        Refusal::Policy(_) => DialbackError::PolicyViolation,
    };
    (error, refusal.into())
}
