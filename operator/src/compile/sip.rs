//! Gateways of mode `Sip`: what an edge has to know of a SIP server, and what is wrong with it.

use kube::ResourceExt;
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{Gateway, GatewayMode, GatewaySip, SipTransport},
    kinds::{
        EdgePool,
        conditions::Reason,
        pool::{PoolGateway, PoolSip},
    },
};

use super::{
    diagnostic::Fault,
    gateway::{own_domain, own_domains},
    world::NamespaceInputs,
};

/// Zone of the names that edges have inside, in the DNS view too; it exists nowhere else.
pub(super) const INSIDE_ZONE: &str = "xmpp-edge.internal";

/// Whether a SIP server is reached so.
pub(super) fn have_transport(gateways: &[Gateway], transport: SipTransport) -> bool {
    let mut servers = gateways.iter().filter_map(|it| it.sip.as_ref());
    servers.any(|server| server.transport == transport)
}

/// What the edge has to know of a gateway's SIP server; none in other modes. `at` is the gateway's place.
///
/// # Errors
/// The first that is not right, with its place.
pub(super) fn server(
    at: &str,
    pool: &EdgePool,
    gateway: &PoolGateway,
    world: &NamespaceInputs,
) -> Result<Option<GatewaySip>, Fault> {
    if gateway.mode != GatewayMode::Sip {
        return Ok(None);
    }
    let given = gateway.sip.clone().unwrap_or_default();
    if given.transport == SipTransport::Tcp && gateway.trust.is_some() {
        return Err(invalid(
            at,
            "trust says which certificates count, and transport Tcp has none: remove trust, or set transport: Tls",
        ));
    }
    let listeners = &pool.spec.listeners;
    let port = match given.transport {
        SipTransport::Tls => listeners.sip,
        SipTransport::Tcp => listeners.sip_tcp,
    };
    if port == 0 {
        return Err(invalid(
            at,
            "a gateway of mode Sip needs listeners.sip (with transport Tcp listeners.sipTcp): set a port",
        ));
    }
    Ok(Some(GatewaySip {
        transport: given.transport,
        dialect: given.dialect,
        server_names: own_domains(&format!("{at}.sip.serverNames"), &given.server_names)?,
        edge_name: edge_name(at, pool, &given, world)?,
        own_certificate: given.certificate_secret_ref.is_some(),
        max_message_bytes: given.max_message_bytes,
        typing: given.typing,
        presence_expires_seconds: given.presence_expires_seconds,
        end_of_subscription: given.end_of_subscription,
    }))
}

/// What the server calls the edge. Where the pods' intermediate signs for it, that may not be below anybody's domain.
fn edge_name(
    at: &str,
    pool: &EdgePool,
    sip: &PoolSip,
    world: &NamespaceInputs,
) -> Result<DomainName, Fault> {
    let given = sip.edge_name.as_deref();
    let of_pool = || format!("{}.{}.{INSIDE_ZONE}", pool.name_any(), world.namespace);
    let name = own_domain(
        format!("{at}.sip.edgeName"),
        &given.map_or_else(of_pool, str::to_owned),
    )?;
    let is_or_below = |domain: &DomainName| {
        let above = name.as_str().strip_suffix(domain.as_str());
        above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
    };
    let own = world.pools.iter().flat_map(|pool| &pool.spec.domains);
    let own: Vec<DomainName> = own
        .filter_map(|domain| DomainName::parse(domain).ok())
        .collect();
    if own.contains(&name) || is_partner(&name, world) {
        return Err(invalid(
            at,
            "edgeName is a host of the edge, not a domain of users: choose another name",
        ));
    }
    let is_signed = sip.certificate_secret_ref.is_none();
    let mut above = own.iter().filter(|_| is_signed);
    match above.find(|domain| is_or_below(domain)) {
        Some(domain) => Err(invalid(
            at,
            &format!(
                "the pods' intermediate may not sign for {name}, below own domain {domain}: set sip.certificateSecretRef, or leave edgeName out"
            ),
        )),
        None => Ok(name),
    }
}

fn is_partner(name: &DomainName, world: &NamespaceInputs) -> bool {
    let mut partners = world.partners.iter().map(|partner| &partner.spec);
    partners.any(|spec| {
        let more = spec.additional_domains.iter();
        std::iter::once(&spec.domain)
            .chain(more)
            .any(|domain| domain == name.as_str())
    })
}

fn invalid(at: &str, message: &str) -> Fault {
    Fault::new(Reason::Invalid, format!("{at}: {message}"))
}
