//! Setting up streams: to a partner by DNS or `proxyFqdn`, to a gateway by its address.
//!
//! A partner's pair first looks for a stream that it can share ([`share`]).
//! Every target is tried before giving up, and again at short intervals while something waits that may
//! still be delivered in time ([`Route::failed`]).

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio_util::sync::CancellationToken;
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
        dial_ticket::DialTicket,
        failure::{Failure, FailureKind},
        route::Route,
        router::DialRequests,
    },
    telemetry::attempt::{AttemptStep, Step},
    tls::{self, Mode, Transport},
};

/// A negotiation that is not over after this long lets the next target start beside it.
const BESIDE: Duration = Duration::from_secs(5);
/// What an attempt may take beyond its deadline, to end in order.
const GRACE: Duration = Duration::from_secs(1);

/// The targets of a domain, or why there are none.
pub type LookedUp = Result<dns::Candidates, (Failure, Option<AttemptStep>)>;

/// Sets streams up as they are asked for, each in a task of its own, until `stop`.
pub async fn serve(edge: Arc<Edge>, mut dials: DialRequests, stop: CancellationToken) {
    loop {
        let ticket = tokio::select! {
            ticket = dials.recv() => ticket,
            () = stop.cancelled() => return,
        };
        let Some(ticket) = ticket else { return };
        edge.tasks.spawn(run(Arc::clone(&edge), ticket));
    }
}

/// Sets a stream up for the route of this ticket, and tries again while something waits for it and
/// may be delivered in time.
async fn run(edge: Arc<Edge>, mut ticket: DialTicket) {
    let route = Arc::clone(ticket.route());
    if let Some(until) = ticket.not_before {
        pause(&edge, &route, until).await;
    }
    let only_answers = route.side == Side::Gateway
        && edge
            .config()
            .policy
            .admit(route.pair.from.as_str())
            .is_err();
    // What waits meanwhile expires like anything that waits.
    let mut permit = if only_answers {
        Arc::clone(&edge.answer_streams).acquire_owned().await.ok()
    } else {
        None
    };
    if permit.is_some() && route.stop_dialling_if_empty(ticket.number()) {
        // What waited has expired meanwhile: nobody needs the stream any more.
        return ticket.done();
    }
    let Some(mut own) = Box::pin(pool::find(&edge, &route, ticket.number())).await else {
        return ticket.done();
    };
    loop {
        let attempt = reach(
            &edge,
            route.side,
            Purpose::Stanzas(route.pair.clone()),
            own.looked_up.take(),
            Some(&ticket),
        );
        let outcome = tokio::select! {
            biased;
            outcome = Box::pin(attempt) => outcome,
            () = route.overtaken(ticket.number()) => return ticket.done(),
        };
        let failure = match outcome {
            Ok(mut stream) => {
                if let Some(permit) = permit.take() {
                    stream.end_when_done(permit);
                }
                ticket.done();
                // A task of its own, so that what setting up needed is freed.
                edge.tasks.spawn(stream.run());
                return;
            }
            Err(failure) => failure,
        };
        let stopping = edge.stopping.is_cancelled();
        let (again, next) = edge.router.failed(ticket, &failure, stopping);
        if let Some(next) = next {
            edge.attempts.next_try(&edge.config(), &route, next);
        }
        let Some((same, wait)) = again else { return };
        ticket = same;
        pause(&edge, &route, Instant::now() + wait).await;
        // What waited has expired: whoever comes from here on starts anew.
        if route.stop_dialling_if_empty(ticket.number()) {
            return ticket.done();
        }
    }
}

/// Waits, unless the peer shows itself or the process ends.
async fn pause(edge: &Edge, route: &Route, until: Instant) {
    tokio::select! {
        () = tokio::time::sleep_until(until.into()) => {}
        () = route.sign() => {}
        () = edge.stopping.cancelled() => {}
    }
}

