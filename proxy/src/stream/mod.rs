//! One task a stream: feeds the negotiation machine, moves bytes.
//!
//! A session owns its connection. Everything else reaches it through its [`StreamHandle`]. Bytes are read
//! into a buffer that the threads share, so that an idle stream holds none.

pub mod accept;
mod commands;
pub mod connect;
pub mod egress;
pub mod environment;
pub mod handle;
pub mod key_verification;
pub mod liveness;
mod outputs;
pub mod partner_ping;
pub mod pool;
pub mod receiver;
pub mod registry;
mod traffic;
mod walk;

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::AsyncWriteExt,
    sync::{OwnedSemaphorePermit, oneshot},
};
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::domain::DomainName;

use crate::{
    config::ActiveConfig,
    edge::Edge,
    negotiation::{
        Fault, Inbound, Input, Outbound, Output, Pair, PeerRole, Side, StreamLimits, Verdict,
        acks::Acks,
    },
    net::unauthenticated::{ConnectionSlot, Rank},
    routing::{
        failure::{Failure, FailureKind},
        route::Route,
    },
    tls::{TlsFacts, TlsaSet, Transport},
    xml::{Limits, Scanner, StreamHeader},
};
pub use commands::Command;
use egress::{Confirmation, Returned, SendBuffer};
use environment::ConfigEnvironment;
pub use handle::StreamHandle;
use liveness::Liveness;
use receiver::Receiver;
use registry::StreamInfo;

/// One in so many batches is timed.
const SAMPLE: u32 = 16;

/// How long the closing handshake may take (RFC 6120 section 4.4).
const CLOSING: Duration = Duration::from_secs(5);
/// Between two looks at whether there is room again.
const LOOK: Duration = Duration::from_millis(250);
/// How long close_notify and FIN may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// The machine of either initiator.
pub enum Machine {
    Inbound(Box<Inbound>),
    Outbound(Box<Outbound>),
}

impl Machine {
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

/// Where the connection is.
enum Phase {
    /// Until the first pair is authenticated or ready: ends at the deadline.
    Establishing {
        deadline: Instant,
    },
    Established,
    /// Nothing more is taken in; ends when all is written, at the deadline at the latest.
    Closing {
        deadline: Instant,
    },
}

/// A stream with its connection.
pub struct Stream {
    edge: Arc<Edge>,
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
    relay: Receiver,
    /// Pairs that the edge may send here.
    outgoing: Vec<Arc<Route>>,
    /// Index into `outgoing` of whose turn it was last.
    turn: usize,
    egress: SendBuffer,
    phase: Phase,
    /// Not read while this route is full.
    full: Option<Arc<Route>>,
    keepalive: Liveness,
    peer_limits: StreamLimits,
    /// An `<r/>` came that has not been answered with all that it asks for.
    ack_wanted: bool,
    acks: Option<Acks>,
    /// Of what the ledger settled, how much `acks` knows.
    settled: u64,
    outputs: Vec<Output>,
    /// Batches sent, to time one in [`SAMPLE`].
    sampled: u32,
    tls: Option<Arc<TlsFacts>>,
    /// Peer domain for STARTTLS towards it; set by the machine.
    start_tls: Option<DomainName>,
    /// As whom we dialled.
    local: Option<DomainName>,
    /// Further pairs that the machine was asked for, and who waits for each.
    joining: Vec<(Pair, oneshot::Sender<Result<(), Fault>>)>,
    tlsa: Vec<(DomainName, TlsaSet)>,
    /// Reading or writing failed: nothing more can be said.
    broken: bool,
    /// All that was written has left.
    flushed: bool,
    verified: Option<Verdict>,
    /// What ended it.
    end: Option<Fault>,
    /// The place among the unauthenticated, until the first pair.
    place: Option<ConnectionSlot>,
    counted: Option<registry::StreamQuota>,
    permit: Option<OwnedSemaphorePermit>,
}

/// What a session is started with.
pub struct Start {
    pub side: Side,
    /// `Client`: it connected to us. `Server`: we dialled it.
    pub peer: PeerRole,
    pub transport: Transport,
    pub address: Option<SocketAddr>,
    pub tls: Option<Arc<TlsFacts>>,
    pub machine: Machine,
    pub outputs: Vec<Output>,
    pub place: Option<ConnectionSlot>,
    /// Bytes that were read before.
    pub already: Vec<u8>,
    pub tlsa: Vec<(DomainName, TlsaSet)>,
    pub local: Option<DomainName>,
    /// When it must be set up at the latest, where that is before the ordinary time.
    pub deadline: Option<Instant>,
}

impl Stream {
    pub fn new(edge: &Arc<Edge>, start: Start) -> Box<Self> {
        let now = Instant::now();
        let handle = Arc::new(StreamHandle::default());
        // Entered first: a configuration that comes into force now is either told or loaded.
        let entry = edge
            .streams
            .enter(start.side, start.peer, start.address, Arc::clone(&handle));
        let config = edge.config();
        let settings = &config.document.settings;
        let deadline =
            now + Duration::from_secs(u64::from(settings.stream_establishment_timeout_seconds));
        let deadline = start.deadline.map_or(deadline, |own| own.min(deadline));
        let limits = Limits::with_stanza_bytes(settings.unauthenticated_stanza_bytes as usize);
        let mut keepalive = Liveness::new(now);
        // A stream for what is queued still; streams that stood before were told.
        keepalive.draining = edge.stopping.is_cancelled();
        Box::new(Self {
            edge: Arc::clone(edge),
            side: start.side,
            peer: start.peer,
            entry,
            handle,
            transport: Some(start.transport),
            machine: start.machine,
            scanner: Scanner::new(limits),
            header: None,
            partial: start.already,
            relay: Receiver::new(start.side),
            outgoing: Vec::new(),
            turn: 0,
            egress: SendBuffer::default(),
            phase: Phase::Establishing { deadline },
            full: None,
            keepalive,
            peer_limits: StreamLimits::default(),
            ack_wanted: false,
            acks: None,
            settled: 0,
            outputs: start.outputs,
            sampled: 0,

            tls: start.tls,
            start_tls: None,
            local: start.local,
            joining: Vec::new(),
            tlsa: start.tlsa,
            broken: false,
            flushed: true,
            verified: None,
            end: None,
            place: start.place,
            counted: None,
            permit: None,
            config,
        })
    }

