//! The gateways of a pool: where its servers are, who may speak for them, and what pools have to agree on.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{
        EdgeConfig, Gateway, GatewayAddress, GatewayMode, GatewaySidecar, Host, HostPort,
        SidecarKey,
    },
    kinds::{
        EdgePool, PoolSpec,
        conditions::{ConditionType, Reason},
        pool::{PoolGateway, PoolSidecar},
    },
};

use super::{
    diagnostic::{Diagnostic, Fault, Kind, ObjectRef, Severity},
    references::elsewhere,
    world::NamespaceInputs,
};
use crate::secrets::{internal_ca, store::ManagedSecret};

/// The gateways of a document, but for what [`super::sip`] adds.
///
/// # Errors
/// The first that is not right, with its place.
pub(super) fn gateways(
    pool: &EdgePool,
    own: &[DomainName],
    world: &NamespaceInputs,
) -> Result<Vec<Gateway>, Fault> {
    let spec = &pool.spec;
    let mut served: BTreeMap<DomainName, usize> = BTreeMap::new();
    let mut gateways = Vec::with_capacity(spec.gateways.len());
    for (index, gateway) in spec.gateways.iter().enumerate() {
        let at = format!("spec.gateways[{index}]");
        let domains = own_domains(&format!("{at}.domains"), &gateway.domains)?;
        for domain in &domains {
            if !own.contains(domain) {
                return Err(Fault::new(
                    Reason::Invalid,
                    format!(
                        "{at}.domains: {domain} is not among spec.domains: list it there, or remove it here"
                    ),
                ));
            }
            if let Some(other) = served.insert(domain.clone(), index)
                && other != index
            {
                return Err(Fault::new(
                    Reason::Invalid,
                    format!(
                        "{at}.domains: {domain} has the gateway spec.gateways[{other}] already: each own domain has exactly one"
                    ),
                ));
            }
        }
        let negotiation = gateway.negotiation();
        let methods = gateway.methods().map_err(|error| {
            Fault::new(
                Reason::InvalidNegotiation,
                format!("{at}.negotiation: {error}"),
            )
        })?;
        let address = gateway
            .address
            .as_deref()
            .map(|text| address(&format!("{at}.address"), gateway, text))
            .transpose()?;
        if address.is_none() && gateway.mode != GatewayMode::Sidecar {
            let message = format!(
                "{at}.address: mode {:?} needs the address of the server",
                gateway.mode
            );
            return Err(Fault::new(Reason::Invalid, message));
        }
        let sidecar = match &gateway.sidecar {
            Some(given) => Some(sidecar(&format!("{at}.sidecar"), given, world)?),
            None => gateway.takes_trunks().then(GatewaySidecar::default),
        };
        let trust = gateway.trust.clone().unwrap_or_default();
        let trust_ca = trust
            .ca_config_map_ref
            .as_ref()
            .map(|reference| world.ca(&format!("{at}.trust.caConfigMapRef"), reference))
            .transpose()?;
        gateways.push(Gateway {
            name: gateway
                .takes_trunks()
                .then(|| gateway.effective_name().to_owned()),
            domains,
            mode: gateway.mode,
            address,
            negotiation,
            methods,
            trust_ca,
            trust_public_roots: trust.public_roots,
            confirm_by_ping: gateway.confirm_by_ping,
            sidecar,
            sip: None,
            issued_after: epoch(pool, gateway, world),
        });
    }
    match own.iter().find(|domain| !served.contains_key(*domain)) {
        Some(domain) => Err(Fault::new(
            Reason::Invalid,
            format!(
                "spec.gateways: {domain} has no gateway: list it in the domains of exactly one"
            ),
        )),
        None => Ok(gateways),
    }
}

pub(super) fn own_domain(at: String, text: &str) -> Result<DomainName, Fault> {
    DomainName::parse(text)
        .map_err(|error| Fault::new(Reason::InvalidDomain, format!("{at}: {error}")))
}

pub(super) fn own_domains(at: &str, texts: &[String]) -> Result<Vec<DomainName>, Fault> {
    texts
        .iter()
        .enumerate()
        .map(|(index, text)| own_domain(format!("{at}[{index}]"), text))
        .collect()
}

/// Where the server is; a host alone is for SIP servers.
fn address(at: &str, gateway: &PoolGateway, text: &str) -> Result<GatewayAddress, Fault> {
    if gateway.mode != GatewayMode::Sip {
        return host_port(at, text).map(GatewayAddress::from);
    }
    let transport = gateway.sip.as_ref().map(|sip| sip.transport);
    GatewayAddress::of_sip_server(text, transport.unwrap_or_default())
        .map_err(|error| Fault::new(Reason::Invalid, format!("{at}: {error}")))
}

