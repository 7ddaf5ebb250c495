//! The way past a stanza that breaks a limit: to its end, as its bytes come, with constant memory.
//!
//! A well-formed stanza ends where its nesting does, so that tags are counted and nothing else is kept
//! or checked: what is skipped is never handed on. Where its own start tag is at fault, that is read to
//! its end for who is to be answered (`start_tag.rs`). What a stream may not hold at all (comments,
//! processing instructions, document types) ends it here too.

mod start_tag;

use std::sync::Arc;

use self::start_tag::{StartTag, StartTagEnd};
use super::{
    XmlError, chars,
    parts::{Lex, Top, Value},
};
use crate::xml::{StanzaKind, StreamHeader};

/// Most bytes of one stanza that are skipped; one more ends the stream, since nobody waits longer for
/// an end that may never come.
pub const MOST_SKIPPED: usize = 64 << 20;
/// Most bytes kept of an address: a JID has at most 3,071 (RFC 7622 section 3.1).
const ADDRESS_BYTES: usize = 3071;
/// Most bytes kept of an id or a type; a longer one is not answered under its own.
const WORD_BYTES: usize = 1024;

/// A stanza that broke a limit: skipped, to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultyStanza {
    pub kind: StanzaKind,
    /// Cut where it is longer than any address.
    pub from: Option<Box<str>>,
    /// As `from`.
    pub to: Option<Box<str>>,
    /// `None` where it is longer than 1,024 bytes.
    pub type_: Option<Box<str>>,
    /// As `type_`.
    pub id: Option<Box<str>>,
    /// What it broke.
    pub error: XmlError,
}

/// A stanza being skipped.
#[derive(Debug)]
pub(super) struct Skip {
    what: SkipSubject,
    place: Place,
    /// Elements open.
    depth: u32,
    bytes: usize,
}

/// What is known of it.
#[derive(Debug)]
enum SkipSubject {
    /// Its start tag is still being read.
    Start(Box<StartTag>),
    /// Whom to answer.
    Stanza(FaultyStanza),
    /// It cannot be told what it is.
    Unknown(XmlError),
}

/// What became of more bytes.
pub(super) enum Skipped {
    /// So many were of the stanza, and more of it follow.
    Part(usize),
    /// The stanza ends after so many.
    All(usize, Result<FaultyStanza, XmlError>),
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Text,
    /// After `<`.
    Markup,
    /// In a start tag; whether its last byte was `/`.
    Tag {
        slash: bool,
    },
    Value {
        quote: u8,
    },
    /// In an end tag.
    End,
    /// After `<!` and so many bytes of `[CDATA[`.
    Bang {
        matched: u8,
    },
    /// In a CDATA section, after so many of `]]`.
    Section {
        brackets: u8,
    },
}

impl Skip {
    /// Goes on from where the pass stood in `buf` when it found `error`, which is none of a whole stream;
    /// `None` where the stream has to end: the element is none of a stanza.
    pub(super) fn from_pass(
        buf: &[u8],
        (top, open, lex): (&Top, usize, Lex),
        error: XmlError,
    ) -> Option<Self> {
        let kind = top.kind.filter(|_| open > 0)?;
        let place = match lex {
            Lex::Text => Place::Text,
            Lex::Markup => Place::Markup,
            Lex::Name { .. }
            | Lex::Tag { .. }
            | Lex::Attribute { .. }
            | Lex::Equals
            | Lex::Quote => Place::Tag { slash: false },
            Lex::Empty => Place::Tag { slash: true },
            Lex::Value { quote, .. } => Place::Value { quote },
            Lex::End | Lex::EndSpace => Place::End,
            Lex::Bang => Place::Bang { matched: 0 },
            Lex::Section => Place::Section { brackets: 0 },
            Lex::Between | Lex::Declaration => return None,
        };
        let word = |value: Option<Value>| {
            let text = value?.text(buf);
            (text.len() <= WORD_BYTES).then(|| text.into())
        };
        let address = |value: Option<Value>| {
            let text = value?.text(buf);
            Some(text[..text.floor_char_boundary(ADDRESS_BYTES)].into())
        };
        Some(Self {
            what: SkipSubject::Stanza(FaultyStanza {
                kind,
                from: address(top.from),
                to: address(top.to),
                type_: word(top.type_),
                id: word(top.id),
                error,
            }),
            place,
            depth: u32::try_from(open).unwrap_or(u32::MAX),
            bytes: 0,
        })
    }

