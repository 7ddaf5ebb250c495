//! What decides of a chain beside the chain itself, as one value: so that a new configuration verifies
//! again what it changed, and nothing else.

use super::certificate::sha256;

/// Stands for authorities, pins and rules. Two that are equal judge a chain alike at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrustStamp([u8; 32]);

impl TrustStamp {
    /// Of these parts in this order. Each must tell its own end: they are hashed one after the other,
    /// with their lengths.
    pub(super) fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut all = Vec::new();
        for part in parts {
            all.extend_from_slice(&part.len().to_be_bytes());
            all.extend_from_slice(part);
        }
        Self(sha256(&all))
    }

    /// Of two that decide together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::of([&self.0[..], &other.0[..]])
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
