//! Sessions of messages with one server of dialect `Lync`: what is said in which, and what both sides ask of them. What
//! follows from what is known to [`crate::sip::session`].
//!
//! A text goes in the session of its two people, for which there is an INVITE where none stands; outside of one where
//! the other side takes none, or there is no room for more.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use xmpp_edge_crds::{edge_config::SipDialect, jid::BareJid, verdict::Direction};

use super::{
    incoming::{self, IncomingContent, IncomingInvite, IncomingMessage, Refused},
    link_settings::{LinkMoment, OwnRequest},
    typing::remember_until,
};
use crate::{
    sip::{
        address::sip_uri,
        code::{FinalCode, StatusCode},
        compose,
        connection::{ReceivedRequest, ReceivedResponse},
        dialog::Dialog,
        method::SipMethod,
        session::{
            EndedSession, Invitation, MAX_SESSIONS, NoSessionRoom, SessionNumber, Sessions,
            TypingForm, accepted, offer, read_activity,
        },
        share::SipShare,
        transaction::LinkConnection,
        turns::TwoPeople,
        wire::{HeaderName, NameAddr, SipResponse, SipWriter, WriteFault},
    },
    xml::Condition,
};

/// Who took no session is written to outside of one for so long.
const REFUSED_FOR: Duration = Duration::from_secs(3_600);

/// ACKs and BYEs that wait, at most: all sessions may end at once. Whoever misses one says so again, or finds no session.
const MOST_WRITTEN: usize = 2 * MAX_SESSIONS;
/// While so many wait, none are made for answers that nobody waits for.
const MANY_WRITTEN: usize = 64;

/// An INVITE that has no final answer.
#[derive(Debug)]
pub(super) struct PendingInvite {
    pub(super) invitation: Invitation,
    pub(super) connection: LinkConnection,
    ringing: Ringing,
}

/// How far an INVITE got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ringing {
    /// Nothing was answered: it may not be cancelled yet (RFC 3261 section 9.1).
    Unheard,
    Rings,
    Cancelled,
}

impl PendingInvite {
    pub(super) fn new(invitation: Invitation, connection: LinkConnection) -> Self {
        Self {
            invitation,
            connection,
            ringing: Ringing::Unheard,
        }
    }

    /// A provisional answer came.
    pub(super) fn rings(&mut self) {
        if self.ringing == Ringing::Unheard {
            self.ringing = Ringing::Rings;
        }
    }
}

/// A request that waits to be written, of which nobody waits for the answer.
#[derive(Debug)]
pub(super) struct WrittenRequest {
    pub(super) bytes: Vec<u8>,
    /// Where it belongs; none, or one that has ended: wherever requests go.
    pub(super) connection: Option<LinkConnection>,
}

/// All of one link.
#[derive(Debug)]
pub(super) struct LinkSessions {
    sessions: Sessions,
    dialect: SipDialect,
    /// Of ours, in all answers.
    tag: Box<str>,
    /// Users whose clients take no sessions, until then.
    without: HashMap<BareJid, Instant>,
    /// ACKs, BYEs and CANCELs that have to be written.
    written: Vec<WrittenRequest>,
    /// What the metrics have of it.
    counted: usize,
}

/// How something that R writes goes to U.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageWay {
    /// By itself (RFC 3428).
    Outside,
    Inside(SessionNumber, TypingForm),
    /// Once there is a session.
    Invite,
    /// Typing before the first text: an INVITE would open a window for it.
    Nowhere,
}

/// What follows from the answer to an INVITE of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InviteOutcome {
    /// There is this session: the message goes in it or, where it ends before that, by itself.
    Inside(SessionNumber, TypingForm),
    /// There is none: the message goes by itself.
    Outside,
    /// It is the answer to the message.
    Refused,
}

/// What is asked in a session.
#[derive(Debug)]
pub(super) enum SessionRequest {
    Message(IncomingMessage),
    Answered(Refused),
}

impl LinkSessions {
    /// `tag` is ours, in all answers.
    pub(super) fn new(dialect: SipDialect, tag: &str) -> Self {
        Self {
            sessions: Sessions::default(),
            dialect,
            tag: tag.into(),
            without: HashMap::new(),
            written: Vec::new(),
            counted: 0,
        }
    }

