//! The certificate that a pool shows to partners, from one of several backends.
//!
//! A backend says what should be in force; [`provide`] keeps it, and keeps the last good pair where
//! a backend has none to offer. The pair in force always lies in the pool's `<pool>-tls`.

pub mod csr;
pub mod external;
pub mod sip;

use std::fmt;

use jiff::Timestamp;
use xmpp_edge_crds::{
    domain::DomainName,
    kinds::{conditions::Reason, pool::Certificate},
};
use zeroize::Zeroizing;

pub use self::external::{Followed, Keeper, Progress};
use self::{csr::Csr, sip::SipCertificateFault};
use super::{
    CertificateError,
    chain::{CertificateFacts, ChainError, GivenError, PemPair},
    issue,
    store::{ManagedSecret, SecretData, Store, set, text},
};

/// What is wanted of a backend, whatever it is.
#[derive(Clone, Debug)]
pub struct CertificateSpec<'a> {
    pub pool: &'a str,
    /// Every own domain, and the FQDN; the first is the common name where one is needed.
    pub names: &'a [DomainName],
    pub now: Timestamp,
}

/// The Secrets that the manifests hold, or that the operator read before.
pub trait Secrets {
    /// The Secret's data, or `None` where there is no such Secret.
    fn secret(&self, name: &str) -> Option<SecretData>;
}

impl<F: Fn(&str) -> Option<SecretData>> Secrets for F {
    fn secret(&self, name: &str) -> Option<SecretData> {
        self(name)
    }
}

/// What a backend has to say.
#[derive(Debug, Default)]
pub struct Evaluation {
    /// A pair that passed its check, when there is one newer than or equal to the pair in force.
    pub pair: Option<PemPair>,
    /// More to keep beside the pair; `None` leaves what is there.
    pub extra_data: Option<SecretData>,
    /// Why there is no pair, or what else there is to know.
    pub fault: Option<BackendFault>,
    /// PEM of a request that waits for a CA.
    pub request: Option<String>,
}

/// Why a backend has no pair to offer: the message of `CertificateReady`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendFault {
    #[error(
        "there is no Secret {name:?}: create it in this namespace with the keys tls.crt and tls.key"
    )]
    SecretMissing { name: String },
    #[error("Secret {name:?} has no key {key:?}: it needs tls.crt and tls.key in PEM")]
    KeyMissing { name: String, key: &'static str },
    #[error("Secret {name:?}: {fault}")]
    Pair { name: String, fault: ChainError },
    #[error(
        "waiting for the CA: have the request in status signed, then `kubectl create secret generic {secret} --from-file=tls.crt=chain.pem`"
    )]
    RequestPending { secret: String },
    #[error(
        "Secret {secret:?} holds a certificate for another key than the pending request's: have the request that status shows now signed, and put that chain there"
    )]
    ChainOfAnotherRequest { secret: String },
    #[error(
        "Secret {secret:?} still holds the certificate in use; a new request waits in status (domains, subject or algorithm changed, or it ends soon): put the newly signed chain there"
    )]
    ChainInUse { secret: String },
    #[error(
        "Secret {name:?} has no key \"tls.crt\": put the signed chain there in PEM, the leaf first"
    )]
    ChainMissing { name: String },
    #[error(
        "the certificate mode {mode} is served in a cluster only: use selfSigned, secretRef or csr here"
    )]
    ModeNotServed { mode: &'static str },
    #[error("spec.certificate.csr.subject: {0}")]
    Subject(String),
    #[error("Certificate {certificate:?}: {progress}")]
    NotIssued {
        certificate: String,
        progress: Progress,
    },
}

impl BackendFault {
    /// Reason of the condition.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::SecretMissing { .. } | Self::KeyMissing { .. } | Self::ChainMissing { .. } => {
                Reason::ReferenceMissing
            }
            Self::Pair { fault, .. } => match fault {
                ChainError::KeyMismatch => Reason::KeyMismatch,
                ChainError::NamesMissing(_) => Reason::NamesNotCovered,
                ChainError::Expired(_) | ChainError::IssuerExpired { .. } => Reason::Expired,
                _ => Reason::InvalidCertificate,
            },
            Self::RequestPending { .. } | Self::ChainInUse { .. } => Reason::AwaitingSignature,
            Self::ChainOfAnotherRequest { .. } => Reason::KeyMismatch,
            Self::ModeNotServed { .. } => Reason::KindMissing,
            Self::Subject(_) => Reason::Invalid,
            Self::NotIssued { progress, .. } => progress.reason(),
        }
    }
}

