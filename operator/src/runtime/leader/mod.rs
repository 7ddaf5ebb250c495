//! Which of several replicas leads: [`election`] decides, without I/O; [`lease`] asks the API server.

pub mod election;
pub mod lease;
