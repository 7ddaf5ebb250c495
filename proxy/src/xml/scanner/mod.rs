//! The one pass over what a peer sends: lexes, checks against restricted XML and the limits, and
//! finds where each element of the stream ends.
//!
//! Bytes may come in any pieces: the state of the pass is kept, nothing is looked at twice but the
//! few bytes of a name, a reference or a character that was cut off. No tree, no policy, no I/O.

mod chars;
mod scope;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, sync::Arc};

use self::scope::{Name, Scope};
use super::{
    Limits, StreamHeader, XmlError, header,
    stanza::{Child, ChildNamespace, Form, Stanza, StanzaKind},
    text,
};

/// What comes next in a stream. The first `len()` bytes of the buffer are taken by it.
#[derive(Clone, Debug)]
pub enum Item<'a> {
    /// White space between elements: a keep-alive.
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
}

impl Item<'_> {
    /// Bytes that the item takes.
    pub fn len(&self) -> usize {
        match self {
            Self::Whitespace { len } | Self::Header { len, .. } | Self::Close { len } => *len,
            Self::Stanza(stanza) => stanza.bytes.len(),
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

/// A range of the bytes of the element at hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Both are below [`MOST_BYTES`].
    fn new(start: usize, end: usize) -> Self {
        Self {
            start: start as u32,
            end: end as u32,
        }
    }

    fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }

    fn is_empty(self) -> bool {
        self.start == self.end
    }

    fn bytes(self, buf: &[u8]) -> &[u8] {
        &buf[self.range()]
    }

    /// Only for what the pass has checked.
    fn str(self, buf: &[u8]) -> &str {
        std::str::from_utf8(self.bytes(buf)).unwrap_or_default()
    }
}

/// Positions are kept in 32 bits.
const MOST_BYTES: usize = u32::MAX as usize / 2;

/// Prefixes of a stream header, so that those used fit a 64-bit set.
const HEADER_PREFIXES: u16 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Before the header.
    Prolog,
    Stream,
    Ended,
}

/// Where in the grammar the pass stands. Positions are in `Scanner::at`.
#[derive(Clone, Copy, Debug)]
enum Lex {
    /// Between top-level elements, at the first byte not taken.
    Between,
    /// After `<`.
    Markup,
    /// After `<?`.
    Declaration,
    /// In an element's name, which began there.
    Name { start: u32 },
    /// In a start tag; `spaced` if white space was just seen.
    Tag { spaced: bool },
    /// In an attribute's name, which began there.
    Attribute { start: u32 },
    /// After an attribute's name, before `=`.
    Equals,
    /// After `=`.
    Quote,
    /// In a value that began there.
    Value { quote: u8, start: u32 },
    /// After the `/` of an empty element.
    Empty,
    /// After `</`.
    End,
    /// After the name of an end tag.
    EndSpace,
    /// After `<!`.
    Bang,
    /// In a CDATA section.
    Section,
    /// In character data.
    Text,
}

/// One attribute of the start tag at hand.
#[derive(Clone, Copy, Debug, Default)]
struct Attribute {
    name: Span,
    value: Span,
    /// Length of the prefix; 0 for none.
    prefix: u16,
    /// References or white space that change the value.
    changed: bool,
    /// What the prefix means, once resolved.
    namespace: Option<Name>,
}

impl Attribute {
    fn prefix(&self) -> Span {
        Span {
            start: self.name.start,
            end: self.name.start + u32::from(self.prefix),
        }
    }

    fn local(&self) -> Span {
        let skipped = if self.prefix == 0 {
            0
        } else {
            u32::from(self.prefix) + 1
        };
        Span {
            start: self.name.start + skipped,
            end: self.name.end,
        }
    }

    fn meaning(&self) -> Value {
        Value {
            raw: self.value,
            changed: self.changed,
        }
    }
}

/// An attribute's value, to be read when the element is complete.
#[derive(Clone, Copy, Debug)]
struct Value {
    raw: Span,
    changed: bool,
}

impl Value {
    fn text(self, buf: &[u8]) -> Cow<'_, str> {
        let raw = self.raw.str(buf);
        if self.changed {
            text::attribute_value(raw)
        } else {
            Cow::Borrowed(raw)
        }
    }
}

