//! A document of the SIP side to what each device of its user says.

use thiserror::Error;
use xmpp_edge_crds::jid::{BareJid, MAX_PART_BYTES, check_resource};

use super::{
    Availability, MAX_DEVICES, MAX_LANGUAGES, MAX_NOTE_CHARACTERS, Note, ReadDevice, Show, ns,
    stand_in,
};
use crate::{
    sip::address::SipUri,
    xml::{
        self,
        document::{DocumentFault, DocumentLimits, read_document},
        element::Element,
        header::is_language_tag,
    },
};

const LIMITS: DocumentLimits = DocumentLimits {
    bytes: 64 * 1024,
    depth: 16,
    elements: 2_048,
    attributes: 32,
    namespaces: 512,
    name_bytes: 256,
};

/// Why a document is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum PidfFault {
    #[error(transparent)]
    Document(#[from] DocumentFault),
    #[error("no presence document")]
    NotPidf,
    #[error("a document about somebody else")]
    OtherEntity,
}

/// What a document says. It is the whole state: a device that is not named is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadPresence {
    /// Each resource once; at most ten, those that are available first.
    pub devices: Vec<ReadDevice>,
    /// Tuples that are not among them: more than ten, or of one resource again.
    pub left_out: usize,
}

/// A document about `entity`; `content_language` is that of the NOTIFY (RFC 8048 section 6.3).
///
/// # Errors
/// [`PidfFault`].
pub fn read(
    body: &[u8],
    entity: &BareJid,
    content_language: Option<&str>,
) -> Result<ReadPresence, PidfFault> {
    let root = read_document(body, &LIMITS)?;
    if !root.is(ns::PIDF, "presence") {
        return Err(PidfFault::NotPidf);
    }
    let about = root
        .attribute("entity")
        .and_then(|uri| SipUri::parse(uri.trim()).ok());
    if about.and_then(|uri| uri.bare_jid().ok()).as_ref() != Some(entity) {
        return Err(PidfFault::OtherEntity);
    }
    let language = language_of(&root, content_language.filter(|tag| is_language_tag(tag)));
    let person = Person::of(&root, language);
    let tuples = root.children().filter(|it| it.is(ns::PIDF, "tuple"));
    let mut found: Vec<ReadDevice> = Vec::new();
    let mut left_out = 0;
    let read = tuples
        .enumerate()
        .filter_map(|(at, tuple)| device(tuple, at, &person, language));
    for device in read {
        match found.iter_mut().find(|it| it.resource == device.resource) {
            Some(known) => {
                left_out += 1;
                // Two tuples may be of one device: whoever can be reached by one of them can be reached.
                if known.availability == Availability::Unavailable {
                    *known = device;
                }
            }
            None => found.push(device),
        }
    }
    found.sort_by_key(|it| it.availability == Availability::Unavailable);
    left_out += found.len().saturating_sub(MAX_DEVICES);
    found.truncate(MAX_DEVICES);
    Ok(ReadPresence {
        devices: found,
        left_out,
    })
}

/// What a document says of its user on whichever device.
struct Person {
    show: Option<Show>,
    notes: Vec<Note>,
}

impl Person {
    fn of(root: &Element, language: Option<&str>) -> Self {
        let persons = || root.children().filter(|it| it.is(ns::DATA_MODEL, "person"));
        let shows = persons().filter_map(activity);
        let mut notes = Vec::new();
        for person in persons() {
            let language = language_of(person, language);
            let of_any = |it: &&Element| {
                it.name == "note" && matches!(&*it.namespace, ns::DATA_MODEL | ns::RPID | ns::PIDF)
            };
            add_notes(person.children().filter(of_any), language, &mut notes);
        }
        if notes.is_empty() {
            add_notes(notes_in(root), language, &mut notes);
        }
        Self {
            show: shows.max_by_key(|it| rank(*it)),
            notes,
        }
    }
}

/// What a tuple says; `None` where it does not say whether anybody can be reached.
fn device(
    tuple: &Element,
    at: usize,
    person: &Person,
    language: Option<&str>,
) -> Option<ReadDevice> {
    let statuses = || tuple.children().filter(|it| it.is(ns::PIDF, "status"));
    let basic = statuses()
        .find_map(|it| it.child(ns::PIDF, "basic"))?
        .text();
    let availability = match basic.trim() {
        "open" => {
            let show = statuses().find_map(|it| it.child(xml::ns::CLIENT, "show"));
            let show = show.and_then(|it| Show::of_text(it.text().trim()));
            let of_tuple = statuses().chain([tuple]).filter_map(activity);
            let mut notes = Vec::new();
            add_notes(notes_in(tuple), language_of(tuple, language), &mut notes);
            if notes.is_empty() {
                notes.clone_from(&person.notes);
            }
            Availability::Available {
                show: show.or_else(|| of_tuple.chain(person.show).max_by_key(|it| rank(*it))),
                notes,
                priority: tuple.child(ns::PIDF, "contact").map_or(0, priority),
            }
        }
        "closed" => Availability::Unavailable,
        _ => return None,
    };
    Some(ReadDevice {
        resource: resource(tuple.attribute("id"), at),
        availability,
    })
}

