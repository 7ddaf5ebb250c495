//! Server Dialback (XEP-0220): keys by XEP-0185, and the pairs that a peer asks for on one stream.
//!
//! It computes and keeps count; who may ask for what is `inbound`'s and `outbound`'s to decide.

mod receiving;
mod secret;

pub(super) use receiving::{Receiving, Request};
pub use secret::Secret;
