//! The task of one link: it moves bytes, keeps time, and gives to each side what the other has.

mod ending;

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use xmpp_edge_crds::verdict::Direction;

use self::ending::ENDING;
use super::{
    accepted_slot::AcceptedSlot,
    answering::Answering,
    asked::AnswerNews,
    asking::Asking,
    connection::LinkIo,
    connections::LinkConnections,
    dial,
    dialled::{DialledConnections, REDIAL, SignOfLife},
    intake::{IntakeMode, StanzaIntake, StanzaReceivers},
    link_settings::{LinkMoment, LinkSettings},
    links::{DialReport, Dialled, LinkCommand, LinkHandle},
    outward::Outward,
    phase::LinkPhase,
    presence::LinkPresence,
    server_notes::{self, ServerNotes},
    sessions::{LinkSessions, WrittenRequest},
    silent_servers::SilentServers,
    watching_partners::PresenceNews,
};
use crate::{
    config::ActiveConfig,
    negotiation::Side,
    routing::{
        failure::{Failure, FailureKind},
        route_slots::RouteSlots,
    },
    sip::{
        connection::{ConnectionStep, ReceivedResponse},
        method::SipMethod,
        transaction::LinkConnection,
    },
    stream::context::StreamContext,
    tls::Transport,
};

/// After so much silence the server is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(60);
/// Between two looks at routes that are idle.
const IDLE_LOOK: Duration = Duration::from_secs(60);
/// Routes of one link: there is no end of names under a partner's wildcard.
const MOST_ROUTES: usize = 10_000;
/// The same where there are [`MOST_ROUTES`].
const CROWDED_LOOK: Duration = Duration::from_secs(1);

/// A link with its connections.
struct SipLink {
    context: Arc<StreamContext>,
    config: Arc<ActiveConfig>,
    settings: Arc<LinkSettings>,
    handle: Arc<LinkHandle>,
    /// In answers of ours.
    tag: String,
    connections: LinkConnections,
    dialled: DialledConnections,
    silent: SilentServers,
    routes: RouteSlots,
    intake: StanzaIntake,
    asking: Asking,
    answering: Answering,
    outward: Outward,
    presence: LinkPresence,
    notes: ServerNotes,
    sessions: LinkSessions,
    phase: LinkPhase,
    /// The link that has the gateway in place of this one.
    successor: Option<Arc<LinkHandle>>,
    look: Instant,
    /// Not before this time idle routes are looked for because there are too many.
    crowded_look: Instant,
}

/// Starts the links that the configuration in force wants, and ends the others.
pub fn follow_config(context: &Arc<StreamContext>) {
    let config = context.config();
    let gateways = config.document.gateways.iter();
    // A suspended pool takes nothing and sends nothing.
    let wanted: Vec<_> = gateways
        .filter(|gateway| gateway.sip.is_some() && !config.document.suspended)
        .cloned()
        .collect();
    for handle in context.sip.follow(&wanted) {
        if let Some(link) = SipLink::new(context, handle) {
            context.tasks.spawn(link.run());
        }
    }
}

impl SipLink {
    fn new(context: &Arc<StreamContext>, handle: Arc<LinkHandle>) -> Option<Box<Self>> {
        let config = context.config();
        let settings = LinkSettings::of(&handle.gateway, &config)?;
        let now = Instant::now();
        let tag = config.dialback.new_stream_id();
        let presence = LinkPresence::new(&settings.sip, &tag, Arc::clone(&handle.figures));
        let sessions = LinkSessions::new(settings.sip.dialect, &tag);
        Some(Box::new(Self {
            answering: Answering::new(handle.task.waker(), &tag),
            context: Arc::clone(context),
            config,
            settings: Arc::new(settings),
            connections: LinkConnections::new(Arc::clone(&handle.figures), handle.numbers.clone()),
            handle,
            tag,
            dialled: DialledConnections::new(now),
            silent: SilentServers::default(),
            routes: RouteSlots::default(),
            intake: StanzaIntake::default(),
            asking: Asking::new(now),
            outward: Outward::default(),
            presence,
            notes: ServerNotes::default(),
            sessions,
            phase: LinkPhase::Open,
            successor: None,
            look: now + IDLE_LOOK,
            crowded_look: now,
        }))
    }

