//! What the negotiation machine may ask of the world, answered from the configuration in force.

use std::time::Instant;

use rustls_pki_types::CertificateDer;
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::GatewayMode,
    negotiation::{KeyBinding, MethodSet},
    verdict::Reason,
};

use crate::{
    config::ActiveConfig,
    negotiation::{
        Carries, CertificateRejection, Environment, PeerRole, Refusal, Side, StreamLimits, Terms,
        dialback,
    },
    stream::{
        given_up::{Dispensable, GivenUp},
        proofs::Proofs,
    },
    tls::{Role, TlsaSet, Trust},
    trunk,
};

/// What a sidecar and an edge pod are to each other.
const TRUNK: Terms = Terms {
    methods: MethodSet::EXTERNAL,
    bidi: false,
    acks: false,
    carries: Carries::Trunk,
};

/// The methods of a document, by the rule of today: one that an older operator compiled, or that was
/// kept from then because its object no longer compiles, may allow dialback beside bound keys. Where
/// it allows nothing else it stays as it was.
fn effective(methods: MethodSet, keys: KeyBinding) -> MethodSet {
    methods.under(keys).unwrap_or(methods)
}

/// One stream's view: the configuration, and what DNS proved about the host that was dialled.
#[derive(Debug)]
pub struct ConfigEnvironment<'a> {
    pub config: &'a ActiveConfig,
    /// TLSA records of the target that was dialled, by the domain whose SRV record led there.
    pub tlsa: &'a [(DomainName, TlsaSet)],
    /// What the peer showed in TLS, end entity first.
    pub chain: &'a [CertificateDer<'static>],
    /// What that has proved before.
    pub proofs: &'a Proofs,
    /// What was given up towards which peers.
    pub given_up: &'a GivenUp,
}

impl ConfigEnvironment<'_> {
    fn may_have(&self, what: Dispensable, peer: &DomainName) -> bool {
        !self.given_up.contains(peer, what, Instant::now())
    }
}

