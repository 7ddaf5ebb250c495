//! The admin port: health, readiness, metrics, status, explain, and the page that shows them.

pub mod collector;
pub mod connection;
pub mod explain;
pub mod history;
pub mod page;
pub mod probe;
pub mod readiness;
pub mod server;
pub mod sidecar_collector;
pub mod sidecar_status;
pub mod sip_status;
pub mod status;
pub mod thread;
