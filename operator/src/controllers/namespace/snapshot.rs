//! What every controller is given: the means to act ([`Context`]) and what one look at a namespace
//! found ([`NamespaceSnapshot`]). A scene is read once and then only looked at: no I/O here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use kube::Client;
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{EdgeConfig, HostPort},
    kinds::PoolSpec,
};

use crate::{
    compile::{Compiled, Diagnostic, Fault, NamespaceInputs, ObjectRef},
    controllers::pool::sidecar_secrets::SidecarNamespaces,
    dns::DnsMetrics,
    proxy_status::{PoolFacts, PoolReport, Reports},
    runtime::{caches::Caches, events::Events, metrics::Metrics, server_clock::ServerClock},
    status::apply::StatusMeans,
};

/// What the command line sets.
#[derive(Clone, Debug, Default)]
pub struct OperatorConfig {
    /// Image of the proxies where a pool names none.
    pub proxy_image: Option<String>,
    /// Pull Secrets of pools that name none, in the pool's namespace.
    pub proxy_pull_secrets: Vec<String>,
    /// Owner of records, in the markers; absent: the UID of the operator's namespace.
    pub dns_owner_id: Option<String>,
    /// Which domains each namespace may have in DNS and certificates; absent: any.
    pub allowed_domains: Option<AllowedDomains>,
    /// Name servers that may be connected to for `spec.dns.rfc2136`; empty: any.
    pub allowed_dns_servers: Vec<HostPort>,
    /// Where Secrets of sidecars may be written beside the namespaces of pools.
    pub sidecar_namespaces: SidecarNamespaces,
}

/// Port of a name server where none is given (RFC 1035).
const DNS_PORT: u16 = 53;

impl OperatorConfig {
    /// Whether a name server, as in `spec.dns.rfc2136.server`, may be connected to.
    #[must_use]
    pub fn allows_dns_server(&self, server: &str) -> bool {
        let allowed = &self.allowed_dns_servers;
        let named = HostPort::parse(server, Some(DNS_PORT));
        allowed.is_empty() || named.is_ok_and(|server| allowed.contains(&server))
    }
}

