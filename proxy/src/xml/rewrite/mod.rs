//! One checked stanza, changed: what may not go on as it came, and what is answered instead.
//!
//! Everything here appends to a buffer of the caller what can stand in a server-to-server stream of
//! ours, whose header declares `jabber:server`, `stream:`, `db:` and `xml:lang='en'`.

use std::ops::Range;

use xmpp_edge_crds::jid::in_one_spelling;

use super::{
    Condition, Element, ErrorType, FaultyStanza, Stanza, StanzaKind, StreamHeader,
    element::{Attribute, ElementError, Node},
    header::is_language_tag,
    ns, text,
};

/// The language that the headers of our streams declare.
const OUR_LANG: &str = "en";
/// Characters of an error's text that go on where the error goes on alone.
const ERROR_TEXT: usize = 256;
/// Bytes of the tag of its language, the longest that RFC 5646 section 4.4.1 reckons with.
const LANGUAGE: usize = 35;
/// Bytes of an id that go on there: as many as a part of an address may have (RFC 7622 section 3.1).
const ERROR_ID: usize = 1023;

/// Whether [`relay`] would append the very bytes that came: they need not be copied then.
pub fn stands_as_is(stanza: &Stanza<'_>, header: &StreamHeader) -> bool {
    !stanza.form.prefixed
        && !stanza.form.has_section
        && !stanza.form.readdressed
        && !stanza.form.ill_lang
        && stanza.form.header_prefixes == 0
        && lang_to_add(stanza, header).is_none()
}

/// Appends the stanza so that it means in our stream what it meant in the sender's.
///
/// As it came where that suffices. Else an `xml:lang` that is no language is left out, `xml:lang` and the declarations of the header's prefixes
/// that it uses are spliced into its start tag, and CDATA becomes escaped text; a stanza whose own
/// element has a prefix is written anew.
///
/// # Errors
/// None for what the scanner of the stream with this header gave; then nothing was appended.
pub fn relay(
    stanza: &Stanza<'_>,
    header: &StreamHeader,
    out: &mut Vec<u8>,
) -> Result<(), ElementError> {
    if stands_as_is(stanza, header) {
        out.extend_from_slice(stanza.bytes());
        return Ok(());
    }
    if stanza.form.prefixed {
        return anew(stanza, header, |_| true, out);
    }
    splice(stanza, header, std::iter::empty(), out);
    Ok(())
}

/// What of a stanza goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Whole,
    /// Without the children that [`is_status_note`] knows.
    WithoutStatus,
    /// Kind, addresses and type: no child, no text, no other attribute. For presence alone, whose id
    /// nobody waits for.
    Bare,
    /// Kind, addresses, type, what an id has at most, and what RFC 6120 section 8.3.2 says of an error:
    /// its type, its condition, and so much of its text as a reason needs.
    ErrorAlone,
}

/// Appends what `shape` leaves of the stanza, so that it means in our stream what it meant in the
/// sender's.
///
/// # Errors
/// As [`relay`].
pub fn shaped(
    shape: Shape,
    stanza: &Stanza<'_>,
    header: &StreamHeader,
    out: &mut Vec<u8>,
) -> Result<(), ElementError> {
    match shape {
        Shape::Whole => relay(stanza, header, out),
        Shape::WithoutStatus => without_status(stanza, header, out),
        Shape::Bare => {
            let start = StanzaStart {
                id: None,
                ..StanzaStart::of(stanza)
            };
            start.empty(out);
            Ok(())
        }
        Shape::ErrorAlone => error_alone(stanza, header, out),
    }
}

/// Whether a child of a presence is the sender's status note (RFC 6121 section 4.7.2.2).
///
/// `jabber:client` and no namespace count too: servers inside hand such a child to clients, which
/// take it for a note.
#[must_use]
pub fn is_status_note(name: &str, namespace: &str) -> bool {
    name == "status" && matches!(namespace, ns::SERVER | ns::CLIENT | "")
}

/// Whether a child of a stanza is the error that it carries (RFC 6120 section 8.3.1).
#[must_use]
pub fn is_error(name: &str, namespace: &str) -> bool {
    name == "error" && namespace == ns::SERVER
}

