//! Domain names, parsed once and valid ever after.
//!
//! A [`DomainName`] is a lower-case A-label domain without trailing dot (RFC 5890, RFC 7622
//! section 3.2). IP literals are not domains here: no partner and no own domain is one.

use std::{
    borrow::{Borrow, Cow},
    fmt,
    str::FromStr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

/// Longest domain name in octets, as text without trailing dot (RFC 1035 section 2.3.4).
pub const MAX_DOMAIN_BYTES: usize = 253;

/// A fully qualified domain name: lower-case A-labels, 1 to 253 octets, no trailing dot.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DomainName(Arc<str>);

/// Why a text is no domain name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    #[error("a domain name may not be empty")]
    Empty,
    #[error("{0:?} is longer than 253 octets")]
    TooLong(String),
    #[error("{0:?} has an empty label")]
    EmptyLabel(String),
    #[error("{0:?} has a label longer than 63 octets")]
    LabelTooLong(String),
    #[error("{0:?} is not a domain name: use letters, digits and hyphens, labels joined by dots")]
    Syntax(String),
    #[error("{0:?} is an IP address, not a domain name")]
    IpAddress(String),
    #[error(
        "{0:?}: a wildcard stands for the leading labels alone and needs two labels or more after \"*.\""
    )]
    Wildcard(String),
}

impl DomainName {
    /// Parses and normalises: U-labels become A-labels, upper case lower, one trailing dot goes. Every
    /// spelling of a name has the same verdict: labels of ASCII are what they are, whatever their case, and
    /// each label of other letters is judged by itself.
    ///
    /// # Errors
    /// [`DomainError`] names the text and the fault.
    pub fn parse(text: &str) -> Result<Self, DomainError> {
        let trimmed = text.strip_suffix(FULL_STOPS).unwrap_or(text);
        if is_canonical(trimmed.as_bytes()) {
            return Ok(Self(trimmed.into()));
        }
        if trimmed.is_empty() {
            return Err(DomainError::Empty);
        }
        let shown = || text.chars().take(300).collect::<String>();
        if trimmed.parse::<std::net::IpAddr>().is_ok() || trimmed.starts_with('[') {
            return Err(DomainError::IpAddress(shown()));
        }
        let name = in_a_labels(trimmed).ok_or_else(|| DomainError::Syntax(shown()))?;
        if name.split('.').any(str::is_empty) {
            return Err(DomainError::EmptyLabel(shown()));
        }
        if !is_canonical(name.as_bytes()) {
            return Err(if name.len() > MAX_DOMAIN_BYTES {
                DomainError::TooLong(shown())
            } else if name.split('.').any(|label| label.len() > 63) {
                DomainError::LabelTooLong(shown())
            } else {
                DomainError::Syntax(shown())
            });
        }
        Ok(Self(name.into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a label is an A-label, so that the name has a form in other letters too.
    #[must_use]
    pub fn is_international(&self) -> bool {
        self.0.split('.').any(|label| label.starts_with("xn--"))
    }

    /// The name as addresses carry it (RFC 7622 section 3.2.1): with U-labels, where servers of
    /// RFC 7622 and of RFC 6122 (Nameprep) read that text as this very name; else as A-labels, which
    /// nobody maps.
    #[must_use]
    pub fn to_unicode(&self) -> Cow<'_, str> {
        if !self.is_international() {
            return Cow::Borrowed(self.as_str());
        }
        match self.letters() {
            Some(text) if stringprep::nameprep(&text).is_ok_and(|older| older == text) => {
                Cow::Owned(text)
            }
            _ => Cow::Borrowed(self.as_str()),
        }
    }

    /// The name with U-labels (RFC 5890 section 2.3.2.1), whatever older servers read in them; `None` where
    /// it has no such form.
    fn letters(&self) -> Option<String> {
        let (text, outcome) = idna::domain_to_unicode(self.as_str());
        let is_it = outcome.is_ok() && Self::parse(&text).as_ref() == Ok(self);
        is_it.then_some(text)
    }

    /// The domain without its first label, or `None` at the top.
    #[must_use]
    pub fn parent(&self) -> Option<&str> {
        self.0.split_once('.').map(|(_, rest)| rest)
    }
}

/// The characters that part labels, "." and those that IDNA reads so (RFC 3490 section 3.1).
const FULL_STOPS: [char; 4] = ['.', '\u{3002}', '\u{ff0e}', '\u{ff61}'];

/// What no label of other letters may become: all that is no letter, digit, hyphen or underscore, as in
/// labels of ASCII ([`is_canonical`]).
const DENIED: idna::AsciiDenyList =
    idna::AsciiDenyList::new(true, r##"!"#$%&'()*+,/:;<=>?@[\]^`{|}~"##);

/// The name in lower-case A-labels, as far as each label has such a form: whatever stands in one of ASCII
/// is in its place.
fn in_a_labels(text: &str) -> Option<String> {
    let mut name = String::with_capacity(text.len());
    for (number, label) in text.split(FULL_STOPS).enumerate() {
        if number > 0 {
            name.push('.');
        }
        if label.is_ascii() {
            name.extend(label.chars().map(|letter| letter.to_ascii_lowercase()));
        } else {
            name.push_str(&idna::domain_to_ascii_cow(label.as_bytes(), DENIED).ok()?);
        }
    }
    Some(name)
}

/// In which letters a name is written on the wire. Only names with A-labels have several forms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NameForm {
    /// As RFC 7622 section 3.2.1 wants it: [`DomainName::to_unicode`].
    #[default]
    Letters,
    /// A-labels, as some servers host them.
    Ascii,
    /// U-labels that older servers read as those of another name (ß, ς, joiners): only ever said to whom
    /// wrote them so.
    NewerLetters,
}

impl NameForm {
    /// The form of a name that somebody wrote; what has no other form says nothing.
    #[must_use]
    pub fn of(text: &str) -> Self {
        if text.is_ascii() {
            let is_a_label = |label: &str| {
                let prefix = label.as_bytes().get(..4);
                prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"xn--"))
            };
            return match text.split('.').any(is_a_label) {
                true => Self::Ascii,
                false => Self::Letters,
            };
        }
        match DomainName::parse(text) {
            Ok(name) if name.is_international() && name.to_unicode() == name.as_str() => {
                Self::NewerLetters
            }
            _ => Self::Letters,
        }
    }

