//! From users of SIP to partners: requests that a SIP server sent, the stanzas that they become, and the final codes
//! that tell their senders what became of those.
//!
//! A MESSAGE has its final code once its stanza is settled, and a moment more for an error that follows: until then
//! the server holds it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use xmpp_edge_crds::verdict::Direction;

use super::{
    incoming::{Incoming, IncomingContent, IncomingMessage, IncomingSubscribe, Refused},
    inside_error::InsideError,
    link_settings::LinkMoment,
    outward::{Outward, OutwardOutcome, pair_of},
    presence::LinkPresence,
    sessions::{LinkSessions, SessionRequest},
    typing::WritingUsers,
    users_watching::TakenSubscribe,
};
use crate::{
    routing::acknowledgement::{AckTracker, MovedPairs, StanzaFate},
    routing::wake::Wake,
    sip::{
        body::Typing,
        code::{FinalCode, StatusCode},
        connection::ReceivedRequest,
        message::{ChatState, StanzaAddresses, text_stanza, typing_stanza},
        method::SipMethod,
        session::DESCRIPTION_TYPE,
        share::SipShare,
        transaction::{Arrival, AskedRequest, LinkConnection, ServerTransactions},
        turns::TwoPeople,
        wire::{SipHeaders, SipWriter, WriteFault},
    },
    xml::{Condition, Element, StanzaKind},
};

/// Requests of one server in work: it is not read beyond these. A quarter of them may be to one partner object: what is
/// beyond that is answered.
const IN_WORK: usize = 4_000;
/// An error that follows so soon after its stanza was settled is the answer.
const ERROR_FOLLOWS: Duration = Duration::from_millis(300);
/// Requests whose stanzas were settled, taken at once.
const MOVED: usize = 256;
/// What policy answers to a SUBSCRIBE comes at once; after so long it is taken for a refusal.
const VERDICT: Duration = Duration::from_secs(5);

/// All that one SIP server asks.
#[derive(Debug)]
pub(super) struct Answering {
    transactions: ServerTransactions,
    moved: Arc<MovedPairs>,
    /// How many stanzas were settled or given back when those were looked for that were given back.
    given_back: u64,
    open: HashMap<u32, UnansweredRequest>,
    /// By the id of its stanza: the error to it has the same.
    by_id: HashMap<Box<str>, u32>,
    /// When those are answered for which no error came by then.
    closing: BTreeSet<(Instant, u32)>,
    next: u32,
    writing: WritingUsers,
    /// Of this end, in all answers.
    tag: Box<str>,
    /// What has to be written.
    answers: Vec<(LinkConnection, Vec<u8>)>,
    intake: RequestIntake,
}

/// Whether messages are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestIntake {
    Open,
    /// The edge ends: who sends goes to the next edge.
    Ending,
}

/// A request that has no final code yet.
#[derive(Debug)]
struct UnansweredRequest {
    transaction: u64,
    /// Of the stanza that it became.
    id: Box<str>,
    people: TwoPeople,
    awaits: Awaited,
}

/// What gives it its final code, where no error does.
#[derive(Debug)]
enum Awaited {
    /// The stanza is settled.
    Custody(Arc<AckTracker>),
    /// The stanza is settled; an error may follow it.
    Error,
    /// None: policy answers the stanza.
    Verdict,
}

impl Answering {
    /// `wake` is told when a stanza was settled.
    pub(super) fn new(wake: &Arc<Wake>, tag: &str) -> Self {
        Self {
            transactions: ServerTransactions::new(IN_WORK),
            moved: Arc::new(MovedPairs::new(Arc::clone(wake))),
            given_back: 0,
            open: HashMap::new(),
            by_id: HashMap::new(),
            closing: BTreeSet::new(),
            next: 0,
            writing: WritingUsers::default(),
            tag: tag.into(),
            answers: Vec::new(),
            intake: RequestIntake::Open,
        }
    }

