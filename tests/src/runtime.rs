//! The runtime of what several tests share: it outlives each test.

use std::{future::Future, sync::OnceLock};

use anyhow::Result;
use tokio::runtime::Runtime;

pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime can be built")
    })
}

/// Runs a future that belongs to no rig on the runtime that all tests share.
///
/// # Panics
/// When it fails.
pub fn alone(body: impl Future<Output = Result<()>>) {
    if let Err(error) = runtime().block_on(body) {
        panic!("{error:#}");
    }
}