    /// How R's text or, where it is none, R's typing goes to U.
    pub(super) fn way(
        &self,
        moment: &LinkMoment<'_>,
        people: &TwoPeople,
        is_text: bool,
    ) -> MessageWay {
        if self.dialect == SipDialect::Simple {
            return MessageWay::Outside;
        }
        if let Some((number, typing)) = self.sessions.of_people(people) {
            return MessageWay::Inside(number, typing);
        }
        let takes_none = self.without.get(&people.to);
        if takes_none.is_some_and(|until| moment.now < *until) {
            return MessageWay::Outside;
        }
        let has_room = self.sessions.has_room(&share(moment, people));
        match (is_text, has_room) {
            (false, _) => MessageWay::Nowhere,
            (true, true) => MessageWay::Invite,
            (true, false) => MessageWay::Outside,
        }
    }

    /// An INVITE from R to U, by their URIs.
    ///
    /// # Errors
    /// [`WriteFault`].
    pub(super) fn invite(
        moment: &LinkMoment<'_>,
        from: &str,
        to: &str,
    ) -> Result<(OwnRequest, Invitation), WriteFault> {
        let mut invitation = None;
        let conversation = moment.config.dialback.new_stream_id();
        let request = moment.request(SipMethod::Invite, from, to, |start| {
            invitation = Some(Invitation::new(&start));
            let settings = moment.settings;
            let host = settings.sip.edge_name.as_str();
            Invitation::write(&start, host, &settings.contact, &conversation)
        })?;
        // The closure above ran: it made the request.
        let invitation = invitation.ok_or(WriteFault::Method)?;
        Ok((request, invitation))
    }

    /// Begins a request of ours in a session; `write` makes its bytes. `None`: the session has ended.
    pub(super) fn request(
        &mut self,
        moment: &LinkMoment<'_>,
        number: SessionNumber,
        method: SipMethod,
        write: impl FnOnce(SipWriter) -> Result<Vec<u8>, WriteFault>,
    ) -> Option<Result<OwnRequest, WriteFault>> {
        let branch = compose::branch(&moment.config.dialback.new_stream_id());
        let by = moment.sent_by(&branch);
        let begun = self.sessions.begin(number, method, by, moment.now)?;
        let bytes = begun.and_then(write);
        Some(bytes.map(|bytes| OwnRequest {
            branch: branch.into(),
            bytes,
            call: None,
        }))
    }

    /// A final answer to an INVITE of ours came.
    pub(super) fn invitation_answered(
        &mut self,
        moment: &LinkMoment<'_>,
        people: &TwoPeople,
        invite: &PendingInvite,
        received: &ReceivedResponse,
    ) -> InviteOutcome {
        let response = &received.response;
        if !response.code.is_success() {
            self.acknowledge_refusal(moment, invite, response);
            if !matches!(response.code.get(), 405 | 488) {
                return InviteOutcome::Refused;
            }
            self.takes_none(moment, people);
            return InviteOutcome::Outside;
        }
        let Ok((dialog, typing)) = accepted(received) else {
            // Where its ACK would go nobody knows.
            return InviteOutcome::Outside;
        };
        self.acknowledge(moment, &dialog, response.cseq);
        let Some(typing) = typing else {
            self.takes_none(moment, people);
            self.say_ended(moment, EndedSession::of(dialog));
            return InviteOutcome::Outside;
        };
        let share = share(moment, people);
        match self
            .sessions
            .begun(share, people.clone(), dialog, typing, moment.now)
        {
            Ok(number) => InviteOutcome::Inside(number, typing),
            Err((_, ended)) => {
                self.say_ended(moment, ended);
                InviteOutcome::Outside
            }
        }
    }

    /// Nobody waits for the answer any more: the other side is told once that may be.
    pub(super) fn cancel(&mut self, moment: &LinkMoment<'_>, invite: &mut PendingInvite) {
        if invite.ringing == Ringing::Rings {
            invite.ringing = Ringing::Cancelled;
            let cancel = invite.invitation.cancel(moment.settings.sent_by());
            self.write_on(Some(invite.connection), cancel);
        }
    }

    /// A final answer to an INVITE that nobody waits for came.
    pub(super) fn abandoned_answered(
        &mut self,
        moment: &LinkMoment<'_>,
        invite: &PendingInvite,
        response: &SipResponse,
    ) {
        if response.code.is_success() {
            // It was accepted before the CANCEL came there.
            self.stray(moment, response);
        } else {
            self.acknowledge_refusal(moment, invite, response);
        }
    }

    fn acknowledge_refusal(
        &mut self,
        moment: &LinkMoment<'_>,
        invite: &PendingInvite,
        response: &SipResponse,
    ) {
        let sent_by = moment.settings.sent_by();
        let ack = invite.invitation.acknowledge_refusal(response, sent_by);
        self.write_on(Some(invite.connection), ack);
    }

