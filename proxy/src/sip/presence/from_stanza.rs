//! What a user of XMPP says of a device of theirs.

use jiff::Timestamp;
use xmpp_edge_crds::jid::JidParts;

use super::ns;
use crate::{
    sip::pidf::{Availability, MAX_LANGUAGES, MAX_NOTE_CHARACTERS, Note, Show, WatchedDevice},
    xml::{self, element::Element, header::is_language_tag},
};

/// Presence of somebody, available or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SaidPresence {
    Device(WatchedDevice),
    /// Nobody is there: `unavailable` of the account (RFC 6121 section 4.3.2).
    NoDevice,
}

/// What a presence stanza without type, or of type `unavailable`, says; `None`: available, and not on any device.
/// `language` is that of its stream.
#[must_use]
pub fn said_by(presence: &Element, language: Option<&str>, now: Timestamp) -> Option<SaidPresence> {
    let from = JidParts::split(presence.attribute("from")?).ok()?;
    let is_unavailable = presence.attribute("type") == Some("unavailable");
    let Some(resource) = from.resource else {
        return is_unavailable.then_some(SaidPresence::NoDevice);
    };
    let availability = if is_unavailable {
        Availability::Unavailable
    } else {
        available(presence, language)
    };
    Some(SaidPresence::Device(WatchedDevice {
        resource: resource.to_owned(),
        availability,
        since: delay(presence).filter(|since| *since <= now).unwrap_or(now),
    }))
}

fn available(presence: &Element, language: Option<&str>) -> Availability {
    let language = lang(presence, language);
    let child = |name| presence.child(&presence.namespace, name).map(Element::text);
    let mut notes: Vec<Note> = Vec::new();
    let all = presence
        .children()
        .filter(|it| it.is(&presence.namespace, "status"));
    for status in all {
        let text = status.text();
        let text: String = text.trim().chars().take(MAX_NOTE_CHARACTERS).collect();
        let language = lang(status, language);
        let is_known = notes.iter().any(|it| it.language.as_deref() == language);
        if notes.len() < MAX_LANGUAGES && !text.is_empty() && !is_known {
            notes.push(Note {
                language: language.map(str::to_owned),
                text,
            });
        }
    }
    let priority = child("priority").and_then(|text| text.trim().parse::<i8>().ok());
    Availability::Available {
        show: child("show").and_then(|text| Show::of_text(text.trim())),
        notes,
        // Below 0 is not carried (RFC 8048 section 6.2).
        priority: priority
            .and_then(|it| u8::try_from(it).ok())
            .unwrap_or_default(),
    }
}

/// What is no language tag says nothing.
fn lang<'a>(element: &'a Element, around: Option<&'a str>) -> Option<&'a str> {
    let own = element
        .attributes
        .iter()
        .find(|it| it.name == "lang" && it.namespace == xml::ns::XML);
    match own {
        Some(own) => Some(own.value.as_str()).filter(|tag| is_language_tag(tag)),
        None => around,
    }
}

fn delay(presence: &Element) -> Option<Timestamp> {
    let delay = presence.child(ns::DELAY, "delay")?;
    delay.attribute("stamp")?.parse().ok()
}
