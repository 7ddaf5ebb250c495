//! One task a stream: feeds the negotiation machine, moves bytes.
//!
//! A session owns its connection. Everything else reaches it through its [`Outlet`]. Bytes are read
//! into a buffer that the threads share, so that an idle stream holds none.

pub mod accept;
pub mod dial;
pub mod egress;
pub mod keepalive;
pub mod realm;
pub mod registry;
pub mod relay;
pub mod verify;

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::{domain::DomainName, negotiation::Method};

use crate::{
    config::InForce,
    edge::Edge,
    observe::{
        attempt::{AttemptStep, Step},
        peer_keys,
    },
    route::{
        custody::Ledger,
        failure::{Failure, FailureKind},
        outlet::Outlet,
        queue::Route,
    },
    stream::{
        Fault, Inbound, Input, Outbound, Output, PeerRole, Side, StreamLimits, Verdict, acks::Acks,
    },
    tls::{self, Mode, TlsFacts, TlsaSet, Transport},
    xml::{Element, Item, Limits, Scanner, StreamHeader},
};
use egress::{Confirmation, Egress};
use keepalive::KeepAlive;
use realm::StreamRealm;
use registry::StreamEntry;
use relay::{Relay, Taken};

/// Bytes read at once. One such buffer for each thread of the runtime.
const READ: usize = 64 * 1024;
/// Reads in one turn, before others have theirs.
const READS_A_TURN: usize = 4;
/// One in so many batches is timed.
const SAMPLE: u32 = 16;

/// How long the closing handshake may take (RFC 6120 section 4.4).
const CLOSING: Duration = Duration::from_secs(5);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// How long close_notify and FIN may take.
const GOODBYE: Duration = Duration::from_secs(2);

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into_boxed_slice());
}

/// What other tasks tell a stream.
#[derive(Debug)]
pub enum Command {
    /// The verdict that the machine asked for.
    Verdict { request: u32, verdict: Verdict },
    /// The configuration changed.
    RealmChanged,
    /// End in order: what is queued goes out first.
    Drain,
    /// End now.
    End(Fault),
}

/// The machine of either initiator.
pub enum Machine {
    Inbound(Box<Inbound>),
    Outbound(Box<Outbound>),
}