    /// An answer of nothing that is in work came. A 2xx to an INVITE of ours is acknowledged all the same: where it is
    /// that of a session once more (RFC 3261 section 13.2.2.4), and else the session, which nobody waits for, is ended.
    pub(super) fn stray(&mut self, moment: &LinkMoment<'_>, response: &SipResponse) {
        let is_accepted = response.method == SipMethod::Invite && response.code.is_success();
        let is_busy = self.written.len() >= MANY_WRITTEN;
        if self.dialect == SipDialect::Simple || !is_accepted || is_busy {
            return;
        }
        let branch = compose::branch(&moment.config.dialback.new_stream_id());
        let by = moment.sent_by(&branch);
        if let Some(ack) = self.sessions.acknowledge_again(response, by) {
            return self.write(ack);
        }
        let from = response.headers.first(HeaderName::From).unwrap_or_default();
        let is_own = NameAddr::read(from).is_ok_and(|from| {
            let tag = from.tag();
            tag.is_some_and(|tag| moment.config.dialback.is_own_stream_id(tag))
        });
        if let (true, Ok(dialog)) = (is_own, Dialog::of_response(response)) {
            self.acknowledge(moment, &dialog, response.cseq);
            self.say_ended(moment, EndedSession::of(dialog));
        }
    }

    /// How something of ours in a session was answered; `false`: the session is dead (RFC 3261 section 12.2.1.2; so clients
    /// mean 480 to what is no text, too).
    pub(super) fn inside_answered(
        &mut self,
        number: SessionNumber,
        code: StatusCode,
        is_text: bool,
    ) -> bool {
        let is_dead = matches!(code.get(), 408 | 481) || !is_text && code.get() == 480;
        if is_dead {
            // Who says so knows.
            let _ = self.sessions.end(number);
        }
        !is_dead
    }

    /// Nothing was answered in time: as 408.
    pub(super) fn inside_unanswered(&mut self, moment: &LinkMoment<'_>, number: SessionNumber) {
        if let Some(ended) = self.sessions.end(number) {
            self.say_ended(moment, ended);
        }
    }

    /// U invites R: what is answered.
    pub(super) fn invited(
        &mut self,
        moment: &LinkMoment<'_>,
        received: &ReceivedRequest,
        invite: IncomingInvite,
    ) -> Refused {
        let request = &received.request;
        if self.sessions.has_call(request) {
            return Refused::code(482);
        }
        let people = invite.people.reversed();
        let (description, typing) = match answer(moment, received, &people.from) {
            Ok(answer) => answer,
            Err(refused) => return refused,
        };
        let dialog = match Dialog::of_request(request, &self.tag, 0) {
            Ok(dialog) => dialog,
            Err(fault) => return Refused::code(fault.code()),
        };
        let share = share(moment, &people);
        let taken = self
            .sessions
            .accepted(share, people, dialog, typing, moment.now);
        match taken {
            Ok(_) => Refused::accepted(moment, request, description),
            Err(NoSessionRoom::Bytes) => Refused::code(413),
            Err(NoSessionRoom::Count) => {
                Refused::of(FinalCode::of_condition(Some(Condition::ResourceConstraint)))
            }
        }
    }

    /// A request in a session.
    ///
    /// # Errors
    /// What is answered where there is no such session, or it cannot be taken.
    pub(super) fn take(
        &mut self,
        moment: &LinkMoment<'_>,
        received: &ReceivedRequest,
    ) -> Result<SessionRequest, Refused> {
        let request = &received.request;
        let taken = self.sessions.take(request, moment.now);
        let (number, people) = taken.map_err(|fault| Refused::code(fault.code()))?;
        let said = match request.method {
            SipMethod::Bye => {
                let _ = self.sessions.end(number);
                return Ok(SessionRequest::Answered(Refused::plain(StatusCode::OK)));
            }
            SipMethod::Invite => {
                let (description, typing) = answer(moment, received, &people.from)?;
                self.sessions.accepted_again(number, typing, moment.now);
                let accepted = Refused::accepted(moment, request, description);
                return Ok(SessionRequest::Answered(accepted));
            }
            SipMethod::Info => {
                let content_type = request.headers.first(HeaderName::ContentType);
                match read_activity(content_type, &received.body) {
                    Some(typing) => IncomingContent::Typing(typing),
                    None => {
                        let metrics = &moment.context.metrics;
                        metrics.sip_untranslated(Direction::Outbound, "Info");
                        return Ok(SessionRequest::Answered(Refused::plain(StatusCode::OK)));
                    }
                }
            }
            _ => incoming::content(moment, received, &people.to, &people.from)?,
        };
        Ok(SessionRequest::Message(IncomingMessage {
            people: people.reversed(),
            resource: None,
            said,
        }))
    }