/// `x` of `ID-x` or `x` (RFC 8048 section 6.2); what may be no resource has another one that stays the
/// same. A tuple without id is known by its place.
fn resource(id: Option<&str>, at: usize) -> String {
    let id = id.unwrap_or_default();
    let name = id
        .strip_prefix("ID-")
        .filter(|it| !it.is_empty())
        .unwrap_or(id);
    if name.is_empty() {
        return stand_in(&format!("tuple {at}"));
    }
    if name.len() > MAX_PART_BYTES || name.trim() != name || check_resource(name).is_err() {
        return stand_in(id);
    }
    name.to_owned()
}

/// Activities in an element, by the names of RFC 4480 section 3.2, as an element each or as the text of
/// one, as its drafts had it.
fn activity(of: &Element) -> Option<Show> {
    let is_rpid = |it: &Element| matches!(&*it.namespace, ns::RPID | ns::RPID_STATUS);
    let lists = of
        .children()
        .filter(|it| is_rpid(it) && it.name == "activities");
    let each = lists.flat_map(Element::children).filter(|it| is_rpid(it));
    let shows = each.filter_map(|it| match it.name.as_str() {
        "activity" => show_of_activity(it.text().trim()),
        name => show_of_activity(name),
    });
    shows.max_by_key(|it| rank(*it))
}

fn show_of_activity(name: &str) -> Option<Show> {
    match name {
        "busy" | "on-the-phone" | "meeting" | "appointment" | "presentation" | "performance" => {
            Some(Show::DoNotDisturb)
        }
        "vacation" | "holiday" | "permanent-absence" | "sleeping" | "travel" => {
            Some(Show::ExtendedAway)
        }
        "away" | "lunch" | "breakfast" | "dinner" | "meal" | "in-transit" | "shopping"
        | "steering" => Some(Show::Away),
        _ => None,
    }
}

/// Which of several is said.
fn rank(show: Show) -> u8 {
    match show {
        Show::Chat => 0,
        Show::Away => 1,
        Show::ExtendedAway => 2,
        Show::DoNotDisturb => 3,
    }
}

fn notes_in(of: &Element) -> impl Iterator<Item = &Element> {
    of.children().filter(|it| it.is(ns::PIDF, "note"))
}

/// One a language, the first of it.
fn add_notes<'a>(
    found: impl Iterator<Item = &'a Element>,
    language: Option<&str>,
    notes: &mut Vec<Note>,
) {
    for note in found {
        let text = note.text();
        let text: String = text.trim().chars().take(MAX_NOTE_CHARACTERS).collect();
        let text = text.trim_end().to_owned();
        let language = language_of(note, language);
        let known = notes.iter().any(|it| it.language.as_deref() == language);
        if notes.len() < MAX_LANGUAGES && !text.is_empty() && !known {
            notes.push(Note {
                language: language.map(str::to_owned),
                text,
            });
        }
    }
}

/// In which language an element is, where `around` is that of what it stands in. What is no tag says
/// nothing.
fn language_of<'a>(element: &'a Element, around: Option<&'a str>) -> Option<&'a str> {
    let own = element
        .attributes
        .iter()
        .find(|it| it.name == "lang" && it.namespace == xml::ns::XML);
    match own {
        Some(own) => Some(own.value.as_str()).filter(|tag| is_language_tag(tag)),
        None => around,
    }
}

/// 0 to 127 of a contact's 0 to 1; what is out of its range is not there (RFC 3863 section 4.1.5).
fn priority(contact: &Element) -> u8 {
    let thousandths = contact
        .attribute("priority")
        .and_then(thousandths)
        .unwrap_or(0);
    u8::try_from((thousandths * 127 + 500) / 1_000).unwrap_or(127)
}

/// A decimal from 0 to 1 with at most three digits behind the point.
fn thousandths(text: &str) -> Option<u32> {
    let text = text.trim();
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 3 || !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole = match whole {
        "0" => 0,
        "1" => 1_000,
        _ => return None,
    };
    let part = format!("{part:0<3}").parse::<u32>().ok()?;
    Some(whole + part).filter(|it| *it <= 1_000)
}
