//! Server-sent events (WHATWG HTML section 9.2) that keep a browser up to date with a [`Board`].
//!
//! A portion is made when the connection can take it, so that nothing waits for who reads slowly.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::stream::{self, StreamExt};
use tokio_util::sync::CancellationToken;

use crate::{
    board::{Board, LISTENERS, Listener, REFRESH},
    files,
};

/// A line without content is sent so often: who is gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Updates until `stop`, or until the browser leaves. 503 where [`LISTENERS`] follow already.
pub fn updates(board: &Arc<Board>, stop: CancellationToken) -> Response {
    let Some(listener) = board.listen() else {
        let text = format!(
            "{LISTENERS} browsers follow this page already: close one of them, or ask /status\n"
        );
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    };
    let follower = Follower {
        board: Arc::clone(board),
        listener,
    };
    let events = stream::unfold(follower, |mut follower| async move {
        let text = follower.next().await;
        Some((Ok::<_, Infallible>(Event::default().data(text)), follower))
    });
    let events = events.take_until(stop.cancelled_owned());
    let mut response = Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response();
    files::guard(response.headers_mut());
    response
}

struct Follower {
    board: Arc<Board>,
    listener: Listener,
}

impl Follower {
    /// The next portion, once there is one.
    async fn next(&mut self) -> String {
        loop {
            self.board.refresh().await;
            if let Some(text) = self.board.next(&mut self.listener) {
                return text;
            }
            tokio::time::sleep(REFRESH).await;
        }
    }
}
