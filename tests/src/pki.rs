//! A certificate authority for tests.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};

/// Days that every certificate is valid from now; rcgen's default, the year 4096, crashes ejabberd
/// (its timer of the expiry takes no such delay).
const VALID_DAYS: i64 = 90;

/// What a leaf may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// As public CAs issue them today.
    ServerAuth,
    /// Needed by ejabberd before 25.08 of whoever calls it.
    ServerAndClientAuth,
}

/// A root that signs leaves.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// PEM, the leaf alone: its issuer is the root.
    pub certificate: String,
    /// PEM, PKCS#8.
    pub key: String,
}

impl Authority {
    /// A new root with the given common name.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        limit_validity(&mut params);
        let key = KeyPair::generate().expect("a key can be generated");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a root can be signed");
        Self { issuer }
    }

    /// The root's certificate, PEM.
    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// An authority below this one that may sign leaves.
    pub fn intermediate(&self) -> Leaf {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "Intermediate");
        params.use_authority_key_identifier_extension = true;
        limit_validity(&mut params);
        let key = KeyPair::generate().expect("a key can be generated");
        let issued = params
            .signed_by(&key, &self.issuer)
            .expect("an intermediate can be signed");
        Leaf {
            certificate: issued.pem(),
            key: key.serialize_pem(),
        }
    }

    /// A leaf whose dNSNames are `names`.
    pub fn issue(&self, names: &[&str], usage: Usage) -> Leaf {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).expect("names are DNS names");
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, names[0].as_str());
        params.use_authority_key_identifier_extension = true;
        limit_validity(&mut params);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match usage {
            Usage::ServerAuth => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::ServerAndClientAuth => vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
        };
        let key = KeyPair::generate().expect("a key can be generated");
        let leaf = params
            .signed_by(&key, &self.issuer)
            .expect("a leaf can be signed");
        Leaf {
            certificate: leaf.pem(),
            key: key.serialize_pem(),
        }
    }
}

/// From yesterday to [`VALID_DAYS`] from now.
fn limit_validity(params: &mut CertificateParams) {
    let today = jiff::Timestamp::now()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date();
    let day = |offset: i64| {
        let date = today.saturating_add(jiff::Span::new().days(offset));
        rcgen::date_time_ymd(
            date.year().into(),
            date.month().unsigned_abs(),
            date.day().unsigned_abs(),
        )
    };
    params.not_before = day(-1);
    params.not_after = day(VALID_DAYS);
}
