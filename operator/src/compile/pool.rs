//! Pools: each on its own, and what all of them together mean: own domains, home sites, edges.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use kube::ResourceExt;
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{
        AccessRules, Contacts, Content, Edge, EdgeConfig, EgressProxy, Gateway, GatewayMode,
        HostPort, Listeners, Settings, SipTransport,
    },
    kinds::{EdgePool, PoolSpec, conditions::Reason, pool::PoolGateway},
};

use super::{
    diagnostic::{Diagnostic, Fault, Kind, ObjectRef},
    gateway,
    sip::{self, INSIDE_ZONE},
    world::NamespaceInputs,
};
use crate::secrets::store::ManagedSecret;

/// How long taking a pool's records out of DNS may take.
const WITHDRAWAL_SECONDS: u32 = 10;

/// A pool that is in force.
#[derive(Clone, Debug)]
pub struct EffectivePool {
    /// Its document, still without partners, access and edges; generation 0.
    pub config: EdgeConfig,
    /// As the DNS view publishes it; also its rank among the pools of a domain.
    pub edge: Edge,
    pub contacts: ContactStore,
}

/// Where a pool keeps contacts, and whether more than one process may share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContactStore {
    Embedded {
        processes: i32,
    },
    /// The Secret that says where.
    Postgres(String),
    /// A pool that stays as last compiled: what it has was judged then.
    Kept(Contacts),
}

/// Compiles all pools of the namespace; the result is sorted by name.
pub fn compile(
    world: &NamespaceInputs,
    last: &BTreeMap<String, EdgeConfig>,
    diagnostics: &mut Vec<Diagnostic>,
) -> BTreeMap<String, EffectivePool> {
    let mut in_force = BTreeMap::new();
    for pool in &world.pools {
        let name = pool.name_any();
        let object = ObjectRef::new(Kind::EdgePool, &name);
        match compile_one(pool, world) {
            Ok(mut form) => {
                diagnostics.push(gateway::accepted(&pool.spec, object.clone()));
                if let (Some(last), Some(pods)) = (last.get(&name), world.pods_behind.get(&name))
                    && form.config.version > last.version
                {
                    diagnostics.push(gateway::not_yet(object, pods, &pool.spec));
                    match kept(last, Some(pool.spec.suspended)) {
                        // All other changes go through.
                        Some(before) if last.domains == form.config.domains => {
                            form.config.version = last.version;
                            form.config.gateways = before.config.gateways;
                            form.edge.replicas = before.edge.replicas;
                        }
                        Some(before) => form = before,
                        None => {}
                    }
                }
                in_force.insert(name, form);
            }
            Err(fault) => {
                let kept = last
                    .get(&name)
                    .and_then(|last| kept(last, Some(pool.spec.suspended)));
                diagnostics.push(Diagnostic::rejected(object, &fault, kept.is_some()));
                in_force.extend(kept.map(|form| (name, form)));
            }
        }
    }
    for (object, broken) in &world.broken {
        if object.kind == Kind::EdgePool {
            let kept = last
                .get(&object.name)
                .and_then(|last| kept(last, broken.suspended));
            diagnostics.push(Diagnostic::rejected(
                object.clone(),
                &broken.fault,
                kept.is_some(),
            ));
            in_force.extend(kept.map(|form| (object.name.clone(), form)));
        }
    }
    in_force
}

/// A pool as last compiled. It may only become suspended: an edit that is not taken lifts no kill switch.
fn kept(last: &EdgeConfig, suspended: Option<bool>) -> Option<EffectivePool> {
    let edge = last
        .edges
        .iter()
        .find(|edge| edge.pool == last.pool)?
        .clone();
    let mut config = last.clone();
    config.suspended |= suspended == Some(true);
    Some(EffectivePool {
        config,
        edge,
        contacts: ContactStore::Kept(last.contacts),
    })
}

