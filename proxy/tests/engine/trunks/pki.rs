//! The internal CA with what it issues: intermediates of edge pods, certificates of sidecars.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use xmpp_edge_proxy::config::PemPair;

type Authority = CertifiedIssuer<'static, KeyPair>;

/// Own domains of every test.
pub const OWN: [&str; 2] = ["org.example", "org2.example"];
/// Who an edge pod is on a trunk.
pub const EDGE: &str = "edge.xmpp-edge.internal";

pub struct Pki {
    root: Authority,
    /// Of an edge pod: own domains are excluded.
    intermediate: Authority,
    intermediate_key: String,
}

/// A certificate with its key, as scripted ends show it.
pub struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
    pem: PemPair,
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
}

fn end_entity(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names
        .iter()
        .map(|name| SanType::DnsName((*name).try_into().expect("ASCII")))
        .collect();
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params
}

impl Pki {
    pub fn new() -> Self {
        let key = || KeyPair::generate().expect("a key");
        let root = Authority::self_signed(authority("internal CA"), key()).expect("a certificate");
        let mut params = authority("pod");
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: Vec::new(),
            excluded_subtrees: OWN
                .into_iter()
                .chain(["other.example"])
                .map(|name| GeneralSubtree::DnsName(name.to_owned()))
                .collect(),
        });
        let own = key();
        let intermediate_key = own.serialize_pem();
        let intermediate = Authority::signed_by(params, own, &root).expect("a certificate");
        Self {
            root,
            intermediate,
            intermediate_key,
        }
    }

    pub fn root(&self) -> String {
        self.root.pem()
    }

    /// From what an edge pod makes its leaves.
    pub fn issuer(&self) -> PemPair {
        PemPair {
            chain: self.intermediate.pem(),
            key: self.intermediate_key.clone().into(),
        }
    }

    /// A CA of a sidecar's own, from which its server is shown leaves.
    pub fn of_a_sidecar() -> PemPair {
        let key = KeyPair::generate().expect("a key");
        let certificate = authority("loopback CA")
            .self_signed(&key)
            .expect("a certificate");
        PemPair {
            chain: certificate.pem(),
            key: key.serialize_pem().into(),
        }
    }

    /// What a sidecar of these domains shows.
    pub fn sidecar(&self, names: &[&str]) -> Shown {
        let key = KeyPair::generate().expect("a key");
        let certificate = end_entity(names).signed_by(&key, &*self.root);
        Shown::new(&[certificate.expect("a certificate")], &key)
    }

    /// As [`Self::sidecar`], for so many seconds from now on.
    pub fn sidecar_for(&self, names: &[&str], seconds: u64) -> Shown {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let end = now.expect("after 1970") + Duration::from_secs(seconds);
        let mut params = end_entity(names);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + end;
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &*self.root);
        Shown::new(&[certificate.expect("a certificate")], &key)
    }

    /// What an edge pod shows.
    pub fn edge(&self) -> Shown {
        let key = KeyPair::generate().expect("a key");
        let leaf = end_entity(&[EDGE]).signed_by(&key, &*self.intermediate);
        let leaf = leaf.expect("a certificate");
        let mut shown = Shown::new(&[leaf], &key);
        shown.chain.push(self.intermediate.der().clone());
        shown
    }

    /// A key that nobody issued a certificate for but itself.
    pub fn by_itself(names: &[&str]) -> Shown {
        let key = KeyPair::generate().expect("a key");
        let certificate = end_entity(names).self_signed(&key).expect("a certificate");
        Shown::new(&[certificate], &key)
    }
}

impl Shown {
    fn new(chain: &[rcgen::Certificate], key: &KeyPair) -> Self {
        Self {
            chain: chain.iter().map(|own| own.der().clone()).collect(),
            key: key.serialize_der(),
            pem: PemPair {
                chain: chain.iter().map(rcgen::Certificate::pem).collect(),
                key: key.serialize_pem().into(),
            },
        }
    }

    /// As a sidecar's settings have it.
    pub fn pem(&self) -> PemPair {
        self.pem.clone()
    }

    /// SHA-256 over the SubjectPublicKeyInfo, in hex.
    pub fn key_sha256(&self) -> String {
        xmpp_edge_proxy::tls::spki_sha256(&self.chain[0])
            .expect("a certificate")
            .to_string()
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()))
    }

    /// Accepts as an edge pod does, from whomever `pki` knows.
    pub fn acceptor(&self, pki: &Pki) -> TlsAcceptor {
        let mut roots = RootCertStore::empty();
        roots.add(pki.root.der().clone()).expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(clients.build().expect("a verifier"))
            .with_single_cert(self.chain.clone(), self.key())
            .expect("a key");
        TlsAcceptor::from(Arc::new(config))
    }

    /// Connects as a sidecar does, to whomever `pki` knows.
    pub fn connector(&self, pki: &Pki) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(pki.root.der().clone()).expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(self.chain.clone(), self.key())
            .expect("a key");
        TlsConnector::from(Arc::new(config))
    }
}
