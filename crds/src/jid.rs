//! Addresses as policy sees them: localpart prepared, domain as A-label, resource left out.
//!
//! Comparison follows RFC 7622 with the UsernameCaseMapped profile of RFC 8265. A localpart that
//! the older Nodeprep (RFC 3920) maps elsewhere is refused: two servers could read it as two users. Letters
//! newer than Nodeprep's Unicode 3.2 are PRECIS's to judge, in its tables of Unicode 6.3: to Nodeprep they
//! are unassigned, so that older servers leave them as they are or refuse them (RFC 3454 section 7).

use std::{borrow::Cow, fmt, str::FromStr};

use precis_core::profile::PrecisFastInvocation;
use precis_profiles::UsernameCaseMapped;
use serde::{Deserialize, Serialize};

use crate::domain::{DomainError, DomainName, NameForm, is_canonical};

/// Longest localpart or resource in octets (RFC 7622 section 3.1).
pub const MAX_PART_BYTES: usize = 1023;

/// `local@domain`, or a domain alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BareJid {
    local: Option<Box<str>>,
    domain: DomainName,
}

/// Why a text is no JID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JidError {
    #[error("the localpart is empty: nothing stands before \"@\"")]
    EmptyLocal,
    #[error("the localpart is longer than 1023 octets")]
    LocalTooLong,
    #[error("{0:?} is not allowed as a localpart")]
    LocalSyntax(String),
    #[error("the localpart {0:?} reads differently to older servers (Nodeprep)")]
    LocalAmbiguous(String),
    #[error("the resource is empty: nothing stands behind \"/\"")]
    EmptyResource,
    #[error("the resource is longer than 1023 octets")]
    ResourceTooLong,
    #[error("the resource has a character that no resource may have: {0:?}")]
    ResourceSyntax(char),
    #[error(transparent)]
    Domain(#[from] DomainError),
}

/// The raw parts of a full JID, borrowed: `local@domain/resource`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JidParts<'a> {
    pub local: Option<&'a str>,
    pub domain: &'a str,
    pub resource: Option<&'a str>,
}

/// Where the domain stands in the text of a JID (RFC 7622 section 3.1): behind the first `@`, before the
/// first `/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainRange {
    start: usize,
    end: usize,
}

impl DomainRange {
    #[must_use]
    #[inline]
    pub fn of(jid: &str) -> Self {
        let bytes = jid.as_bytes();
        let end = memchr::memchr(b'/', bytes).unwrap_or(bytes.len());
        let start = memchr::memchr(b'@', &bytes[..end]).map_or(0, |at| at + 1);
        Self { start, end }
    }

    /// The domain of the JID that this was found in.
    #[must_use]
    #[inline]
    pub fn domain(self, jid: &str) -> &str {
        jid.get(self.start..self.end).unwrap_or_default()
    }
}

impl<'a> JidParts<'a> {
    /// Splits as RFC 7622 section 3.1 says: first at `/`, then at `@`. Checks the lengths only.
    ///
    /// # Errors
    /// [`JidError`] for an empty or too long part.
    pub fn split(text: &'a str) -> Result<Self, JidError> {
        Self::around(text, DomainRange::of(text))
    }

    /// As [`Self::split`], of a text whose domain was found already.
    ///
    /// # Errors
    /// [`JidError`] for an empty or too long part.
    #[inline]
    pub fn around(text: &'a str, domain: DomainRange) -> Result<Self, JidError> {
        let resource = match text.get(domain.end + 1..) {
            None => None,
            Some("") => return Err(JidError::EmptyResource),
            Some(resource) if resource.len() > MAX_PART_BYTES => {
                return Err(JidError::ResourceTooLong);
            }
            some => some,
        };
        let local = match domain.start.checked_sub(1).and_then(|at| text.get(..at)) {
            None => None,
            Some("") => return Err(JidError::EmptyLocal),
            Some(local) if local.len() > MAX_PART_BYTES => return Err(JidError::LocalTooLong),
            some => some,
        };
        Ok(Self {
            local,
            domain: domain.domain(text),
            resource,
        })
    }
}

