//! Addresses on the command lines of both programs: read so that a wrong one is told with an example.

use std::net::{IpAddr, SocketAddr};

/// An address without port.
///
/// # Errors
/// What to write instead.
pub fn address(text: &str) -> Result<IpAddr, &'static str> {
    text.parse()
        .map_err(|_| "write an IP address, such as 192.0.2.1 or 2001:db8::1")
}

/// An address with its port.
///
/// # Errors
/// What to write instead.
pub fn address_and_port(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "write an IP address and a port, such as 192.0.2.1:53 or [2001:db8::1]:53")
}
