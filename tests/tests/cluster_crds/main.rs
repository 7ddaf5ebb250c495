//! The three definitions on a real API server: what it refuses and in which words, what it fills in,
//! who owns what, and what an administrator sees.
//!
//! All share one server; each test has a namespace of its own.
#![allow(clippy::unwrap_used)]

mod change;
mod columns;
mod golden;
mod rules;
#[path = "../../../crds/tests/table/mod.rs"]
mod table;

use xmpp_edge_tests::cluster::SharedCluster;

static SERVER: SharedCluster = SharedCluster::new();
