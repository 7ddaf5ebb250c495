//! Accepting connections: sniffing, PROXY header, bounds before authentication.

pub mod bounds;
pub mod proxy_header;
