//! How admin ports serve HTTP: who connects and says nothing keeps nobody out, and a server that ends answers
//! what was asked, for a while.
//!
//! Each connection is accepted at once. Where there are too many, the one that has been without a request for
//! longest goes ([`connections`]): who asks is served, whatever others hold open.

mod connections;

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::ConnectInfo,
};
use hyper::{
    Request,
    body::{Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use connections::{Busy, Connections, Place};

/// What answers that are under way may take once the server is to end.
pub const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Who takes nothing of what is sent for so long has gone: a page that follows would hold its place.
const UNREAD_FOR: Duration = Duration::from_secs(30);
/// After a failure of the system to accept one.
const PAUSE: Duration = Duration::from_millis(100);
/// Most bytes of a request's header, and of what is gathered of an answer before it is written.
const BUFFER: usize = 64 * 1024;

/// What connections may take.
#[derive(Clone, Copy, Debug)]
pub struct ServingBounds {
    /// Connections in all.
    pub all: usize,
    /// Of one address, or of one /64 in IPv6. Loopback has no bound of its own.
    pub of_address: usize,
    /// A request is whole within this, from the connection's begin or the answer before; so is what comes
    /// before the first one, such as a handshake.
    pub asked_within: Duration,
}

impl Default for ServingBounds {
    fn default() -> Self {
        Self {
            all: 512,
            of_address: 16,
            asked_within: Duration::from_secs(10),
        }
    }
}

/// Serves `app` in clear until `stop`.
///
/// # Errors
/// What ended it before.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    bounds: ServingBounds,
    stop: CancellationToken,
) -> io::Result<()> {
    let open = |socket, address| std::future::ready(Some((socket, address)));
    serve_opened(listener, app, bounds, open, stop).await
}

/// Serves `app` until `stop`, over what `open` makes of a socket: none where it is of no use. What it says of
/// the caller beside is the request's [`ConnectInfo`].
///
/// # Errors
/// What ended it before.
pub async fn serve_opened<O, F, I, C>(
    listener: TcpListener,
    app: Router,
    bounds: ServingBounds,
    open: O,
    stop: CancellationToken,
) -> io::Result<()>
where
    O: Fn(TcpStream, SocketAddr) -> F,
    F: Future<Output = Option<(I, C)>> + Send + 'static,
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    C: Clone + Send + Sync + 'static,
{
    let connections = Arc::new(Connections::new(bounds));
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((socket, from)) = accepted else {
            sleep(PAUSE).await;
            continue;
        };
        // Where it cannot be set, who vanishes is noticed later.
        let _ = SockRef::from(&socket).set_tcp_user_timeout(Some(UNREAD_FOR));
        while tasks.try_join_next().is_some() {}
        let Some(place) = connections.enter(from.ip()) else {
            continue;
        };
        let opened = timeout(bounds.asked_within, open(socket, from));
        let (app, stop) = (app.clone(), stop.clone());
        tasks.spawn(async move {
            let place = Arc::new(place);
            let served = async {
                let opened = tokio::select! {
                    () = stop.cancelled() => return,
                    opened = opened => opened,
                };
                if let Ok(Some((io, caller))) = opened {
                    converse(io, caller, app, bounds, &place, &stop).await;
                }
            };
            tokio::select! {
                () = place.evicted() => {}
                () = served => {}
            }
        });
    }
    drop(listener);
    // A request that is never sent whole, or an answer that takes long, keeps no process from ending.
    let _ = timeout(LAST_ANSWERS, async {
        while tasks.join_next().await.is_some() {}
    })
    .await;
    Ok(())
}

/// Answers what is asked on a connection, until it or the server ends.
async fn converse<I, C>(
    io: I,
    caller: C,
    app: Router,
    bounds: ServingBounds,
    place: &Arc<Place>,
    stop: &CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    C: Clone + Send + Sync + 'static,
{
    let service = service_fn(move |mut request: Request<Incoming>| {
        let busy = place.busy();
        request.extensions_mut().insert(ConnectInfo(caller.clone()));
        let answer = app.clone().oneshot(request.map(Body::new));
        async move {
            let answer = answer.await?;
            Ok::<_, Infallible>(answer.map(|body| Answer { body, _busy: busy }))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.asked_within)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(io), service);
    tokio::pin!(connection);
    // Who breaks off is no fault of the server's.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// What is answered; its connection is busy until all of it is handed over.
struct Answer {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
