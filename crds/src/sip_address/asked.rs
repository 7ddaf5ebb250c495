//! What a person gives for somebody's address: a JID, or what a SIP server calls them.

use thiserror::Error;

use super::{AddressFault, Scheme, SipUri};
use crate::jid::{BareJid, JidError};

/// Why a text is nobody's address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AskedAddressFault {
    #[error(transparent)]
    Jid(JidError),
    #[error("as an address of SIP: {0}")]
    Sip(#[from] AddressFault),
    /// RFC 7247 section 8.
    #[error(
        "sips: promises TLS on each hop, which XMPP cannot: a request to it is answered by 416. Ask for sip:"
    )]
    Sips,
}

/// Whose address `text` is: a JID, of which a resource is left out, or a URI of scheme `sip`, `im` or `pres`, as an edge
/// reads it (RFC 7247 section 6). No JID begins as one of these does: neither a localpart nor a domain has a colon.
///
/// # Errors
/// [`AskedAddressFault`].
pub fn asked_address(text: &str) -> Result<BareJid, AskedAddressFault> {
    if !has_scheme(text) {
        return BareJid::of_full(text).map_err(AskedAddressFault::Jid);
    }
    let uri = SipUri::parse(text).map_err(AddressFault::from)?;
    if uri.scheme == Scheme::Sips {
        return Err(AskedAddressFault::Sips);
    }
    Ok(uri.bare_jid()?)
}

fn has_scheme(text: &str) -> bool {
    let scheme = text.split_once(':').map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| {
        ["sip", "sips", "im", "pres"]
            .iter()
            .any(|known| scheme.eq_ignore_ascii_case(known))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::DomainError, sip_address::UriFault};

    #[test]
    fn sip_05_a_person_may_ask_by_either_side_s_address() {
        for (text, jid) in [
            ("alice@org.example", "alice@org.example"),
            ("alice@org.example/phone", "alice@org.example"),
            // What only a URI could not have.
            ("\u{fc}@org.example", "\u{fc}@org.example"),
            ("a@org.example/x:y@z", "a@org.example"),
            ("sip@org.example", "sip@org.example"),
            ("sip:alice@org.example", "alice@org.example"),
            (
                "SIP:Alice@ORG.example:5061;transport=tls",
                "alice@org.example",
            ),
            ("im:alice@org.example", "alice@org.example"),
            ("pres:alice@org.example", "alice@org.example"),
            ("sip:alice@org.example;gr=phone", "alice@org.example"),
            ("sip:f%C3%BC@org.example", "f\u{fc}@org.example"),
            ("sip:o'malley@org.example", r"o\27malley@org.example"),
            ("sip:a%5C27@org.example", r"a\5c27@org.example"),
        ] {
            let found = asked_address(text).map(|jid| jid.to_string());
            assert_eq!(found.as_deref(), Ok(jid), "{text}");
        }
    }

    #[test]
    fn what_is_nobody_s_address_says_why() {
        use AskedAddressFault as F;
        let sip = |fault: AddressFault| F::Sip(fault);
        let uri = |fault: UriFault| F::Sip(fault.into());
        for (text, fault) in [
            ("sips:alice@org.example", F::Sips),
            ("SIPS:alice@org.example", F::Sips),
            ("sip:org.example", sip(AddressFault::NoUser)),
            ("sip:alice:x@org.example", sip(AddressFault::Password)),
            ("sip:%zz@org.example", sip(AddressFault::Percent)),
            ("im:%ff@org.example", sip(AddressFault::NotUtf8)),
            ("sip:a b@org.example", uri(UriFault::Character)),
            ("sip:a@b@org.example", uri(UriFault::SecondAt)),
            ("pres:a@org.example?x=y", uri(UriFault::HeaderFields)),
            (
                "sip:a@192.0.2.1",
                sip(JidError::Domain(DomainError::IpAddress("192.0.2.1".to_owned())).into()),
            ),
            ("@org.example", F::Jid(JidError::EmptyLocal)),
        ] {
            assert_eq!(asked_address(text), Err(fault), "{text}");
        }
        for text in ["tel:+1234", "xmpp:alice@org.example", "", "a@b@c"] {
            let found = asked_address(text);
            assert!(matches!(found, Err(F::Jid(_))), "{text}: {found:?}");
        }
    }
}
