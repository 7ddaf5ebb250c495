//! The records that lead partners to a pool, and how they get into DNS.
//!
//! [`wanted`] says what one pool wants, [`plan`] compares that with what DNS holds and answers with
//! single additions and deletions; both are pure. What carries them out are the [`backend`]s: updates
//! under TSIG, or objects for external-dns; [`observe`] asks what came of them.
//! A cluster and standalone use the same. This is the only room of the operator that knows DNS on
//! the wire.

pub mod addresses;
pub mod answered;
mod authority;
pub mod backend;
pub mod controller;
pub mod error;
pub mod hold_down;
pub mod key;
pub mod marker;
pub mod metrics;
pub mod observe;
pub mod plan;
pub mod records;
pub mod report;
pub mod rrset;
pub mod wanted;
mod wire;

pub use addresses::LoadBalancer;
pub use backend::rfc2136::{DnsMemory, Publisher, RecordSource, UpdateSettings};
pub use error::DnsError;
pub use marker::{OwnerId, RecordOwner};
pub use metrics::DnsMetrics;
pub use report::{DnsCondition, DnsReport, RecordGroupState};
pub use wanted::{Addresses, Availability, DesiredRecords, RecordGroup};