    /// Whether its server is to be read no further.
    pub(super) fn is_full(&self) -> bool {
        self.transactions.is_full()
    }

    /// Whether what came on this connection has yet to be answered there.
    pub(super) fn owes_on(&self, connection: LinkConnection) -> bool {
        let unwritten = self.answers.iter().any(|(on, _)| *on == connection);
        unwritten || self.transactions.are_on(connection)
    }

    /// Nothing more is taken; what was is answered.
    pub(super) fn end(&mut self) {
        self.intake = RequestIntake::Ending;
    }

    /// Whether all have their final codes.
    pub(super) fn is_idle(&self) -> bool {
        self.transactions.is_empty() && self.answers.is_empty()
    }

    /// What has to be written, each on its connection.
    pub(super) fn take_answers(&mut self) -> Vec<(LinkConnection, Vec<u8>)> {
        std::mem::take(&mut self.answers)
    }

    /// A request came.
    pub(super) fn request(
        &mut self,
        moment: &LinkMoment<'_>,
        received: &ReceivedRequest,
        connection: LinkConnection,
        outward: &mut Outward,
        presence: &mut LinkPresence,
        sessions: &mut LinkSessions,
    ) {
        let request = &received.request;
        let refused = match Incoming::of(moment, received) {
            Ok(Incoming::Acknowledged) => return sessions.acknowledged(received),
            Ok(Incoming::Cancelled) => sessions.cancelled(received),
            Ok(Incoming::Alive) => Refused::alive(moment),
            Ok(Incoming::Message(message)) => {
                return self.message(moment, received, connection, outward, message);
            }
            Ok(Incoming::Invite(_)) if self.intake == RequestIntake::Ending => Refused::code(503),
            Ok(Incoming::Invite(invite)) => sessions.invited(moment, received, invite),
            Ok(Incoming::InSession) => match sessions.take(moment, received) {
                Ok(SessionRequest::Message(message)) => {
                    return self.message(moment, received, connection, outward, message);
                }
                Ok(SessionRequest::Answered(answer)) => answer,
                Err(refused) => refused,
            },
            Ok(Incoming::Notify) => {
                return self.notify(moment, received, connection, outward, presence);
            }
            Ok(Incoming::Subscribe(subscribe)) => {
                let taken =
                    self.subscribe(moment, received, connection, outward, presence, subscribe);
                match taken {
                    Some(answer) => answer,
                    None => return,
                }
            }
            Ok(Incoming::Refresh(wish)) => {
                let LinkPresence { users, ledger, .. } = presence;
                let granted = users.refresh(moment, outward, ledger, &wish, received);
                granted.map_or_else(
                    |refused| refused,
                    |seconds| Refused::granted(moment, request, seconds),
                )
            }
            Err(refused) => refused,
        };
        self.write(
            moment,
            connection,
            request.method,
            &request.headers,
            &refused,
        );
    }

    /// It is answered before what it says is looked at: agents give up on who is slow to answer.
    fn notify(
        &mut self,
        moment: &LinkMoment<'_>,
        received: &ReceivedRequest,
        connection: LinkConnection,
        outward: &mut Outward,
        presence: &mut LinkPresence,
    ) {
        let LinkPresence {
            partners, ledger, ..
        } = presence;
        let taken = partners.take_notify(moment, ledger, received);
        let (answer, taken) = match taken {
            Ok(taken) => (Refused::plain(StatusCode::OK), Some(taken)),
            Err(refused) => (refused, None),
        };
        let request = &received.request;
        self.write(
            moment,
            connection,
            request.method,
            &request.headers,
            &answer,
        );
        if let Some((number, state)) = taken {
            partners.notified(moment, outward, ledger, number, state, received);
        }
    }

