//! One complete stanza as it lies in the read buffer: borrowed, no tree.

use std::{
    borrow::Cow,
    num::NonZeroU64,
    sync::atomic::{AtomicU64, Ordering},
};

/// The three stanzas of RFC 6120 section 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StanzaKind {
    Message,
    Presence,
    Iq,
}

impl StanzaKind {
    /// The stanza whose element has this local name.
    pub(super) fn named(local: &[u8]) -> Option<Self> {
        match local {
            b"message" => Some(Self::Message),
            b"presence" => Some(Self::Presence),
            b"iq" => Some(Self::Iq),
            _ => None,
        }
    }

    /// The element's local name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Presence => "presence",
            Self::Iq => "iq",
        }
    }
}

/// How a stanza is written: no two patterns of the process have the same number. Stanzas of one have kind, `type`
/// and form in common, and the names and namespaces of their children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatternNumber(NonZeroU64);

impl PatternNumber {
    pub(crate) fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let before = LAST.fetch_add(1, Ordering::Relaxed);
        Self(NonZeroU64::MIN.saturating_add(before))
    }
}

/// A stanza in namespace `jabber:server`, well-formed and within limits.
///
/// Attribute values are what the XML means: references resolved (borrowed where there were none,
/// which is the common case and costs nothing).
#[derive(Clone, Debug)]
pub struct Stanza<'a> {
    /// The whole of it.
    pub text: &'a str,
    pub kind: StanzaKind,
    pub from: Option<Cow<'a, str>>,
    pub to: Option<Cow<'a, str>>,
    pub type_: Option<Cow<'a, str>>,
    pub id: Option<Cow<'a, str>>,
    /// Length of the stanza's start tag, `>` included (the whole stanza where it is `<…/>`).
    pub start_tag: usize,
    pub form: Form,
    /// The pattern that it was read by, if one was.
    pub pattern: Option<PatternNumber>,
    /// Elements directly inside the stanza, in order, all of them.
    pub children: &'a [Child],
}

/// What must happen to the bytes before they can stand in one of our streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// The stanza's own element has a prefix: it is written anew.
    pub prefixed: bool,
    /// It uses prefixes that only the sender's stream header declares: they are spliced in. Bit n
    /// stands for the header's nth prefix.
    pub header_prefixes: u64,
    /// It has an `xml:lang` of its own.
    pub has_lang: bool,
    /// And that is no language tag (RFC 5646): it is left out, as servers refuse it.
    pub ill_lang: bool,
    /// It has CDATA sections: they are written as escaped text.
    pub has_section: bool,
    /// Its `from` or `to` is not the one in its bytes: it is written instead.
    pub readdressed: bool,
}

/// An element directly inside a stanza: ranges into [`Stanza::text`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// The whole element, from `<` to its end.
    pub start: u32,
    pub end: u32,
    /// Local name, without prefix.
    pub name_start: u32,
    pub name_end: u32,
    pub namespace: ChildNamespace,
}

/// The child's namespace name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChildNamespace {
    /// `jabber:server`, inherited or declared.
    Server,
    /// Declared inside the stanza: a range into its bytes, free of references.
    Declared { start: u32, end: u32 },
    /// Declared in the stream header, or with references: copied.
    Other(Box<str>),
}

impl<'a> Stanza<'a> {
    /// The whole of it as bytes.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    /// Whether it asks to be let into a room, and waits for an answer (XEP-0045 section 7.2).
    #[must_use]
    pub fn is_join(&self) -> bool {
        let asks = |(name, namespace, _): (&str, &str, &[u8])| {
            name == "x" && namespace == "http://jabber.org/protocol/muc"
        };
        self.kind == StanzaKind::Presence && self.type_.is_none() && self.extensions().any(asks)
    }

    /// Local name, namespace name and bytes of each child.
    #[inline]
    pub fn children(&self) -> impl Iterator<Item = (&'a str, &'a str, &'a [u8])> {
        let stanza = self.text;
        self.children.iter().map(move |child| child.of(stanza))
    }

    /// As [`Self::children`], those of other namespaces than the stanza's own (RFC 6120 section 8.4).
    #[inline]
    pub fn extensions(&self) -> impl Iterator<Item = (&'a str, &'a str, &'a [u8])> {
        let stanza = self.text;
        self.children
            .iter()
            .filter(|child| child.namespace != ChildNamespace::Server)
            .map(move |child| child.of(stanza))
    }
}

impl Child {
    /// As [`Stanza::children`] has it.
    #[inline(always)]
    fn of<'a>(&'a self, stanza: &'a str) -> (&'a str, &'a str, &'a [u8]) {
        // The ranges are those of the pass over the same text; an empty one for a broken range is never seen.
        let text =
            |start: u32, end: u32| stanza.get(start as usize..end as usize).unwrap_or_default();
        let namespace = match &self.namespace {
            ChildNamespace::Server => "jabber:server",
            ChildNamespace::Declared { start, end } => text(*start, *end),
            ChildNamespace::Other(name) => name,
        };
        let whole = text(self.start, self.end).as_bytes();
        (text(self.name_start, self.name_end), namespace, whole)
    }
}
