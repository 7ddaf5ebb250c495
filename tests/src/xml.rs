//! Reading XML streams as a client does: top-level elements out of bytes, as small trees.
//!
//! It trusts its peer (a server under test) and is no check of well-formedness.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use quick_xml::{
    NsReader,
    events::{BytesStart, Event},
    name::ResolveResult,
};

/// An element with its namespace resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Local name.
    pub name: String,
    /// Namespace name; empty where there is none.
    pub namespace: String,
    /// Attributes by their names as written, prefix included.
    pub attributes: BTreeMap<String, String>,
    /// Child elements.
    pub children: Vec<Element>,
    /// Own text, without that of children.
    pub text: String,
}

impl Element {
    /// An attribute's value.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }

    /// Whether it is `name` in `namespace`.
    pub fn is(&self, name: &str, namespace: &str) -> bool {
        self.name == name && self.namespace == namespace
    }

    /// The first child of that name, whatever its namespace.
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|c| c.name == name)
    }

    /// The first child of that name and namespace.
    pub fn child_in(&self, name: &str, namespace: &str) -> Option<&Element> {
        self.children.iter().find(|c| c.is(name, namespace))
    }

    /// The stanza error condition, where this is an error stanza.
    pub fn error_condition(&self) -> Option<&str> {
        (self.attribute("type") == Some("error"))
            .then(|| self.child("error"))?
            .map(|error| {
                error
                    .children
                    .iter()
                    .find(|c| {
                        c.namespace == "urn:ietf:params:xml:ns:xmpp-stanzas" && c.name != "text"
                    })
                    .map_or("undefined-condition", |c| c.name.as_str())
            })
    }

    /// The text of a stanza error, empty where there is none.
    pub fn error_text(&self) -> &str {
        self.child("error")
            .and_then(|e| e.child_in("text", "urn:ietf:params:xml:ns:xmpp-stanzas"))
            .map_or("", |t| t.text.as_str())
    }
}

/// What a stream brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// `<stream:stream …>`.
    Open(Element),
    /// A complete top-level element.
    Element(Element),
    /// `</stream:stream>`.
    Close,
}

/// Cuts a stream of bytes into [`Item`]s.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
    /// Everything before it was taken.
    taken: usize,
    /// Everything before it has been looked at.
    scanned: usize,
    depth: usize,
}

impl Framer {
    /// Adds bytes as they arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.scanned -= self.taken;
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next item, or `None` until more bytes arrive.
    ///
    /// # Errors
    /// When a complete item cannot be parsed.
    pub fn next_item(&mut self) -> Result<Option<Item>> {
        loop {
            let Some(open) = memchr::memchr(b'<', &self.buffer[self.scanned..]) else {
                if self.depth <= 1 {
                    // Whitespace keep-alive.
                    self.scanned = self.buffer.len();
                    self.taken = self.scanned;
                } else {
                    self.scanned = self.buffer.len();
                }
                return Ok(None);
            };
            let start = self.scanned + open;
            let Some(length) = tag_length(&self.buffer[start..]) else {
                self.scanned = start;
                return Ok(None);
            };
            let tag = &self.buffer[start..start + length];
            self.scanned = start + length;
            if tag.starts_with(b"<?") || tag.starts_with(b"<!") {
                if self.depth <= 1 {
                    self.take();
                }
                continue;
            }
            let closing = tag.starts_with(b"</");
            let empty = tag.ends_with(b"/>");
            if closing {
                self.depth = self.depth.saturating_sub(1);
            } else if !empty {
                self.depth += 1;
            }
            let complete = match (self.depth, closing, empty) {
                (0, true, _) => {
                    self.take();
                    return Ok(Some(Item::Close));
                }
                (1, false, false) => {
                    let mut text = self.take();
                    text.truncate(text.len() - 1);
                    text.push_str("/>");
                    return Ok(Some(Item::Open(parse(&text)?)));
                }
                (1, true, _) | (1, false, true) => true,
                _ => false,
            };
            if complete {
                return Ok(Some(Item::Element(parse(&self.take())?)));
            }
        }
    }