/// An element that is open.
#[derive(Clone, Copy, Debug)]
struct Open {
    name: Span,
    /// Where [`Scope::leave`] returns to.
    mark: u16,
}

/// What is known of the top-level element at hand.
#[derive(Clone, Copy, Debug)]
struct Top {
    kind: Option<StanzaKind>,
    name: Span,
    namespace: Name,
    start_tag: u32,
    from: Option<Value>,
    to: Option<Value>,
    type_: Option<Value>,
    id: Option<Value>,
    form: Form,
}

const NO_TOP: Top = Top {
    kind: None,
    name: Span { start: 0, end: 0 },
    namespace: Name::None,
    start_tag: 0,
    from: None,
    to: None,
    type_: None,
    id: None,
    form: Form {
        prefixed: false,
        header_prefixes: 0,
        has_lang: false,
        has_section: false,
        has_reference: false,
    },
};

/// What a step of the pass found; becomes an [`Item`].
#[derive(Clone, Copy, Debug)]
enum Found {
    Whitespace(usize),
    Header(usize),
    Close(usize),
    Element(usize),
}

/// Frames and checks one direction of one stream.
#[derive(Debug)]
pub struct Scanner {
    limits: Limits,
    phase: Phase,
    lex: Lex,
    /// First byte of the buffer not yet looked at.
    at: usize,
    failed: Option<XmlError>,
    attributes: Vec<Attribute>,
    open: Vec<Open>,
    scope: Scope,
    children: Vec<Child>,
    /// Namespace declarations in the top-level element so far.
    declarations: u16,
    /// The start tag at hand.
    name: Span,
    /// Length of its prefix; 0 for none.
    prefix: u16,
    top: Top,
}

impl Scanner {
    /// A scanner at the very beginning of a stream.
    pub fn new(limits: Limits) -> Self {
        let mut scanner = Self {
            limits,
            phase: Phase::Prolog,
            lex: Lex::Between,
            at: 0,
            failed: None,
            attributes: Vec::new(),
            open: Vec::new(),
            scope: Scope::default(),
            children: Vec::new(),
            declarations: 0,
            name: Span::default(),
            prefix: 0,
            top: NO_TOP,
        };
        scanner.set_stanza_bytes(limits.stanza_bytes);
        scanner
    }

    /// Changes the largest element taken, from the byte at hand on: peers get more once they are
    /// authenticated.
    pub fn set_stanza_bytes(&mut self, bytes: usize) {
        self.limits.stanza_bytes = bytes.min(MOST_BYTES);
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
        !matches!(self.lex, Lex::Between)
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
        match self.advance(buf) {
            Ok(None) => Ok(None),
            Ok(Some(found)) => Ok(Some(self.item(buf, found))),
            Err(error) => {
                self.failed = Some(error);
                Err(error)
            }
        }
    }

