//! Finding a domain's servers: resolver, SRV order, connecting; and the view for servers inside.
//! The only room that knows hickory.
//!
//! All names are absolute: search lists never apply.

mod cache;
pub mod connect;
mod dane;
mod dnssec;
pub mod egress_fault;
mod endpoint;
pub mod error;
pub(crate) mod exchange;
#[cfg(test)]
pub(crate) mod fake;
pub mod happy;
pub mod persistent;
mod resolv_conf;
pub mod resolver;
pub mod socket;
pub mod socks;
pub mod srv;

pub use connect::{Candidate, Candidates, Connected, Dialer, TargetSource};
pub use dane::Dane;
pub use dnssec::{AnchorsError, Dnssec, TrustAnchors};
pub use endpoint::Endpoint;
pub use error::{ConnectFault, DnsError};
pub use resolver::{Resolver, Services};
pub use socks::SocksProxy;
pub use srv::Service;
