//! Setting up streams: to a partner by DNS or `proxyFqdn`, to a gateway by its address.
//!
//! A partner's pair first looks for a stream that it can share ([`share`]).
//! Every target is tried before giving up. A partner that fails gets its backoff, and what waits its
//! answer; a gateway is tried again every second while something waits for it.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use xmpp_edge_crds::{domain::DomainName, verdict::Direction};

use super::{Start, Stream, environment::ConfigEnvironment, pool};
use crate::{
    config::ActiveConfig,
    dns::{self, Connected, DnsError},
    edge::Edge,
    negotiation::{
        self, Fault, Link, Outbound, Pair, PeerRole, Purpose, Side, Unavailable, Verdict,
    },
    routing::{
        failure::{Failure, FailureKind},
        route::{ConnectNumber, Route},
    },
    telemetry::attempt::{AttemptStep, Step},
    tls::{self, Mode, Transport},
};

/// Between two tries to reach a gateway (behaviour section 4).
const GATEWAY_PAUSE: Duration = Duration::from_secs(1);

/// The targets of a domain, or why there are none.
pub type LookedUp = Result<dns::Candidates, (Failure, Option<AttemptStep>)>;

/// Sets up a stream for a route that is waiting for one under this number, in a task of its own.
pub fn start(edge: &Arc<Edge>, route: &Arc<Route>, number: ConnectNumber) {
    let (edge, route) = (Arc::clone(edge), Arc::clone(route));
    edge.clone().tasks.spawn(async move {
        let only_answers = route.side == Side::Gateway
            && edge
                .config()
                .policy
                .admit(route.pair.from.as_str())
                .is_err();
        // What waits meanwhile expires like anything that waits.
        let permit = if only_answers {
            Arc::clone(&edge.answer_streams).acquire_owned().await.ok()
        } else {
            None
        };
        if permit.is_some() && route.stop_dialling_if_empty(number) {
            // What waited has expired meanwhile: nobody needs the stream any more.
            return;
        }
        let Some(mut own) = Box::pin(pool::find(&edge, &route, number)).await else {
            return;
        };
        loop {
            let purpose = Purpose::Stanzas(route.pair.clone());
            let failure = match reach(&edge, route.side, purpose, own.looked_up.take()).await {
                Ok(mut session) => {
                    if let Some(permit) = permit {
                        session.end_when_done(permit);
                    }
                    // A task of its own, so that what setting up needed is freed.
                    edge.tasks.spawn(session.run());
                    return;
                }
                Err(failure) => failure,
            };
            if !route.is_dialling(number) {
                return;
            }
            let stopping = edge.stopping.is_cancelled();
            if route.side == Side::Gateway && !stopping && failure.kind != FailureKind::Forbidden {
                // Whoever comes from here on starts anew.
                if route.stop_dialling_if_empty(number) {
                    return;
                }
                edge.routes.busy(&route);
                tokio::select! {
                    () = tokio::time::sleep(GATEWAY_PAUSE) => {}
                    () = edge.stopping.cancelled() => {}
                }
                continue;
            }
            let now = Instant::now();
            let (batches, until) = route.rest(number, &failure, now, crate::random::unit());
            if let Some(until) = until {
                edge.attempts.next_try(&edge.config(), &route, until);
            }
            for batch in batches {
                edge.fail(&route, batch, &failure);
            }
            return;
        }
    });
}

/// Asks an authoritative server, once.
pub async fn ask(edge: &Arc<Edge>, side: Side, purpose: Purpose) -> Verdict {
    match reach(edge, side, purpose, None).await {
        Ok(mut session) => {
            let verdict = session.take_verdict();
            session.finish().await;
            verdict.unwrap_or(Verdict::Unavailable(Unavailable::Refused))
        }
        Err(failure) => Verdict::Unavailable(match failure.kind {
            FailureKind::NotFound => Unavailable::NotFound,
            FailureKind::TimedOut => Unavailable::TimedOut,
            FailureKind::Forbidden => Unavailable::Policy,
            _ => Unavailable::ConnectionFailed,
        }),
    }
}

