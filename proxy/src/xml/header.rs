//! The stream header: the start tag that a stream begins with, and the XML declaration before it.

use std::borrow::Cow;

use super::{XmlError, ns};

/// What nearly every header says: kept for the life of a stream without a copy.
const USUAL: [&str; 8] = [
    "stream",
    "db",
    "1.0",
    "en",
    ns::STREAM,
    ns::SERVER,
    ns::DIALBACK,
    "",
];

/// Part of a header that is the same in most of them.
pub type HeaderText = Cow<'static, str>;

/// What a peer's `<stream:stream …>` says (RFC 6120 section 4.7). Values are resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamHeader {
    pub from: Option<String>,
    pub to: Option<String>,
    pub id: Option<String>,
    /// As sent; `None` is a peer from before XMPP 1.0.
    pub version: Option<HeaderText>,
    /// `xml:lang`
    pub lang: Option<HeaderText>,
    /// The default namespace that elements in the stream inherit. `jabber:client` is not refused
    /// here: the negotiation machine judges it.
    pub content_namespace: Option<HeaderText>,
    /// Prefix of the stream's own element, usually `stream`; empty where it has none.
    pub prefix: HeaderText,
    /// Every prefix declared, with its namespace name. At most 64.
    pub prefixes: Vec<(HeaderText, HeaderText)>,
}

impl StreamHeader {
    /// What a peer meant that sends elements before its header: the header that XMPP asks for, without
    /// attributes (RFC 6120 section 4.8).
    pub fn implied() -> Self {
        Self {
            content_namespace: Some(ns::SERVER.into()),
            prefix: "stream".into(),
            prefixes: vec![
                ("stream".into(), ns::STREAM.into()),
                ("db".into(), ns::DIALBACK.into()),
            ],
            ..Self::default()
        }
    }

    /// Whether the dialback namespace is declared (XEP-0220 section 2.1).
    pub fn declares_dialback(&self) -> bool {
        self.prefixes.iter().any(|(_, name)| name == ns::DIALBACK)
    }

    /// Whether this is the root that XMPP asks for, given its local name and its namespace.
    pub(super) fn check_root(local: &[u8], namespace: &[u8]) -> Result<(), XmlError> {
        if namespace != ns::STREAM.as_bytes() {
            Err(XmlError::StreamNamespace)
        } else if local != b"stream" {
            Err(XmlError::NotAStream)
        } else {
            Ok(())
        }
    }

    /// What the prefix means to the elements of the stream.
    pub fn namespace_of(&self, prefix: &str) -> Option<&str> {
        if prefix == "xml" {
            return Some(ns::XML);
        }
        self.prefixes
            .iter()
            .find(|(name, _)| name == prefix)
            .map(|(_, namespace)| &**namespace)
    }
}

/// `text` for as long as the header is kept.
pub(super) fn kept(text: Cow<'_, str>) -> HeaderText {
    match USUAL.into_iter().find(|usual| *usual == text) {
        Some(usual) => Cow::Borrowed(usual),
        None => Cow::Owned(text.into_owned()),
    }
}

/// Whether a language tag is well-formed (RFC 5646 section 2.1), as far as its shape says: that it begins
/// with a language, that no subtag is longer than 8, and that something follows each single letter or digit.
/// One that is not is no language (RFC 6120 section 8.1.5), and servers refuse what carries it. Allocates
/// nothing: it is asked of stanzas.
pub fn is_language_tag(tag: &str) -> bool {
    is_language(tag.as_bytes())
}

/// Whether an `xml:lang` says a language that is none; empty it says none, and may (XML 1.0 section 2.12).
pub(super) fn is_ill_language(tag: &[u8]) -> bool {
    !tag.is_empty() && !is_language(tag)
}

fn is_language(tag: &[u8]) -> bool {
    let mut subtags = tag.split(|&byte| byte == b'-');
    let first = subtags.next().unwrap_or_default();
    let is_private = first.eq_ignore_ascii_case(b"x");
    let begins = match first.len() {
        1 => is_private || first.eq_ignore_ascii_case(b"i"),
        2..=8 => true,
        _ => false,
    };
    if !begins || !first.iter().all(u8::is_ascii_alphabetic) {
        return false;
    }
    // Behind `x` everything is private, single letters too.
    let (mut private, mut wants_more) = (is_private, first.len() == 1);
    for subtag in subtags {
        let is_single = subtag.len() == 1 && !private;
        if !(1..=8).contains(&subtag.len())
            || !subtag.iter().all(u8::is_ascii_alphanumeric)
            || is_single && wants_more
        {
            return false;
        }
        private |= is_single && subtag.eq_ignore_ascii_case(b"x");
        wants_more = is_single;
    }
    !wants_more
}

/// Longest XML declaration taken, in bytes.
pub(super) const DECLARATION_BYTES: usize = 256;

/// Checks what stands between `<?xml` and `?>` (XML 1.0 section 2.8).
pub(super) fn check_declaration(body: &[u8]) -> Result<(), XmlError> {
    let mut rest = std::str::from_utf8(body).map_err(|_| XmlError::NotUtf8)?;
    let mut expected = ["version", "encoding", "standalone"].iter();
    let mut seen_version = false;
    loop {
        let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        if trimmed.is_empty() {
            return if seen_version {
                Ok(())
            } else {
                Err(XmlError::Markup)
            };
        }
        if trimmed.len() == rest.len() {
            return Err(XmlError::Markup);
        }
        let (name, value, after) = pseudo_attribute(trimmed).ok_or(XmlError::Markup)?;
        if !expected.any(|known| *known == name) {
            return Err(XmlError::Markup);
        }
        match name {
            "version" => {
                seen_version = true;
                if value != "1.0" {
                    return Err(XmlError::Version);
                }
            }
            // The version comes first.
            _ if !seen_version => return Err(XmlError::Markup),
            "encoding" if !value.eq_ignore_ascii_case("utf-8") => return Err(XmlError::Encoding),
            "standalone" if value == "no" => return Err(XmlError::NotStandalone),
            "standalone" if value != "yes" => return Err(XmlError::Markup),
            _ => {}
        }
        rest = after;
    }
}

/// Name and value of the pseudo attribute that `text` begins with, and what follows it.
fn pseudo_attribute(text: &str) -> Option<(&str, &str, &str)> {
    let space = [' ', '\t', '\r', '\n'];
    let (name, rest) = text.split_once('=')?;
    let rest = rest.trim_start_matches(space);
    let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let (value, after) = rest[1..].split_once(quote)?;
    Some((name.trim_end_matches(space), value, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s10_a_language_tag_is_one_of_rfc_5646() {
        for tag in [
            "en",
            "de-CH",
            "zh-Hant-TW",
            "en-US-u-fw-mon",
            "x-klingon",
            "i-default",
            "sl-rozaj-biske",
            "de-x-a",
            "sr-Latn",
            "EN-X-A-B",
            "x-a",
            "en-a-bbb-b-ccc",
            "en-a-bbb-x-a-ccc",
            "de-1996",
        ] {
            assert!(is_language_tag(tag), "{tag}");
        }
        for tag in [
            "",
            "en_US",
            "en-US-#u-fw-mon",
            "en-",
            "-en",
            "e",
            "x",
            "en--US",
            "en-u",
            "en-x",
            "en-a-b-ccc",
            "en-a-x-ccc",
            "i-x",
            "größe",
            "'/><",
            "de ",
            "abcdefghi",
            "en-abcdefghi",
            "1a",
        ] {
            assert!(!is_language_tag(tag), "{tag}");
        }
    }
}
