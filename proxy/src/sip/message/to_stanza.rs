//! What a MESSAGE says, as a stanza.

use jiff::{SignedDuration, Timestamp, fmt::rfc2822::DateTimeParser};
use xmpp_edge_crds::jid::BareJid;

use super::{from_stanza::ChatState, ns};
use crate::{
    sip::wire::{HeaderName, SipHeaders, split_list},
    xml::{
        self,
        element::{Attribute, Element},
        header::is_language_tag,
    },
};

/// Who a stanza is from and to, and by which id an error to it is known again.
#[derive(Clone, Copy, Debug)]
pub struct StanzaAddresses<'a> {
    pub from: &'a BareJid,
    pub to: &'a BareJid,
    /// The one device that it is to, where the request named one.
    pub resource: Option<&'a str>,
    pub id: &'a str,
}

/// A text and what its request says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingText {
    /// As XMPP can carry it; never empty.
    pub text: String,
    pub language: Option<String>,
    pub subject: Option<String>,
    /// When it was sent: what is no date of RFC 3261 section 20.17 is none.
    pub sent: Option<Timestamp>,
}

/// Older than this, a text was kept on its way (XEP-0203).
const LATE: SignedDuration = SignedDuration::from_secs(60);

impl IncomingText {
    /// The text of a request with these header fields.
    #[must_use]
    pub fn new(text: String, headers: &SipHeaders) -> Self {
        let languages = headers
            .first(HeaderName::ContentLanguage)
            .unwrap_or_default();
        let languages = split_list(languages, ',').unwrap_or_default();
        let date = headers.first(HeaderName::Date).unwrap_or_default();
        let is_gmt = date.ends_with(" GMT");
        let subject = headers
            .first(HeaderName::Subject)
            .filter(|it| !it.is_empty());
        Self {
            text,
            language: languages
                .first()
                .filter(|tag| is_language_tag(tag))
                .map(|it| (*it).to_owned()),
            subject: subject.map(str::to_owned),
            sent: DateTimeParser::new()
                .parse_timestamp(date)
                .ok()
                .filter(|_| is_gmt),
        }
    }
}

/// `chat`, so that clients show it among what was said before (*departs* from RFC 7572 section 5), with
/// `<active/>`, so that they tell when they are writing (XEP-0085 section 5.1).
#[must_use]
pub fn text_stanza(addresses: StanzaAddresses<'_>, said: &IncomingText, now: Timestamp) -> Element {
    let mut stanza = message(addresses);
    if let Some(language) = &said.language {
        stanza.attributes.push(Attribute {
            namespace: xml::ns::XML.to_owned(),
            name: "lang".to_owned(),
            value: language.clone(),
        });
    }
    if let Some(subject) = &said.subject {
        stanza = stanza.with_child(Element::new(xml::ns::SERVER, "subject").with_text(subject));
    }
    stanza = stanza
        .with_child(Element::new(xml::ns::SERVER, "body").with_text(&said.text))
        .with_child(Element::new(ns::CHAT_STATES, "active"));
    if let Some(sent) = said.sent.filter(|sent| now.duration_since(*sent) > LATE) {
        let delay = Element::new(ns::DELAY, "delay")
            .with_attribute("from", addresses.from.domain().as_str())
            .with_attribute("stamp", sent.to_string());
        stanza = stanza.with_child(delay);
    }
    stanza
}

/// That somebody writes, or stopped.
#[must_use]
pub fn typing_stanza(addresses: StanzaAddresses<'_>, state: ChatState) -> Element {
    let name = match state {
        ChatState::Composing => "composing",
        ChatState::NotComposing => "paused",
    };
    message(addresses).with_child(Element::new(ns::CHAT_STATES, name))
}

/// That a message arrived, for who asked for it (XEP-0184): `asked` is the id of theirs.
#[must_use]
pub fn received(addresses: StanzaAddresses<'_>, asked: &str) -> Element {
    let received = Element::new(ns::RECEIPTS, "received").with_attribute("id", asked);
    message(addresses).with_child(received)
}

fn message(addresses: StanzaAddresses<'_>) -> Element {
    let mut to = addresses.to.to_string();
    if let Some(resource) = addresses.resource {
        to.push('/');
        to.push_str(resource);
    }
    Element::new(xml::ns::SERVER, "message")
        .with_attribute("from", addresses.from.to_string())
        .with_attribute("to", to)
        .with_attribute("type", "chat")
        .with_attribute("id", addresses.id)
}