fn without_status(
    stanza: &Stanza<'_>,
    header: &StreamHeader,
    out: &mut Vec<u8>,
) -> Result<(), ElementError> {
    if !stanza
        .children()
        .any(|(name, namespace, _)| is_status_note(name, namespace))
    {
        return relay(stanza, header, out);
    }
    if stanza.form.prefixed {
        return anew(
            stanza,
            header,
            |child| !is_status_note(&child.name, &child.namespace),
            out,
        );
    }
    let notes = stanza
        .children()
        .zip(stanza.children)
        .filter(|((name, namespace, _), _)| is_status_note(name, namespace))
        .map(|(_, child)| child.start as usize..child.end as usize);
    splice(stanza, header, notes, out);
    Ok(())
}

fn error_alone(
    stanza: &Stanza<'_>,
    header: &StreamHeader,
    out: &mut Vec<u8>,
) -> Result<(), ElementError> {
    let element = Element::parse(stanza.bytes(), header)?;
    let start = StanzaStart::of(stanza);
    let start = StanzaStart {
        id: start.id.map(|id| &id[..id.floor_char_boundary(ERROR_ID)]),
        ..start
    };
    let error = element
        .children()
        .find(|child| is_error(&child.name, &child.namespace));
    let Some(error) = error else {
        start.empty(out);
        return Ok(());
    };
    let parts = || {
        let all = error.children();
        all.filter(|part| part.namespace == ns::STANZA_ERRORS)
    };
    let condition = parts().find_map(|part| Condition::of_name(&part.name));
    let words = parts().find(|part| part.name == "text");
    let lang = words.and_then(|words| {
        let mut attributes = words.attributes.iter();
        attributes.find(|own| own.namespace == ns::XML && own.name == "lang")
    });
    let words = words.map(|words| words.text().chars().take(ERROR_TEXT).collect::<String>());
    let reply = Reply {
        error_type: error
            .attribute("type")
            .and_then(ErrorType::of_name)
            .unwrap_or(ErrorType::Cancel)
            .as_str(),
        condition: condition.unwrap_or(Condition::UndefinedCondition).as_str(),
        text: words.as_deref(),
        reason: None,
    };
    let lang = lang.map(|lang| lang.value.as_str());
    let lang = lang.filter(|tag| tag.len() <= LANGUAGE && is_language_tag(tag));
    write_error(&start, reply, lang.or(header.lang.as_deref()), out);
    Ok(())
}

/// The sender's language, where the stanza leaves it to the stream and ours is another.
fn lang_to_add<'h>(stanza: &Stanza<'_>, header: &'h StreamHeader) -> Option<&'h str> {
    header
        .lang
        .as_deref()
        .filter(|lang| !stanza.form.has_lang && !lang.eq_ignore_ascii_case(OUR_LANG))
}

/// Writes the stanza from its tree, with those of its children that `keep` wants.
fn anew(
    stanza: &Stanza<'_>,
    header: &StreamHeader,
    keep: impl Fn(&Element) -> bool,
    out: &mut Vec<u8>,
) -> Result<(), ElementError> {
    let mut element = Element::parse(stanza.bytes(), header)?;
    element.content.retain(|node| match node {
        Node::Element(child) => keep(child),
        Node::Text(_) => true,
    });
    if stanza.form.readdressed {
        for attribute in &mut element.attributes {
            if attribute.namespace.is_empty()
                && let Some(value) = address(stanza, attribute.name.as_bytes())
            {
                value.clone_into(&mut attribute.value);
            }
        }
    }
    if stanza.form.ill_lang {
        let is_lang = |own: &Attribute| own.namespace == ns::XML && own.name == "lang";
        element.attributes.retain(|own| !is_lang(own));
    }
    if let Some(lang) = lang_to_add(stanza, header) {
        element.attributes.push(Attribute {
            namespace: ns::XML.to_owned(),
            name: "lang".to_owned(),
            value: lang.to_owned(),
        });
    }
    element.write(ns::SERVER, out);
    Ok(())
}

