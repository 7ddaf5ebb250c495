//! A certificate authority for tests.

mod draft;
mod signer;

pub use draft::{Draft, Validity};
pub use signer::{Signer, SigningRules, describe_request};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData,
};

use sha2::{Digest, Sha256};

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
    /// Of no use to a server that is called.
    ClientAuth,
}

/// A root that signs leaves.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Certificates that a leaf's holder has to send along, PEM; empty below a root.
    path: String,
}

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// PEM, the leaf alone: its issuer is the root.
    pub certificate: String,
    /// PEM, PKCS#8.
    pub key: String,
}

impl Leaf {
    /// SHA-256 over the SubjectPublicKeyInfo in hexadecimal digits, as pins are written.
    pub fn pin(&self) -> String {
        let key = KeyPair::from_pem(&self.key).expect("a leaf's key is PEM");
        let hash = Sha256::digest(key.subject_public_key_info());
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }
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
        Self {
            issuer,
            path: String::new(),
        }
    }

    /// An authority that this one certifies; its leaves come with the path to the root.
    pub fn below(&self, name: &str) -> Self {
        self.certified(name, CertificateParams::default())
    }

    /// As [`Self::below`], for the names below `trees` alone (name constraints).
    pub fn below_for(&self, name: &str, trees: &[String]) -> Self {
        let mut params = CertificateParams::default();
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: trees.iter().cloned().map(GeneralSubtree::DnsName).collect(),
            excluded_subtrees: Vec::new(),
        });
        self.certified(name, params)
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

    fn certified(&self, name: &str, mut params: CertificateParams) -> Self {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.use_authority_key_identifier_extension = true;
        limit_validity(&mut params);
        let key = KeyPair::generate().expect("a key can be generated");
        let issuer = CertifiedIssuer::signed_by(params, key, &self.issuer)
            .expect("an intermediate can be signed");
        let path = issuer.pem() + &self.path;
        Self { issuer, path }
    }

    /// A leaf whose dNSNames are `names`.
    pub fn issue(&self, names: &[&str], usage: Usage) -> Leaf {
        self.issue_as(&Draft {
            usage,
            ..Draft::of(names)
        })
    }
}

/// From yesterday to [`VALID_DAYS`] from now.
fn limit_validity(params: &mut CertificateParams) {
    set_validity(params, -1, VALID_DAYS);
}

/// Valid from midnight to midnight, so many days from today.
fn set_validity(params: &mut CertificateParams, from: i64, to: i64) {
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
    params.not_before = day(from);
    params.not_after = day(to);
}
