//! What a message of a partner's becomes in SIP, and what was already told of its sender.

use std::time::Instant;

use xmpp_edge_crds::{
    jid::{BareJid, JidParts},
    verdict::Direction,
};

use super::{
    link_settings::{LinkMoment, OwnRequest},
    linked_stanza::StanzaReader,
    sessions::{LinkSessions, MessageWay},
    typing::ToldTyping,
};
use crate::{
    routing::failure::{Failure, FailureKind},
    sip::{
        address::sip_uri,
        body::Typing,
        code::StatusCode,
        compose,
        dialog::CallKey,
        message::{ChatState, OutgoingMessage, PageMessage, Receipt},
        method::SipMethod,
        session::{ACTIVITY_TYPE, Invitation, SessionNumber, TypingForm, write_activity},
        turns::TwoPeople,
        wire::WriteFault,
    },
    xml::{Condition, Element, ErrorType},
};

/// Makes requests of stanzas.
#[derive(Debug)]
pub(super) struct MessageTranslator {
    reader: StanzaReader,
    typing: ToldTyping,
}

#[derive(Debug)]
pub(super) enum AskedAbout {
    /// A text; who wants to be told that it arrived.
    Text(Option<ReceiptWanted>),
    Typing,
}

#[derive(Debug)]
pub(super) struct ReceiptWanted {
    pub(super) resource: Option<String>,
    pub(super) id: String,
}

impl Default for MessageTranslator {
    fn default() -> Self {
        Self {
            reader: StanzaReader::new(u32::MAX as usize),
            typing: ToldTyping::default(),
        }
    }
}

impl MessageTranslator {
    /// How a user of SIP answered that somebody is writing.
    pub(super) fn typing_answered(&mut self, to: &BareJid, code: StatusCode, now: Instant) {
        self.typing.answered(to, code, now);
    }

    /// The request that a stanza becomes; none: it means nothing there, and is settled. `only`: the way that it has to
    /// go, whatever stands. `before`: what it was known by when it went by itself before.
    pub(super) fn request_of(
        &mut self,
        moment: &LinkMoment<'_>,
        sessions: &mut LinkSessions,
        people: &TwoPeople,
        stanza: &[u8],
        only: Option<MessageWay>,
        before: Option<&CallKey>,
    ) -> Result<Option<TranslatedRequest>, Failure> {
        let Some(element) = self.reader.element(stanza) else {
            debug_assert!(false, "a queued stanza is one stanza");
            return Ok(None);
        };
        let untranslated = |kind| {
            let metrics = &moment.context.metrics;
            metrics.sip_untranslated(Direction::Inbound, kind);
        };
        let language = self.reader.language();
        let said = OutgoingMessage::of_stanza(&element, language.as_deref());
        let is_text = matches!(said, OutgoingMessage::Page(_));
        let way = only.unwrap_or_else(|| sessions.way(moment, people, is_text));
        let (content, about) = match said {
            OutgoingMessage::Page(page) => {
                let receipt = receipt_wanted(&page, &element);
                (OutgoingContent::Text(page), AskedAbout::Text(receipt))
            }
            OutgoingMessage::Typing(state) => {
                let is_told = moment.settings.sip.typing && way != MessageWay::Nowhere;
                if !is_told || !self.typing.tells(people, state, moment.now) {
                    untranslated("Typing");
                    return Ok(None);
                }
                (OutgoingContent::State(state), AskedAbout::Typing)
            }
            OutgoingMessage::Untranslated(kind) => {
                untranslated(kind.label());
                return Ok(None);
            }
            OutgoingMessage::Error => return Ok(None),
        };
        if let OutgoingContent::Text(page) = &content {
            self.typing.texted(people);
            let most = moment.settings.sip.max_message_bytes;
            if page.text.len() > most as usize {
                return Err(Failure::new(
                    FailureKind::TooLarge,
                    format!(
                        "{} takes messages of {most} bytes at most",
                        people.to.domain()
                    ),
                ));
            }
        }
        let way = OutgoingWay { way, before };
        match content.write(moment, sessions, people, way, about)? {
            Ok(translated) => Ok(Some(translated)),
            // An address of some thousand bytes, each escaped, is longer than a line may be.
            Err(fault) => Err(Failure::new(FailureKind::TooLarge, fault.to_string())),
        }
    }
}

