//! How an HTTP server ends: what was asked is answered, for a while.

use std::{future::IntoFuture, io, time::Duration};

use tokio_util::sync::CancellationToken;

/// What answers that are under way may take once the server is to end.
pub const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Serves until `stop`, and is dropped [`LAST_ANSWERS`] later where it has not ended in order: a request that is
/// never sent whole, or an answer that takes long, keeps no process from ending.
///
/// # Errors
/// What ended it before.
pub async fn serve_until(
    stop: CancellationToken,
    serving: impl IntoFuture<Output = io::Result<()>>,
) -> io::Result<()> {
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST_ANSWERS).await;
    };
    tokio::select! {
        ended = serving.into_future() => ended,
        () = late => Ok(()),
    }
}