/// Asks an authoritative server, once.
pub async fn ask(edge: &Arc<Edge>, side: Side, purpose: Purpose) -> Verdict {
    match reach(edge, side, purpose, None, None).await {
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

/// Walks over the targets until a stream does what it is for: all of it within
/// `streamEstablishmentTimeoutSeconds`. A negotiation that is not over soon lets the next target start
/// beside it.
async fn reach(
    edge: &Arc<Edge>,
    side: Side,
    purpose: Purpose,
    looked_up: Option<LookedUp>,
    ticket: Option<&DialTicket>,
) -> Result<Box<Stream>, Failure> {
    let config = edge.config();
    let seconds = config
        .document
        .settings
        .stream_establishment_timeout_seconds;
    let deadline = Instant::now() + Duration::from_secs(u64::from(seconds));
    let (peer, _) = ends(&purpose);
    let looked_up = match looked_up {
        Some(looked_up) => looked_up,
        None => look_up(edge, &config, side, &peer).await,
    };
    let candidates = match looked_up {
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
    let mut walk = Walk {
        edge,
        config: &config,
        side,
        purpose: &purpose,
        peer: &peer,
        ticket,
        deadline,
        skip_sasl: false,
        again: Vec::new(),
        last: Failure::new(
            FailureKind::NotFound,
            format!("no address found for {peer}"),
        ),
        is_outage: false,
    };
    // The streams' own deadline comes first, so that the attempt says how far it came.
    let outcome = tokio::time::timeout_at((deadline + GRACE).into(), walk.over(candidates)).await;
    let failure = match outcome {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(failure)) => failure,
        Err(_) => Failure::new(FailureKind::TimedOut, walk.last.text),
    };
    edge.attempts.failed(&config, side, &peer);
    Err(failure)
}

/// One attempt at the targets of a peer.
struct Walk<'a> {
    edge: &'a Arc<Edge>,
    config: &'a Arc<ActiveConfig>,
    side: Side,
    purpose: &'a Purpose,
    peer: &'a DomainName,
    ticket: Option<&'a DialTicket>,
    deadline: Instant,
    skip_sasl: bool,
    /// Addresses that are to be tried once more.
    again: Vec<SocketAddr>,
    last: Failure,
    /// One target at least may be back in a moment.
    is_outage: bool,
}

/// The next connection, with what is left behind it.
type Next = (
    dns::Candidates,
    Option<Result<Connected, dns::ConnectFault>>,
);

async fn next_of(mut candidates: dns::Candidates) -> Next {
    let next = candidates.next().await;
    (candidates, next)
}

impl Walk<'_> {
    async fn over(&mut self, candidates: dns::Candidates) -> Result<Box<Stream>, Failure> {
        let mut negotiations = FuturesUnordered::new();
        let mut connecting = Some(Box::pin(next_of(candidates)));
        let mut rest = None;
        let mut beside = Instant::now();
        loop {
            if connecting.is_none() && (negotiations.is_empty() || Instant::now() >= beside) {
                connecting = rest.take().map(|mut candidates: dns::Candidates| {
                    for address in self.again.drain(..) {
                        candidates.again(address);
                    }
                    Box::pin(next_of(candidates))
                });
            }
            if connecting.is_none() && negotiations.is_empty() {
                break;
            }
            let is_negotiating = !negotiations.is_empty();
            if let Some(ticket) = self.ticket {
                ticket.route().negotiates(ticket.number(), is_negotiating);
            }
            tokio::select! {
                biased;
                Some((address, outcome)) = negotiations.next(), if is_negotiating => match outcome {
                    Ok(stream) => return Ok(stream),
                    Err(fault) => self.negotiation_failed(address, fault)?,
                },
                (mut candidates, next) = if_some(&mut connecting) => {
                    connecting = None;
                    for step in candidates.take_steps() {
                        self.edge.attempts.note(self.edge, self.config, self.side, step);
                    }
                    match next {
                        None => continue,
                        Some(Ok(connected)) => {
                            let address = connected.candidate.address;
                            let stream = negotiate(
                                self.edge,
                                self.config,
                                self.side,
                                self.purpose,
                                connected,
                                self.skip_sasl,
                                self.deadline,
                            );
                            negotiations.push(async move { (address, stream.await) });
                            beside = Instant::now() + BESIDE;
                        }
                        Some(Err(fault)) => self.connection_failed(&fault),
                    }
                    rest = Some(candidates);
                }
                () = tokio::time::sleep_until(beside.into()),
                    if rest.is_some() && connecting.is_none() => {}
            }
        }
        let mut failure = self.last.clone();
        if self.is_outage && !failure.kind.is_outage() {
            failure.kind = FailureKind::Unreachable;
        }
        Err(failure)
    }

    fn connection_failed(&mut self, fault: &dns::ConnectFault) {
        let kind = match (fault, self.last.kind) {
            (dns::ConnectFault::Dns { cause, .. }, FailureKind::NotFound)
                if cause.is_definite() =>
            {
                FailureKind::NotFound
            }
            (dns::ConnectFault::Forbidden { .. }, _) => FailureKind::Refused,
            _ => FailureKind::Unreachable,
        };
        self.failed(Failure::new(kind, fault.to_string()));
    }

    /// # Errors
    /// Where no further target is to be tried.
    fn negotiation_failed(&mut self, address: SocketAddr, fault: Fault) -> Result<(), Failure> {
        // The peer has opened a stream that carries the pair: no target is tried any more.
        if fault == Fault::Done {
            return Err(Failure::new(FailureKind::Unreachable, fault.to_string()));
        }
        if let Fault::SaslRejected { ended, .. } = fault {
            if ended && !self.skip_sasl {
                // It hung up over EXTERNAL: the same server by dialback, before any other.
                self.again.push(address);
            }
            self.skip_sasl = true;
        }
        let kind = kind_of(&fault);
        let before = format!("{} at {address}: ", self.peer);
        self.failed(Failure::quoting(kind, &before, &fault.to_string(), ""));
        // What the peer said stands in it: it must not forge lines.
        let told = fault.to_string();
        let (peer, told) = (self.peer, told.escape_debug());
        tracing::info!(%peer, %address, cause = fault.label(), "no stream: {told}");
        match kind {
            FailureKind::Forbidden => Err(self.last.clone()),
            _ => Ok(()),
        }
    }

    fn failed(&mut self, failure: Failure) {
        self.is_outage |= failure.kind.is_outage();
        if let Some(ticket) = self.ticket {
            ticket.route().note_failure(&failure);
        }
        self.last = failure;
    }
}

