//! The admin port's own thread, with a runtime of its own: a status of 10,000 partners costs no stream its
//! turn, and an edge under load answers its probes.

use std::{future::Future, io, sync::Arc, thread};

use tokio::{net::TcpListener, runtime, sync::oneshot, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::server::{self, Admin};

/// Serves on these listeners until `stop`. What is returned ends when the thread does, however that comes.
///
/// # Errors
/// What the system says to another thread.
pub fn spawn(
    admin: Arc<Admin>,
    listeners: Vec<TcpListener>,
    stop: CancellationToken,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let listeners = listeners
        .into_iter()
        .map(TcpListener::into_std)
        .collect::<io::Result<Vec<_>>>()?;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (alive, ended) = oneshot::channel::<()>();
    thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || {
            // Dropped with the thread: by a panic too.
            let _alive = alive;
            if let Err(error) = runtime.block_on(serve(admin, listeners, stop)) {
                tracing::error!(%error, "the admin port failed");
            }
        })?;
    Ok(async move {
        let _ = ended.await;
    })
}

async fn serve(
    admin: Arc<Admin>,
    listeners: Vec<std::net::TcpListener>,
    stop: CancellationToken,
) -> io::Result<()> {
    let mut serving = JoinSet::new();
    for listener in listeners {
        let listener = TcpListener::from_std(listener)?;
        serving.spawn(server::run(Arc::clone(&admin), listener, stop.clone()));
    }
    while let Some(ended) = serving.join_next().await {
        ended.map_err(io::Error::other)??;
        if !stop.is_cancelled() {
            return Err(io::Error::other("a listener ended before its time"));
        }
    }
    Ok(())
}
