//! What is in force: a checked configuration with everything derived from it, immutable.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use xmpp_edge_crds::{
    domain::{DomainName, DomainPattern},
    edge_config::{EdgeConfig, Gateway, GatewayMode, Partner, PartnerTrust, VERSION, Version},
    verdict::PartnerIndex,
};

use super::{ConfigInputs, ConfigSecrets, sidecar::EdgeDials};
use crate::{
    contacts::ContactHolders,
    dns::SocksProxy,
    negotiation::{Pair, Side, dialback},
    policy::Policy,
    telemetry::{
        attempts::AttemptPeer,
        log_limiter::{LogLines, limited},
    },
    tls::{
        self, CertificateFault, Identity, IdentityError, LeafIssuer, Role, Roots, RootsError,
        Trust, TrustStamp, Verified, VerifiedBy,
    },
};

/// Everything a stream asks for, swapped as a whole.
pub struct ActiveConfig {
    pub document: Arc<EdgeConfig>,
    pub policy: Policy,
    pub dialback: dialback::Secret,
    /// What partners see; absent while the certificate is being obtained.
    pub identity: Option<Arc<Identity>>,
    /// Leaves for partners' domains, towards inside.
    pub leaves: Option<Arc<LeafIssuer>>,
    /// In the order of `document.partners`.
    pub partner_trust: Vec<Trust>,
    /// For domains of no partner: the public authorities and the pool's own.
    pub public_trust: Trust,
    /// The internal CA.
    pub internal_trust: Trust,
    /// What SIP servers of another PKI are shown, by the gateway's effective name.
    pub(super) sip_identities: BTreeMap<String, Arc<Identity>>,
    gateways: Vec<ActiveGateway>,
    gateway_of: HashMap<DomainName, usize>,
    /// Domains that partner objects name themselves.
    listed: HashSet<DomainName>,
    /// What of the document cannot be used, and concerns those alone whom it names.
    pub unusable: Vec<String>,
    pub admin_token: Option<zeroize::Zeroizing<String>>,
    /// How edge pods are dialled, by a sidecar; none at an edge.
    pub edge_dials: Option<Arc<EdgeDials>>,
    /// The way to partners; none: they are dialled directly.
    pub egress: Option<Arc<SocksProxy>>,
    pub loaded_time: Timestamp,
    /// As [`ConfigInputs::document_sha256`].
    pub document_sha256: Option<Arc<str>>,
    /// Said of leaves that could not be made, a few times for each configuration.
    issuer_lines: LogLines,
    /// What it was built from beside the document.
    materials: Arc<ConfigSecrets>,
}

/// Keys are in it: its generation is shown.
impl std::fmt::Debug for ActiveConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ActiveConfig")
            .field("generation", &self.document.generation)
            .finish_non_exhaustive()
    }
}

/// One gateway with what it trusts.
pub struct ActiveGateway {
    pub config: Gateway,
    /// Beside the internal CA: the gateway's own PKI.
    pub(super) own: Option<Trust>,
    /// Beside the internal CA: its sidecars' listed keys, and an issuer of their own.
    sidecars: Option<Trust>,
    pub(super) internal: Trust,
}

