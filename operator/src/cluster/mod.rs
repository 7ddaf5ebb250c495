//! The cluster around the controllers: watches, one look at a namespace at a time, the lease, what
//! pods say, and the writing of statuses.
//!
//! A namespace is one organisation and compiling is a pure function of a whole namespace, so a look
//! is: [`snapshot`] → `compile` → for each pool, partner and policy its controller's five words,
//! each given the same [`Scene`]. What a kind's status says is decided in its own room.

pub mod admin;
pub mod backoff;
pub mod caches;
pub mod carried;
pub mod check;
pub mod conditions;
pub mod election;
pub mod events;
pub mod inputs;
pub mod known_keys;
pub mod lease;
pub mod loose;
pub mod metrics;
pub mod organisation;
pub mod pods;
pub mod programmed;
pub mod release;
pub mod run;
pub mod scene;
pub mod snapshot;
pub mod statuses;
pub mod table;
pub mod writer;
pub mod written;

pub use caches::{Caches, Scope};
pub use scene::{AllowedDomains, Context, PoolError, PoolOutcome, Scene, Settings};
