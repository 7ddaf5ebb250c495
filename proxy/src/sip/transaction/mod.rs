//! Requests and their answers (RFC 3261 section 17, RFC 4320), on streams: nothing is sent twice by itself, and
//! no answer is awaited for longer than its sender waits.
//!
//! [`ClientTransactions`] are ours, [`ServerTransactions`] those that a server asks. Neither knows a socket; the
//! caller says what came, over which connection, and what time it is.

mod client;
mod server;
#[cfg(test)]
mod tests;

pub use self::{
    client::{Answered, ClientTransactions, Started},
    server::{Arrival, AskedRequest, ServerTransactions},
};

/// A connection of the link, as its owner numbers them; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkConnection(pub u64);