/// A localpart in its prepared form, borrowed where it already is (the common case: no allocation).
///
/// # Errors
/// [`JidError`] where the text is not allowed, or ambiguous between PRECIS and Nodeprep.
#[inline]
pub fn prepare_local(local: &str) -> Result<Cow<'_, str>, JidError> {
    if local.is_empty() {
        return Err(JidError::EmptyLocal);
    }
    if local.len() > MAX_PART_BYTES {
        return Err(JidError::LocalTooLong);
    }
    if local.bytes().all(is_prepared_ascii) {
        return Ok(Cow::Borrowed(local));
    }
    prepare_unusual(local).map(Cow::Owned)
}

fn prepare_unusual(local: &str) -> Result<String, JidError> {
    let shown = || local.chars().take(64).collect::<String>();
    let prepared =
        UsernameCaseMapped::enforce(local).map_err(|_| JidError::LocalSyntax(shown()))?;
    if prepared
        .bytes()
        .any(|byte| matches!(byte, b'"' | b'&' | b'\'' | b'/' | b':' | b'<' | b'>' | b'@'))
    {
        return Err(JidError::LocalSyntax(shown()));
    }
    if as_older_servers_read(local).as_deref() != Some(&*prepared) {
        return Err(JidError::LocalAmbiguous(shown()));
    }
    if prepared.len() > MAX_PART_BYTES {
        return Err(JidError::LocalTooLong);
    }
    Ok(prepared.into_owned())
}

/// The localpart as Nodeprep reads it, where letters that it does not know stay as they are; `None` where
/// it takes none of it.
fn as_older_servers_read(local: &str) -> Option<String> {
    let is_newer = |c: char| stringprep::tables::unassigned_code_point(c);
    let mut read = String::with_capacity(local.len());
    let mut rest = local;
    while let Some(first) = rest.chars().next() {
        let newer = is_newer(first);
        let end = rest.find(|c| is_newer(c) != newer).unwrap_or(rest.len());
        let (run, more) = rest.split_at(end);
        if newer {
            read.push_str(run);
        } else {
            read.push_str(&stringprep::nodeprep(run).ok()?);
        }
        rest = more;
    }
    Some(read)
}

/// The address with its domain in this form, or in the one that it has; `None` if it is already, or no
/// address.
#[must_use]
pub fn in_one_spelling(text: &str, form: Option<NameForm>) -> Option<String> {
    let parts = JidParts::split(text).ok()?;
    let is_plain = is_canonical(parts.domain.as_bytes());
    if is_plain && (form.is_none() || NameForm::of(parts.domain) == NameForm::Letters) {
        return None;
    }
    let name = DomainName::parse(parts.domain).ok()?;
    let wire = form.unwrap_or_default().write(&name);
    if wire == parts.domain {
        return None;
    }
    let local = parts
        .local
        .map_or(String::new(), |local| format!("{local}@"));
    let resource = parts
        .resource
        .map_or(String::new(), |resource| format!("/{resource}"));
    Some(format!("{local}{wire}{resource}"))
}

/// Whether a resource may be handed on. It is compared by nobody here, so that it is not prepared;
/// refused is what neither OpaqueString (RFC 8265 section 4.2) nor Resourceprep (RFC 6122 appendix B)
/// takes. Letters and signs newer than the tables of either are let pass.
///
/// # Errors
/// [`JidError::ResourceSyntax`].
#[inline]
pub fn check_resource(resource: &str) -> Result<(), JidError> {
    if resource
        .bytes()
        .fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~'))
    {
        return Ok(());
    }
    match resource.chars().find(|&c| is_no_text(c)) {
        Some(c) => Err(JidError::ResourceSyntax(c)),
        None => Ok(()),
    }
}

/// Controls, private use, non-characters, and what only steers how text is laid out.
fn is_no_text(c: char) -> bool {
    c.is_control()
        || u32::from(c) & 0xfffe == 0xfffe
        || matches!(c,
            '\u{340}' | '\u{341}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{206f}' | '\u{2ff0}'..='\u{2fff}' | '\u{e000}'..='\u{f8ff}'
            | '\u{fdd0}'..='\u{fdef}' | '\u{fff9}'..='\u{fffd}' | '\u{e0001}'
            | '\u{e0020}'..='\u{e007f}' | '\u{f0000}'..)
}

/// ASCII that preparation leaves as it is and that a localpart may hold (RFC 7622 section 3.3.1).
fn is_prepared_ascii(byte: u8) -> bool {
    matches!(byte, b'!' | b'#'..=b'%' | b'('..=b'.' | b'0'..=b'9' | b';' | b'=' | b'?' | b'['..=b'~')
}

