//! The one pass over what a peer sends: lexes, checks against restricted XML and the limits, and
//! finds where each element of the stream ends.
//!
//! Bytes may come in any pieces: the state of the pass is kept, nothing is looked at twice but the
//! few bytes of a name, a reference or a character that was cut off. No tree, no policy, no I/O.

// Lengths of one element, below 4 GiB by `MOST_BYTES`, or of names and counts that the limits bound.
#![allow(clippy::cast_possible_truncation)]

mod chars;
mod grammar;
mod parts;
mod pattern;
mod patterns;
mod scope;
mod skip;
mod span;
mod tags;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use self::skip::{FaultyStanza, MOST_SKIPPED};
use self::{
    parts::{AttributeKinds, AttributeSpan, Found, Lex, NO_TOP, Open, ScanPhase, Top, Value},
    patterns::Patterns,
    scope::Scope,
    skip::{Skip, Skipped},
    span::{MOST_BYTES, Span},
};
use super::{
    Limits, StreamHeader, XmlError, header,
    stanza::{Child, Form, PatternNumber, Stanza},
};

/// What comes next in a stream. The first `len()` bytes of the buffer are taken by it.
#[derive(Clone, Debug)]
pub enum Item<'a> {
    /// White space between elements: a keep-alive. Or the XML declaration, of a stream that begins with
    /// another element than its header.
    Whitespace { len: usize },
    /// The XML declaration, if any, and the stream's start tag.
    Header {
        len: usize,
        header: Arc<StreamHeader>,
    },
    /// `</stream:stream>`
    Close { len: usize },
    /// `message`, `presence` or `iq` of `jabber:server`.
    Stanza(Stanza<'a>),
    /// Any other element.
    Other(Other<'a>),
    /// Bytes of a stanza that broke a limit. More of them follow, or [`Item::Faulty`].
    Skipped { len: usize },
    /// The last bytes of a stanza that broke a limit.
    Faulty { len: usize, stanza: FaultyStanza },
    /// As `Faulty`, of an element that is named as a stanza is and whose start tag cannot be read: nobody
    /// knows whom to answer.
    Dropped { len: usize, error: XmlError },
}

impl Item<'_> {
    /// Bytes that the item takes.
    pub fn len(&self) -> usize {
        match self {
            Self::Whitespace { len }
            | Self::Header { len, .. }
            | Self::Close { len }
            | Self::Skipped { len }
            | Self::Faulty { len, .. }
            | Self::Dropped { len, .. } => *len,
            Self::Stanza(stanza) => stanza.text.len(),
            Self::Other(other) => other.bytes.len(),
        }
    }

    /// Never: an item takes at least one byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A checked top-level element that is no stanza: negotiation, dialback, acknowledgements, errors.
/// [`Element::parse`](super::Element::parse) makes a tree of it.
#[derive(Clone, Debug)]
pub struct Other<'a> {
    pub bytes: &'a [u8],
    /// Namespace name; empty for none.
    pub namespace: &'a str,
    /// Local name.
    pub name: &'a str,
}

/// Frames and checks one direction of one stream.
#[derive(Debug)]
pub struct Scanner {
    limits: Limits,
    phase: ScanPhase,
    lex: Lex,
    /// First byte of the buffer not yet looked at.
    at: usize,
    failed: Option<XmlError>,
    /// Whether a stanza that breaks a limit is skipped, and does not end the stream.
    skips: bool,
    skip: Option<Box<Skip>>,
    attributes: Vec<AttributeSpan>,
    kinds: AttributeKinds,
    open: Vec<Open>,
    scope: Scope,
    children: Vec<Child>,
    /// Namespace declarations in the top-level element so far.
    declarations: u16,
    /// Those of the start tag at hand.
    own_declarations: u16,
    /// The start tag at hand.
    name: Span,
    /// Length of its prefix; 0 for none.
    prefix: u16,
    top: Top,
    /// Once a stanza came.
    patterns: Option<Box<Patterns>>,
}

