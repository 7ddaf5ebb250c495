//! The operator on a real API server: what it says of partners and policies through their life, and
//! what it asks of the API server for it.
//!
//! There is no node: pods are objects of the tests with a port that answers as a proxy's does.
#![allow(clippy::unwrap_used)]

mod calls;
mod causes;
mod conflicts;
mod deletion;
mod deltas;
mod ghosts;
mod impostors;
mod inspect;
mod kinds;
mod leading;
mod namespaces;
mod outages;
mod page;
mod partners;
mod policies;
mod stage;
mod storms;
mod unreadable;

use xmpp_edge_tests::cluster::SharedCluster;

static SERVER: SharedCluster = SharedCluster::new();
