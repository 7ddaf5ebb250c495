//! Where key material is kept, behind one small trait: Secrets in a cluster, files in standalone.
//!
//! An [`ManagedSecret`] is read whole and written whole. What is in it is decided by the modules beside
//! this one; a store must not look inside.

use std::{
    collections::{BTreeMap, btree_map},
    fmt,
    ops::{Deref, DerefMut},
};

use zeroize::Zeroizing;

/// The keys and values of one entry, like the `data` of a Secret. Wiped when dropped; only its keys are
/// ever shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretData(BTreeMap<String, Zeroizing<Vec<u8>>>);

impl SecretData {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Deref for SecretData {
    type Target = BTreeMap<String, Zeroizing<Vec<u8>>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for SecretData {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl<const N: usize> From<[(String, Zeroizing<Vec<u8>>); N]> for SecretData {
    fn from(entries: [(String, Zeroizing<Vec<u8>>); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl FromIterator<(String, Zeroizing<Vec<u8>>)> for SecretData {
    fn from_iter<I: IntoIterator<Item = (String, Zeroizing<Vec<u8>>)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl<'a> IntoIterator for &'a SecretData {
    type Item = (&'a String, &'a Zeroizing<Vec<u8>>);
    type IntoIter = btree_map::Iter<'a, String, Zeroizing<Vec<u8>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl IntoIterator for SecretData {
    type Item = (String, Zeroizing<Vec<u8>>);
    type IntoIter = btree_map::IntoIter<String, Zeroizing<Vec<u8>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// What is kept, each under the name its Secret has in a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ManagedSecret {
    /// Certificate and key of the namespace's internal CA.
    InternalCa,
    /// The intermediate that a pool's pods issue partners' leaves from; holds the pool's name.
    InternalIssuer(String),
    /// The certificate of a gateway; holds its first domain.
    Gateway(String),
    /// What the sidecars of a gateway mount; holds the gateway's name.
    Sidecar(String),
    /// The secret of all dialback keys.
    Dialback,
    /// The pair a pool shows to partners, and its pending request; holds the pool's name.
    PoolPair(String),
    /// A self-signed pool's own CA; holds the pool's name.
    PoolCa(String),
    /// What readers of a pool's admin port show; holds the pool's name.
    AdminToken(String),
    /// The pairs that a pool shows to SIP servers of another PKI; holds the pool's name.
    SipPairs(String),
    /// What the manifests' Secrets gave a pool last, beside certificates (standalone alone); holds the pool's name.
    LastGiven(String),
}

/// A pool cannot have this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "metadata.name: a pool {pool:?} would need Secret {taken:?}, which belongs to the namespace: choose another name"
)]
pub struct PoolNameTaken {
    pub pool: String,
    /// The Secret's name.
    pub taken: String,
}

impl ManagedSecret {
    /// Checks that no Secret of a pool's own has a name that one of the namespace has, or that one of
    /// a gateway of any pool may get: with one name for both, the pool would show partners what is
    /// issued by the internal CA.
    ///
    /// # Errors
    /// [`PoolNameTaken`].
    pub fn check_pool_name(pool: &str) -> Result<(), PoolNameTaken> {
        let of_pool = [
            Self::InternalIssuer,
            Self::PoolPair,
            Self::PoolCa,
            Self::AdminToken,
            Self::SipPairs,
        ]
        .map(|kind| kind(pool.to_owned()).to_string());
        let of_namespace = [Self::InternalCa, Self::Dialback].map(|it| it.to_string());
        let of_gateways =
            [Self::Gateway, Self::Sidecar].map(|kind| kind(String::new()).to_string());
        let taken = of_pool.into_iter().find(|name| {
            of_namespace.contains(name) || of_gateways.iter().any(|of| name.starts_with(of))
        });
        taken.map_or(Ok(()), |taken| {
            Err(PoolNameTaken {
                pool: pool.to_owned(),
                taken,
            })
        })
    }
}

impl fmt::Display for ManagedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InternalCa => f.write_str("xmpp-edge-internal-ca"),
            Self::InternalIssuer(pool) => write!(f, "{pool}-internal-issuer"),
            Self::Gateway(domain) => write!(f, "xmpp-edge-gateway-{domain}"),
            Self::Sidecar(name) => write!(f, "xmpp-edge-sidecar-{name}"),
            Self::Dialback => f.write_str("xmpp-edge-dialback"),
            Self::PoolPair(pool) => write!(f, "{pool}-tls"),
            Self::PoolCa(pool) => write!(f, "{pool}-ca"),
            Self::AdminToken(pool) => write!(f, "{pool}-admin"),
            Self::SipPairs(pool) => write!(f, "{pool}-sip"),
            Self::LastGiven(pool) => write!(f, "{pool}-last-given"),
        }
    }
}

/// Why a store could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot read {place}: {source}; check that it exists and that this user may read it")]
    Read {
        place: String,
        source: std::io::Error,
    },
    #[error("cannot write {place}: {source}; check free space and that this user may write there")]
    Write {
        place: String,
        source: std::io::Error,
    },
}

/// Keeps entries. A write replaces the entry as a whole; readers see the old one or the new one.
pub trait Store {
    /// # Errors
    /// [`StoreError`]; an entry that does not exist is `None`, not an error.
    fn read(&self, entry: &ManagedSecret) -> Result<Option<SecretData>, StoreError>;

    /// # Errors
    /// [`StoreError`].
    fn write(&mut self, entry: &ManagedSecret, material: &SecretData) -> Result<(), StoreError>;
}

/// A store in memory: for `render`, which must leave nothing behind, and to plan on a snapshot.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    entries: BTreeMap<ManagedSecret, SecretData>,
}

impl MemoryStore {
    /// Every entry held, by name.
    pub fn entries(&self) -> impl Iterator<Item = (&ManagedSecret, &SecretData)> {
        self.entries.iter()
    }
}

impl Store for MemoryStore {
    fn read(&self, entry: &ManagedSecret) -> Result<Option<SecretData>, StoreError> {
        Ok(self.entries.get(entry).cloned())
    }

    fn write(&mut self, entry: &ManagedSecret, material: &SecretData) -> Result<(), StoreError> {
        self.entries.insert(entry.clone(), material.clone());
        Ok(())
    }
}

/// The value of `key` as text, where it is there and UTF-8.
#[must_use]
pub fn text<'a>(material: &'a SecretData, key: &str) -> Option<&'a str> {
    std::str::from_utf8(material.get(key)?).ok()
}

/// Sets `key` to a text.
pub fn set(material: &mut SecretData, key: &str, value: &str) {
    material.insert(key.to_owned(), Zeroizing::new(value.as_bytes().to_vec()));
}
