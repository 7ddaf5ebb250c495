//! What of a message of XMPP a MESSAGE carries.

use jiff::Timestamp;

use super::ns;
use crate::xml::{self, element::Element, header::is_language_tag};

/// What has to be sent for a message stanza.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutgoingMessage {
    Page(PageMessage),
    /// A state without text: `active` where they are composing, else `idle` (RFC 7573 section 6).
    Typing(ChatState),
    /// An error: the final answer to the request that had this id.
    Error,
    /// Nothing: it is settled, and counted by what it was.
    Untranslated(Untranslated),
}

/// What of XEP-0085 is told to SIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChatState {
    Composing,
    /// Paused, active, inactive, gone: to be told only after composing was.
    NotComposing,
}

/// Why nothing is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Untranslated {
    /// `headline` or `groupchat`.
    Type,
    /// No text and no state: a marker, a reaction, a retraction, a receipt.
    Content,
}

impl Untranslated {
    /// A name for metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Type => "Type",
            Self::Content => "Content",
        }
    }
}

/// A text in page mode (RFC 3428).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageMessage {
    /// Never empty.
    pub text: String,
    /// Of the text: Content-Language.
    pub language: Option<String>,
    /// One line, of as few bytes as a header field has room for; never empty.
    pub subject: Option<String>,
    /// When it was sent, where it was kept on its way: Date.
    pub sent: Option<Timestamp>,
    pub receipt: Receipt,
}

/// Whether its sender asked to be told that it arrived (XEP-0184).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Receipt {
    Asked,
    NotAsked,
}

/// Most bytes of a subject: with its name it fits a line of every server that is known.
const MAX_SUBJECT_BYTES: usize = 1_024;

impl OutgoingMessage {
    /// `message` is a message stanza; `stream_language` that of its stream, which a stanza without one has
    /// (RFC 6120 section 8.1.5).
    #[must_use]
    pub fn of_stanza(message: &Element, stream_language: Option<&str>) -> Self {
        match message.attribute("type") {
            Some("error") => return Self::Error,
            Some("headline" | "groupchat") => return Self::Untranslated(Untranslated::Type),
            // One that is not known is `normal` (RFC 6121 section 5.2.2).
            _ => {}
        }
        let language = language_of(message).or(stream_language);
        let subject = in_language(message, "subject", language);
        let body = in_language(message, "body", language);
        let Some(said) = body.as_ref().or(subject.as_ref()) else {
            return state(message);
        };
        let line = body.is_some().then_some(subject.as_ref()).flatten();
        let (subject, left) = line.map_or((None, None), |it| subject_line(&it.text));
        // What has no room in a header field is said before the text.
        let text = match left {
            Some(whole) => format!("{whole}\n\n{}", said.text),
            None => said.text.clone(),
        };
        Self::Page(PageMessage {
            text,
            language: said.language.map(str::to_owned),
            subject,
            sent: delay(message),
            receipt: receipt(message),
        })
    }
}

/// One of several texts in several languages.
struct SaidText<'a> {
    text: String,
    language: Option<&'a str>,
}

/// That of the stanza's language, else that without one, else the first. Empty ones say nothing.
fn in_language<'a>(
    message: &'a Element,
    name: &str,
    language: Option<&'a str>,
) -> Option<SaidText<'a>> {
    let found = message
        .children()
        .filter(|it| it.name == name && it.namespace == message.namespace);
    let own = |it: &'a Element| {
        it.attributes
            .iter()
            .any(|at| at.name == "lang" && at.namespace == xml::ns::XML)
    };
    let texts: Vec<(bool, SaidText<'a>)> = found
        .map(|it| {
            let of = if own(it) { language_of(it) } else { language };
            (
                own(it),
                SaidText {
                    text: it.text(),
                    language: of,
                },
            )
        })
        .filter(|(_, said)| !said.text.is_empty())
        .collect();
    let same = |said: &SaidText<'_>| match (said.language, language) {
        (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
        (a, b) => a == b,
    };
    let at = texts
        .iter()
        .position(|(_, said)| same(said))
        .or_else(|| texts.iter().position(|(own, _)| !own))
        .unwrap_or(0);
    texts.into_iter().nth(at).map(|(_, said)| said)
}

/// What is no language tag says nothing.
fn language_of(element: &Element) -> Option<&str> {
    let own = element
        .attributes
        .iter()
        .find(|it| it.name == "lang" && it.namespace == xml::ns::XML);
    own.map(|it| it.value.as_str())
        .filter(|tag| is_language_tag(tag))
}

/// A subject as a header field, or the whole of one that has no room there.
fn subject_line(subject: &str) -> (Option<String>, Option<&str>) {
    let line: String = subject
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    match line.trim() {
        "" => (None, None),
        line if line.len() > MAX_SUBJECT_BYTES => (None, Some(subject)),
        line => (Some(line.to_owned()), None),
    }
}

fn state(message: &Element) -> OutgoingMessage {
    let mut states = message
        .children()
        .filter(|it| it.namespace == ns::CHAT_STATES);
    match states.next().map(|it| it.name.as_str()) {
        Some("composing") => OutgoingMessage::Typing(ChatState::Composing),
        Some("paused" | "active" | "inactive" | "gone") => {
            OutgoingMessage::Typing(ChatState::NotComposing)
        }
        _ => OutgoingMessage::Untranslated(Untranslated::Content),
    }
}

fn delay(message: &Element) -> Option<Timestamp> {
    message
        .child(ns::DELAY, "delay")?
        .attribute("stamp")?
        .parse()
        .ok()
}

/// Only what has an id can be told of.
fn receipt(message: &Element) -> Receipt {
    let asked = message.child(ns::RECEIPTS, "request").is_some();
    if asked && message.attribute("id").is_some() {
        Receipt::Asked
    } else {
        Receipt::NotAsked
    }
}
