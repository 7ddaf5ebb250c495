//! The vocabulary that control plane and data plane share.
//!
//! Without the `kinds` feature this crate knows nothing of Kubernetes: domain names, JIDs, the
//! negotiation rule, access verdicts, the reader of PEM, what may stand in a line and two documents, [`edge_config::EdgeConfig`] and
//! [`sidecar_config::SidecarConfig`]. With it, the three kinds of group `xmpp-edge.dev`. It must never know clients or sockets.

#![cfg_attr(
    not(test),
    deny(
        unreachable_pub,
        missing_debug_implementations,
        clippy::cast_possible_truncation
    )
)]

pub mod domain;
pub mod edge_config;
pub mod egress;
pub mod jid;
#[cfg(feature = "kinds")]
pub mod kinds;
pub mod line;
pub mod negotiation;
pub mod partner_type;
pub mod pem;
pub mod postgres;
pub mod remedy;
pub mod sidecar_config;
pub mod sip_address;
pub mod sip_pairs;
pub mod verdict;
