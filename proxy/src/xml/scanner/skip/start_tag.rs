//! The start tag of a stanza that is at fault itself: read to its end once more, byte by byte and with
//! constant memory, for who is to be answered. Kept is what an answer needs; whatever is named as a stanza
//! is, is one, and at fault in any other namespace.

use std::{borrow::Cow, sync::Arc};

use super::{ADDRESS_BYTES, FaultyStanza, WORD_BYTES, XmlError, chars};
use crate::xml::{StanzaKind, StreamHeader, text};

/// Most bytes kept of one name. What is longer is none that is looked for, but an element's own: of that
/// the part behind the colon is enough to tell a stanza from other elements.
const NAME_BYTES: usize = 1024;
/// Most bytes kept of a value as it is written: an address of references alone is cut.
const VALUE_BYTES: usize = 4 * ADDRESS_BYTES;

/// How a start tag ended.
#[derive(Debug)]
pub(super) enum StartTagEnd {
    /// It is a stanza's.
    Stanza { stanza: FaultyStanza, empty: bool },
    /// Named as a stanza is, with a prefix so long that nobody keeps what it means.
    Unknown { empty: bool },
}

/// A start tag being read.
#[derive(Debug)]
pub(super) struct StartTag {
    header: Arc<StreamHeader>,
    error: XmlError,
    place: TagPlace,
    /// The element's own name.
    own: TagName,
    /// The name of the attribute at hand.
    name: TagName,
    value: Vec<u8>,
    /// Values of `from`, `to`, `type`, `id`, as they are written.
    kept: [Option<Vec<u8>>; 4],
    /// `xmlns` came.
    has_default: bool,
    /// The element's own prefix is declared in the tag itself.
    declares_own: bool,
}

const KEPT: [&[u8]; 4] = [b"from", b"to", b"type", b"id"];

#[derive(Clone, Copy, Debug)]
enum TagPlace {
    Name,
    /// Between attributes; whether the last byte was `/`.
    Between {
        slash: bool,
    },
    Attribute,
    /// Behind an attribute's name.
    Equals,
    Value {
        quote: u8,
    },
}

/// A name, cut to its last bytes where it is too long.
#[derive(Debug, Default)]
struct TagName {
    bytes: Vec<u8>,
    is_cut: bool,
}

impl TagName {
    fn push(&mut self, byte: u8) {
        if self.bytes.len() < NAME_BYTES {
            self.bytes.push(byte);
            return;
        }
        self.is_cut = true;
        // The local name counts, and starts anew behind a colon.
        if byte == b':' {
            self.bytes.clear();
            self.bytes.push(byte);
        }
    }

    fn split(&self) -> (&[u8], &[u8]) {
        match memchr::memrchr(b':', &self.bytes) {
            Some(colon) => (&self.bytes[..colon], &self.bytes[colon + 1..]),
            None => (&[], &self.bytes),
        }
    }

    fn is(&self, name: &[u8]) -> bool {
        !self.is_cut && self.bytes == name
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.is_cut = false;
    }
}

impl StartTag {
    /// Before the first byte of its name.
    pub(super) fn new(header: Arc<StreamHeader>, error: XmlError) -> Self {
        Self {
            header,
            error,
            place: TagPlace::Name,
            own: TagName::default(),
            name: TagName::default(),
            value: Vec::new(),
            kept: [const { None }; 4],
            has_default: false,
            declares_own: false,
        }
    }

    /// What the stanza broke.
    pub(super) fn error(&self) -> XmlError {
        self.error
    }

