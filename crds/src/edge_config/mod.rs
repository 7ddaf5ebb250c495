//! The one contract between control plane and data plane: all that a pool's proxy must know.
//!
//! A person can read the document; the operator alone writes it, the proxy alone obeys it.
//! Secrets are never in it: certificates, keys and passwords arrive beside it as files.

mod address;
mod model;
pub mod shards;
mod sip;
mod start;

pub use address::{
    GatewayAddress, GatewayAddressError, Host, HostPort, HostPortError, SipServers, SipService,
};
pub use model::*;
pub use sip::{EndOfSubscription, GatewaySip, SipDialect, SipTransport};
pub use start::{OtherStart, StartSettings};