impl Environment for ConfigEnvironment<'_> {
    fn admit(&self, side: Side, peer: &DomainName, local: &DomainName) -> Result<Terms, Refusal> {
        match side {
            Side::Partner => {
                if !self.config.is_own(local) {
                    return Err(Refusal::HostUnknown);
                }
                if self.config.edge_dials.is_some() {
                    return match peer.as_str() {
                        trunk::EDGE_NAME => Ok(TRUNK),
                        _ => Err(Refusal::Policy(Reason::PartnerNotAllowed)),
                    };
                }
                let partner = self
                    .config
                    .policy
                    .admit(peer.as_str())
                    .map_err(Refusal::Policy)?;
                let partner = &self.config.document.partners[partner.as_usize()];
                Ok(Terms {
                    methods: effective(partner.methods, partner.trust.key_binding()),
                    bidi: self.may_have(Dispensable::Bidi, peer),
                    acks: self.may_have(Dispensable::Acks, peer),
                    carries: Carries::Pairs,
                })
            }
            // Inside, policy never refuses a stream: whatever `local` is, each stanza is answered.
            Side::Gateway => {
                if self.config.is_namespace_domain(local) {
                    return Err(Refusal::HostUnknown);
                }
                let gateway = self
                    .config
                    .gateway(peer)
                    .ok_or(Refusal::Policy(Reason::PartnerNotAllowed))?;
                if local.as_str() == trunk::EDGE_NAME {
                    return match gateway.config.takes_trunks() {
                        true => Ok(TRUNK),
                        false => Err(Refusal::HostUnknown),
                    };
                }
                let methods = match gateway.config.mode {
                    GatewayMode::Direct => {
                        effective(gateway.config.methods, gateway.config.key_binding())
                    }
                    // What is agreed on counts between the sidecar and the server; nobody is dialled from here
                    // who could answer for a key.
                    GatewayMode::Sidecar => MethodSet::EXTERNAL,
                    // Its server speaks SIP: whoever comes by XMPP is not it.
                    GatewayMode::Sip => return Err(Refusal::Policy(Reason::PartnerNotAllowed)),
                };
                Ok(Terms {
                    methods,
                    bidi: self.may_have(Dispensable::Bidi, peer),
                    acks: self.may_have(Dispensable::Acks, peer),
                    carries: Carries::Pairs,
                })
            }
        }
    }

    fn lists(&self, side: Side, peer: &DomainName) -> bool {
        match side {
            Side::Partner => self.config.lists_partner(peer),
            // Own domains have no wildcards.
            Side::Gateway => true,
        }
    }

    fn serves(&self, side: Side, local: &DomainName) -> bool {
        match side {
            Side::Partner => self.config.is_own(local),
            Side::Gateway => !self.config.is_namespace_domain(local),
        }
    }

    fn verify_certificate(
        &self,
        side: Side,
        role: PeerRole,
        peer: &DomainName,
    ) -> Result<(), CertificateRejection> {
        let chain = self.chain;
        let role = match role {
            PeerRole::Client => Role::Client,
            PeerRole::Server => Role::Server,
        };
        let tlsa = self
            .tlsa
            .iter()
            .find(|(domain, _)| domain == peer)
            .map(|(_, records)| records);
        let partner_trust = || match self.config.policy.partners().find(peer.as_str()) {
            Some(partner) => &self.config.partner_trust[partner.as_usize()],
            None => &self.config.public_trust,
        };
        let judge = |trust: &Trust, tlsa| {
            let verify = || trust.judge(peer, chain, role, tlsa);
            self.proofs.prove(peer, trust.stamp(), chain, verify)
        };
        let judged = match (side, self.config.gateway(peer)) {
            (Side::Partner, _) if self.config.edge_dials.is_some() => {
                judge(&self.config.internal_trust, None)
            }
            (Side::Partner, _) => judge(partner_trust(), tlsa),
            (Side::Gateway, None) => judge(&self.config.internal_trust, None),
            (Side::Gateway, Some(gateway)) => {
                let verify = || gateway.judge(peer, chain, role);
                self.proofs.prove(peer, gateway.stamp(), chain, verify)
            }
        };
        judged.map_err(|fault| CertificateRejection {
            label: fault.label(),
            text: fault.to_string(),
        })
    }

    fn dialback(&self) -> &dialback::Secret {
        &self.config.dialback
    }

    fn limits(&self) -> StreamLimits {
        let settings = &self.config.document.settings;
        StreamLimits {
            max_bytes: Some(u64::from(settings.max_stanza_bytes)),
            idle_seconds: Some(u64::from(settings.stream_inactivity_timeout_seconds)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture;

    #[test]
    fn s4_bidi_is_neither_offered_to_nor_asked_of_a_peer_that_broke_over_it() {
        may_have(Dispensable::Bidi, |terms| terms.bidi);
    }

    #[test]
    fn acks_are_neither_offered_to_nor_asked_of_a_peer_that_broke_over_them() {
        may_have(Dispensable::Acks, |terms| terms.acks);
    }

    #[track_caller]
    fn may_have(what: Dispensable, has: fn(Terms) -> bool) {
        let config = fixture::active_config(|_| ());
        let domain = |name: &str| DomainName::parse(name).expect("valid");
        let (proofs, given_up) = (Proofs::default(), GivenUp::default());
        let environment = ConfigEnvironment {
            config: &config,
            tlsa: &[],
            chain: &[],
            proofs: &proofs,
            given_up: &given_up,
        };
        let has = |side, peer: &str, local: &str| {
            let terms = environment.admit(side, &domain(peer), &domain(local));
            has(terms.expect("it is admitted"))
        };
        let remember = |side, peer: &str| {
            given_up.remember(&config, (side, &domain(peer)), what, Instant::now());
        };
        let (partner, own) = ("x.partner.example", "org.example");
        assert!(has(Side::Partner, partner, own) && has(Side::Gateway, own, partner));
        remember(Side::Partner, partner);
        assert!(!has(Side::Partner, partner, own));
        assert!(has(Side::Gateway, own, partner), "it is of that peer");
        remember(Side::Gateway, own);
        assert!(!has(Side::Gateway, own, partner));
    }
}