impl Machine {
    fn step(&mut self, input: Input<'_>, realm: &StreamRealm<'_>, out: &mut Vec<Output>) {
        match self {
            Self::Inbound(machine) => machine.step(input, realm, out),
            Self::Outbound(machine) => machine.step(input, realm, out),
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
pub struct Session {
    edge: Arc<Edge>,
    force: Arc<InForce>,
    side: Side,
    peer: PeerRole,
    outlet: Arc<Outlet>,
    entry: Arc<StreamEntry>,
    /// `None` only while a handshake has it, and after one failed.
    transport: Option<Transport>,
    machine: Machine,
    scanner: Scanner,
    header: Option<Arc<StreamHeader>>,
    /// Bytes of an item that is not complete, or that wait for room.
    partial: Vec<u8>,
    relay: Relay,
    /// Pairs that the edge may send here.
    outgoing: Vec<Arc<Route>>,
    egress: Egress,
    phase: Phase,
    /// Not read while this route is full.
    full: Option<Arc<Route>>,
    keepalive: KeepAlive,
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
    tlsa: Option<(DomainName, TlsaSet)>,
    /// Reading or writing failed: nothing more can be said.
    broken: bool,
    /// All that was written has left.
    flushed: bool,
    verified: Option<Verdict>,
    /// What ended it.
    end: Option<Fault>,
    /// The place among the unauthenticated, until the first pair.
    place: Option<crate::listen::bounds::Place>,
    counted: Option<registry::Counted>,
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
    pub place: Option<crate::listen::bounds::Place>,
    /// Bytes that were read before.
    pub already: Vec<u8>,
    pub tlsa: Option<(DomainName, TlsaSet)>,
    pub local: Option<DomainName>,
}

impl Session {
    pub fn new(edge: &Arc<Edge>, start: Start) -> Box<Self> {
        let force = edge.force();
        let settings = &force.config.settings;
        let now = Instant::now();
        let outlet = Arc::new(Outlet::default());
        let deadline =
            now + Duration::from_secs(u64::from(settings.stream_establishment_timeout_seconds));
        let limits = Limits::with_stanza_bytes(settings.unauthenticated_stanza_bytes as usize);
        let entry = edge
            .streams
            .enter(start.side, start.peer, start.address, Arc::clone(&outlet));
        Box::new(Self {
            edge: Arc::clone(edge),
            side: start.side,
            peer: start.peer,
            entry,
            outlet,
            transport: Some(start.transport),
            machine: start.machine,
            scanner: Scanner::new(limits),
            header: None,
            partial: start.already,
            relay: Relay::new(start.side),
            outgoing: Vec::new(),
            egress: Egress::default(),
            phase: Phase::Establishing { deadline },
            full: None,
            keepalive: KeepAlive::new(now),
            peer_limits: StreamLimits::default(),
            ack_wanted: false,
            acks: None,
            settled: 0,
            outputs: start.outputs,
            sampled: 0,

            tls: start.tls,
            start_tls: None,
            local: start.local,
            tlsa: start.tlsa,
            broken: false,
            flushed: true,
            verified: None,
            end: None,
            place: start.place,
            counted: None,
            permit: None,
            force,
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
        self.outlet.close();
        self.relay.flush(&self.edge, Instant::now());
        let now = Instant::now();
        let edge = Arc::clone(&self.edge);
        let mut routes: Vec<_> = self.outgoing.drain(..).collect();
        for (route, batches) in self.egress.abandon() {
            let (again, lost): (Vec<_>, Vec<_>) =
                batches.into_iter().partition(|batch| batch.sendings < 2);
            let failure = Failure::new(
                FailureKind::Unacknowledged,
                "two streams ended before the next server confirmed this stanza",
            );
            for batch in lost {
                edge.fail(&route, batch, &failure);
            }
            let again: Vec<_> = again
                .into_iter()
                .map(|mut batch| {
                    batch.arrived = now;
                    batch
                })
                .collect();
            edge.recarry(&route, &self.outlet, again);
            routes.retain(|own| !Arc::ptr_eq(own, &route));
        }
        for route in routes {
            edge.recarry(&route, &self.outlet, Vec::new());
        }
        edge.streams.leave(&self.entry);
        self.counted = None;
        self.permit = None;
        self.place = None;
        if let Some(transport) = &mut self.transport {
            let _ = tokio::time::timeout(GOODBYE, transport.shutdown()).await;
        }
    }

    async fn drive(&mut self, until_established: bool) {
        let outlet = Arc::clone(&self.outlet);
        let mut timer = Box::pin(tokio::time::sleep_until(self.deadline().into()));
        loop {
            self.carry_out();
            while let Some(command) = outlet.told() {
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
            let full = self.full.clone();
            let evicted = self.place.as_ref().map(|place| place.evicted.clone());
            tokio::select! {
                biased;
                result = poll_fn(|cx| self.poll_io(cx)) => {
                    if let Err(error) = result {
                        self.lost(&error);
                    }
                }
                () = outlet.woken() => {}
                () = room(full.as_deref()) => {
                    self.full = None;
                    self.take_partial();
                }
                () = cancelled(evicted.as_ref()) => {
                    self.edge.metrics.connection_refused("Unauthenticated");
                    self.place = None;
                    self.input(Input::End(Fault::ResourceConstraint("too many connections")));
                }
                () = timer.as_mut() => self.on_time(Instant::now()),
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
        let realm = StreamRealm {
            force: &self.force,
            tlsa: self.tlsa.as_ref(),
        };
        self.machine.step(input, &realm, &mut self.outputs);
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Verdict { request, verdict } => {
                self.input(Input::Verdict { request, verdict })
            }
            Command::RealmChanged => {
                self.force = self.edge.force();
                self.consider_settings();
                self.input(Input::RealmChanged);
            }
            Command::Drain => self.keepalive.draining = true,
            Command::End(fault) => self.input(Input::End(fault)),
        }
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
        for route in &self.outgoing {
            while self.egress.takes_more() && self.keepalive.may_send() {
                let Some(batch) = route.next(&self.outlet) else {
                    break;
                };
                for batch in self
                    .edge
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
        }
        if self.egress.in_custody() > 0 {
            self.ask_for_confirmation(now);
        }
        if self.keepalive.draining && self.is_done() {
            self.input(Input::End(Fault::Shutdown));
            self.carry_out();
        }
    }

    fn ask_for_confirmation(&mut self, now: Instant) {
        let covers = self.egress.in_custody();
        let question = match &mut self.egress.confirmation {
            Confirmation::Written => return,
            Confirmation::Acks { acks, asked } => {
                if asked.is_some() || acks.outstanding() == 0 {
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
                    last.is_some_and(|last| now.duration_since(last) < keepalive::PROBE_PAUSE);
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
        if self.ack_wanted && (acks.has_news() || self.keepalive.ack_now()) {
            let mut out = Vec::new();
            acks.write_ack(&mut out);
            self.egress.control(out);
            self.keepalive.acked();
            self.ack_wanted = settled < self.relay.received;
        }
    }

    /// Writes what there is, reads what there is. Ready when the loop has something to decide.
    fn poll_io(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(transport) = &mut self.transport else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let mut progress = false;
        while !self.egress.is_empty() {
            match Pin::new(&mut *transport).poll_write(cx, self.egress.front()) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    self.egress.wrote(count);
                    self.keepalive.wrote(Instant::now());
                    progress = true;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
        }
        match Pin::new(transport).poll_flush(cx) {
            Poll::Ready(Ok(())) => {
                self.egress.flushed(&self.edge.routes.total);
                progress |= !self.flushed;
                self.flushed = self.egress.is_empty();
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => self.flushed = false,
        }
        for _ in 0..READS_A_TURN {
            if !self.reads() {
                break;
            }
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let mut buf = ReadBuf::new(scratch);
                let Some(transport) = &mut self.transport else {
                    return Poll::Pending;
                };
                match Pin::new(transport).poll_read(cx, &mut buf) {
                    Poll::Ready(Ok(())) => {
                        let filled = buf.filled();
                        self.received(filled);
                        Poll::Ready(Ok(filled.len()))
                    }
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Pending => Poll::Pending,
                }
            });
            match read {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                Poll::Ready(Ok(_)) => progress = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
        }
        if progress {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    /// Whether the connection is to be read: not while a queue is full, a rate is used up, a
    /// handshake is due or an answer of the machine is still to be carried out.
    fn reads(&self) -> bool {
        self.full.is_none()
            && self.start_tls.is_none()
            && self.outputs.is_empty()
            && self.keepalive.may_read()
    }

    /// Bytes came in.
    fn received(&mut self, bytes: &[u8]) {
        let now = Instant::now();
        self.keepalive.heard(now);
        if self.partial.is_empty() {
            let taken = self.take(bytes, now);
            if taken < bytes.len() {
                self.partial.extend_from_slice(&bytes[taken..]);
            }
        } else {
            self.partial.extend_from_slice(bytes);
            self.take_partial();
        }
        let (stanzas, bytes) = (self.relay.stanzas, self.relay.bytes);
        if let Some(pause) = self.keepalive.took(stanzas, bytes, now) {
            let partner = self.partner_name();
            let direction = self.relay.direction;
            self.edge
                .metrics
                .throttled(partner.as_deref(), direction, pause.as_secs_f64());
        }
        self.entry.took(stanzas, bytes);
    }

    fn take_partial(&mut self) {
        let mut partial = std::mem::take(&mut self.partial);
        let taken = self.take(&partial, Instant::now());
        if taken == partial.len() {
            return;
        }
        partial.drain(..taken);
        partial.shrink_to(2 * partial.len());
        partial.append(&mut self.partial);
        self.partial = partial;
    }

    /// Takes complete items from the front; says how many bytes they were.
    fn take(&mut self, bytes: &[u8], now: Instant) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            if !self.outputs.is_empty() {
                self.carry_out();
            }
            if self.start_tls.is_some() {
                // Injected plaintext must not survive the handshake (RFC 6120 section 5.4.3.3).
                return bytes.len();
            }
            if matches!(self.phase, Phase::Closing { .. }) && self.end.is_some() {
                return bytes.len();
            }
            let rest = &bytes[taken..];
            match self.scanner.next(rest) {
                Ok(None) => break,
                Ok(Some(Item::Whitespace { len })) => taken += len,
                Ok(Some(Item::Header { len, header })) => {
                    taken += len;
                    self.input(Input::Header(&header));
                    self.header = Some(header);
                }
                Ok(Some(Item::Close { len })) => {
                    taken += len;
                    self.input(Input::Closed);
                }
                Ok(Some(Item::Other(other))) => {
                    taken += other.bytes.len();
                    let none = StreamHeader::default();
                    let header = self.header.as_deref().unwrap_or(&none);
                    match Element::parse(other.bytes, header) {
                        Ok(element) => self.input(Input::Element(&element)),
                        // Checked by the scanner already; a tree can still be too much.
                        Err(error) => self.input(Input::End(Fault::Xml {
                            condition: "not-well-formed",
                            label: "NotWellFormed",
                            text: error.to_string(),
                        })),
                    }
                }
                Ok(Some(Item::Stanza(stanza))) => {
                    let len = stanza.bytes.len();
                    if self.keepalive.draining {
                        // Its sender has it still, unacknowledged, for another replica.
                        break;
                    }
                    let outcome = match &self.header {
                        Some(header) => self.relay.stanza(
                            &self.edge,
                            &self.force,
                            header,
                            &stanza,
                            rest.len(),
                            now,
                        ),
                        None => Taken::Stray,
                    };
                    match outcome {
                        Taken::Yes => taken += len,
                        Taken::Full(route) => {
                            self.full = Some(route);
                            break;
                        }
                        Taken::Stray => {
                            let (from, to) = (stanza.from.as_deref(), stanza.to.as_deref());
                            let realm = StreamRealm {
                                force: &self.force,
                                tlsa: self.tlsa.as_ref(),
                            };
                            let input = Input::StrayStanza { from, to };
                            self.machine.step(input, &realm, &mut self.outputs);
                            taken += len;
                        }
                    }
                }
                Err(error) => {
                    self.input(Input::End(Fault::Xml {
                        condition: error.condition(),
                        label: error.label(),
                        text: error.to_string(),
                    }));
                    self.relay.flush(&self.edge, now);
                    self.carry_out();
                    return bytes.len();
                }
            }
        }
        self.relay.flush(&self.edge, now);
        taken
    }

    /// Does what the machine answered.
    fn carry_out(&mut self) {
        while !self.outputs.is_empty() {
            let outputs = std::mem::take(&mut self.outputs);
            for output in outputs {
                self.carry_out_one(output);
            }
        }
    }

    fn carry_out_one(&mut self, output: Output) {
        match output {
            Output::Send(bytes) => self.egress.control(bytes),
            Output::StartTls { domain } => self.start_tls = Some(domain),
            Output::Restart => self.scanner.restart(),
            Output::PairAuthenticated { pair, method } => {
                if !self.admitted(&pair.from) {
                    return;
                }
                let carried = self.edge.carry(self.side, &self.force, pair, method);
                self.entry
                    .carries(&carried.pair, method, self.tls.as_deref(), true);
                let peer = carried.pair.from.clone();
                self.relay.add(carried);
                // A stream of ours stands once we may send on it, whatever the peer may already.
                if self.peer == PeerRole::Client {
                    self.established();
                }
                self.connected(&peer, method);
            }
            Output::PairReady { pair, method } => {
                if !self.admitted(&pair.to) {
                    return;
                }
                let route = self.edge.routes.of(self.side, &pair);
                self.entry
                    .carries(&pair, method, self.tls.as_deref(), false);
                if route.bind(&self.outlet) {
                    self.outgoing.push(route);
                } else if self.peer == PeerRole::Server && self.outgoing.is_empty() {
                    // The peer opened a bidirectional stream in the meantime.
                    self.input(Input::End(Fault::Done));
                }
                self.established();
                self.connected(&pair.to, method);
            }
            Output::PairFailed { pair, fault } => {
                tracing::debug!(stream = self.entry.id, %pair, cause = fault.label(), "pair failed");
            }
            Output::Verify { request, question } => verify::start(
                &self.edge,
                self.side,
                question,
                request,
                Arc::clone(&self.outlet),
            ),
            Output::Verified(verdict) => self.verified = Some(verdict),
            Output::Bidi => self.entry.set_bidirectional(),
            Output::AcksEnabled { namespace } => {
                self.entry.set_acknowledged();
                self.acks = Some(Acks::new(namespace));
                self.relay.ledger = Some(Arc::new(Ledger::new(Arc::clone(&self.outlet))));
                self.relay.received = 0;
                self.settled = 0;
                self.egress.confirmation = Confirmation::Acks {
                    acks: Acks::new(namespace),
                    asked: None,
                };
            }
            Output::AckRequested => {
                self.ack_wanted = true;
                self.keepalive.ack_requested();
            }
            Output::Acked { h } => self.acked(h),
            Output::ProbeAnswered { number } => {
                self.keepalive.answered();
                self.egress.probe_answered(number, &self.edge.routes.total);
            }
            Output::PeerLimits(limits) => self.peer_limits = limits,
            Output::Step {
                step,
                peer,
                outcome,
                text,
            } => self.step(step, peer, outcome, text),
            Output::Close(fault) => self.close(fault),
        }
    }

    fn acked(&mut self, h: u32) {
        self.keepalive.answered();
        let Confirmation::Acks { acks, asked } = &mut self.egress.confirmation else {
            return;
        };
        *asked = None;
        match acks.acknowledge(h) {
            Ok(count) => self.egress.confirmed(count, &self.edge.routes.total),
            Err(fault) => self.input(Input::End(fault)),
        }
    }

    /// Whether the limits on authenticated streams leave room; ends the stream where not.
    fn admitted(&mut self, peer: &DomainName) -> bool {
        if self.counted.is_some() || self.side == Side::Gateway {
            return true;
        }
        match self.edge.streams.count(&self.force, peer) {
            Ok(counted) => {
                self.counted = Some(counted);
                true
            }
            Err(limit) => {
                self.edge.metrics.connection_refused(limit);
                self.input(Input::End(Fault::ResourceConstraint(
                    "too many connections",
                )));
                false
            }
        }
    }

    /// The first pair stands.
    fn established(&mut self) {
        if matches!(self.phase, Phase::Establishing { .. }) {
            self.phase = Phase::Established;
            self.place = None;
            self.scanner
                .set_stanza_bytes(self.force.config.settings.max_stanza_bytes as usize);
            self.consider_settings();
            self.edge.metrics.established(&self.entry, &self.force);
        }
    }

    /// A pair with `peer` stands.
    fn connected(&mut self, peer: &DomainName, method: Method) {
        if self.side == Side::Partner && method == Method::SaslOverTls {
            self.consider_key(peer);
        }
        if self.edge.attempts.connected(&self.force, self.side, peer) {
            self.edge.partner_back(peer);
        }
        if let (Machine::Outbound(machine), Confirmation::Written, Side::Gateway) =
            (&self.machine, &self.egress.confirmation, self.side)
            && machine.can_probe()
        {
            self.egress.confirmation = Confirmation::Probe {
                next: 0,
                asked: None,
                last: None,
            };
        }
    }

    /// A certificate proved that the peer is `peer`: its key is new, or on record.
    fn consider_key(&self, peer: &DomainName) {
        let Some(new) = peer_keys::judge(&self.force, peer, self.tls.as_deref()) else {
            return;
        };
        if new.changed {
            tracing::warn!(%peer, partner = new.partner.name, key = %new.key, "the partner's key has changed");
            self.edge.metrics.peer_key_changed(&new.partner.name);
        }
        peer_keys::tell(self.edge.peer_keys.as_ref(), &new);
    }

    /// The settings in force count from here.
    fn consider_settings(&mut self) {
        let partner = match self.side {
            Side::Partner => self
                .peer_domain()
                .and_then(|peer| self.force.partner(&peer).cloned()),
            Side::Gateway => None,
        };
        self.keepalive.consider(&self.force, partner.as_ref());
    }

    /// A domain of the peer's, once a pair stands.
    fn peer_domain(&self) -> Option<DomainName> {
        let received = self
            .relay
            .carried
            .first()
            .map(|carried| carried.pair.from.clone());
        received.or_else(|| self.outgoing.first().map(|route| route.pair.to.clone()))
    }

    fn partner_name(&self) -> Option<String> {
        let peer = self.relay.carried.first().map(|carried| match self.side {
            Side::Partner => &carried.pair.from,
            Side::Gateway => &carried.pair.to,
        })?;
        self.force.partner(peer).map(|partner| partner.name.clone())
    }

    fn step(&self, step: Step, peer: Option<DomainName>, outcome: &'static str, text: String) {
        let Some(domain) = peer else { return };
        let step = AttemptStep {
            step,
            direction: self.entry.direction(),
            domain,
            outcome,
            address: self.entry.address,
            text,
            took: self.entry.opened.elapsed(),
        };
        self.edge
            .attempts
            .note(&self.edge, &self.force, self.side, step);
    }

    fn close(&mut self, fault: Fault) {
        if self.end.is_some() {
            return;
        }
        tracing::debug!(
            stream = self.entry.id, side = ?self.side, address = ?self.entry.address,
            cause = fault.label(), "stream ends: {fault}"
        );
        self.end = Some(fault);
        self.full = None;
        self.flushed = false;
        self.phase = Phase::Closing {
            deadline: Instant::now() + CLOSING,
        };
    }

    /// The connection broke or ended without a word.
    fn lost(&mut self, error: &io::Error) {
        tracing::debug!(stream = self.entry.id, %error, "connection lost");
        self.broken = true;
        self.input(Input::End(Fault::PeerClosed));
        self.carry_out();
        self.close(Fault::PeerClosed);
    }

    async fn handshake(&mut self, domain: DomainName) {
        self.partial = Vec::new();
        // What was announced before TLS must be out before the handshake begins.
        if let Err(error) = self.flush_all().await {
            self.lost(&error);
            return;
        }
        let limit = match self.phase {
            Phase::Establishing { deadline } => deadline.min(Instant::now() + HANDSHAKE),
            _ => Instant::now() + CLOSING,
        };
        let Some(Transport::Plain(socket)) = self.transport.take() else {
            self.lost(&io::ErrorKind::NotConnected.into());
            return;
        };
        let side = self.side;
        let force = Arc::clone(&self.force);
        let outcome = match self.peer {
            PeerRole::Client => {
                // The stream's `to` decides: SNI may be absent (Prosody 0.12), or name another.
                let choose = |_: Option<&str>| force.identity_of(side, &domain);
                tls::accept(socket, Mode::StartTls, limit.into(), choose).await
            }
            PeerRole::Server => {
                let identity = self
                    .local
                    .as_ref()
                    .and_then(|local| force.identity_of(side, local));
                let identity = identity.as_deref();
                tls::connect(socket, identity, &domain, Mode::StartTls, limit.into()).await
            }
        };
        match outcome {
            Ok(transport) => {
                self.tls = transport.facts().map(Arc::new);
                self.transport = Some(transport);
                self.scanner.restart();
                self.header = None;
                if let Some(facts) = self.tls.clone() {
                    self.input(Input::TlsEstablished(facts));
                }
            }
            Err(error) => {
                self.broken = true;
                let fault = Fault::TlsFailed {
                    label: error.label(),
                    text: error.to_string(),
                };
                self.input(Input::End(fault.clone()));
                self.carry_out();
                self.close(fault);
            }
        }
    }

    async fn flush_all(&mut self) -> io::Result<()> {
        let deadline = tokio::time::Instant::now() + CLOSING;
        let total = &self.edge.routes.total;
        let egress = &mut self.egress;
        let Some(transport) = &mut self.transport else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        tokio::time::timeout_at(
            deadline,
            poll_fn(|cx| {
                while !egress.is_empty() {
                    match Pin::new(&mut *transport).poll_write(cx, egress.front()) {
                        Poll::Ready(Ok(count)) => egress.wrote(count),
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                Pin::new(&mut *transport).poll_flush(cx)
            }),
        )
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        egress.flushed(total);
        Ok(())
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

/// Room in a queue; looks again now and then, because the total may be what was full.
async fn room(full: Option<&Route>) {
    const LOOK: Duration = Duration::from_millis(250);
    match full {
        Some(route) => {
            let _ = tokio::time::timeout(LOOK, route.room()).await;
        }
        None => std::future::pending().await,
    }
}

async fn cancelled(token: Option<&CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}
