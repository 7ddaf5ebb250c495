//! Who may talk to whom: the decision for one stanza, and its reason.
//!
//! Here are the rules that need no stanza: partner (rule 1) and access (rule 2). Content and contact
//! (rules 3 and 4) need one, or a store; the proxy's `policy` has them. Nothing here allocates on
//! the way to a decision.

mod access;
mod explain;
mod partners;
#[cfg(test)]
mod tests;

pub use access::{Access, AccessIndex, OwnIndex};
pub use explain::{ExplainError, Explanation, Known, Outcome, Rule, RuleTrace, explain};
pub use partners::{Admission, PartnerIndex, Partners};

pub use crate::partner_type::PartnerType;

use serde::{Deserialize, Serialize};

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
