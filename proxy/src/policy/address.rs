//! An address of a stanza as policy compares it: bare and prepared, borrowed where it already is.

use std::borrow::Cow;

use xmpp_edge_crds::{
    domain::{self, DomainName, NameForm},
    jid::{DomainRange, JidError, JidParts, check_resource, in_one_spelling, prepare_local},
};

use crate::xml::Stanza;

/// `local@domain` or `domain`: localpart by UsernameCaseMapped (RFC 8265), domain as A-labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address<'a> {
    bare: Cow<'a, str>,
    /// Length of the localpart, 0: none.
    local: usize,
}

/// Where the bare JID and its localpart end in an address that stands in prepared form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressEnds {
    local: u16,
    bare: u16,
}

impl<'a> Address<'a> {
    /// Prepares a full or bare JID; allocates only where its text is not in prepared form.
    ///
    /// # Errors
    /// [`JidError`] for what is no address, or reads differently under Nodeprep.
    pub fn prepare(text: &'a str) -> Result<Self, JidError> {
        let parts = JidParts::split(text)?;
        Self::of(text, parts, domain::is_canonical(parts.domain.as_bytes()))
    }

    /// As [`Self::prepare`], of a text whose domain is known to be in the form of a [`DomainName`].
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn around(text: &'a str, domain: DomainRange) -> Result<Self, JidError> {
        Self::of(text, JidParts::around(text, domain)?, true)
    }

    fn of(text: &'a str, parts: JidParts<'a>, is_canonical: bool) -> Result<Self, JidError> {
        parts.resource.map(check_resource).transpose()?;
        let local = parts.local.map(prepare_local).transpose()?;
        if is_canonical && matches!(local, None | Some(Cow::Borrowed(_))) {
            let length = local.map_or(0, |local| local.len());
            let bare = length + usize::from(length > 0) + parts.domain.len();
            return Ok(Self {
                bare: Cow::Borrowed(&text[..bare]),
                local: length,
            });
        }
        let domain = DomainName::parse(parts.domain)?;
        Ok(match local {
            Some(local) => Self {
                bare: format!("{local}@{domain}").into(),
                local: local.len(),
            },
            None => Self {
                bare: domain.as_str().to_owned().into(),
                local: 0,
            },
        })
    }

    /// The address of a text whose [`Self::ends`] are known. Of another text: an address of nobody.
    pub(super) fn at(text: &'a str, ends: AddressEnds) -> Self {
        Self {
            bare: Cow::Borrowed(text.get(..ends.bare.into()).unwrap_or_default()),
            local: ends.local.into(),
        }
    }

    /// `None` where the text does not stand in prepared form.
    pub(super) fn ends(&self) -> Option<AddressEnds> {
        match self.bare {
            Cow::Owned(_) => None,
            Cow::Borrowed(bare) => Some(AddressEnds {
                local: self.local.try_into().ok()?,
                bare: bare.len().try_into().ok()?,
            }),
        }
    }

    /// The bare JID.
    #[must_use]
    pub fn bare(&self) -> &str {
        &self.bare
    }

    #[must_use]
    pub fn local(&self) -> Option<&str> {
        (self.local > 0).then(|| &self.bare[..self.local])
    }

    #[must_use]
    pub fn domain(&self) -> &str {
        if self.local > 0 {
            &self.bare[self.local + 1..]
        } else {
            &self.bare
        }
    }
}

