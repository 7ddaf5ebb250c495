//! The sidecar beside the organisation's server: what it keeps of itself, what it reads, and its DNS view.
//!
//! It has a key of its own, by which the pools know it, and an authority for the leaves that it shows its
//! server. Both live in its state folder ([`state`]) and nowhere else. Its files are followed ([`files`]) and
//! become what the engine of an edge is told ([`settings`]). What it says on the wire is said by the rooms that
//! an edge has too; this one must not repeat them.

pub mod authority;
pub mod files;
pub mod identity;
pub mod run;
pub mod settings;
pub mod state;
pub mod view;

#[cfg(test)]
mod tests;

pub use authority::LoopbackAuthority;
pub use files::{SidecarFiles, SidecarPaths};
pub use identity::SidecarIdentity;
pub use run::{SidecarError, SidecarOptions, run};
pub use settings::SidecarConstants;
pub use state::{StateDir, StateError};
pub use view::{SidecarView, SidecarViewError, SidecarViewOptions};
