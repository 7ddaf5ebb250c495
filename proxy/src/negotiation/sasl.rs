//! SASL EXTERNAL (RFC 6120 section 6, XEP-0178): the one mechanism between servers.

use base64::{Engine, engine::general_purpose::STANDARD};
use xmpp_edge_crds::domain::DomainName;

use super::{
    Output,
    wire::{self, Writer, ns},
};
use crate::xml::Element;

/// Longest base64 text of an authorization identity that is looked at. A domain has at most 253
/// octets; a JID in prepared form at most 3071.
const MAX_AUTHZID_BASE64: usize = 4100;

/// Why an attempt fails (RFC 6120 section 6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SaslFailure {
    Aborted,
    IncorrectEncoding,
    InvalidAuthzid,
    InvalidMechanism,
    MalformedRequest,
    NotAuthorized,
}

impl SaslFailure {
    pub(super) fn condition(self) -> &'static str {
        match self {
            Self::Aborted => "aborted",
            Self::IncorrectEncoding => "incorrect-encoding",
            Self::InvalidAuthzid => "invalid-authzid",
            Self::InvalidMechanism => "invalid-mechanism",
            Self::MalformedRequest => "malformed-request",
            Self::NotAuthorized => "not-authorized",
        }
    }

    pub(super) fn send(self, out: &mut Vec<Output>) {
        Writer::new()
            .raw("<failure xmlns='")
            .raw(ns::SASL)
            .raw("'><")
            .raw(self.condition())
            .raw("/></failure>")
            .send(out);
    }
}

/// Judges `<auth/>` for a peer whose certificate proves `peer`: the authorization identity is absent,
/// `=`, or that domain.
pub(super) fn judge(
    auth: &Element,
    offered: bool,
    peer: Option<&DomainName>,
) -> Result<(), SaslFailure> {
    if !offered || auth.attribute("mechanism") != Some("EXTERNAL") {
        return Err(SaslFailure::InvalidMechanism);
    }
    let peer = peer.ok_or(SaslFailure::NotAuthorized)?;
    let text = auth.text();
    if text.is_empty() || text == "=" {
        return Ok(());
    }
    if text.len() > MAX_AUTHZID_BASE64 {
        return Err(SaslFailure::MalformedRequest);
    }
    // RFC 6120 section 6.4.2: no whitespace, no line breaks.
    let decoded = STANDARD
        .decode(text.as_bytes())
        .map_err(|_| SaslFailure::IncorrectEncoding)?;
    let authzid = std::str::from_utf8(&decoded).map_err(|_| SaslFailure::MalformedRequest)?;
    match DomainName::parse(authzid) {
        Ok(domain) if domain == *peer => Ok(()),
        _ => Err(SaslFailure::InvalidAuthzid),
    }
}

/// Our `<auth/>`, with our domain as authorization identity: servers that compare it find it equal
/// to the stream's `from`, and XEP-0178 lets it be named.
pub(super) fn send_auth(own: &str, out: &mut Vec<Output>) {
    Writer::new()
        .raw("<auth xmlns='")
        .raw(ns::SASL)
        .raw("' mechanism='EXTERNAL'>")
        .raw(&STANDARD.encode(own))
        .raw("</auth>")
        .send(out);
}

/// Condition and text of the peer's `<failure/>`.
pub(super) fn read_failure(failure: &Element) -> (String, String) {
    wire::condition_and_text(failure, ns::SASL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::negotiation::tests::element;

    /// E-02, E-03, E-04, E-14.
    #[test]
    fn the_authorization_identity_is_the_stream_s_domain_or_none() {
        let peer: DomainName = "partner.example".parse().expect("valid");
        let b64 = |text: &[u8]| STANDARD.encode(text);
        let long = "A".repeat(10_000);
        for (mechanism, text, expected) in [
            ("EXTERNAL", "=", Ok(())),
            ("EXTERNAL", "", Ok(())),
            ("EXTERNAL", &b64(b"partner.example"), Ok(())),
            ("EXTERNAL", &b64(b"PARTNER.example"), Ok(())),
            (
                "EXTERNAL",
                &b64(b"other.example"),
                Err(SaslFailure::InvalidAuthzid),
            ),
            (
                "EXTERNAL",
                &b64(b"sub.partner.example"),
                Err(SaslFailure::InvalidAuthzid),
            ),
            (
                "EXTERNAL",
                &b64(b"user@partner.example"),
                Err(SaslFailure::InvalidAuthzid),
            ),
            (
                "EXTERNAL",
                &b64(b"partner.example\0x"),
                Err(SaslFailure::InvalidAuthzid),
            ),
            (
                "EXTERNAL",
                &b64(b"\xff\xfe"),
                Err(SaslFailure::MalformedRequest),
            ),
            (
                "EXTERNAL",
                "not base64!",
                Err(SaslFailure::IncorrectEncoding),
            ),
            (
                "EXTERNAL",
                " cGFydG5lci5leGFtcGxl ",
                Err(SaslFailure::IncorrectEncoding),
            ),
            ("EXTERNAL", &long, Err(SaslFailure::MalformedRequest)),
            ("PLAIN", "=", Err(SaslFailure::InvalidMechanism)),
            ("ANONYMOUS", "", Err(SaslFailure::InvalidMechanism)),
            ("external", "=", Err(SaslFailure::InvalidMechanism)),
        ] {
            let auth = element(&format!(
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{mechanism}'>{text}</auth>"
            ));
            assert_eq!(
                judge(&auth, true, Some(&peer)),
                expected,
                "{mechanism} {:.40}",
                text
            );
            assert_eq!(
                judge(&auth, false, Some(&peer)),
                Err(SaslFailure::InvalidMechanism),
                "not offered"
            );
        }
    }
}