/// Finds the targets of `peer`: whether it may be dialled at all is asked first.
pub async fn look_up(
    edge: &Edge,
    config: &ActiveConfig,
    side: Side,
    peer: &DomainName,
) -> LookedUp {
    let way = way_to(config, side, peer).map_err(|failure| (failure, None))?;
    edge.dialer
        .candidates(peer, &way, direction(side))
        .await
        .map_err(|(fault, step)| (of_dns(&fault), Some(step)))
}

/// Whose stanzas a stream of ours carries.
fn direction(side: Side) -> Direction {
    match side {
        Side::Partner => Direction::Outbound,
        Side::Gateway => Direction::Inbound,
    }
}

/// Walks over the targets until a stream does what it is for.
async fn reach(
    edge: &Arc<Edge>,
    side: Side,
    purpose: Purpose,
    looked_up: Option<LookedUp>,
) -> Result<Box<Stream>, Failure> {
    let config = edge.config();
    let began = Instant::now();
    let (peer, _) = ends(&purpose);
    let looked_up = match looked_up {
        Some(looked_up) => looked_up,
        None => look_up(edge, &config, side, &peer).await,
    };
    let mut candidates = match looked_up {
        Ok(candidates) => candidates,
        Err((failure, step)) => {
            if let Some(step) = step {
                edge.attempts.begin(&config, side, &peer);
                edge.attempts.note(edge, &config, side, step);
                edge.attempts.failed(&config, side, &peer);
            }
            return Err(failure);
        }
    };
    edge.attempts.begin(&config, side, &peer);
    let mut last = Failure::new(
        FailureKind::NotFound,
        format!("no address found for {peer}"),
    );
    let mut skip_sasl = false;
    while let Some(next) = candidates.next().await {
        for step in candidates.take_steps() {
            edge.attempts.note(edge, &config, side, step);
        }
        let connected = match next {
            Ok(connected) => connected,
            Err(fault) => {
                let kind = match (&fault, last.kind) {
                    (dns::ConnectFault::Dns { .. }, FailureKind::NotFound) => FailureKind::NotFound,
                    _ => FailureKind::Unreachable,
                };
                last = Failure::new(kind, fault.to_string());
                continue;
            }
        };
        let address = connected.candidate.address;
        match negotiate(edge, &config, side, &purpose, connected, skip_sasl).await {
            Ok(session) => {
                tracing::debug!(%peer, %address, took = ?began.elapsed(), "stream set up");
                return Ok(session);
            }
            // The peer has opened a stream that carries the pair: no target is tried any more.
            Err(fault @ Fault::Done) => {
                return Err(Failure::new(FailureKind::Unreachable, fault.to_string()));
            }
            Err(fault) => {
                let kind = match fault {
                    Fault::EstablishmentTimeout => FailureKind::TimedOut,
                    Fault::Policy(_) | Fault::HostUnknown => FailureKind::Forbidden,
                    _ => FailureKind::Unreachable,
                };
                if matches!(fault, Fault::SaslRejected { ended: true, .. }) && !skip_sasl {
                    // It hung up over EXTERNAL: the same server by dialback, before any other.
                    candidates.again(address);
                }
                skip_sasl |= matches!(fault, Fault::SaslRejected { .. });
                last = Failure::new(kind, format!("{peer} at {address}: {fault}"));
                // What the peer said stands in it: it must not forge lines.
                let told = fault.to_string();
                let told = told.escape_debug();
                tracing::info!(%peer, %address, cause = fault.label(), "no stream: {told}");
                if kind == FailureKind::Forbidden {
                    break;
                }
            }
        }
    }
    for step in candidates.take_steps() {
        edge.attempts.note(edge, &config, side, step);
    }
    edge.attempts.failed(&config, side, &peer);
    Err(last)
}