    /// Runs until the first pair is authenticated or ready, or the stream has ended.
    ///
    /// # Errors
    /// The fault that ended it.
    pub async fn establish(&mut self) -> Result<(), Fault> {
        self.drive(true).await;
        match &self.end {
            None => Ok(()),
            Some(_) if self.verified.is_some() => Ok(()),
            Some(fault) => Err(fault.clone()),
        }
    }

    /// Ends the stream once what waits for it is delivered; `permit` is held until then.
    pub fn end_when_done(&mut self, permit: OwnedSemaphorePermit) {
        self.permit = Some(permit);
        self.keepalive.draining = true;
    }

    /// The verdict that a verify-only stream brought.
    pub fn take_verdict(&mut self) -> Option<Verdict> {
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
        self.relay.flush(&self.edge, Instant::now());
        let now = Instant::now();
        self.hand_back(now);
        self.counted = None;
        self.permit = None;
        self.place = None;
        if let Some(transport) = &mut self.transport {
            let _ = tokio::time::timeout(GOODBYE, transport.shutdown()).await;
        }
    }

    /// What was in custody waits for the next stream; that is set up where something waits.
    fn hand_back(&mut self, now: Instant) {
        self.handle.close();
        let edge = Arc::clone(&self.edge);
        let mut routes: Vec<_> = self.outgoing.drain(..).collect();
        for Returned { route, again, lost } in self.egress.hand_back(now) {
            let failure = Failure::new(
                FailureKind::Unacknowledged,
                "two streams ended before the next server confirmed this stanza",
            );
            for batch in lost {
                edge.router.bounce(&route, batch, &failure);
            }
            edge.router.detach(&route, self.handle.waker(), again);
            routes.retain(|own| !Arc::ptr_eq(own, &route));
        }
        for route in routes {
            edge.router.detach(&route, self.handle.waker(), Vec::new());
        }
        edge.streams.leave(&self.entry);
    }

    /// What an unauthenticated connection has achieved decides who makes room for newcomers.
    fn tell_rank(&self) {
        let Some(place) = &self.place else { return };
        let is_named = self
            .header
            .as_ref()
            .is_some_and(|header| header.from.is_some());
        if self.end.is_none() && self.tls.is_some() {
            place.rank().raise(Rank::Encrypted);
        } else if self.end.is_none() && is_named {
            place.rank().raise(Rank::Admitted);
        }
    }

    async fn drive(&mut self, until_established: bool) {
        let handle = Arc::clone(&self.handle);
        let mut timer = Box::pin(tokio::time::sleep_until(self.deadline().into()));
        let mut look = tokio::time::Instant::now() + LOOK;
        loop {
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
            if self.is_over() || (until_established && self.is_established()) {
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
                result = poll_fn(|cx| self.poll_io(cx)) => {
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
                    // StreamQuota by who took the place.
                    self.place = None;
                    self.input(Input::End(Fault::ResourceConstraint("too many connections")));
                }
                () = timer.as_mut() => {}
            }
        }
    }

    fn is_over(&self) -> bool {
        match self.phase {
            Phase::Closing { .. } => self.broken || (self.egress.is_empty() && self.flushed),
            _ => false,
        }
    }

    fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Established)
    }

    fn input(&mut self, input: Input<'_>) {
        let environment = ConfigEnvironment {
            config: &self.config,
            tlsa: &self.tlsa,
        };
        self.machine.step(input, &environment, &mut self.outputs);
    }

    /// Everything taken in was settled and acknowledged, everything to be sent was confirmed.
    fn is_done(&self) -> bool {
        self.egress.is_empty()
            && self.egress.in_custody() == 0
            && self.outgoing.iter().all(|route| route.waiting() == 0)
            && (self.acks.is_none() || self.settled == self.relay.received)
    }

    /// Takes out of the queues what the socket will soon take, asks for confirmation, acknowledges.
    fn fill(&mut self) {
        let now = Instant::now();
        self.acknowledge();
        if !matches!(self.phase, Phase::Established) {
            return;
        }
        if self.egress.is_empty() {
            self.keepalive.wrote(now);
        }
        // In turns: a pair that always has more must not keep the others waiting.
        let mut without = 0;
        while without < self.outgoing.len() && self.egress.takes_more() && self.keepalive.may_send()
        {
            self.turn = (self.turn + 1) % self.outgoing.len();
            let route = &self.outgoing[self.turn];
            let Some(batch) = self.edge.router.dequeue(route, self.handle.waker()) else {
                without += 1;
                continue;
            };
            without = 0;
            for batch in self
                .edge
                .router
                .within_limit(route, batch, self.peer_limits.max_bytes)
            {
                let (count, bytes) = (u64::from(batch.count()), batch.unsettled().len() as u64);
                self.entry.sent(count, bytes);
                self.sampled = self.sampled.wrapping_add(1);
                if self.sampled.is_multiple_of(SAMPLE) {
                    let took = now.duration_since(batch.arrived);
                    self.edge
                        .metrics
                        .forward_seconds
                        .observe(took.as_secs_f64());
                }
                self.keepalive.sends(count, bytes, now);
                self.egress.send(route, batch, now);
            }
        }
        if self.egress.in_custody() > 0 {
            self.ask_for_confirmation(now);
        }
        if self.keepalive.draining && self.is_done() {
            let stops = self.edge.stopping.is_cancelled();
            let fault = if stops { Fault::Shutdown } else { Fault::Done };
            self.input(Input::End(fault));
            self.carry_out();
        }
    }

    fn ask_for_confirmation(&mut self, now: Instant) {
        let covers = self.egress.in_custody();
        let question = match self.egress.confirmation_mut() {
            Confirmation::Written => return,
            Confirmation::Acks { acks, asked, again } => {
                if asked.is_some() || again.is_some_and(|again| now < again) {
                    return;
                }
                *asked = Some(now);
                let mut out = Vec::new();
                acks.write_request(&mut out);
                self.egress.control(out);
                return;
            }
            Confirmation::Probe { next, asked, last } => {
                let soon =
                    last.is_some_and(|last| now.duration_since(last) < liveness::PROBE_PAUSE);
                if asked.is_some() || soon {
                    return;
                }
                *next += 1;
                *asked = Some((*next, covers, now));
                *last = Some(now);
                *next
            }
        };
        self.input(Input::Probe { number: question });
        self.carry_out();
    }

    /// One `<a/>` for all that was settled since the last one.
    fn acknowledge(&mut self) {
        let (Some(acks), Some(ledger)) = (&mut self.acks, &self.relay.ledger) else {
            return;
        };
        let settled = ledger.settled();
        let news = settled - self.settled;
        if news > 0 {
            self.settled = settled;
            // Stanzas of one stream: far below 2³² between two looks.
            acks.settle(u32::try_from(news).unwrap_or(u32::MAX));
        }
        let wanted = self.ack_wanted && (acks.has_news() || self.keepalive.ack_now());
        // Before the end it is told unasked: what is not, the peer sends again.
        if wanted || (self.keepalive.draining && acks.has_news()) {
            let mut out = Vec::new();
            acks.write_ack(&mut out);
            self.egress.control(out);
            self.keepalive.acked();
            self.ack_wanted = settled < self.relay.received;
        }
    }

    /// Gives back what only busy streams need.
    fn release(&mut self) {
        self.scanner.release();
        self.partial.shrink_to_fit();
        self.outputs.shrink_to_fit();
        self.outgoing.shrink_to_fit();
        self.relay.carried.shrink_to_fit();
        self.egress.release();
    }

    fn deadline(&self) -> Instant {
        match self.phase {
            Phase::Establishing { deadline } | Phase::Closing { deadline } => deadline,
            Phase::Established => self.keepalive.deadline(&self.egress),
        }
    }

    fn on_time(&mut self, now: Instant) {
        match self.phase {
            Phase::Establishing { deadline } if now >= deadline => self.input(Input::TimedOut),
            Phase::Closing { deadline } if now >= deadline => self.broken = true,
            Phase::Established => self.on_keepalive(now),
            _ => {}
        }
    }
}

/// A task that was dropped on its way (a question that took too long, a panic) leaves no dead stream
/// behind that would hold its routes and its place in the list.
impl Drop for Stream {
    fn drop(&mut self) {
        if tokio::runtime::Handle::try_current().is_ok() && !self.edge.stopping.is_cancelled() {
            self.hand_back(Instant::now());
        } else {
            self.edge.streams.leave(&self.entry);
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
