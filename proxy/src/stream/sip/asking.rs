//! From partners to users of SIP: messages that a link took out of its queues, the requests that they become, and what
//! the answers are to their senders.
//!
//! A stanza is settled once its request has a final code: delivered, or answered by an error. Until then its queue
//! holds it, so that what waits here is bounded as what waits there.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use xmpp_edge_crds::verdict::Direction;

use super::{
    asked::{
        AnswerNews, AskedMessage, ExpiredRequests, OwnTicket, Repetition, WaitingStanza, received,
    },
    connection::LinkIo,
    link_settings::{LinkMoment, OwnRequest},
    outgoing::{AskedAbout, MessageTranslator, TranslatedRequest},
    sessions::{InviteOutcome, LinkSessions, MessageWay, PendingInvite},
};
use crate::{
    routing::{
        batch::Batch,
        failure::{Failure, FailureKind},
        route::Route,
        router::forbidden,
    },
    sip::{
        code::{StatusCode, TranslatedError},
        connection::ReceivedResponse,
        method::SipMethod,
        share::{SharedRoom, SipShare},
        transaction::{Answered, ClientTransactions, LinkConnection, Started},
        turns::{BegunMessage, MessageTurns, TURN_OVERHEAD, TwoPeople},
    },
};

/// Requests in work at a time on one connection, each of other people; a quarter of one partner object.
const IN_WORK: usize = 256;
/// A stanza goes on so many connections, one after the other.
const SENDINGS: u8 = 2;
/// How long what comes for an INVITE that nobody waits for is seen to its end: 64·T1 (RFC 3261 section 9.1).
const ABANDONED: Duration = Duration::from_secs(32);
/// Between two looks at what waits for its turn.
const LOOK: Duration = Duration::from_millis(250);

/// All that is asked of one SIP server.
#[derive(Debug)]
pub(super) struct Asking {
    turns: MessageTurns<WaitingStanza>,
    transactions: ClientTransactions<OwnTicket>,
    /// What is in work on each connection.
    loads: HashMap<LinkConnection, SharedRoom>,
    translator: MessageTranslator,
    /// Number of the next stanza, in the order in which they came.
    next: u64,
    look: Instant,
}

