//! A stream that has become a trunk: one task that reads and writes it, driven by [`crate::trunk::machine`].
//!
//! It goes on with the connection, the scanner and the negotiation machine of the stream that set it up. What
//! is said on it is the trunk's; the stream's end, its errors and a configuration that forbids it are the
//! negotiation machine's as before.

pub mod absence;
pub mod attendance;
pub mod dial;
mod events;
pub mod far_end;
mod far_server;
pub mod figures;
pub mod hand_over;
pub mod outdated;
mod pairs;
mod receiver;
pub mod registry;
pub mod server;
pub mod server_watch;
mod terms;
mod traffic;

use std::{
    future::poll_fn,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use xmpp_edge_crds::domain::DomainName;

use self::{
    far_server::FarServer,
    figures::TrunkFigures,
    pairs::{Speaker, TrunkPair},
    receiver::TrunkReceiver,
    terms::TrunkTerms,
};
use super::{CLOSING, Stream, TURN, state::StreamState};
use crate::{
    config::trunk_name::ProductVersion,
    dns::socket,
    negotiation::{CertificateRejection, Fault, PeerRole},
    routing::{
        acknowledgement::MovedPairs,
        batch::Batch,
        failure::{Failure, FailureKind},
        route::Route,
    },
    telemetry::{attempt::Step, log_limiter::limited},
    tls,
    trunk::{
        fault::TrunkFault,
        machine::Trunk,
        nonza::{EdgeChange, Enable, Nonza},
        sending::{ReturnedPair, TrunkEnd},
        turns::TrunkTurns,
    },
    xml::Limits,
};

/// Bytes that the peer has not acknowledged for this long end the connection (RFC 5482).
const USER_TIMEOUT: Duration = Duration::from_secs(5);
/// One in so many batches is timed.
const SAMPLE: u32 = 16;
/// Between two looks at routes that are to move and still have something unacknowledged here.
const MOVING: Duration = Duration::from_millis(20);
/// No trunk is renewed later than after two thirds of this.
const MOST_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Nor before this: what is about to end is not worth a dial each moment.
const LEAST_LIFE: Duration = Duration::from_secs(1);
/// Between two looks at how long something is unacknowledged.
const AGE_LOOK: Duration = Duration::from_secs(1);
/// What stands on a trunk was within the limits of the listener that read it first, but may have been
/// written anew since: prefixes declared, sections escaped, an error in place of a stanza.
const GROWN: usize = 64 * 1024;

/// A trunk with its connection.
#[derive(Debug)]
pub struct TrunkStream {
    stream: Box<Stream>,
    peer: DomainName,
    trunk: Trunk<TrunkPair>,
    turns: TrunkTurns,
    receiver: TrunkReceiver,
    speaker: Speaker,
    terms: TrunkTerms,
    /// Routes that have a better trunk, or may have none here any more.
    leaving: Vec<Arc<Route>>,
    look: NextLook,
    /// When the other end's certificate ends, and with it the trunk.
    expires: Option<Instant>,
    opened: CountLately,
    changes: CountLately,
    figures: Arc<TrunkFigures>,
    /// Batches sent, to time one in [`SAMPLE`].
    sampled: u32,
    /// It is to end in order, once what waits for it has gone out, or then.
    drains_by: Option<Instant>,
    standing: TrunkStanding,
    far_server: FarServer,
    dialled_for: TrunkDial,
}

/// When what is done now and then is done next.
#[derive(Debug)]
struct NextLook {
    leaving: Instant,
    idle: Instant,
    age: Instant,
}

/// How often the peer did something within a minute: it opened pairs, each of which costs routes that are
/// forgotten a minute later; it said that something is another, at which others look at their routes.
#[derive(Debug)]
struct CountLately {
    since: Instant,
    count: usize,
}

/// What a sidecar dialled a trunk for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrunkDial {
    /// A pod to which it has none.
    Further,
    /// To take the place of one that stands.
    Renewal,
}

/// Whether others know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrunkStanding {
    /// The two have not told each other who they are.
    Greeting,
    Stood,
    /// Another trunk leads to the same pod.
    Redundant,
}

