//! Which prefix means what: namespace declarations in force, inside the element at hand.

use std::sync::Arc;

use super::{XmlError, span::Span};
use crate::xml::{StreamHeader, ns, text};

/// A namespace name, by where it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Name {
    /// No namespace.
    #[default]
    None,
    Server,
    Xml,
    /// The default namespace of the stream header.
    Content,
    /// Declared by the header under its nth prefix.
    Header(u8),
    /// Declared in this element, free of references.
    Bytes(Span),
    /// Declared in this element with references: a range of `Scope::copies`.
    Copy(Span),
}

#[derive(Clone, Copy, Debug)]
struct Binding {
    /// Empty for the default namespace.
    prefix: Span,
    name: Name,
}

/// Declarations in force. Bounded by [`Limits::namespaces`](crate::xml::Limits::namespaces).
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// Its declarations hold for every element of the stream.
    pub(super) header: Option<Arc<StreamHeader>>,
    /// What its default namespace is.
    content: Name,
    bindings: Vec<Binding>,
    copies: String,
    /// Bit n: the header's nth prefix was used.
    pub(super) header_prefixes: u64,
}

impl Scope {
    /// The stream has begun: what its header declares holds from now on.
    pub(super) fn enter(&mut self, header: Arc<StreamHeader>) {
        self.content = match header.content_namespace.as_deref() {
            None | Some("") => Name::None,
            Some(ns::SERVER) => Name::Server,
            Some(_) => Name::Content,
        };
        self.header = Some(header);
    }

    pub(super) fn clear(&mut self) {
        self.bindings.clear();
        self.copies.clear();
        self.header_prefixes = 0;
    }

    pub(super) fn release(&mut self) {
        self.bindings.shrink_to(0);
        self.copies.shrink_to(0);
    }

    /// A mark to which [`Scope::leave`] returns.
    pub(super) fn mark(&self) -> u16 {
        self.bindings.len() as u16
    }

    pub(super) fn leave(&mut self, mark: u16) {
        self.bindings.truncate(mark as usize);
    }

    /// Takes one declaration: `prefix` is empty for `xmlns='…'`.
    pub(super) fn declare(
        &mut self,
        buf: &[u8],
        prefix: Span,
        value: Span,
        changed: bool,
    ) -> Result<(), XmlError> {
        let copied = changed.then(|| text::attribute_value(value.str(buf)).into_owned());
        let meant = copied.as_deref().map_or(value.bytes(buf), str::as_bytes);
        // To the end, whatever comes: many at a time.
        let is_plain = meant
            .iter()
            .fold(true, |plain, byte| plain & byte.is_ascii_graphic());
        if !is_plain
            && String::from_utf8_lossy(meant)
                .contains(|c: char| c.is_whitespace() || c.is_control())
        {
            return Err(XmlError::NamespaceName);
        }
        let is_xml = prefix.bytes(buf) == b"xml";
        if is_xml != (meant == ns::XML.as_bytes())
            || prefix.bytes(buf) == b"xmlns"
            || meant == ns::XMLNS.as_bytes()
            || (meant.is_empty() && !prefix.is_empty())
        {
            return Err(XmlError::ReservedPrefix);
        }
        let name = match copied {
            _ if meant.is_empty() => Name::None,
            _ if meant == ns::SERVER.as_bytes() => Name::Server,
            _ if is_xml => Name::Xml,
            Some(copied) => {
                let start = self.copies.len();
                self.copies.push_str(&copied);
                Name::Copy(Span::new(start, self.copies.len()))
            }
            None => Name::Bytes(value),
        };
        self.bindings.push(Binding { prefix, name });
        Ok(())
    }

    /// The namespace of elements without prefix.
    pub(super) fn default_name(&self) -> Name {
        match self
            .bindings
            .iter()
            .rev()
            .find(|binding| binding.prefix.is_empty())
        {
            Some(binding) => binding.name,
            None => self.content,
        }
    }

    /// What a prefix means here; notes it where the header has to be asked.
    pub(super) fn resolve(&mut self, buf: &[u8], prefix: Span) -> Result<Name, XmlError> {
        let wanted = prefix.bytes(buf);
        if wanted == b"xml" {
            return Ok(Name::Xml);
        }
        if wanted == b"xmlns" {
            return Err(XmlError::ReservedPrefix);
        }
        if let Some(binding) = self
            .bindings
            .iter()
            .rev()
            .find(|binding| !binding.prefix.is_empty() && binding.prefix.bytes(buf) == wanted)
        {
            return Ok(binding.name);
        }
        let declared = self.header.iter().flat_map(|header| &header.prefixes);
        let (found, (_, name)) = declared
            .enumerate()
            .find(|(_, (prefix, _))| prefix.as_bytes() == wanted)
            .ok_or(XmlError::UndeclaredPrefix)?;
        self.header_prefixes |= 1 << found;
        Ok(if name == ns::SERVER {
            Name::Server
        } else {
            Name::Header(found as u8)
        })
    }

    /// The name itself.
    pub(super) fn text<'a>(&'a self, buf: &'a [u8], name: Name) -> &'a str {
        match name {
            Name::None => "",
            Name::Server => ns::SERVER,
            Name::Xml => ns::XML,
            Name::Content => self
                .header
                .as_ref()
                .and_then(|header| header.content_namespace.as_deref())
                .unwrap_or_default(),
            Name::Header(index) => self
                .header
                .as_ref()
                .and_then(|header| header.prefixes.get(index as usize))
                .map(|(_, name)| &**name)
                .unwrap_or_default(),
            Name::Bytes(span) => span.str(buf),
            Name::Copy(span) => self.copies.get(span.range()).unwrap_or_default(),
        }
    }

    /// Every prefix declared, resolved: for the stream header, where nothing is nested.
    pub(super) fn declared<'a>(
        &'a self,
        buf: &'a [u8],
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.bindings
            .iter()
            .map(move |binding| (binding.prefix.str(buf), self.text(buf, binding.name)))
    }
}
