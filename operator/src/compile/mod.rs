//! The compile step: `(kinds, last EdgeConfig) → EdgeConfig + diagnostics`, a pure function.
//!
//! What works is never taken down by what broke: an object that no longer compiles, or whose
//! ConfigMap is gone, stays in force as last compiled; one never in force is left out; all other
//! changes go through; deletions and `suspended` always take effect. It must not do I/O.

pub mod claims;
pub mod diagnostic;
mod gateway;
pub mod partner;
pub mod peer_keys;
pub mod policy;
pub mod pool;
pub mod references;
pub mod restrict;
mod sip;
pub mod world;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use xmpp_edge_crds::{
    edge_config::{AccessRules, EdgeConfig},
    kinds::conditions::{ConditionType, Reason},
    verdict::PartnerType,
};

pub use diagnostic::{Diagnostic, Fault, Kind, ObjectRef, Severity};
pub use references::{
    References, elsewhere, secrets_read, sidecar_secrets, sidecar_secrets_elsewhere,
};
pub use world::{NamespaceInputs, Undecodable, UnreadReferences};

/// What compiling yields.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// One document for each pool in force.
    pub configs: BTreeMap<String, EdgeConfig>,
    /// Sorted by object; at least one for each object.
    pub diagnostics: Vec<Diagnostic>,
}

impl Compiled {
    /// Whether an object is not accepted.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.diagnostics
            .iter()
            .any(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

/// Compiles one namespace. `last` holds each pool's document in force, and decides what stays. A
/// document whose content did not change is returned as it was, generation included; a changed
/// one has the next generation.
#[must_use]
pub fn compile(world: &NamespaceInputs, last: &BTreeMap<String, EdgeConfig>) -> Compiled {
    let mut diagnostics = Vec::new();
    let pools = pool::compile(world, last, &mut diagnostics);
    let own = pool::OwnDomains::of(&pools);
    let partners = partner::compile(world, &own, last, &mut diagnostics);
    let policies = policy::compile(world, &own, last, &mut diagnostics);
    dialback_secrets(world, &own, &pools, &mut diagnostics);
    let documents = pools.values().map(|pool| &pool.config);
    gateway::differing(documents, &world.pools, &mut diagnostics);

    let namespace_domains = own.all();
    let edges: Vec<_> = pools.values().map(|pool| pool.edge.clone()).collect();
    let mut configs = BTreeMap::new();
    for (name, pool) in &pools {
        let last = last.get(name);
        let mut config = pool.config.clone();
        config.namespace_domains.clone_from(&namespace_domains);
        config.edges.clone_from(&edges);
        config.access = AccessRules {
            policies: policies.clone(),
            home_sites: config
                .domains
                .iter()
                .filter_map(|domain| Some((domain.clone(), own.home_site(domain)?.to_owned())))
                .collect(),
        };
        let not_shared = pool::contacts_not_shared(pool, &pools, &own);
        config.partners = Vec::with_capacity(partners.len());
        for partner in &partners {
            let mut partner = partner.for_pool(&pool.config, last, |name| {
                seen_keys(world, &pool.config.pool, name)
            });
            if let Some(message) = &not_shared
                && partner.partner_type == PartnerType::PublicUnverified
            {
                partner.left_out = true;
                diagnostics.push(Diagnostic {
                    object: ObjectRef::new(Kind::XmppFederatedPartner, &partner.name),
                    condition: ConditionType::Programmed,
                    status: false,
                    reason: Reason::ContactsNotShared,
                    message: message.clone(),
                    severity: Severity::Warning,
                });
            }
            config.partners.push(partner);
        }
        configs.insert(name.clone(), numbered(config, last));
    }
    if pools.is_empty() {
        diagnostics.extend(without_pool(world));
    }
    diagnostics.sort_by(|a, b| a.object.cmp(&b.object));
    Compiled {
        configs,
        diagnostics,
    }
}

/// The next generation, only where the content is another.
fn numbered(mut config: EdgeConfig, last: Option<&EdgeConfig>) -> EdgeConfig {
    // What was taken away stays so, also while the Secret that says it cannot be read.
    for gateway in config.gateways.iter_mut().filter(|it| it.sidecar.is_some()) {
        let mut before = last.into_iter().flat_map(|last| &last.gateways);
        let before = before.find(|it| it.effective_name() == gateway.effective_name());
        let before = before.and_then(|it| it.issued_after);
        gateway.issued_after = gateway.issued_after.max(before);
    }
    config.generation = last.map_or(1, |last| last.generation);
    if last.is_some_and(|last| *last != config) {
        config.generation += 1;
    }
    config
}

/// Keys of a partner seen live, as ConfigMap `<pool>-peer-keys` keeps them: one in hex a line
/// under the partner's name.
fn seen_keys(world: &NamespaceInputs, pool: &str, partner: &str) -> Vec<String> {
    let keys: BTreeSet<String> = world
        .config_maps
        .get(&peer_keys::name_of(pool))
        .and_then(|map| map.get(partner))
        .into_iter()
        .flat_map(|text| text.lines())
        .map(|line| line.trim().to_ascii_lowercase())
        .filter(|line| line.len() == 64 && line.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .collect();
    keys.into_iter().collect()
}

/// Keys of XEP-0185 made by one pool of a domain must verify in every other.
fn dialback_secrets(
    world: &NamespaceInputs,
    own: &pool::OwnDomains,
    pools: &BTreeMap<String, pool::EffectivePool>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let secret = |name: &str| {
        let spec = world
            .pools
            .iter()
            .find(|pool| pool.metadata.name.as_deref() == Some(name));
        references::dialback_secret(spec).to_owned()
    };
    for (name, pool) in pools {
        for other in own.sharing(name, &pool.config.domains) {
            let (mine, theirs) = (secret(name), secret(other));
            let value = |name: &str| world.secrets.get(name).and_then(|data| data.get("secret"));
            let same = mine == theirs || value(&mine).is_some() && value(&mine) == value(&theirs);
            let unread = |name: &String| world.unread.secrets.contains_key(name);
            if same || unread(&mine) || unread(&theirs) {
                continue;
            }
            diagnostics.push(Diagnostic {
                object: ObjectRef::new(Kind::EdgePool, name),
                condition: ConditionType::Ready,
                status: false,
                reason: Reason::DialbackSecretsDiffer,
                message: format!(
                    "EdgePool {other:?} serves a domain of this pool with another dialback secret ({theirs:?}, here {mine:?}): name one Secret in spec.settings.dialbackSecretRef of both, or leave it out in both"
                ),
                severity: Severity::Warning,
            });
        }
    }
}

/// Objects that nothing carries: not an error, since files may hold partners alone.
fn without_pool(world: &NamespaceInputs) -> Option<Diagnostic> {
    let first = world.partners.first()?;
    let name = first.metadata.name.as_deref().unwrap_or_default();
    Some(Diagnostic {
        object: ObjectRef::new(Kind::XmppFederatedPartner, name),
        condition: ConditionType::Programmed,
        status: false,
        reason: Reason::NoPool,
        message:
            "there is no EdgePool in force in this namespace: nothing carries partners and policies, add one"
                .to_owned(),
        severity: Severity::Info,
    })
}
