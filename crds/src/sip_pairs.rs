//! Certificates that an edge shows to SIP servers of another PKI, as they lie beside its document: one file for all
//! gateways, which comes and goes as a whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Largest file; a Secret holds no more.
const MAX_BYTES: usize = 1024 * 1024;

/// Chains and keys, by the gateway's effective name. Keys are never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SipPairs(pub BTreeMap<String, SipPair>);

/// One chain and its key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct SipPair {
    /// End entity first.
    pub chain: String,
    pub key: Zeroizing<String>,
}

/// Why a file holds none. Never quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SipPairsError {
    #[error("it is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("it is not JSON of chains and keys (line {line}, column {column})")]
    Syntax { line: usize, column: usize },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<T> {
    chain: T,
    key: T,
}

impl SipPairs {
    /// # Errors
    /// [`SipPairsError`].
    pub fn parse(file: &[u8]) -> Result<Self, SipPairsError> {
        if file.len() > MAX_BYTES {
            return Err(SipPairsError::TooLarge);
        }
        let read: BTreeMap<String, Written<String>> =
            serde_json::from_slice(file).map_err(|error| SipPairsError::Syntax {
                line: error.line(),
                column: error.column(),
            })?;
        let pairs = read.into_iter().map(|(gateway, Written { chain, key })| {
            let key = Zeroizing::new(key);
            (gateway, SipPair { chain, key })
        });
        Ok(Self(pairs.collect()))
    }

    /// The file.
    #[must_use]
    pub fn to_json(&self) -> Zeroizing<Vec<u8>> {
        let written = self.0.iter().map(|(gateway, pair)| {
            let (chain, key) = (pair.chain.as_str(), pair.key.as_str());
            (gateway.as_str(), Written { chain, key })
        });
        let written: BTreeMap<&str, Written<&str>> = written.collect();
        Zeroizing::new(serde_json::to_vec(&written).expect("maps of texts are JSON"))
    }
}

/// The keys are not shown.
impl std::fmt::Debug for SipPairs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The key is not shown.
impl std::fmt::Debug for SipPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SipPair").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else_is_taken_for_it() {
        let pair = SipPair {
            chain: "-----BEGIN CERTIFICATE-----\n\"\\\n".to_owned(),
            key: Zeroizing::new("-----BEGIN PRIVATE KEY-----\n".to_owned()),
        };
        let pairs = SipPairs([("org.example".to_owned(), pair)].into());
        assert_eq!(SipPairs::parse(&pairs.to_json()), Ok(pairs));
        assert_eq!(SipPairs::parse(b"{}"), Ok(SipPairs::default()));
        for (file, fault) in [
            (&b"secret"[..], (1, 1)),
            (b"{\"a\": {\"chain\": \"secret\"}}", (1, 25)),
            (b"[]", (1, 0)),
        ] {
            let found = SipPairs::parse(file).err();
            let (line, column) = fault;
            assert_eq!(found, Some(SipPairsError::Syntax { line, column }));
        }
        let large = vec![b' '; MAX_BYTES + 1];
        assert_eq!(SipPairs::parse(&large), Err(SipPairsError::TooLarge));
    }
}
