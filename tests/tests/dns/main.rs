//! Records in DNS without a cluster: dynamic updates on real primaries, what standalone publishes, and the
//! objects for external-dns by external-dns's own code; and what a sidecar's DNS view tells a server.

#![allow(clippy::unwrap_used)]

mod external;
mod leaving;
mod rfc2136;
mod sidecar_view;
mod standalone;
