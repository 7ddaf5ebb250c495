//! A whole XML document that another protocol carries: bounded and checked, then a tree.
//!
//! Not for streams: those are the [`Scanner`](super::Scanner)'s.

use quick_xml::{
    Reader,
    events::{BytesStart, Event},
};
use thiserror::Error;

use super::{
    Element, XmlError,
    header::{DECLARATION_BYTES, check_declaration},
    ns, text,
};

/// What a document may have at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DocumentLimits {
    /// Bytes of the whole.
    pub bytes: usize,
    /// Elements in elements, the root counted.
    pub depth: usize,
    pub elements: usize,
    /// Attributes of one element, namespace declarations counted.
    pub attributes: usize,
    /// Namespace declarations of the whole.
    pub namespaces: usize,
    /// Bytes of one qualified name, and of one namespace name.
    pub name_bytes: usize,
}

/// Why a document is not read. Texts name nothing that stands in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum DocumentFault {
    #[error("not UTF-8, or said to be something else")]
    Encoding,
    #[error("more bytes than allowed")]
    TooLarge,
    #[error("elements nested too deep")]
    TooDeep,
    #[error("too many elements")]
    TooManyElements,
    #[error("too many attributes")]
    TooManyAttributes,
    #[error("too many namespace declarations")]
    TooManyNamespaces,
    #[error("a name that is too long")]
    NameTooLong,
    #[error("a document type declaration")]
    DocumentType,
    #[error("a processing instruction")]
    ProcessingInstruction,
    #[error("an entity reference other than the five")]
    EntityReference,
    #[error("a character that XML forbids")]
    ForbiddenCharacter,
    #[error("malformed markup")]
    Malformed,
}

/// The root of a document with or without an XML declaration. Comments are read over.
///
/// # Errors
/// [`DocumentFault`].
pub fn read_document(bytes: &[u8], limits: &DocumentLimits) -> Result<Element, DocumentFault> {
    if bytes.len() > limits.bytes {
        return Err(DocumentFault::TooLarge);
    }
    let source = std::str::from_utf8(bytes).map_err(|_| DocumentFault::Encoding)?;
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let source = after_declaration(source)?;
    // The reader would take a second one away.
    if source.starts_with('\u{feff}') {
        return Err(DocumentFault::Malformed);
    }
    if !source.chars().all(text::is_xml_char) {
        return Err(DocumentFault::ForbiddenCharacter);
    }
    check(source, limits)?;
    let root = Element::parse_document(source).map_err(|_| DocumentFault::Malformed)?;
    if has_attribute_twice(&root) {
        return Err(DocumentFault::Malformed);
    }
    Ok(root)
}

fn after_declaration(source: &str) -> Result<&str, DocumentFault> {
    let blank = [' ', '\t', '\r', '\n'];
    let Some(rest) = source
        .strip_prefix("<?xml")
        .filter(|it| it.starts_with(blank))
    else {
        return Ok(source);
    };
    let (body, rest) = rest.split_once("?>").ok_or(DocumentFault::Malformed)?;
    if body.len() > DECLARATION_BYTES {
        return Err(DocumentFault::Malformed);
    }
    match check_declaration(body.as_bytes()) {
        // Without a document type there is nothing that another entity could declare.
        Ok(()) | Err(XmlError::NotStandalone) => Ok(rest),
        Err(XmlError::Encoding) => Err(DocumentFault::Encoding),
        Err(_) => Err(DocumentFault::Malformed),
    }
}

/// What [`Element`] takes for granted: bounds, names, references.
fn check(source: &str, limits: &DocumentLimits) -> Result<(), DocumentFault> {
    let mut reader = Reader::from_str(source);
    let mut depth = 0;
    let mut elements = 0;
    let mut namespaces = 0;
    loop {
        let event = reader.read_event().map_err(|_| DocumentFault::Malformed)?;
        match event {
            Event::Start(ref start) | Event::Empty(ref start) => {
                elements += 1;
                if elements > limits.elements {
                    return Err(DocumentFault::TooManyElements);
                }
                if depth == limits.depth {
                    return Err(DocumentFault::TooDeep);
                }
                depth += usize::from(matches!(event, Event::Start(_)));
                namespaces += check_tag(start, limits)?;
                if namespaces > limits.namespaces {
                    return Err(DocumentFault::TooManyNamespaces);
                }
            }
            Event::End(_) => depth = depth.saturating_sub(1),
            Event::Text(data) if data.contains("]]>") => return Err(DocumentFault::Malformed),
            // White space of XML alone: Unicode has more.
            Event::Text(data) if depth == 0 && !data.bytes().all(is_blank) => {
                return Err(DocumentFault::Malformed);
            }
            Event::Text(_) => {}
            Event::CData(_) if depth == 0 => return Err(DocumentFault::Malformed),
            Event::CData(_) => {}
            Event::Comment(data) if data.contains("--") || data.ends_with('-') => {
                return Err(DocumentFault::Malformed);
            }
            Event::Comment(_) => {}
            Event::GeneralRef(_) if depth == 0 => return Err(DocumentFault::Malformed),
            Event::GeneralRef(name) => check_reference(&name)?,
            Event::DocType(_) => return Err(DocumentFault::DocumentType),
            Event::PI(_) | Event::Decl(_) => return Err(DocumentFault::ProcessingInstruction),
            Event::Eof => return Ok(()),
        }
    }
}