    /// What is answered at once; none: what policy says is.
    fn subscribe(
        &mut self,
        moment: &LinkMoment<'_>,
        received: &ReceivedRequest,
        connection: LinkConnection,
        outward: &mut Outward,
        presence: &mut LinkPresence,
        subscribe: IncomingSubscribe,
    ) -> Option<Refused> {
        if self.intake == RequestIntake::Ending {
            return Some(Refused::code(503));
        }
        let LinkPresence { users, ledger, .. } = presence;
        let id = match users.subscribe(moment, outward, ledger, &subscribe, received) {
            Ok(TakenSubscribe::Granted(seconds)) => {
                return Some(Refused::granted(moment, &received.request, seconds));
            }
            Ok(TakenSubscribe::Refused { id }) => id,
            Err(refused) => return Some(refused),
        };
        match self.begin(moment, received, connection, &subscribe.people) {
            Ok(None) => {}
            Ok(Some(transaction)) => {
                let number = self.open(transaction, &id, subscribe.people, Awaited::Verdict);
                self.closing.insert((moment.now + VERDICT, number));
            }
            Err(refused) => return Some(refused),
        }
        None
    }

    /// The request is in work, under this number; none: it has been before.
    fn begin(
        &mut self,
        moment: &LinkMoment<'_>,
        received: &ReceivedRequest,
        connection: LinkConnection,
        people: &TwoPeople,
    ) -> Result<Option<u64>, Refused> {
        let (request, now) = (&received.request, moment.now);
        let share = SipShare::of(moment.partner(people.to.domain()));
        match self.transactions.arrive(request, connection, now, share) {
            Arrival::New(number) => Ok(Some(number)),
            Arrival::Again => Ok(None),
            Arrival::Merged => Err(Refused::code(482)),
            Arrival::Full => {
                let full = FinalCode::of_condition(Some(Condition::ResourceConstraint));
                Err(Refused::of(full))
            }
        }
    }

    fn open(&mut self, transaction: u64, id: &str, people: TwoPeople, awaits: Awaited) -> u32 {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let open = UnansweredRequest {
            transaction,
            id: id.into(),
            people,
            awaits,
        };
        self.by_id.insert(open.id.clone(), number);
        self.open.insert(number, open);
        number
    }

    fn message(
        &mut self,
        moment: &LinkMoment<'_>,
        received: &ReceivedRequest,
        connection: LinkConnection,
        outward: &mut Outward,
        message: IncomingMessage,
    ) {
        let request = &received.request;
        let begun = self.begin(moment, received, connection, &message.people);
        let transaction = match begun {
            Ok(Some(number)) => number,
            Ok(None) => return,
            Err(refused) => {
                return self.write(
                    moment,
                    connection,
                    request.method,
                    &request.headers,
                    &refused,
                );
            }
        };
        if self.intake == RequestIntake::Ending {
            return self.finish(moment, transaction, &Refused::code(503));
        }
        let IncomingMessage {
            people,
            resource,
            said,
        } = message;
        match said {
            IncomingContent::Nothing => {
                let metrics = &moment.context.metrics;
                metrics.sip_untranslated(Direction::Outbound, "Content");
                self.finish(moment, transaction, &Refused::plain(StatusCode::OK));
            }
            IncomingContent::Typing(typing) => {
                self.typing(moment, outward, people, typing);
                self.finish(moment, transaction, &Refused::plain(StatusCode::OK));
            }
            IncomingContent::Text(text) => {
                self.writing.stops(&people);
                let id = moment.config.dialback.new_stream_id();
                let addresses = StanzaAddresses {
                    from: &people.from,
                    to: &people.to,
                    resource: resource.as_deref(),
                    id: &id,
                };
                let stanza = text_stanza(addresses, &text, Timestamp::now());
                self.send(moment, outward, transaction, &stanza, &id, people);
            }
        }
    }

