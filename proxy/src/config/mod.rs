//! Follow, check, swap: the configuration and the secrets that are in force.
//!
//! Where they come from (mounted files, or the manifests of `standalone`) is known to [`follow`]
//! alone; everybody else is given [`ConfigUpdate`]s.

mod active;
mod document;
#[cfg(test)]
pub mod fixture;
pub mod follow;
pub mod peer_keys;
mod secrets;
pub mod sidecar;
mod sip_server;
pub mod trunk_name;

use std::sync::Arc;

use xmpp_edge_crds::{edge_config::EdgeConfig, egress::EgressCredentials, sip_pairs::SipPairs};
use zeroize::Zeroizing;

pub use active::{ActiveConfig, ActiveGateway, Rejected};
use sidecar::EdgeDials;

/// What a source has at the moment. The newest counts; those between may be skipped.
#[derive(Debug, Clone, Default)]
pub struct ConfigUpdate {
    /// Everything, whole; none before the first time that all is there.
    pub inputs: Option<ConfigInputs>,
    /// What is waited for while there are no inputs, named for `/readyz`.
    pub missing: Vec<String>,
    /// What stays as last read although its source is gone or broken, and why.
    pub stale: Vec<String>,
    /// Why the newest document is none; the one before stays.
    pub unreadable: Option<String>,
}

impl ConfigUpdate {
    /// Whether it says nothing else than `other`.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let inputs = match (&self.inputs, &other.inputs) {
            (Some(own), Some(other)) => own.are(other),
            (own, other) => own.is_none() && other.is_none(),
        };
        inputs
            && self.missing == other.missing
            && self.stale == other.stale
            && self.unreadable == other.unreadable
    }
}

impl From<ConfigInputs> for ConfigUpdate {
    fn from(inputs: ConfigInputs) -> Self {
        Self {
            inputs: Some(inputs),
            ..Self::default()
        }
    }
}

/// Everything a proxy must know, swapped as a whole.
#[derive(Debug, Clone)]
pub struct ConfigInputs {
    pub config: Arc<EdgeConfig>,
    /// SHA-256 in lower-case hex of the bytes that the document was read from: of its shards together, or
    /// of the file. Absent where it was handed over in memory.
    pub document_sha256: Option<Arc<str>>,
    pub materials: Arc<ConfigSecrets>,
    /// Of a sidecar, which dials edges ([`sidecar::SidecarSettings`]); none of an edge.
    pub edge_dials: Option<Arc<EdgeDials>>,
}

impl ConfigInputs {
    /// Whether these are the very ones of `other`: a source keeps what did not change.
    #[must_use]
    pub fn are(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
            && self.document_sha256 == other.document_sha256
            && Arc::ptr_eq(&self.materials, &other.materials)
            && match (&self.edge_dials, &other.edge_dials) {
                (Some(own), Some(other)) => Arc::ptr_eq(own, other),
                (own, other) => own.is_none() && other.is_none(),
            }
    }
}

/// What arrives beside the document: certificates, keys, passwords. Never shown, never logged.
pub struct ConfigSecrets {
    /// The pool's certificate for partners; absent while it is being obtained.
    pub certificate: Option<PemPair>,
    /// PEM of the namespace's internal CA: one certificate, two while it is renewed.
    pub internal_ca: String,
    /// The pod's intermediate, from which leaves for partners' domains are made.
    pub issuer: Option<PemPair>,
    /// Keys of XEP-0185 come from it; the same in all replicas of all pools of a domain.
    pub dialback_secret: Zeroizing<Vec<u8>>,
    /// Still verified, never used for new keys.
    pub dialback_previous: Option<Zeroizing<Vec<u8>>>,
    /// What `/status` and `/explain` want as bearer. Absent: nothing is wanted, or, in a pod, both
    /// are closed.
    pub admin_token: Option<Zeroizing<String>>,
    pub contacts_url: Option<Zeroizing<String>>,
    /// PEM
    pub contacts_ca: Option<String>,
    /// For `settings.egressProxy`.
    pub egress_credentials: Option<EgressCredentials>,
    /// What SIP servers of another PKI are shown.
    pub sip_pairs: SipPairs,
}

/// None of it is shown.
impl std::fmt::Debug for ConfigSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfigSecrets").finish_non_exhaustive()
    }
}

/// A chain and its key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct PemPair {
    /// End entity first.
    pub chain: String,
    pub key: Zeroizing<String>,
}

/// The key is not shown.
impl std::fmt::Debug for PemPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PemPair").finish_non_exhaustive()
    }
}
