//! What is shown of trunks: facts of their beginning, figures that their tasks keep up to date, and why there
//! is none.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use jiff::Timestamp;
use parking_lot::Mutex;
use xmpp_edge_crds::remedy;

use super::far_end::{FarEdge, FarSidecar};
use crate::{
    config::trunk_name::{ProductVersion, TrunkName},
    negotiation::Step,
    tls::{self, TlsFacts},
    trunk::sending::TrunkCustody,
};

/// What does not change while a trunk stands.
#[derive(Clone, Debug)]
pub struct TrunkFacts {
    pub version: ProductVersion,
    pub address: Option<SocketAddr>,
    pub since: Timestamp,
    /// Of the other end.
    pub certificate_not_after: Option<Timestamp>,
    /// SHA-256 over its SubjectPublicKeyInfo, lower-case hex.
    pub key_sha256: Option<String>,
    pub figures: Arc<TrunkFigures>,
}

impl TrunkFacts {
    /// Of a trunk that stands from now on.
    pub(super) fn new(
        version: ProductVersion,
        address: Option<SocketAddr>,
        tls: Option<TlsFacts<'_>>,
        figures: Arc<TrunkFigures>,
    ) -> Self {
        let certificate = tls.and_then(|tls| tls.peer_chain.first());
        Self {
            version,
            address,
            since: Timestamp::now(),
            certificate_not_after: certificate.and_then(|own| tls::not_after(own).ok()),
            key_sha256: certificate
                .and_then(|own| tls::spki_sha256(own).ok())
                .map(|key| key.to_string()),
            figures,
        }
    }
}

/// What moves. Read at any time, each figure by itself.
#[derive(Debug, Default)]
pub struct TrunkFigures {
    pairs: AtomicU64,
    received_pairs: AtomicU64,
    stanzas: AtomicU64,
    bytes: AtomicU64,
    owed: AtomicU64,
    oldest: Mutex<OldestUnacknowledged>,
}

/// Since when something is unacknowledged, as last looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OldestUnacknowledged {
    /// When the oldest stanza came in that was sent here and not acknowledged.
    pub sent: Option<Instant>,
    /// Since when nothing was settled of the pair that waits longest, of what came in here.
    pub received: Option<Instant>,
}

impl TrunkFigures {
    pub(super) fn set(&self, pairs: usize, received: usize, custody: TrunkCustody, owed: u64) {
        self.received_pairs
            .store(received as u64, Ordering::Relaxed);
        self.owed.store(owed, Ordering::Relaxed);
        self.pairs.store(pairs as u64, Ordering::Relaxed);
        self.stanzas.store(custody.stanzas, Ordering::Relaxed);
        self.bytes.store(custody.bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn set_oldest(&self, sent: Option<Instant>, received: Option<Instant>) {
        *self.oldest.lock() = OldestUnacknowledged { sent, received };
    }

    /// Whether something was unacknowledged when last it was looked at.
    pub(super) fn has_age(&self) -> bool {
        self.oldest() != OldestUnacknowledged::default()
    }

    /// At most a second old.
    #[must_use]
    pub fn oldest(&self) -> OldestUnacknowledged {
        *self.oldest.lock()
    }

    /// Pairs that are open, both ways.
    #[must_use]
    pub fn pairs(&self) -> u64 {
        self.pairs.load(Ordering::Relaxed)
    }

    /// Of these, the ones that the other end opened.
    #[must_use]
    pub fn received_pairs(&self) -> u64 {
        self.received_pairs.load(Ordering::Relaxed)
    }

    /// Stanzas that were taken in and not acknowledged.
    #[must_use]
    pub fn owed_stanzas(&self) -> u64 {
        self.owed.load(Ordering::Relaxed)
    }

    /// Stanzas that were sent and are not acknowledged.
    #[must_use]
    pub fn unacknowledged_stanzas(&self) -> u64 {
        self.stanzas.load(Ordering::Relaxed)
    }

    /// Their bytes.
    #[must_use]
    pub fn unacknowledged_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Why a sidecar got no trunk to an address.
#[derive(Clone, Debug)]
pub struct DialFailure {
    pub time: Timestamp,
    pub step: Step,
    /// A fixed CamelCase word.
    pub label: &'static str,
    /// For people; holds what the other end said.
    pub text: String,
}

impl DialFailure {
    #[must_use]
    pub fn new(step: Step, label: &'static str, text: String) -> Self {
        Self {
            time: Timestamp::now(),
            step,
            label,
            text,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        remedy::of_trunk(self.label)
    }

    /// In one line: step, cause, remedy.
    #[must_use]
    pub fn told(&self) -> String {
        let (step, label, remedy) = (self.step.as_str(), self.label, self.remedy());
        format!("step {step} ({label}): {}; {remedy}", self.text)
    }
}

/// What came of the last try to get a trunk to an address.
#[derive(Clone, Debug)]
pub enum DialOutcome {
    /// Nothing yet, or a trunk that ended in order.
    None,
    /// The pod there has a trunk already, by another address.
    Redundant {
        pool: TrunkName,
        pod: TrunkName,
        /// What it proved to be.
        key: Option<String>,
    },
    Failed(DialFailure),
}

/// An address that a sidecar dials, as it is shown: once for each pod that it has a trunk to there.
#[derive(Clone, Debug)]
pub struct ShownEdge {
    pub address: SocketAddr,
    /// The pod that was found there, where a trunk to it stands, and whether it says that this sidecar gets what
    /// comes in.
    pub trunk: Option<(FarEdge, TrunkFacts, bool)>,
    pub outcome: DialOutcome,
}

/// A trunk as it is shown.
#[derive(Clone, Debug)]
pub struct ShownSidecar {
    /// Its instance; of two sidecars of one instance with the key of each.
    pub name: String,
    pub far: FarSidecar,
    pub facts: TrunkFacts,
    /// What comes in is given to it.
    pub is_active: bool,
}
