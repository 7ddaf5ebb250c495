//! The DNS view: what servers inside use as their resolver, so that they find the edge for
//! partners, each other for own domains, and nobody else.

mod rules;
mod server;

pub use rules::{Rules, TTL};
pub use server::View;

#[cfg(test)]
mod tests;