fn compile_one(object: &EdgePool, world: &NamespaceInputs) -> Result<EffectivePool, Fault> {
    let spec = &object.spec;
    let name = object.name_any();
    let invalid = |message: String| Fault::new(Reason::Invalid, message);
    ManagedSecret::check_pool_name(&name).map_err(|taken| invalid(taken.to_string()))?;
    let mut domains = gateway::own_domains("spec.domains", &spec.domains)?;
    domains.sort();
    domains.dedup();
    let fqdn = gateway::own_domain("spec.accessEdge.fqdn".to_owned(), &spec.access_edge.fqdn)?;
    let mut gateways = gateway::gateways(object, &domains, world)?;
    for (index, (own, given)) in gateways.iter_mut().zip(&spec.gateways).enumerate() {
        own.sip = sip::server(&format!("spec.gateways[{index}]"), object, given, world)?;
    }
    if !world.single_process {
        gateway_secrets(&gateways)?;
    }
    let trust_ca = spec
        .trust
        .as_ref()
        .map(|trust| world.ca("spec.trust.caConfigMapRef", &trust.ca_config_map_ref))
        .transpose()?;
    let proxy_protocol_sources = match &spec.service.proxy_protocol {
        Some(header) => networks(
            "spec.service.proxyProtocol.trustedSources",
            &header.trusted_sources,
        )?,
        None => Vec::new(),
    };
    let settings = settings(spec)?;
    let mut addresses = Vec::new();
    for (index, text) in spec.internal_service.addresses.iter().flatten().enumerate() {
        addresses.push(text.parse().map_err(|_| {
            invalid(format!(
                "spec.internalService.addresses[{index}]: {text:?} is no IP address: write one such as 192.0.2.1 or 2001:db8::1"
            ))
        })?);
    }
    if addresses.is_empty() {
        addresses.extend(world.inside.get(&name).into_iter().flatten().copied());
    }
    let has = |transport| sip::have_transport(&gateways, transport);
    let listeners = Listeners {
        s2s: spec.listeners.s2s,
        direct_tls: spec.listeners.direct_tls,
        internal: spec.listeners.internal,
        admin: spec.listeners.admin,
        dns: spec.listeners.dns,
        sip: if has(SipTransport::Tls) {
            spec.listeners.sip
        } else {
            0
        },
        sip_tcp: if has(SipTransport::Tcp) {
            spec.listeners.sip_tcp
        } else {
            0
        },
    };
    if spec.speaks_sip() && !world.single_process && spec.desired_replicas() > 1 {
        return Err(invalid(
            "spec.replicas: a gateway of mode Sip keeps what it is being answered in one process: set replicas: 1; a second pool of the domain takes over when this one fails"
                .to_owned(),
        ));
    }
    let is_withdrawn = !spec.route.enabled || world.withdrawn.contains(&name);
    let takes_trunks = spec.gateways.iter().any(PoolGateway::takes_trunks);
    let target = format!("{name}.{}.{INSIDE_ZONE}", world.namespace);
    let edge = Edge {
        pool: name.clone(),
        target: DomainName::parse(&target)
            .map_err(|error| invalid(format!("metadata.name: {error}")))?,
        addresses,
        port: listeners.internal,
        sip: listeners.sip,
        sip_tcp: listeners.sip_tcp,
        priority: spec.route.priority,
        weight: spec.route.weight,
        replicas: match u16::try_from(spec.desired_replicas()) {
            Ok(replicas) if takes_trunks && !world.single_process => replicas,
            _ => 1,
        },
        withdrawn: is_withdrawn,
        domains: domains.clone(),
    };
    let postgres = spec
        .contacts
        .as_ref()
        .and_then(|contacts| contacts.postgres.as_ref());
    let contacts = match postgres {
        Some(postgres) => ContactStore::Postgres(postgres.secret_ref.name.clone()),
        None => ContactStore::Embedded {
            processes: if world.single_process {
                1
            } else {
                spec.desired_replicas()
            },
        },
    };
    let config = EdgeConfig {
        version: spec.document_version(),
        generation: 0,
        namespace: world.namespace.clone(),
        pool: name,
        site: spec.site.clone(),
        fqdn,
        suspended: spec.suspended,
        drain_after_seconds: is_withdrawn
            .then(|| spec.record_ttl_seconds().saturating_add(WITHDRAWAL_SECONDS)),
        namespace_domains: domains.clone(),
        domains,
        listeners,
        gateways,
        partners: Vec::new(),
        access: AccessRules::default(),
        settings,
        content: Content {
            iq_namespaces: spec.content.iq_namespaces.clone(),
            pep_nodes: spec.content.pep_nodes.clone(),
            message_types: spec.content.message_types.clone(),
        },
        trust_ca,
        edges: Vec::new(),
        proxy_protocol_sources,
        contacts: if postgres.is_some() {
            Contacts::Postgres
        } else {
            Contacts::Embedded
        },
    };
    Ok(EffectivePool {
        config,
        edge,
        contacts,
    })
}

