//! What the peer says on an inbound stream, dialback apart: STARTTLS, SASL, bidi, acks.

use super::{Handshaking, Inbound, InboundOpening, InboundState};
use crate::{
    negotiation::{
        Environment, Fault, Link, MAX_SASL_FAILURES, Output, Step,
        acks::Namespace,
        features::read_limits,
        pairs, sasl,
        wire::{self, Writer, ns},
    },
    xml::Element,
};

impl Inbound {
    pub(super) fn element(
        &mut self,
        element: &Element,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) {
        if let Some(fault) = wire::peer_error(element) {
            return self.close(fault, environment, out);
        }
        let InboundState::Negotiating(_) = &self.state else {
            let fault = Fault::UnexpectedElement(element.name.clone());
            return self.close(fault, environment, out);
        };
        let namespace = element.namespace.as_str();
        let fault = match (element.name.as_str(), namespace) {
            // What a trunk says is not this machine's to answer.
            _ if self.is_trunk() => Err(self.unexpected(element)),
            ("starttls", ns::TLS) => self.starttls(out),
            (_, ns::SASL) => self.sasl(element, out),
            // ejabberd 24.10 asked in the namespace of the feature.
            ("bidi", ns::BIDI | ns::BIDI_FEATURE) => {
                self.ask_bidi(out);
                Ok(())
            }
            (_, ns::DIALBACK) => self.dialback(element, environment, out),
            ("limits", ns::LIMITS) => {
                // A stranger limits nothing.
                if self.is_authenticated() {
                    out.push(Output::PeerLimits(read_limits(element)));
                }
                Ok(())
            }
            ("compress", ns::COMPRESS) => {
                Writer::new()
                    .raw("<failure xmlns='")
                    .raw(ns::COMPRESS)
                    .raw("'><unsupported-method/></failure>")
                    .send(out);
                Ok(())
            }
            _ => match Namespace::of(namespace) {
                Some(version) if !self.needs_tls() => self.stream_management(element, version, out),
                _ => Err(self.unexpected(element)),
            },
        };
        if let Err(fault) = fault {
            self.close(fault, environment, out);
        }
    }

    fn is_trunk(&self) -> bool {
        matches!(&self.state, InboundState::Negotiating(now) if now.offered.trunk)
    }

    /// Whether nothing but STARTTLS is listened to.
    fn needs_tls(&self) -> bool {
        matches!(&self.state, InboundState::Negotiating(now) if now.tls_first)
    }

    pub(super) fn unexpected(&self, element: &Element) -> Fault {
        if self.needs_tls() {
            Fault::TlsRequired
        } else {
            Fault::UnexpectedElement(element.name.clone())
        }
    }

    pub(super) fn stray(&self, from: Option<&str>, to: Option<&str>) -> Fault {
        match &self.state {
            InboundState::Negotiating(now) if now.tls_first => Fault::TlsRequired,
            _ => pairs::stray(self.pairs().map(|(pair, _)| pair), from, to),
        }
    }

    pub(super) fn starttls(&mut self, out: &mut Vec<Output>) -> Result<(), Fault> {
        let InboundState::Negotiating(now) = &self.state else {
            return Ok(());
        };
        if self.link == Link::Tls || !self.receiving.is_empty() {
            return Err(Fault::UnexpectedElement("starttls".to_owned()));
        }
        if now.offered.starttls.is_none() {
            // RFC 6120 section 5.4.2.2: failure, then the end without a stream error.
            Writer::new()
                .raw("<failure xmlns='")
                .raw(ns::TLS)
                .raw("'/>")
                .send(out);
            wire::send_end(None, out);
            out.push(Output::failed(
                &Fault::TlsNotSupported,
                now.domains.peer.as_ref(),
            ));
            out.push(Output::Close(Fault::TlsNotSupported));
            self.state = InboundState::Closed;
            return Ok(());
        }
        Writer::new()
            .raw("<proceed xmlns='")
            .raw(ns::TLS)
            .raw("'/>")
            .send(out);
        out.push(Output::StartTls {
            domain: now.domains.local.clone(),
        });
        self.state = InboundState::Handshaking(Handshaking {
            domains: now.domains.clone(),
        });
        Ok(())
    }

    pub(super) fn tls_established(&mut self, environment: &dyn Environment, out: &mut Vec<Output>) {
        let InboundState::Handshaking(handshaking) = &self.state else {
            return self.close(
                Fault::UnexpectedElement("starttls".to_owned()),
                environment,
                out,
            );
        };
        let before = Some(handshaking.domains.clone());
        self.link = Link::Tls;
        self.bidi = false;
        self.state = InboundState::Opening(InboundOpening {
            before,
            authenticated: false,
        });
    }

    pub(super) fn sasl(&mut self, element: &Element, out: &mut Vec<Output>) -> Result<(), Fault> {
        let InboundState::Negotiating(now) = &self.state else {
            return Ok(());
        };
        if now.tls_first {
            return Err(Fault::TlsRequired);
        }
        if !self.receiving.is_empty() {
            return Err(Fault::UnexpectedElement(element.name.clone()));
        }
        let failure = match element.name.as_str() {
            "auth" => match sasl::judge(element, now.offered.external, now.domains.peer.as_ref()) {
                Ok(()) => {
                    Writer::new()
                        .raw("<success xmlns='")
                        .raw(ns::SASL)
                        .raw("'/>")
                        .send(out);
                    out.push(Output::Restart);
                    let before = Some(now.domains.clone());
                    self.state = InboundState::Opening(InboundOpening {
                        before,
                        authenticated: true,
                    });
                    return Ok(());
                }
                Err(failure) => failure,
            },
            "abort" => sasl::SaslFailure::Aborted,
            "response" => sasl::SaslFailure::MalformedRequest,
            _ => return Err(self.unexpected(element)),
        };
        failure.send(out);
        out.push(Output::Step {
            step: Step::Sasl,
            peer: now.domains.peer.clone(),
            outcome: "Refused",
            text: failure.condition().to_owned(),
        });
        self.sasl_failures += 1;
        if self.sasl_failures >= MAX_SASL_FAILURES {
            Err(Fault::TooManySaslFailures)
        } else {
            Ok(())
        }
    }

    /// XEP-0288 section 2: before authentication, or not at all.
    pub(super) fn ask_bidi(&mut self, out: &mut Vec<Output>) {
        let InboundState::Negotiating(now) = &self.state else {
            return;
        };
        if now.offered.bidi && self.receiving.is_empty() && !self.bidi {
            self.bidi = true;
            out.push(Output::Bidi);
        }
    }

    pub(super) fn stream_management(
        &mut self,
        element: &Element,
        version: Namespace,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let refuse = |condition: &str, out: &mut Vec<Output>| {
            Writer::new()
                .raw("<failed xmlns='")
                .raw(version.as_str())
                .raw("'><")
                .raw(condition)
                .raw(" xmlns='")
                .raw(ns::STANZA_ERRORS)
                .raw("'/></failed>")
                .send(out);
            Ok(())
        };
        match element.name.as_str() {
            "enable" if !self.is_authenticated() || self.acks => refuse("unexpected-request", out),
            "enable" => {
                self.acks = true;
                Writer::new()
                    .raw("<enabled xmlns='")
                    .raw(version.as_str())
                    .raw("'/>")
                    .send(out);
                out.push(Output::AcksEnabled { namespace: version });
                Ok(())
            }
            // There is no resumption, so there is nothing to resume.
            "resume" => refuse("item-not-found", out),
            name => wire::ack(self.acks, name, element, out),
        }
    }
}