/// White space (XML 1.0 section 2.3).
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Says how many namespaces the tag declares.
fn check_tag(start: &BytesStart<'_>, limits: &DocumentLimits) -> Result<usize, DocumentFault> {
    check_name(start.name().0, limits)?;
    // The tag as it stands: white space has to be between attributes, which the reader does not ask for.
    check_spaces(start)?;
    let mut namespaces = 0;
    for (before, attribute) in start.attributes().enumerate() {
        let attribute = attribute.map_err(|_| DocumentFault::Malformed)?;
        if before == limits.attributes {
            return Err(DocumentFault::TooManyAttributes);
        }
        let name = attribute.key.0;
        check_name(name, limits)?;
        let value: &str = &attribute.value;
        if value.contains('<') {
            return Err(DocumentFault::Malformed);
        }
        check_references(value)?;
        let prefix = match name.strip_prefix("xmlns") {
            Some("") => "",
            Some(rest) if rest.starts_with(':') => &rest[1..],
            _ => continue,
        };
        namespaces += 1;
        if value.len() > limits.name_bytes {
            return Err(DocumentFault::NameTooLong);
        }
        let namespace = text::attribute_value(value);
        // Namespaces in XML 1.0, sections 2.2 and 3: what is bound by definition stays so.
        let is_bound = |name: &str| matches!(name, ns::XML | ns::XMLNS);
        let redeclares_xml = prefix == "xml" && namespace == ns::XML;
        if !redeclares_xml
            && (matches!(prefix, "xml" | "xmlns")
                || is_bound(&namespace)
                || !prefix.is_empty() && namespace.is_empty())
        {
            return Err(DocumentFault::Malformed);
        }
    }
    Ok(namespaces)
}

/// White space stands before each attribute.
fn check_spaces(start: &BytesStart<'_>) -> Result<(), DocumentFault> {
    let mut quote = None;
    let mut closed = false;
    for c in start.attributes_raw().chars() {
        match quote {
            Some(open) if c == open => {
                quote = None;
                closed = true;
                continue;
            }
            Some(_) => {}
            None if matches!(c, '"' | '\'') => quote = Some(c),
            None if closed && !c.is_ascii_whitespace() => return Err(DocumentFault::Malformed),
            None => {}
        }
        closed = false;
    }
    Ok(())
}

/// A qualified name in ASCII: nothing that is read here is called otherwise.
fn check_name(name: &str, limits: &DocumentLimits) -> Result<(), DocumentFault> {
    if name.len() > limits.name_bytes {
        return Err(DocumentFault::NameTooLong);
    }
    let is_part = |part: &str| {
        let starts = part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let goes_on = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        starts && part.chars().all(goes_on)
    };
    let (prefix, local) = name.split_once(':').unwrap_or(("p", name));
    if is_part(prefix) && is_part(local) {
        Ok(())
    } else {
        Err(DocumentFault::Malformed)
    }
}

fn check_references(value: &str) -> Result<(), DocumentFault> {
    let mut rest = value;
    while let Some((_, behind)) = rest.split_once('&') {
        let (name, behind) = behind.split_once(';').ok_or(DocumentFault::Malformed)?;
        check_reference(name)?;
        rest = behind;
    }
    Ok(())
}

/// What stands between `&` and `;`.
fn check_reference(name: &str) -> Result<(), DocumentFault> {
    let Some(number) = name.strip_prefix('#') else {
        let known = matches!(name, "amp" | "lt" | "gt" | "quot" | "apos");
        return if known {
            Ok(())
        } else {
            Err(DocumentFault::EntityReference)
        };
    };
    let (digits, radix) = match number.strip_prefix('x') {
        Some(digits) => (digits, 16),
        None => (number, 10),
    };
    // `from_str_radix` takes a sign.
    if !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(DocumentFault::Malformed);
    }
    let code = u32::from_str_radix(digits, radix).map_err(|_| DocumentFault::Malformed)?;
    match char::from_u32(code) {
        Some(c) if text::is_xml_char(c) => Ok(()),
        _ => Err(DocumentFault::ForbiddenCharacter),
    }
}