    #[must_use]
    pub fn write(self, name: &DomainName) -> Cow<'_, str> {
        match self {
            Self::Letters => name.to_unicode(),
            Self::Ascii => Cow::Borrowed(name.as_str()),
            Self::NewerLetters => match name.letters() {
                Some(text) if name.is_international() => Cow::Owned(text),
                _ => Cow::Borrowed(name.as_str()),
            },
        }
    }

    /// The form in which it may be said to others than who wrote it so.
    #[must_use]
    pub fn to_all(self) -> Self {
        match self {
            Self::NewerLetters => Self::Letters,
            form => form,
        }
    }

    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Letters | Self::NewerLetters => Self::Ascii,
            Self::Ascii => Self::Letters,
        }
    }
}

/// Whether `text` already is what [`DomainName`] holds, so that it can be compared as it stands.
/// An all-numeric last label is refused: it would read as an IPv4 address.
#[must_use]
pub fn is_canonical(text: &[u8]) -> bool {
    if text.is_empty() || text.len() > MAX_DOMAIN_BYTES {
        return false;
    }
    let mut label = 0_usize;
    let mut numeric = true;
    let mut previous = b'.';
    for &byte in text {
        match byte {
            b'.' => {
                if label == 0 || previous == b'-' {
                    return false;
                }
                label = 0;
                numeric = true;
            }
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {
                if byte == b'-' && label == 0 {
                    return false;
                }
                // Punycode labels are checked by the slow path, unless they came out of it.
                numeric &= byte.is_ascii_digit();
                label += 1;
                if label > 63 {
                    return false;
                }
            }
            _ => return false,
        }
        previous = byte;
    }
    label > 0 && previous != b'-' && !numeric
}

