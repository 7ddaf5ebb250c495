//! The admin port: health, readiness, metrics, status, explain.

pub mod collector;
pub mod explain;
pub mod listener;
pub mod readiness;
pub mod server;
pub mod status;
pub mod thread;