/// One `--allowed-dns-server`: `host`, `host:port` or `[v6]:port`.
///
/// # Errors
/// What is wrong with it.
pub fn allowed_dns_server(text: &str) -> Result<HostPort, String> {
    HostPort::parse(text, Some(DNS_PORT)).map_err(|error| error.to_string())
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
    pub statuses: StatusMeans,
    pub metrics: Arc<Metrics>,
    pub dns_metrics: DnsMetrics,
    pub server_clock: Arc<ServerClock>,
    pub reports: Arc<Reports>,
    pub settings: OperatorConfig,
    /// The operator's own namespace.
    pub namespace: String,
    /// The owner of records in DNS: [`OperatorConfig::dns_owner_id`] or its default; `None` where neither
    /// can be had, so that no record may be touched.
    pub dns_owner_id: Option<String>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("namespace", &self.namespace)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// One look at a namespace.
#[derive(Debug)]
pub struct NamespaceSnapshot {
    pub namespace: String,
    pub now: Timestamp,
    pub world: Arc<NamespaceInputs>,
    pub compiled: Arc<Compiled>,
    /// What pods said of themselves, by pool; a pool that is not here was not asked yet.
    pub reports: BTreeMap<String, PoolReport>,
    /// The same, merged.
    pub facts: BTreeMap<String, PoolFacts>,
    /// What pods with sidecars say that are missing at edges, by gateway.
    pub sidecar_pods: BTreeMap<String, Vec<String>>,
    /// What keeps the keys of a pool's partners from being recorded, as the look before found it.
    pub peer_keys: BTreeMap<String, Diagnostic>,
    /// Which generation of which pool is the first that holds an object as it is now.
    pub since: BTreeMap<String, ChangeTracker>,
    /// What every ready pod of a pool had loaded when last there was one and all had answered.
    pub reached: BTreeMap<String, u64>,
    /// By pool, the domains for which no pod has a way inside, and another pool's has.
    pub stranded: BTreeMap<String, BTreeSet<DomainName>>,
}

/// Of one pool: the generation from which on an object is as it is now.
#[derive(Clone, Debug, Default)]
pub struct ChangeTracker {
    /// Objects that changed since this process knows the pool.
    pub objects: BTreeMap<ObjectRef, u64>,
    /// All others: since this generation.
    pub before: u64,
    /// Or since an earlier one: the pool was there before this process began to lead.
    pub inherited: bool,
}

impl ChangeTracker {
    /// The first generation known to hold the object as it is, and whether an earlier one may.
    #[must_use]
    pub fn of(&self, object: &ObjectRef) -> (u64, bool) {
        match self.objects.get(object) {
            Some(generation) => (*generation, false),
            None => (self.before, self.inherited),
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

impl NamespaceSnapshot {
    /// A namespace of which nothing is known yet.
    #[must_use]
    pub fn of(namespace: &str, now: Timestamp) -> Self {
        Self {
            namespace: namespace.to_owned(),
            now,
            world: Arc::default(),
            compiled: Arc::default(),
            reports: BTreeMap::new(),
            facts: BTreeMap::new(),
            sidecar_pods: BTreeMap::new(),
            peer_keys: BTreeMap::new(),
            since: BTreeMap::new(),
            reached: BTreeMap::new(),
            stranded: BTreeMap::new(),
        }
    }

    /// What a pool's object says, where it can be read.
    #[must_use]
    pub fn spec(&self, pool: &str) -> Option<&PoolSpec> {
        let mut pools = self.world.pools.iter();
        let own = pools.find(|own| own.metadata.name.as_deref() == Some(pool))?;
        Some(&own.spec)
    }

    /// The document that a pool is to have now.
    #[must_use]
    pub fn config(&self, pool: &str) -> Option<&EdgeConfig> {
        self.compiled.configs.get(pool)
    }

    /// What the compile step has to say about an object.
    #[must_use]
    pub fn diagnostics(&self, object: &ObjectRef) -> &[Diagnostic] {
        // Sorted by object.
        let all = &self.compiled.diagnostics;
        let first = all.partition_point(|it| it.object < *object);
        let past = all.partition_point(|it| it.object <= *object);
        &all[first..past]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    /// A pool's document, as JSON, without partners.
    pub(crate) fn document(pool: &str) -> Value {
        let manifest = json!({
            "apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool", "metadata": {"name": pool},
            "spec": {"site": "hq", "domains": ["org.example"], "accessEdge": {"fqdn": "edge.org.example"},
                "gateways": [{"domains": ["org.example"], "address": "inside.example:5269"}],
                "certificate": {"selfSigned": {}}},
        });
        let world = NamespaceInputs {
            namespace: "n".into(),
            pools: vec![serde_json::from_value(manifest).unwrap()],
            ..NamespaceInputs::default()
        };
        let compiled = crate::compile::compile(&world, &BTreeMap::new());
        serde_json::to_value(&compiled.configs[pool]).unwrap()
    }

    /// What a look is given, with an API server that answers as `client` does, and nothing read of it.
    pub(crate) fn context(client: Client) -> Context {
        let caches = Caches::new().0;
        let metrics = Arc::new(Metrics::default());
        let events = Events::new(client.clone(), "test", metrics.clone());
        Context {
            statuses: StatusMeans {
                client: client.clone(),
                caches: caches.clone(),
                events: events.clone(),
                queue: crate::status::queue::StatusQueue::default(),
            },
            events,
            client,
            caches,
            metrics,
            dns_metrics: DnsMetrics::default(),
            server_clock: Arc::default(),
            reports: Arc::default(),
            settings: OperatorConfig::default(),
            namespace: "edge-system".to_owned(),
            dns_owner_id: None,
        }
    }

    /// A look at `world`, of which nothing was compiled before.
    pub(crate) fn of(world: NamespaceInputs) -> NamespaceSnapshot {
        let mut scene =
            NamespaceSnapshot::of(&world.namespace, "2026-02-02T02:02:02Z".parse().unwrap());
        scene.compiled = Arc::new(crate::compile::compile(&world, &BTreeMap::new()));
        scene.world = Arc::new(world);
        scene
    }

    #[test]
    fn an_allowed_domain_stands_for_itself_and_all_below() {
        let allowed =
            AllowedDomains([("n".to_owned(), ["org.example".parse().unwrap()].into())].into());
        for (namespace, name, expected) in [
            ("n", "org.example", true),
            ("n", "edge.org.example", true),
            ("n", "myorg.example", false),
            ("n", "example", false),
            ("other", "org.example", false),
        ] {
            assert_eq!(
                allowed.allow(namespace, &name.parse().unwrap()),
                expected,
                "{namespace} {name}"
            );
        }
    }

    #[test]
    fn a_name_server_is_allowed_by_its_host_and_port_however_they_are_written() {
        let allowed = ["ns1.example", "192.0.2.53:5353", "[2001:db8::53]"];
        let config = OperatorConfig {
            allowed_dns_servers: allowed.map(|it| allowed_dns_server(it).unwrap()).into(),
            ..OperatorConfig::default()
        };
        for (server, expected) in [
            ("ns1.example", true),
            ("ns1.example:53", true),
            ("NS1.example", true),
            ("ns1.example:22", false),
            ("ns2.example", false),
            ("x.ns1.example", false),
            ("192.0.2.53:5353", true),
            ("192.0.2.53", false),
            ("[2001:db8:0::53]:53", true),
            ("2001:db8::53", true),
            ("[2001:db8::54]:53", false),
            ("no server", false),
        ] {
            assert_eq!(config.allows_dns_server(server), expected, "{server}");
        }
        let any = OperatorConfig::default();
        assert!(any.allows_dns_server("anywhere.example:9"));
    }

    #[test]
    fn an_object_has_its_own_diagnostics_alone() {
        use crate::compile::{Kind, Severity};
        let mut scene = NamespaceSnapshot::of("n", Timestamp::MIN);
        for name in ["a", "b", "b", "c"] {
            let object = ObjectRef::new(Kind::XmppFederatedPartner, name);
            Arc::make_mut(&mut scene.compiled)
                .diagnostics
                .push(Diagnostic::accepted(object, Severity::Info, name));
        }
        let object = ObjectRef::new(Kind::XmppFederatedPartner, "b");
        assert_eq!(scene.diagnostics(&object).len(), 2);
        let absent = ObjectRef::new(Kind::ExternalAccessPolicy, "b");
        assert_eq!(scene.diagnostics(&absent).len(), 0);
    }
}
