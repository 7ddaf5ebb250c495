//! Makes keys and certificates. It decides names, usages and times; it keeps nothing.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData,
    SanType, SerialNumber,
};
use xmpp_edge_crds::domain::DomainName;
use zeroize::Zeroizing;

use super::chain::PemPair;

/// Certificates begin this long before they are made, for clocks that are behind.
const BACKDATED: SignedDuration = SignedDuration::from_hours(1);

/// How long a certificate of ours is valid. All but the CA are renewed with a third of that left
/// (`CertificateFacts::wants_renewal`), so that proxies federate for 30 days without any operator.
pub const CA_VALID: SignedDuration = SignedDuration::from_hours(24 * 3650);
pub const INTERMEDIATE_VALID: SignedDuration = SignedDuration::from_hours(24 * 90);
pub const LEAF_VALID: SignedDuration = SignedDuration::from_hours(24 * 90);
pub const SIDECAR_VALID: SignedDuration = SignedDuration::from_hours(24 * 30);

/// Making a key or a certificate failed: no disk and no network is involved, so only a name that
/// X.509 cannot hold or material that is no certificate comes here.
#[derive(Debug, thiserror::Error)]
#[error("cannot make {what}: {source}")]
pub struct IssueError {
    pub what: String,
    pub source: rcgen::Error,
}

fn fault(what: &str) -> impl Fn(rcgen::Error) -> IssueError + '_ {
    move |source| IssueError {
        what: what.to_owned(),
        source,
    }
}

/// A new ECDSA P-256 key: what every peer of this decade verifies, in the smallest handshake.
///
/// # Errors
/// [`IssueError`].
pub fn key() -> Result<KeyPair, IssueError> {
    KeyPair::generate().map_err(fault("a key"))
}

fn params(
    common_name: &str,
    now: Timestamp,
    valid: SignedDuration,
) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    let (from, to) = (now - BACKDATED, now + valid);
    let at = |time: Timestamp| {
        let seconds = u64::try_from(time.as_second()).unwrap_or(0);
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
    };
    params.not_before = at(from);
    params.not_after = at(to);
    params.serial_number = Some(serial()?);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// 127 random bits, positive (RFC 5280 section 4.1.2.2).
fn serial() -> Result<SerialNumber, IssueError> {
    let mut bytes = random::<16>()?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Random bytes of the operating system's generator.
///
/// # Errors
/// [`IssueError`] where there is no randomness to be had.
pub fn random<const N: usize>() -> Result<[u8; N], IssueError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| fault("random bytes")(rcgen::Error::RemoteKeyError))?;
    Ok(bytes)
}

fn pem(certificate: &rcgen::Certificate, above: &str) -> String {
    let mut chain = certificate.pem();
    chain.push_str(above);
    chain
}

/// A self-signed root of ten years.
///
/// # Errors
/// [`IssueError`].
pub fn root(common_name: &str, now: Timestamp) -> Result<PemPair, IssueError> {
    let key = key()?;
    let mut params = params(common_name, now, CA_VALID)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params
        .self_signed(&key)
        .map_err(fault("a CA certificate"))?;
    Ok(PemPair {
        chain: certificate.pem(),
        key: Zeroizing::new(key.serialize_pem()),
    })
}

fn issuer(of: &PemPair) -> Result<Issuer<'static, KeyPair>, IssueError> {
    let key =
        KeyPair::from_pem(&of.key).map_err(fault("a certificate: the CA's key is unusable"))?;
    Issuer::from_ca_cert_pem(&of.chain, key)
        .map_err(fault("a certificate: the CA's certificate is unusable"))
}

/// The intermediate of a pool: 90 days, path length 0, and for no name at or below an own
/// domain, so that a stolen pod cannot pose as the organisation's own servers.
///
/// # Errors
/// [`IssueError`].
pub fn intermediate(
    ca: &PemPair,
    common_name: &str,
    own: &[DomainName],
    now: Timestamp,
) -> Result<PemPair, IssueError> {
    let issuer = issuer(ca)?;
    let key = key()?;
    let mut params = params(common_name, now, INTERMEDIATE_VALID)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: Vec::new(),
        excluded_subtrees: own
            .iter()
            .map(|domain| GeneralSubtree::DnsName(domain.to_string()))
            .collect(),
    });
    let certificate = params
        .signed_by(&key, &issuer)
        .map_err(fault("an intermediate"))?;
    Ok(PemPair {
        chain: pem(&certificate, ""),
        key: Zeroizing::new(key.serialize_pem()),
    })
}

/// A certificate of [`LEAF_VALID`] for `names`, good for server and client authentication.
///
/// # Errors
/// [`IssueError`] where a name cannot stand in a certificate.
pub fn leaf(ca: &PemPair, names: &[DomainName], now: Timestamp) -> Result<PemPair, IssueError> {
    leaf_for(ca, names, now, LEAF_VALID)
}

/// As [`leaf`], for so long.
///
/// # Errors
/// As there.
pub fn leaf_for(
    ca: &PemPair,
    names: &[DomainName],
    now: Timestamp,
    valid: SignedDuration,
) -> Result<PemPair, IssueError> {
    let issuer = issuer(ca)?;
    let key = key()?;
    let mut params = params("", now, valid)?;
    params.distinguished_name = common_name_of(names);
    params.subject_alt_names = alternative_names(names)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = both_usages();
    let certificate = params
        .signed_by(&key, &issuer)
        .map_err(fault("a certificate"))?;
    Ok(PemPair {
        chain: pem(&certificate, ""),
        key: Zeroizing::new(key.serialize_pem()),
    })
}

/// The first name, where it fits: a common name has at most 64 characters (RFC 5280, ub-common-name).
fn common_name_of(names: &[DomainName]) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    if let Some(first) = names.first().filter(|name| name.as_str().len() <= 64) {
        subject.push(DnType::CommonName, first.as_str());
    }
    subject
}

fn alternative_names(names: &[DomainName]) -> Result<Vec<SanType>, IssueError> {
    names
        .iter()
        .map(|name| {
            let name = name
                .as_str()
                .try_into()
                .map_err(fault("a subject alternative name"))?;
            Ok(SanType::DnsName(name))
        })
        .collect()
}

fn both_usages() -> Vec<ExtendedKeyUsagePurpose> {
    vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ]
}

/// A PKCS #10 request in PEM for `names`, asking for both usages. `subject` as given; without one
/// the first name is its common name.
///
/// # Errors
/// [`IssueError`].
pub fn request(
    key: &KeyPair,
    names: &[DomainName],
    subject: Option<DistinguishedName>,
) -> Result<String, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject.unwrap_or_else(|| common_name_of(names));
    params.subject_alt_names = alternative_names(names)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if key.subject_public_key_info().len() > 200 {
        // An RSA key also serves key exchange of TLS 1.2 peers without (EC)DHE in the CA's profile.
        params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
    }
    params.extended_key_usages = both_usages();
    let request = params
        .serialize_request(key)
        .map_err(fault("a certificate signing request"))?;
    request
        .pem()
        .map_err(fault("a certificate signing request"))
}