impl Stream {
    /// Goes on as what it was set up for: a trunk, or a stream of its own.
    pub async fn carry_on(self: Box<Self>) {
        match self.state.trunk().cloned() {
            // Boxed: a stream's task need not have room for a trunk.
            Some(peer) => {
                Box::pin(TrunkStream::new(self, peer).run()).await;
            }
            None => self.run().await,
        }
    }
}

/// The version of this program.
fn own_version() -> ProductVersion {
    env!("CARGO_PKG_VERSION")
        .parse()
        .expect("a package has a version of three numbers")
}

impl TrunkStream {
    /// From a stream on which `peer` has proved itself for it.
    pub(super) fn new(mut stream: Box<Stream>, peer: DomainName) -> Box<Self> {
        let now = Instant::now();
        let settings = &stream.config.document.settings;
        let queue_timeout = Duration::from_secs(u64::from(settings.queue_timeout_seconds));
        let queue = settings.queue_bytes;
        let moved = Arc::new(MovedPairs::new(Arc::clone(stream.handle.waker())));
        let trunk = match &stream.config.edge_dials {
            Some(dials) => {
                let enable = Enable {
                    instance: dials.instance.clone(),
                    start: stream.context.trunks.start(),
                    version: dials.version,
                    queue,
                    claim: stream
                        .context
                        .trunks
                        .opening(stream.entry.id, Timestamp::now()),
                    server: stream.context.trunks.own_server(),
                };
                Trunk::sidecar(enable, queue_timeout, moved, now)
            }
            None => Trunk::edge(own_version(), queue_timeout, moved, now),
        };
        let announced = stream.sender.largest().unwrap_or_default();
        let own = u64::from(settings.max_stanza_bytes);
        let largest = usize::try_from(own.max(announced)).unwrap_or(usize::MAX);
        stream
            .scanner
            .set_limits(Limits::of_our_own(largest.saturating_add(GROWN)));
        stream.scanner.skip_faulty();
        let speaker = Speaker::of(&stream.config, stream.peer, &peer, stream.tls());
        let terms = TrunkTerms::of(&stream.config, &peer);
        let idle = stream.context.pair_idle;
        let mut own = Box::new(Self {
            stream,
            peer,
            trunk,
            turns: TrunkTurns::default(),
            receiver: TrunkReceiver::default(),
            speaker,
            terms,
            leaving: Vec::new(),
            look: NextLook {
                leaving: now,
                idle: now + idle.look,
                age: now + AGE_LOOK,
            },
            expires: None,
            opened: CountLately::from(now),
            changes: CountLately::from(now),
            figures: Arc::default(),
            sampled: 0,
            drains_by: None,
            standing: TrunkStanding::Greeting,
            far_server: FarServer::Reached,
            dialled_for: TrunkDial::Further,
        });
        if let Some(transport) = &own.stream.transport {
            // Without it a silent partition is noticed all the same, by what is not answered.
            let _ = socket::give_up_after(transport.socket(), USER_TIMEOUT);
        }
        own.expires = own.life().and_then(|life| now.checked_add(life));
        if own.stream.peer == PeerRole::Client {
            own.look_at_certificate();
        }
        if own.stream.context.stopping.is_cancelled() {
            own.end(Fault::Shutdown);
        }
        own
    }

    /// What it was dialled for, where this side is a sidecar.
    fn dialled_for(mut self: Box<Self>, dial: TrunkDial) -> Box<Self> {
        self.dialled_for = dial;
        self
    }

    /// How long the other end's certificate still counts; none where it is known by its key.
    fn life(&self) -> Option<Duration> {
        let chain = self.stream.tls()?.peer_chain;
        let certificate = chain.first()?;
        let gateway = self.stream.config.gateway(&self.peer);
        if gateway.is_some_and(|own| own.lists_key_of(&self.peer, chain)) {
            return None;
        }
        let left = tls::not_after(certificate)
            .ok()?
            .duration_since(Timestamp::now());
        Some(Duration::try_from(left).unwrap_or_default())
    }

