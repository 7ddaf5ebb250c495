//! One namespace, one organisation: [`inputs`] → [`compile_cache`] → pools → statuses, driven by
//! [`reconciler`]. Every controller is given the same [`snapshot`].

pub mod compile_cache;
pub mod inputs;
pub mod peer_keys;
pub mod programmed;
pub mod reconciler;
pub mod references;
mod sidecars;
pub mod snapshot;
pub mod way_inside;