    /// Takes one byte; `Some` once it was the last.
    ///
    /// # Errors
    /// What ends the stream: the fault itself where this is no stanza, or what breaks XML.
    pub(super) fn take(&mut self, byte: u8) -> Result<Option<StartTagEnd>, XmlError> {
        match self.place {
            TagPlace::Name if is_of_name(byte) => self.own.push(byte),
            TagPlace::Name => {
                // Anything else is for the negotiation, which does without what it cannot read.
                if StanzaKind::named(self.own.split().1).is_none() {
                    return Err(self.error);
                }
                self.place = TagPlace::Between { slash: false };
                return self.take(byte);
            }
            TagPlace::Between { slash } => match byte {
                b'>' => return self.end(slash).map(Some),
                b'/' => self.place = TagPlace::Between { slash: true },
                _ if chars::is_space(byte) => self.place = TagPlace::Between { slash: false },
                _ if is_of_name(byte) => {
                    self.name.clear();
                    self.name.push(byte);
                    self.place = TagPlace::Attribute;
                }
                _ => return Err(XmlError::Markup),
            },
            TagPlace::Attribute if is_of_name(byte) => self.name.push(byte),
            TagPlace::Attribute | TagPlace::Equals => match byte {
                b'\'' | b'"' => {
                    self.value.clear();
                    self.place = TagPlace::Value { quote: byte };
                }
                b'=' => self.place = TagPlace::Equals,
                _ if chars::is_space(byte) => self.place = TagPlace::Equals,
                _ => return Err(XmlError::Markup),
            },
            TagPlace::Value { quote } if byte == quote => {
                self.keep()?;
                self.place = TagPlace::Between { slash: false };
            }
            TagPlace::Value { .. } => match byte {
                b'<' => return Err(XmlError::LessThanInAttribute),
                // One more than is kept tells that it was longer.
                _ if self.value.len() <= VALUE_BYTES => self.value.push(byte),
                _ => {}
            },
        }
        Ok(None)
    }

    /// The value at hand is complete.
    fn keep(&mut self) -> Result<(), XmlError> {
        let value = std::mem::take(&mut self.value);
        if self.name.is(b"xmlns") && std::mem::replace(&mut self.has_default, true) {
            return Err(XmlError::DuplicateAttribute);
        }
        if let Some(at) = KEPT.iter().position(|name| self.name.is(name)) {
            return put(&mut self.kept[at], value);
        }
        let (prefix, _) = self.own.split();
        if !prefix.is_empty()
            && !self.name.is_cut
            && self.name.bytes.strip_prefix(b"xmlns:") == Some(prefix)
            && std::mem::replace(&mut self.declares_own, true)
        {
            return Err(XmlError::DuplicateAttribute);
        }
        Ok(())
    }

    fn end(&self, empty: bool) -> Result<StartTagEnd, XmlError> {
        let (prefix, local) = self.own.split();
        let kind = StanzaKind::named(local).ok_or(self.error)?;
        if self.own.is_cut {
            return Ok(StartTagEnd::Unknown { empty });
        }
        // Of which namespace does not matter: in another one it is at fault too. A prefix without any is no
        // XML with namespaces, which has to end the stream.
        if !prefix.is_empty() && !self.declares_own {
            let prefix = std::str::from_utf8(prefix).map_err(|_| XmlError::NotUtf8)?;
            let known = self.header.namespace_of(prefix);
            known.ok_or(XmlError::UndeclaredPrefix)?;
        }
        let [from, to, type_, id] = &self.kept;
        Ok(StartTagEnd::Stanza {
            stanza: FaultyStanza {
                kind,
                from: address(from)?,
                to: address(to)?,
                type_: word(type_)?,
                id: word(id)?,
                error: self.error,
            },
            empty,
        })
    }
}

/// Names are made of these, whatever letters XML has for them: what is skipped is not read.
fn is_of_name(byte: u8) -> bool {
    chars::continues_name(byte) || byte == b':' || byte >= 0x80
}

fn put(place: &mut Option<Vec<u8>>, value: Vec<u8>) -> Result<(), XmlError> {
    if place.is_some() {
        return Err(XmlError::DuplicateAttribute);
    }
    *place = Some(value);
    Ok(())
}

/// What a value means.
fn meaning(value: &[u8]) -> Result<Cow<'_, str>, XmlError> {
    let raw = std::str::from_utf8(value).map_err(|_| XmlError::NotUtf8)?;
    Ok(text::attribute_value(raw))
}

fn address(value: &Option<Vec<u8>>) -> Result<Option<Box<str>>, XmlError> {
    let Some(value) = value else {
        return Ok(None);
    };
    let mut kept = value.as_slice();
    if value.len() > VALUE_BYTES
        && let Err(cut) = std::str::from_utf8(kept)
        && cut.error_len().is_none()
    {
        // Cut amid a character: it is no address whatever follows.
        kept = &kept[..cut.valid_up_to()];
    }
    let text = meaning(kept)?;
    Ok(Some(text[..text.floor_char_boundary(ADDRESS_BYTES)].into()))
}

fn word(value: &Option<Vec<u8>>) -> Result<Option<Box<str>>, XmlError> {
    match value {
        Some(value) if value.len() <= VALUE_BYTES => {
            let text = meaning(value)?;
            Ok((text.len() <= WORD_BYTES).then(|| text.into()))
        }
        _ => Ok(None),
    }
}
