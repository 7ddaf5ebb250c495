//! Server Dialback (XEP-0220): keys by XEP-0185, elements on the wire, and the pairs that a peer asks
//! for on one stream.
//!
//! It computes, reads and keeps count; who may ask for what is `inbound`'s and `outbound`'s to decide.

mod receiving;
mod secret;
mod wire;

pub(super) use receiving::{Admitted, KeyRequest, PairTable};
pub use secret::Secret;
pub(super) use wire::{
    Body, DialbackAnswer, DialbackError, Kind, Message, Unreadable, send_answer, send_result,
    send_result_answer, send_verify,
};