impl FromStr for DomainName {
    type Err = DomainError;
    fn from_str(text: &str) -> Result<Self, DomainError> {
        Self::parse(text)
    }
}
impl TryFrom<String> for DomainName {
    type Error = DomainError;
    fn try_from(text: String) -> Result<Self, DomainError> {
        Self::parse(&text)
    }
}
impl From<DomainName> for String {
    fn from(domain: DomainName) -> Self {
        domain.0.as_ref().to_owned()
    }
}
impl Borrow<str> for DomainName {
    fn borrow(&self) -> &str {
        &self.0
    }
}
impl AsRef<str> for DomainName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// A partner's listed domain: exact, or `*.suffix` for every name below the suffix.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DomainPattern {
    Exact(DomainName),
    /// Holds the suffix: `*.agency.example` is `Below("agency.example")`.
    Below(DomainName),
}

impl DomainPattern {
    /// # Errors
    /// As [`DomainName::parse`]; a wildcard needs two labels or more after `*.`.
    pub fn parse(text: &str) -> Result<Self, DomainError> {
        match text.strip_prefix("*.") {
            None if text.contains('*') => Err(DomainError::Wildcard(text.to_owned())),
            None => DomainName::parse(text).map(Self::Exact),
            Some(suffix) => {
                let suffix = DomainName::parse(suffix)?;
                if suffix.parent().is_none() {
                    return Err(DomainError::Wildcard(text.to_owned()));
                }
                Ok(Self::Below(suffix))
            }
        }
    }

    /// Whether `domain` is meant: a wildcard matches one leading label or more, never the suffix.
    #[must_use]
    pub fn matches(&self, domain: &DomainName) -> bool {
        match self {
            Self::Exact(own) => own == domain,
            Self::Below(suffix) => domain
                .as_str()
                .strip_suffix(suffix.as_str())
                .is_some_and(|head| head.len() > 1 && head.ends_with('.')),
        }
    }
}