    /// As [`Self::from_pass`], where the pass stood in the start tag of the element: `tag` is what it
    /// saw of that, from its first byte on.
    pub(super) fn from_start_tag(
        tag: &[u8],
        header: Arc<StreamHeader>,
        error: XmlError,
    ) -> Option<Self> {
        let mut start = StartTag::new(header, error);
        // Its `<` is not of its name.
        for &byte in tag.get(1..)? {
            start.take(byte).ok()?;
        }
        Some(Self {
            what: SkipSubject::Start(Box::new(start)),
            place: Place::Tag { slash: false },
            depth: 0,
            bytes: 0,
        })
    }

    /// Looks at more bytes, at least one. An error is that of the first of them: what comes before a
    /// fault is taken first, so that how the bytes were cut changes nothing.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<Skipped, XmlError> {
        let bytes = &bytes[..bytes.len().min(MOST_SKIPPED - self.bytes)];
        if bytes.is_empty() {
            return Err(XmlError::TooLarge);
        }
        let mut at = 0;
        while at < bytes.len() {
            match self.step(&bytes[at..]) {
                Ok(len) => at += len,
                Err(error) if at == 0 => return Err(error),
                Err(_) => break,
            }
            if self.depth == 0 {
                match &self.what {
                    SkipSubject::Start(_) => {}
                    SkipSubject::Stanza(stanza) => return Ok(Skipped::All(at, Ok(stanza.clone()))),
                    SkipSubject::Unknown(error) => return Ok(Skipped::All(at, Err(*error))),
                }
            }
        }
        self.bytes += at;
        Ok(Skipped::Part(at))
    }

    /// Takes the next byte, or all up to one that means something.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, XmlError> {
        let byte = bytes[0];
        if let SkipSubject::Start(start) = &mut self.what {
            if let Some(ended) = start.take(byte)? {
                let empty = match &ended {
                    StartTagEnd::Stanza { empty, .. } | StartTagEnd::Unknown { empty } => *empty,
                };
                self.what = match ended {
                    StartTagEnd::Stanza { stanza, .. } => SkipSubject::Stanza(stanza),
                    StartTagEnd::Unknown { .. } => SkipSubject::Unknown(start.error()),
                };
                self.depth = u32::from(!empty);
                self.place = Place::Text;
            }
            return Ok(1);
        }
        let mut taken = 1;
        self.place = match self.place {
            Place::Text => match memchr::memchr(b'<', bytes) {
                Some(found) => {
                    taken = found + 1;
                    Place::Markup
                }
                None => {
                    taken = bytes.len();
                    Place::Text
                }
            },
            Place::Markup => match byte {
                b'/' => Place::End,
                b'!' => Place::Bang { matched: 0 },
                b'?' => return Err(XmlError::ProcessingInstruction),
                _ if chars::starts_name(byte) || byte >= 0x80 => Place::Tag { slash: false },
                _ => return Err(XmlError::Markup),
            },
            Place::Tag { slash } => match byte {
                b'>' => {
                    if !slash {
                        self.depth = self.depth.saturating_add(1);
                    }
                    Place::Text
                }
                b'\'' | b'"' => Place::Value { quote: byte },
                b'<' => return Err(XmlError::Markup),
                _ => Place::Tag {
                    slash: byte == b'/',
                },
            },
            Place::Value { quote } => match memchr::memchr(quote, bytes) {
                Some(found) => {
                    taken = found + 1;
                    Place::Tag { slash: false }
                }
                None => {
                    taken = bytes.len();
                    Place::Value { quote }
                }
            },
            Place::End => match byte {
                b'>' => {
                    self.depth -= 1;
                    Place::Text
                }
                b'<' => return Err(XmlError::EndTag),
                _ => Place::End,
            },
            Place::Bang { matched } => {
                const START: &[u8] = b"[CDATA[";
                match START.get(usize::from(matched)) {
                    Some(&wanted) if wanted == byte => match matched + 1 {
                        7 => Place::Section { brackets: 0 },
                        matched => Place::Bang { matched },
                    },
                    _ if matched == 0 && byte == b'-' => return Err(XmlError::Comment),
                    _ if matched == 0 => return Err(XmlError::DocumentType),
                    _ => return Err(XmlError::Markup),
                }
            }
            Place::Section { brackets } => match byte {
                b']' => Place::Section {
                    brackets: (brackets + 1).min(2),
                },
                b'>' if brackets == 2 => Place::Text,
                _ => Place::Section { brackets: 0 },
            },
        };
        Ok(taken)
    }
}

#[cfg(test)]
mod tests;
