//! One task a stream: feeds the negotiation machine, moves bytes.
//!
//! A stream owns its connection. Everything else reaches it through its [`StreamHandle`]. Bytes are read
//! into a buffer that the threads share, so that an idle stream holds none.

pub mod accept;
mod ack_ping;
pub mod acknowledger;
mod carried;
mod certificate_end;
mod commands;
mod confirmation;
pub mod connect;
pub mod context;
pub mod egress;
pub mod environment;
mod establish;
pub mod gateway_watch;
pub mod given_up;
pub mod handle;
pub mod key_verification;
pub mod liveness;
mod message_log;
mod outputs;
pub mod partner_ping;
pub mod peer_memory;
pub mod pool;
pub mod proofs;
pub mod receiver;
mod refused_steps;
pub mod registry;
mod relay;
mod scratch;
mod seen_people;
pub mod sender;
mod sending;
mod share;
mod silence;
pub mod sip;
mod state;
mod strangers;
mod stream_log;
pub mod targets;
pub mod throttle;
mod traffic;
pub mod trunk;
mod unread;
pub mod verification_limiter;
mod walk;

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{OwnedSemaphorePermit, oneshot},
};
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::domain::DomainName;

use crate::{
    config::ActiveConfig,
    negotiation::{Fault, Inbound, Input, KeyVerification, Outbound, Output, Pair, PeerRole, Side},
    net::unauthenticated::{ConnectionSlot, Rank},
    presence::tracker::Attendance,
    routing::{
        failure::{Failure, FailureKind},
        route::Route,
    },
    stream::context::StreamContext,
    tls::{TlsFacts, TlsaSet, Transport},
    xml::{Limits, Scanner, StreamHeader},
};
pub use commands::{Command, TrunkCommand};
use egress::{Blame, Returned};
use environment::ConfigEnvironment;
pub use handle::StreamHandle;
use liveness::Liveness;
use peer_memory::PingAnswers;
use proofs::Proofs;
use receiver::Receiver;
use refused_steps::RefusedSteps;
use registry::StreamInfo;
use sender::Sender;
use state::{Intake, StreamState};
use strangers::HeldFailure;
use throttle::Throttle;

/// How long a stream works on before others on its thread have their turn.
const TURN: Duration = Duration::from_micros(100);
/// How long the closing handshake may take (RFC 6120 section 4.4).
const CLOSING: Duration = Duration::from_secs(5);
/// How long the peer of a stream that ends in order is heard on what it has got: what it says nothing of goes again.
const LAST_WORD: Duration = Duration::from_secs(3);
/// Between two looks at whether there is room again.
const LOOK: Duration = Duration::from_millis(250);
/// How long close_notify and FIN may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// The machine of either initiator.
#[derive(Debug)]
pub enum Machine {
    Inbound(Box<Inbound>),
    Outbound(Box<Outbound>),
}

impl Machine {
    /// What was agreed on carries stanzas.
    fn note_proved(&mut self) {
        if let Self::Outbound(machine) = self {
            machine.note_proved();
        }
    }

    fn step(
        &mut self,
        input: Input<'_>,
        environment: &ConfigEnvironment<'_>,
        out: &mut Vec<Output>,
    ) {
        match self {
            Self::Inbound(machine) => machine.step(input, environment, out),
            Self::Outbound(machine) => machine.step(input, environment, out),
        }
    }
}

/// A stream with its connection.
#[derive(Debug)]
pub struct Stream {
    context: Arc<StreamContext>,
    config: Arc<ActiveConfig>,
    side: Side,
    peer: PeerRole,
    handle: Arc<StreamHandle>,
    entry: Arc<StreamInfo>,
    /// `None` only while a handshake has it, and after one failed.
    transport: Option<Transport>,
    machine: Machine,
    scanner: Scanner,
    header: Option<Arc<StreamHeader>>,
    /// Bytes of an item that is not complete, or that wait for room.
    partial: Vec<u8>,
    receiver: Receiver,
    sender: Sender,
    state: StreamState,
    intake: Intake,
    /// Not read while this route is full.
    full: Option<Arc<Route>>,
    keepalive: Liveness,
    throttle: Throttle,
    /// When to look whether a certificate has ended.
    certificate_due: Option<Instant>,
    /// Whether the peer answers pings, as far as that matters here.
    pings: PingAnswers,
    outputs: Vec<Output>,
    /// Peer domain for STARTTLS towards it; set by the machine.
    start_tls: Option<DomainName>,
    /// As whom we dialled.
    local: Option<DomainName>,
    /// Further pairs that the machine was asked for, and who waits for each.
    joining: Vec<(Pair, oneshot::Sender<Result<(), Fault>>)>,
    tlsa: Vec<(DomainName, TlsaSet)>,
    proofs: Proofs,
    verified: Option<KeyVerification>,
    /// Failed verifications that a stranger is not told yet.
    held: Vec<HeldFailure>,
    /// A partner's domains that it stands for.
    attends: Vec<Attendance>,
    /// The domain that the peer named first, whose steps are remembered.
    named: Option<DomainName>,
    /// What was refused to a peer that is authenticated.
    refusals: RefusedSteps,
    /// The place among the unauthenticated, until the first pair.
    place: Option<ConnectionSlot>,
    counted: Option<registry::StreamQuota>,
}

