//! Reading a certificate: names, dates, key hash. It never decides about trust.

use std::fmt;

use aws_lc_rs::digest;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use x509_parser::{
    extensions::{GeneralName, ParsedExtension},
    prelude::{FromDer, X509Certificate},
    public_key::PublicKey,
    time::ASN1Time,
};
use xmpp_edge_crds::{domain::DomainName, line::steers};

/// SHA-256 over a certificate's SubjectPublicKeyInfo: what pins and key changes compare.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpkiSha256(pub [u8; 32]);

/// Why bytes are no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("the certificate is not valid DER: {0}")]
    Der(String),
    #[error("{0:?} is not a SHA-256 in hex (64 hexadecimal digits)")]
    Hash(String),
}

impl SpkiSha256 {
    /// Parses 64 hexadecimal digits, in upper or lower case.
    ///
    /// # Errors
    /// [`CertificateError::Hash`] with the text.
    pub fn parse(text: &str) -> Result<Self, CertificateError> {
        let fault = || CertificateError::Hash(text.chars().take(80).collect());
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(fault());
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |d: u8| char::from(d).to_digit(16);
            let (high, low) = digit(pair[0]).zip(digit(pair[1])).ok_or_else(fault)?;
            *byte = u8::try_from(high * 16 + low).map_err(|_| fault())?;
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for SpkiSha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
impl fmt::Debug for SpkiSha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// SHA-256 over the SubjectPublicKeyInfo.
///
/// # Errors
/// [`CertificateError::Der`] when the bytes are no certificate.
pub fn spki_sha256(certificate: &CertificateDer<'_>) -> Result<SpkiSha256, CertificateError> {
    let parsed = parse(certificate)?;
    Ok(SpkiSha256(sha256(parsed.public_key().raw)))
}

/// When the certificate ends.
///
/// # Errors
/// [`CertificateError::Der`] when the bytes are no certificate.
pub fn not_after(certificate: &CertificateDer<'_>) -> Result<Timestamp, CertificateError> {
    Ok(timestamp(&parse(certificate)?.validity().not_after))
}

/// The `dNSName` values, lower case, as they stand; none of what is no certificate.
#[must_use]
pub fn dns_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    parse(certificate)
        .map(|parsed| Names::of(&parsed).dns)
        .unwrap_or_default()
}

/// The nearest time that can be told: "no expiry" (RFC 5280 section 4.1.2.5) is a day beyond the last one.
pub(super) fn timestamp(time: &ASN1Time) -> Timestamp {
    let (first, last) = (Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
    Timestamp::from_second(time.timestamp().clamp(first, last)).unwrap_or(Timestamp::MAX)
}

pub(super) fn parse<'a>(
    certificate: &'a CertificateDer<'_>,
) -> Result<X509Certificate<'a>, CertificateError> {
    match X509Certificate::from_der(certificate.as_ref()) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err(CertificateError::Der(
            "bytes follow the certificate".to_owned(),
        )),
        Err(cause) => Err(CertificateError::Der(cause.to_string())),
    }
}

/// Size of the key in bits, where it is an RSA key that proves nothing: one below 2048 bits is weak, and signatures
/// by one above 8192 bits are not verified (they cost who verifies the most).
pub(super) fn unproven_rsa(certificate: &X509Certificate<'_>) -> Option<usize> {
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => {
            Some(key.key_size()).filter(|bits| !(2048..=8192).contains(bits))
        }
        _ => None,
    }
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// The subject alternative names, as far as they matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// `dNSName` in lower case, as they stand: the only ones that authenticate a domain.
    pub dns: Vec<String>,
    /// Whether it holds `xmppAddr` or `SRVName` (RFC 6120 section 13.7.1.2): said in refusals,
    /// never matched. The internal CA's name constraints bind dNSName alone, so a stolen
    /// intermediate could write any domain into them.
    pub other_xmpp_names: bool,
    /// Hosts of `URI:sip:` without a user, in lower case (RFC 5922 section 7.1).
    pub sip: Vec<String>,
}

/// Which names of a certificate count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 9525: `dNSName`, exact or with one whole left-most label `*`.
    Wildcards,
    /// Those of a SIP server (RFC 5922 sections 7.1, 7.2): `URI:sip:` where there is one, else `dNSName`, each exact.
    Sip(SipUris),
}