fn host_port(at: &str, text: &str) -> Result<HostPort, Fault> {
    HostPort::parse(text, None)
        .map_err(|error| Fault::new(Reason::Invalid, format!("{at}: {error}")))
}

/// Whether it is a DNS label (RFC 1123), as names of namespaces are.
fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// What an edge has to know of a gateway's sidecars; what it need not know is checked too.
fn sidecar(
    at: &str,
    given: &PoolSidecar,
    world: &NamespaceInputs,
) -> Result<GatewaySidecar, Fault> {
    host_port(&format!("{at}.serverAddress"), &given.server_address)?;
    if let Some(namespace) = &given.namespace
        && !is_label(namespace)
    {
        return Err(Fault::new(
            Reason::Invalid,
            format!("{at}.namespace: {namespace:?} is no name of a namespace"),
        ));
    }
    for (index, edge) in given.edges.iter().enumerate() {
        host_port(&format!("{at}.edges[{index}]"), edge)?;
    }
    let mut keys = Vec::with_capacity(given.keys.len());
    for (index, key) in given.keys.iter().enumerate() {
        let digits = key.spki_sha256.strip_prefix("sha256:");
        let digits = digits.unwrap_or(&key.spki_sha256).to_ascii_lowercase();
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Fault::new(
                Reason::Invalid,
                format!(
                    "{at}.keys[{index}].spkiSha256: {:?} is no SHA-256 in hexadecimal: copy what `xmpp-edge-proxy sidecar key` prints",
                    key.spki_sha256
                ),
            ));
        }
        keys.push(SidecarKey {
            name: key.name.clone(),
            spki_sha256: digits,
        });
    }
    let trust = given.trust.as_ref().map(|trust| &trust.ca_config_map_ref);
    Ok(GatewaySidecar {
        namespace: given.namespace.clone(),
        server: given.server,
        keys,
        trust_ca: trust
            .map(|reference| world.ca(&format!("{at}.trust.caConfigMapRef"), reference))
            .transpose()?,
    })
}

/// Since when certificates of the gateway's sidecars count, where the operator issues them.
fn epoch(pool: &EdgePool, gateway: &PoolGateway, world: &NamespaceInputs) -> Option<Timestamp> {
    if !gateway.takes_trunks() {
        return None;
    }
    let name = ManagedSecret::Sidecar(gateway.effective_name().to_owned()).to_string();
    let held = match elsewhere(pool, gateway) {
        None => world.secrets.get(&name),
        Some(namespace) => world.secrets_elsewhere.get(&(namespace.to_owned(), name)),
    };
    internal_ca::epoch(held?)
}

/// What a gateway is called where it has an address or not.
fn shown(gateway: &PoolGateway) -> &str {
    let address = gateway.address.as_deref();
    address.unwrap_or_else(|| gateway.effective_name())
}

/// `Accepted=True`, and what a gateway's or the records' settings mean.
pub(super) fn accepted(spec: &PoolSpec, object: ObjectRef) -> Diagnostic {
    let plaintext: Vec<&str> = spec
        .gateways
        .iter()
        .filter(|gateway| {
            gateway.mode == GatewayMode::Direct
                && gateway
                    .methods()
                    .is_ok_and(|methods| methods.allows_plaintext())
        })
        .map(shown)
        .collect();
    let bound: Vec<&str> = spec
        .gateways
        .iter()
        .filter(|gateway| gateway.negotiation().loses_dialback(gateway.key_binding()))
        .map(shown)
        .collect();
    let mut said = Vec::new();
    if !plaintext.is_empty() {
        said.push(format!(
            "streams with {} may be plaintext inside: set tlsNegotiation of the gateway to Required, unless that is meant",
            crate::text::listed(plaintext)
        ));
    }
    if !bound.is_empty() {
        said.push(format!(
            "dialback is never used with {}: the gateway's trust names a CA, and dialback proves no certificate",
            crate::text::listed(bound)
        ));
    }
    let far = spec.gateways.iter().filter_map(|gateway| {
        let address = &gateway.sidecar.as_ref()?.server_address;
        let host = HostPort::parse(address, None).ok()?.host;
        let near = matches!(host, Host::Ip(ip) if ip.is_loopback());
        (!near).then_some(address.as_str())
    });
    let far: Vec<&str> = far.collect();
    if !far.is_empty() {
        said.push(format!(
            "sidecars reach {} over a network, where streams with their server may be plaintext and anybody may pose as it: run them beside it, or set tlsNegotiation of the gateway to Required",
            crate::text::listed(far)
        ));
    }
    Diagnostic::accepted(object, Severity::Info, said.join("; "))
}

