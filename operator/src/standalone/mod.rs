//! Files in, proxy in the process: the embedded default, without Kubernetes.

pub mod dns;
pub mod documents;
pub mod error;
pub mod manifests;
pub mod materials;
mod memory;
pub mod peer_keys;
pub mod positions;
pub mod reader;
pub mod run;
mod sidecars;
pub mod station;
pub mod status;
