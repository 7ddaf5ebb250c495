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

/// What an attribute is for, by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum AttributeKind {
    From,
    To,
    Type,
    Id,
    /// `xml:lang`
    Lang,
    /// `xmlns`
    DefaultNamespace,
    /// `xmlns:…`
    Prefix,
    #[default]
    Other,
}

impl AttributeKind {
    /// `prefix`: length of its prefix; 0 for none.
    #[inline]
    pub(super) fn of(name: &[u8], prefix: u16) -> Self {
        match (prefix, name) {
            (0, b"from") => Self::From,
            (0, b"to") => Self::To,
            (0, b"type") => Self::Type,
            (0, b"id") => Self::Id,
            (0, b"xmlns") => Self::DefaultNamespace,
            (3, b"xml:lang") => Self::Lang,
            (5, [b'x', b'm', b'l', b'n', b's', ..]) => Self::Prefix,
            _ => Self::Other,
        }
    }

    /// What `bytes` begin with, where it is a name without prefix that has a kind of its own, and `=`; with
    /// the length of that name.
    #[inline]
    pub(super) fn at_start_of(bytes: &[u8]) -> Option<(Self, usize)> {
        Some(match bytes {
            [b'f', b'r', b'o', b'm', b'=', ..] => (Self::From, 4),
            [b't', b'o', b'=', ..] => (Self::To, 2),
            [b't', b'y', b'p', b'e', b'=', ..] => (Self::Type, 4),
            [b'i', b'd', b'=', ..] => (Self::Id, 2),
            [b'x', b'm', b'l', b'n', b's', b'=', ..] => (Self::DefaultNamespace, 5),
            _ => return None,
        })
    }

    pub(super) fn declares(self) -> bool {
        matches!(self, Self::DefaultNamespace | Self::Prefix)
    }
}

/// Which kinds of attributes the start tag at hand has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AttributeKinds {
    seen: u8,
    /// One came twice, or has to be compared with others by its name.
    unproved: bool,
}

impl AttributeKinds {
    pub(super) fn add(&mut self, kind: AttributeKind) {
        let bit = 1 << kind as u8;
        let is_unique = match kind {
            AttributeKind::Prefix | AttributeKind::Other => false,
            _ => self.seen & bit == 0,
        };
        self.seen |= bit;
        self.unproved |= !is_unique;
    }

    pub(super) fn has(self, kind: AttributeKind) -> bool {
        self.seen & (1 << kind as u8) != 0
    }

    /// No two have the same name, and none has a prefix that must be declared.
    pub(super) fn are_proved(self) -> bool {
        !self.unproved
    }
}

/// One attribute of the start tag at hand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AttributeSpan {
    pub(super) name: Span,
    pub(super) value: Span,
    pub(super) kind: AttributeKind,
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

    pub(super) fn meaning(&self) -> Value {
        Value {
            raw: self.value,
            changed: self.changed,
        }
    }
}

/// An attribute's value, to be read when the element is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) raw: Span,
    pub(super) changed: bool,
}

impl Value {
    pub(super) fn text(self, buf: &[u8]) -> Cow<'_, str> {
        self.meaning_of(self.raw.str(buf))
    }

    /// The same of an element that is text as a whole.
    #[inline]
    pub(super) fn of(self, element: &str) -> Cow<'_, str> {
        self.meaning_of(self.raw.of(element))
    }

    #[inline]
    fn meaning_of(self, raw: &str) -> Cow<'_, str> {
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

impl Top {
    /// Whether both say the same of a stanza.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        let values = |top: &Self| [top.from, top.to, top.type_, top.id];
        self.kind == other.kind
            && self.start_tag == other.start_tag
            && self.form == other.form
            && values(self) == values(other)
    }
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
        ill_lang: false,
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
