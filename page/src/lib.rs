//! The status page: its files, what it can show ([`model`]), and how browsers are kept up to date
//! ([`board`], [`updates`]); and how admin ports serve whatever they show ([`serving`]).
//!
//! A proxy shows its pool and the operator its namespaces by the same page. Whoever serves it decides who
//! may see it, and fills the board; this crate must never know XMPP, Kubernetes or a configuration, and
//! nothing here acts on anything: the page only reads.

#![cfg_attr(
    not(test),
    deny(
        unreachable_pub,
        missing_debug_implementations,
        clippy::cast_possible_truncation
    )
)]

pub mod board;
pub mod files;
pub mod model;
pub mod rates;
pub mod serving;
pub mod updates;
