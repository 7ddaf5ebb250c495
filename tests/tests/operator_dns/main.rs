//! A pool's records in DNS, from the pool on a real API server to what a real primary (BIND, Knot) or
//! external-dns's own code makes of them.
//!
//! The cluster's own controllers run; there is no node: the tests play the kubelet, which says whether
//! pods are ready.
#![allow(clippy::unwrap_used)]

mod external;
mod faults;
mod following;
mod health;
mod leaving;
mod sharing;
mod stage;

use anyhow::Result;
use tokio::sync::OnceCell;
use xmpp_edge_tests::cluster::{ControllerManager, Namespace, SharedCluster, WITHOUT_NODES};

static SERVER: SharedCluster = SharedCluster::new();
static CONTROLLERS: OnceCell<ControllerManager> = OnceCell::const_new();

/// Runs a test in a namespace of its own of the server that all of them share.
fn test(body: impl AsyncFnOnce(&Namespace<'_>) -> Result<()>) {
    SERVER.test(async |namespace| {
        let controllers = ControllerManager::start(namespace.server, WITHOUT_NODES);
        CONTROLLERS.get_or_try_init(|| controllers).await?;
        body(namespace).await
    });
}
