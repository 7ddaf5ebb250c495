//! Bytes to tree, by quick-xml.

use quick_xml::{
    Reader,
    events::{BytesStart, Event},
};
use thiserror::Error;

use super::{Attribute, Element};
use crate::xml::{StreamHeader, header::HeaderText, ns, text};

/// The bytes were not one whole element that a [`Scanner`](crate::xml::Scanner) had checked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ElementError {
    #[error("not UTF-8")]
    NotUtf8,
    #[error("malformed: {0}")]
    Malformed(String),
    #[error("prefix not declared: {0}")]
    UndeclaredPrefix(String),
    #[error("markup that streams may not have")]
    Restricted,
    #[error("not exactly one element")]
    NotOne,
}

/// What becomes of comments.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comments {
    ReadOver,
    /// No stream has any (RFC 6120 section 11.1).
    Refused,
}

/// Declarations in force: prefix (empty for the default) and namespace name.
type PrefixScope = Vec<(HeaderText, HeaderText)>;

impl Element {
    /// The tree of one top-level element of the stream with that header.
    ///
    /// `bytes` is what [`Item::Stanza`](crate::xml::Item) or [`Item::Other`](crate::xml::Item)
    /// held: its limits bound the tree.
    pub fn parse(bytes: &[u8], header: &StreamHeader) -> Result<Self, ElementError> {
        let source = std::str::from_utf8(bytes).map_err(|_| ElementError::NotUtf8)?;
        let mut scope: PrefixScope = header.prefixes.clone();
        scope.extend(
            header
                .content_namespace
                .iter()
                .map(|name| ("".into(), name.clone())),
        );
        Self::tree(source, scope, Comments::Refused)
    }

    /// The root of a document that has been checked, behind its XML declaration.
    pub(in crate::xml) fn parse_document(source: &str) -> Result<Self, ElementError> {
        Self::tree(source, PrefixScope::new(), Comments::ReadOver)
    }

    fn tree(
        source: &str,
        mut scope: PrefixScope,
        comments: Comments,
    ) -> Result<Self, ElementError> {
        let mut reader = Reader::from_str(source);
        scope.push(("xml".into(), ns::XML.into()));
        // Each open element with the length that the scope had before it.
        let mut open: Vec<(Element, usize)> = Vec::new();
        let mut whole = None;
        loop {
            let event = reader
                .read_event()
                .map_err(|error| ElementError::Malformed(error.to_string()))?;
            let closed = match event {
                Event::Start(start) => {
                    let mark = scope.len();
                    open.push((element(&start, &mut scope)?, mark));
                    None
                }
                Event::Empty(start) => {
                    let mark = scope.len();
                    let element = element(&start, &mut scope)?;
                    scope.truncate(mark);
                    Some(element)
                }
                Event::End(_) => {
                    let (element, mark) = open.pop().ok_or(ElementError::NotOne)?;
                    scope.truncate(mark);
                    Some(element)
                }
                Event::Text(data) => {
                    push_text(&mut open, &text::character_data(&data))?;
                    None
                }
                Event::CData(data) => {
                    let data = data.replace("\r\n", "\n").replace('\r', "\n");
                    push_text(&mut open, &data)?;
                    None
                }
                Event::GeneralRef(name) => {
                    push_text(&mut open, &text::character_data(&format!("&{};", &*name)))?;
                    None
                }
                Event::Eof if open.is_empty() => return whole.ok_or(ElementError::NotOne),
                Event::Eof => return Err(ElementError::NotOne),
                Event::Comment(_) if comments == Comments::ReadOver => None,
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {
                    return Err(ElementError::Restricted);
                }
            };
            if let Some(element) = closed {
                match open.last_mut() {
                    Some((parent, _)) => *parent = std::mem::take(parent).with_child(element),
                    None if whole.is_none() => whole = Some(element),
                    None => return Err(ElementError::NotOne),
                }
            }
        }
    }
}

fn push_text(open: &mut [(Element, usize)], data: &str) -> Result<(), ElementError> {
    match open.last_mut() {
        Some((parent, _)) => parent.push_text(data),
        None if data.trim().is_empty() => {}
        None => return Err(ElementError::NotOne),
    }
    Ok(())
}

/// The element that a start tag begins; its declarations join the scope.
fn element(start: &BytesStart<'_>, scope: &mut PrefixScope) -> Result<Element, ElementError> {
    let mut plain = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| ElementError::Malformed(error.to_string()))?;
        let value = text::attribute_value(&attribute.value).into_owned();
        match split(attribute.key.0) {
            ("", "xmlns") => scope.push(("".into(), value.into())),
            ("xmlns", prefix) => scope.push((prefix.to_owned().into(), value.into())),
            (prefix, name) => plain.push((prefix.to_owned(), name.to_owned(), value)),
        }
    }
    let name = start.name();
    let (prefix, name) = split(name.0);
    let mut element = Element::new(resolve(scope, prefix)?, name);
    for (prefix, name, value) in plain {
        // The default namespace is not that of attributes.
        let namespace = if prefix.is_empty() {
            String::new()
        } else {
            resolve(scope, &prefix)?
        };
        element.attributes.push(Attribute {
            namespace,
            name,
            value,
        });
    }
    Ok(element)
}

fn split(name: &str) -> (&str, &str) {
    name.split_once(':').unwrap_or(("", name))
}

fn resolve(scope: &PrefixScope, prefix: &str) -> Result<String, ElementError> {
    match scope.iter().rev().find(|(known, _)| known == prefix) {
        Some((_, name)) => Ok(name.clone().into_owned()),
        None if prefix.is_empty() => Ok(String::new()),
        None => Err(ElementError::UndeclaredPrefix(prefix.to_owned())),
    }
}
