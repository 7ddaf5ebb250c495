//! What the pass keeps between two bytes: where it stands, and what it knows of the element at hand.

use std::borrow::Cow;

use super::{scope::Name, span::Span};
use crate::xml::{
    stanza::{Form, StanzaKind},
    text,
};

/// Prefixes of a stream header, so that those used fit a 64-bit set.
pub(super) const HEADER_PREFIXES: u16 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScanPhase {
    /// Before the header.
    Prolog,
    Stream,
    Ended,
}

/// Where in the grammar the pass stands. Positions are in `Scanner::at`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lex {
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
pub(super) struct AttributeSpan {
    pub(super) name: Span,
    pub(super) value: Span,
    /// Length of the prefix; 0 for none.
    pub(super) prefix: u16,
    /// References or white space that change the value.
    pub(super) changed: bool,
    /// What the prefix means, once resolved.
    pub(super) namespace: Option<Name>,
}

impl AttributeSpan {
    pub(super) fn prefix(&self) -> Span {
        Span {
            start: self.name.start,
            end: self.name.start + u32::from(self.prefix),
        }
    }

    pub(super) fn local(&self) -> Span {
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

    /// Whether it declares a namespace.
    pub(super) fn is_declaration(&self, buf: &[u8]) -> bool {
        match self.prefix {
            0 => self.name.bytes(buf) == b"xmlns",
            5 => self.prefix().bytes(buf) == b"xmlns",
            _ => false,
        }
    }

    pub(super) fn meaning(&self) -> Value {
        Value {
            raw: self.value,
            changed: self.changed,
        }
    }
}

/// An attribute's value, to be read when the element is complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value {
    pub(super) raw: Span,
    pub(super) changed: bool,
}

impl Value {
    pub(super) fn text(self, buf: &[u8]) -> Cow<'_, str> {
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
pub(super) struct Open {
    pub(super) name: Span,
    /// Where [`Scope::leave`] returns to.
    pub(super) mark: u16,
}

/// What is known of the top-level element at hand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Top {
    pub(super) kind: Option<StanzaKind>,
    pub(super) name: Span,
    pub(super) namespace: Name,
    pub(super) start_tag: u32,
    pub(super) from: Option<Value>,
    pub(super) to: Option<Value>,
    pub(super) type_: Option<Value>,
    pub(super) id: Option<Value>,
    pub(super) form: Form,
}

pub(super) const NO_TOP: Top = Top {
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
        readdressed: false,
    },
};

/// What a step of the pass found; becomes an [`Item`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    Whitespace(usize),
    Header(usize),
    Close(usize),
    Element(usize),
}
