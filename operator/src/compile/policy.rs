//! Access policies: each on its own, then among each other, so that every user stands in at most
//! one. A policy whose list cannot be read stays as last compiled: nobody falls to a wider one.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{AccessPolicy, AccessScope, EdgeConfig, Granted},
    jid::BareJid,
    kinds::{ExternalAccessPolicy, conditions::Reason, policy::PolicyScope},
};

use super::{
    claims::{Claimant, Version, resolve_conflicts},
    diagnostic::{Diagnostic, Fault, Kind, ObjectRef, Severity},
    pool::OwnDomains,
    world::{NamespaceInputs, created},
};
use crate::text::listed;

/// What only one policy can have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum PolicyClaim {
    Global,
    Site(String),
    User(BareJid),
    Domain(DomainName),
}

struct PolicyObject {
    created: Option<jiff::Timestamp>,
    form: Result<AccessPolicy, Fault>,
    /// What may not be meant so.
    warnings: Vec<String>,
}

/// Compiles all policies of the namespace; the result is sorted by name and free of conflicts.
pub fn compile(
    world: &NamespaceInputs,
    own: &OwnDomains,
    last: &BTreeMap<String, EdgeConfig>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<AccessPolicy> {
    let mut kept: BTreeMap<&str, &AccessPolicy> = BTreeMap::new();
    for policy in last.values().flat_map(|config| &config.access.policies) {
        kept.entry(&policy.name).or_insert(policy);
    }
    let mut objects: BTreeMap<String, PolicyObject> = BTreeMap::new();
    for policy in &world.policies {
        let form = compile_one(policy, world);
        let warnings = form
            .as_ref()
            .map_or_else(|_| Vec::new(), |form| warnings(form, world, own));
        objects.insert(
            policy.name_any(),
            PolicyObject {
                created: created(policy),
                form,
                warnings,
            },
        );
    }
    for (object, broken) in &world.broken {
        if object.kind == Kind::ExternalAccessPolicy {
            let form = Err(broken.fault.clone());
            objects.insert(
                object.name.clone(),
                PolicyObject {
                    created: None,
                    form,
                    warnings: Vec::new(),
                },
            );
        }
    }
    let claimants: Vec<Claimant<PolicyClaim>> = objects
        .iter()
        .map(|(name, object)| Claimant {
            name: name.clone(),
            created: object.created,
            wanted: object.form.as_ref().ok().map(claims),
            kept: kept.get(name.as_str()).map(|form| claims(form)),
        })
        .collect();
    let mut in_force = Vec::new();
    for ((name, object), settled) in objects.into_iter().zip(resolve_conflicts(&claimants)) {
        let reference = ObjectRef::new(Kind::ExternalAccessPolicy, &name);
        let last_good = settled.form == Version::LastGood;
        match (&object.form, &settled.lost) {
            (Err(fault), _) => {
                diagnostics.push(Diagnostic::rejected(reference, fault, last_good));
            }
            (_, Some((claim, winner))) => {
                let fault = Fault::new(Reason::Conflict, conflict(claim, winner));
                diagnostics.push(Diagnostic::rejected(reference, &fault, last_good));
            }
            (Ok(_), None) if object.warnings.is_empty() => {
                diagnostics.push(Diagnostic::accepted(reference, Severity::Info, ""));
            }
            (Ok(_), None) => {
                let message = object.warnings.join("; ");
                diagnostics.push(Diagnostic::accepted(reference, Severity::Warning, message));
            }
        }
        in_force.extend(match settled.form {
            Version::Desired => object.form.ok(),
            Version::LastGood => kept.get(name.as_str()).map(|form| (*form).clone()),
            Version::Rejected => None,
        });
    }
    in_force
}

fn conflict(claim: &PolicyClaim, winner: &str) -> String {
    let other = format!("ExternalAccessPolicy {winner:?}");
    match claim {
        PolicyClaim::Global => {
            format!("{other} is the Global policy already: there can be one, delete one of the two")
        }
        PolicyClaim::Site(site) => format!(
            "{other} is the policy of site {site:?} already: there can be one, delete one of the two"
        ),
        PolicyClaim::User(user) => {
            format!("{other} grants {user} already: name the user in one of the two only")
        }
        PolicyClaim::Domain(domain) => {
            format!("{other} grants *@{domain} already: name the domain in one of the two only")
        }
    }
}

fn claims(policy: &AccessPolicy) -> BTreeSet<PolicyClaim> {
    match &policy.scope {
        AccessScope::Global => [PolicyClaim::Global].into(),
        AccessScope::Site(site) => [PolicyClaim::Site(site.clone())].into(),
        AccessScope::User(granted) => granted
            .users
            .iter()
            .cloned()
            .map(PolicyClaim::User)
            .chain(granted.domains.iter().cloned().map(PolicyClaim::Domain))
            .collect(),
    }
}

/// A policy as if it were the only one.
fn compile_one(
    object: &ExternalAccessPolicy,
    world: &NamespaceInputs,
) -> Result<AccessPolicy, Fault> {
    let spec = &object.spec;
    let scope = match spec.scope {
        PolicyScope::Global => AccessScope::Global,
        PolicyScope::Site => AccessScope::Site(spec.site.clone().ok_or_else(|| {
            Fault::new(
                Reason::Invalid,
                "spec.site: scope Site needs the name of the site",
            )
        })?),
        PolicyScope::User => AccessScope::User(granted(object, world)?),
    };
    Ok(AccessPolicy {
        name: object.name_any(),
        scope,
        enable_federation_access: spec.enable_federation_access,
        enable_xmpp_access: spec.enable_xmpp_access,
        enable_public_cloud_access: spec.enable_public_cloud_access,
        partners: spec.partners.clone(),
        mode: spec.mode,
    })
}

fn granted(object: &ExternalAccessPolicy, world: &NamespaceInputs) -> Result<Granted, Fault> {
    let mut users = BTreeSet::new();
    let mut domains = BTreeSet::new();
    let mut grant = |text: &str, at: &dyn Fn() -> String| -> Result<(), Fault> {
        let refused = |error: &dyn std::fmt::Display| {
            Fault::new(Reason::InvalidUser, format!("{}: {error}", at()))
        };
        if let Some(domain) = text.strip_prefix("*@") {
            domains.insert(DomainName::parse(domain).map_err(|error| refused(&error))?);
            return Ok(());
        }
        let user = BareJid::parse(text).map_err(|error| refused(&error))?;
        if user.local().is_none() {
            return Err(refused(&format!(
                "{text:?} is a domain, not a user: write user@{text}, or *@{text} for all of it"
            )));
        }
        users.insert(user);
        Ok(())
    };
    for (index, text) in object.spec.users.iter().enumerate() {
        grant(text, &|| format!("spec.users[{index}]"))?;
    }
    for (index, from) in object.spec.users_from.iter().enumerate() {
        let reference = &from.config_map_ref;
        let at = format!("spec.usersFrom[{index}].configMapRef");
        let list = world.config_map_text(&at, reference)?;
        for (line, text) in list.lines().enumerate() {
            let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
            let text = strip_quotes(text);
            // As Lync has it (SipAddress): what follows is the same user's JID.
            let text = strip_sip(text);
            if text.starts_with('#') || is_head(text) {
                continue;
            }
            grant(text, &|| {
                format!(
                    "ConfigMap {:?}, key {:?}, line {}",
                    reference.name,
                    reference.key,
                    line + 1
                )
            })?;
        }
    }
    Ok(Granted {
        users: users.into_iter().collect(),
        domains: domains.into_iter().collect(),
    })
}

/// A field of a file of comma-separated values (RFC 4180), of which a list of users has one a line.
fn strip_quotes(text: &str) -> &str {
    let within = text.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    within.map_or(text, str::trim)
}

/// Whether a line is empty, or what PowerShell puts above a list: the property's name and, in a table, a rule.
fn is_head(text: &str) -> bool {
    text.eq_ignore_ascii_case("SipAddress") || text.bytes().all(|byte| byte == b'-')
}

/// A user's address without the scheme that Lync's lists put before it.
fn strip_sip(text: &str) -> &str {
    match text.split_at_checked(4) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("sip:") => rest.trim_start(),
        _ => text,
    }
}

