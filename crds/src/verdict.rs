//! Who may talk to whom: the decision for one stanza, and its reason.

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

/// `Inbound` is from a partner to inside, `Outbound` the other way, in every name, label and text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Direction {
    Inbound,
    Outbound,
}

/// Why a stanza does not pass: the first rule that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    PoolSuspended,
    PartnerNotAllowed,
    PartnerSuspended,
    AccessPolicy,
    Content,
    Contact,
}

impl Reason {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PoolSuspended => "PoolSuspended",
            Self::PartnerNotAllowed => "PartnerNotAllowed",
            Self::PartnerSuspended => "PartnerSuspended",
            Self::AccessPolicy => "AccessPolicy",
            Self::Content => "Content",
            Self::Contact => "Contact",
        }
    }
}