/// The gateways stay as they were: pods of an earlier version would refuse a document with sidecars, or with SIP
/// servers.
pub(super) fn not_yet(object: ObjectRef, pods: &str, spec: &PoolSpec) -> Diagnostic {
    let what = if spec.speaks_sip() {
        "SIP servers"
    } else {
        "sidecars"
    };
    Diagnostic {
        object,
        condition: ConditionType::GatewayReachable,
        status: false,
        reason: Reason::Pending,
        message: format!(
            "the gateways stay as they were, without {what}, until every pod reads a configuration with {what}: {pods}; upgrade the pool's image, where spec.image names an older one"
        ),
        severity: Severity::Warning,
    }
}

/// A sidecar has one document and one certificate for all pools: where they say different things of its gateway,
/// one of them is not what it goes by.
pub(super) fn differing<'a>(
    pools: impl Iterator<Item = &'a EdgeConfig>,
    specs: &[EdgePool],
    diagnostics: &mut Vec<Diagnostic>,
) {
    let default = PoolSidecar::default();
    let mut by_name: BTreeMap<&str, PoolsGateway<'_>> = BTreeMap::new();
    let mut by_domain: BTreeMap<&DomainName, PoolsGateway<'_>> = BTreeMap::new();
    for pool in pools {
        let spec = specs
            .iter()
            .find(|it| it.metadata.name.as_ref() == Some(&pool.pool));
        let mut told = None;
        // A pool that still has no sidecars is one that is moved later.
        for own in pool.gateways.iter().filter(|it| it.sidecar.is_some()) {
            let name = own.effective_name();
            let given = spec.map(|pool| {
                let mut gateways = pool.spec.gateways.iter();
                let given = gateways.find(|it| it.effective_name() == name);
                given.and_then(|it| it.sidecar.as_ref()).unwrap_or(&default)
            });
            let own = PoolsGateway {
                pool: &pool.pool,
                gateway: own,
                given,
            };
            let theirs = by_name.entry(name).or_insert(own);
            let differs = own.unlike(theirs).map(|what| (theirs.pool, what));
            told = told.or_else(|| differs.map(|(other, what)| (other, what, name.to_owned())));
            for domain in &own.gateway.domains {
                let theirs = by_domain.entry(domain).or_insert(own);
                if theirs.gateway.effective_name() != name {
                    told = told.or_else(|| Some((theirs.pool, "name", domain.to_string())));
                }
            }
        }
        let Some((other, what, whose)) = told else {
            continue;
        };
        let remedy = match what {
            "domains" => {
                "; if these are two servers, give their gateways names of their own (spec.gateways[].name)"
            }
            _ => "",
        };
        diagnostics.push(Diagnostic {
            object: ObjectRef::new(Kind::EdgePool, &pool.pool),
            condition: ConditionType::Ready,
            status: false,
            reason: Reason::GatewaysDiffer,
            message: format!(
                "EdgePool {other:?} has another {what} for the gateway of {whose}: a sidecar serves all pools, write the same into spec.gateways[] of both{remedy}"
            ),
            severity: Severity::Warning,
        });
    }
}

/// A gateway that takes trunks, as one pool has it.
#[derive(Clone, Copy)]
struct PoolsGateway<'a> {
    pool: &'a str,
    gateway: &'a Gateway,
    /// What stands in the spec alone; `None`: it cannot be read.
    given: Option<&'a PoolSidecar>,
}

impl PoolsGateway<'_> {
    /// The first field of which sidecars can have only one form, and that is another there.
    fn unlike(&self, other: &PoolsGateway<'_>) -> Option<&'static str> {
        let (own, theirs) = (self.gateway, other.gateway);
        let domains = |gateway: &Gateway| gateway.domains.iter().cloned().collect::<BTreeSet<_>>();
        let sidecar = |gateway: &Gateway| gateway.sidecar.clone().unwrap_or_default();
        let given = self.given.zip(other.given);
        let (of_own, of_theirs) = (sidecar(own), sidecar(theirs));
        let fields = [
            ("domains", domains(own) != domains(theirs)),
            ("sidecar.server", of_own.server != of_theirs.server),
            ("sidecar.keys", of_own.keys != of_theirs.keys),
            ("sidecar.namespace", of_own.namespace != of_theirs.namespace),
            (
                "sidecar.serverAddress",
                given.is_some_and(|(own, theirs)| own.server_address != theirs.server_address),
            ),
            (
                "negotiation",
                own.mode == theirs.mode && own.negotiation != theirs.negotiation,
            ),
            (
                "trust",
                (&own.trust_ca, own.trust_public_roots)
                    != (&theirs.trust_ca, theirs.trust_public_roots),
            ),
        ];
        let mut differing = fields.into_iter().filter(|(_, differs)| *differs);
        differing.next().map(|(what, _)| what)
    }
}