/// One way to get a pool its certificate.
pub trait Backend {
    /// Looks at what is kept (`<pool>-tls`), and says what should be. It writes nothing but to
    /// entries of its own.
    ///
    /// # Errors
    /// [`CertificateError`] for failures of the store or of making a certificate; what is wrong
    /// with what somebody gave is an [`Evaluation::fault`].
    fn evaluate(
        &self,
        wanted: &CertificateSpec<'_>,
        held: &SecretData,
        store: &mut dyn Store,
    ) -> Result<Evaluation, CertificateError>;
}

/// The certificate of a pool as it stands after one look.
#[derive(Debug)]
pub struct CertificateState {
    /// What the proxy is to show; absent before the first good pair.
    pub pair: Option<PemPair>,
    pub facts: Option<CertificateFacts>,
    /// What is wrong or awaited; with a pair in force, that one stays meanwhile.
    pub fault: Option<BackendFault>,
    /// Names that the pair in force does not cover.
    pub missing: Vec<String>,
    pub request: Option<String>,
    /// What is wrong with the certificates for SIP servers.
    pub sip: Vec<SipCertificateFault>,
}

impl CertificateState {
    /// What condition `CertificateReady` says: status, reason, message.
    #[must_use]
    pub fn condition(&self, now: Timestamp) -> (bool, Reason, String) {
        let (status, reason, message) = self.of_partners(now);
        let Some(first) = self.sip.first() else {
            return (status, reason, message);
        };
        let told: Vec<_> = self.sip.iter().map(ToString::to_string).collect();
        let told = told.join("; ");
        if status {
            (false, first.reason(), told)
        } else {
            (false, reason, format!("{message}; {told}"))
        }
    }

    /// As [`Self::condition`], of the certificate for partners alone.
    fn of_partners(&self, now: Timestamp) -> (bool, Reason, String) {
        let fault = || {
            self.fault
                .as_ref()
                .map_or(String::new(), |fault| format!("; {fault}"))
        };
        let Some(facts) = &self.facts else {
            return match &self.fault {
                Some(fault) => (false, fault.reason(), fault.to_string()),
                None => (false, Reason::Issuing, "no certificate yet".to_owned()),
            };
        };
        if facts.not_after <= now {
            let text = format!(
                "the certificate in use expired at {}{}",
                facts.not_after,
                fault()
            );
            return (false, Reason::Expired, text);
        }
        if !self.missing.is_empty() {
            let text = format!(
                "the certificate in use does not name {}{}",
                self.missing.join(", "),
                fault()
            );
            return (false, Reason::NamesNotCovered, text);
        }
        let valid = format!("valid until {}", facts.not_after);
        let served = |facts: &CertificateFacts| {
            if facts.ends_soon(now) {
                Reason::Expiring
            } else {
                Reason::Issued
            }
        };
        match &self.fault {
            // The pair in use does all it should; what waits is the one after it.
            Some(
                fault @ (BackendFault::RequestPending { .. }
                | BackendFault::ChainInUse { .. }
                | BackendFault::NotIssued { .. }),
            ) => (true, served(facts), format!("{valid}; {fault}")),
            Some(fault) => {
                let text = format!(
                    "{fault}; the last good certificate stays in use until {}",
                    facts.not_after
                );
                (false, fault.reason(), text)
            }
            None => {
                let mut message = valid;
                if served(facts) == Reason::Expiring {
                    message.push_str(", which is soon: see to its renewal");
                }
                if let Some(issuer) = &facts.alone_below {
                    message.push_str(&format!("; the chain is the certificate alone: append its intermediates, unless {issuer:?} is a root that partners trust"));
                }
                if !facts.client_auth {
                    message.push_str("; it lacks clientAuth: peers that insist on it (ejabberd before 25.08) use dialback instead");
                }
                (true, served(facts), message)
            }
        }
    }

    /// What somebody who issues by himself says of the certificate to come. With a good one in use it
    /// counts only where it does not go on by itself.
    pub fn told(&mut self, certificate: &str, progress: Progress, now: Timestamp) {
        let good = self.missing.is_empty()
            && self
                .facts
                .as_ref()
                .is_some_and(|facts| facts.not_after > now);
        if good && (self.fault.is_some() || progress.goes_on()) {
            return;
        }
        self.fault = Some(BackendFault::NotIssued {
            certificate: certificate.to_owned(),
            progress,
        });
    }
}

