//! All sessions with one server, whoever began them: whose each is, and when it ends.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use thiserror::Error;

use super::description::TypingForm;
use crate::sip::{
    compose::SentBy,
    dialog::{Dialog, DialogFault},
    due::move_due,
    method::SipMethod,
    share::{SharedRoom, SipShare},
    turns::TwoPeople,
    wire::{SipRequest, SipResponse, SipWriter, WriteFault},
};

/// Most sessions with one server.
pub const MAX_SESSIONS: usize = 5_000;
/// Most bytes that a session keeps of what its server said.
const MAX_DIALOG_BYTES: usize = 4 * 1024;
/// A session in which nothing was said for so long ends.
const IDLE: Duration = Duration::from_secs(600);
/// Who was accepted has so long for the ACK: 64·T1 (RFC 3261 section 13.3.1.4).
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(32);

/// One session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionNumber(u64);

/// Nobody has room for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum NoSessionRoom {
    #[error("as many sessions as there may be")]
    Count,
    #[error("a session that takes more than {MAX_DIALOG_BYTES} bytes")]
    Bytes,
}

/// Sessions that stand. R is a user of a partner, U one of SIP.
#[derive(Debug)]
pub struct Sessions {
    open: HashMap<SessionNumber, OpenSession>,
    /// The newest of R and U: what R writes goes there.
    by_people: HashMap<TwoPeople, SessionNumber>,
    /// By Call-ID and the tag of the other side.
    by_call: HashMap<(Box<str>, Box<str>), SessionNumber>,
    room: SharedRoom,
    due: BTreeSet<(Instant, SessionNumber)>,
    next: u64,
}

#[derive(Debug)]
struct OpenSession {
    /// R and U.
    people: TwoPeople,
    dialog: Dialog,
    typing: TypingForm,
    share: SipShare,
    acknowledgement: Acknowledgement,
    used: Instant,
}

/// Of a 2xx of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Acknowledgement {
    Awaited { until: Instant },
    Done,
}

/// What is left of a session: it has to be said that it ended.
#[derive(Debug)]
pub struct EndedSession(Box<Dialog>);

impl EndedSession {
    /// Of a dialog that is none of those that stand.
    #[must_use]
    pub fn of(dialog: Dialog) -> Self {
        Self(Box::new(dialog))
    }

    /// The BYE.
    ///
    /// # Errors
    /// [`WriteFault`].
    pub fn bye(mut self, by: SentBy<'_>) -> Result<Vec<u8>, WriteFault> {
        Ok(self.0.begin(SipMethod::Bye, by)?.finish())
    }
}

impl OpenSession {
    fn due(&self) -> Instant {
        let idle = self.used + IDLE;
        match self.acknowledgement {
            Acknowledgement::Awaited { until } => idle.min(until),
            Acknowledgement::Done => idle,
        }
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            open: HashMap::new(),
            by_people: HashMap::new(),
            by_call: HashMap::new(),
            room: SharedRoom::new(MAX_SESSIONS),
            due: BTreeSet::new(),
            next: 0,
        }
    }
}

impl Sessions {
    /// Whether there may be one more.
    #[must_use]
    pub fn has_room(&self, share: &SipShare) -> bool {
        self.room.has_room(share)
    }

    /// A session of R and U that we began: it is acknowledged.
    ///
    /// # Errors
    /// [`NoSessionRoom`], with what has to be ended.
    pub fn begun(
        &mut self,
        share: SipShare,
        people: TwoPeople,
        dialog: Dialog,
        typing: TypingForm,
        now: Instant,
    ) -> Result<SessionNumber, (NoSessionRoom, EndedSession)> {
        let session = OpenSession {
            people,
            dialog,
            typing,
            share,
            acknowledgement: Acknowledgement::Done,
            used: now,
        };
        self.insert(session)
    }

    /// A session of R and U that U began, and that is accepted: its ACK has to come.
    ///
    /// # Errors
    /// [`NoSessionRoom`]: it is not accepted.
    pub fn accepted(
        &mut self,
        share: SipShare,
        people: TwoPeople,
        dialog: Dialog,
        typing: TypingForm,
        now: Instant,
    ) -> Result<SessionNumber, NoSessionRoom> {
        let session = OpenSession {
            people,
            dialog,
            typing,
            share,
            acknowledgement: Acknowledgement::Awaited {
                until: now + ACKNOWLEDGED_WITHIN,
            },
            used: now,
        };
        self.insert(session).map_err(|(fault, _)| fault)
    }

    fn insert(
        &mut self,
        session: OpenSession,
    ) -> Result<SessionNumber, (NoSessionRoom, EndedSession)> {
        if !self.has_room(&session.share) {
            return Err((NoSessionRoom::Count, EndedSession::of(session.dialog)));
        }
        if session.dialog.bytes() > MAX_DIALOG_BYTES {
            return Err((NoSessionRoom::Bytes, EndedSession::of(session.dialog)));
        }
        let number = SessionNumber(self.next);
        self.next += 1;
        self.room.take(&session.share);
        self.by_people.insert(session.people.clone(), number);
        self.by_call.insert(session.dialog.remote_key(), number);
        self.due.insert((session.due(), number));
        self.open.insert(number, session);
        Ok(number)
    }