    /// When another trunk is to take its place: after two thirds of what is left of the shorter life of the
    /// two certificates.
    fn renewal(&self) -> Duration {
        let own = self.stream.config.identity.as_ref();
        let own = own.map(|own| own.not_after().duration_since(Timestamp::now()));
        let own = own.map(|left| Duration::try_from(left).unwrap_or_default());
        let shorter = own.into_iter().chain(self.life()).min();
        let life = shorter.map_or(MOST_LIFE, |life| life.min(MOST_LIFE));
        LEAST_LIFE.max(life * 2 / 3)
    }

    /// Runs to the end, then hands back what was in custody. Says whether it stood, and what ended it where
    /// that was out of order.
    pub async fn run(mut self: Box<Self>) -> (TrunkStanding, Option<Fault>) {
        self.drive().await;
        let end = if self.trunk.is_done() {
            TrunkEnd::InOrder
        } else if self.fell_silent() {
            TrunkEnd::Silent
        } else {
            TrunkEnd::OutOfOrder
        };
        self.hand_back(end, Instant::now());
        Box::pin(self.stream.finish()).await;
        (self.standing, self.stream.state.end().cloned())
    }

    fn fell_silent(&self) -> bool {
        let silent = TrunkFault::Silent.label();
        matches!(self.stream.state.end(), Some(Fault::Trunk { label, .. }) if *label == silent)
    }

    async fn drive(&mut self) {
        let handle = Arc::clone(&self.stream.handle);
        let mut timer = Box::pin(tokio::time::sleep(CLOSING));
        let mut turn = Instant::now();
        let mut rested = false;
        // What came with the last bytes of the negotiation.
        self.take_partial();
        loop {
            if std::mem::take(&mut rested) {
                turn = Instant::now();
            } else if turn.elapsed() >= TURN {
                tokio::task::yield_now().await;
                turn = Instant::now();
            }
            let now = Instant::now();
            while let Some(command) = handle.told() {
                self.command(command, now);
            }
            self.on_time(now);
            if self.is_over() {
                return;
            }
            self.fill(now);
            let buffer = self.trunk.buffer();
            let pairs = buffer.pairs() + self.trunk.received_pairs();
            let owed = self.trunk.owed();
            let received = self.trunk.received_pairs();
            self.figures.set(pairs, received, buffer.custody(), owed);
            let deadline = tokio::time::Instant::from_std(self.deadline(now));
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            tokio::select! {
                biased;
                result = poll_fn(|cx| {
                    let polled = self.poll_io(cx);
                    rested |= polled.is_pending();
                    polled
                }) => {
                    if let Err(error) = result {
                        if self.trunk.is_done() {
                            return;
                        }
                        self.stream.lost(&error);
                    }
                }
                () = handle.woken() => {}
                () = timer.as_mut() => {}
            }
        }
    }

    /// Nothing is left to say, or can be said.
    fn is_over(&self) -> bool {
        let is_written = self.trunk.buffer().is_empty() && self.stream.sender.buffer.is_sent();
        match &self.stream.state {
            StreamState::Trunk(_) => self.trunk.is_done() && is_written,
            state => state.is_over(self.stream.sender.buffer.is_sent()),
        }
    }

    fn on_time(&mut self, now: Instant) {
        if self.stream.state.end().is_some() {
            if self.stream.state.deadline().is_some_and(|due| now >= due) {
                self.stream.state.cut();
            }
            return;
        }
        if self.expires.is_some_and(|end| now >= end) {
            return self.end(Fault::Certificate(CertificateRejection {
                label: "CertificateExpired",
                text: "the certificate that this trunk was opened with has ended".to_owned(),
            }));
        }
        self.empty_before_drain(now);
        if let Err(fault) = self.trunk.tick(now) {
            return self.fail(fault);
        }
        if self.far_server.is_given_up(now) {
            self.are_leaving(self.turns.routes().cloned().collect());
        }
        if now >= self.look.leaving && !self.leaving.is_empty() {
            self.look.leaving = now + MOVING;
            self.leave();
        }
        if now >= self.look.idle {
            self.look.idle = now + self.stream.context.pair_idle.look;
            self.end_idle(now);
        }
        if now >= self.look.age {
            self.look.age = now + AGE_LOOK;
            let sent = self.trunk.buffer().oldest();
            let received = self.trunk.oldest_unsettled(now);
            self.figures.set_oldest(sent, received);
        }
    }