/// Copies the stanza with additions to its start tag and without the ranges left out, which are
/// elements inside it, in order.
fn splice(
    stanza: &Stanza<'_>,
    header: &StreamHeader,
    left_out: impl Iterator<Item = Range<usize>>,
    out: &mut Vec<u8>,
) {
    let name = stanza
        .bytes()
        .iter()
        .position(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'/' | b'>'));
    // A `/` or `>` ends every start tag at the latest.
    let name = name.unwrap_or(stanza.bytes().len());
    out.extend_from_slice(&stanza.bytes()[..name]);
    if let Some(lang) = lang_to_add(stanza, header) {
        attribute("xml:lang", Some(lang), out);
    }
    for (index, (prefix, namespace)) in header.prefixes.iter().enumerate() {
        if stanza.form.header_prefixes & (1 << index) != 0 {
            attribute(&format!("xmlns:{prefix}"), Some(namespace), out);
        }
    }
    let mut copied = name;
    if stanza.form.readdressed || stanza.form.ill_lang {
        start_tag(stanza, name, out);
        copied = stanza.start_tag;
    }
    for range in left_out {
        copy(&stanza.bytes()[copied..range.start], out);
        copied = range.end;
    }
    copy(&stanza.bytes()[copied..], out);
}

/// The value of `from` or `to`, by its name.
fn address<'s>(stanza: &'s Stanza<'_>, name: &[u8]) -> Option<&'s str> {
    match name {
        b"from" => stanza.from.as_deref(),
        b"to" => stanza.to.as_deref(),
        _ => None,
    }
}

/// Copies the start tag from `at`, the end of the element's name, with the addresses of today, and without
/// an `xml:lang` that is no language.
fn start_tag(stanza: &Stanza<'_>, mut at: usize, out: &mut Vec<u8>) {
    let tag = &stanza.bytes()[..stanza.start_tag];
    while let Some(equals) = memchr::memchr(b'=', &tag[at..]).map(|found| at + found) {
        let name = tag[at..equals].trim_ascii();
        // A checked start tag has a value in quotes behind each "=".
        let Some(open) = memchr::memchr2(b'\'', b'"', &tag[equals..]).map(|found| equals + found)
        else {
            break;
        };
        let Some(close) = memchr::memchr(tag[open], &tag[open + 1..]).map(|found| open + 1 + found)
        else {
            break;
        };
        match address(stanza, name) {
            _ if stanza.form.ill_lang && name == b"xml:lang" => {}
            Some(value) => attribute(&String::from_utf8_lossy(name), Some(value), out),
            None => out.extend_from_slice(&tag[at..=close]),
        }
        at = close + 1;
    }
    out.extend_from_slice(&tag[at..]);
}

/// Copies checked XML, its CDATA sections as escaped text: framers that look for tags without a
/// full parser stumble over them.
fn copy(mut bytes: &[u8], out: &mut Vec<u8>) {
    const START: &[u8] = b"<![CDATA[";
    const END: &[u8] = b"]]>";
    while let Some(start) = memchr::memmem::find(bytes, START) {
        let (before, rest) = bytes.split_at(start);
        let section = &rest[START.len()..];
        let end = memchr::memmem::find(section, END).unwrap_or(section.len());
        out.extend_from_slice(before);
        for byte in &section[..end] {
            match byte {
                b'<' => out.extend_from_slice(b"&lt;"),
                b'>' => out.extend_from_slice(b"&gt;"),
                b'&' => out.extend_from_slice(b"&amp;"),
                // Line ends mean the same in text.
                other => out.push(*other),
            }
        }
        bytes = section.get(end + END.len()..).unwrap_or_default();
    }
    out.extend_from_slice(bytes);
}

fn attribute(name: &str, value: Option<&str>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        out.push(b' ');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"='");
        text::escape_attribute(value, out);
        out.push(b'\'');
    }
}

/// What a stanza error says (RFC 6120 section 8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// `cancel`, `wait`, `modify`, `auth`, `continue`
    pub error_type: &'a str,
    /// An element name of section 8.3.3: never text of a peer.
    pub condition: &'a str,
    pub text: Option<&'a str>,
    /// Written as `<policy xmlns='urn:xmpp-edge:errors:0' reason='…'/>`.
    pub reason: Option<&'a str>,
}

/// Appends the error that answers the stanza: same kind and id, addresses swapped, no payload.
///
/// Whether it may be answered at all is the caller's to know (section 8.3.1).
pub fn error_reply(stanza: &Stanza<'_>, reply: Reply<'_>, out: &mut Vec<u8>) {
    error_answer(&StanzaStart::of(stanza), reply, out);
}

