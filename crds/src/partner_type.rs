//! What strangers of a partner may do: a word of the kinds, of `EdgeConfig` and of verdicts alike.

use serde::{Deserialize, Serialize};

/// `spec.partnerType`: what strangers of this partner may do unasked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kinds", derive(schemars::JsonSchema))]
pub enum PartnerType {
    Federated,
    PublicVerified,
    #[default]
    PublicUnverified,
}

impl PartnerType {
    /// Whether a user needs `enablePublicCloudAccess` to talk to partners of this type.
    #[must_use]
    pub fn is_public(self) -> bool {
        !matches!(self, Self::Federated)
    }

    /// Whether a stranger has to wait until the user has added him.
    #[must_use]
    pub fn needs_contact(self) -> bool {
        matches!(self, Self::PublicUnverified)
    }

    /// Whether the partner's people see the status notes of ours.
    #[must_use]
    pub fn sees_status_notes(self) -> bool {
        matches!(self, Self::Federated)
    }
}
