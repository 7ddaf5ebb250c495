//! A connection that came in: PROXY header where one is due, first byte, TLS from the start or
//! not, then a stream.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::TcpStream,
    time::Instant,
};
use xmpp_edge_crds::domain::DomainName;

use super::{Machine, Stream, StreamStart, proofs::Proofs};
use crate::{
    dns::socket,
    negotiation::{Inbound, Link, PeerRole, Side},
    net::{ListenerKind, proxy_protocol, unauthenticated::Rank},
    stream::context::StreamContext,
    telemetry::log_limiter::limited,
    tls::{self, FirstByte, Mode, Transport},
};

/// How long the first byte, a PROXY header and a TLS handshake may take, at most: never longer than
/// the whole of setting up a stream.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// Serves one connection to its end.
pub async fn serve(
    context: Arc<StreamContext>,
    kind: ListenerKind,
    mut stream: TcpStream,
    from: SocketAddr,
) {
    let _ = socket::tune(&stream);
    let config = context.config();
    let mut address = SocketAddr::new(from.ip().to_canonical(), from.port());
    let settings = &config.document.settings;
    let whole = Duration::from_secs(u64::from(settings.stream_establishment_timeout_seconds));
    let deadline = Instant::now() + HANDSHAKE.min(whole);
    let sources = &config.document.proxy_protocol_sources;
    if kind.is_public() && !sources.is_empty() {
        if !sources.iter().any(|source| source.contains(&address.ip())) {
            context.metrics.connection_refused("ProxyHeaderUntrusted");
            limited!(
                info,
                context.log.lines_of("connection", "ProxyHeaderUntrusted"),
                %address, "refused: not from a trusted source of PROXY headers"
            );
            return;
        }
        // A balancer that opens connections and says nothing holds no more than strangers may.
        let Some(_waiting) = context.unauthenticated.await_proxy_header() else {
            context.metrics.connection_refused("Unauthenticated");
            return;
        };
        let header = tokio::select! {
            header = tokio::time::timeout_at(deadline, read_proxy_header(&mut stream)) => header,
            () = context.stopping.cancelled() => return,
        };
        match header {
            Ok(Ok(source)) => address = source.unwrap_or(address),
            Ok(Err(error)) => {
                context.metrics.connection_refused("ProxyHeader");
                limited!(
                    info,
                    context.log.lines_of("connection", "ProxyHeader"),
                    %address, %error, "refused"
                );
                return;
            }
            Err(_) => {
                context.metrics.connection_refused("ProxyHeaderTimeout");
                return;
            }
        }
    }
    let (place, evictions) = context
        .unauthenticated
        .enter(address.ip(), !kind.is_public());
    for _ in 0..evictions {
        context.metrics.connection_refused("Unauthenticated");
    }
    let evicted = place.evicted.clone();
    let first = tokio::select! {
        first = tokio::time::timeout_at(deadline, tls::sniff(&stream)) => first,
        () = evicted.cancelled() => return,
        () = context.stopping.cancelled() => return,
    };
    let direct = match first {
        Ok(Ok(FirstByte::Tls)) => true,
        Ok(Ok(FirstByte::Other(_))) if !kind.is_direct_tls() => false,
        Ok(Ok(FirstByte::Other(_))) => {
            context.metrics.connection_refused("NotTls");
            return;
        }
        Ok(Ok(FirstByte::Closed) | Err(_)) => return,
        Err(_) => {
            context.metrics.connection_refused("Silent");
            return;
        }
    };
    place.rank().raise(Rank::Spoke);
    let side = if kind.is_public() {
        Side::Partner
    } else {
        Side::Gateway
    };
    let (transport, link) = if direct {
        let default = config.document.domains.first().cloned();
        let choose = |sni: Option<&str>| {
            let asked = sni.and_then(|sni| DomainName::parse(sni).ok()).or(default);
            config.identity_of(side, &asked?)
        };
        let handshake = tls::accept(stream, Mode::Direct, deadline, choose);
        let result = tokio::select! {
            result = handshake => result,
            () = evicted.cancelled() => return,
            () = context.stopping.cancelled() => return,
        };
        match result {
            Ok(transport) => {
                place.rank().raise(Rank::Encrypted);
                (transport, Link::Tls)
            }
            Err(error) => {
                context.metrics.connection_refused(error.label());
                limited!(
                    info,
                    context.log.lines_of("TLS", error.label()),
                    %address, %error, "TLS failed"
                );
                return;
            }
        }
    } else {
        (Transport::Plain(stream), Link::Plain)
    };
    let mut stream = Stream::new(
        &context,
        StreamStart {
            side,
            peer: PeerRole::Client,
            transport,
            address: Some(address),
            machine: Machine::Inbound(Box::new(Inbound::new(side, link))),
            outputs: Vec::new(),
            place: Some(place),
            already: Vec::new(),
            tlsa: Vec::new(),
            proofs: Proofs::default(),
            local: None,
            deadline: None,
        },
    );
    match stream.establish().await {
        // Another task, so that what setting up needed is freed.
        Ok(()) => {
            context.tasks.spawn(stream.carry_on());
        }
        Err(fault) => {
            stream.finish().await;
            context.metrics.connection_refused(fault.label());
            tracing::debug!(%address, ?side, cause = fault.label(), "stream not set up: {}", fault.to_string().escape_debug());
        }
    }
}

async fn read_proxy_header(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<SocketAddr>> {
    let mut seen = Vec::with_capacity(128);
    loop {
        let mut byte = [0];
        // A byte at a time: what follows the header is not ours to take. Headers are short.
        stream.read_exact(&mut byte).await?;
        seen.push(byte[0]);
        match proxy_protocol::parse(&seen) {
            Ok(Some(header)) => return Ok(header.source),
            Ok(None) => {}
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}

#[cfg(test)]
mod tests;
