//! SIP from outside: scripted users and servers, and a real Kamailio.

mod kamailio;
mod message;
mod party;
mod server;

pub use kamailio::{EDGE_NAME, EdgeRoute, Kamailio};
pub use message::{SipMessage, request};
pub use party::{Reply, SipParty};
pub use server::SipServer;

/// Port of SIP over TLS.
pub const SIPS_PORT: u16 = 5061;
/// Port of SIP over TCP.
pub const SIP_PORT: u16 = 5060;