/// Two attributes of one name with two prefixes of one namespace. The depth is bounded.
fn has_attribute_twice(element: &Element) -> bool {
    let twice = element
        .attributes
        .iter()
        .enumerate()
        .any(|(at, attribute)| {
            let before = &element.attributes[..at];
            before
                .iter()
                .any(|it| it.name == attribute.name && it.namespace == attribute.namespace)
        });
    twice || element.children().any(has_attribute_twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: DocumentLimits = DocumentLimits {
        bytes: 4_096,
        depth: 4,
        elements: 20,
        attributes: 4,
        namespaces: 6,
        name_bytes: 64,
    };

    fn read(text: &str) -> Result<Element, DocumentFault> {
        read_document(text.as_bytes(), &LIMITS)
    }

    #[test]
    fn a_document_is_its_root_whatever_is_around_it() {
        for text in [
            "<a xmlns='n' b='1'>x&lt;</a>",
            "<?xml version='1.0' encoding='utf-8'?>\r\n<!-- c --><a b='1' xmlns='n'>x&#60;</a>\n<!---->",
            "\u{feff}<?xml version=\"1.0\"?><p:a xmlns:p='n' b=\"&#x31;\"><![CDATA[x<]]></p:a>",
        ] {
            let root = read(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
            assert!(
                root.is("n", "a") && root.attribute("b") == Some("1"),
                "{text}"
            );
            assert_eq!(root.text(), "x<", "{text}");
        }
    }

    #[test]
    fn what_could_hide_or_grow_is_refused() {
        use DocumentFault as D;
        let deep = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
        let cases = [
            (String::new(), D::Malformed),
            ("<a>".to_owned(), D::Malformed),
            ("<a></b>".to_owned(), D::Malformed),
            ("<a/><b/>".to_owned(), D::Malformed),
            ("<a/>x".to_owned(), D::Malformed),
            ("x<a/>".to_owned(), D::Malformed),
            ("\u{feff}\u{feff}<a/>".to_owned(), D::Malformed),
            ("\u{85}<a/>\u{a0}".to_owned(), D::Malformed),
            ("<a/>&#32;".to_owned(), D::Malformed),
            ("<a b='1' b='2'/>".to_owned(), D::Malformed),
            (
                "<a xmlns:p='n' xmlns:q='n' p:b='1' q:b='2'/>".to_owned(),
                D::Malformed,
            ),
            ("<a b='1'c='2'/>".to_owned(), D::Malformed),
            ("<a b=1/>".to_owned(), D::Malformed),
            ("<a b='<'/>".to_owned(), D::Malformed),
            ("<a b/>".to_owned(), D::Malformed),
            ("<p:a/>".to_owned(), D::Malformed),
            ("<a p:b=''/>".to_owned(), D::Malformed),
            ("<a xmlns:p=''/>".to_owned(), D::Malformed),
            ("<a xmlns:xml='n'/>".to_owned(), D::Malformed),
            (
                "<a xmlns='http://www.w3.org/2000/xmlns/'/>".to_owned(),
                D::Malformed,
            ),
            ("<1a/>".to_owned(), D::Malformed),
            ("<a:b:c xmlns:a='n'/>".to_owned(), D::Malformed),
            ("<\u{e4}/>".to_owned(), D::Malformed),
            ("<a>]]></a>".to_owned(), D::Malformed),
            ("<a>&#+1;</a>".to_owned(), D::Malformed),
            ("<a>& b</a>".to_owned(), D::Malformed),
            ("<!-- a -- b --><a/>".to_owned(), D::Malformed),
            ("<a>&x;</a>".to_owned(), D::EntityReference),
            ("<a b='&x;'/>".to_owned(), D::EntityReference),
            ("<a>&#0;</a>".to_owned(), D::ForbiddenCharacter),
            ("<a b='&#xfffe;'/>".to_owned(), D::ForbiddenCharacter),
            ("<a>\u{8}</a>".to_owned(), D::ForbiddenCharacter),
            ("<!DOCTYPE a><a/>".to_owned(), D::DocumentType),
            (
                "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>".to_owned(),
                D::DocumentType,
            ),
            ("<?p x?><a/>".to_owned(), D::ProcessingInstruction),
            (
                "<a><?xml version='1.0'?></a>".to_owned(),
                D::ProcessingInstruction,
            ),
            (
                "<?xml version='1.0' encoding='UTF-16'?><a/>".to_owned(),
                D::Encoding,
            ),
            (deep(5), D::TooDeep),
            (format!("<a>{}</a>", "<b/>".repeat(20)), D::TooManyElements),
            (
                "<a b='' c='' d='' e='' f=''/>".to_owned(),
                D::TooManyAttributes,
            ),
            (
                format!("<a>{}</a>", "<b xmlns='n'/>".repeat(7)),
                D::TooManyNamespaces,
            ),
            (format!("<{}/>", "a".repeat(65)), D::NameTooLong),
            (format!("<a xmlns='{}'/>", "n".repeat(65)), D::NameTooLong),
            (format!("<a>{}</a>", "x".repeat(4_096)), D::TooLarge),
        ];
        for (text, fault) in cases {
            assert_eq!(read(&text), Err(fault), "{text}");
        }
        assert_eq!(read_document(b"<a>\xff</a>", &LIMITS), Err(D::Encoding));
        assert!(read(&deep(4)).is_ok());
    }
}
