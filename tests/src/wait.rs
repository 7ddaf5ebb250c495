//! Waiting for conditions with deadlines.

use std::{future::Future, time::Duration};

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep, timeout};

/// What a slow, loaded two-core machine may need for one step.
pub const GENEROUS: Duration = Duration::from_secs(40);

/// Polls `probe` until it yields a value; the pause between polls grows from 5 to 100 ms.
///
/// # Errors
/// When `limit` passes first; the message names `what`.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> Result<T> {
    let end = Instant::now().checked_add(limit);
    let mut pause = Duration::from_millis(5);
    loop {
        if let Ok(Some(value)) = timeout(limit, probe()).await {
            return Ok(value);
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            anyhow::bail!("{what}: not within {limit:?}");
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Gives `future` at most `limit`.
///
/// # Errors
/// The future's own, or that `what` took longer.
pub async fn within<T>(
    what: &str,
    limit: Duration,
    future: impl Future<Output = Result<T>>,
) -> Result<T> {
    timeout(limit, future)
        .await
        .with_context(|| format!("{what}: not within {limit:?}"))?
        .with_context(|| what.to_owned())
}