/// What a stream is started with.
#[derive(Debug)]
pub struct StreamStart {
    pub side: Side,
    /// `Client`: it connected to us. `Server`: we dialled it.
    pub peer: PeerRole,
    pub transport: Transport,
    pub address: Option<SocketAddr>,
    pub machine: Machine,
    pub outputs: Vec<Output>,
    pub place: Option<ConnectionSlot>,
    /// Bytes that were read before.
    pub already: Vec<u8>,
    pub tlsa: Vec<(DomainName, TlsaSet)>,
    /// What the peer's chain has proved already.
    pub proofs: Proofs,
    pub local: Option<DomainName>,
    /// When it must be set up at the latest, where that is before the ordinary time.
    pub deadline: Option<Instant>,
}

impl Stream {
    pub fn new(context: &Arc<StreamContext>, start: StreamStart) -> Box<Self> {
        let now = Instant::now();
        let handle = Arc::new(StreamHandle::default());
        // Entered first: a configuration that comes into force now is either told or loaded.
        let entry =
            context
                .streams
                .enter(start.side, start.peer, start.address, Arc::clone(&handle));
        let config = context.config();
        let settings = &config.document.settings;
        let deadline =
            now + Duration::from_secs(u64::from(settings.stream_establishment_timeout_seconds));
        let deadline = start.deadline.map_or(deadline, |own| own.min(deadline));
        let limits = Limits::with_stanza_bytes(settings.unauthenticated_stanza_bytes as usize);
        let mut intake = Intake::Open;
        if context.stopping.is_cancelled() {
            // A stream for what is queued still; streams that stood before were told.
            intake.drain();
        }
        Box::new(Self {
            context: Arc::clone(context),
            side: start.side,
            peer: start.peer,
            entry,
            handle,
            transport: Some(start.transport),
            machine: start.machine,
            scanner: Scanner::new(limits),
            header: None,
            partial: start.already,
            receiver: Receiver::new(start.side),
            sender: Sender::default(),
            state: StreamState::establishing(deadline),
            intake,
            full: None,
            keepalive: Liveness::new(now),
            throttle: Throttle::default(),
            certificate_due: None,
            pings: PingAnswers::Unknown,
            outputs: start.outputs,
            start_tls: None,
            local: start.local,
            joining: Vec::new(),
            tlsa: start.tlsa,
            proofs: start.proofs,
            verified: None,
            held: Vec::new(),
            named: None,
            refusals: RefusedSteps::default(),
            attends: Vec::new(),
            place: start.place,
            counted: None,
            config,
        })
    }

    /// Runs until the first pair is authenticated or ready, or the stream has ended.
    ///
    /// # Errors
    /// The fault that ended it.
    pub async fn establish(&mut self) -> Result<(), Fault> {
        self.drive(true).await;
        match self.state.end() {
            None => Ok(()),
            Some(_) if self.verified.is_some() => Ok(()),
            Some(fault) => Err(fault.clone()),
        }
    }

    /// Ends the stream once what waits for it is delivered; `permit` is held until then.
    pub fn end_when_done(&mut self, permit: OwnedSemaphorePermit) {
        self.intake = Intake::Draining(Some(permit));
    }

    /// The verdict that a verify-only stream brought.
    pub fn take_verdict(&mut self) -> Option<KeyVerification> {
        self.verified.take()
    }

    /// Runs to the end, then hands back what was in custody.
    pub async fn run(mut self: Box<Self>) {
        self.drive(false).await;
        Box::pin(self.finish()).await;
    }