    fn send(
        &mut self,
        moment: &LinkMoment<'_>,
        outward: &mut Outward,
        transaction: u64,
        stanza: &Element,
        id: &str,
        people: TwoPeople,
    ) {
        // The number that it will have.
        let tracker = Arc::new(AckTracker::of_pair(Arc::clone(&self.moved), self.next));
        let pair = pair_of(&people);
        let number = self.open(
            transaction,
            id,
            people,
            Awaited::Custody(Arc::clone(&tracker)),
        );
        let refused = match outward.send(moment, &pair, stanza, Some(&tracker)) {
            OutwardOutcome::Taken | OutwardOutcome::Answered => return,
            OutwardOutcome::NoRoom => {
                Refused::of(FinalCode::of_condition(Some(Condition::ResourceConstraint)))
            }
            OutwardOutcome::Forbidden(reason) => {
                Refused::of_reason(moment, (StanzaKind::Message, "chat"), reason)
            }
            OutwardOutcome::Malformed => Refused::code(400),
        };
        self.close(moment, number, &refused);
    }

    fn typing(
        &mut self,
        moment: &LinkMoment<'_>,
        outward: &mut Outward,
        people: TwoPeople,
        typing: Typing,
    ) {
        let state = match typing {
            Typing::Active { refresh } => {
                let refresh = Duration::from_secs(refresh.into());
                if !moment.settings.sip.typing
                    || !self.writing.writes(people.clone(), refresh, moment.now)
                {
                    let metrics = &moment.context.metrics;
                    return metrics.sip_untranslated(Direction::Outbound, "Typing");
                }
                ChatState::Composing
            }
            Typing::Idle if self.writing.stops(&people) => ChatState::NotComposing,
            Typing::Idle => return,
        };
        tell_state(moment, outward, &people, state);
    }

    /// An error came: it is the answer to its request, where that waits for one. `false`: none does.
    pub(super) fn error_came(&mut self, moment: &LinkMoment<'_>, error: &InsideError) -> bool {
        let number = self.by_id.get(error.id.as_str()).copied();
        let open = number.and_then(|number| Some((number, self.open.get(&number)?)));
        let Some((number, _)) = open.filter(|(_, open)| open.people == error.people) else {
            return false;
        };
        let mut refused = Refused::of(FinalCode::of_condition(error.condition));
        refused.warn(moment, &error.text);
        self.close(moment, number, &refused);
        true
    }

    /// What time and settled stanzas bring.
    pub(super) fn on_time(&mut self, moment: &LinkMoment<'_>, outward: &mut Outward) {
        for number in self.moved.take(MOVED) {
            self.look_at(moment, number);
        }
        if self.intake == RequestIntake::Ending && self.given_back != self.moved.done() {
            // What is given back moves nothing.
            self.given_back = self.moved.done();
            let open: Vec<u32> = self.open.keys().copied().collect();
            open.into_iter()
                .for_each(|number| self.look_at(moment, number));
        }
        while let Some(&(at, number)) = self.closing.first() {
            if at > moment.now {
                break;
            }
            self.closing.pop_first();
            let answer = match self.open.get(&number).map(|open| &open.awaits) {
                Some(Awaited::Verdict) => Refused::code(403),
                _ => Refused::plain(StatusCode::OK),
            };
            self.close(moment, number, &answer);
        }
        for asked in self.transactions.due(moment.now) {
            let trying = Refused::plain(StatusCode::TRYING);
            self.write_to(&asked, &trying);
        }
        for people in self.writing.expired(moment.now) {
            tell_state(moment, outward, &people, ChatState::NotComposing);
        }
    }

    /// What became of the stanza of a request.
    fn look_at(&mut self, moment: &LinkMoment<'_>, number: u32) {
        let Some(Awaited::Custody(tracker)) = self.open.get(&number).map(|open| &open.awaits)
        else {
            return;
        };
        match tracker.take_fate() {
            StanzaFate::Held => {}
            StanzaFate::Settled => {
                // It is not looked at again: while the link ends all are, at every change.
                if let Some(open) = self.open.get_mut(&number) {
                    open.awaits = Awaited::Error;
                }
                self.closing.insert((moment.now + ERROR_FOLLOWS, number));
            }
            StanzaFate::Lost => {
                let full = FinalCode::of_condition(Some(Condition::ResourceConstraint));
                self.close(moment, number, &Refused::of(full));
            }
            // The edge ends: who sends goes to the next one.
            StanzaFate::GivenBack => self.close(moment, number, &Refused::code(503)),
        }
    }

