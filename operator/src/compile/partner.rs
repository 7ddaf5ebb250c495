//! Partners: each on its own, then among each other and beside the own domains.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use xmpp_edge_crds::{
    domain::{DomainName, DomainPattern},
    edge_config::{EdgeConfig, HostPort, Partner, PartnerTrust},
    kinds::{
        XmppFederatedPartner,
        conditions::{ConditionType, Reason},
    },
    negotiation::Requirement,
};

use super::{
    claims::{Claimant, Version, resolve_conflicts},
    diagnostic::{Diagnostic, Fault, Kind, ObjectRef, Severity},
    pool::OwnDomains,
    world::{NamespaceInputs, created},
};

/// Where a partner without a port in `proxyFqdn` is dialled.
const DEFAULT_PORT: u16 = 5269;

/// A partner that is in force, before a pool's defaults.
#[derive(Clone, Debug)]
pub struct EffectivePartner {
    partner: Partner,
    /// `spec.connectionLimit`; a kept form has only what it became in each pool.
    limit: Limit,
}

#[derive(Clone, Copy, Debug)]
enum Limit {
    Own(u32),
    ThePools,
    Kept,
}

impl EffectivePartner {
    /// The partner as the proxy of one pool is to know it.
    #[must_use]
    pub fn for_pool(
        &self,
        pool: &EdgeConfig,
        last: Option<&EdgeConfig>,
        seen_keys: impl Fn(&str) -> Vec<String>,
    ) -> Partner {
        let mut partner = self.partner.clone();
        partner.connection_limit = match self.limit {
            Limit::Own(limit) => limit,
            Limit::ThePools => pool.settings.partner_connection_limit,
            Limit::Kept => last
                .and_then(|last| last.partners.iter().find(|kept| kept.name == partner.name))
                .map_or(partner.connection_limit, |kept| kept.connection_limit),
        };
        partner.trust.known_spki_sha256 = seen_keys(&partner.name);
        partner
    }
}