/// A request, and what has to be known when it is answered.
pub(super) struct TranslatedRequest {
    pub(super) request: OwnRequest,
    pub(super) method: SipMethod,
    pub(super) about: AskedAbout,
    pub(super) inside: Option<SessionNumber>,
    /// Of an INVITE: what was to be said goes once there is a session.
    pub(super) invitation: Option<Invitation>,
}

#[derive(Clone, Copy)]
struct OutgoingWay<'a> {
    way: MessageWay,
    /// What it was known by when it went by itself before.
    before: Option<&'a CallKey>,
}

enum OutgoingContent {
    Text(PageMessage),
    State(ChatState),
}

impl OutgoingContent {
    /// # Errors
    /// [`Failure`]: one of them has no address in SIP. Within: it cannot be written.
    fn write(
        &self,
        moment: &LinkMoment<'_>,
        sessions: &mut LinkSessions,
        people: &TwoPeople,
        OutgoingWay { way, before }: OutgoingWay<'_>,
        about: AskedAbout,
    ) -> Result<Result<TranslatedRequest, WriteFault>, Failure> {
        let from = sip_uri(&people.from).map_err(|_| malformed_address())?;
        let to = sip_uri(&people.to).map_err(|_| nobody())?;
        if way == MessageWay::Invite {
            let invited = LinkSessions::invite(moment, &from, &to);
            return Ok(invited.map(|(request, invitation)| TranslatedRequest {
                request,
                method: SipMethod::Invite,
                about,
                inside: None,
                invitation: Some(invitation),
            }));
        }
        let (mut method, mut inside) = (SipMethod::Message, None);
        let mut request = None;
        if let MessageWay::Inside(number, form) = way {
            if matches!(self, Self::State(_)) && form == TypingForm::Activity {
                method = SipMethod::Info;
            }
            inside = Some(number);
            request = sessions.request(moment, number, method, |writer| match self {
                Self::Text(page) => compose::with_text(writer, page),
                Self::State(state) if method == SipMethod::Info => {
                    let document = write_activity(typing_of(*state));
                    writer.finish_with(ACTIVITY_TYPE, document.as_bytes())
                }
                Self::State(state) => compose::with_typing(writer, typing_of(*state)),
            });
        }
        let request = request.unwrap_or_else(|| {
            (method, inside) = (SipMethod::Message, None);
            let call = before.cloned().unwrap_or_else(|| moment.fresh_call());
            moment.request_of(call, method, (&from, &to), |start| match self {
                Self::Text(page) => start.text(page),
                Self::State(state) => start.typing(typing_of(*state)),
            })
        });
        Ok(request.map(|request| TranslatedRequest {
            request,
            method,
            about,
            inside,
            invitation: None,
        }))
    }
}

fn typing_of(state: ChatState) -> Typing {
    match state {
        ChatState::Composing => Typing::started(),
        ChatState::NotComposing => Typing::Idle,
    }
}

fn receipt_wanted(page: &PageMessage, stanza: &Element) -> Option<ReceiptWanted> {
    if page.receipt == Receipt::NotAsked {
        return None;
    }
    let from = JidParts::split(stanza.attribute("from")?).ok()?;
    Some(ReceiptWanted {
        resource: from.resource.map(str::to_owned),
        id: stanza.attribute("id")?.to_owned(),
    })
}

fn answered_by_us(condition: Condition, error_type: ErrorType, text: &'static str) -> Failure {
    let kind = FailureKind::Answered {
        condition,
        error_type,
    };
    Failure::new(kind, text)
}

pub(super) fn malformed_address() -> Failure {
    let text = "an address that has no form in SIP";
    answered_by_us(Condition::JidMalformed, ErrorType::Modify, text)
}

/// As of a server that does not know its addressee.
fn nobody() -> Failure {
    answered_by_us(Condition::ServiceUnavailable, ErrorType::Cancel, "")
}