    /// When [`Self::on_time`] has something to do.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let closing = self.closing.first().map(|(at, _)| *at);
        let writing = (!self.writing.is_empty()).then(|| now + Duration::from_secs(1));
        let moved = (!self.moved.is_empty()).then_some(now);
        let due = self.transactions.next_deadline();
        [closing, writing, moved, due].into_iter().flatten().min()
    }

    /// A connection is gone: nobody is there who could be answered on it.
    pub(super) fn connection_lost(&mut self, connection: LinkConnection) {
        self.transactions.lost(connection);
        self.answers.retain(|(own, _)| *own != connection);
    }

    /// The message has its final code.
    fn close(&mut self, moment: &LinkMoment<'_>, number: u32, refused: &Refused) {
        let Some(open) = self.open.remove(&number) else {
            return;
        };
        self.by_id.remove(&open.id);
        self.finish(moment, open.transaction, refused);
    }

    fn finish(&mut self, moment: &LinkMoment<'_>, transaction: u64, refused: &Refused) {
        // None: its connection is gone.
        let Some(asked) = self.transactions.finish(transaction) else {
            return;
        };
        let metrics = &moment.context.metrics;
        let code = refused.code.get();
        let method = asked.method.as_str();
        metrics.sip_request(Direction::Outbound, method, Some(code));
        metrics.sip_answered(Direction::Outbound, method, moment.now - asked.since);
        self.write_to(&asked, refused);
    }

    fn write(
        &mut self,
        moment: &LinkMoment<'_>,
        connection: LinkConnection,
        method: SipMethod,
        headers: &SipHeaders,
        refused: &Refused,
    ) {
        let metrics = &moment.context.metrics;
        let code = refused.code.get();
        metrics.sip_request(Direction::Outbound, method.as_str(), Some(code));
        self.push(connection, headers, refused);
    }

    fn write_to(&mut self, asked: &AskedRequest, refused: &Refused) {
        self.push(asked.connection, &asked.headers, refused);
    }

    fn push(&mut self, connection: LinkConnection, headers: &SipHeaders, refused: &Refused) {
        let written = answer(headers, &self.tag, refused);
        debug_assert!(written.is_ok(), "what was read can be answered");
        if let Ok(bytes) = written {
            self.answers.push((connection, bytes));
        }
    }
}

fn answer(headers: &SipHeaders, tag: &str, refused: &Refused) -> Result<Vec<u8>, WriteFault> {
    let mut writer = SipWriter::answer(refused.code, headers, tag)?;
    for (name, value) in &refused.fields {
        // A field that has no room is left out: the code alone answers too.
        writer = match writer.clone().field(*name, value) {
            Ok(with) => with,
            Err(_) => writer,
        };
    }
    match &refused.description {
        Some(description) => writer.finish_with(DESCRIPTION_TYPE, description.as_bytes()),
        None => Ok(writer.finish()),
    }
}

/// Nobody waits to hear what became of it.
fn tell_state(
    moment: &LinkMoment<'_>,
    outward: &mut Outward,
    people: &TwoPeople,
    state: ChatState,
) {
    let addresses = StanzaAddresses {
        from: &people.from,
        to: &people.to,
        resource: None,
        id: &moment.config.dialback.new_stream_id(),
    };
    let stanza = typing_stanza(addresses, state);
    let outcome = outward.send(moment, &pair_of(people), &stanza, None);
    if matches!(outcome, OutwardOutcome::NoRoom | OutwardOutcome::Malformed) {
        let metrics = &moment.context.metrics;
        metrics.sip_untranslated(Direction::Outbound, "Typing");
    }
}