/// Whether a fault may be over in a moment, or is what somebody wants.
fn kind_of(fault: &Fault) -> FailureKind {
    /// Conditions of servers that are starting, ending, or short of something (RFC 6120 sections 4.9.3
    /// and 8.3.3).
    const PASSING: [&str; 9] = [
        "connection-timeout",
        "internal-server-error",
        "remote-connection-failed",
        "remote-server-not-found",
        "remote-server-timeout",
        "reset",
        "resource-constraint",
        "system-shutdown",
        "temporary-auth-failure",
    ];
    match fault {
        Fault::EstablishmentTimeout => FailureKind::TimedOut,
        Fault::Policy(_) | Fault::HostUnknown => FailureKind::Forbidden,
        Fault::PeerClosed | Fault::Shutdown | Fault::Unresponsive => FailureKind::Unreachable,
        Fault::PeerError { condition, .. }
        | Fault::DialbackError { condition }
        | Fault::SaslRejected { condition, .. }
            if PASSING.contains(&condition.as_str()) =>
        {
            FailureKind::Unreachable
        }
        // The connection broke, or the handshake was too slow: nobody has refused anything.
        Fault::TlsFailed { label, .. } if ["TlsTimeout", "TlsIo", "TlsClosed"].contains(label) => {
            FailureKind::Unreachable
        }
        _ => FailureKind::Refused,
    }
}

/// Never, where there is nothing to wait for.
async fn if_some<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn negotiate(
    edge: &Arc<Edge>,
    config: &Arc<ActiveConfig>,
    side: Side,
    purpose: &Purpose,
    connected: Connected,
    skip_sasl: bool,
    deadline: Instant,
) -> Result<Box<Stream>, Fault> {
    let (peer, local) = ends(purpose);
    let candidate = connected.candidate;
    let began = Instant::now();
    let (transport, link) = if candidate.direct_tls {
        let identity = config.identity_of(side, &local);
        match tls::connect(
            connected.stream,
            identity.as_deref(),
            &peer,
            Mode::Direct,
            deadline.into(),
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
            deadline: Some(deadline),
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