/// What is valid and yet may not be meant so.
fn warnings(policy: &AccessPolicy, world: &NamespaceInputs, own: &OwnDomains) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(partners) = &policy.partners {
        let known = |name: &str| {
            world
                .partners
                .iter()
                .any(|partner| partner.name_any() == name)
                || world
                    .broken
                    .keys()
                    .any(|object| object.kind == Kind::XmppFederatedPartner && object.name == name)
        };
        let missing: Vec<&String> = partners.iter().filter(|name| !known(name)).collect();
        if !missing.is_empty() {
            warnings.push(format!(
                "spec.partners names what does not exist (these are names of XmppFederatedPartner objects, not domains): {}; correct them, or create these partners",
                listed(missing)
            ));
        }
    }
    if policy.enable_xmpp_access && !policy.enable_federation_access {
        warnings.push(
            "enableXmppAccess has no effect without enableFederationAccess: set both, or neither"
                .to_owned(),
        );
    }
    if policy.enable_public_cloud_access
        && !(policy.enable_xmpp_access && policy.enable_federation_access)
    {
        warnings.push(
            "enablePublicCloudAccess has no effect without enableFederationAccess and enableXmppAccess: set all three, or leave it out"
                .to_owned(),
        );
    }
    match &policy.scope {
        AccessScope::Site(site) if !own.is_empty() && !own.has_site(site) => {
            warnings.push(format!(
                "no EdgePool has the site {site:?}, so that the policy is nobody's: correct spec.site here or in a pool"
            ));
        }
        AccessScope::User(granted) if !own.is_empty() => {
            let foreign = granted
                .users
                .iter()
                .map(BareJid::domain)
                .chain(&granted.domains)
                .filter(|domain| !own.contains(domain))
                .map(DomainName::as_str)
                .collect::<BTreeSet<_>>();
            if !foreign.is_empty() {
                warnings.push(format!(
                    "grants users of domains that no EdgePool serves: {}; correct them, or add the domains to a pool",
                    listed(foreign)
                ));
            }
        }
        _ => {}
    }
    warnings
}