/// Longest name of an object of a cluster.
const MAX_NAME: usize = 253;

/// What neither schema nor folder bounds: a gateway's certificate is kept in a Secret that is called after it.
fn gateway_secrets(gateways: &[Gateway]) -> Result<(), Fault> {
    let first = gateways.iter().filter_map(|it| it.domains.first());
    let mut names = first.map(|domain| ManagedSecret::Gateway(domain.to_string()).to_string());
    names.find(|name| name.len() > MAX_NAME).map_or(Ok(()), |long| {
        Err(Fault::new(
            Reason::Invalid,
            format!(
                "spec.gateways: the certificate of a gateway is kept in Secret {long:?}, which is longer than {MAX_NAME} characters: list a shorter domain first"
            ),
        ))
    })
}

/// Where the administrator says nothing of dialling, what the network policy forbids counts: one
/// statement suffices.
fn settings(spec: &PoolSpec) -> Result<Settings, Fault> {
    let mut settings = Settings::from(&spec.settings);
    if let Some(given) = &spec.settings.dial_except {
        settings.dial_except = networks("spec.settings.dialExcept", given)?;
    } else if let Some(given) = &spec.network_policy.partner_egress_except {
        settings.dial_except = networks("spec.networkPolicy.partnerEgressExcept", given)?;
    }
    if let Some(proxy) = &spec.settings.egress_proxy {
        let at = "spec.settings.egressProxy.address";
        let address = HostPort::parse(&proxy.address, None)
            .map_err(|error| Fault::new(Reason::Invalid, format!("{at}: {error}")))?;
        settings.egress_proxy = Some(EgressProxy {
            address,
            name_resolution: proxy.name_resolution,
            has_credentials: proxy.secret_ref.is_some(),
        });
    }
    Ok(settings)
}

fn networks(at: &str, given: &[String]) -> Result<Vec<IpNet>, Fault> {
    given
        .iter()
        .enumerate()
        .map(|(index, text)| {
            text.parse().map_err(|_| {
                let message = format!("{at}[{index}]: {text:?} is no network such as 192.0.2.0/24");
                Fault::new(Reason::Invalid, message)
            })
        })
        .collect()
}

/// The own domains of all pools in force, and what they say about other domains.
#[derive(Clone, Debug, Default)]
pub struct OwnDomains {
    /// Each with the pools that serve it, the preferred first.
    pools: BTreeMap<DomainName, Vec<String>>,
    sites: BTreeMap<String, String>,
    without_dialback: Option<DomainName>,
    behind_sidecar: Option<DomainName>,
}

impl OwnDomains {
    #[must_use]
    pub fn of(pools: &BTreeMap<String, EffectivePool>) -> Self {
        let mut ranked: Vec<&EffectivePool> = pools.values().collect();
        ranked.sort_by_key(|pool| (pool.edge.priority, pool.config.pool.clone()));
        let mut own = Self::default();
        for pool in ranked {
            let name = &pool.config.pool;
            own.sites.insert(name.clone(), pool.config.site.clone());
            for domain in &pool.config.domains {
                own.pools
                    .entry(domain.clone())
                    .or_default()
                    .push(name.clone());
            }
            let strict = pool
                .config
                .gateways
                .iter()
                .find(|it| !it.methods.allows_dialback());
            if let Some(domain) = strict.and_then(|gateway| gateway.domains.first()) {
                own.without_dialback.get_or_insert_with(|| domain.clone());
            }
            let mut gateways = pool.config.gateways.iter();
            let sidecar = gateways.find(|it| it.mode == GatewayMode::Sidecar);
            if let Some(domain) = sidecar.and_then(|gateway| gateway.domains.first()) {
                own.behind_sidecar.get_or_insert_with(|| domain.clone());
            }
        }
        own
    }

