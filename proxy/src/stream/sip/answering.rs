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
use xmpp_edge_crds::{jid::BareJid, verdict::Direction};

use super::{
    incoming::{Incoming, IncomingContent, IncomingMessage, Refused},
    link_settings::LinkMoment,
    outward::{Outward, OutwardOutcome},
    typing::WritingUsers,
};
use crate::{
    negotiation::Pair,
    routing::acknowledgement::{AckTracker, MovedPairs},
    routing::wake::Wake,
    sip::{
        body::Typing,
        code::{FinalCode, StatusCode},
        connection::ReceivedRequest,
        message::{ChatState, StanzaAddresses, text_stanza, typing_stanza},
        method::SipMethod,
        transaction::{Arrival, AskedRequest, LinkConnection, ServerTransactions},
        turns::TwoPeople,
        wire::{HeaderName, SipHeaders, SipWriter, WriteFault, quoted},
    },
    xml::{self, Condition, Element},
};

/// Requests of one server in work: it is not read beyond these.
const IN_WORK: usize = 1_000;
/// An error that follows so soon after its stanza was settled is the answer.
const ERROR_FOLLOWS: Duration = Duration::from_millis(300);
/// Requests whose stanzas were settled, taken at once.
const MOVED: usize = 256;
/// Characters of a partner's words that stand in a Warning.
const QUOTED: usize = 200;

