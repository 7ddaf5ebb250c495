//! What a stream died over that the edge asked for, and what the driver shall do without on the next.

use xmpp_edge_crds::negotiation::Method;

use super::{Announced, Outbound, OutboundOpening, OutboundState};
use crate::negotiation::{Environment, Fault};

/// Stream errors with which a server answers an element that it does not want (RFC 6120 section 4.9.3).
const OVER_AN_ELEMENT: [&str; 8] = [
    "bad-format",
    "bad-namespace-prefix",
    "invalid-namespace",
    "invalid-xml",
    "policy-violation",
    "undefined-condition",
    "unsupported-feature",
    "unsupported-stanza-type",
];

impl Outbound {
    /// The end of the stream as what it was over, where that was something that can be left out.
    pub(super) fn blame(&mut self, fault: Fault, environment: &dyn Environment) -> Fault {
        match self.blame_bidi(fault) {
            Ok(fault) => fault,
            Err(fault) => match self.blame_acks(fault) {
                Ok(fault) => fault,
                Err(fault) => self.blame_sasl(fault, environment),
            },
        }
    }

    /// Some servers end the stream over `<bidi/>`, as soon as both sides have it, or over the first stanza
    /// after; others say nothing any more: nobody needs it, and the driver shall do without. `Err`: it is
    /// not to blame.
    fn blame_bidi(&self, fault: Fault) -> Result<Fault, Fault> {
        let waits = match &self.state {
            OutboundState::Authenticating(_)
            | OutboundState::DialingBack(_)
            | OutboundState::EnablingAcks { .. } => true,
            OutboundState::Opening(OutboundOpening { authenticated })
            | OutboundState::Announced(Announced { authenticated, .. }) => *authenticated,
            OutboundState::Established { .. } => !self.is_proved,
            _ => false,
        };
        if !(self.bidi && waits && self.sasl_rejected.is_none()) {
            return Err(fault);
        }
        // It has answered since; what it is silent on is `<enable/>`.
        if let (Fault::EstablishmentTimeout, OutboundState::EnablingAcks { .. }) =
            (&fault, &self.state)
        {
            return Err(fault);
        }
        let (condition, text) = over_an_element(fault)?;
        Ok(Fault::BidiRejected { condition, text })
    }

    /// As [`Self::blame_bidi`], of a server that announces XEP-0198 and ends the stream over `<enable/>`, or
    /// never answers it.
    fn blame_acks(&self, fault: Fault) -> Result<Fault, Fault> {
        if !matches!(self.state, OutboundState::EnablingAcks { .. }) {
            return Err(fault);
        }
        let (condition, text) = over_an_element(fault)?;
        Ok(Fault::AcksRejected { condition, text })
    }

    /// Some servers answer EXTERNAL with the end of the stream, at once or after `<failure/>`: where
    /// dialback is allowed, the driver shall try that next, on another stream.
    fn blame_sasl(&mut self, fault: Fault, environment: &dyn Environment) -> Fault {
        let rejected = match (&self.state, &fault) {
            (OutboundState::DialingBack(_), Fault::PeerClosed | Fault::PeerError { .. }) => {
                match self.sasl_rejected.take() {
                    Some(Fault::SaslRejected {
                        condition, text, ..
                    }) => (condition, text),
                    _ => return fault,
                }
            }
            (OutboundState::Authenticating(_), Fault::PeerError { condition, text }) => {
                (condition.clone(), text.clone())
            }
            (OutboundState::Authenticating(_), Fault::PeerClosed) => {
                ("no answer".to_owned(), fault.to_string())
            }
            (
                OutboundState::Opening(OutboundOpening {
                    authenticated: true,
                }),
                Fault::UnexpectedElement(_),
            ) => ("no header".to_owned(), fault.to_string()),
            // It took EXTERNAL, and ends the stream that should follow.
            (
                OutboundState::Opening(OutboundOpening {
                    authenticated: true,
                })
                | OutboundState::Announced(Announced {
                    authenticated: true,
                    ..
                }),
                Fault::PeerError { condition, text },
            ) => (condition.clone(), text.clone()),
            (
                OutboundState::Opening(OutboundOpening {
                    authenticated: true,
                })
                | OutboundState::Announced(Announced {
                    authenticated: true,
                    ..
                }),
                Fault::PeerClosed,
            ) => ("no stream".to_owned(), fault.to_string()),
            _ => return fault,
        };
        let dialback_is_left = self
            .terms(environment)
            .is_ok_and(|terms| terms.methods.contains(Method::TlsDialback));
        if !dialback_is_left {
            return fault;
        }
        let (condition, text) = rejected;
        Fault::SaslRejected {
            condition,
            text,
            ended: true,
        }
    }
}

/// What a peer said that ended the stream over an element, or without a word, or that said nothing more.
/// `Err`: it was none of these.
fn over_an_element(fault: Fault) -> Result<(String, String), Fault> {
    match fault {
        Fault::PeerError { condition, text } if OVER_AN_ELEMENT.contains(&condition.as_str()) => {
            Ok((condition, text))
        }
        Fault::PeerClosed | Fault::EstablishmentTimeout => {
            Ok(("no answer".to_owned(), fault.to_string()))
        }
        fault => Err(fault),
    }
}
