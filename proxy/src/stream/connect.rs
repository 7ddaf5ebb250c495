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

use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::{domain::DomainName, verdict::Direction};

use super::{
    Stream, StreamStart, environment::ConfigEnvironment, pool, proofs::Proofs, walk::Walk,
};
use crate::{
    config::ActiveConfig,
    dns::{self, Connected, DnsError},
    negotiation::{
        self, Fault, KeyVerification, Link, Outbound, Pair, PeerRole, Purpose, Side, Unavailable,
        WireNames,
    },
    routing::{
        dial_ticket::DialTicket,
        failure::{Failure, FailureKind},
        route::Route,
        router::DialRequests,
    },
    stream::context::StreamContext,
    telemetry::attempt::{AttemptStep, Step},
    tls::{self, Mode, Transport},
};

/// What an attempt may take beyond its deadline, to end in order.
const GRACE: Duration = Duration::from_secs(1);

/// The targets of a domain, or why there are none.
pub type LookedUp = Result<dns::Candidates, (Failure, Option<AttemptStep>)>;

/// Sets streams up as they are asked for, each in a task of its own, until `stop`.
pub async fn serve(context: Arc<StreamContext>, mut dials: DialRequests, stop: CancellationToken) {
    loop {
        let ticket = tokio::select! {
            ticket = dials.recv() => ticket,
            () = stop.cancelled() => return,
        };
        let Some(ticket) = ticket else { return };
        context.tasks.spawn(run(Arc::clone(&context), ticket));
    }
}

/// Sets a stream up for the route of this ticket, and tries again while something waits for it and
/// may be delivered in time.
async fn run(context: Arc<StreamContext>, mut ticket: DialTicket) {
    let route = Arc::clone(ticket.route());
    if let Some(until) = ticket.not_before {
        pause(&context, &route, until).await;
    }
    let only_answers = route.side == Side::Gateway
        && context
            .config()
            .policy
            .admit(route.pair.from.as_str())
            .is_err();
    // What waits meanwhile expires like anything that waits.
    let mut permit = if only_answers {
        Arc::clone(&context.answer_streams)
            .acquire_owned()
            .await
            .ok()
    } else {
        None
    };
    if permit.is_some() && route.stop_dialling_if_empty(ticket.number()) {
        // What waited has expired meanwhile: nobody needs the stream any more.
        return ticket.done();
    }
    let Some(mut own) = Box::pin(pool::find(&context, &route, ticket.number())).await else {
        return ticket.done();
    };
    loop {
        let attempt = reach(
            &context,
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
                context.tasks.spawn(stream.run());
                return;
            }
            Err(failure) => failure,
        };
        let stopping = context.stopping.is_cancelled();
        let (again, next) = context.router.failed(ticket, &failure, stopping);
        if let Some(next) = next {
            let config = context.config();
            let peer = config.attempt_peer(route.side, &route.pair.to);
            context.attempts.next_try(peer, &route.pair.to, next);
        }
        let Some((same, wait)) = again else { return };
        ticket = same;
        pause(&context, &route, Instant::now() + wait).await;
        // What waited has expired: whoever comes from here on starts anew.
        if route.stop_dialling_if_empty(ticket.number()) {
            return ticket.done();
        }
    }
}

/// Waits, unless the peer shows itself or the process ends.
async fn pause(context: &StreamContext, route: &Route, until: Instant) {
    tokio::select! {
        () = tokio::time::sleep_until(until.into()) => {}
        () = route.sign() => {}
        () = context.stopping.cancelled() => {}
    }
}

/// Asks an authoritative server, once.
pub async fn ask(context: &Arc<StreamContext>, side: Side, purpose: Purpose) -> KeyVerification {
    match reach(context, side, purpose, None, None).await {
        Ok(mut stream) => {
            let verdict = stream.take_verdict();
            stream.finish().await;
            verdict.unwrap_or(KeyVerification::Unavailable(Unavailable::Refused))
        }
        Err(failure) => KeyVerification::Unavailable(match failure.kind {
            FailureKind::NotFound => Unavailable::NotFound,
            FailureKind::TimedOut => Unavailable::TimedOut,
            FailureKind::Forbidden => Unavailable::Policy,
            _ => Unavailable::ConnectionFailed,
        }),
    }
}

