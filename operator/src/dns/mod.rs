//! The records that lead partners to a pool, and how they get into DNS.
//!
//! [`wanted`] says what one pool wants, [`plan`] compares that with what DNS holds and answers with
//! single additions and deletions; both are pure. [`rfc2136`] carries them out under TSIG;
//! [`external_dns`] writes objects for external-dns instead, and [`observe`] asks what came of them.
//! A cluster and standalone use the same. This is the only room of the operator that knows DNS on
//! the wire.

pub mod addresses;
mod authority;
pub mod controller;
pub mod error;
pub mod external_dns;
pub mod hold_down;
pub mod key;
pub mod marker;
pub mod metrics;
pub mod observe;
pub mod plan;
pub mod pool_records;
pub mod records;
pub mod report;
pub mod rfc2136;
pub mod rrset;
pub mod wanted;
mod wire;

pub use addresses::LoadBalancer;
pub use error::DnsError;
pub use marker::{OwnerId, RecordOwner};
pub use metrics::DnsMetrics;
pub use report::{DnsCondition, DnsReport, RecordGroupState};
pub use rfc2136::{DnsMemory, Publisher, RecordSource, UpdateSettings};
pub use wanted::{Addresses, Availability, DesiredRecords, RecordGroup};
