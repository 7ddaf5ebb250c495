//! `sidecar.json`: all that the sidecar beside one of the organisation's servers must know.
//!
//! The operator writes it into the sidecar's Secret, standalone into `--state`; it is public, and a person
//! copies it to hosts outside of a cluster. So it is read as what anybody may have written: every fault is
//! told with file, field and remedy. Facts that change with traffic (which edge is up, priorities) are never
//! in it: those come over trunks.

mod document;
mod error;

use crate::{
    domain::DomainName,
    edge_config::{HostPort, SidecarServers, Version},
    negotiation::{KeyBinding, MethodSet, Negotiation},
};
pub use document::{LimitsDocument, OtherGatewayDocument, ServerDocument, SidecarDocument};
pub use error::{FieldFault, SidecarConfigError, SidecarConfigFault};

/// The version that this build writes. A sidecar reads documents of its own minor version, of the one before
/// and of the one after: operator and sidecars are upgraded in either order.
pub const VERSION: Version = Version { major: 1, minor: 0 };
/// Largest document in octets, which is what a Secret may hold.
pub const MAX_BYTES: usize = 1 << 20;
/// Most own domains of a namespace.
pub const MAX_DOMAINS: usize = 1_000;
/// Most names or addresses of edges to dial.
pub const MAX_EDGES: usize = 64;
/// Where edges are dialled if an address names no port: `listeners.internal` of a pool that says nothing.
pub const EDGE_PORT: u16 = 23_456;
/// Below here are names of our own (`edge.xmpp-edge.internal`), so that nobody's domain may be.
const RESERVED: &str = "xmpp-edge.internal";
/// Longest text of a field that is shown and parsed: the longest domain with brackets and a port is below it.
const MAX_TEXT: usize = 300;
/// Longest name of a gateway: it is a label value.
const MAX_NAME: usize = 63;

/// A document that was checked whole. [`Self::parse`] alone makes one.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SidecarConfig {
    pub version: Version,
    /// Of the pools; what the sidecar says of itself, no more.
    pub namespace: String,
    /// The gateway's name: the value of label `xmpp-edge.dev/sidecar`.
    pub name: String,
    /// Own domains that the server beside the sidecar is authoritative for: 1 or more, sorted.
    pub domains: Vec<DomainName>,
    pub server: OwnServer,
    /// The organisation's other servers.
    pub other_gateways: Vec<OtherGateway>,
    /// Names and addresses of pools: each address that one resolves to is an edge to dial. May be empty, where
    /// they are given on the command line.
    pub edges: Vec<HostPort>,
    pub limits: SidecarLimits,
}

/// The server beside the sidecar.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OwnServer {
    pub mode: SidecarServers,
    pub address: HostPort,
    pub negotiation: Negotiation,
    /// What `negotiation` and `trust_ca` leave usable: never empty.
    pub methods: MethodSet,
    /// PEM of authorities that the server's certificate may be of.
    pub trust_ca: Option<String>,
    pub trust_public_roots: bool,
}

/// Another of the organisation's servers.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OtherGateway {
    /// Sorted.
    pub domains: Vec<DomainName>,
    /// Where servers inside reach it; none: they do not.
    pub address: Option<HostPort>,
}

/// Bounds of what a sidecar holds, in octets and seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SidecarLimits {
    pub max_stanza_bytes: u32,
    /// Memory that a pair's queue may hold.
    pub queue_bytes: u64,
    /// Memory that all queues may hold.
    pub queue_total_bytes: u64,
    pub queue_timeout_seconds: u32,
}

impl SidecarConfig {
    /// Reads a document. `origin` names it in errors, as a path does.
    ///
    /// # Errors
    /// [`SidecarConfigError`]: the first fault, with field and remedy, in at most 2,500 characters on one line.
    pub fn parse(json: &[u8], origin: &str) -> Result<Self, SidecarConfigError> {
        Self::checked(json).map_err(|fault| SidecarConfigError {
            origin: origin.to_owned(),
            fault,
        })
    }

    /// Own domains of the whole namespace: no leaf towards the server may be for one of them.
    pub fn own_domains(&self) -> impl Iterator<Item = &DomainName> {
        let others = self.other_gateways.iter();
        self.domains
            .iter()
            .chain(others.flat_map(|gateway| &gateway.domains))
    }

    fn checked(json: &[u8]) -> Result<Self, SidecarConfigFault> {
        if json.len() > MAX_BYTES {
            return Err(SidecarConfigFault::TooLarge { bytes: json.len() });
        }
        let version = document::version(json)?;
        if version.major != VERSION.major || version.minor.abs_diff(VERSION.minor) > 1 {
            return Err(SidecarConfigFault::Version(version));
        }
        let written = SidecarDocument::read(json)?;
        let mut own = OwnDomains::default();
        let domains = own.take("domains", &written.domains)?;
        let other_gateways = written
            .other_gateways
            .iter()
            .enumerate()
            .map(|(at, gateway)| {
                let field = format!("otherGateways[{at}]");
                Ok(OtherGateway {
                    domains: own.take(&format!("{field}.domains"), &gateway.domains)?,
                    address: gateway
                        .address
                        .as_deref()
                        .map(|text| host_port(format!("{field}.address"), text, None))
                        .transpose()?,
                })
            })
            .collect::<Result<_, SidecarConfigFault>>()?;
        bounded("edges", written.edges.len(), MAX_EDGES)?;
        let edges = written
            .edges
            .iter()
            .enumerate()
            .map(|(at, text)| host_port(format!("edges[{at}]"), text, Some(EDGE_PORT)))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            version,
            namespace: label("namespace", &written.namespace)?,
            name: label("name", &written.name)?,
            domains,
            server: OwnServer::of(written.server)?,
            other_gateways,
            edges,
            limits: SidecarLimits::of(written.limits)?,
        })
    }
}