/// As [`error_reply`], to a stanza of which only the start is known. Its addresses stand in one spelling each, as
/// those of what passes: a server that reads another domain in ours ends the stream over it.
pub fn error_answer(stanza: &StanzaStart<'_>, reply: Reply<'_>, out: &mut Vec<u8>) {
    let spelled = |address: &str| in_one_spelling(address, None);
    let (from, to) = (stanza.to.and_then(spelled), stanza.from.and_then(spelled));
    let start = StanzaStart {
        kind: stanza.kind,
        from: from.as_deref().or(stanza.to),
        to: to.as_deref().or(stanza.from),
        id: stanza.id,
        type_: Some("error"),
    };
    write_error(&start, reply, Some(OUR_LANG), out);
}

/// Appends an error of this start; its text is in that language.
fn write_error(start: &StanzaStart<'_>, reply: Reply<'_>, lang: Option<&str>, out: &mut Vec<u8>) {
    start.open(out);
    out.extend_from_slice(b"<error");
    attribute("type", Some(reply.error_type), out);
    out.extend_from_slice(b"><");
    out.extend_from_slice(reply.condition.as_bytes());
    attribute("xmlns", Some(ns::STANZA_ERRORS), out);
    out.extend_from_slice(b"/>");
    if let Some(words) = reply.text {
        out.extend_from_slice(b"<text");
        attribute("xmlns", Some(ns::STANZA_ERRORS), out);
        attribute("xml:lang", lang, out);
        out.push(b'>');
        text::escape_text(words, out);
        out.extend_from_slice(b"</text>");
    }
    if let Some(reason) = reply.reason {
        out.extend_from_slice(b"<policy");
        attribute("xmlns", Some(ns::EDGE_ERRORS), out);
        attribute("reason", Some(reason), out);
        out.extend_from_slice(b"/>");
    }
    out.extend_from_slice(b"</error>");
    start.close(out);
}

/// The start tag of a stanza of ours. Values are escaped as they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StanzaStart<'a> {
    pub kind: StanzaKind,
    pub from: Option<&'a str>,
    pub to: Option<&'a str>,
    pub id: Option<&'a str>,
    pub type_: Option<&'a str>,
}

impl<'a> StanzaStart<'a> {
    /// The stanza's own, without attributes that are none of the five.
    #[must_use]
    pub fn of(stanza: &'a Stanza<'_>) -> Self {
        Self {
            kind: stanza.kind,
            from: stanza.from.as_deref(),
            to: stanza.to.as_deref(),
            id: stanza.id.as_deref(),
            type_: stanza.type_.as_deref(),
        }
    }

    /// As [`Self::of`], of one that was skipped.
    #[must_use]
    pub fn of_faulty(stanza: &'a FaultyStanza) -> Self {
        Self {
            kind: stanza.kind,
            from: stanza.from.as_deref(),
            to: stanza.to.as_deref(),
            id: stanza.id.as_deref(),
            type_: stanza.type_.as_deref(),
        }
    }

    /// Appends `<kind …>`.
    pub fn open(&self, out: &mut Vec<u8>) {
        self.tag(out);
        out.push(b'>');
    }

    /// Appends `</kind>`.
    pub fn close(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"</");
        out.extend_from_slice(self.kind.name().as_bytes());
        out.push(b'>');
    }

    /// Appends the whole stanza, without content.
    pub fn empty(&self, out: &mut Vec<u8>) {
        self.tag(out);
        out.extend_from_slice(b"/>");
    }

    /// Appends the whole stanza with one child.
    pub fn around(&self, child: &Element, out: &mut Vec<u8>) {
        self.open(out);
        child.write(ns::SERVER, out);
        self.close(out);
    }

    fn tag(&self, out: &mut Vec<u8>) {
        out.push(b'<');
        out.extend_from_slice(self.kind.name().as_bytes());
        attribute("from", self.from, out);
        attribute("to", self.to, out);
        attribute("id", self.id, out);
        attribute("type", self.type_, out);
    }
}

/// Appends `<presence type='…'/>`; `None` is available presence.
pub fn presence(from: &str, to: &str, type_: Option<&str>, out: &mut Vec<u8>) {
    StanzaStart {
        kind: StanzaKind::Presence,
        from: Some(from),
        to: Some(to),
        id: None,
        type_,
    }
    .empty(out);
}

#[cfg(test)]
mod tests;
