//! One checked stanza, changed: what may not go on as it came, and what is answered instead.
//!
//! Everything here appends to a buffer of the caller what can stand in a server-to-server stream of
//! ours, whose header declares `jabber:server`, `stream:`, `db:` and `xml:lang='en'`.

use std::ops::Range;

use super::{
    Element, Stanza, StanzaKind, StreamHeader,
    element::{Attribute, ElementError, Node},
    ns, text,
};

/// The language that the headers of our streams declare.
const OUR_LANG: &str = "en";

/// Whether [`relay`] would append the very bytes that came: they need not be copied then.
pub fn stands_as_is(stanza: &Stanza<'_>, header: &StreamHeader) -> bool {
    !stanza.form.prefixed
        && !stanza.form.has_section
        && stanza.form.header_prefixes == 0
        && lang_to_add(stanza, header).is_none()
}

/// Appends the stanza so that it means in our stream what it meant in the sender's.
///
/// As it came where that suffices. Else `xml:lang` and the declarations of the header's prefixes
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
        out.extend_from_slice(stanza.bytes);
        return Ok(());
    }
    if stanza.form.prefixed {
        return anew(stanza, header, |_| true, out);
    }
    splice(stanza, header, std::iter::empty(), out);
    Ok(())
}

/// Appends the presence without its notes: `<status/>` as a direct child.
///
/// `jabber:client` and no namespace count too: servers inside hand such a child to clients, which
/// take it for a note.
///
/// # Errors
/// As [`relay`].
pub fn without_status(
    stanza: &Stanza<'_>,
    header: &StreamHeader,
    out: &mut Vec<u8>,
) -> Result<(), ElementError> {
    if !stanza
        .children()
        .any(|(name, namespace, _)| is_status(name, namespace))
    {
        return relay(stanza, header, out);
    }
    if stanza.form.prefixed {
        return anew(
            stanza,
            header,
            |child| !is_status(&child.name, &child.namespace),
            out,
        );
    }
    let notes = stanza
        .children()
        .zip(stanza.children)
        .filter(|((name, namespace, _), _)| is_status(name, namespace))
        .map(|(_, child)| child.start as usize..child.end as usize);
    splice(stanza, header, notes, out);
    Ok(())
}

fn is_status(name: &str, namespace: &str) -> bool {
    name == "status" && matches!(namespace, ns::SERVER | ns::CLIENT | "")
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
    let mut element = Element::parse(stanza.bytes, header)?;
    element.content.retain(|node| match node {
        Node::Element(child) => keep(child),
        Node::Text(_) => true,
    });
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
        .bytes
        .iter()
        .position(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'/' | b'>'));
    // A `/` or `>` ends every start tag at the latest.
    let name = name.unwrap_or(stanza.bytes.len());
    out.extend_from_slice(&stanza.bytes[..name]);
    if let Some(lang) = lang_to_add(stanza, header) {
        attribute("xml:lang", Some(lang), out);
    }
    for (index, (prefix, namespace)) in header.prefixes.iter().enumerate() {
        if stanza.form.header_prefixes & (1 << index) != 0 {
            attribute(&format!("xmlns:{prefix}"), Some(namespace), out);
        }
    }
    let mut copied = name;
    for range in left_out {
        copy(&stanza.bytes[copied..range.start], out);
        copied = range.end;
    }
    copy(&stanza.bytes[copied..], out);
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
    /// One more application-specific element.
    pub extra: Option<&'a Element>,
}

/// Appends the error that answers the stanza: same kind and id, addresses swapped, no payload.
///
/// Whether it may be answered at all is the caller's to know (section 8.3.1).
pub fn error_reply(stanza: &Stanza<'_>, reply: Reply<'_>, out: &mut Vec<u8>) {
    let start = Start {
        kind: stanza.kind,
        from: stanza.to.as_deref(),
        to: stanza.from.as_deref(),
        id: stanza.id.as_deref(),
        type_: Some("error"),
    };
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
        attribute("xml:lang", Some(OUR_LANG), out);
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
    if let Some(extra) = reply.extra {
        extra.write(ns::SERVER, out);
    }
    out.extend_from_slice(b"</error>");
    start.close(out);
}

/// The start tag of a stanza of ours. Values are escaped as they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start<'a> {
    pub kind: StanzaKind,
    pub from: Option<&'a str>,
    pub to: Option<&'a str>,
    pub id: Option<&'a str>,
    pub type_: Option<&'a str>,
}

impl Start<'_> {
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
    Start {
        kind: StanzaKind::Presence,
        from: Some(from),
        to: Some(to),
        id: None,
        type_,
    }
    .empty(out);
}

/// Appends `<presence type='unavailable'/>`.
pub fn unavailable(from: &str, to: &str, out: &mut Vec<u8>) {
    presence(from, to, Some("unavailable"), out);
}

#[cfg(test)]
mod tests;