impl TryFrom<String> for DomainPattern {
    type Error = DomainError;
    fn try_from(text: String) -> Result<Self, DomainError> {
        Self::parse(&text)
    }
}
impl From<DomainPattern> for String {
    fn from(pattern: DomainPattern) -> Self {
        pattern.to_string()
    }
}
impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(domain) => domain.fmt(f),
            Self::Below(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_normalised_to_one_form() {
        for (text, expected) in [
            ("partner.example", "partner.example"),
            ("Partner.EXAMPLE.", "partner.example"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("_xmpp.example", "_xmpp.example"),
        ] {
            let parsed = DomainName::parse(text).map(String::from);
            assert_eq!(parsed.as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn letters_are_written_where_every_server_reads_them_alike() {
        for (name, expected) in [
            ("partner.example", "partner.example"),
            ("xn--bcher-kva.example", "bücher.example"),
            // Nameprep makes "fass", "βολοσ" and other joins of these.
            ("xn--fa-hia.example", "xn--fa-hia.example"),
            ("xn--nxasmm1c.example", "xn--nxasmm1c.example"),
            // What is no A-label at all.
            ("xn--a.example", "xn--a.example"),
        ] {
            let name = DomainName::parse(name).expect("valid");
            assert_eq!(name.to_unicode(), expected);
        }
        let newer = DomainName::parse("\u{1e922}\u{1e923}.example").expect("valid");
        assert!(
            newer.is_international() && newer.to_unicode() == newer.as_str(),
            "Unicode 9"
        );
    }

    #[test]
    fn s3_a_name_is_written_in_the_form_in_which_it_was_said() {
        for (said, written) in [
            ("bücher.example", "bücher.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("partner.example", "partner.example"),
            // In the one spelling of its form.
            ("BÜCHER.example", "bücher.example"),
            ("BÜCHER.example.", "bücher.example"),
            ("XN--bcher-kva.example.", "xn--bcher-kva.example"),
            ("xn--bcher-kva.example.", "xn--bcher-kva.example"),
            ("Xn--Bcher-Kva.EXAMPLE", "xn--bcher-kva.example"),
            // Nameprep makes other names of these: they are said to whom says them so.
            ("faß.example", "faß.example"),
            ("Faß.example.", "faß.example"),
            ("βόλος.example", "βόλος.example"),
            ("xn--fa-hia.example", "xn--fa-hia.example"),
        ] {
            let name = DomainName::parse(said).expect("valid");
            assert_eq!(NameForm::of(said).write(&name), written, "{said}");
        }
    }

    #[test]
    fn letters_that_older_servers_map_are_said_to_who_wrote_them_alone() {
        let name = DomainName::parse("faß.example").expect("valid");
        assert_eq!(
            NameForm::of("faß.example").to_all().write(&name),
            name.as_str()
        );
        assert_eq!(NameForm::default().write(&name), name.as_str());
    }

    /// Pieces of labels of which some are names in one spelling, and none in another.
    fn any_text() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "a",
            "z",
            "B",
            "_",
            "-",
            "1",
            "xn--",
            "XN--",
            "bcher-kva",
            "fa-hia",
            "a.",
            "ü",
            "Ü",
            "ß",
            "ς",
            "u\u{308}",
            "א",
            "１",
            "\u{3002}",
            "\u{ff61}",
            ".",
            " ",
            "\u{200d}",
        ]);
        proptest::collection::vec(piece, 1..7)
            .prop_map(|pieces| format!("{}.example", pieces.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn every_spelling_of_a_name_has_the_same_verdict(text in any_text()) {
            let verdict = DomainName::parse(&text).map(String::from).ok();
            let mut spellings = vec![
                text.to_ascii_uppercase(),
                text.to_ascii_lowercase(),
                format!("{text}."),
                format!("{text}\u{3002}"),
                text.replace('.', "\u{3002}"),
                text.replace('\u{3002}', "."),
            ];
            if let Some(name) = &verdict {
                let name = DomainName::parse(name).expect("it is one");
                spellings.extend(
                    [NameForm::Letters, NameForm::Ascii, NameForm::NewerLetters]
                        .map(|form| form.write(&name).into_owned()),
                );
                for form in [NameForm::Letters, NameForm::Ascii] {
                    let written = form.write(&name);
                    prop_assert_eq!(NameForm::of(&written).write(&name), written.clone());
                }
            }
            for spelling in spellings {
                let read = DomainName::parse(&spelling).map(String::from).ok();
                prop_assert_eq!(&read, &verdict, "{:?} and {:?}", text, spelling);
            }
        }
    }

    #[test]
    fn names_that_are_no_host_names_are_names_in_every_spelling() {
        for (text, name) in [
            ("My_Host.example", "my_host.example"),
            ("XN--A.example", "xn--a.example"),
            ("my_host.BÜCHER.example", "my_host.xn--bcher-kva.example"),
            (
                "xn--a.bücher\u{3002}example\u{3002}",
                "xn--a.xn--bcher-kva.example",
            ),
        ] {
            let parsed = DomainName::parse(text).map(String::from);
            assert_eq!(parsed.as_deref(), Ok(name), "{text}");
        }
    }

    #[test]
    fn what_is_no_domain_is_refused() {
        for text in [
            "",
            ".",
            "a..b",
            "-a.example",
            "a b.example",
            "10.0.0.1",
            "[::1]",
            "a/b",
            "@x",
            "1.2.3.4.",
            "a..example",
            "a.\u{3002}",
            ".a.example",
            "a.example..",
        ] {
            assert!(DomainName::parse(text).is_err(), "{text:?} passed");
        }
        let long = format!("{}.example", "a".repeat(64));
        assert!(DomainName::parse(&long).is_err());
        let longer = vec!["a".repeat(60); 5].join(".");
        assert!(DomainName::parse(&longer).is_err());
    }

    #[test]
    fn a_wildcard_means_whole_leading_labels() {
        let pattern = DomainPattern::parse("*.agency.example").expect("valid");
        for (domain, expected) in [
            ("x.agency.example", true),
            ("x.y.agency.example", true),
            ("agency.example", false),
            ("xagency.example", false),
        ] {
            let domain = DomainName::parse(domain).expect("valid");
            assert_eq!(pattern.matches(&domain), expected, "{domain}");
        }
        for bad in ["*.example", "*", "a.*.example", "x*.agency.example", "*."] {
            assert!(DomainPattern::parse(bad).is_err(), "{bad} passed");
        }
    }
}
