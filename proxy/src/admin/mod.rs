//! The admin port: health, readiness, metrics, status, explain.

pub mod server;
pub mod status;