    async fn run(mut self: Box<Self>) {
        let handle = Arc::clone(&self.handle);
        let stopping = self.context.stopping.clone();
        let mut timer = Box::pin(tokio::time::sleep(REDIAL));
        loop {
            let now = Instant::now();
            while let Some(command) = handle.task.told() {
                self.command(command, now);
            }
            self.on_time(now);
            self.take_steps(now);
            self.note_news(now);
            self.fill(now);
            self.write_answers();
            let moment = Self::moment(&self.context, &self.config, &self.settings, now);
            self.presence.report(&moment);
            handle.set_sessions(self.sessions.report(&moment));
            if self.is_over(now) {
                break;
            }
            let deadline = tokio::time::Instant::from_std(self.deadline(now));
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            let is_open = self.phase.is_open();
            tokio::select! {
                biased;
                failed = self.moved() => if let Some((id, error)) = failed {
                    self.connection_failed(id, &error);
                },
                () = handle.task.woken() => {}
                () = stopping.cancelled(), if is_open => self.begin_end(self.context.router.queue_timeout()),
                () = timer.as_mut() => {}
            }
        }
        self.finish();
    }

    /// As [`LinkConnections::poll`]: who has enough in work is read no further, but for the answers of the server's.
    fn moved(&mut self) -> impl Future<Output = Option<(LinkConnection, io::Error)>> {
        let reads_all = !self.answering.is_full() && self.successor.is_none();
        let (connections, dialled) = (&mut self.connections, &self.dialled);
        poll_fn(move |cx| connections.poll(cx, |id| reads_all || dialled.has(id)))
    }

