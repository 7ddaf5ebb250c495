//! Certificates for tests: authorities, intermediates and end entities with any fault.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls_pki_types::CertificateDer;

pub use rcgen::ExtendedKeyUsagePurpose as Eku;

/// 2026-01-01, when the tests' certificates begin.
pub const BEGIN: u64 = 1_767_225_600;
/// 2036-01-01
pub const END: u64 = 2_082_758_400;

pub type Authority = CertifiedIssuer<'static, KeyPair>;

/// What an end entity says of itself.
pub struct Subject<'a> {
    pub names: &'a [&'a str],
    pub common_name: &'a str,
    pub usage: &'a [ExtendedKeyUsagePurpose],
    pub begin: u64,
    pub end: u64,
    pub other_names: Vec<SanType>,
}

impl Default for Subject<'_> {
    fn default() -> Self {
        Self {
            names: &["partner.example"],
            common_name: "end entity",
            usage: &[Eku::ServerAuth, Eku::ClientAuth],
            begin: BEGIN,
            end: END,
            other_names: Vec::new(),
        }
    }
}

impl Subject<'_> {
    pub fn params(&self) -> CertificateParams {
        let epoch = date_time_ymd(1970, 1, 1);
        let mut params = CertificateParams::default();
        params.subject_alt_names = self
            .names
            .iter()
            .map(|name| SanType::DnsName((*name).try_into().unwrap()))
            .collect();
        params
            .subject_alt_names
            .extend(self.other_names.iter().cloned());
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, self.common_name);
        params.extended_key_usages = self.usage.to_vec();
        params.not_before = epoch + Duration::from_secs(self.begin);
        params.not_after = epoch + Duration::from_secs(self.end);
        params
    }
}

pub struct Issued {
    pub der: CertificateDer<'static>,
    pub pem: String,
    pub key_pem: String,
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = Subject {
        names: &[],
        common_name: name,
        usage: &[],
        ..Subject::default()
    }
    .params();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
}

pub fn authority(name: &str) -> Authority {
    CertifiedIssuer::self_signed(authority_params(name), KeyPair::generate().unwrap()).unwrap()
}

pub fn intermediate(name: &str, by: &Authority) -> Authority {
    CertifiedIssuer::signed_by(authority_params(name), KeyPair::generate().unwrap(), by).unwrap()
}

pub fn issue(by: &Authority, subject: &Subject<'_>) -> Issued {
    let key = KeyPair::generate().unwrap();
    let certificate = subject.params().signed_by(&key, by).unwrap();
    Issued {
        der: certificate.der().clone(),
        pem: certificate.pem(),
        key_pem: key.serialize_pem(),
    }
}

pub fn self_signed(subject: &Subject<'_>) -> Issued {
    let key = KeyPair::generate().unwrap();
    let certificate = subject.params().self_signed(&key).unwrap();
    Issued {
        der: certificate.der().clone(),
        pem: certificate.pem(),
        key_pem: key.serialize_pem(),
    }
}