/// Finds the targets of `peer`: whether it may be dialled at all is asked first.
pub async fn look_up(
    context: &StreamContext,
    config: &ActiveConfig,
    side: Side,
    peer: &DomainName,
) -> LookedUp {
    let way = way_to(config, side, peer).map_err(|failure| (failure, None))?;
    let egress = config.egress.clone().filter(|_| side == Side::Partner);
    context
        .dialer
        .candidates(peer, &way, egress, direction(side))
        .await
        .map_err(|(fault, step)| (of_dns(&fault), Some(step)))
}

/// Whose stanzas a stream of ours carries.
pub(super) fn direction(side: Side) -> Direction {
    match side {
        Side::Partner => Direction::Outbound,
        Side::Gateway => Direction::Inbound,
    }
}

/// Walks over the targets until a stream does what it is for: all of it within
/// `streamEstablishmentTimeoutSeconds`. A negotiation that is not over soon lets the next target start
/// beside it.
async fn reach(
    context: &Arc<StreamContext>,
    side: Side,
    purpose: Purpose,
    looked_up: Option<LookedUp>,
    ticket: Option<&DialTicket>,
) -> Result<Box<Stream>, Failure> {
    let config = context.config();
    let seconds = config
        .document
        .settings
        .stream_establishment_timeout_seconds;
    let deadline = Instant::now() + Duration::from_secs(u64::from(seconds));
    let (peer, _) = ends(&purpose);
    let whose = config.attempt_peer(side, &peer);
    let looked_up = match looked_up {
        Some(looked_up) => looked_up,
        None => look_up(context, &config, side, &peer).await,
    };
    let candidates = match looked_up {
        Ok(candidates) => candidates,
        Err((failure, step)) => {
            if let Some(step) = step {
                context.attempts.begin(whose, &peer);
                context.attempts.note(whose, step);
                context.attempts.failed(whose, &peer);
            }
            return Err(failure);
        }
    };
    context.attempts.begin(whose, &peer);
    let mut walk = Walk::new(context, &config, side, &purpose, ticket, deadline);
    // The streams' own deadline comes first, so that the attempt says how far it came.
    let outcome = tokio::time::timeout_at((deadline + GRACE).into(), walk.over(candidates)).await;
    let failure = match outcome {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(failure)) => failure,
        Err(_) => Failure::new(FailureKind::TimedOut, walk.last().text.clone()),
    };
    context.attempts.failed(whose, &peer);
    Err(failure)
}

/// How we prove ourselves on the next connection to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnProof {
    /// By the best method that both sides have.
    Any,
    /// Not by SASL EXTERNAL: the peer refused it.
    Dialback,
    /// And without showing a certificate: the peer ended TLS over it.
    DialbackWithoutCertificate,
}

/// One negotiation with a server that was reached.
pub(super) struct Negotiation {
    pub(super) context: Arc<StreamContext>,
    pub(super) config: Arc<ActiveConfig>,
    pub(super) side: Side,
    pub(super) purpose: Purpose,
    pub(super) proof: OwnProof,
    pub(super) skip_bidi: bool,
    pub(super) names: WireNames,
    pub(super) deadline: Instant,
    /// Cancelled when nobody needs the stream any more: it ends in order.
    pub(super) superseded: CancellationToken,
}