    /// The session that what R writes to U goes in, and how it hears of typing.
    #[must_use]
    pub fn of_people(&self, people: &TwoPeople) -> Option<(SessionNumber, TypingForm)> {
        let number = *self.by_people.get(people)?;
        Some((number, self.open.get(&number)?.typing))
    }

    /// Whether an INVITE came before, perhaps on another way (RFC 3261 section 8.2.2.2).
    #[must_use]
    pub fn has_call(&self, request: &SipRequest) -> bool {
        self.number_of(request).is_some()
    }

    /// A request in one of them: whose it is, R and U.
    ///
    /// # Errors
    /// [`DialogFault`]; [`DialogFault::Other`] where there is no such session.
    pub fn take(
        &mut self,
        request: &SipRequest,
        now: Instant,
    ) -> Result<(SessionNumber, TwoPeople), DialogFault> {
        let number = self.number_of(request).ok_or(DialogFault::Other)?;
        let session = self.open.get_mut(&number).ok_or(DialogFault::Other)?;
        let within = |bytes| bytes <= MAX_DIALOG_BYTES;
        session.dialog.take(request, within)?;
        let people = session.people.clone();
        self.used(number, now);
        Ok((number, people))
    }

    /// An ACK came: of a session that is accepted, or of nothing.
    pub fn acknowledged(&mut self, request: &SipRequest) {
        let Some(number) = self.number_of(request) else {
            return;
        };
        if self
            .open
            .get(&number)
            .is_some_and(|session| session.dialog.has(request))
        {
            self.change(number, |session| {
                session.acknowledgement = Acknowledgement::Done
            });
        }
    }

    /// The session was accepted anew (a second INVITE in it): its ACK has to come.
    pub fn accepted_again(&mut self, number: SessionNumber, typing: TypingForm, now: Instant) {
        self.change(number, |session| {
            session.typing = typing;
            session.acknowledgement = Acknowledgement::Awaited {
                until: now + ACKNOWLEDGED_WITHIN,
            };
        });
    }

    /// Whether a CANCEL is of an INVITE that was accepted and has no ACK yet: it cancels nothing, and is of something
    /// (RFC 3261 section 9.2).
    #[must_use]
    pub fn is_cancelled_late(&self, request: &SipRequest) -> bool {
        let session = self
            .number_of(request)
            .and_then(|number| self.open.get(&number));
        session.is_some_and(|it| it.acknowledgement != Acknowledgement::Done)
    }

    /// The ACK of a 2xx that came once more; `None`: of no session that stands.
    pub fn acknowledge_again(
        &self,
        response: &SipResponse,
        by: SentBy<'_>,
    ) -> Option<Result<Vec<u8>, WriteFault>> {
        let tag = response.to.tag()?;
        let key = (response.call_id.as_str().into(), tag.into());
        let session = self.open.get(self.by_call.get(&key)?)?;
        let is_its = session.dialog.answers(response);
        is_its.then(|| session.dialog.acknowledge(response.cseq, by))
    }

    /// Begins the next request of ours in it; `None`: it has ended.
    pub fn begin(
        &mut self,
        number: SessionNumber,
        method: SipMethod,
        by: SentBy<'_>,
        now: Instant,
    ) -> Option<Result<SipWriter, WriteFault>> {
        self.used(number, now);
        Some(self.open.get_mut(&number)?.dialog.begin(method, by))
    }

    /// It stands no more; `None` where it had ended before.
    pub fn end(&mut self, number: SessionNumber) -> Option<EndedSession> {
        let session = self.open.remove(&number)?;
        self.due.remove(&(session.due(), number));
        self.by_call.remove(&session.dialog.remote_key());
        if self.by_people.get(&session.people) == Some(&number) {
            self.by_people.remove(&session.people);
        }
        self.room.give_back(&session.share);
        Some(EndedSession::of(session.dialog))
    }

    /// Those that time ends: idle, or without an ACK.
    pub fn end_due(&mut self, now: Instant) -> Vec<EndedSession> {
        let mut ended = Vec::new();
        while let Some(&(at, number)) = self.due.first() {
            if at > now {
                break;
            }
            ended.extend(self.end(number));
        }
        ended
    }

    /// Those of R and U of whom `is_over` says so.
    pub fn end_where(&mut self, mut is_over: impl FnMut(&TwoPeople) -> bool) -> Vec<EndedSession> {
        let over = self
            .open
            .iter()
            .filter(|(_, session)| is_over(&session.people));
        let over: Vec<SessionNumber> = over.map(|(number, _)| *number).collect();
        over.into_iter()
            .filter_map(|number| self.end(number))
            .collect()
    }

    /// When [`Self::end_due`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    fn number_of(&self, request: &SipRequest) -> Option<SessionNumber> {
        let tag = request.from.tag()?;
        let key = (request.call_id.as_str().into(), tag.into());
        self.by_call.get(&key).copied()
    }

    fn used(&mut self, number: SessionNumber, now: Instant) {
        self.change(number, |session| session.used = now);
    }

    fn change(&mut self, number: SessionNumber, change: impl FnOnce(&mut OpenSession)) {
        if let Some(session) = self.open.get_mut(&number) {
            let before = session.due();
            change(session);
            move_due(&mut self.due, number, Some(before), Some(session.due()));
        }
    }
}
