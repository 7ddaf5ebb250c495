//! Certificates for any domain, made on demand from the pod's intermediate, so that the edge can
//! stand inside for every partner.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use xmpp_edge_crds::{domain::DomainName, pem};

use super::{
    Identity, IdentityError,
    certificate::{parse, timestamp},
    identity::chain_from_pem,
    provider,
};

/// Leaves held at once; the one longest unused makes room.
const CAPACITY: usize = 1_000;
/// A leaf lives at most this long.
const LIFETIME: SignedDuration = SignedDuration::from_hours(24);
/// A leaf begins this long before it is made: clocks differ.
const BACKDATED: SignedDuration = SignedDuration::from_mins(5);

/// Makes and keeps leaves of one intermediate. When the intermediate is renewed, a new one is made.
pub struct LeafIssuer {
    issuer: Issuer<'static, KeyPair>,
    issuer_chain: Vec<CertificateDer<'static>>,
    issuer_not_after: Timestamp,
    /// One key for all leaves: who holds the pod holds them all anyway.
    key: KeyPair,
    signing: Arc<dyn rustls::sign::SigningKey>,
    made: Mutex<Made>,
}

/// The key is not shown.
impl std::fmt::Debug for LeafIssuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeafIssuer").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Made {
    leaves: HashMap<DomainName, Leaf>,
    /// Counts uses, to know the one longest unused.
    clock: u64,
}

struct Leaf {
    identity: Arc<Identity>,
    renew: Timestamp,
    used: u64,
}

/// Why there is no leaf.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    #[error("the intermediate certificate expired at {0}")]
    IntermediateExpired(Timestamp),
    #[error("a certificate for {domain} cannot be made: {cause}")]
    Make { domain: DomainName, cause: String },
}

impl LeafIssuer {
    /// From the intermediate's chain (itself first; further ones are sent with each leaf) and its
    /// key, PEM. `origin` names the place in errors.
    ///
    /// # Errors
    /// [`IdentityError`] when either is unreadable or they do not belong together.
    pub fn new(chain: &str, key: &str, origin: &str) -> Result<Self, IdentityError> {
        let fault = |cause: rcgen::Error| IdentityError::Key {
            origin: origin.to_owned(),
            cause: cause.to_string(),
        };
        let issuer_chain = chain_from_pem(chain, origin)?;
        let parsed = parse(&issuer_chain[0]).map_err(|cause| IdentityError::Certificate {
            origin: origin.to_owned(),
            number: 1,
            cause,
        })?;
        let issuer_not_after = timestamp(&parsed.validity().not_after);
        let pair = pem::private_key(key).map_err(|cause| IdentityError::KeyPem {
            origin: origin.to_owned(),
            cause,
        })?;
        let pair = KeyPair::try_from(&pair).map_err(fault)?;
        use rcgen::PublicKeyData as _;
        if pair.subject_public_key_info() != parsed.public_key().raw {
            return Err(IdentityError::KeyMismatch {
                origin: origin.to_owned(),
                subject: super::certificate::shown(parsed.subject()),
            });
        }
        drop(parsed);
        let issuer = Issuer::from_ca_cert_der(&issuer_chain[0], pair).map_err(fault)?;
        let key = KeyPair::generate().map_err(fault)?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signing = provider()
            .key_provider
            .load_private_key(der)
            .map_err(|cause| IdentityError::Key {
                origin: origin.to_owned(),
                cause: cause.to_string(),
            })?;
        Ok(Self {
            issuer,
            issuer_chain,
            issuer_not_after,
            key,
            signing,
            made: Mutex::default(),
        })
    }

    /// When the intermediate ends.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.issuer_not_after
    }

    /// The leaf for `domain`: serverAuth and clientAuth, its one `dNSName`, at most 24 hours, sent
    /// with the intermediate. Made again when three quarters of its time are over.
    ///
    /// # Errors
    /// [`LeafError`] when the intermediate has expired or the name cannot stand in a certificate.
    pub fn leaf(&self, domain: &DomainName) -> Result<Arc<Identity>, LeafError> {
        self.leaf_at(domain, Timestamp::now())
    }

    fn leaf_at(&self, domain: &DomainName, now: Timestamp) -> Result<Arc<Identity>, LeafError> {
        {
            let mut made = self.made.lock();
            made.clock += 1;
            let clock = made.clock;
            if let Some(leaf) = made.leaves.get_mut(domain)
                && now < leaf.renew
            {
                leaf.used = clock;
                return Ok(Arc::clone(&leaf.identity));
            }
        }
        if now >= self.issuer_not_after {
            return Err(LeafError::IntermediateExpired(self.issuer_not_after));
        }
        let (identity, renew) = self.make(domain, now)?;
        let identity = Arc::new(identity);
        let mut made = self.made.lock();
        if made.leaves.len() >= CAPACITY && !made.leaves.contains_key(domain) {
            made.drop_longest_unused();
        }
        made.clock += 1;
        let used = made.clock;
        let leaf = Leaf {
            identity: Arc::clone(&identity),
            renew,
            used,
        };
        made.leaves.insert(domain.clone(), leaf);
        Ok(identity)
    }

    fn make(
        &self,
        domain: &DomainName,
        now: Timestamp,
    ) -> Result<(Identity, Timestamp), LeafError> {
        let fault = |cause: String| LeafError::Make {
            domain: domain.clone(),
            cause,
        };
        let name = domain
            .as_str()
            .try_into()
            .map_err(|cause: rcgen::Error| fault(cause.to_string()))?;
        let not_after = (now + LIFETIME).min(self.issuer_not_after);
        let mut params = CertificateParams::default();
        let epoch = date_time_ymd(1970, 1, 1);
        params.not_before = epoch + since_epoch(now - BACKDATED);
        params.not_after = epoch + since_epoch(not_after);
        params.subject_alt_names = vec![SanType::DnsName(name)];
        params.distinguished_name = DistinguishedName::new();
        // X.520 allows 64 characters; the name that counts is the alternative one.
        if domain.as_str().len() <= 64 {
            params
                .distinguished_name
                .push(DnType::CommonName, domain.as_str());
        }
        // Left alone it would come from the key, which all leaves share.
        let mut serial = [0; 16];
        aws_lc_rs::rand::fill(&mut serial).map_err(|_| fault("no randomness".to_owned()))?;
        serial[0] = serial[0] & 0x7f | 0x40;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let certificate = params
            .signed_by(&self.key, &self.issuer)
            .map_err(|cause| fault(cause.to_string()))?;
        let mut chain = Vec::with_capacity(1 + self.issuer_chain.len());
        chain.push(certificate.der().clone());
        chain.extend(self.issuer_chain.iter().cloned());
        let certified = Arc::new(CertifiedKey::new(chain, Arc::clone(&self.signing)));
        let identity =
            Identity::new(certified, "a leaf").map_err(|cause| fault(cause.to_string()))?;
        let renew = now + (not_after.duration_since(now)) * 3 / 4;
        Ok((identity, renew))
    }
}

impl Made {
    fn drop_longest_unused(&mut self) {
        let oldest = self
            .leaves
            .iter()
            .min_by_key(|(_, leaf)| leaf.used)
            .map(|(domain, _)| domain.clone());
        if let Some(domain) = oldest {
            self.leaves.remove(&domain);
        }
    }
}

/// Seconds since 1970, for the dates of a certificate: their type has no name here.
fn since_epoch(time: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(time.as_second()).unwrap_or_default())
}

#[cfg(test)]
mod tests;
