//! How an outbound stream becomes secure and authenticated: STARTTLS, EXTERNAL, the first `db:result`.

use xmpp_edge_crds::negotiation::Method;

use super::{Announced, Outbound, OutboundOpening, OutboundState, Purpose};
use crate::{
    negotiation::{
        Environment, Fault, Link, Output, PeerRole, Step, Terms, dialback,
        pairs::{self, PairClaim},
        sasl,
        wire::{Writer, ns},
    },
    xml::Element,
};

impl Outbound {
    pub(super) fn authenticate(
        &mut self,
        announced: Announced,
        terms: Terms,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        if let (Link::Tls, Purpose::Stanzas(pair) | Purpose::Trunk(pair)) =
            (self.link, &self.purpose)
        {
            let proof = pairs::prove(environment, self.side, PeerRole::Server, &pair.to);
            if proof.is_ok() && terms.bidi && self.features.bidi && self.bidi_left && !self.bidi {
                // XEP-0288 section 2.2: asked for before authentication.
                Writer::new()
                    .raw("<bidi xmlns='")
                    .raw(ns::BIDI)
                    .raw("'/>")
                    .send(out);
                self.bidi = true;
                out.push(Output::Bidi);
            }
            if terms.methods.contains(Method::SaslOverTls) {
                let without_dialback = !terms.methods.contains(Method::TlsDialback);
                match proof {
                    Err(fault) if without_dialback => return Err(fault),
                    Err(fault) => out.push(Output::failed(&fault, Some(&pair.to))),
                    Ok(()) => {
                        out.push(Output::ok(Step::Certificate, Some(&pair.to)));
                        if self.features.external && self.sasl_left {
                            self.sasl_left = false;
                            sasl::send_auth(&self.names.local.write(&pair.from), out);
                            self.state = OutboundState::Authenticating(announced);
                            return Ok(());
                        }
                        if without_dialback {
                            return Err(self.without_external());
                        }
                    }
                }
            }
        }
        self.authenticate_by_dialback(announced, terms, environment, out)
    }

    pub(super) fn authenticate_by_dialback(
        &mut self,
        announced: Announced,
        terms: Terms,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let pair = match &self.purpose {
            Purpose::Stanzas(pair) => pair.clone(),
            Purpose::Trunk(_) => return Err(self.without_external()),
            Purpose::Verify(question) => {
                // No authentication, and no certificate: the key is what counts. Whether TLS is
                // needed was decided before.
                dialback::send_verify(question, out);
                self.state = OutboundState::Verifying;
                return Ok(());
            }
        };
        let method = if self.link == Link::Tls {
            Method::TlsDialback
        } else {
            Method::TcpDialback
        };
        if !terms.methods.contains(method)
            || !(self.features.dialback || announced.declares_dialback)
        {
            return Err(self.sasl_rejected.take().unwrap_or(Fault::NoUsableMethod));
        }
        let claim = PairClaim { pair, method };
        self.ask(claim, announced.id.as_deref(), environment, out)?;
        self.state = OutboundState::DialingBack(announced);
        Ok(())
    }

    /// Nothing but EXTERNAL would do, and that is not to be had.
    fn without_external(&mut self) -> Fault {
        let rejected = self.sasl_rejected.take();
        rejected.unwrap_or(Fault::ExternalNotOffered)
    }

    /// Sends our key for a pair.
    pub(super) fn ask(
        &mut self,
        claim: PairClaim,
        id: Option<&str>,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let id = id.ok_or(Fault::StreamIdMissing)?;
        let key = environment
            .dialback()
            .key(claim.pair.to.as_str(), claim.pair.from.as_str(), id);
        dialback::send_result(&claim.pair, self.names, &key, out);
        self.asked.push(claim);
        Ok(())
    }

    pub(super) fn tls_established(&mut self, out: &mut Vec<Output>) -> Result<(), Fault> {
        if !matches!(self.state, OutboundState::Handshaking) {
            return Err(Fault::UnexpectedElement("starttls".to_owned()));
        }
        self.link = Link::Tls;
        self.state = OutboundState::Opening(OutboundOpening {
            authenticated: false,
        });
        self.send_header(out);
        Ok(())
    }

    pub(super) fn tls_answer(
        &mut self,
        element: &Element,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        match (&self.state, element.name.as_str()) {
            (OutboundState::AskingTls, "proceed") => {
                self.state = OutboundState::Handshaking;
                out.push(Output::StartTls {
                    domain: self.purpose.peer().clone(),
                });
                Ok(())
            }
            (OutboundState::AskingTls, "failure") => Err(Fault::TlsRefused),
            (_, name) => Err(Fault::UnexpectedElement(name.to_owned())),
        }
    }

    pub(super) fn sasl_answer(
        &mut self,
        element: &Element,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let OutboundState::Authenticating(announced) = &self.state else {
            return Err(Fault::UnexpectedElement(element.name.clone()));
        };
        let announced = announced.clone();
        match element.name.as_str() {
            "success" => {
                out.push(Output::ok(Step::Sasl, Some(self.purpose.peer())));
                out.push(Output::Restart);
                self.state = OutboundState::Opening(OutboundOpening {
                    authenticated: true,
                });
                self.send_header(out);
                Ok(())
            }
            "challenge" => {
                // We sent all there is to say; some servers ask all the same (RFC 4422 section 5).
                Writer::new()
                    .raw("<response xmlns='")
                    .raw(ns::SASL)
                    .raw("'/>")
                    .send(out);
                Ok(())
            }
            "failure" => {
                let (condition, text) = sasl::read_failure(element);
                let fault = Fault::SaslRejected {
                    condition,
                    text,
                    ended: false,
                };
                out.push(Output::failed(&fault, Some(self.purpose.peer())));
                self.sasl_rejected = Some(fault);
                let terms = self.terms(environment)?;
                self.authenticate_by_dialback(announced, terms, environment, out)
            }
            name => Err(Fault::UnexpectedElement(name.to_owned())),
        }
    }
}