impl std::fmt::Debug for ActiveGateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ActiveGateway")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Why a configuration does not come into force; the one before stays.
#[derive(Debug, thiserror::Error)]
pub enum Rejected {
    #[error(
        "the document has version {}.{}, this proxy reads {}.{} and the two minor versions before: upgrade the proxy, or let the operator write the older form",
        .0.major, .0.minor, VERSION.major, VERSION.minor
    )]
    Version(Version),
    #[error("certificate: {0}")]
    Identity(#[source] IdentityError),
    #[error("certificate for a SIP server: {0}")]
    SipIdentity(#[source] IdentityError),
    #[error("intermediate of the internal CA: {0}")]
    Issuer(#[source] IdentityError),
    #[error("{0}")]
    Roots(#[from] RootsError),
    #[error("the dialback secret is empty")]
    DialbackSecret,
}

/// Whether a build that writes `own` reads `found`: its own minor version and the two before. A later
/// one may ask for what this build would not do.
fn is_read(found: Version, own: Version) -> bool {
    found.major == own.major && (found.minor..=found.minor + 2).contains(&own.minor)
}

impl ActiveConfig {
    /// Checks everything before anything is swapped.
    ///
    /// # Errors
    /// [`Rejected`]: what, where, and what to do.
    pub fn build(inputs: &ConfigInputs) -> Result<Self, Rejected> {
        Self::build_after(inputs, None)
    }

    /// As [`Self::build`]. With the very materials of `last` its identity and its leaves go on: an
    /// edit of the document alone has no leaf made again.
    ///
    /// # Errors
    /// As there.
    pub fn build_after(inputs: &ConfigInputs, last: Option<&Self>) -> Result<Self, Rejected> {
        let last = last.filter(|last| Arc::ptr_eq(&last.materials, &inputs.materials));
        let config = Arc::clone(&inputs.config);
        let materials = &inputs.materials;
        if !is_read(config.version, VERSION) {
            return Err(Rejected::Version(config.version));
        }
        if materials.dialback_secret.is_empty() {
            return Err(Rejected::DialbackSecret);
        }
        let identity = match (&materials.certificate, last) {
            (_, Some(last)) => last.identity.clone(),
            (Some(pair), None) => Some(Arc::new(
                Identity::from_pem(&pair.chain, &pair.key, "the pool's certificate")
                    .map_err(Rejected::Identity)?,
            )),
            (None, None) => None,
        };
        let leaves = match (&materials.issuer, last) {
            (_, Some(last)) => last.leaves.clone(),
            (Some(pair), None) => Some(Arc::new(
                LeafIssuer::new(&pair.chain, &pair.key, "the internal issuer")
                    .map_err(Rejected::Issuer)?,
            )),
            (None, None) => None,
        };
        let sip_identities = match last {
            Some(last) => last.sip_identities.clone(),
            None => sip_identities(materials)?,
        };
        let mut shared = Roots::public();
        let mut unusable = Vec::new();
        if let Some(pem) = &config.trust_ca {
            match Roots::from_pem(pem, "spec.trust.caConfigMapRef of the pool") {
                Ok(own) => shared = shared.and(own),
                Err(error) => unusable.push(error.to_string()),
            }
        }
        let partner_trust = config
            .partners
            .iter()
            .map(|partner| {
                let origin = format!("partner {}", partner.name);
                let (trust, why) =
                    Trust::of_partner_as_far_as_usable(&partner.trust, &shared, &origin);
                unusable.extend(why);
                trust
            })
            .collect();
        let internal_trust =
            Trust::new(Roots::from_pem(&materials.internal_ca, "the internal CA")?);
        let mut gateways = Vec::new();
        let mut gateway_of = HashMap::new();
        let patterns = config.partners.iter().flat_map(|own| &own.domains);
        let listed = patterns.filter_map(|pattern| match pattern {
            DomainPattern::Exact(domain) => Some(domain.clone()),
            DomainPattern::Below(_) => None,
        });
        let listed = listed.collect();
        for gateway in &config.gateways {
            let mut own = None;
            let mut fault = None;
            if let Some(pem) = &gateway.trust_ca {
                let name = gateway.effective_name();
                let origin = format!("gateway {name}, trust.caConfigMapRef");
                match Roots::from_pem(pem, &origin) {
                    Ok(roots) => own = Some(roots),
                    Err(error) => fault = Some(error.to_string()),
                }
            }
            if gateway.trust_public_roots {
                own = Some(match own {
                    Some(own) => own.and(Roots::public()),
                    None => Roots::public(),
                });
            }
            let (sidecars, sidecars_fault) = trust_of_sidecars(gateway);
            let of_nobody = fault.as_deref().map(Trust::of_nobody);
            unusable.extend(fault.into_iter().chain(sidecars_fault));
            for domain in &gateway.domains {
                gateway_of.insert(domain.clone(), gateways.len());
            }
            gateways.push(ActiveGateway {
                config: gateway.clone(),
                own: own.map(Trust::new).or(of_nobody),
                sidecars,
                internal: internal_trust.clone(),
            });
        }
        Ok(Self {
            policy: match &inputs.edge_dials {
                None => Policy::new(Arc::clone(&config)),
                Some(_) => Policy::passing(Arc::clone(&config)),
            },
            edge_dials: inputs.edge_dials.clone(),
            dialback: dialback::Secret::new(
                &materials.dialback_secret,
                materials.dialback_previous.as_deref().map(Vec::as_slice),
            ),
            identity,
            leaves,
            partner_trust,
            public_trust: Trust::new(shared),
            internal_trust,
            egress: config.settings.egress_proxy.clone().map(|proxy| {
                let credentials = materials.egress_credentials.clone();
                let credentials = credentials.filter(|_| proxy.has_credentials);
                Arc::new(SocksProxy::new(proxy, credentials))
            }),
            sip_identities,
            gateways,
            gateway_of,
            listed,
            unusable,
            admin_token: materials.admin_token.clone(),
            materials: Arc::clone(materials),
            loaded_time: Timestamp::now(),
            document_sha256: inputs.document_sha256.clone(),
            issuer_lines: LogLines::default(),
            document: config,
        })
    }

    /// Whether this pool serves the domain.
    #[must_use]
    pub fn is_own(&self, domain: &DomainName) -> bool {
        self.document.domains.binary_search(domain).is_ok()
            || self.document.domains.contains(domain)
    }

    /// Whether any pool of the namespace serves it.
    #[must_use]
    pub fn is_namespace_domain(&self, domain: &DomainName) -> bool {
        self.policy.partners().is_own(domain.as_str())
    }

    /// The partner that the domain belongs to, suspended or not.
    #[must_use]
    pub fn partner(&self, domain: &DomainName) -> Option<&Partner> {
        self.partner_index(domain)
            .map(|index| &self.document.partners[index.as_usize()])
    }

    /// Whether a partner object names `domain` itself, and no wildcard above it.
    #[must_use]
    pub fn lists_partner(&self, domain: &DomainName) -> bool {
        self.listed.contains(domain)
    }

    /// Name of the partner object that stanzas of `pair` cross to or from; `next_hop` is whom they go to.
    #[must_use]
    pub fn pair_partner(&self, next_hop: Side, pair: &Pair) -> Option<&str> {
        let domain = match next_hop {
            Side::Partner => &pair.to,
            Side::Gateway => &pair.from,
        };
        self.partner(domain).map(|partner| partner.name.as_str())
    }

    /// Whose share of memory the stanzas of `pair` take: that of the partner object, and at a sidecar, which
    /// knows none, one of the partner's domain.
    #[must_use]
    pub fn share_holder<'a>(&'a self, next_hop: Side, pair: &'a Pair) -> Option<&'a str> {
        match (&self.edge_dials, next_hop) {
            (None, _) => self.pair_partner(next_hop, pair),
            (Some(_), Side::Partner) => Some(pair.to.as_str()),
            (Some(_), Side::Gateway) => Some(pair.from.as_str()),
        }
    }

    /// Whether stanzas of `pair` go to their next hop by trunks, and no stream of their own is dialled.
    #[must_use]
    pub fn goes_by_trunk(&self, next_hop: Side, pair: &Pair) -> bool {
        match next_hop {
            Side::Partner => self.edge_dials.is_some(),
            Side::Gateway => self
                .gateway(&pair.to)
                .is_some_and(|gateway| gateway.config.mode == GatewayMode::Sidecar),
        }
    }

    /// The own domains whose servers are reached by trunks alone.
    #[must_use]
    pub fn domains_by_trunk(&self) -> HashSet<DomainName> {
        let gateways = self.gateways.iter().map(|own| &own.config);
        let by_trunk = gateways.filter(|own| own.mode == GatewayMode::Sidecar);
        by_trunk
            .flat_map(|own| own.domains.iter().cloned())
            .collect()
    }

    /// Whether stanzas of `pair` go to a SIP server, and no stream is dialled for them.
    #[must_use]
    pub fn goes_by_sip(&self, next_hop: Side, pair: &Pair) -> bool {
        next_hop == Side::Gateway
            && self
                .gateway(&pair.to)
                .is_some_and(|gateway| gateway.config.sip.is_some())
    }

    #[must_use]
    pub fn partner_index(&self, domain: &DomainName) -> Option<PartnerIndex> {
        self.policy.partners().find(domain.as_str())
    }

    /// Whom what is noted of `domain` belongs to.
    #[must_use]
    pub fn attempt_peer(&self, side: Side, domain: &DomainName) -> AttemptPeer<'_> {
        match side {
            Side::Partner => match self.partner(domain) {
                Some(partner) => AttemptPeer::Partner {
                    object: &partner.name,
                    listed: self.lists_partner(domain),
                },
                None => AttemptPeer::Stranger,
            },
            Side::Gateway if self.gateway(domain).is_some() => AttemptPeer::Gateway,
            Side::Gateway => AttemptPeer::NoGateway,
        }
    }

    /// The gateway of an own domain.
    #[must_use]
    pub fn gateway(&self, domain: &DomainName) -> Option<&ActiveGateway> {
        self.gateway_of
            .get(domain)
            .map(|index| &self.gateways[*index])
    }

    #[must_use]
    pub fn gateways(&self) -> &[ActiveGateway] {
        &self.gateways
    }

    /// What we present as `local` towards that side: the pool's certificate to partners, a leaf for
    /// the partner's domain inside.
    #[must_use]
    pub fn identity_of(&self, side: Side, local: &DomainName) -> Option<Arc<Identity>> {
        match side {
            Side::Partner => self.identity.clone(),
            Side::Gateway => match self.leaves.as_ref()?.leaf(local) {
                Ok(leaf) => Some(leaf),
                Err(error) => {
                    limited!(warn, self.issuer_lines, %error, "no certificate for the inside hop");
                    None
                }
            },
        }
    }
}

impl ContactHolders for ActiveConfig {
    fn holder<'a>(&'a self, domain: &'a str) -> Option<(&'a str, bool)> {
        let partners = self.policy.partners();
        let partner = partners.find(domain)?;
        let name = &self.document.partners.get(partner.as_usize())?.name;
        Some((name, partners.partner_type(partner).needs_contact()))
    }
}

impl ActiveGateway {
    /// Whether the chain proves `domain`: by the internal CA, or by the gateway's own PKI.
    ///
    /// # Errors
    /// What the internal CA has against it, or the gateway's own where that is closer.
    pub fn judge(
        &self,
        domain: &DomainName,
        chain: &[CertificateDer<'_>],
        role: Role,
    ) -> Result<Verified, CertificateFault> {
        let internal = self.internal.judge(domain, chain, role, None);
        if internal.is_err()
            && let Some(Ok(listed)) = self.of_sidecar(domain, chain)
        {
            return Ok(listed);
        }
        match (&internal, &self.own) {
            // A server that has one certificate per domain for clients too: serverAuth suffices,
            // whatever its part in the handshake; `Client` asks for the least.
            (Err(_), Some(own)) => own.judge(domain, chain, Role::Client, None),
            _ => internal,
        }
    }

    /// Whether the chain is a sidecar's that speaks for `domain`: by the internal CA, unless it was taken away
    /// ([`Gateway::issued_after`]), by a listed key, or by the issuer of sidecars' certificates.
    ///
    /// # Errors
    /// What the internal CA has against it.
    pub fn judge_sidecar(
        &self,
        domain: &DomainName,
        chain: &[CertificateDer<'_>],
    ) -> Result<(), CertificateFault> {
        if let Some(Ok(_)) = self.of_sidecar(domain, chain) {
            return Ok(());
        }
        self.internal.judge(domain, chain, Role::Client, None)?;
        match (&self.config.issued_after, chain.first()) {
            (Some(after), Some(certificate)) => tls::issued_after(certificate, *after),
            _ => Ok(()),
        }
    }

    /// Whether it is by its listed key that a sidecar speaks for `domain`: such a certificate does not end.
    #[must_use]
    pub fn lists_key_of(&self, domain: &DomainName, chain: &[CertificateDer<'_>]) -> bool {
        let listed = self.of_sidecar(domain, chain);
        matches!(listed, Some(Ok(verified)) if verified.by == VerifiedBy::Pin)
    }

    fn of_sidecar(
        &self,
        domain: &DomainName,
        chain: &[CertificateDer<'_>],
    ) -> Option<Result<Verified, CertificateFault>> {
        let sidecars = self.sidecars.as_ref()?;
        Some(sidecars.judge(domain, chain, Role::Client, None))
    }

    /// As [`Trust::stamp`], of all of them.
    #[must_use]
    pub fn stamp(&self) -> TrustStamp {
        let stamp = |trust: &Option<Trust>| trust.as_ref().map(Trust::stamp).unwrap_or_default();
        let all = self.internal.stamp().and(stamp(&self.own));
        all.and(stamp(&self.sidecars))
    }
}

/// # Errors
/// The first pair that is none.
fn sip_identities(materials: &ConfigSecrets) -> Result<BTreeMap<String, Arc<Identity>>, Rejected> {
    let pairs = materials.sip_pairs.0.iter();
    pairs
        .map(|(gateway, pair)| {
            let of = format!("that of gateway {gateway}");
            let identity = Identity::from_pem(&pair.chain, &pair.key, &of);
            let identity = identity.map_err(Rejected::SipIdentity)?;
            Ok((gateway.clone(), Arc::new(identity)))
        })
        .collect()
}

/// By which keys and certificates beside the internal CA's a gateway's sidecars are known; none where it
/// lists none. With why it is not as it was given.
fn trust_of_sidecars(gateway: &Gateway) -> (Option<Trust>, Option<String>) {
    let Some(sidecar) = &gateway.sidecar else {
        return (None, None);
    };
    if sidecar.keys.is_empty() && sidecar.trust_ca.is_none() {
        return (None, None);
    }
    let keys = sidecar.keys.iter().map(|key| key.spki_sha256.clone());
    let settings = PartnerTrust {
        ca: sidecar.trust_ca.clone(),
        pinned_spki_sha256: keys.collect(),
        ..PartnerTrust::default()
    };
    let origin = format!("gateway {}, sidecar", gateway.effective_name());
    let (trust, why) = Trust::of_partner_as_far_as_usable(&settings, &Roots::default(), &origin);
    (Some(trust), why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_of_the_own_minor_version_and_the_two_before_are_read() {
        let version = |major, minor| Version { major, minor };
        for (found, own, expected) in [
            ((1, 0), (1, 0), true),
            ((1, 2), (1, 3), true),
            ((1, 3), (1, 3), true),
            ((1, 1), (1, 3), true),
            ((1, 0), (1, 3), false),
            ((1, 4), (1, 3), false),
            ((2, 3), (1, 3), false),
            ((0, 9), (1, 0), false),
        ] {
            let is = is_read(version(found.0, found.1), version(own.0, own.1));
            assert_eq!(is, expected, "{found:?} by {own:?}");
        }
    }

    /// k3: one broken bundle is the matter of those who are verified by it.
    #[test]
    fn k3_a_bundle_that_cannot_be_used_costs_its_own_partner_and_nobody_else() {
        use super::super::fixture::active_config;
        use serde_json::json;

        let torn = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let config = active_config(|document| {
            let good = document["partners"][0].clone();
            let mut torn_one = good.clone();
            torn_one["name"] = json!("torn");
            torn_one["domains"] = json!(["torn.example"]);
            torn_one["trust"] = json!({"ca": torn});
            let mut pinned = torn_one.clone();
            pinned["name"] = json!("pinned");
            pinned["domains"] = json!(["pinned.example"]);
            pinned["trust"]["pinnedSpkiSha256"] = json!(["ab".repeat(32), "no hash"]);
            document["partners"] = json!([torn_one, good, pinned]);
            document["gateways"][0]["trustCa"] = json!(torn);
        });
        let names = ["partner torn, ", "partner pinned, ", "gateway "];
        assert_eq!(config.unusable.len(), names.len(), "{:?}", config.unusable);
        for (told, name) in config.unusable.iter().zip(names) {
            assert!(
                told.starts_with(name) && told.contains("line 1: "),
                "{told}"
            );
        }
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(["torn.example".to_owned()]);
        let chain = [params
            .expect("a name")
            .self_signed(&key)
            .expect("a certificate")
            .der()
            .clone()];
        let domain = DomainName::parse("torn.example").expect("a name");
        let labels = config.partner_trust.iter().map(|trust| {
            let fault = trust.judge(&domain, &chain, Role::Server, None);
            fault.map_err(|fault| fault.label()).err()
        });
        let unusable = Some("CertificateTrustUnusable");
        let labels: Vec<_> = labels.collect();
        assert_eq!(labels, [unusable, Some("CertificateSelfSigned"), unusable]);
        let gateway = config.gateways()[0].judge(&domain, &chain, Role::Server);
        assert_eq!(gateway.map_err(|fault| fault.label()).err(), unusable);
        // A key that is pinned needs no authority.
        let settings = PartnerTrust {
            ca: Some(torn.to_owned()),
            pinned_spki_sha256: vec![tls::spki_sha256(&chain[0]).expect("DER").to_string()],
            ..PartnerTrust::default()
        };
        let (trust, why) =
            Trust::of_partner_as_far_as_usable(&settings, &Roots::default(), "partner p");
        assert!(why.is_some());
        let verified = trust.judge(&domain, &chain, Role::Server, None);
        assert_eq!(verified.map(|verified| verified.by), Ok(VerifiedBy::Pin));
    }
}
