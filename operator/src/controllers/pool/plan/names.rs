//! Names of the objects of a pool. Each kind's names end differently, so that two pools never mean
//! the same object, whatever they are called (at most 40 characters, so that every name fits).

use crate::secrets::store::ManagedSecret;

/// ConfigMap of the internal CA's certificate alone, one for the namespace.
pub const INTERNAL_CA: &str = "xmpp-edge-internal-ca";

/// Deployment, PodDisruptionBudget, NetworkPolicy and Certificate: one of each kind.
#[must_use]
pub fn workload(pool: &str) -> String {
    pool.to_owned()
}

/// The Service that partners reach.
#[must_use]
pub fn external_service(pool: &str) -> String {
    format!("{pool}-edge")
}

/// The Service that servers inside reach.
#[must_use]
pub fn internal_service(pool: &str) -> String {
    format!("{pool}-internal")
}

/// The headless Service: each ready pod by itself.
#[must_use]
pub fn headless_service(pool: &str) -> String {
    format!("{pool}-pods")
}

/// The headless Service that sidecars dial: each pod by itself, ready or not.
#[must_use]
pub fn trunk_service(pool: &str) -> String {
    format!("{pool}-trunk")
}

/// The volume of embedded contacts.
#[must_use]
pub fn contacts_volume(pool: &str) -> String {
    format!("{pool}-contacts")
}

/// The Secret with the admin port's token.
#[must_use]
pub fn admin_token(pool: &str) -> String {
    ManagedSecret::AdminToken(pool.to_owned()).to_string()
}

/// The Secret with the pair in force.
#[must_use]
pub fn pair(pool: &str) -> String {
    ManagedSecret::PoolPair(pool.to_owned()).to_string()
}

/// The Secret with the pairs for SIP servers of another PKI.
#[must_use]
pub fn sip_pairs(pool: &str) -> String {
    ManagedSecret::SipPairs(pool.to_owned()).to_string()
}

/// The Secret with the pods' intermediate.
#[must_use]
pub fn internal_issuer(pool: &str) -> String {
    ManagedSecret::InternalIssuer(pool.to_owned()).to_string()
}
