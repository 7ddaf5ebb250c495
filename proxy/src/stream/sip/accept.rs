//! A connection that a SIP server opened: who it is, then it belongs to the link of its gateway.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpStream, time::Instant};
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{Gateway, SipTransport},
    verdict::Direction,
};

use super::links::LinkCommand;
use crate::{
    config::ActiveConfig,
    dns::socket,
    negotiation::Side,
    net::{ListenerKind, unauthenticated::Rank},
    stream::context::StreamContext,
    telemetry::{
        attempt::{AttemptStep, Step},
        log_limiter::limited,
    },
    tls::{self, Mode, Transport},
};

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Serves one connection until its link has it.
pub async fn serve(
    context: Arc<StreamContext>,
    kind: ListenerKind,
    stream: TcpStream,
    from: SocketAddr,
) {
    let _ = socket::tune(&stream);
    let address = SocketAddr::new(from.ip().to_canonical(), from.port());
    let config = context.config();
    let (place, evictions) = context.unauthenticated.enter(address.ip(), true);
    for _ in 0..evictions {
        context.metrics.connection_refused("Unauthenticated");
    }
    let evicted = place.evicted.clone();
    let known = async {
        if kind == ListenerKind::SipTcp {
            let gateway = by_address(&context, &config, address).await;
            return Ok((Transport::Plain(stream), gateway.cloned()));
        }
        let transport = encrypted(&config, stream).await?;
        place.rank().raise(Rank::Encrypted);
        let gateway = config.sip_server(transport.peer_chain());
        let gateway = gateway.map(|own| own.config.clone());
        Ok((transport, gateway))
    };
    let known: Result<_, tls::HandshakeError> = tokio::select! {
        known = known => known,
        () = evicted.cancelled() => return,
        () = context.stopping.cancelled() => return,
    };
    let (transport, gateway) = match known {
        Ok(known) => known,
        Err(error) => {
            context.metrics.connection_refused(error.label());
            limited!(
                info,
                context.log.lines_of("SIP", error.label()),
                %address, %error, "TLS failed"
            );
            return;
        }
    };
    let link = gateway.and_then(|gateway| context.sip.of(gateway.effective_name()));
    let Some(link) = link else {
        context.metrics.connection_refused("UnknownServer");
        note_unknown(&context, &config, kind, &transport, address);
        limited!(
            info,
            context.log.lines_of("SIP", "UnknownServer"),
            %address, names = ?shown(&transport),
            "refused: not the SIP server of one gateway (address, sip.serverNames, domains)"
        );
        return;
    };
    let Some(slot) = link.accept() else {
        context.metrics.connection_refused("TooManyConnections");
        return;
    };
    if link.known_again() {
        note(
            &context,
            &config,
            &link.gateway,
            address,
            "Ok",
            "the server is known".to_owned(),
        );
    }
    link.task.tell(LinkCommand::Accepted {
        transport: Box::new(transport),
        address,
        slot,
    });
}

/// Where one gateway alone can be meant, it shows who was refused. Who shows no certificate is nobody.
fn note_unknown(
    context: &StreamContext,
    config: &ActiveConfig,
    kind: ListenerKind,
    transport: &Transport,
    address: SocketAddr,
) {
    let transport_of = match kind {
        ListenerKind::SipTcp => SipTransport::Tcp,
        _ if transport.peer_chain().is_empty() => return,
        _ => SipTransport::Tls,
    };
    let gateways = config.gateways().iter().map(|own| &own.config);
    let mut meant = gateways.filter(|own| {
        let sip = own.sip.as_ref();
        sip.is_some_and(|sip| sip.transport == transport_of)
    });
    let (Some(gateway), None) = (meant.next(), meant.next()) else {
        return;
    };
    let link = context.sip.of(gateway.effective_name());
    if !link.is_some_and(|link| link.is_unknown_first()) {
        return;
    }
    let text = match transport_of {
        SipTransport::Tcp => "connected from an address that is not the server's".to_owned(),
        SipTransport::Tls => format!(
            "connected with a certificate for {}",
            shown(transport).join(", ")
        ),
    };
    note(context, config, gateway, address, "UnknownServer", text);
}

/// A step of the server's own connections.
fn note(
    context: &StreamContext,
    config: &ActiveConfig,
    gateway: &Gateway,
    address: SocketAddr,
    outcome: &'static str,
    text: String,
) {
    let Some(domain) = gateway.domains.first() else {
        return;
    };
    let step = AttemptStep {
        step: Step::Sip,
        direction: Direction::Outbound,
        domain: domain.clone(),
        outcome,
        address: Some(address),
        text,
        took: Duration::ZERO,
    };
    let whose = config.attempt_peer(Side::Gateway, domain);
    context.attempts.note(whose, step);
}

async fn encrypted(
    config: &ActiveConfig,
    stream: TcpStream,
) -> Result<Transport, tls::HandshakeError> {
    let choose = |sni: Option<&str>| {
        let asked = sni.and_then(|sni| DomainName::parse(sni).ok());
        config.sip_identity_for(asked.as_ref())
    };
    tls::accept(stream, Mode::StartTls, Instant::now() + HANDSHAKE, choose).await
}

/// The one gateway that has one of its servers at this address.
async fn by_address<'a>(
    context: &StreamContext,
    config: &'a ActiveConfig,
    from: SocketAddr,
) -> Option<&'a Gateway> {
    let mut found = None;
    for gateway in config.gateways().iter().map(|own| &own.config) {
        let sip = gateway.sip.as_ref();
        if sip.is_none_or(|sip| sip.transport != SipTransport::Tcp) {
            continue;
        }
        let Some(servers) = gateway.sip_servers() else {
            continue;
        };
        let addresses = context.resolver.sip_addresses(&servers).await;
        let is_there =
            addresses.is_ok_and(|all| all.iter().any(|ip| ip.to_canonical() == from.ip()));
        if is_there && found.replace(gateway).is_some() {
            return None;
        }
    }
    found
}

/// Names of the certificate that was shown, for the log.
fn shown(transport: &Transport) -> Vec<String> {
    let chain = transport.peer_chain();
    chain.first().map(tls::dns_names).unwrap_or_default()
}