    /// An ACK came.
    pub(super) fn acknowledged(&mut self, received: &ReceivedRequest) {
        self.sessions.acknowledged(&received.request);
    }

    /// What is answered to a CANCEL: whatever it would cancel has its final code (RFC 3261 section 9.2).
    pub(super) fn cancelled(&self, received: &ReceivedRequest) -> Refused {
        if self.sessions.is_cancelled_late(&received.request) {
            Refused::plain(StatusCode::OK)
        } else {
            Refused::code(481)
        }
    }

    /// Sessions that time ends are ended.
    pub(super) fn on_time(&mut self, moment: &LinkMoment<'_>) {
        for ended in self.sessions.end_due(moment.now) {
            self.say_ended(moment, ended);
        }
    }

    /// When [`Self::on_time`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.sessions.next_deadline()
    }

    /// Policy changed: who may not write to each other any more does not.
    pub(super) fn follow_policy(&mut self, moment: &LinkMoment<'_>) {
        let may_not = |people: &TwoPeople| !moment.allows(&people.to, people.from.domain());
        for ended in self.sessions.end_where(may_not) {
            self.say_ended(moment, ended);
        }
    }

    /// The link ends, and all sessions with it.
    pub(super) fn end(&mut self, moment: &LinkMoment<'_>) {
        for ended in self.sessions.end_where(|_| true) {
            self.say_ended(moment, ended);
        }
    }

    /// ACKs, BYEs and CANCELs, to be written before anything else.
    pub(super) fn take_written(&mut self) -> Vec<WrittenRequest> {
        std::mem::take(&mut self.written)
    }

    /// How many there are, to the metrics and in answer.
    pub(super) fn report(&mut self, moment: &LinkMoment<'_>) -> usize {
        let now = self.sessions.len();
        if now != self.counted {
            let metrics = &moment.context.metrics;
            metrics.sip_sessions(self.counted, now);
            self.counted = now;
        }
        now
    }

    /// What cannot be written, for its line is too long, is nobody's.
    fn write(&mut self, written: Result<Vec<u8>, WriteFault>) {
        self.write_on(None, written);
    }

    /// As [`Self::write`], on this connection.
    fn write_on(
        &mut self,
        connection: Option<LinkConnection>,
        written: Result<Vec<u8>, WriteFault>,
    ) {
        if self.written.len() < MOST_WRITTEN {
            let written = written.ok();
            self.written
                .extend(written.map(|bytes| WrittenRequest { bytes, connection }));
        }
    }

    fn takes_none(&mut self, moment: &LinkMoment<'_>, people: &TwoPeople) {
        let until = moment.now + REFUSED_FOR;
        remember_until(&mut self.without, people.to.clone(), until, moment.now);
    }

    fn acknowledge(&mut self, moment: &LinkMoment<'_>, dialog: &Dialog, cseq: u32) {
        let branch = compose::branch(&moment.config.dialback.new_stream_id());
        let ack = dialog.acknowledge(cseq, moment.sent_by(&branch));
        self.write(ack);
    }

    /// What its answer is nobody waits for: the session is gone whatever it says.
    fn say_ended(&mut self, moment: &LinkMoment<'_>, ended: EndedSession) {
        let branch = compose::branch(&moment.config.dialback.new_stream_id());
        let bye = ended.bye(moment.sent_by(&branch));
        self.write(bye);
    }
}

/// `people`: R and U.
fn share(moment: &LinkMoment<'_>, people: &TwoPeople) -> SipShare {
    SipShare::of(moment.partner(people.from.domain()))
}

/// What R's side says of its media to U's INVITE, and how U hears of typing.
fn answer(
    moment: &LinkMoment<'_>,
    received: &ReceivedRequest,
    user: &BareJid,
) -> Result<(String, TypingForm), Refused> {
    let host = moment.settings.sip.edge_name.as_str();
    let uri = sip_uri(user).map_err(|_| Refused::code(404))?;
    match incoming::offered(received)? {
        // Who offers nothing gets an offer (RFC 3261 section 13.2.1).
        None => Ok((offer(host), TypingForm::Activity)),
        Some(offered) => {
            let answer = offered.answer(host, &uri).zip(offered.messages());
            answer.ok_or_else(|| Refused::code(488))
        }
    }
}
