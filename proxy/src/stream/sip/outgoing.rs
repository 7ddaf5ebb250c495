//! What a message of a partner's becomes in SIP, and what was already told of its sender.

use std::time::Instant;

use xmpp_edge_crds::{
    jid::{BareJid, JidParts},
    verdict::Direction,
};

use super::{
    link_settings::{LinkMoment, OwnRequest},
    linked_stanza::StanzaReader,
    typing::ToldTyping,
};
use crate::{
    routing::failure::{Failure, FailureKind},
    sip::{
        address::sip_uri,
        body::Typing,
        code::StatusCode,
        message::{ChatState, OutgoingMessage, PageMessage, Receipt},
        method::SipMethod,
        turns::TwoPeople,
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

    /// The request that a stanza becomes; none: it means nothing there, and is settled.
    pub(super) fn request_of(
        &mut self,
        moment: &LinkMoment<'_>,
        people: &TwoPeople,
        stanza: &[u8],
    ) -> Result<Option<(OwnRequest, AskedAbout)>, Failure> {
        let Some(element) = self.reader.element(stanza) else {
            debug_assert!(false, "a queued stanza is one stanza");
            return Ok(None);
        };
        let untranslated = |kind| {
            let metrics = &moment.context.metrics;
            metrics.sip_untranslated(Direction::Inbound, kind);
        };
        let language = self.reader.language();
        let (page, about) = match OutgoingMessage::of_stanza(&element, language.as_deref()) {
            OutgoingMessage::Page(page) => {
                let receipt = receipt_wanted(&page, &element);
                (OutgoingContent::Text(page), AskedAbout::Text(receipt))
            }
            OutgoingMessage::Typing(state) => {
                if !moment.settings.sip.typing || !self.typing.tells(people, state, moment.now) {
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
        let from = sip_uri(&people.from).map_err(|_| malformed_address())?;
        let to = sip_uri(&people.to).map_err(|_| nobody())?;
        let request = match page {
            OutgoingContent::Text(page) => {
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
                moment.request(SipMethod::Message, &from, &to, |start| start.text(&page))
            }
            OutgoingContent::State(state) => {
                let typing = match state {
                    ChatState::Composing => Typing::started(),
                    ChatState::NotComposing => Typing::Idle,
                };
                moment.request(SipMethod::Message, &from, &to, |start| start.typing(typing))
            }
        };
        match request {
            Ok(request) => Ok(Some((request, about))),
            // An address of some thousand bytes, each escaped, is longer than a line may be.
            Err(fault) => Err(Failure::new(FailureKind::TooLarge, fault.to_string())),
        }
    }
}

enum OutgoingContent {
    Text(PageMessage),
    State(ChatState),
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