    /// Whether there is no pool, so that nothing can be said of own domains.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }

    #[must_use]
    pub fn contains(&self, domain: &DomainName) -> bool {
        self.pools.contains_key(domain)
    }

    /// Sorted.
    #[must_use]
    pub fn all(&self) -> Vec<DomainName> {
        self.pools.keys().cloned().collect()
    }

    /// The preferred pool of an own domain; empty for any other.
    #[must_use]
    pub fn pool_of(&self, domain: &DomainName) -> &str {
        self.pools
            .get(domain)
            .and_then(|pools| pools.first())
            .map_or("", String::as_str)
    }

    /// The site of the preferred pool of the domain (lowest priority number, then name): it does
    /// not change when a site fails over.
    #[must_use]
    pub fn home_site(&self, domain: &DomainName) -> Option<&str> {
        self.sites.get(self.pool_of(domain)).map(String::as_str)
    }

    #[must_use]
    pub fn has_site(&self, site: &str) -> bool {
        self.sites.values().any(|known| known == site)
    }

    /// The nearest own domain that `domain` lies below.
    #[must_use]
    pub fn above(&self, domain: &DomainName) -> Option<&DomainName> {
        let mut rest = domain.parent();
        while let Some(text) = rest {
            if let Some((own, _)) = self.pools.get_key_value(text) {
                return Some(own);
            }
            rest = text.split_once('.').map(|(_, parent)| parent);
        }
        None
    }

    /// A domain whose gateway takes no dialback, if there is one.
    #[must_use]
    pub fn without_dialback(&self) -> Option<&DomainName> {
        self.without_dialback.as_ref()
    }

    /// A domain whose server is reached by sidecars, if there is one.
    #[must_use]
    pub fn behind_sidecar(&self) -> Option<&DomainName> {
        self.behind_sidecar.as_ref()
    }

    /// The other pools that serve one of these domains too.
    pub(super) fn sharing<'a>(
        &'a self,
        pool: &'a str,
        domains: &[DomainName],
    ) -> BTreeSet<&'a str> {
        domains
            .iter()
            .filter_map(|domain| self.pools.get(domain))
            .flatten()
            .map(String::as_str)
            .filter(|other| *other != pool)
            .collect()
    }
}

/// Why a pool cannot carry `PublicUnverified` partners, or `None` where it can: contacts must be
/// the same on every replica, and in every pool of a domain.
#[must_use]
pub fn contacts_not_shared(
    pool: &EffectivePool,
    pools: &BTreeMap<String, EffectivePool>,
    own: &OwnDomains,
) -> Option<String> {
    let name = &pool.config.pool;
    let several = |what: String| {
        Some(format!(
            "EdgePool {name:?} {what}: set spec.contacts.postgres to one database for all of them, or run one replica in one pool (spec.replicas: 1)"
        ))
    };
    match &pool.contacts {
        ContactStore::Embedded { processes } if *processes > 1 => {
            return several(format!(
                "keeps contacts embedded but has {processes} replicas"
            ));
        }
        ContactStore::Kept(_) => return None,
        _ => {}
    }
    let others = own.sharing(name, &pool.config.domains);
    let other = others.into_iter().find(|other| {
        let store = pools.get(*other).map(|other| &other.contacts);
        match (&pool.contacts, store) {
            (ContactStore::Postgres(own), Some(ContactStore::Postgres(other))) => own != other,
            (ContactStore::Postgres(_), Some(ContactStore::Kept(Contacts::Postgres))) => false,
            (_, None) => false,
            _ => true,
        }
    })?;
    several(format!(
        "serves a domain together with EdgePool {other:?} but does not share its contacts"
    ))
}
