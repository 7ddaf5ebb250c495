//! The DNS view: what servers inside use as their resolver, so that they find the edge, or the sidecar
//! beside them, for partners, each other for own domains, and nobody else.

mod edge;
mod records;
mod rules;
mod server;
mod sidecar;
mod sip;

pub use rules::{Rules, TTL};
pub use server::View;

#[cfg(test)]
mod tests;