impl Asking {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            turns: MessageTurns::default(),
            transactions: ClientTransactions::default(),
            loads: HashMap::new(),
            translator: MessageTranslator::default(),
            next: 0,
            look: now + LOOK,
        }
    }

    /// A message of these people, which waits for its turn.
    pub(super) fn push(
        &mut self,
        moment: &LinkMoment<'_>,
        people: TwoPeople,
        route: Arc<Route>,
        mut batch: Batch,
    ) {
        let number = self.next;
        self.next += 1;
        // As if it were the only one of these people.
        batch.charge_beside(size_of::<WaitingStanza>() + TURN_OVERHEAD + people.bytes());
        let waiting = WaitingStanza {
            route,
            batch,
            number,
            only: None,
            call: None,
        };
        let share = SipShare::of(moment.partner(people.from.domain()));
        self.turns.push(Arc::new(people), share, waiting);
    }

    /// Writes what has its turn, as far as the connection takes it.
    pub(super) fn ask(
        &mut self,
        moment: &LinkMoment<'_>,
        sessions: &mut LinkSessions,
        io: &mut LinkIo,
    ) {
        while io.takes_more() {
            let load = self.loads.get(&io.id);
            let may = |share: &SipShare| load.is_none_or(|load| load.has_room(share));
            let Some(begun) = self.turns.begin_next(may) else {
                return;
            };
            let BegunMessage {
                people,
                share,
                message: mut stanza,
            } = begun;
            let bytes = stanza.batch.unsettled();
            let translator = &mut self.translator;
            let (only, call) = (stanza.only, stanza.call.as_ref());
            match translator.request_of(moment, sessions, &people, &bytes, only, call) {
                Ok(Some(translated)) => {
                    let TranslatedRequest {
                        mut request,
                        method,
                        about,
                        inside,
                        invitation,
                    } = translated;
                    io.write(&request.bytes);
                    stanza.batch.sendings += 1;
                    // An INVITE is another request than what it is for.
                    let call = request.call.take().filter(|_| invitation.is_none());
                    let repetition = if call.is_some() && call == stanza.call {
                        Repetition::SameAgain
                    } else {
                        Repetition::New
                    };
                    stanza.call = call;
                    let load = self.loads.entry(io.id);
                    let load = load.or_insert_with(|| SharedRoom::new(IN_WORK));
                    load.take(&share);
                    let asked = Box::new(AskedMessage {
                        people,
                        share,
                        stanza,
                        about,
                        inside,
                        repetition,
                        connection: io.id,
                    });
                    let ticket = match invitation {
                        Some(invitation) => {
                            let invite = PendingInvite::new(invitation, io.id);
                            OwnTicket::Invite(asked, invite.into())
                        }
                        None => OwnTicket::Message(asked),
                    };
                    self.begin(moment, io.id, request, method, ticket);
                }
                Ok(None) => {
                    stanza.batch.settle();
                    self.turns.done(&people);
                }
                Err(failure) => {
                    let router = &moment.context.router;
                    router.bounce(&stanza.route, stanza.batch, &failure);
                    self.turns.done(&people);
                }
            }
        }
    }

    /// Asks the server whether it is there.
    pub(super) fn ask_options(&mut self, moment: &LinkMoment<'_>, io: &mut LinkIo) {
        let from = format!("sip:{}", moment.settings.sip.edge_name);
        let to = format!("sip:{}", moment.settings.first_domain());
        let written = moment.request(SipMethod::Options, &from, &to, |start| start.bare());
        let Ok(request) = written else {
            debug_assert!(false, "names of hosts are no control characters");
            return;
        };
        io.write(&request.bytes);
        let asked = OwnTicket::Options(io.id);
        self.begin(moment, io.id, request, SipMethod::Options, asked);
    }

    fn begin(
        &mut self,
        moment: &LinkMoment<'_>,
        connection: LinkConnection,
        request: OwnRequest,
        method: SipMethod,
        ticket: OwnTicket,
    ) {
        let started = Started {
            branch: request.branch,
            method,
            connection,
            at: moment.now,
            expires: moment.now + moment.context.router.queue_timeout(),
            ticket,
        };
        let begun = self.transactions.begin(started);
        debug_assert!(begun.is_ok(), "a branch of 128 random bits is used once");
    }

    /// An answer came. `None`: it says nothing more, or is of nothing that is in work.
    pub(super) fn answered(
        &mut self,
        moment: &LinkMoment<'_>,
        sessions: &mut LinkSessions,
        received: &ReceivedResponse,
    ) -> Option<AnswerNews> {
        let response = &received.response;
        let (code, since, asked) = match self.transactions.answer(response) {
            Answered::Provisional => {
                self.rings(moment, sessions, received);
                return None;
            }
            Answered::Stray => {
                sessions.stray(moment, response);
                return None;
            }
            Answered::Final {
                code,
                since,
                ticket,
            } => (code, since, ticket),
        };
        if let OwnTicket::Abandoned(invite) = asked {
            // It was counted when its time was over.
            sessions.abandoned_answered(moment, &invite, response);
            return None;
        }
        let method = response.method.as_str();
        let metrics = &moment.context.metrics;
        metrics.sip_request(Direction::Inbound, method, Some(code.get()));
        metrics.sip_answered(Direction::Inbound, method, moment.now - since);
        match asked {
            OwnTicket::Abandoned(_) => None,
            OwnTicket::Options(connection) => Some(AnswerNews::Alive(connection)),
            OwnTicket::Message(message) => {
                self.is_over(&message);
                let is_text = matches!(message.about, AskedAbout::Text(_));
                let is_dead = |number| !sessions.inside_answered(number, code, is_text);
                if message.inside.is_some_and(is_dead) && is_text {
                    self.again(*message, Some(MessageWay::Outside));
                    return None;
                }
                self.message_answered(moment, *message, code)
            }
            OwnTicket::Invite(message, invite) => {
                self.is_over(&message);
                let outcome =
                    sessions.invitation_answered(moment, &message.people, &invite, received);
                match outcome {
                    // Never a second INVITE: who accepts each and hangs up would be invited for ever.
                    InviteOutcome::Inside(number, typing) => {
                        let way = MessageWay::Inside(number, typing);
                        self.again(*message, Some(way));
                    }
                    InviteOutcome::Outside => self.again(*message, Some(MessageWay::Outside)),
                    InviteOutcome::Refused => {
                        return self.message_answered(moment, *message, code);
                    }
                }
                None
            }
        }
    }

    /// A provisional answer came: an INVITE rings.
    fn rings(
        &mut self,
        moment: &LinkMoment<'_>,
        sessions: &mut LinkSessions,
        received: &ReceivedResponse,
    ) {
        match self.transactions.ticket_mut(&received.response) {
            Some(OwnTicket::Invite(_, invite)) => invite.rings(),
            Some(OwnTicket::Abandoned(invite)) => {
                invite.rings();
                sessions.cancel(moment, invite);
            }
            _ => {}
        }
    }

    /// The message of this INVITE is answered: it is cancelled, now or once it rings, and what comes for it is seen to its
    /// end.
    fn abandon(
        &mut self,
        moment: &LinkMoment<'_>,
        sessions: &mut LinkSessions,
        mut invite: Box<PendingInvite>,
    ) {
        sessions.cancel(moment, &mut invite);
        let begun = self.transactions.begin(Started {
            branch: invite.invitation.branch().into(),
            method: SipMethod::Invite,
            connection: invite.connection,
            at: moment.now,
            expires: moment.now + ABANDONED,
            ticket: OwnTicket::Abandoned(invite),
        });
        debug_assert!(begun.is_ok(), "its own branch was in work until now");
    }

    /// What was asked is answered, and does not say what became of the message: it goes next, before all others.
    fn again(&mut self, message: AskedMessage, only: Option<MessageWay>) {
        let AskedMessage {
            people, mut stanza, ..
        } = message;
        stanza.batch.sendings -= 1;
        (stanza.only, stanza.call) = (only, None);
        self.turns.again(people, stanza);
    }

    fn message_answered(
        &mut self,
        moment: &LinkMoment<'_>,
        message: AskedMessage,
        code: StatusCode,
    ) -> Option<AnswerNews> {
        let AskedMessage {
            people,
            stanza,
            about,
            repetition,
            ..
        } = message;
        self.turns.done(&people);
        let AskedAbout::Text(receipt) = about else {
            self.translator
                .typing_answered(&people.to, code, moment.now);
            stanza.batch.settle();
            return None;
        };
        // It came before, on a connection that ended before its answer: who has it finds it twice. Of another request it
        // says that its way is a loop.
        let is_known = code.get() == 482 && repetition == Repetition::SameAgain;
        let audience = moment.audience(&stanza.route.pair.from);
        match TranslatedError::of_code(code, audience).filter(|_| !is_known) {
            None => {
                stanza.batch.settle();
                let wanted = receipt.filter(|_| code == StatusCode::OK)?;
                Some(received(moment, &people, &wanted))
            }
            Some(error) => {
                let kind = FailureKind::Answered {
                    condition: error.condition,
                    error_type: error.error_type,
                };
                let failure = Failure::new(kind, error.text.unwrap_or_default());
                let router = &moment.context.router;
                router.bounce(&stanza.route, stanza.batch, &failure);
                let demands = matches!(code.get(), 401 | 407);
                demands.then_some(AnswerNews::AuthenticationDemanded(code))
            }
        }
    }

    /// What nobody waits for any more is answered.
    pub(super) fn expire(
        &mut self,
        moment: &LinkMoment<'_>,
        sessions: &mut LinkSessions,
    ) -> ExpiredRequests {
        let router = &moment.context.router;
        let limit = router.queue_timeout();
        let failure = || {
            let text = format!("the SIP server gave no answer in {} s", limit.as_secs());
            Failure::new(FailureKind::TimedOut, text)
        };
        let mut expired = ExpiredRequests::default();
        for asked in self.transactions.expired(moment.now) {
            let (message, invite) = match asked {
                OwnTicket::Abandoned(_) => continue,
                OwnTicket::Options(connection) => {
                    unanswered(moment, SipMethod::Options);
                    expired.silent.push(connection);
                    continue;
                }
                OwnTicket::Message(message) => (message, None),
                OwnTicket::Invite(message, invite) => (message, Some(invite)),
            };
            let of_invite = invite.as_ref().map(|_| SipMethod::Invite);
            unanswered(moment, of_invite.unwrap_or(SipMethod::Message));
            self.is_over(&message);
            expired.to_users += 1;
            if let Some(number) = message.inside {
                sessions.inside_unanswered(moment, number);
            }
            self.turns.done(&message.people);
            match message.about {
                AskedAbout::Text(_) => {
                    let WaitingStanza { route, batch, .. } = message.stanza;
                    router.bounce(&route, batch, &failure());
                }
                AskedAbout::Typing => message.stanza.batch.settle(),
            }
            if let Some(invite) = invite {
                self.abandon(moment, sessions, invite);
            }
        }
        if moment.now >= self.look {
            self.look = moment.now + LOOK;
            let now = moment.now;
            let is_over = |_: &TwoPeople, waiting: &WaitingStanza| {
                now.saturating_duration_since(waiting.batch.arrived) >= limit
            };
            for (_, waiting) in self.turns.take(is_over) {
                router.bounce(&waiting.route, waiting.batch, &failure());
            }
        }
        expired
    }

    /// What waits from partners that may not talk any more is answered.
    pub(super) fn withdraw_forbidden(&mut self, moment: &LinkMoment<'_>) {
        let is_over = |_: &TwoPeople, waiting: &WaitingStanza| {
            forbidden(moment.config, &waiting.route).is_some()
        };
        for (_, waiting) in self.turns.take(is_over) {
            if let Some(failure) = forbidden(moment.config, &waiting.route) {
                let router = &moment.context.router;
                router.bounce(&waiting.route, waiting.batch, &failure);
            }
        }
    }

    /// No connection stands any more, these did: each route with what goes on the next one, in order.
    pub(super) fn hand_back(
        &mut self,
        moment: &LinkMoment<'_>,
        connections: &[LinkConnection],
    ) -> Vec<(Arc<Route>, Vec<Batch>)> {
        let mut waiting = Vec::new();
        for connection in connections {
            let lost = self.lost(moment, *connection).into_iter();
            waiting.extend(lost.map(|message| message.stanza));
        }
        let turns = std::mem::take(&mut self.turns);
        waiting.extend(turns.into_waiting());
        waiting.sort_by_key(|stanza| stanza.number);
        let mut by_route: Vec<(Arc<Route>, Vec<Batch>)> = Vec::new();
        for WaitingStanza { route, batch, .. } in waiting {
            match by_route
                .iter_mut()
                .find(|(own, _)| Arc::ptr_eq(own, &route))
            {
                Some((_, batches)) => batches.push(batch),
                None => by_route.push((route, vec![batch])),
            }
        }
        by_route
    }

    /// One connection of several is gone: what was asked on it goes once more on the others, before all else.
    pub(super) fn go_on(&mut self, moment: &LinkMoment<'_>, connection: LinkConnection) {
        for message in self.lost(moment, connection).into_iter().rev() {
            self.turns.again(message.people, message.stanza);
        }
    }

    /// What had no answer when its connection ended. What was sent as often as anything is, is answered.
    fn lost(&mut self, moment: &LinkMoment<'_>, connection: LinkConnection) -> Vec<AskedMessage> {
        let failure = Failure::new(
            FailureKind::Unacknowledged,
            "two connections ended before the SIP server answered this message",
        );
        let mut lost = Vec::new();
        for asked in self.transactions.lost(connection) {
            let (OwnTicket::Message(message) | OwnTicket::Invite(message, _)) = asked else {
                continue;
            };
            match message.about {
                AskedAbout::Text(_) if message.stanza.batch.sendings < SENDINGS => {
                    lost.push(*message);
                    continue;
                }
                AskedAbout::Text(_) => {
                    let WaitingStanza { route, batch, .. } = message.stanza;
                    moment.context.router.bounce(&route, batch, &failure);
                }
                AskedAbout::Typing => message.stanza.batch.settle(),
            }
            self.turns.done(&message.people);
        }
        self.loads.remove(&connection);
        lost
    }

    /// How many wait that could go at once.
    pub(super) fn waiting(&self) -> usize {
        self.turns.ready()
    }

    /// How many are in work on this connection.
    pub(super) fn load(&self, connection: LinkConnection) -> usize {
        self.loads.get(&connection).map_or(0, SharedRoom::taken)
    }

    /// It is in work no more.
    fn is_over(&mut self, message: &AskedMessage) {
        if let Some(load) = self.loads.get_mut(&message.connection) {
            load.give_back(&message.share);
            if load.taken() == 0 {
                self.loads.remove(&message.connection);
            }
        }
    }

    /// Whether nothing waits and nothing is in work.
    pub(super) fn is_idle(&self) -> bool {
        self.turns.is_idle()
    }

    /// When [`Self::expire`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let look = (!self.turns.is_idle()).then_some(self.look);
        self.transactions
            .next_deadline()
            .into_iter()
            .chain(look)
            .min()
    }
}