impl BareJid {
    /// Parses and prepares; a resource is refused with [`DomainError::Syntax`].
    ///
    /// # Errors
    /// [`JidError`].
    pub fn parse(text: &str) -> Result<Self, JidError> {
        if text.contains('/') {
            return Err(DomainError::Syntax(text.chars().take(300).collect()).into());
        }
        Self::of_full(text)
    }

    /// The bare JID of a full one.
    ///
    /// # Errors
    /// [`JidError`].
    pub fn of_full(text: &str) -> Result<Self, JidError> {
        let parts = JidParts::split(text)?;
        let local = match parts.local {
            Some(local) => Some(prepare_local(local)?.into()),
            None => None,
        };
        Ok(Self {
            local,
            domain: DomainName::parse(parts.domain)?,
        })
    }

    #[must_use]
    pub fn new(local: Option<&str>, domain: DomainName) -> Self {
        Self {
            local: local.map(Into::into),
            domain,
        }
    }

    #[must_use]
    pub fn local(&self) -> Option<&str> {
        self.local.as_deref()
    }

    #[must_use]
    pub fn domain(&self) -> &DomainName {
        &self.domain
    }
}

impl fmt::Display for BareJid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.local {
            Some(local) => write!(f, "{local}@{}", self.domain),
            None => self.domain.fmt(f),
        }
    }
}
impl FromStr for BareJid {
    type Err = JidError;
    fn from_str(text: &str) -> Result<Self, JidError> {
        Self::parse(text)
    }
}
impl TryFrom<String> for BareJid {
    type Error = JidError;
    fn try_from(text: String) -> Result<Self, JidError> {
        Self::parse(&text)
    }
}
impl From<BareJid> for String {
    fn from(jid: BareJid) -> Self {
        jid.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_has_one_form() {
        for text in [
            "alice@org.example",
            "ALICE@Org.Example",
            "Alice@ORG.EXAMPLE.",
        ] {
            let jid = BareJid::parse(text).expect(text);
            assert_eq!(jid.to_string(), "alice@org.example");
        }
        let full = BareJid::of_full("alice@org.example/phone@home/1").expect("valid");
        assert_eq!(full.to_string(), "alice@org.example");
        let escaped = BareJid::parse(r"d\27artagnan@org.example").expect("valid");
        assert_eq!(escaped.local(), Some(r"d\27artagnan"));
    }

    #[test]
    fn s23_letters_newer_than_nodeprep_are_judged_by_precis() {
        for (local, prepared) in [
            // Georgian, Unicode 1.1.
            ("\u{10d0}\u{10d1}", true),
            // Small Cyrillic Reversed Ze (5.0), Tifinagh (4.1), Balinese (5.0), a Han letter of 5.2.
            ("\u{511}a", true),
            ("\u{2d30}\u{2d31}", true),
            ("\u{1b05}.1", true),
            ("\u{2a700}", true),
            ("rob-\u{2d30}-ROB", true),
            // A capital, which older servers leave and newer ones do not.
            ("\u{510}a", false),
            // Newer than the tables of PRECIS: Georgian capital (11.0), Adlam (9.0).
            ("\u{1c90}", false),
            ("\u{1e943}", false),
            // What Nodeprep maps beside a letter that it does not know.
            ("\u{2163}\u{2d30}", false),
        ] {
            let jid = prepare_local(local);
            assert_eq!(jid.is_ok(), prepared, "{local:?}: {jid:?}");
        }
        let jid = BareJid::parse("ROB\u{2d30}@org.example").expect("valid");
        assert_eq!(jid.local(), Some("rob\u{2d30}"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "@org.example",
            "a@b@c",
            "a b@org.example",
            "a\"b@org.example",
            "a&b@org.example",
            "alice@",
            "",
        ] {
            assert!(BareJid::parse(text).is_err(), "{text:?} passed");
        }
        assert_eq!(
            BareJid::of_full("a@b.example/"),
            Err(JidError::EmptyResource)
        );
        let long = format!("{}@org.example", "a".repeat(1024));
        assert_eq!(BareJid::parse(&long), Err(JidError::LocalTooLong));
        // U+2163 ROMAN NUMERAL FOUR: Nodeprep reads "iv".
        assert!(BareJid::parse("\u{2163}@org.example").is_err());
    }
}
