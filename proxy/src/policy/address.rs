//! An address of a stanza as policy compares it: bare and prepared, borrowed where it already is.

use std::borrow::Cow;

use xmpp_edge_crds::{
    domain::{self, DomainName},
    jid::{JidError, JidParts, prepare_local},
};

/// `local@domain` or `domain`: localpart by UsernameCaseMapped (RFC 8265), domain as A-labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address<'a> {
    bare: Cow<'a, str>,
    /// Length of the localpart, 0: none.
    local: usize,
}

impl<'a> Address<'a> {
    /// Prepares a full or bare JID; allocates only where its text is not in prepared form.
    ///
    /// # Errors
    /// [`JidError`] for what is no address, or reads differently under Nodeprep.
    pub fn prepare(text: &'a str) -> Result<Self, JidError> {
        let parts = JidParts::split(text)?;
        let local = parts.local.map(prepare_local).transpose()?;
        let is_prepared = matches!(local, None | Some(Cow::Borrowed(_)))
            && domain::is_canonical(parts.domain.as_bytes());
        if is_prepared {
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

#[cfg(test)]
mod tests {
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
        ] {
            assert!(Address::prepare(text).is_err(), "{text}");
        }
    }
}
