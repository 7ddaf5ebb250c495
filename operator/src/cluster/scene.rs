//! What every controller is given: the means to act ([`Context`]) and what one look at a namespace
//! found ([`Scene`]). A scene is read once and then only looked at: no I/O here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use kube::Client;
use xmpp_edge_crds::{domain::DomainName, edge_config::EdgeConfig};

use super::{
    caches::Caches,
    events::Events,
    metrics::Metrics,
    pods::{PoolFacts, PoolReport, Reports},
    writer::Writer,
};
use crate::compile::{Compiled, Diagnostic, Fault, ObjectRef, World};

/// What the command line sets.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Image of the proxies where a pool names none.
    pub proxy_image: Option<String>,
    /// Owner of records, in the markers; absent: the UID of the operator's namespace.
    pub dns_owner_id: Option<String>,
    /// Which domains each namespace may have in DNS and certificates; absent: any.
    pub allowed_domains: Option<AllowedDomains>,
}

/// `--allowed-domains`: by namespace; a domain stands for itself and all below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedDomains(pub BTreeMap<String, BTreeSet<DomainName>>);

impl AllowedDomains {
    /// Whether the operator may ask for a name on behalf of a namespace.
    #[must_use]
    pub fn allow(&self, namespace: &str, name: &DomainName) -> bool {
        let allowed = self.0.get(namespace).into_iter().flatten();
        let mut allowed = allowed.map(DomainName::as_str);
        allowed.any(|domain| {
            let name = name.as_str();
            let above = name.strip_suffix(domain);
            above.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }
}

/// The means to act.
pub struct Context {
    pub client: Client,
    pub caches: Arc<Caches>,
    pub events: Events,
    pub writer: Writer,
    pub metrics: Arc<Metrics>,
    pub reports: Arc<Reports>,
    /// What the pools' controller remembers between looks.
    pub pools: crate::pool::Memory,
    pub settings: Settings,
    /// The operator's own namespace.
    pub namespace: String,
    /// The owner of records in DNS: [`Settings::dns_owner_id`] or its default.
    pub dns_owner_id: String,
}

/// One look at a namespace.
pub struct Scene {
    pub namespace: String,
    pub now: Timestamp,
    pub world: World,
    pub compiled: Compiled,
    /// What pods said of themselves, by pool; a pool that is not here was not asked yet.
    pub reports: BTreeMap<String, PoolReport>,
    /// The same, merged.
    pub facts: BTreeMap<String, PoolFacts>,
    /// Which generation of which pool is the first that holds an object as it is now.
    pub since: BTreeMap<String, Since>,
}

/// Of one pool: the generation from which on an object is as it is now.
#[derive(Clone, Debug, Default)]
pub struct Since {
    pub objects: BTreeMap<ObjectRef, u64>,
    /// An object that was so when this process began to lead: since this generation or before.
    pub before: u64,
}

impl Since {
    /// The first generation known to hold the object as it is, and whether an earlier one may.
    #[must_use]
    pub fn of(&self, object: &ObjectRef) -> (u64, bool) {
        match self.objects.get(object) {
            Some(generation) => (*generation, false),
            None => (self.before, true),
        }
    }
}

/// What came of provisioning one pool.
#[derive(Clone, Debug, Default)]
pub struct PoolOutcome {
    /// Why its document could not be written (`ConfigTooLarge`): the one before stays in force.
    pub unwritten: Option<Fault>,
    /// When to look again although nothing changes: renewals, retries of DNS.
    pub again: Option<Duration>,
}

/// Why provisioning a pool failed: infrastructure, so that it is tried again. What is wrong with
/// the spec is a condition, not an error.
pub type PoolError = Box<dyn std::error::Error + Send + Sync>;

impl Scene {
    /// The document that a pool is to have now.
    #[must_use]
    pub fn config(&self, pool: &str) -> Option<&EdgeConfig> {
        self.compiled.configs.get(pool)
    }

    /// What the compile step has to say about an object.
    pub fn diagnostics<'a>(
        &'a self,
        object: &'a ObjectRef,
    ) -> impl Iterator<Item = &'a Diagnostic> {
        // Sorted by object.
        let all = &self.compiled.diagnostics;
        let first = all.partition_point(|it| it.object < *object);
        all[first..]
            .iter()
            .take_while(move |it| it.object == *object)
    }
}
