//! What the operator provisions for an EdgePool, on a real API server: its objects, its Secrets, its
//! certificate in each mode, and what it mends.
//!
//! There is no node: the tests play the controllers where something hangs on them.
#![allow(clippy::unwrap_used)]

mod allowed;
mod blocked;
mod cert_manager;
mod certificates;
mod deletion;
mod expiry;
mod objects;
mod only_here;
mod ownership;
mod referred;
mod rivals;
mod sidecars;
mod sip;
mod stage;
mod strangers;
mod told;

use xmpp_edge_tests::cluster::SharedCluster;

static SERVER: SharedCluster = SharedCluster::new();
