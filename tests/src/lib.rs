//! Support for tests that look at the system from outside: real XMPP servers, a real DNS, a test
//! client, a certificate authority and the edge itself, each on loopback addresses of its own.
//!
//! Nothing here knows how the edge works inside; it starts binaries, speaks protocols and waits
//! for conditions. It must never sleep for a fixed time in place of waiting for a condition.

pub mod address;
pub mod browser;
pub mod client;
pub mod cluster;
pub mod conversation;
pub mod crossing;
pub mod database;
pub mod dns;
pub mod edge;
pub mod failure_class;
pub mod federation;
pub mod foreign_socket;
pub mod lab;
pub mod mistakes;
pub mod network;
pub mod peer;
pub mod pki;
pub mod pod;
pub mod primary;
pub mod process;
pub mod prometheus;
pub mod relay;
pub mod rig;
mod runtime;
pub mod servers;
pub mod sidecar;
pub mod silent;
pub mod sip;
pub mod socks;
pub mod traffic;
pub mod wait;
pub mod xml;