/// The pair kept under `tls.crt` and `tls.key`.
#[must_use]
pub fn pair_of(material: &SecretData) -> Option<PemPair> {
    Some(PemPair {
        chain: text(material, "tls.crt")?.to_owned(),
        key: Zeroizing::new(text(material, "tls.key")?.to_owned()),
    })
}

/// Asks the backend, keeps what it offers in one write, and says what is in force.
///
/// # Errors
/// [`CertificateError`].
pub fn provide(
    backend: &dyn Backend,
    wanted: &CertificateSpec<'_>,
    store: &mut dyn Store,
) -> Result<CertificateState, CertificateError> {
    ManagedSecret::check_pool_name(wanted.pool)?;
    let entry = ManagedSecret::PoolPair(wanted.pool.to_owned());
    let held = store.read(&entry)?.unwrap_or_default();
    let evaluate = backend.evaluate(wanted, &held, store)?;
    let pair = evaluate.pair.or_else(|| pair_of(&held));
    let mut material = evaluate.extra_data.unwrap_or_else(|| held.clone());
    if let Some(pair) = &pair {
        set(&mut material, "tls.crt", &pair.chain);
        set(&mut material, "tls.key", &pair.key);
    }
    if material != held {
        store.write(&entry, &material)?;
    }
    let facts = pair
        .as_ref()
        .and_then(|pair| CertificateFacts::of_chain(&pair.chain).ok());
    let missing = facts
        .as_ref()
        .map_or_else(Vec::new, |facts| facts.missing(wanted.names));
    Ok(CertificateState {
        pair,
        facts,
        fault: evaluate.fault,
        missing,
        request: evaluate.request,
        sip: Vec::new(),
    })
}

/// `selfSigned`: a CA of the pool's own, and a leaf that is renewed in time.
#[derive(Debug)]
pub struct SelfSigned;

impl Backend for SelfSigned {
    fn evaluate(
        &self,
        wanted: &CertificateSpec<'_>,
        held: &SecretData,
        store: &mut dyn Store,
    ) -> Result<Evaluation, CertificateError> {
        let entry = ManagedSecret::PoolCa(wanted.pool.to_owned());
        let kept = store.read(&entry)?.unwrap_or_default();
        let usable = pair_of(&kept).filter(|ca| {
            CertificateFacts::of_chain(&ca.chain)
                .is_ok_and(|facts| facts.not_after.duration_since(wanted.now) > issue::LEAF_VALID)
        });
        let ca = match usable {
            Some(ca) => ca,
            None => {
                let made = issue::root(&format!("xmpp-edge pool {} CA", wanted.pool), wanted.now)?;
                let mut material = SecretData::new();
                set(&mut material, "tls.crt", &made.chain);
                set(&mut material, "tls.key", &made.key);
                store.write(&entry, &material)?;
                made
            }
        };
        let in_order = pair_of(held).is_some_and(|pair| {
            text(held, "issued-by") == Some(&ca.chain)
                && pair.check(wanted.names, wanted.now).is_ok_and(|facts| {
                    facts.dns_names.len() == distinct(wanted.names)
                        && !facts.wants_renewal(wanted.now)
                })
        });
        if in_order {
            return Ok(Evaluation::default());
        }
        let mut extra_data = SecretData::new();
        set(&mut extra_data, "issued-by", &ca.chain);
        set(&mut extra_data, "ca.crt", &ca.chain);
        let pair = issue::leaf(&ca, wanted.names, wanted.now)?;
        Ok(Evaluation {
            pair: Some(pair),
            extra_data: Some(extra_data),
            ..Evaluation::default()
        })
    }
}

fn distinct(names: &[DomainName]) -> usize {
    names
        .iter()
        .collect::<std::collections::BTreeSet<_>>()
        .len()
}

/// Checks a pair that somebody gave; where its Secret has `ca.crt` too, up to that root.
fn check_given(
    pair: &PemPair,
    secret: &SecretData,
    wanted: &CertificateSpec<'_>,
) -> Result<(), ChainError> {
    pair.check(wanted.names, wanted.now)?;
    secret
        .get("ca.crt")
        .map_or(Ok(()), |roots| pair.leads_to(roots))
}

