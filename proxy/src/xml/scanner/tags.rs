//! What a start tag and an end tag mean once they are complete: namespaces, uniqueness, nesting.

use std::{borrow::Cow, sync::Arc};

use super::{
    Scanner, XmlError,
    parts::{AttributeKind, AttributeSpan, Found, Lex, NO_TOP, Open, ScanPhase},
    scope::Name,
    span::Span,
};
use crate::xml::{
    StreamHeader,
    header::{is_ill_language, is_language_tag, kept},
    ns,
    stanza::{Child, ChildNamespace, StanzaKind},
};

impl Scanner {
    /// The start tag that ends at `end` is complete; on an error `self.at` stays before its last byte.
    pub(super) fn start_tag(
        &mut self,
        window: &[u8],
        end: usize,
        empty: bool,
    ) -> Result<Option<Found>, XmlError> {
        let mark = self.scope.mark();
        if !self.kinds.are_proved() {
            self.check_attributes(window)?;
        } else if self.kinds.has(AttributeKind::DefaultNamespace) {
            self.declare_default(window)?;
        }
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
        if self.phase == ScanPhase::Prolog && self.comes_before_a_header(window, prefix, local) {
            if self.name.start > 1 {
                // The XML declaration is no part of it; the element comes next.
                let declaration = self.name.start as usize - 1;
                return Ok(Some(Found::Whitespace(declaration)));
            }
            self.imply_header();
        }
        let namespace = if self.prefix != 0 {
            Some(self.scope.resolve(window, prefix)?)
        } else if self.open.len() < 2 {
            Some(self.scope.default_name())
        } else {
            // Nobody asks for the namespace of what is nested deeper.
            None
        };
        if !self.kinds.are_proved() {
            self.check_expanded(window)?;
        }
        self.at = end;
        if self.phase == ScanPhase::Prolog {
            return self.stream_start(window, local, namespace, empty).map(Some);
        }
        match (self.open.len(), namespace) {
            (0, Some(namespace)) => {
                if let Err(error) = self.top_start(window, local, namespace) {
                    self.at = end - 1;
                    return Err(error);
                }
            }
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

    /// Whether an element before a header is `<stream:error/>` or `<stream:features/>`: some peers have no
    /// header for them, and what they say is worth more than that they forgot it. Under `stream` it is what
    /// it is called, where nothing is declared. Some write the error in the namespace of its conditions.
    fn comes_before_a_header(&mut self, window: &[u8], prefix: Span, local: Span) -> bool {
        if !matches!(local.bytes(window), b"error" | b"features") {
            return false;
        }
        let namespace = match prefix.bytes(window) {
            b"" => Ok(self.scope.default_name()),
            _ => self.scope.resolve(window, prefix),
        };
        match namespace {
            Ok(namespace) => match self.scope.text(window, namespace) {
                ns::STREAM => true,
                ns::STREAM_ERRORS => local.bytes(window) == b"error",
                _ => false,
            },
            Err(_) => prefix.bytes(window) == b"stream",
        }
    }

    /// The stream begins without a header: as if that had come that XMPP asks for.
    fn imply_header(&mut self) {
        self.scope.enter(Arc::new(StreamHeader::implied()));
        self.phase = ScanPhase::Stream;
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
            let prefix = match attribute.kind {
                AttributeKind::DefaultNamespace => Span::default(),
                AttributeKind::Prefix => attribute.local(),
                _ => continue,
            };
            self.declare(window, prefix, attribute)?;
        }
        Ok(())
    }

    fn declare_default(&mut self, window: &[u8]) -> Result<(), XmlError> {
        let is_it = |attribute: &&AttributeSpan| attribute.kind == AttributeKind::DefaultNamespace;
        match self.attributes.iter().find(is_it) {
            Some(attribute) => self.declare(window, Span::default(), *attribute),
            None => Ok(()),
        }
    }

    fn declare(
        &mut self,
        window: &[u8],
        prefix: Span,
        attribute: AttributeSpan,
    ) -> Result<(), XmlError> {
        if attribute.value.range().len() > usize::from(self.limits.name_bytes) {
            return Err(XmlError::NameTooLong);
        }
        self.scope
            .declare(window, prefix, attribute.value, attribute.changed)
    }

    /// Prefixes of attributes are declared, and no two attributes mean the same name.
    fn check_expanded(&mut self, window: &[u8]) -> Result<(), XmlError> {
        for index in 0..self.attributes.len() {
            let attribute = self.attributes[index];
            if attribute.prefix == 0 || attribute.kind.declares() {
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

    fn top_start(&mut self, window: &[u8], local: Span, namespace: Name) -> Result<(), XmlError> {
        let name = local.bytes(window);
        // Refused at once: nobody would close it, and it would swallow the stanzas that follow.
        if name == b"stream" && self.scope.text(window, namespace) == ns::STREAM {
            return Err(XmlError::SecondHeader);
        }
        let top = &mut self.top;
        *top = NO_TOP;
        top.name = local;
        top.namespace = namespace;
        top.start_tag = self.at as u32;
        top.form.prefixed = self.prefix != 0;
        let named = StanzaKind::named(name);
        if namespace == Name::Server {
            top.kind = named;
        } else if self.skips && named.is_some() {
            return Err(XmlError::StanzaNamespace);
        }
        if top.kind.is_none() {
            return Ok(());
        }
        for attribute in &self.attributes {
            let meaning = Some(attribute.meaning());
            match attribute.kind {
                AttributeKind::From => top.from = meaning,
                AttributeKind::To => top.to = meaning,
                AttributeKind::Type => top.type_ = meaning,
                AttributeKind::Id => top.id = meaning,
                AttributeKind::Lang => {
                    let tag = attribute.meaning().text(window);
                    top.form.ill_lang = is_ill_language(tag.as_bytes());
                    top.form.has_lang = !top.form.ill_lang;
                }
                AttributeKind::DefaultNamespace | AttributeKind::Prefix | AttributeKind::Other => {}
            }
        }
        Ok(())
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
            prefix: kept(prefix.str(window).into()),
            ..StreamHeader::default()
        };
        for (prefix, name) in self.scope.declared(window) {
            match prefix {
                "" => header.content_namespace = Some(kept(name.into())),
                "xml" => {}
                _ => header
                    .prefixes
                    .push((kept(prefix.into()), kept(name.into()))),
            }
        }
        // Held for the life of the stream.
        header.prefixes.shrink_to_fit();
        for attribute in &self.attributes {
            let value = || attribute.meaning().text(window);
            match attribute.name.bytes(window) {
                b"from" => header.from = Some(value().into_owned()),
                b"to" => header.to = Some(value().into_owned()),
                b"id" => header.id = Some(value().into_owned()),
                b"version" => header.version = Some(kept(value())),
                b"xml:lang" => {
                    header.lang = Some(kept(value())).filter(|tag| is_language_tag(tag));
                }
                _ => {}
            }
        }
        self.scope.enter(Arc::new(header));
        self.phase = ScanPhase::Stream;
        Ok(Found::Header(self.at))
    }

    /// Compares the name of the end tag at `self.at`; false while it is cut off.
    pub(super) fn end_name(&mut self, window: &[u8]) -> Result<bool, XmlError> {
        if self.phase == ScanPhase::Prolog && self.open.is_empty() {
            // Some peers have nothing but the end to say.
            self.imply_header();
        }
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
                let name = match &*header.prefix {
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
    pub(super) fn end_tag(&mut self) -> Option<Found> {
        let Some(open) = self.open.pop() else {
            self.phase = ScanPhase::Ended;
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
}