    /// Takes what was scanned off the buffer.
    fn take(&mut self) -> String {
        let taken = &self.buffer[self.taken..self.scanned];
        self.taken = self.scanned;
        String::from_utf8_lossy(taken).into_owned()
    }
}

/// Length of the tag at the start of `bytes`, `None` while it is incomplete. Quoted `>` count not.
fn tag_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr::memchr3(b'>', b'"', b'\'', &bytes[at..])?;
        let found = bytes[at];
        at += 1;
        if found == b'>' {
            return Some(at);
        }
        at += memchr::memchr(found, &bytes[at..])? + 1;
    }
}

/// Parses one element; prefixes that streams declare are known.
///
/// # Errors
/// When `text` is not one well-formed element.
pub fn parse(text: &str) -> Result<Element> {
    const CONTEXT: &str = "<context xmlns='jabber:client' \
        xmlns:stream='http://etherx.jabber.org/streams' xmlns:db='jabber:server:dialback'>";
    let wrapped = format!("{CONTEXT}{text}</context>");
    let mut reader = NsReader::from_str(&wrapped);
    let mut open: Vec<Element> = Vec::new();
    loop {
        let event = reader.read_event().with_context(|| format!("in {text}"))?;
        match event {
            Event::Start(start) => open.push(element(&reader, &start)?),
            Event::Empty(start) => {
                let leaf = element(&reader, &start)?;
                open.last_mut()
                    .context("nothing is open")?
                    .children
                    .push(leaf);
            }
            Event::End(_) => {
                let done = open.pop().context("nothing is open")?;
                match open.last_mut() {
                    Some(parent) => parent.children.push(done),
                    None => return done.children.into_iter().next().context("no element"),
                }
            }
            Event::Text(text) => {
                if let Some(top) = open.last_mut() {
                    top.text.push_str(&text.xml10_content());
                }
            }
            Event::CData(text) => {
                if let Some(top) = open.last_mut() {
                    top.text.push_str(&text.xml10_content());
                }
            }
            Event::GeneralRef(reference) => {
                if let Some(top) = open.last_mut() {
                    top.text.push(character(&reference)?);
                }
            }
            Event::Eof => bail!("unfinished element {text}"),
            _ => {}
        }
    }
}

fn character(reference: &quick_xml::events::BytesRef<'_>) -> Result<char> {
    if let Some(character) = reference.resolve_char_ref()? {
        return Ok(character);
    }
    Ok(match &*reference.xml10_content() {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        other => bail!("unknown entity {other}"),
    })
}

fn element(reader: &NsReader<&[u8]>, start: &BytesStart<'_>) -> Result<Element> {
    let (namespace, name) = reader.resolver().resolve_element(start.name());
    let namespace = match namespace {
        ResolveResult::Bound(namespace) => namespace.as_ref().to_owned(),
        _ => String::new(),
    };
    let mut attributes = BTreeMap::new();
    for attribute in start.attributes() {
        let attribute = attribute?;
        let value = attribute
            .normalized_value(quick_xml::XmlVersion::Implicit1_0)?
            .into_owned();
        attributes.insert(attribute.key.as_ref().to_owned(), value);
    }
    Ok(Element {
        name: name.as_ref().to_owned(),
        namespace,
        attributes,
        ..Element::default()
    })
}

/// `text` as it may stand in an attribute value or in character data.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\'', "&apos;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_cut_at_every_byte_yields_the_same_items() {
        let stream = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' id='a>b'> \
             <message to='x'><body>1 &lt; 2 &amp; &#x41;</body></message>\n<a/><b></b></stream:stream>";
        let mut framer = Framer::default();
        let mut items = Vec::new();
        for byte in stream.as_bytes() {
            framer.push(&[*byte]);
            while let Some(item) = framer.next_item().expect("well-formed") {
                items.push(item);
            }
        }
        assert_eq!(items.len(), 5, "{items:?}");
        let Item::Element(message) = &items[1] else {
            panic!("{items:?}")
        };
        assert!(message.is("message", "jabber:client"));
        assert_eq!(
            message.child("body").map(|b| b.text.as_str()),
            Some("1 < 2 & A")
        );
        assert_eq!(items[4], Item::Close);
    }
}