async fn negotiate(
    edge: &Arc<Edge>,
    config: &Arc<ActiveConfig>,
    side: Side,
    purpose: &Purpose,
    connected: Connected,
    skip_sasl: bool,
) -> Result<Box<Stream>, Fault> {
    let (peer, local) = ends(purpose);
    let candidate = connected.candidate;
    let began = Instant::now();
    let limit = u64::from(
        config
            .document
            .settings
            .stream_establishment_timeout_seconds,
    );
    let deadline = tokio::time::Instant::now() + Duration::from_secs(limit);
    let (transport, link) = if candidate.direct_tls {
        let identity = config.identity_of(side, &local);
        match tls::connect(
            connected.stream,
            identity.as_deref(),
            &peer,
            Mode::Direct,
            deadline,
        )
        .await
        {
            Ok(transport) => {
                let facts = transport.facts().map(Arc::new);
                (transport, facts)
            }
            Err(error) => {
                let step = AttemptStep {
                    step: Step::Tls,
                    direction: direction(side),
                    domain: peer,
                    outcome: error.label(),
                    address: Some(candidate.address),
                    text: error.to_string(),
                    took: began.elapsed(),
                };
                edge.attempts.note(edge, config, side, step);
                return Err(Fault::TlsFailed {
                    label: error.label(),
                    text: error.to_string(),
                });
            }
        }
    } else {
        (Transport::Plain(connected.stream), None)
    };
    let tlsa: Vec<_> = candidate
        .tlsa
        .map(|records| (peer.clone(), records))
        .into_iter()
        .collect();
    let mut outputs = Vec::new();
    let machine = {
        let environment = ConfigEnvironment {
            config,
            tlsa: &tlsa,
        };
        let start = negotiation::Start {
            side,
            purpose: purpose.clone(),
            link: link.clone().map_or(Link::Plain, Link::DirectTls),
            skip_sasl,
        };
        Outbound::start(start, &environment, &mut outputs)
    };
    let mut session = Stream::new(
        edge,
        Start {
            side,
            peer: PeerRole::Server,
            transport,
            address: Some(candidate.address),
            tls: link,
            machine: super::Machine::Outbound(Box::new(machine)),
            outputs,
            place: None,
            already: Vec::new(),
            tlsa,
            local: Some(local),
        },
    );
    if !Arc::ptr_eq(config, &session.config) {
        // It came into force while the address was looked up and dialled.
        session.handle.tell(super::Command::ConfigChanged);
    }
    match session.establish().await {
        Ok(()) => Ok(session),
        Err(fault) => {
            session.finish().await;
            Err(fault)
        }
    }
}

/// Whom we dial, and as whom.
fn ends(purpose: &Purpose) -> (DomainName, DomainName) {
    match purpose {
        Purpose::Stanzas(Pair { from, to }) => (to.clone(), from.clone()),
        Purpose::Verify(question) => (question.pair.from.clone(), question.pair.to.clone()),
    }
}

fn way_to(config: &ActiveConfig, side: Side, peer: &DomainName) -> Result<dns::Route, Failure> {
    match side {
        Side::Partner => {
            config.policy.admit(peer.as_str()).map_err(|reason| {
                Failure::new(
                    FailureKind::Forbidden,
                    format!(
                        "{peer} is not a partner that may talk ({})",
                        reason.as_str()
                    ),
                )
            })?;
            let proxy = config
                .partner(peer)
                .and_then(|partner| partner.proxy_fqdn.clone());
            Ok(proxy.map_or(dns::Route::Discover, dns::Route::Fixed))
        }
        Side::Gateway => match config.gateway(peer) {
            Some(gateway) => Ok(dns::Route::Fixed(gateway.config.address.clone())),
            None => Err(Failure::new(
                FailureKind::Forbidden,
                format!("no gateway serves {peer}"),
            )),
        },
    }
}

fn of_dns(fault: &DnsError) -> Failure {
    let kind = if fault.is_definite() {
        FailureKind::NotFound
    } else {
        FailureKind::Unreachable
    };
    Failure::new(kind, fault.to_string())
}

/// Whether an address may be dialled for a partner that was found by DNS.
pub fn is_forbidden(address: SocketAddr, own: &[SocketAddr], loopback_is_open: bool) -> bool {
    let is_own = own.iter().any(|own| {
        own.port() == address.port()
            && (own.ip() == address.ip() || own.ip().is_unspecified() && address.ip().is_loopback())
    });
    is_own || (!loopback_is_open && dns::connect::is_guarded(address.ip()))
}