/// What `URI:sip:` proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SipUris {
    Domain,
    /// Nothing: the name constraints of the internal CA bind dNSName alone, so that a stolen intermediate could write any
    /// domain into one.
    Nothing,
}

impl Names {
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Self {
        let mut names = Self::default();
        for extension in certificate.extensions() {
            let ParsedExtension::SubjectAlternativeName(san) = extension.parsed_extension() else {
                continue;
            };
            for name in &san.general_names {
                match name {
                    GeneralName::DNSName(name) => names.dns.push(name.to_ascii_lowercase()),
                    GeneralName::OtherName(oid, _) => {
                        // id-on-xmppAddr and id-on-dnsSRV
                        let oid = oid.to_id_string();
                        names.other_xmpp_names |=
                            oid == "1.3.6.1.5.5.7.8.5" || oid == "1.3.6.1.5.5.7.8.7";
                    }
                    GeneralName::URI(uri) => names.sip.extend(sip_host(uri)),
                    _ => {}
                }
            }
        }
        names
    }

    /// Whether a name that counts by `rule` is `domain`.
    pub(super) fn prove(&self, domain: &DomainName, rule: NameRule) -> bool {
        let is_named = |names: &[String]| names.iter().any(|name| name == domain.as_str());
        match rule {
            NameRule::Wildcards => self.cover(domain),
            NameRule::Sip(_) if self.sip.is_empty() => is_named(&self.dns),
            NameRule::Sip(SipUris::Domain) => is_named(&self.sip),
            NameRule::Sip(SipUris::Nothing) => false,
        }
    }

    /// All that `rule` looks at, for who reads why none of them did.
    pub(super) fn shown(self, rule: NameRule) -> Vec<String> {
        let mut all = self.dns;
        if let NameRule::Sip(_) = rule {
            all.extend(self.sip.iter().map(|host| format!("sip:{host}")));
        }
        all
    }

    /// Whether a `dNSName` is `domain`, exactly or by one whole left-most label `*` with two labels
    /// or more behind it (RFC 9525 section 6.3; without a list of public suffixes `*.example` is
    /// refused). Names with other characters (NUL, spaces, U-labels) match nothing.
    #[must_use]
    pub fn cover(&self, domain: &DomainName) -> bool {
        self.dns.iter().any(|name| matches(name, domain))
    }
}

/// The domain that a `sip:` URI is the identity of; `None` for one with a user, or of another scheme.
fn sip_host(uri: &str) -> Option<String> {
    let (scheme, rest) = uri.split_once(':')?;
    if !scheme.eq_ignore_ascii_case("sip") || rest.contains('@') {
        return None;
    }
    let host = rest.split([':', ';', '?', '/']).next()?;
    Some(host.to_ascii_lowercase())
}

fn matches(presented: &str, domain: &DomainName) -> bool {
    let Some(suffix) = presented.strip_prefix("*.") else {
        return presented == domain.as_str();
    };
    suffix.contains('.') && domain.parent() == Some(suffix)
}

/// Common name, else the whole distinguished name: for texts, bounded to 200 characters.
pub(super) fn shown(name: &x509_parser::x509::X509Name<'_>) -> String {
    let common = name
        .iter_common_name()
        .next()
        .and_then(|value| value.as_str().ok());
    let text = common.map_or_else(|| name.to_string(), str::to_owned);
    text.chars().filter(|c| !steers(*c)).take(200).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use x509_parser::x509::X509Name;

    use super::*;

    /// Who presents a certificate chooses its words, and they go into logs, conditions and terminals.
    #[test]
    fn a_name_is_shown_without_what_steers_the_line_that_it_stands_in() {
        let der = |tag: u8, content: &[u8]| {
            let length = u8::try_from(content.len()).unwrap();
            [&[tag, length], content].concat()
        };
        let text = "a\u{202e}b\u{200b}\u{1b}c";
        // CommonName (RFC 5280 appendix A.1), a UTF8String.
        let common = [der(6, &[0x55, 4, 3]), der(0x0c, text.as_bytes())].concat();
        let name = der(0x30, &der(0x31, &der(0x30, &common)));
        let (_, name) = X509Name::from_der(&name).unwrap();
        assert_eq!(shown(&name), "abc");
    }
}