/// A request had no answer in time.
fn unanswered(moment: &LinkMoment<'_>, method: SipMethod) {
    let metrics = &moment.context.metrics;
    metrics.sip_request(Direction::Inbound, method.as_str(), None);
}

#[cfg(test)]
mod tests {
    use xmpp_edge_crds::jid::BareJid;

    use super::{super::link_settings::fixture, *};
    use crate::{
        negotiation::{Pair, Side},
        stream::context::StreamContext,
    };

    #[tokio::test]
    async fn waiting_people_are_charged() {
        let (context, _dials) = StreamContext::alone(fixture::sip_config());
        let config = context.config();
        let settings = fixture::sip_settings(&config);
        let moment = LinkMoment {
            context: &context,
            config: &config,
            settings: &settings,
            now: Instant::now(),
        };
        let pair = Pair {
            from: "a.partner.example".parse().expect("valid"),
            to: "org.example".parse().expect("valid"),
        };
        let route = context.router.route(Side::Gateway, &pair);
        let mut asking = Asking::new(moment.now);
        let jid = |local: String, domain| {
            BareJid::parse(&format!("{local}@{domain}")).expect("an address")
        };
        let mut beside = 0;
        for number in 0..1_000 {
            let people = TwoPeople {
                from: jid(format!("{number:0>900}"), "a.partner.example"),
                to: jid("u".repeat(900), "org.example"),
            };
            beside += people.bytes();
            let stanza = Batch::reply(b"<message/>".to_vec(), None, moment.now);
            for batch in route.split(stanza) {
                asking.push(&moment, people.clone(), Arc::clone(&route), batch);
            }
        }
        assert!(beside > 1_800_000 && route.held() > beside, "{beside}");
        drop(asking.hand_back(&moment, &[]));
        assert_eq!(route.held(), 0);
    }
}
