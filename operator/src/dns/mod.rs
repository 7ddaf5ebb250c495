//! The records that lead partners to a pool. How they are published is each backend's.

pub mod records;
