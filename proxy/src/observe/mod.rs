//! What the outside may see: status, metrics, attempts, the admin port.

pub mod admin;
pub mod attempt;
pub mod attempts;
pub mod intake;
pub mod metrics;
pub mod peer_keys;
pub mod probes;
pub mod repeats;
pub mod status;
