//! Serves the page on loopback, where `kubectl port-forward` leads: the API server says who may see it,
//! and carries it encrypted. It has no token of its own, so that it is never on the pod network.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use xmpp_edge_page::{
    board::{Board, Look},
    files,
    serving::{self, ServingBounds},
    updates,
};

use super::questions::{PageQuestions, PageRefusal};

/// An address that only this machine reaches; a pod is one.
///
/// # Errors
/// What it is not, and what to do.
pub fn loopback_address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "write an IP address and a port, such as 127.0.0.1:9092".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err(
            "the page wants no token, so that it is only served on loopback: write 127.0.0.1:9092, and reach it by kubectl port-forward"
                .to_owned(),
        )
    }
}

/// Serves until `stop`.
///
/// # Errors
/// What ended it before.
pub async fn serve(
    listener: TcpListener,
    source: Arc<dyn Look>,
    questions: Arc<PageQuestions>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let board = Board::new(source);
    let follow = {
        let stop = stop.clone();
        move || async move { updates::updates(&board, stop) }
    };
    let app = Router::new()
        .route("/", get(|| async { files::index() }))
        .route("/page/events", get(follow))
        .route(
            "/page/{name}",
            get(|Path(name): Path<String>| async move { files::file(&name) }),
        )
        .route("/explain", get(show_explanation))
        .route("/probe", post(show_probe))
        .with_state(questions)
        .layer(middleware::from_fn(asked_locally));
    serving::serve(listener, app, ServingBounds::default(), stop).await
}

async fn show_explanation(
    State(questions): State<Arc<PageQuestions>>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let given = |name: &str| query.get(name).map(String::as_str);
    match questions.explain(given("from"), given("to")).await {
        Ok(explanation) => Json(explanation).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

/// By POST, since something is done: a pod dials a peer. A page elsewhere cannot have it done by a browser.
async fn show_probe(
    State(questions): State<Arc<PageQuestions>>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if files::comes_from_elsewhere(&headers) {
        let text = "a page of another origin may not have anything probed\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let given = |name: &str| query.get(name).map(String::as_str);
    match questions.probe(given("pool"), given("domain")).await {
        Ok(answer) => {
            let code = StatusCode::from_u16(answer.code).unwrap_or(StatusCode::BAD_GATEWAY);
            let kind = match code {
                StatusCode::OK => "application/json",
                _ => "text/plain; charset=utf-8",
            };
            (code, [(header::CONTENT_TYPE, kind)], answer.body).into_response()
        }
        Err(refusal) => refused(&refusal),
    }
}

fn refused(refusal: &PageRefusal) -> Response {
    let code = match refusal {
        PageRefusal::NoAddresses
        | PageRefusal::Address { .. }
        | PageRefusal::NotOwn { .. }
        | PageRefusal::Unexplained(_)
        | PageRefusal::NoPool
        | PageRefusal::Domain { .. } => StatusCode::BAD_REQUEST,
        PageRefusal::Busy => StatusCode::TOO_MANY_REQUESTS,
        PageRefusal::NoDocument(_) | PageRefusal::NoPod(_) => StatusCode::SERVICE_UNAVAILABLE,
        PageRefusal::Document { .. } | PageRefusal::Connect { .. } | PageRefusal::Pod(_) => {
            StatusCode::BAD_GATEWAY
        }
    };
    (code, format!("{refusal}\n")).into_response()
}

/// A page elsewhere that has its own name lead to this machine is not answered (DNS rebinding).
async fn asked_locally(request: Request, next: Next) -> Response {
    if files::is_asked_locally(request.headers()) {
        next.run(request).await
    } else {
        let text = "ask by localhost or an address, as kubectl port-forward says it\n";
        (StatusCode::MISDIRECTED_REQUEST, text).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_never_on_the_network() {
        for text in ["127.0.0.1:9092", "[::1]:0"] {
            assert!(loopback_address(text).is_ok(), "{text}");
        }
        for text in [
            "0.0.0.0:9092",
            "[::]:9092",
            "198.51.100.7:1",
            "localhost:1",
            "9092",
        ] {
            assert!(loopback_address(text).is_err(), "{text}");
        }
    }
}