    fn deadline(&self, now: Instant) -> Instant {
        if let Some(deadline) = self.stream.state.deadline() {
            return deadline;
        }
        let mut next = self.trunk.deadline(now).min(self.look.idle);
        if !self.leaving.is_empty() {
            next = next.min(self.look.leaving);
        }
        // Looked at once more after the last ack, so that no age stays.
        if self.figures.has_age() || self.trunk.has_unacknowledged() {
            next = next.min(self.look.age);
        }
        let ends = [self.drains_by, self.expires, self.far_server.deadline()];
        ends.into_iter().flatten().fold(next, Instant::min)
    }

    /// Takes out of the queues what the socket will soon take.
    fn fill(&mut self, now: Instant) {
        let is_ending = self.stream.state.end().is_some();
        if !self.trunk.may_send() || is_ending || !self.far_server.is_reached() {
            return;
        }
        let before = self.trunk.buffer().custody();
        let largest = self.stream.sender.largest();
        let (router, wake) = (&self.stream.context.router, self.stream.handle.waker());
        let (metrics, sampled) = (&self.stream.context.metrics, &mut self.sampled);
        let sends = |batch: &Batch| {
            *sampled = sampled.wrapping_add(1);
            if sampled.is_multiple_of(SAMPLE) {
                let took = now.saturating_duration_since(batch.arrived);
                metrics.forward_seconds.observe(took.as_secs_f64());
            }
        };
        let buffer = self.trunk.buffer_mut();
        self.turns.fill(router, wake, buffer, largest, now, sends);
        let after = self.trunk.buffer().custody();
        if after != before {
            let bytes = (after.bytes - before.bytes) as u64;
            self.stream
                .entry
                .sent(after.stanzas - before.stanzas, bytes);
        }
    }

    /// The trunk is to end in order: what waits for it goes out first, for as long as stanzas may wait.
    fn drain(&mut self, now: Instant) {
        if self.standing == TrunkStanding::Greeting {
            return self.end(Fault::Shutdown);
        }
        if self.drains_by.is_none() {
            if self.stream.context.stopping.is_cancelled() {
                // No other trunk takes what is queued: it goes out here.
                self.are_leaving(Vec::new());
            }
            if self.stream.peer == PeerRole::Client {
                // The sidecar sends elsewhere meanwhile, where it can.
                self.trunk.say(&Nonza::Edge(EdgeChange {
                    is_withdrawn: Some(true),
                    ..EdgeChange::default()
                }));
            }
            self.drains_by = Some(now + self.stream.context.router.queue_timeout());
        }
    }

    fn empty_before_drain(&mut self, now: Instant) {
        let Some(by) = self.drains_by else { return };
        let is_empty = self.stream.handle.waker().is_idle() && self.trunk.buffer().is_empty();
        if is_empty || now >= by || !self.trunk.may_send() {
            self.trunk.drain(now);
        }
        if !self.trunk.may_send() {
            self.drains_by = None;
            self.moves_away();
        }
    }

    /// Nothing more is sent here: others are told, and pairs move.
    fn moves_away(&mut self) {
        self.stream.context.trunks.drains(self.stream.entry.id);
        self.sign_inbound();
        self.are_leaving(self.turns.routes().cloned().collect());
    }

    /// These routes are to leave, and no others.
    fn are_leaving(&mut self, routes: Vec<Arc<Route>>) {
        self.turns.are_leaving(&routes, self.stream.handle.waker());
        self.leaving = routes;
    }

