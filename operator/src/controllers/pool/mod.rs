//! `EdgePool`: everything that a pool provisions in a cluster, in five steps.
//!
//! [`read`] takes what the watches saw, [`validate`] says what neither the schema nor compiling
//! can, [`plan`] decides which objects there should be, [`apply`] writes those that differ, in the
//! order of [`provision`], and [`status`] says how it stands ([`blocked`]: why pods do not run); [`publish`] and [`external_dns`] bring
//! its records into DNS, those of what is [`in_force`], [`cert_manager`] follows what issues its certificate, [`unread`] lets pools go that nobody may read. These, `apply`,
//! `provision` and [`reconcile`] do I/O; the rest is pure. What a pool's proxy must know is the
//! compile step's business, not this room's.

pub mod apply;
pub mod blocked;
pub mod cert_manager;
pub mod external_dns;
pub mod forgotten_secrets;
mod gateway_copies;
pub mod in_force;
mod memory;
pub mod plan;
pub mod provision;
pub mod publish;
pub mod read;
pub mod reconcile;
pub mod sidecar_secrets;
pub mod sidecars;
pub mod status;
pub mod unread;
pub mod validate;

pub use memory::PoolMemory;
pub use reconcile::{reconcile, reconcile_unread};