    fn item<'a>(&'a mut self, buf: &'a [u8], found: Found) -> Item<'a> {
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
                let top = self.top;
                let value = |value: Option<Value>| value.map(|value| value.text(bytes));
                match top.kind {
                    Some(kind) => Item::Stanza(Stanza {
                        bytes,
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
                        children: &self.children,
                    }),
                    None => Item::Other(Other {
                        bytes,
                        namespace: self.scope.text(bytes, top.namespace),
                        name: top.name.str(bytes),
                    }),
                }
            }
        }
    }

    /// Looks at the bytes from `self.at` on until something is complete or they are used up.
    fn advance(&mut self, buf: &[u8]) -> Result<Option<Found>, XmlError> {
        // Nothing past the limit is ever looked at, so the outcome does not depend on how the bytes
        // were cut.
        let window = &buf[..buf.len().min(self.limits.stanza_bytes)];
        let used_up = |at: usize| {
            debug_assert!(at <= window.len());
            if window.len() < buf.len() {
                Err(XmlError::TooLarge)
            } else {
                Ok(None)
            }
        };
        loop {
            let at = self.at;
            let Some(&byte) = window.get(at) else {
                return used_up(at);
            };
            match self.lex {
                Lex::Between => {
                    if at == 0 && chars::is_space(byte) {
                        let len = buf
                            .iter()
                            .position(|&byte| !chars::is_space(byte))
                            .unwrap_or(buf.len());
                        return Ok(Some(Found::Whitespace(len)));
                    }
                    self.begin(byte)?;
                }
                Lex::Markup => {
                    self.lex = match byte {
                        b'/' => Lex::End,
                        b'!' => Lex::Bang,
                        b'?' => Lex::Declaration,
                        _ if self.open.len() >= usize::from(self.limits.depth) => {
                            return Err(XmlError::TooDeep);
                        }
                        _ if chars::starts_name(byte) => Lex::Name { start: at as u32 },
                        // UTF-16 with its low byte first.
                        0 if self.phase == Phase::Prolog => return Err(XmlError::Encoding),
                        0x80.. => {
                            return Err(exotic(byte));
                        }
                        _ => return Err(XmlError::Markup),
                    };
                    self.at += 1;
                }
                Lex::Name { start } => match self.name_end(window, start as usize)? {
                    None => return used_up(self.at),
                    Some(prefix) => {
                        self.name = Span::new(start as usize, self.at);
                        self.prefix = prefix;
                        self.attributes.clear();
                        self.lex = Lex::Tag { spaced: false };
                    }
                },
                Lex::Tag { spaced } => match byte {
                    b'>' => {
                        self.at += 1;
                        if let Some(found) = self.start_tag(window, false)? {
                            return Ok(Some(found));
                        }
                    }
                    b'/' => {
                        self.at += 1;
                        self.lex = Lex::Empty;
                    }
                    _ if chars::is_space(byte) => {
                        self.at += 1;
                        self.lex = Lex::Tag { spaced: true };
                    }
                    _ if chars::starts_name(byte) => {
                        if !spaced {
                            return Err(XmlError::MissingSpace);
                        }
                        if self.attributes.len() >= usize::from(self.limits.attributes) {
                            return Err(XmlError::TooManyAttributes);
                        }
                        if !self.plain_attribute(window)? {
                            self.lex = Lex::Attribute { start: at as u32 };
                        }
                    }
                    0x80.. => return Err(exotic(byte)),
                    _ => return Err(XmlError::Markup),
                },
                Lex::Attribute { start } => match self.name_end(window, start as usize)? {
                    None => return used_up(self.at),
                    Some(prefix) => {
                        self.push_attribute(window, start as usize, prefix)?;
                        self.lex = Lex::Equals;
                    }
                },
                Lex::Equals => {
                    self.at += 1;
                    match byte {
                        b'=' => self.lex = Lex::Quote,
                        _ if chars::is_space(byte) => {}
                        _ => return Err(XmlError::Markup),
                    }
                }
                Lex::Quote => {
                    self.at += 1;
                    match byte {
                        b'\'' | b'"' => {
                            self.lex = Lex::Value {
                                quote: byte,
                                start: self.at as u32,
                            }
                        }
                        _ if chars::is_space(byte) => {}
                        _ => return Err(XmlError::Markup),
                    }
                }
                Lex::Value { quote, start } => {
                    let at = chars::skip_plain(window, at, chars::stops_value(quote));
                    self.at = at;
                    let Some(&byte) = window.get(at) else {
                        return used_up(at);
                    };
                    match byte {
                        b'\'' | b'"' => {
                            self.at += 1;
                            if let Some(attribute) = self.attributes.last_mut() {
                                attribute.value = Span::new(start as usize, at);
                            }
                            self.lex = Lex::Tag { spaced: false };
                        }
                        b'<' => return Err(XmlError::LessThanInAttribute),
                        b'&' => match chars::reference(window, at)? {
                            None => return used_up(at),
                            Some(len) => {
                                self.at += len;
                                self.value_changes();
                            }
                        },
                        b'\t' | b'\n' | b'\r' => {
                            self.at += 1;
                            self.value_changes();
                        }
                        _ => match beyond_ascii(window, at)? {
                            None => return used_up(at),
                            Some(end) => self.at = end,
                        },
                    }
                }
                Lex::Empty => {
                    if byte != b'>' {
                        return Err(XmlError::Markup);
                    }
                    self.at += 1;
                    if let Some(found) = self.start_tag(window, true)? {
                        return Ok(Some(found));
                    }
                }
                Lex::End => {
                    if !self.end_name(window)? {
                        return used_up(self.at);
                    }
                }
                Lex::EndSpace => {
                    self.at += 1;
                    match byte {
                        b'>' => {
                            if let Some(found) = self.end_tag() {
                                return Ok(Some(found));
                            }
                        }
                        _ if chars::is_space(byte) => {}
                        _ => return Err(XmlError::EndTag),
                    }
                }
                Lex::Text => {
                    let at = chars::skip_plain(window, at, chars::STOPS_TEXT);
                    self.at = at;
                    let Some(&byte) = window.get(at) else {
                        return used_up(at);
                    };
                    match byte {
                        b'<' => {
                            self.at += 1;
                            self.lex = Lex::Markup;
                        }
                        b'&' => match chars::reference(window, at)? {
                            None => return used_up(at),
                            Some(len) => {
                                self.at += len;
                                self.top.form.has_reference = true;
                            }
                        },
                        b']' => match &window[at + 1..] {
                            [b']', b'>', ..] => return Err(XmlError::SectionEndInText),
                            [] | [b']'] => return used_up(at),
                            _ => self.at += 1,
                        },
                        _ => match beyond_ascii(window, at)? {
                            None => return used_up(at),
                            Some(end) => self.at = end,
                        },
                    }
                }
                Lex::Section => {
                    let at = chars::skip_plain(window, at, chars::STOPS_SECTION);
                    self.at = at;
                    let Some(&byte) = window.get(at) else {
                        return used_up(at);
                    };
                    match byte {
                        b']' => match &window[at + 1..] {
                            [b']', b'>', ..] => {
                                self.at += 3;
                                self.lex = Lex::Text;
                            }
                            [] | [b']'] => return used_up(at),
                            _ => self.at += 1,
                        },
                        _ => match beyond_ascii(window, at)? {
                            None => return used_up(at),
                            Some(end) => self.at = end,
                        },
                    }
                }
                Lex::Bang => match section_start(&window[at..])? {
                    None => return used_up(at),
                    Some(_) if self.open.is_empty() => return Err(XmlError::TextBetweenStanzas),
                    Some(len) => {
                        self.at += len;
                        self.top.form.has_section = true;
                        self.lex = Lex::Section;
                    }
                },
                Lex::Declaration => match self.declaration(window)? {
                    None => return used_up(at),
                    Some(len) => {
                        self.at = len;
                        self.lex = Lex::Between;
                    }
                },
            }
        }
    }

    /// The first byte of a top-level element, or of what follows the XML declaration.
    fn begin(&mut self, byte: u8) -> Result<(), XmlError> {
        match byte {
            b'<' => {}
            _ if chars::is_space(byte) => {
                self.at += 1;
                return Ok(());
            }
            _ if self.phase == Phase::Ended => return Err(XmlError::AfterEnd),
            // Both byte order marks of UTF-16, and UTF-16 and UTF-32 without one.
            0xff | 0xfe | 0 if self.phase == Phase::Prolog => return Err(XmlError::Encoding),
            0x80.. => return Err(exotic(byte).text_between()),
            0..b' ' => return Err(XmlError::ForbiddenCharacter),
            _ => return Err(XmlError::TextBetweenStanzas),
        }
        if self.phase == Phase::Ended {
            return Err(XmlError::AfterEnd);
        }
        if self.at == 0 {
            self.declarations = 0;
            self.children.clear();
            self.open.clear();
            self.scope.clear();
            self.top = NO_TOP;
        }
        self.at += 1;
        self.lex = Lex::Markup;
        Ok(())
    }

    /// Goes to the end of the name that began at `start` and gives the length of its prefix; `None`
    /// while the name is cut off.
    fn name_end(&mut self, window: &[u8], start: usize) -> Result<Option<u16>, XmlError> {
        let most = usize::from(self.limits.name_bytes);
        while let Some(&byte) = window.get(self.at) {
            if !chars::continues_name(byte) && byte != b':' {
                if byte >= 0x80 {
                    return Err(exotic(byte));
                }
                return qualified(&window[start..self.at]).map(Some);
            }
            self.at += 1;
            if self.at - start > most {
                return Err(XmlError::NameTooLong);
            }
        }
        Ok(None)
    }

    /// Takes the name of an attribute, which ends at `self.at`.
    fn push_attribute(&mut self, window: &[u8], start: usize, prefix: u16) -> Result<(), XmlError> {
        let attribute = Attribute {
            name: Span::new(start, self.at),
            prefix,
            ..Attribute::default()
        };
        if is_declaration(&attribute, window) {
            self.declarations += 1;
            let most = match self.phase {
                Phase::Prolog => self.limits.namespaces.min(HEADER_PREFIXES),
                _ => self.limits.namespaces,
            };
            if self.declarations > most {
                return Err(XmlError::TooManyNamespaces);
            }
        }
        self.attributes.push(attribute);
        Ok(())
    }

    /// The short way for what nearly all attributes are: all there, nothing to resolve. False, with
    /// nothing taken, for any other.
    fn plain_attribute(&mut self, window: &[u8]) -> Result<bool, XmlError> {
        let start = self.at;
        let most = usize::from(self.limits.name_bytes);
        let name = chars::name_length(&window[start..], most);
        let [b'=', quote @ (b'\'' | b'"'), ..] = window[start + name..] else {
            return Ok(false);
        };
        let value = start + name + 2;
        let end = chars::skip_plain(window, value, chars::stops_value(quote));
        if window.get(end) != Some(&quote) {
            return Ok(false);
        }
        let prefix = qualified(&window[start..start + name])?;
        self.at = start + name;
        self.push_attribute(window, start, prefix)?;
        if let Some(attribute) = self.attributes.last_mut() {
            attribute.value = Span::new(value, end);
        }
        self.at = end + 1;
        self.lex = Lex::Tag { spaced: false };
        Ok(true)
    }

    fn value_changes(&mut self) {
        if let Some(attribute) = self.attributes.last_mut() {
            attribute.changed = true;
        }
    }

    /// The start tag that ends at `self.at` is complete.
    fn start_tag(&mut self, window: &[u8], empty: bool) -> Result<Option<Found>, XmlError> {
        let mark = self.scope.mark();
        self.check_attributes(window)?;
        let prefix = Span {
            start: self.name.start,
            end: self.name.start + u32::from(self.prefix),
        };
        let local = match self.prefix {
            0 => self.name,
            prefix => Span {
                start: self.name.start + u32::from(prefix) + 1,
                end: self.name.end,
            },
        };
        let namespace = if self.prefix != 0 {
            Some(self.scope.resolve(window, prefix)?)
        } else if self.open.len() < 2 {
            Some(self.scope.default_name())
        } else {
            // Nobody asks for the namespace of what is nested deeper.
            None
        };
        self.check_expanded(window)?;
        if self.phase == Phase::Prolog {
            return self.stream_start(window, local, namespace, empty).map(Some);
        }
        match (self.open.len(), namespace) {
            (0, Some(namespace)) => self.top_start(window, local, namespace),
            (1, Some(namespace)) => {
                let namespace = match namespace {
                    Name::Server => ChildNamespace::Server,
                    Name::Bytes(span) => ChildNamespace::Declared {
                        start: span.start,
                        end: span.end,
                    },
                    Name::None => ChildNamespace::Declared { start: 0, end: 0 },
                    other => ChildNamespace::Other(self.scope.text(window, other).into()),
                };
                self.children.push(Child {
                    start: self.name.start - 1,
                    end: self.at as u32,
                    name_start: local.start,
                    name_end: local.end,
                    namespace,
                });
            }
            _ => {}
        }
        self.open.push(Open {
            name: self.name,
            mark,
        });
        self.lex = Lex::Text;
        Ok(if empty { self.end_tag() } else { None })
    }

    /// Raw names are unique; namespace declarations come into force.
    fn check_attributes(&mut self, window: &[u8]) -> Result<(), XmlError> {
        for index in 0..self.attributes.len() {
            let attribute = self.attributes[index];
            let name = attribute.name.bytes(window);
            let twice = self.attributes[..index].iter().any(|other| {
                let other = other.name.bytes(window);
                other.len() == name.len() && other[0] == name[0] && other == name
            });
            if twice {
                return Err(XmlError::DuplicateAttribute);
            }
            let prefix = match attribute.prefix {
                0 if name == b"xmlns" => Span::default(),
                5 if name.starts_with(b"xmlns") => attribute.local(),
                _ => continue,
            };
            if attribute.value.range().len() > usize::from(self.limits.name_bytes) {
                return Err(XmlError::NameTooLong);
            }
            self.scope
                .declare(window, prefix, attribute.value, attribute.changed)?;
        }
        Ok(())
    }

    /// Prefixes of attributes are declared, and no two attributes mean the same name.
    fn check_expanded(&mut self, window: &[u8]) -> Result<(), XmlError> {
        for index in 0..self.attributes.len() {
            let attribute = self.attributes[index];
            if attribute.prefix == 0 || is_declaration(&attribute, window) {
                continue;
            }
            let namespace = self.scope.resolve(window, attribute.prefix())?;
            self.attributes[index].namespace = Some(namespace);
            let twice = self.attributes[..index].iter().any(|other| {
                other.local().bytes(window) == attribute.local().bytes(window)
                    && other.namespace.is_some_and(|other| {
                        self.scope.text(window, other) == self.scope.text(window, namespace)
                    })
            });
            if twice {
                return Err(XmlError::DuplicateAttribute);
            }
        }
        Ok(())
    }

    fn top_start(&mut self, window: &[u8], local: Span, namespace: Name) {
        let mut top = Top {
            name: local,
            namespace,
            start_tag: self.at as u32,
            ..NO_TOP
        };
        if namespace == Name::Server {
            top.kind = match local.bytes(window) {
                b"message" => Some(StanzaKind::Message),
                b"presence" => Some(StanzaKind::Presence),
                b"iq" => Some(StanzaKind::Iq),
                _ => None,
            };
        }
        if top.kind.is_some() {
            for attribute in &self.attributes {
                match attribute.name.bytes(window) {
                    b"from" => top.from = Some(attribute.meaning()),
                    b"to" => top.to = Some(attribute.meaning()),
                    b"type" => top.type_ = Some(attribute.meaning()),
                    b"id" => top.id = Some(attribute.meaning()),
                    b"xml:lang" => top.form.has_lang = true,
                    _ => {}
                }
            }
        }
        top.form.prefixed = self.prefix != 0;
        self.top = top;
    }

    fn stream_start(
        &mut self,
        window: &[u8],
        local: Span,
        namespace: Option<Name>,
        empty: bool,
    ) -> Result<Found, XmlError> {
        let namespace = namespace.unwrap_or(Name::None);
        let namespace = self.scope.text(window, namespace);
        StreamHeader::check_root(local.bytes(window), namespace.as_bytes())?;
        if empty {
            return Err(XmlError::NotAStream);
        }
        let prefix = Span {
            start: self.name.start,
            end: self.name.start + u32::from(self.prefix),
        };
        let mut header = StreamHeader {
            prefix: prefix.str(window).to_owned(),
            ..StreamHeader::default()
        };
        for (prefix, name) in self.scope.declared(window) {
            match prefix {
                "" => header.content_namespace = Some(name.to_owned()),
                "xml" => {}
                _ => header.prefixes.push((prefix.to_owned(), name.to_owned())),
            }
        }
        for attribute in &self.attributes {
            let value = || Some(attribute.meaning().text(window).into_owned());
            match attribute.name.bytes(window) {
                b"from" => header.from = value(),
                b"to" => header.to = value(),
                b"id" => header.id = value(),
                b"version" => header.version = value(),
                b"xml:lang" => header.lang = value(),
                _ => {}
            }
        }
        self.scope.header = Some(Arc::new(header));
        self.phase = Phase::Stream;
        Ok(Found::Header(self.at))
    }

    /// Compares the name of the end tag at `self.at`; false while it is cut off.
    fn end_name(&mut self, window: &[u8]) -> Result<bool, XmlError> {
        let found = &window[self.at..];
        let common = |name: &[u8]| {
            let len = name.len().min(found.len());
            if name[..len] == found[..len] {
                Ok(name.len())
            } else {
                Err(XmlError::EndTag)
            }
        };
        let len = match (self.open.last(), &self.scope.header) {
            (Some(open), _) => common(open.name.bytes(window))?,
            (None, Some(header)) => {
                let name = match header.prefix.as_str() {
                    "" => Cow::Borrowed("stream"),
                    prefix => Cow::Owned(format!("{prefix}:stream")),
                };
                common(name.as_bytes())?
            }
            (None, None) => return Err(XmlError::EndTag),
        };
        if found.len() <= len {
            return Ok(false);
        }
        self.at += len;
        self.lex = Lex::EndSpace;
        Ok(true)
    }

    /// The element at hand ends at `self.at`.
    fn end_tag(&mut self) -> Option<Found> {
        let Some(open) = self.open.pop() else {
            self.phase = Phase::Ended;
            return Some(Found::Close(self.at));
        };
        match self.open.len() {
            // The scope stays: the item still asks it for names.
            0 => return Some(Found::Element(self.at)),
            1 => {
                if let Some(child) = self.children.last_mut() {
                    child.end = self.at as u32;
                }
            }
            _ => {}
        }
        self.scope.leave(open.mark);
        self.lex = Lex::Text;
        None
    }

    /// Length of all up to the end of the XML declaration; `None` while it is cut off.
    fn declaration(&self, window: &[u8]) -> Result<Option<usize>, XmlError> {
        const START: &[u8] = b"<?xml";
        // White space before it is taken as the tail of what the stream was before a restart.
        let first = self.phase == Phase::Prolog && self.at == 2;
        let found = &window[..window.len().min(header::DECLARATION_BYTES)];
        let known = found.len().min(START.len());
        if !first || found[..known] != START[..known] {
            return Err(XmlError::ProcessingInstruction);
        }
        match found.get(START.len()) {
            None => return Ok(None),
            Some(&byte) if !chars::is_space(byte) => return Err(XmlError::ProcessingInstruction),
            Some(_) => {}
        }
        match memchr::memmem::find(found, b"?>") {
            Some(end) => {
                header::check_declaration(&found[START.len()..end])?;
                Ok(Some(end + 2))
            }
            None if found.len() == header::DECLARATION_BYTES => Err(XmlError::Markup),
            None => Ok(None),
        }
    }
}