impl Scanner {
    /// A scanner at the very beginning of a stream.
    pub fn new(limits: Limits) -> Self {
        let mut scanner = Self {
            limits,
            phase: ScanPhase::Prolog,
            lex: Lex::Between,
            at: 0,
            failed: None,
            skips: false,
            skip: None,
            attributes: Vec::new(),
            kinds: AttributeKinds::default(),
            open: Vec::new(),
            scope: Scope::default(),
            children: Vec::new(),
            declarations: 0,
            own_declarations: 0,
            name: Span::default(),
            prefix: 0,
            top: NO_TOP,
            patterns: None,
        };
        scanner.set_stanza_bytes(limits.stanza_bytes);
        scanner
    }

    /// Changes the largest element taken, from the byte at hand on: peers get more once they are
    /// authenticated.
    pub fn set_stanza_bytes(&mut self, bytes: usize) {
        self.limits.stanza_bytes = bytes.min(MOST_BYTES);
    }

    /// Changes all limits between two elements.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.set_stanza_bytes(limits.stanza_bytes);
        // They were right within the limits of before.
        self.patterns = None;
    }

    /// From here on a stanza that breaks a limit is an item, and the stream goes on behind it: once the
    /// peer is authenticated.
    pub fn skip_faulty(&mut self) {
        self.skips = true;
    }

    /// A new stream begins with the next byte (RFC 6120 section 4.3.3: after TLS, after SASL).
    pub fn restart(&mut self) {
        *self = Self::new(self.limits);
    }

    /// The header of the stream, once it came.
    pub fn header(&self) -> Option<&Arc<StreamHeader>> {
        self.scope.header.as_ref()
    }

    /// Whether a part of an element was seen whose end was not: the stream ended amid it.
    pub fn in_element(&self) -> bool {
        !matches!(self.lex, Lex::Between) || self.skip.is_some()
    }

    /// Gives back memory that only busy streams need. To be called when a stream falls silent;
    /// without effect amid an element.
    pub fn release(&mut self) {
        if !self.in_element() {
            self.attributes = Vec::new();
            self.open = Vec::new();
            self.children = Vec::new();
            self.scope.clear();
            self.scope.release();
            self.patterns = None;
        }
    }

    /// The next item. `buf` starts at the first byte not yet taken and holds all that came since.
    ///
    /// `Ok(None)`: call again with the same bytes and more; what was looked at is not looked at
    /// again. After an item the caller drops [`Item::len`] bytes from the front. An error is final.
    pub fn next<'a>(&'a mut self, buf: &'a [u8]) -> Result<Option<Item<'a>>, XmlError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.skip.is_some() {
            return self
                .skip_on(buf)
                .inspect_err(|error| self.failed = Some(*error));
        }
        if let Some((found, pattern)) = self.by_pattern(buf) {
            return Ok(Some(self.item(buf, found, Some(pattern))));
        }
        match self.advance(buf) {
            Ok(None) => Ok(None),
            Ok(Some(found)) => {
                self.learn(buf, found);
                Ok(Some(self.item(buf, found, None)))
            }
            Err(error) => match self.way_past(buf, error) {
                Some(skip) => {
                    self.skip = Some(Box::new(skip));
                    let len = self.at;
                    self.at = 0;
                    self.lex = Lex::Between;
                    Ok(Some(Item::Skipped { len }))
                }
                None => {
                    self.failed = Some(error);
                    Err(error)
                }
            },
        }
    }

    /// The stanza at the start of `buf`, where it fits a pattern.
    #[inline]
    fn by_pattern(&mut self, buf: &[u8]) -> Option<(Found, PatternNumber)> {
        let patterns = self.patterns.as_deref_mut()?;
        let is_start = self.at == 0 && matches!(self.lex, Lex::Between);
        if !is_start || self.phase != ScanPhase::Stream || buf.first() != Some(&b'<') {
            return None;
        }
        let window = &buf[..buf.len().min(self.limits.stanza_bytes)];
        self.scope.clear();
        let prefixes = &mut self.scope.header_prefixes;
        let into = (&mut self.top, &mut self.children, prefixes);
        let (len, pattern) = patterns.find(window, into)?;
        let found = Found::Element(len);
        debug_assert!(self.confirms(buf, found), "the pass finds the same");
        Some((found, pattern))
    }

    /// Whether the pass finds the same of the stanza.
    fn confirms(&mut self, buf: &[u8], found: Found) -> bool {
        let (top, children) = (self.top, std::mem::take(&mut self.children));
        let prefixes = self.scope.header_prefixes;
        let pass = self.advance(buf);
        (self.at, self.lex) = (0, Lex::Between);
        matches!((pass, found), (Ok(Some(Found::Element(a))), Found::Element(b)) if a == b)
            && self.top.is_as(&top)
            && self.children == children
            && self.scope.header_prefixes == prefixes
    }

    fn learn(&mut self, buf: &[u8], found: Found) {
        let Found::Element(len) = found else {
            return;
        };
        if self.top.kind.is_none() {
            return;
        }
        let prefixes = self.scope.header_prefixes;
        let patterns = self.patterns.get_or_insert_default();
        patterns.missed(&buf[..len], (&self.top, &self.children, prefixes));
    }

    /// The way past the element at hand, where `error` is its own and need not end the stream.
    fn way_past(&self, buf: &[u8], error: XmlError) -> Option<Skip> {
        if !self.skips || !error.is_of_one_stanza() || self.phase != ScanPhase::Stream {
            return None;
        }
        if !self.open.is_empty() {
            return Skip::from_pass(buf, (&self.top, self.open.len(), self.lex), error);
        }
        let header = Arc::clone(self.scope.header.as_ref()?);
        Skip::from_start_tag(buf.get(..self.at)?, header, error)
    }

    fn skip_on<'a>(&mut self, buf: &[u8]) -> Result<Option<Item<'a>>, XmlError> {
        let Some(mut skip) = self.skip.take() else {
            return Ok(None);
        };
        if buf.is_empty() {
            self.skip = Some(skip);
            return Ok(None);
        }
        Ok(Some(match skip.advance(buf)? {
            Skipped::All(len, Ok(stanza)) => Item::Faulty { len, stanza },
            Skipped::All(len, Err(error)) => Item::Dropped { len, error },
            Skipped::Part(len) => {
                self.skip = Some(skip);
                Item::Skipped { len }
            }
        }))
    }

    #[inline]
    fn item<'a>(
        &'a mut self,
        buf: &'a [u8],
        found: Found,
        pattern: Option<PatternNumber>,
    ) -> Item<'a> {
        self.at = 0;
        self.lex = Lex::Between;
        match found {
            Found::Whitespace(len) => Item::Whitespace { len },
            Found::Close(len) => Item::Close { len },
            Found::Header(len) => {
                let header = self.scope.header.clone().unwrap_or_default();
                Item::Header { len, header }
            }
            Found::Element(len) => {
                let bytes = &buf[..len];
                let top = &self.top;
                let Some(kind) = top.kind else {
                    return Item::Other(Other {
                        bytes,
                        namespace: self.scope.text(bytes, top.namespace),
                        name: top.name.str(bytes),
                    });
                };
                // Checked by the pass, character by character; once more for all that is read of it.
                let text = simdutf8::basic::from_utf8(bytes).unwrap_or_default();
                let value = |value: Option<Value>| value.map(|value| value.of(text));
                Item::Stanza(Stanza {
                    text,
                    kind,
                    from: value(top.from),
                    to: value(top.to),
                    type_: value(top.type_),
                    id: value(top.id),
                    start_tag: top.start_tag as usize,
                    form: Form {
                        header_prefixes: self.scope.header_prefixes,
                        ..top.form
                    },
                    pattern,
                    children: &self.children,
                })
            }
        }
    }
}
