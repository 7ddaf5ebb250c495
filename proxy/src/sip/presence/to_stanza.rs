//! What is told of a user of SIP.

use xmpp_edge_crds::jid::BareJid;

use crate::{
    sip::{
        pidf::{Availability, Note, ReadDevice},
        turns::TwoPeople,
    },
    xml::{
        self,
        element::{Attribute, Element},
    },
};

/// Presence that says nothing but its type (RFC 6121 section 4.7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PresenceType {
    Probe,
    Subscribe,
    Subscribed,
    Unavailable,
    Unsubscribe,
    Unsubscribed,
}

impl PresenceType {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Subscribe => "subscribe",
            Self::Subscribed => "subscribed",
            Self::Unavailable => "unavailable",
            Self::Unsubscribe => "unsubscribe",
            Self::Unsubscribed => "unsubscribed",
        }
    }
}

/// From one bare address to the other; an error to it has the same `id`.
#[must_use]
pub fn presence_stanza(people: &TwoPeople, of: PresenceType, id: &str) -> Element {
    presence(people.from.to_string(), &people.to)
        .with_attribute("type", of.as_str())
        .with_attribute("id", id)
}

/// Presence of a device of `people.from`.
#[must_use]
pub fn device_stanza(people: &TwoPeople, device: &ReadDevice) -> Element {
    let stanza = presence(format!("{}/{}", people.from, device.resource), &people.to);
    match &device.availability {
        Availability::Unavailable => {
            stanza.with_attribute("type", PresenceType::Unavailable.as_str())
        }
        Availability::Available {
            show,
            notes,
            priority,
        } => {
            let show = show.map(|it| element("show").with_text(it.as_str()));
            let priority =
                (*priority > 0).then(|| element("priority").with_text(&priority.to_string()));
            let children = show.into_iter().chain(notes.iter().map(status));
            children.chain(priority).fold(stanza, Element::with_child)
        }
    }
}

fn presence(from: String, to: &BareJid) -> Element {
    element("presence")
        .with_attribute("from", from)
        .with_attribute("to", to.to_string())
}

fn status(note: &Note) -> Element {
    let mut status = element("status").with_text(&note.text);
    if let Some(language) = &note.language {
        status.attributes.push(Attribute {
            namespace: xml::ns::XML.to_owned(),
            name: "lang".to_owned(),
            value: language.clone(),
        });
    }
    status
}

fn element(name: &str) -> Element {
    Element::new(xml::ns::SERVER, name)
}