impl OwnServer {
    fn of(written: ServerDocument) -> Result<Self, SidecarConfigFault> {
        let keys = KeyBinding::of(written.trust_ca.is_some(), false, false);
        let methods = written
            .negotiation
            .methods(keys)
            .map_err(|fault| fault_of("server.negotiation", FieldFault::Negotiation(fault)))?;
        Ok(Self {
            mode: written.mode,
            address: host_port("server.address".to_owned(), &written.address, None)?,
            negotiation: written.negotiation,
            methods,
            trust_ca: written.trust_ca,
            trust_public_roots: written.trust_public_roots,
        })
    }
}

impl SidecarLimits {
    fn of(written: LimitsDocument) -> Result<Self, SidecarConfigFault> {
        let LimitsDocument {
            max_stanza_bytes,
            queue_bytes,
            queue_total_bytes,
            queue_timeout_seconds,
        } = written;
        // RFC 6120 section 13.12 has the least of a stanza, the kinds have the rest.
        let ranges = [
            (
                "maxStanzaBytes",
                u64::from(max_stanza_bytes),
                10_000,
                16_777_216,
            ),
            ("queueBytes", queue_bytes, 10_000, 1_073_741_824),
            ("queueTotalBytes", queue_total_bytes, 10_000, 68_719_476_736),
            (
                "queueTimeoutSeconds",
                u64::from(queue_timeout_seconds),
                1,
                25,
            ),
        ];
        for (field, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                let fault = FieldFault::Range { value, least, most };
                return Err(fault_of(&format!("limits.{field}"), fault));
            }
        }
        for (field, value, above, most) in [
            (
                "maxStanzaBytes",
                u64::from(max_stanza_bytes),
                "queueBytes",
                queue_bytes,
            ),
            (
                "queueBytes",
                queue_bytes,
                "queueTotalBytes",
                queue_total_bytes,
            ),
        ] {
            if value > most {
                let fault = FieldFault::Above { value, above, most };
                return Err(fault_of(&format!("limits.{field}"), fault));
            }
        }
        Ok(Self {
            max_stanza_bytes,
            queue_bytes,
            queue_total_bytes,
            queue_timeout_seconds,
        })
    }
}

/// Own domains as they are met, for each has one server.
#[derive(Default)]
struct OwnDomains(std::collections::BTreeSet<DomainName>);

impl OwnDomains {
    fn take(
        &mut self,
        field: &str,
        texts: &[String],
    ) -> Result<Vec<DomainName>, SidecarConfigFault> {
        if texts.is_empty() {
            return Err(fault_of(field, FieldFault::Empty));
        }
        bounded(field, self.0.len() + texts.len(), MAX_DOMAINS)?;
        let mut domains = Vec::with_capacity(texts.len());
        for (at, text) in texts.iter().enumerate() {
            let here = |fault| fault_of(&format!("{field}[{at}]"), fault);
            let domain = DomainName::parse(short(text).map_err(here)?)
                .map_err(|fault| here(FieldFault::Domain(fault)))?;
            let rest = domain.as_str().strip_suffix(RESERVED);
            if rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.')) {
                return Err(here(FieldFault::Reserved(domain)));
            }
            if !self.0.insert(domain.clone()) {
                return Err(here(FieldFault::Twice(domain)));
            }
            domains.push(domain);
        }
        domains.sort();
        Ok(domains)
    }
}

fn fault_of(field: &str, fault: FieldFault) -> SidecarConfigFault {
    SidecarConfigFault::Field {
        field: field.to_owned(),
        fault,
    }
}

fn bounded(field: &str, found: usize, most: usize) -> Result<(), SidecarConfigFault> {
    if found > most {
        return Err(fault_of(field, FieldFault::TooMany { found, most }));
    }
    Ok(())
}

fn short(text: &str) -> Result<&str, FieldFault> {
    if text.len() > MAX_TEXT {
        return Err(FieldFault::TooLong { most: MAX_TEXT });
    }
    Ok(text)
}

/// A name as Kubernetes takes it for a label value (lower case, as gateways' names are).
fn label(field: &str, text: &str) -> Result<String, SidecarConfigFault> {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let right = text.len() <= MAX_NAME
        && text.starts_with(alphanumeric)
        && text.ends_with(alphanumeric)
        && text.chars().all(|c| alphanumeric(c) || "-.".contains(c));
    if !right {
        return Err(fault_of(field, FieldFault::Name));
    }
    Ok(text.to_owned())
}

fn host_port(
    field: String,
    text: &str,
    default_port: Option<u16>,
) -> Result<HostPort, SidecarConfigFault> {
    let read = short(text)
        .and_then(|text| HostPort::parse(text, default_port).map_err(FieldFault::HostPort));
    read.map_err(|fault| SidecarConfigFault::Field { field, fault })
}

#[cfg(test)]
mod tests;