/// The pair that somebody gave in the Secret `name`, checked.
fn given(
    name: &str,
    secret: &SecretData,
    wanted: &CertificateSpec<'_>,
) -> Result<PemPair, BackendFault> {
    let of = |fault| match fault {
        GivenError::Missing(key) => BackendFault::KeyMissing {
            name: name.to_owned(),
            key,
        },
        GivenError::Unusable(fault) => BackendFault::Pair {
            name: name.to_owned(),
            fault,
        },
    };
    let pair = PemPair::given(secret).map_err(of)?;
    check_given(&pair, secret, wanted).map_err(|fault| of(GivenError::Unusable(fault)))?;
    Ok(pair)
}

/// `secretRef`: somebody else puts certificate and key into a Secret.
pub struct SecretRef<'a> {
    pub name: &'a str,
    pub secrets: &'a dyn Secrets,
}

impl fmt::Debug for SecretRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretRef")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Backend for SecretRef<'_> {
    fn evaluate(
        &self,
        wanted: &CertificateSpec<'_>,
        _held: &SecretData,
        _store: &mut dyn Store,
    ) -> Result<Evaluation, CertificateError> {
        let found = match self.secrets.secret(self.name) {
            None => Err(BackendFault::SecretMissing {
                name: self.name.to_owned(),
            }),
            Some(secret) => given(self.name, &secret, wanted),
        };
        Ok(match found {
            Ok(pair) => Evaluation {
                pair: Some(pair),
                extra_data: Some(SecretData::new()),
                ..Evaluation::default()
            },
            Err(fault) => Evaluation {
                fault: Some(fault),
                ..Evaluation::default()
            },
        })
    }
}

/// The backend that a pool asks for.
#[derive(Debug)]
pub enum PoolBackend<'a> {
    SelfSigned(SelfSigned),
    SecretRef(SecretRef<'a>),
    Csr(Csr<'a>),
    /// In a cluster.
    Followed(Followed),
    /// A mode of the cluster alone.
    Elsewhere(&'static str),
    /// The pool's spec cannot be read: what is in use stays.
    Kept,
}

impl<'a> PoolBackend<'a> {
    /// What `spec.certificate` asks for; `None` where it cannot be read. `secrets` are what it may
    /// refer to.
    #[must_use]
    pub fn of(
        mode: Option<&'a Certificate>,
        secrets: &'a dyn Secrets,
        place: Environment<'_>,
    ) -> Self {
        let Some(mode) = mode else {
            return Self::Kept;
        };
        if mode.self_signed.is_some() {
            return Self::SelfSigned(SelfSigned);
        }
        if let Some(csr) = &mode.csr {
            return Self::Csr(Csr {
                algorithm: csr.key_algorithm,
                subject: csr.subject.as_ref(),
                chain_secret: &csr.chain_secret_ref.name,
                secrets,
            });
        }
        if let Some(secret) = &mode.secret_ref {
            let name = &secret.name;
            return match place {
                Environment::Cluster { pool }
                    if *name == ManagedSecret::PoolPair(pool.to_owned()).to_string() =>
                {
                    Self::Followed(Followed {
                        keeper: Keeper::Somebody,
                    })
                }
                _ => Self::SecretRef(SecretRef { name, secrets }),
            };
        }
        match (&mode.cert_manager, place) {
            (Some(_), Environment::Cluster { .. }) => Self::Followed(Followed {
                keeper: Keeper::CertManager,
            }),
            (Some(_), Environment::Standalone) => Self::Elsewhere("certManager"),
            (None, _) => Self::Kept,
        }
    }

    /// Whether `<pool>-tls` is this operator's own; it is somebody else's, or may be.
    #[must_use]
    pub fn is_own(&self) -> bool {
        matches!(
            self,
            Self::SelfSigned(_) | Self::SecretRef(_) | Self::Csr(_)
        )
    }
}

/// Where a pool's certificate is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment<'a> {
    Cluster { pool: &'a str },
    Standalone,
}

impl Backend for PoolBackend<'_> {
    fn evaluate(
        &self,
        wanted: &CertificateSpec<'_>,
        held: &SecretData,
        store: &mut dyn Store,
    ) -> Result<Evaluation, CertificateError> {
        match self {
            Self::SelfSigned(backend) => backend.evaluate(wanted, held, store),
            Self::SecretRef(backend) => backend.evaluate(wanted, held, store),
            Self::Csr(backend) => backend.evaluate(wanted, held, store),
            Self::Followed(backend) => backend.evaluate(wanted, held, store),
            Self::Kept => Ok(Evaluation::default()),
            Self::Elsewhere(mode) => Ok(Evaluation {
                fault: Some(BackendFault::ModeNotServed { mode }),
                ..Evaluation::default()
            }),
        }
    }
}
