//! An address of a presence that passed: what identifies the user, and the device.

use std::borrow::Cow;

use xmpp_edge_crds::{
    domain::is_canonical,
    jid::{BareJid, JidParts, prepare_local},
};

/// A full or bare JID in prepared form, borrowed where it already is.
pub(super) struct NotedAddress<'a> {
    /// `local@domain`, or the domain alone.
    pub bare: Cow<'a, str>,
    /// Empty for a bare JID.
    pub resource: &'a str,
}

impl<'a> NotedAddress<'a> {
    /// None where the text is no address.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let parts = JidParts::split(text).ok()?;
        let resource = parts.resource.unwrap_or_default();
        let is_prepared = is_canonical(parts.domain.as_bytes())
            && match parts.local {
                None => true,
                Some(local) => matches!(prepare_local(local), Ok(Cow::Borrowed(_))),
            };
        let bare = if is_prepared {
            let end = memchr::memchr(b'/', text.as_bytes()).unwrap_or(text.len());
            Cow::Borrowed(&text[..end])
        } else {
            Cow::Owned(BareJid::of_full(text).ok()?.to_string())
        };
        Some(Self { bare, resource })
    }

    pub(super) fn domain(&self) -> &str {
        split_bare(&self.bare).1
    }
}

/// Localpart and domain of a prepared bare JID.
pub(super) fn split_bare(bare: &str) -> (Option<&str>, &str) {
    match bare.split_once('@') {
        Some((local, domain)) => (Some(local), domain),
        None => (None, bare),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s3_an_address_is_noted_in_one_form() {
        for said in ["Rob@b\u{fc}cher.example/x", "rob@xn--bcher-kva.example/x"] {
            let noted = NotedAddress::parse(said).expect("an address");
            assert_eq!(noted.bare, "rob@xn--bcher-kva.example");
            assert_eq!(noted.resource, "x");
        }
    }
}
