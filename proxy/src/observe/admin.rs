//! The admin port: `/healthz`, `/readyz`, `/metrics`, `/status`, `/explain`.

use std::{collections::HashMap, sync::Arc};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::status;
use crate::edge::Edge;

/// OpenMetrics 1.0.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until `stop`.
pub async fn run(edge: Arc<Edge>, listener: TcpListener, stop: CancellationToken) {
    let app = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(show_status))
        .route("/explain", get(explain))
        .fallback(|| async {
            (
                StatusCode::NOT_FOUND,
                "there are /healthz, /readyz, /metrics, /status and /explain\n",
            )
        })
        .with_state(edge);
    let served = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::warn!(%error, "the admin port failed");
    }
}

async fn readyz(State(edge): State<Arc<Edge>>) -> Response {
    let waits = edge.waits_for();
    if waits.is_empty() {
        (StatusCode::OK, "ready\n".to_owned()).into_response()
    } else {
        let text = format!("waiting for {}\n", waits.join(", "));
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }
}

async fn metrics(State(edge): State<Arc<Edge>>) -> Response {
    (
        [(header::CONTENT_TYPE, OPENMETRICS)],
        edge.metrics.text(&edge),
    )
        .into_response()
}

async fn show_status(
    State(edge): State<Arc<Edge>>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if !is_authorised(&edge, &headers) {
        return unauthorised();
    }
    let since = match query.get("since").map(|since| since.parse::<Timestamp>()) {
        None => None,
        Some(Ok(since)) => Some(since),
        Some(Err(error)) => {
            return bad_request(&format!("since: {error}; give a time as RFC 3339 has it"));
        }
    };
    Json(status::status(&edge, since)).into_response()
}

async fn explain(
    State(edge): State<Arc<Edge>>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if !is_authorised(&edge, &headers) {
        return unauthorised();
    }
    let (Some(from), Some(to)) = (query.get("from"), query.get("to")) else {
        return bad_request("give both: /explain?from=JID&to=JID");
    };
    match edge.explain(from, to) {
        Ok(explanation) => Json(explanation).into_response(),
        Err(error) => bad_request(&error),
    }
}

fn bad_request(text: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{text}\n")).into_response()
}

/// Whether the bearer is right, where one is wanted.
fn is_authorised(edge: &Edge, headers: &HeaderMap) -> bool {
    let force = edge.force();
    let Some(token) = &force.admin_token else {
        return true;
    };
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    given.is_some_and(|given| verify_slices_are_equal(given.as_bytes(), token.as_bytes()).is_ok())
}

fn unauthorised() -> Response {
    let text = "send the token of Secret <pool>-admin as 'Authorization: Bearer …'\n";
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    (StatusCode::UNAUTHORIZED, challenge, text).into_response()
}