/// Compiles all partners of the namespace; the result is sorted by name and free of conflicts.
pub fn compile(
    world: &NamespaceInputs,
    own: &OwnDomains,
    last: &BTreeMap<String, EdgeConfig>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<EffectivePartner> {
    let kept = kept_forms(own, last);
    let mut objects: BTreeMap<String, PartnerClaim> = BTreeMap::new();
    for partner in &world.partners {
        let form = compile_one(partner, world, own);
        objects.insert(
            partner.name_any(),
            PartnerClaim {
                created: created(partner),
                suspended: Some(partner.spec.suspended),
                form,
            },
        );
    }
    for (object, broken) in &world.broken {
        if object.kind == Kind::XmppFederatedPartner {
            let form = Err(broken.fault.clone());
            objects.insert(
                object.name.clone(),
                PartnerClaim {
                    created: None,
                    suspended: broken.suspended,
                    form,
                },
            );
        }
    }
    let claimants: Vec<Claimant<DomainPattern>> = objects
        .iter()
        .map(|(name, object)| Claimant {
            name: name.clone(),
            created: object.created,
            wanted: object.form.as_ref().ok().map(|form| domains(&form.partner)),
            kept: kept.get(name).map(|form| domains(&form.partner)),
        })
        .collect();
    let mut in_force = Vec::new();
    for ((name, object), settled) in objects.into_iter().zip(resolve_conflicts(&claimants)) {
        let reference = ObjectRef::new(Kind::XmppFederatedPartner, &name);
        let last_good = settled.form == Version::LastGood;
        match (&object.form, &settled.lost) {
            (Err(fault), _) => {
                diagnostics.push(Diagnostic::rejected(reference, fault, last_good));
            }
            (_, Some((domain, winner))) => {
                let fault = Fault::new(
                    Reason::DomainConflict,
                    format!(
                        "{domain} belongs to XmppFederatedPartner {winner:?}: list it in one of the two only"
                    ),
                );
                diagnostics.push(Diagnostic::rejected(reference, &fault, last_good));
            }
            (Ok(form), None) => say_accepted(&form.partner, reference, diagnostics),
        }
        let form = match settled.form {
            Version::Desired => object.form.ok(),
            Version::LastGood => kept.get(&name).cloned(),
            Version::Rejected => None,
        };
        if let Some(mut form) = form {
            // An edit that is not taken lifts no kill switch: that line may be what is broken.
            form.partner.suspended |= object.suspended == Some(true);
            in_force.push(form);
        }
    }
    in_force
}

struct PartnerClaim {
    created: Option<jiff::Timestamp>,
    suspended: Option<bool>,
    form: Result<EffectivePartner, Fault>,
}

fn domains(partner: &Partner) -> BTreeSet<DomainPattern> {
    partner.domains.iter().cloned().collect()
}

/// What was compiled before, without domains that meanwhile became own ones.
fn kept_forms(
    own: &OwnDomains,
    last: &BTreeMap<String, EdgeConfig>,
) -> BTreeMap<String, EffectivePartner> {
    let mut kept = BTreeMap::new();
    for partner in last.values().flat_map(|config| &config.partners) {
        if kept.contains_key(&partner.name) {
            continue;
        }
        let mut partner = partner.clone();
        partner.left_out = false;
        partner.domains.retain(|domain| match domain {
            DomainPattern::Exact(domain) => !own.contains(domain),
            DomainPattern::Below(_) => true,
        });
        if !partner.domains.is_empty() {
            kept.insert(
                partner.name.clone(),
                EffectivePartner {
                    partner,
                    limit: Limit::Kept,
                },
            );
        }
    }
    kept
}

/// A partner as if it were the only one.
fn compile_one(
    object: &XmppFederatedPartner,
    world: &NamespaceInputs,
    own: &OwnDomains,
) -> Result<EffectivePartner, Fault> {
    let spec = &object.spec;
    let mut domains = Vec::with_capacity(1 + spec.additional_domains.len());
    let primary = DomainName::parse(&spec.domain)
        .map_err(|error| Fault::new(Reason::InvalidDomain, format!("spec.domain: {error}")))?;
    domains.push(DomainPattern::Exact(primary));
    for (index, text) in spec.additional_domains.iter().enumerate() {
        let domain = DomainPattern::parse(text).map_err(|error| {
            Fault::new(
                Reason::InvalidDomain,
                format!("spec.additionalDomains[{index}]: {error}"),
            )
        })?;
        if !domains.contains(&domain) {
            domains.push(domain);
        }
    }
    let negotiation = spec.negotiation();
    let methods = spec
        .methods()
        .map_err(|error| Fault::new(Reason::InvalidNegotiation, error.to_string()))?;
    for domain in &domains {
        beside_own(domain, own)?;
    }
    let proxy_fqdn = spec
        .proxy_fqdn
        .as_deref()
        .map(|text| HostPort::parse(text, Some(DEFAULT_PORT)))
        .transpose()
        .map_err(|error| Fault::new(Reason::Invalid, format!("spec.proxyFqdn: {error}")))?;
    let trust = spec.trust.clone().unwrap_or_default();
    let ca = trust
        .ca_config_map_ref
        .as_ref()
        .map(|reference| world.ca("spec.trust.caConfigMapRef", reference))
        .transpose()?;
    let limits = spec.limits.clone().unwrap_or_default();
    Ok(EffectivePartner {
        limit: spec.connection_limit.map_or(Limit::ThePools, Limit::Own),
        partner: Partner {
            name: object.name_any(),
            domains,
            partner_type: spec.partner_type,
            negotiation,
            methods,
            suspended: spec.suspended,
            enable_keep_alive: spec.enable_keep_alive,
            connection_limit: 0,
            proxy_fqdn,
            stanzas_per_second: limits.stanzas_per_second,
            bytes_per_second: limits.bytes_per_second,
            trust: PartnerTrust {
                ca,
                pinned_spki_sha256: trust.pinned_spki_sha256,
                on_key_change: trust.on_key_change,
                known_spki_sha256: Vec::new(),
            },
            probe_interval_seconds: spec.probe.enabled.then_some(spec.probe.interval_seconds),
            left_out: false,
            confirm_by_ping: spec.confirm_by_ping,
        },
    })
}

/// An own domain belongs to no partner; a domain below one has no leaf inside (the intermediate is
/// for none), so that it needs dialback there.
fn beside_own(domain: &DomainPattern, own: &OwnDomains) -> Result<(), Fault> {
    let (listed, below) = match domain {
        DomainPattern::Exact(name) if own.contains(name) => {
            return Err(Fault::new(
                Reason::OwnDomain,
                format!(
                    "{name} is an own domain of EdgePool {:?}: a partner cannot have it, remove it from one of the two",
                    own.pool_of(name)
                ),
            ));
        }
        DomainPattern::Exact(name) => (name, own.above(name)),
        // A wildcard for all below an own domain has only such domains.
        DomainPattern::Below(suffix) if own.contains(suffix) => (suffix, Some(suffix)),
        DomainPattern::Below(suffix) => (suffix, own.above(suffix)),
    };
    if let (Some(above), Some(gateway)) = (below, own.behind_sidecar()) {
        return Err(Fault::new(
            Reason::BelowOwnDomain,
            format!(
                "{domain} lies below the own domain {above}, and the server of {gateway} is reached by a sidecar, which takes nothing from below own domains, so that a stolen edge cannot pose as the organisation: remove the partner, or give the gateway of {gateway} mode Direct",
            ),
        ));
    }
    match (below, own.without_dialback()) {
        (Some(above), Some(gateway)) => Err(Fault::new(
            Reason::BelowOwnDomain,
            format!(
                "{domain} lies below the own domain {above}, so that the servers inside know {listed} by dialback only, and the gateway of {gateway} does not allow it: set saslNegotiation of its negotiation to Optional and supportDialbackNegotiation to true",
            ),
        )),
        _ => Ok(()),
    }
}

fn say_accepted(partner: &Partner, object: ObjectRef, diagnostics: &mut Vec<Diagnostic>) {
    diagnostics.push(Diagnostic::accepted(object.clone(), Severity::Info, ""));
    let plaintext = partner.methods.allows_plaintext();
    let keys = partner.trust.key_binding();
    let message = if plaintext && partner.negotiation.tls == Requirement::NotSupported {
        "streams with this partner are never encrypted: set tlsNegotiation to Required, unless that is meant"
    } else if plaintext {
        "streams are plaintext where the partner offers no TLS (allowPlaintext is true): set tlsNegotiation to Required, unless that is meant"
    } else if partner.negotiation.loses_dialback(keys) {
        "dialback is never used: trust binds the partner's certificate (pinnedSpkiSha256, caConfigMapRef or onKeyChange: Refuse), which dialback does not prove"
    } else if partner.negotiation.dialback_is_dead() {
        "dialback is never used: tlsNegotiation and saslNegotiation are both Required"
    } else {
        ""
    };
    diagnostics.push(Diagnostic {
        object,
        condition: ConditionType::Secure,
        status: !plaintext,
        reason: if plaintext {
            Reason::PlaintextPossible
        } else {
            Reason::Encrypted
        },
        message: message.to_owned(),
        severity: if plaintext {
            Severity::Warning
        } else {
            Severity::Info
        },
    });
}