/// All that one SIP server asks.
#[derive(Debug)]
pub(super) struct Answering {
    transactions: ServerTransactions,
    moved: Arc<MovedPairs>,
    open: HashMap<u32, OpenMessage>,
    /// By the id of its stanza: the error to it has the same.
    by_id: HashMap<Box<str>, u32>,
    /// Settled, and when they are answered.
    settled: BTreeSet<(Instant, u32)>,
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

/// A message that has no final code yet.
#[derive(Debug)]
struct OpenMessage {
    transaction: u64,
    tracker: Arc<AckTracker>,
    id: Box<str>,
    people: TwoPeople,
}

/// An error that came from outside, or of the edge's own, for a stanza from inside.
#[derive(Debug)]
pub(super) struct InsideError {
    people: TwoPeople,
    id: String,
    condition: Option<Condition>,
    text: String,
}

impl InsideError {
    /// `None` for what answers nothing: it has no id, or no address.
    pub(super) fn of(stanza: &Element) -> Option<Self> {
        let error = stanza.child(xml::ns::SERVER, "error");
        let mut said = error.into_iter().flat_map(Element::children);
        let condition = said.find_map(|child| {
            let is_condition = child.namespace == xml::ns::STANZA_ERRORS;
            is_condition
                .then(|| Condition::of_name(&child.name))
                .flatten()
        });
        let text = error.and_then(|error| error.child(xml::ns::STANZA_ERRORS, "text"));
        let address = |name| BareJid::of_full(stanza.attribute(name)?).ok();
        Some(Self {
            // It goes back: its sender is whom the message went to.
            people: TwoPeople {
                from: address("to")?,
                to: address("from")?,
            },
            id: stanza.attribute("id")?.to_owned(),
            condition,
            text: text.map(Element::text).unwrap_or_default(),
        })
    }
}

impl Answering {
    /// `wake` is told when a stanza was settled.
    pub(super) fn new(wake: &Arc<Wake>, tag: &str) -> Self {
        Self {
            transactions: ServerTransactions::new(IN_WORK),
            moved: Arc::new(MovedPairs::new(Arc::clone(wake))),
            open: HashMap::new(),
            by_id: HashMap::new(),
            settled: BTreeSet::new(),
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
    ) {
        let request = &received.request;
        let refused = match Incoming::of(moment, received) {
            Ok(Incoming::Unanswered) => return,
            Ok(Incoming::Alive) => Refused::plain(StatusCode::OK),
            Ok(Incoming::Message(message)) => {
                return self.message(moment, received, connection, outward, message);
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

    fn message(
        &mut self,
        moment: &LinkMoment<'_>,
        received: &ReceivedRequest,
        connection: LinkConnection,
        outward: &mut Outward,
        message: IncomingMessage,
    ) {
        let request = &received.request;
        let transaction = match self.transactions.arrive(request, connection, moment.now) {
            Arrival::New(number) => Ok(number),
            Arrival::Again => return,
            Arrival::Merged => Err(Refused::code(482)),
            Arrival::Full => {
                let full = FinalCode::of_condition(Some(Condition::ResourceConstraint));
                Err(Refused::of(full))
            }
        };
        let transaction = match transaction {
            Ok(number) => number,
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
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let tracker = Arc::new(AckTracker::of_pair(Arc::clone(&self.moved), number));
        let pair = pair_of(&people);
        let open = OpenMessage {
            transaction,
            tracker: Arc::clone(&tracker),
            id: id.into(),
            people,
        };
        self.by_id.insert(open.id.clone(), number);
        self.open.insert(number, open);
        let refused = match outward.send(moment, &pair, stanza, Some(&tracker)) {
            OutwardOutcome::Taken => return,
            OutwardOutcome::NoRoom => {
                Refused::of(FinalCode::of_condition(Some(Condition::ResourceConstraint)))
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

    /// An error came: it is the answer to its message, where that waits for one.
    pub(super) fn error_came(&mut self, moment: &LinkMoment<'_>, error: &InsideError) {
        let number = self.by_id.get(error.id.as_str()).copied();
        let open = number.and_then(|number| Some((number, self.open.get(&number)?)));
        let Some((number, _)) = open.filter(|(_, open)| open.people == error.people) else {
            return moment.context.metrics.sip_late_error();
        };
        let mut refused = Refused::of(FinalCode::of_condition(error.condition));
        if !error.text.is_empty() {
            let text: String = error.text.chars().take(QUOTED).collect();
            let name = &moment.settings.sip.edge_name;
            let warning = format!("399 {name} {}", quoted(&text));
            refused.fields.push((HeaderName::Warning, warning));
        }
        self.close(moment, number, &refused);
    }

    /// What time and settled stanzas bring.
    pub(super) fn on_time(&mut self, moment: &LinkMoment<'_>, outward: &mut Outward) {
        for number in self.moved.take(MOVED) {
            let Some(open) = self.open.get(&number) else {
                continue;
            };
            if open.tracker.take_settled() > 0 {
                self.settled.insert((moment.now + ERROR_FOLLOWS, number));
            }
        }
        while let Some(&(at, number)) = self.settled.first() {
            if at > moment.now {
                break;
            }
            self.settled.pop_first();
            self.close(moment, number, &Refused::plain(StatusCode::OK));
        }
        for asked in self.transactions.due(moment.now) {
            let trying = Refused::plain(StatusCode::TRYING);
            self.write_to(&asked, &trying);
        }
        for people in self.writing.expired(moment.now) {
            tell_state(moment, outward, &people, ChatState::NotComposing);
        }
    }

    /// When [`Self::on_time`] has something to do.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let settled = self.settled.first().map(|(at, _)| *at);
        let writing = (!self.writing.is_empty()).then(|| now + Duration::from_secs(1));
        let moved = (!self.moved.is_empty()).then_some(now);
        let due = self.transactions.next_deadline();
        [settled, writing, moved, due].into_iter().flatten().min()
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
        metrics.sip_request(Direction::Outbound, asked.method.as_str(), Some(code));
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
    Ok(writer.finish())
}

fn pair_of(people: &TwoPeople) -> Pair {
    Pair {
        from: people.from.domain().clone(),
        to: people.to.domain().clone(),
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
    if outcome != OutwardOutcome::Taken {
        let metrics = &moment.context.metrics;
        metrics.sip_untranslated(Direction::Outbound, "Typing");
    }
}