    /// The stream is over: says goodbye and hands back what was in custody.
    pub async fn finish(&mut self) {
        self.handle.close();
        self.joining.clear();
        self.receiver.flush(&self.context, Instant::now());
        let now = Instant::now();
        self.hand_back(now);
        self.log_end();
        self.counted = None;
        self.intake.release();
        let discards = self.state.discards();
        if let Some(transport) = &mut self.transport {
            let evicted = self.place.as_ref().map(|place| &place.evicted);
            let goodbye = async {
                if transport.shutdown().await.is_ok() && discards {
                    let mut rest = vec![0; 4096];
                    while matches!(transport.read(&mut rest).await, Ok(1..)) {}
                }
            };
            tokio::select! {
                _ = tokio::time::timeout(GOODBYE, goodbye) => {}
                () = cancelled(evicted) => {}
            }
        }
        self.place = None;
    }

    /// What was in custody waits for the next stream; that is set up where something waits.
    fn hand_back(&mut self, now: Instant) {
        self.handle.close();
        self.return_routes(now);
        self.context.streams.leave(&self.entry);
    }

    fn return_routes(&mut self, now: Instant) {
        let context = Arc::clone(&self.context);
        let blame = self.state.end().map_or(Blame::Nothing, Blame::of);
        if let Some((route, bytes)) = self.sender.buffer.too_large_written(blame, now) {
            let peer = (self.side, &route.pair.to);
            context.peers.note_too_large(&self.config, peer, bytes, now);
        }
        let has_confirmed = self.sender.buffer.has_confirmed();
        for returned in self.sender.buffer.hand_back(blame, now) {
            let Returned {
                route,
                again,
                lost,
                culprits,
            } = returned;
            let failure = Failure::new(
                FailureKind::Unacknowledged,
                "each stream ended before the next server confirmed this stanza",
            );
            if blame == Blame::Unsaid && lost.iter().any(|batch| batch.is_suspect) {
                route.searched(has_confirmed);
            }
            for batch in lost {
                context.router.bounce(&route, batch, &failure);
            }
            for batch in culprits {
                let bytes = batch.largest();
                if blame.teaches_size(self.side, bytes) {
                    let peer = (self.side, &route.pair.to);
                    let peers = &context.peers;
                    peers.note_too_large(&self.config, peer, bytes, now);
                }
                let failure = Failure::quoting(
                    FailureKind::EndedStream,
                    &format!("{} ended the stream over this stanza: ", route.pair.to),
                    &self.state.end().map(Fault::to_string).unwrap_or_default(),
                    "",
                );
                context.router.bounce(&route, batch, &failure);
            }
            context.router.detach(&route, self.handle.waker(), again);
        }
        // Those that are detached already have nothing more to give.
        for route in self.sender.routes.drain(..) {
            context
                .router
                .detach(&route, self.handle.waker(), Vec::new());
        }
        self.handle.waker().forget_routes();
    }

    /// What an unauthenticated connection has achieved decides who makes room for newcomers.
    fn tell_rank(&self) {
        let Some(place) = &self.place else { return };
        let is_named = self
            .header
            .as_ref()
            .is_some_and(|header| header.from.is_some());
        if self.state.end().is_none() && self.tls().is_some() {
            place.rank().raise(Rank::Encrypted);
        } else if self.state.end().is_none() && is_named {
            place.rank().raise(Rank::Admitted);
        }
    }

    async fn drive(&mut self, until_established: bool) {
        let handle = Arc::clone(&self.handle);
        let mut timer = Box::pin(tokio::time::sleep_until(self.deadline().into()));
        let mut look = tokio::time::Instant::now() + LOOK;
        let mut turn = Instant::now();
        let mut rested = false;
        loop {
            // A stream that always has something to do lets others have their turn.
            if std::mem::take(&mut rested) {
                turn = Instant::now();
            } else if turn.elapsed() >= TURN {
                tokio::task::yield_now().await;
                turn = Instant::now();
            }
            // Not left to the timer alone: a connection that never pauses would never let it speak.
            let now = Instant::now();
            if now >= self.deadline() {
                self.on_time(now);
            }
            self.carry_out();
            self.tell_rank();
            while let Some(command) = handle.told() {
                self.command(command);
                self.carry_out();
            }
            if let Some(domain) = self.start_tls.take() {
                // Boxed: an idle stream's task need not have room for a handshake.
                Box::pin(self.handshake(domain)).await;
                continue;
            }
            if self.state.confirms() && self.sender.buffer.in_custody() == 0 {
                self.state.confirms_no_more();
            }
            let waits = self.state.confirms();
            if self.state.lingers() && self.sender.buffer.is_sent() && !waits {
                // Nothing more goes out here: what waits is for the next stream.
                self.return_routes(now);
            }
            let is_over = self.state.is_over(self.sender.buffer.is_sent());
            if is_over || (until_established && self.state.is_established()) {
                return;
            }
            self.fill();
            let deadline = tokio::time::Instant::from_std(self.deadline());
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            if self.full.is_none() {
                look = tokio::time::Instant::now() + LOOK;
            }
            // Boxed: of a stream that is set up and flows, neither is there.
            let mut room = self.full.clone().map(|full| Box::pin(room(full, look)));
            let place = self.place.as_ref().map(|place| place.evicted.clone());
            let mut evicted = place.map(|evicted| Box::pin(evicted.cancelled_owned()));
            tokio::select! {
                biased;
                result = poll_fn(|cx| {
                    let polled = self.poll_io(cx);
                    rested |= polled.is_pending();
                    polled
                }) => {
                    if let Err(error) = result {
                        self.lost(&error);
                    }
                }
                () = handle.woken() => {}
                () = if_any(&mut room) => {
                    look = tokio::time::Instant::now() + LOOK;
                    self.full = None;
                    self.take_partial();
                }
                () = if_any(&mut evicted) => {
                    // Counted by who took the place.
                    self.place = None;
                    self.input(Input::End(Fault::ResourceConstraint("too many connections")));
                }
                () = timer.as_mut() => {}
            }
        }
    }

