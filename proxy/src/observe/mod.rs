//! What the outside may see: status, metrics, attempts, the admin port.

pub mod attempt;
