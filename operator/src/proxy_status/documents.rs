//! Which documents of a pool are the operator's own, by generation and hash: what a pod says to have loaded
//! counts only where it is one of them.
//!
//! Numbers alone do not tell: with a backup an older number comes again, with other content.

use std::collections::BTreeMap;

/// Documents remembered of a pool: pods have one of the newest, or load it soon.
const MAX_DOCUMENTS: usize = 64;

/// The newest documents that were written of one pool: generation, and SHA-256 as their shards name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WrittenDocuments(BTreeMap<u64, String>);

impl WrittenDocuments {
    /// A document is written, or was found written when this process began to lead.
    pub fn note(&mut self, generation: u64, sha256: &str) {
        self.0.insert(generation, sha256.to_owned());
        while self.0.len() > MAX_DOCUMENTS {
            self.0.pop_first();
        }
    }

    /// Whether the document of this generation is the one with this hash.
    #[must_use]
    pub fn has(&self, generation: u64, sha256: &str) -> bool {
        self.0.get(&generation).is_some_and(|it| it == sha256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_documents_are_known_by_their_hash_and_their_number_is_bounded() {
        let mut written = WrittenDocuments::default();
        for generation in 1..=100 {
            written.note(generation, &format!("hash-{generation}"));
        }
        assert!(written.has(100, "hash-100"));
        assert!(!written.has(100, "hash-99"));
        assert!(!written.has(101, "hash-101"));
        assert!(written.has(37, "hash-37"));
        assert!(!written.has(36, "hash-36"), "forgotten");
        written.note(100, "another");
        assert!(!written.has(100, "hash-100"), "it was written over");
    }
}
