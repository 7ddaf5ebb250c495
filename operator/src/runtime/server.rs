//! The operator's own port: `/healthz`, `/readyz`, `/metrics`.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use xmpp_edge_page::serving::{self, ServingBounds};

use super::{caches::Caches, metrics::Metrics};

#[derive(Clone)]
struct Shown {
    caches: Arc<Caches>,
    metrics: Arc<Metrics>,
}

/// Serves until `stop`.
///
/// # Errors
/// [`std::io::Error`] where the port cannot be had.
pub async fn serve(
    listener: TcpListener,
    caches: Arc<Caches>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let app = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(show_metrics))
        .with_state(Shown { caches, metrics });
    serving::serve(listener, app, ServingBounds::default(), stop).await
}

/// Every IPv6 address stands for every IPv4 address too, alone where the node has no IPv6.
///
/// # Errors
/// [`std::io::Error`] where the port cannot be had.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error)
            if address.ip() == Ipv6Addr::UNSPECIFIED
                && error.kind() != std::io::ErrorKind::AddrInUse =>
        {
            let other = TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await;
            other.map_err(|_| error)
        }
        bound => bound,
    }
}

/// Ready once what may be read is read: as a follower too, so that a rollout goes on. What is wrong
/// with a watch is told whether ready or not.
async fn readyz(State(shown): State<Shown>) -> impl IntoResponse {
    let found = shown.caches.readiness();
    let code = if found.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mut text = if found.ready {
        "ok\n".to_owned()
    } else {
        String::new()
    };
    for line in &found.lines {
        text.push_str(line);
        text.push('\n');
    }
    (code, text)
}

async fn show_metrics(State(shown): State<Shown>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], shown.metrics.text())
}