/// The stanza with the addresses under which it was judged, where it says them in a way that another
/// server may read as something else: what was judged is what is written. `None` where it can stand as
/// it came.
///
/// A name with two forms of RFC 5890 is written in one spelling: A-labels in lower case, or U-labels that
/// neither IDNA 2008 nor Nameprep maps. The sender's stands in the form in which his server has it, that
/// of `to` in the form in which the next hop hosts it, where that is known. All else is written anew:
/// other full stops than ".", one at the end, upper case, letters that one of the two maps (ß, ς,
/// joiners, wide forms).
#[must_use]
pub fn readdressed<'a>(stanza: &Stanza<'a>, hosted: Option<NameForm>) -> Option<Stanza<'a>> {
    let anew = |text: Option<&str>, form| text.and_then(|text| in_one_spelling(text, form));
    let from = anew(stanza.from.as_deref(), None);
    let to = anew(stanza.to.as_deref(), hosted);
    if from.is_none() && to.is_none() {
        return None;
    }
    let mut anew = stanza.clone();
    anew.form.readdressed = true;
    if let Some(from) = from {
        anew.from = Some(from.into());
    }
    if let Some(to) = to {
        anew.to = Some(to.into());
    }
    Some(anew)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_person_has_one_bare_address_and_the_common_form_is_borrowed() {
        for (text, bare, local, borrowed) in [
            (
                "alice@org.example",
                "alice@org.example",
                Some("alice"),
                true,
            ),
            (
                "alice@org.example/Phone@x/1",
                "alice@org.example",
                Some("alice"),
                true,
            ),
            (
                "ALICE@Org.Example/x",
                "alice@org.example",
                Some("alice"),
                false,
            ),
            (
                "alice@bücher.example",
                "alice@xn--bcher-kva.example",
                Some("alice"),
                false,
            ),
            ("org.example", "org.example", None, true),
            ("org.example/r", "org.example", None, true),
            ("Org.example.", "org.example", None, false),
            (
                r"d\27artagnan@org.example",
                r"d\27artagnan@org.example",
                Some(r"d\27artagnan"),
                true,
            ),
        ] {
            let address = Address::prepare(text).expect(text);
            assert_eq!((address.bare(), address.local()), (bare, local), "{text}");
            assert_eq!(
                address.domain(),
                bare.rsplit('@').next().expect("a part"),
                "{text}"
            );
            assert_eq!(matches!(address.bare, Cow::Borrowed(_)), borrowed, "{text}");
        }
    }

    #[test]
    fn what_older_servers_read_as_someone_else_is_no_address() {
        for text in [
            "\u{2163}@org.example",
            "@org.example",
            "a@b@c",
            "alice@org.example/",
            "alice@",
            "alice@org.example/a\nb",
            "alice@org.example/\u{e000}",
            "alice@org.example/\u{2069}x",
        ] {
            assert!(Address::prepare(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_is_written_in_one_spelling() {
        for (text, written) in [
            ("alice@org.example/Phone", None),
            ("org.example", None),
            ("alice@bücher.example/🐎", None),
            ("alice@xn--bcher-kva.example", Some("alice@bücher.example")),
            ("alice@org\u{3002}example/r", Some("alice@org.example/r")),
            ("alice@org\u{ff0e}example", Some("alice@org.example")),
            ("org\u{ff61}example/x/y@z", Some("org.example/x/y@z")),
            ("Alice@Org.Example", Some("Alice@org.example")),
            ("alice@org.example.", Some("alice@org.example")),
            ("alice@B\u{dc}CHER.example", Some("alice@bücher.example")),
            ("alice@bu\u{308}cher.example", Some("alice@bücher.example")),
            ("alice@faß.example", Some("alice@xn--fa-hia.example")),
            ("alice@βόλος.example", Some("alice@xn--nxasmm1c.example")),
            ("alice@xn--BCHER-KVA.example", Some("alice@bücher.example")),
        ] {
            let letters = in_one_spelling(text, Some(NameForm::Letters));
            assert_eq!(letters.as_deref(), written, "{text}");
            if !text.contains("@xn--b") {
                let as_it_came = in_one_spelling(text, None);
                assert_eq!(as_it_came.as_deref(), written, "{text}");
            }
        }
        for (text, written) in [
            ("alice@xn--bcher-kva.example/r", None),
            (
                "alice@bücher.example/r",
                Some("alice@xn--bcher-kva.example/r"),
            ),
            ("org.example", None),
            ("Org.example", Some("org.example")),
        ] {
            let ascii = in_one_spelling(text, Some(NameForm::Ascii));
            assert_eq!(ascii.as_deref(), written, "{text}");
        }
    }

    /// Pieces of domains that IDNA 2008, UTS 46 and Nameprep treat each in its own way.
    fn any_domain() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "a",
            "z",
            "B",
            "ß",
            "ss",
            "ς",
            "σ",
            "\u{200d}",
            "\u{200c}",
            "\u{ad}",
            "ü",
            "u\u{308}",
            "Ü",
            "ﬁ",
            "１",
            "٠",
            "א",
            "क्",
            "-",
            "xn--",
            "bcher-kva",
            "fa-hia",
            "\u{3002}",
            "\u{ff0e}",
            "\u{ff61}",
            ".",
            "ა",
            "\u{1c90}",
            "\u{212a}",
            "İ",
            "ı",
            "K",
        ]);
        proptest::collection::vec(piece, 1..8)
            .prop_map(|pieces| format!("{}.example", pieces.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// What is written is read as the domain that was judged, by IDNA 2008 and by Nameprep (S-05).
        #[test]
        fn every_reader_of_what_is_written_reads_what_was_judged(domain in any_domain(), form: Option<bool>) {
            let form = form.map(|ascii| if ascii { NameForm::Ascii } else { NameForm::Letters });
            let text = format!("x@{domain}/r");
            if let Ok(judged) = Address::prepare(&text) {
                let written = in_one_spelling(&text, form).unwrap_or_else(|| text.clone());
                let parts = JidParts::split(&written).expect("an address");
                let read = DomainName::parse(parts.domain).expect("a domain");
                prop_assert_eq!(read.as_str(), judged.domain());
                let older = stringprep::nameprep(parts.domain).expect("Nameprep takes it");
                prop_assert_eq!(&older, parts.domain, "Nameprep leaves it");
                let again = Address::prepare(&written).expect("still an address");
                prop_assert_eq!(again.bare(), judged.bare());
            }
        }
    }
}