    fn moment<'a>(
        context: &'a Arc<StreamContext>,
        config: &'a ActiveConfig,
        settings: &'a LinkSettings,
        now: Instant,
    ) -> LinkMoment<'a> {
        LinkMoment {
            context,
            config,
            settings,
            now,
        }
    }

    fn command(&mut self, command: LinkCommand, now: Instant) {
        match command {
            LinkCommand::Carry(ticket) => {
                if !ticket.is_wanted() || !self.phase.asks() {
                    // Dropped, it gives its route back.
                    return;
                }
                let route = Arc::clone(ticket.route());
                let (router, wake) = (&self.context.router, self.handle.task.waker());
                if self.routes.count() >= MOST_ROUTES && now >= self.crowded_look {
                    self.crowded_look = now + CROWDED_LOOK;
                    self.routes.leave_idle(router, wake);
                }
                if self.routes.count() >= MOST_ROUTES {
                    let text = "too many domains write to this SIP server at the moment";
                    let failure = Failure::new(FailureKind::QueueFull, text);
                    // Nothing waits for another try.
                    let _ = router.failed(ticket, &failure, true);
                } else if self.routes.attach(router, wake, route) {
                    ticket.done();
                }
            }
            LinkCommand::Accepted {
                transport,
                address,
                slot,
            } => {
                if let Some(successor) = &self.successor {
                    let command = LinkCommand::Accepted {
                        transport,
                        address,
                        slot,
                    };
                    successor.task.tell(command);
                    return;
                }
                self.connect(*transport, Some(address), Some(slot), now);
            }
            LinkCommand::Dialled(DialReport { outcome, silent }) => {
                for address in silent {
                    self.silent.silent(address, now);
                }
                match outcome {
                    Ok(_) if !self.phase.asks() => {}
                    Ok(Dialled { transport, address }) => {
                        let id = self.connect(*transport, address, None, now);
                        self.dialled.opened(id, now);
                        self.ask_options(id, now);
                    }
                    Err(failure) => self.dial_failed(failure, now),
                }
            }
            LinkCommand::ConfigChanged => {
                self.config = self.context.config();
                self.outward.config_changed();
                let moment = Self::moment(&self.context, &self.config, &self.settings, now);
                self.intake.withdraw_forbidden(&moment);
                self.asking.withdraw_forbidden(&moment);
                self.presence.follow_policy(&moment, &mut self.outward);
                self.sessions.follow_policy(&moment);
                self.presence.partners.look(&self.context, &self.handle);
            }
            LinkCommand::Watched(_) if self.successor.is_some() => {}
            LinkCommand::Watched(watched) => {
                let moment = Self::moment(&self.context, &self.config, &self.settings, now);
                let LinkPresence {
                    partners, ledger, ..
                } = &mut self.presence;
                partners.resume(&moment, &mut self.outward, ledger, watched);
            }
            LinkCommand::End => self.begin_end(ENDING),
            LinkCommand::Replaced(successor) => self.replaced(successor, now),
            LinkCommand::HandedOver(io) => match &self.successor {
                None => self.connections.adopt(*io),
                Some(successor) => {
                    successor.task.tell(LinkCommand::HandedOver(io));
                }
            },
            LinkCommand::Answer(id, bytes) => self.write_answer(id, bytes),
            LinkCommand::Stanza(route, batch) => self.passed_on(&route, batch, now),
            LinkCommand::Errored(error) => {
                let moment = Self::moment(&self.context, &self.config, &self.settings, now);
                if !self.answering.error_came(&moment, &error) {
                    self.handle.errored(&self.context.metrics, error);
                }
            }
        }
    }

    fn connect(
        &mut self,
        transport: Transport,
        address: Option<SocketAddr>,
        slot: Option<AcceptedSlot>,
        now: Instant,
    ) -> LinkConnection {
        self.connections
            .add(transport, address, slot, &self.tag, now)
    }

    fn on_time(&mut self, now: Instant) {
        let moment = Self::moment(&self.context, &self.config, &self.settings, now);
        self.answering.on_time(&moment, &mut self.outward);
        self.presence.on_time(&moment, &mut self.outward);
        self.sessions.on_time(&moment);
        if let Some(away) = self.handle.away() {
            let receivers = &mut StanzaReceivers {
                asking: &mut self.asking,
                answering: &mut self.answering,
                presence: &mut self.presence,
                outward: &mut self.outward,
                handle: &self.handle,
                successor: self.successor.as_ref(),
            };
            self.intake.expire(&moment, &away, receivers);
        }
        let expired = self.asking.expire(&moment, &mut self.sessions);
        let limit = self.context.router.queue_timeout();
        for id in &expired.silent {
            let text = format!("the SIP server gave no answer in {} s", limit.as_secs());
            let address = self.address_of(*id);
            self.note("OptionsTimeout", text.clone(), address);
            if let Some(address) = address {
                self.silent.silent(address, now);
            }
            self.lose(*id, Failure::new(FailureKind::Unreachable, text), now);
        }
        for id in self.dialled.unasked().collect::<Vec<_>>() {
            let heard = self.connections.get(id).map_or(now, |io| io.heard);
            if now.saturating_duration_since(heard) >= expired.silence(SILENCE, limit) {
                self.dialled.asked(id);
                self.ask_options(id, now);
            }
        }
        let dial_at = self.dialled.dial_at(self.asking.waiting());
        if self.phase.is_open() && dial_at.is_some_and(|at| now >= at) {
            self.dial(now);
        }
        if now >= self.look {
            self.look = now + IDLE_LOOK;
            let (router, wake) = (&self.context.router, self.handle.task.waker());
            // Strangers' domains are many.
            self.routes.leave_idle(router, wake);
            self.leave_idle_connections();
            let is_reached = self.dialled.is_reached();
            let partners = &mut self.presence.partners;
            if is_reached && partners.misses_contacts(&self.context) {
                partners.look(&self.context, &self.handle);
            }
        }
    }

    fn dial(&mut self, now: Instant) {
        // Where one is dialled beside these, they have said nothing for too long.
        let greeting: Vec<_> = self.dialled.greeting().collect();
        for id in greeting {
            if let Some(address) = self.address_of(id) {
                self.silent.silent(address, now);
            }
        }
        self.dialled.dialling();
        let (context, last) = (&self.context, self.silent.last(now));
        dial::begin(context, &self.config, &self.settings, &self.handle, last);
    }

    fn deadline(&self, now: Instant) -> Instant {
        let mut next = self.look;
        let dial = self.dialled.dial_at(self.asking.waiting());
        let heard = |id| self.connections.get(id).map(|io| io.heard + SILENCE);
        let first = self.dialled.first();
        let io = first.and_then(|id| self.connections.get(id));
        let can_go = io.is_some_and(LinkIo::takes_more);
        let own = [
            dial.filter(|_| self.phase.is_open()),
            self.dialled.unasked().filter_map(heard).min(),
            self.phase.next_look(now),
            self.asking.next_deadline(),
            self.answering.next_deadline(now),
            self.intake.next_deadline(),
            self.connections.next_deadline(),
            self.presence.next_deadline(can_go),
            self.sessions.next_deadline(),
        ];
        for at in own.into_iter().flatten() {
            next = next.min(at);
        }
        next
    }

    /// Takes what has come, as far as there is room for what it asks.
    fn take_steps(&mut self, now: Instant) {
        for id in self.connections.ids() {
            // Answers of the server's stand among what it asks on the connection that the edge opened.
            let is_dialled = self.dialled.has(id);
            while is_dialled || !self.answering.is_full() && self.successor.is_none() {
                let Some(io) = self.connections.get_mut(id) else {
                    break;
                };
                if !io.takes_more() {
                    break;
                }
                let Some(step) = io.sip.step(now) else {
                    break;
                };
                self.take_step(id, step, now);
                self.write_answers();
            }
        }
    }

    fn take_step(&mut self, id: LinkConnection, step: ConnectionStep, now: Instant) {
        let moment = Self::moment(&self.context, &self.config, &self.settings, now);
        match step {
            ConnectionStep::Write(bytes) => {
                if let Some(io) = self.connections.get_mut(id) {
                    io.write(&bytes);
                }
            }
            ConnectionStep::Request(received) => {
                let (outward, presence) = (&mut self.outward, &mut self.presence);
                let sessions = &mut self.sessions;
                self.answering
                    .request(&moment, &received, id, outward, presence, sessions);
            }
            ConnectionStep::Response(received) => self.take_response(&received, now),
            ConnectionStep::Refused(fault) => {
                let metrics = &self.context.metrics;
                metrics.sip_request(Direction::Outbound, None, Some(fault.code()));
            }
            ConnectionStep::Dropped(fault) => {
                tracing::debug!(%fault, "an answer of which nobody can tell whose it is");
            }
            ConnectionStep::End(end) => self.ended(id, end, now),
        }
    }

    fn take_response(&mut self, received: &ReceivedResponse, now: Instant) {
        let (address, response) = (self.dialled_address(), &received.response);
        let moment = Self::moment(&self.context, &self.config, &self.settings, now);
        if !response.code.is_provisional() {
            self.handle.figures.answered();
            self.notes.answered(&moment, address, response);
        }
        if matches!(response.method, SipMethod::Notify | SipMethod::Subscribe) {
            return self.presence.answered(&moment, &mut self.outward, response);
        }
        let sessions = &mut self.sessions;
        if let Some(news) = self.asking.answered(&moment, sessions, received) {
            self.answered(news, now);
        }
    }

    /// What the server does not let the edge do for presence, for who looks at the gateway.
    fn note_news(&mut self, now: Instant) {
        let address = self.dialled_address();
        let moment = Self::moment(&self.context, &self.config, &self.settings, now);
        for news in self.presence.partners.take_news() {
            match news {
                PresenceNews::Refused { outcome, code } => {
                    self.notes.refuses(&moment, address, outcome, code);
                }
                PresenceNews::NotifyMissing => self.notes.is_silent(&moment, address),
                PresenceNews::NotifyCame => self.notes.notifies(&moment, address),
            }
        }
    }

    fn answered(&mut self, news: AnswerNews, now: Instant) {
        let address = self.dialled_address();
        let moment = Self::moment(&self.context, &self.config, &self.settings, now);
        match news {
            AnswerNews::Alive(id) => {
                let address = self.address_of(id);
                if let Some(address) = address {
                    self.silent.answered(address);
                }
                let sign = self.dialled.alive(id);
                self.notes.alive(&moment, address, sign);
                if sign == SignOfLife::Reached {
                    self.handle.reached();
                    self.presence.partners.server_back(now);
                    self.presence.partners.look(&self.context, &self.handle);
                }
            }
            AnswerNews::Received(pair, stanza) => {
                // Where there is no room nobody is told: it says no more than that the message arrived.
                let _ = self.outward.send(&moment, &pair, &stanza, None);
            }
            AnswerNews::AuthenticationDemanded(code) => {
                let outcome = server_notes::AUTHENTICATION;
                self.notes.refuses(&moment, address, outcome, code);
            }
        }
    }

    /// Takes what waits, and asks as much of it as may be in work.
    fn fill(&mut self, now: Instant) {
        let moment = Self::moment(&self.context, &self.config, &self.settings, now);
        let first = self.dialled.first();
        let mode = first.map_or(IntakeMode::Away, |_| IntakeMode::All);
        let receivers = &mut StanzaReceivers {
            asking: &mut self.asking,
            answering: &mut self.answering,
            presence: &mut self.presence,
            outward: &mut self.outward,
            handle: &self.handle,
            successor: self.successor.as_ref(),
        };
        let wake = self.handle.task.waker();
        self.intake
            .take_all(&moment, &self.routes, wake, mode, receivers);
        let Some(first) = first else {
            return;
        };
        if self.connections.get(first).is_some_and(LinkIo::takes_more) {
            self.write_of_sessions(first);
        }
        let moment = Self::moment(&self.context, &self.config, &self.settings, now);
        let mut standing: Vec<LinkConnection> = self.dialled.standing().collect();
        standing.sort_by_key(|id| self.asking.load(*id));
        for id in standing {
            if let Some(io) = self.connections.get_mut(id) {
                self.asking.ask(&moment, &mut self.sessions, io);
            }
        }
        if let Some(io) = self.connections.get_mut(first) {
            self.presence.ask(&moment, &mut self.outward, io);
        }
    }

    /// What sessions say, each where it belongs, or on `first`.
    fn write_of_sessions(&mut self, first: LinkConnection) {
        for WrittenRequest { bytes, connection } in self.sessions.take_written() {
            let own = connection.filter(|id| self.dialled.has(*id));
            if let Some(io) = self.connections.get_mut(own.unwrap_or(first)) {
                io.write(&bytes);
            }
        }
    }

    fn write_answers(&mut self) {
        for (id, bytes) in self.answering.take_answers() {
            self.write_answer(id, bytes);
        }
    }

    /// Where the connection is: here, or at the link that has it from this one.
    fn write_answer(&mut self, id: LinkConnection, bytes: Vec<u8>) {
        if let Some(io) = self.connections.get_mut(id) {
            io.write(&bytes);
        } else if let Some(successor) = &self.successor {
            successor.task.tell(LinkCommand::Answer(id, bytes));
        }
    }

    fn ask_options(&mut self, id: LinkConnection, now: Instant) {
        let moment = Self::moment(&self.context, &self.config, &self.settings, now);
        if let Some(io) = self.connections.get_mut(id) {
            self.asking.ask_options(&moment, io);
        }
    }

    fn dial_failed(&mut self, failure: Failure, now: Instant) {
        self.dialled.failed(now);
        self.is_away(failure, now);
    }

    /// Where none of several connections stands, for this reason, it is known to whoever asks.
    fn is_away(&self, failure: Failure, now: Instant) {
        if self.dialled.is_reached() {
            return;
        }
        for domain in &self.settings.gateway.domains {
            let peer = self.config.attempt_peer(Side::Gateway, domain);
            self.context.attempts.failed(peer, domain);
            self.context.attempts.next_try(peer, domain, now + REDIAL);
        }
        self.handle.lost(failure);
    }

    fn note(&self, outcome: &'static str, text: String, address: Option<SocketAddr>) {
        let moment = Self::moment(&self.context, &self.config, &self.settings, Instant::now());
        moment.note(outcome, text, address);
    }

    fn address_of(&self, id: LinkConnection) -> Option<SocketAddr> {
        self.connections.get(id)?.address
    }

    /// Of the server that requests go to.
    fn dialled_address(&self) -> Option<SocketAddr> {
        let first = self.dialled.first();
        self.address_of(first.or_else(|| self.dialled.greeting().next())?)
    }
}