    /// What the handshake told; `None` without TLS.
    fn tls(&self) -> Option<TlsFacts<'_>> {
        self.transport.as_ref()?.facts()
    }

    fn input(&mut self, input: Input<'_>) {
        let environment = ConfigEnvironment {
            config: &self.config,
            tlsa: &self.tlsa,
            chain: self.transport.as_ref().map_or(&[], Transport::peer_chain),
            proofs: &self.proofs,
            given_up: &self.context.given_up,
        };
        if self.receiver.stanzas > 0 {
            self.machine.note_proved();
        }
        if let Input::End(fault) = &input
            && fault.is_orderly()
            && matches!(self.state, StreamState::Established)
        {
            self.sender.buffer.ask_last(Instant::now());
        }
        self.machine.step(input, &environment, &mut self.outputs);
    }

    /// Gives back what only busy streams need.
    fn release(&mut self) {
        self.scanner.release();
        self.partial.shrink_to_fit();
        self.outputs.shrink_to_fit();
        self.receiver.release();
        self.sender.release(self.handle.waker());
    }

    fn deadline(&self) -> Instant {
        let next = self.state.deadline().unwrap_or_else(|| {
            let asked = self.sender.buffer.asked_since();
            [
                self.throttle.deadline(),
                self.certificate_due,
                asked.map(|since| self.answer_due(since, self.answer_limit())),
                self.keepalive
                    .pinged()
                    .map(|since| self.answer_due(since, self.keepalive.question_timeout())),
            ]
            .into_iter()
            .flatten()
            .fold(self.keepalive.deadline(&self.sender.buffer), Instant::min)
        });
        self.next_held().map_or(next, |held| next.min(held))
    }

    fn on_time(&mut self, now: Instant) {
        self.tell_held(now);
        let is_due = self.state.deadline().is_some_and(|due| now >= due);
        match self.state {
            StreamState::Establishing(_) if is_due => self.input(Input::TimedOut),
            StreamState::Closing(_) if is_due => {
                if !self.state.confirms_no_more() {
                    self.state.cut();
                }
            }
            StreamState::Established => {
                self.on_certificate(now);
                self.on_keepalive(now);
            }
            StreamState::Establishing(_)
            | StreamState::Trunk(_)
            | StreamState::Closing(_)
            | StreamState::Broken(_) => {}
        }
    }
}

/// A task that was dropped on its way (a question that took too long, a panic) leaves no dead stream
/// behind that would hold its routes and its place in the list.
impl Drop for Stream {
    fn drop(&mut self) {
        if tokio::runtime::Handle::try_current().is_ok() && !self.context.stopping.is_cancelled() {
            self.hand_back(Instant::now());
        } else {
            self.context.streams.leave(&self.entry);
        }
    }
}

/// Room in a queue; looks again at `look`, because the total may be what was full.
async fn room(full: Arc<Route>, look: tokio::time::Instant) {
    let _ = tokio::time::timeout_at(look, full.room()).await;
}

/// Never, where there is nothing to wait for.
async fn if_any(waits: &mut Option<Pin<Box<impl Future<Output = ()>>>>) {
    match waits {
        Some(waits) => waits.await,
        None => std::future::pending().await,
    }
}

async fn cancelled(token: Option<&CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}