impl Negotiation {
    /// # Errors
    /// Why there is no stream.
    pub(super) async fn run(self, connected: Connected) -> Result<Box<Stream>, Fault> {
        let (peer, local) = ends(&self.purpose);
        let local = Some(local).filter(|_| self.proof != OwnProof::DialbackWithoutCertificate);
        let Connected { stream, candidate } = connected;
        let (transport, link) = if candidate.direct_tls {
            let began = self.direct_tls(stream, &peer, local.as_ref(), &candidate);
            let transport = tokio::select! {
                transport = began => transport?,
                () = self.superseded.cancelled() => return Err(Fault::Done),
            };
            let facts = transport.facts().map(Arc::new);
            (transport, facts)
        } else {
            (Transport::Plain(stream), None)
        };
        let tlsa: Vec<_> = candidate
            .tlsa
            .map(|records| (peer.clone(), records))
            .into_iter()
            .collect();
        let mut outputs = Vec::new();
        let proofs = Proofs::default();
        let machine = {
            let environment = ConfigEnvironment {
                config: &self.config,
                tlsa: &tlsa,
                proofs: &proofs,
            };
            let start = negotiation::OutboundStart {
                side: self.side,
                purpose: self.purpose,
                link: link.clone().map_or(Link::Plain, Link::DirectTls),
                skip_sasl: self.proof != OwnProof::Any,
                skip_bidi: self.skip_bidi,
                names: self.names,
            };
            Outbound::start(start, &environment, &mut outputs)
        };
        let mut stream = Stream::new(
            &self.context,
            StreamStart {
                side: self.side,
                peer: PeerRole::Server,
                transport,
                address: candidate.endpoint.address(),
                tls: link,
                machine: super::Machine::Outbound(Box::new(machine)),
                outputs,
                place: None,
                already: Vec::new(),
                tlsa,
                proofs,
                local,
                deadline: Some(self.deadline),
            },
        );
        if !Arc::ptr_eq(&self.config, &stream.config) {
            // It came into force while the address was looked up and dialled.
            stream.handle.tell(super::Command::ConfigChanged);
        }
        let handle = Arc::clone(&stream.handle);
        let superseded = async {
            self.superseded.cancelled().await;
            handle.tell(super::Command::End(Fault::Done));
            std::future::pending().await
        };
        let established = tokio::select! {
            biased;
            never = superseded => never,
            established = stream.establish() => established,
        };
        match established {
            Ok(()) => Ok(stream),
            Err(fault) => {
                stream.finish().await;
                Err(fault)
            }
        }
    }

    /// TLS from the first byte; what becomes of it is noted.
    async fn direct_tls(
        &self,
        socket: TcpStream,
        peer: &DomainName,
        local: Option<&DomainName>,
        candidate: &dns::Candidate,
    ) -> Result<Transport, Fault> {
        let began = Instant::now();
        let identity = local.and_then(|local| self.config.identity_of(self.side, local));
        let deadline = self.deadline.into();
        tls::connect(socket, identity.as_deref(), peer, Mode::Direct, deadline)
            .await
            .map_err(|error| {
                let step = AttemptStep {
                    step: Step::Tls,
                    direction: direction(self.side),
                    domain: peer.clone(),
                    outcome: error.label(),
                    address: candidate.endpoint.address(),
                    text: error.to_string(),
                    took: began.elapsed(),
                };
                let whose = self.config.attempt_peer(self.side, &step.domain);
                self.context.attempts.note(whose, step);
                Fault::TlsFailed {
                    label: error.label(),
                    text: error.to_string(),
                }
            })
    }
}

/// Whom we dial, and as whom.
pub(super) fn ends(purpose: &Purpose) -> (DomainName, DomainName) {
    match purpose {
        Purpose::Stanzas(Pair { from, to }) => (to.clone(), from.clone()),
        Purpose::Verify(question) => (question.pair.from.clone(), question.pair.to.clone()),
    }
}

fn way_to(
    config: &ActiveConfig,
    side: Side,
    peer: &DomainName,
) -> Result<dns::TargetSource, Failure> {
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
            let except = || config.document.settings.dial_except.as_slice().into();
            Ok(proxy.map_or_else(
                || dns::TargetSource::Discover { except: except() },
                dns::TargetSource::Fixed,
            ))
        }
        Side::Gateway => match config.gateway(peer) {
            Some(gateway) => Ok(dns::TargetSource::Fixed(gateway.config.address.clone())),
            None => Err(Failure::new(
                FailureKind::Forbidden,
                format!("no gateway serves {peer}"),
            )),
        },
    }
}

/// What DNS says is a verdict, or may be another in a moment.
pub(super) fn kind_of_dns(fault: &DnsError) -> FailureKind {
    match fault {
        DnsError::Bogus { .. } => FailureKind::Refused,
        fault if fault.is_definite() => FailureKind::NotFound,
        _ => FailureKind::Unreachable,
    }
}

fn of_dns(fault: &DnsError) -> Failure {
    Failure::new(kind_of_dns(fault), fault.to_string())
}

/// Whether an address may be dialled for a partner that was found by DNS.
pub fn is_forbidden(
    address: SocketAddr,
    own: &[SocketAddr],
    loopback_is_open: bool,
    except: &[IpNet],
) -> bool {
    let is_own = own.iter().any(|own| {
        own.port() == address.port()
            && (own.ip() == address.ip() || own.ip().is_unspecified() && address.ip().is_loopback())
    });
    is_own || (!loopback_is_open && dns::connect::is_guarded(address.ip(), except))
}
