//! What an inbound stream offers after each header.

use xmpp_edge_crds::negotiation::Method;

use super::{Domains, Inbound};
use crate::negotiation::{
    Carries, Environment, Fault, Link, Output, Pair, PeerRole, Step, StreamLimits, Terms,
    features::{OwnFeatures, StartTlsFeature},
    pairs::{self, AuthenticatedPair},
};

impl Inbound {
    /// What is offered before authentication. `terms` are unknown while the peer has not said who it
    /// is: then EXTERNAL is not offered (XEP-0178), and each dialback pair is judged by its own.
    pub(super) fn offer(
        &self,
        domains: &Domains,
        terms: Option<Terms>,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) -> Result<OwnFeatures, Fault> {
        if self.link == Link::Plain {
            let uses_tls = terms.is_none_or(|terms| terms.methods.uses_tls());
            let plaintext = terms.is_none_or(|terms| terms.methods.allows_plaintext());
            return Ok(OwnFeatures {
                starttls: uses_tls.then_some(StartTlsFeature {
                    required: !plaintext,
                }),
                dialback: plaintext,
                limits: if plaintext {
                    environment.limits()
                } else {
                    StreamLimits::default()
                },
                ..OwnFeatures::default()
            });
        }
        let (Some(terms), Some(peer)) = (terms, &domains.peer) else {
            return Ok(OwnFeatures {
                dialback: true,
                limits: environment.limits(),
                ..OwnFeatures::default()
            });
        };
        if !terms.methods.uses_tls() {
            return Err(Fault::TlsNotSupported);
        }
        let mut external = false;
        let dialback = terms.methods.contains(Method::TlsDialback);
        if terms.methods.contains(Method::SaslOverTls) {
            match pairs::prove(environment, self.side, PeerRole::Client, peer) {
                Ok(()) => {
                    external = true;
                    out.push(Output::ok(Step::Certificate, Some(peer)));
                }
                Err(fault) if dialback => out.push(Output::failed(&fault, Some(peer))),
                Err(fault) => return Err(fault),
            }
        }
        Ok(OwnFeatures {
            starttls: None,
            external,
            dialback,
            bidi: terms.bidi,
            limits: environment.limits(),
            ..OwnFeatures::default()
        })
    }

    /// A peer older than 1.0 gets no features; it can do dialback, where no TLS is missing.
    pub(super) fn offer_old(&self, terms: Option<Terms>) -> Result<OwnFeatures, Fault> {
        let dialback = terms.is_none_or(|terms| self.dialback_method(terms).is_ok());
        if !dialback {
            return Err(Fault::UnsupportedVersion);
        }
        Ok(OwnFeatures {
            dialback: true,
            ..OwnFeatures::default()
        })
    }

    /// What is offered after SASL, and the pair that it authenticated: asked once more, since the
    /// certificate and the terms may have changed after `<success/>`.
    pub(super) fn offer_authenticated(
        &self,
        domains: &Domains,
        environment: &dyn Environment,
        out: &mut Vec<Output>,
    ) -> Result<(OwnFeatures, AuthenticatedPair), Fault> {
        let pair = self.by_sasl(domains, environment)?;
        let Pair { from, to } = pair.pair();
        let terms = environment.admit(self.side, from, to)?;
        out.push(Output::ok(Step::Sasl, Some(from)));
        let offered = match terms.carries {
            Carries::Pairs => OwnFeatures {
                dialback: terms.methods.contains(Method::TlsDialback),
                acks: terms.acks,
                limits: environment.limits(),
                ..OwnFeatures::default()
            },
            Carries::Trunk => OwnFeatures {
                trunk: true,
                limits: environment.limits(),
                ..OwnFeatures::default()
            },
        };
        Ok((offered, pair))
    }
}