    /// Routes that have nothing unacknowledged go where they are better off.
    fn leave(&mut self) {
        if !self.trunk.may_speak() {
            return;
        }
        let (router, wake) = (&self.stream.context.router, self.stream.handle.waker());
        let (turns, buffer) = (&mut self.turns, self.trunk.buffer_mut());
        self.leaving.retain(|route| {
            if !turns.carries(route) {
                return false;
            }
            let leaves = buffer.leave(&route.pair);
            if leaves {
                turns.leave(router, wake, &route.pair);
            }
            !leaves
        });
    }

    /// Gives back the numbers of pairs that are idle, and what never had one.
    fn end_idle(&mut self, now: Instant) {
        if !self.trunk.may_send() {
            return;
        }
        let (router, wake) = (&self.stream.context.router, self.stream.handle.waker());
        let idle = self.stream.context.pair_idle;
        for route in self.trunk.buffer_mut().end_idle(idle, now) {
            self.turns.leave(router, wake, &route.pair);
        }
        let unused = self
            .turns
            .routes()
            .filter(|route| !self.trunk.buffer().knows(&route.pair) && route.held() == 0);
        for route in unused.cloned().collect::<Vec<_>>() {
            self.turns.leave(router, wake, &route.pair);
        }
    }

    /// The peer broke the rules, or is not there any more.
    fn fail(&mut self, fault: TrunkFault) {
        let context = &self.stream.context;
        limited!(
            info,
            context.log.lines("trunk", None, self.stream.entry.direction(), fault.label()),
            peer = %self.peer, address = ?self.stream.entry.address, cause = fault.label(),
            "a trunk ends: {}", fault.to_string().escape_debug()
        );
        match self.stream.peer {
            PeerRole::Client => {
                if let Some(gateway) = self.stream.config.gateway(&self.peer) {
                    let name = gateway.config.effective_name();
                    context.metrics.trunk_ended(name, fault.label());
                }
                if let TrunkFault::Version { .. } = fault {
                    // It has proved who it is, and looks as if it had never come: its own log alone would say why.
                    let peer = Some(self.peer.clone());
                    let (label, text) = (fault.label(), fault.to_string());
                    self.stream.step(Step::Trunk, peer, label, text);
                }
            }
            PeerRole::Server => {
                if let Some(pool) = context.trunks.pool_of(self.stream.entry.id) {
                    let pool = pool.to_string();
                    context.metrics.trunk_to_pool_ended(&pool, fault.label());
                }
            }
        }
        self.end(fault.into());
    }

    /// What was in custody waits for the next trunk; what waits is handed to one that stands.
    fn hand_back(&mut self, end: TrunkEnd, now: Instant) {
        let context = Arc::clone(&self.stream.context);
        let wake = Arc::clone(self.stream.handle.waker());
        self.receiver.flush(&context.router, now);
        // First, so that nothing is given to this one any more.
        context.trunks.gone(self.stream.entry.id);
        self.sign_inbound();
        self.stream.handle.close();
        for pair in self.trunk.pairs_mut() {
            if let TrunkPair::Refused(refused) = &mut pair.what {
                refused.detach(&mut self.turns);
            }
        }
        let failure = Failure::new(
            FailureKind::Unacknowledged,
            "each trunk ended before the next server confirmed this stanza",
        );
        for ReturnedPair { route, again, lost } in self.trunk.hand_back(end, now) {
            if !self.turns.carries(&route) {
                // An answer to a pair that may not be: nobody else may have it.
                again.into_iter().chain(lost).for_each(|own| own.settle());
                continue;
            }
            for batch in lost {
                context.router.bounce(&route, batch, &failure);
            }
            context.router.detach(&route, &wake, again);
        }
        for route in self.turns.end() {
            // Those that are detached already have nothing more to give.
            context.router.detach(&route, &wake, Vec::new());
        }
        self.leaving.clear();
        wake.forget_routes();
    }
}

/// A task that was dropped on its way (a panic, the process's end) leaves no dead trunk behind.
impl Drop for TrunkStream {
    fn drop(&mut self) {
        let stands = !self.stream.handle.is_closed();
        if stands && tokio::runtime::Handle::try_current().is_ok() {
            self.hand_back(TrunkEnd::OutOfOrder, Instant::now());
        }
    }
}
