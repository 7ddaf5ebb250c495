//! What the rooms above write into: metrics, attempts, the log limiter. It acts on nothing.

pub mod attempt;
pub mod attempts;
pub mod config_status;
pub mod log_limiter;
pub mod metrics;
