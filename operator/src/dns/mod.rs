//! The records that lead partners to a pool, and how they get into DNS.
//!
//! [`wanted`] says what one pool wants, [`plan`] compares that with what DNS holds and answers with
//! single additions and deletions; both are pure. [`rfc2136`] carries them out under TSIG.
//! This is the only room of the operator that knows DNS on the wire.

mod authority;
pub mod error;
pub mod key;
pub mod marker;
pub mod plan;
pub mod records;
pub mod report;
pub mod rfc2136;
pub mod rrset;
pub mod wanted;

pub use error::DnsError;
pub use marker::{Claim, OwnerId};
pub use report::{PlaceState, Report};
pub use rfc2136::{Memory, Publisher};
pub use wanted::{Addresses, Place, Standing, Wanted};
