//! Trust anchors: the keys from which a chain of trust may begin.

use std::{fmt, path::Path, sync::Arc};

use hickory_proto::{
    dnssec::{TrustAnchors as Keys, Verifier, rdata::DNSKEY},
    rr::{Name, Record},
    serialize::txt::trust_anchor::{Entry, Parser},
};

/// Keys that are trusted, and for which zones. The default are those of the root. Cheap to clone.
#[derive(Clone)]
pub struct TrustAnchors {
    keys: Arc<Keys>,
    /// The zones that have keys here, each once.
    zones: Arc<[Name]>,
}

/// Why a file of trust anchors cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AnchorsError {
    #[error("cannot read {path}: {source}")]
    Read {
        path: String,
        source: std::io::Error,
    },
    #[error(
        "{path} holds no trust anchors: {cause}. One DNSKEY record a line is wanted, as `dig DNSKEY` prints it"
    )]
    Parse { path: String, cause: String },
}

impl Default for TrustAnchors {
    fn default() -> Self {
        Self {
            keys: Arc::new(Keys::default()),
            zones: Arc::new([Name::root()]),
        }
    }
}

impl fmt::Debug for TrustAnchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.zones.iter().map(Name::to_ascii))
            .finish()
    }
}

impl TrustAnchors {
    /// Reads DNSKEY records in the form of a zone file; they count in place of the root's own keys.
    ///
    /// A zone whose parent does not vouch for it needs all its keys here, not the key-signing ones
    /// alone.
    ///
    /// # Errors
    /// [`AnchorsError`] names the file and what is wrong with it.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, AnchorsError> {
        let path = path.as_ref();
        let shown = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => {
                Self::parse(&text).map_err(|cause| AnchorsError::Parse { path: shown, cause })
            }
            Err(source) => Err(AnchorsError::Read {
                path: shown,
                source,
            }),
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let entries = Parser::new(text)
            .parse()
            .map_err(|cause| cause.to_string())?;
        let mut keys = Keys::empty();
        let mut zones = Vec::new();
        for entry in entries {
            let Entry::DNSKEY(entry) = entry else {
                return Err("it holds other records than DNSKEY".to_owned());
            };
            let mut zone = entry.name().to_lowercase();
            zone.set_fqdn(true);
            if !entry.data().zone_key() {
                return Err(format!("the key of {zone} is not a zone key"));
            }
            let key = entry.data().key().map_err(|cause| cause.to_string())?;
            keys.insert_with_name(&*key, (&zone).into());
            if !zones.contains(&zone) {
                zones.push(zone);
            }
        }
        if zones.is_empty() {
            return Err("it is empty".to_owned());
        }
        Ok(Self {
            keys: Arc::new(keys),
            zones: zones.into(),
        })
    }

    pub(super) fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys)
    }

    /// The closest zone at or above `name` that has a key here.
    pub(super) fn above(&self, name: &Name) -> Option<Name> {
        self.zones
            .iter()
            .filter(|zone| zone.zone_of(name))
            .max_by_key(|zone| zone.num_labels())
            .cloned()
    }

    /// Whether one of the keys that `zone` shows is here.
    pub(super) fn hold_one_of(&self, zone: &Name, answers: &[Record]) -> bool {
        answers.iter().any(|record| {
            record.try_borrow::<DNSKEY>().is_some_and(|key| {
                record.name == *zone
                    && self
                        .keys
                        .contains_with_name(key.data().public_key(), &zone.into())
            })
        })
    }
}
