//! The three kinds of group `xmpp-edge.dev`, version `v1alpha1`: one file a kind.
//!
//! Every rule of one object is in its schema or its CEL rules; rules across objects, and what
//! neither can say, are conditions that compiling finds. Nothing here does I/O.

pub mod conditions;
mod definition;
pub mod fields;
#[allow(clippy::duplicated_attributes)] // printer columns, each with a `type_`
#[allow(unreachable_pub)] // The derive of a kind repeats its specification.
pub mod partner;
#[allow(clippy::duplicated_attributes)] // printer columns, each with a `type_`
#[allow(unreachable_pub)] // The derive of a kind repeats its specification.
pub mod policy;
#[allow(clippy::duplicated_attributes)] // printer columns, each with a `type_`
#[allow(unreachable_pub)] // The derive of a kind repeats its specification.
pub mod pool;
pub mod reference;
mod validate;

pub use definition::{crds, files, kustomize, yaml};
pub use partner::{PartnerSpec, PartnerStatus, XmppFederatedPartner};
pub use policy::{ExternalAccessPolicy, PolicyScope, PolicySpec, PolicyStatus};
pub use pool::{EdgePool, PoolSpec, PoolStatus};
pub use validate::{Violation, validate_change, validate_manifest, with_defaults};

/// `group` of all kinds.
pub const GROUP: &str = "xmpp-edge.dev";
/// `version` of all kinds.
pub const VERSION: &str = "v1alpha1";