impl XmlError {
    /// The same, said of a byte between elements.
    fn text_between(self) -> Self {
        match self {
            Self::ExoticName => Self::TextBetweenStanzas,
            other => other,
        }
    }
}

fn is_declaration(attribute: &Attribute, window: &[u8]) -> bool {
    match attribute.prefix {
        0 => attribute.name.bytes(window) == b"xmlns",
        5 => attribute.prefix().bytes(window) == b"xmlns",
        _ => false,
    }
}

/// Length of the prefix of a name made of name characters and colons.
fn qualified(name: &[u8]) -> Result<u16, XmlError> {
    let Some(colon) = memchr::memchr(b':', name) else {
        return Ok(0);
    };
    match name.get(colon + 1) {
        Some(&next)
            if colon > 0
                && chars::starts_name(next)
                && memchr::memchr(b':', &name[colon + 1..]).is_none() =>
        {
            Ok(colon as u16)
        }
        _ => Err(XmlError::Markup),
    }
}

/// Why a byte beyond ASCII may not stand where markup is. Only this byte counts: what follows it may
/// not be there yet.
fn exotic(byte: u8) -> XmlError {
    match byte {
        0xc2..=0xf4 => XmlError::ExoticName,
        _ => XmlError::NotUtf8,
    }
}

/// Where the run of characters at `at`, the first of which is not plain ASCII, ends; `None` while
/// that one is cut off.
fn beyond_ascii(window: &[u8], at: usize) -> Result<Option<usize>, XmlError> {
    if window[at] < 0x80 {
        Err(XmlError::ForbiddenCharacter)
    } else {
        chars::wide_run(window, at)
    }
}

/// Length of `[CDATA[` after `<!`; `None` while it is cut off.
fn section_start(found: &[u8]) -> Result<Option<usize>, XmlError> {
    const START: &[u8] = b"[CDATA[";
    let known = found.len().min(START.len());
    match found.first() {
        Some(b'-') => Err(XmlError::Comment),
        Some(b'[') if found[..known] == START[..known] => Ok(if known < START.len() {
            None
        } else {
            Some(START.len())
        }),
        Some(b'[') => Err(XmlError::Markup),
        _ => Err(XmlError::DocumentType),
    }
}
