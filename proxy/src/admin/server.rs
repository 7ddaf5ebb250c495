//! The admin port: `/healthz`, `/readyz`, `/metrics`, `/status`, `/explain`, `/probe`, and the page at `/`.
//! It answers before there is a configuration, and says what is waited for.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::{
    Json, Router,
    extract::{ConnectInfo, Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use jiff::Timestamp;
use prometheus_client::{
    encoding::text::{encode_eof, encode_registry},
    registry::Registry,
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::domain::DomainName;
use xmpp_edge_page::{
    board::Board,
    files,
    model::ControlShown,
    serving::{self, ServingBounds},
    updates,
};

use super::{
    collector::EdgeCollector,
    connection::{self, Caller, Channel},
    explain,
    history::RecentHistory,
    probe::{ProbeRefusal, Prober},
    readiness::Readiness,
    sidecar_collector::SidecarCollector,
    sidecar_status, status,
};
use crate::{stream::context::StreamContext, telemetry::config_status::Telemetry, tls::Identity};

/// Of the metrics of a sidecar.
pub const SIDECAR_PREFIX: &str = "xmpp_edge_sidecar";
/// OpenMetrics 1.0.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whose admin port it is, and who may see more there than health and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminSubject {
    /// A proxy beside whoever started it: who asks by an address, where there is no token.
    Edge,
    /// A proxy in a pod: nobody before there is a token.
    EdgePod,
    /// A sidecar: who asks from its pod or host, with the token where there is one.
    Sidecar,
}

/// What the admin port speaks of: a proxy that waits for its first configuration, then the one that
/// runs.
#[derive(Debug)]
pub struct Admin {
    observed: Telemetry,
    subject: AdminSubject,
    /// Shown with the proxy's own.
    further_metrics: Option<Arc<Registry>>,
    /// What a control plane in this process says of the pool, for the page.
    control: Option<watch::Receiver<ControlShown>>,
    context: Arc<OnceLock<Arc<StreamContext>>>,
    prober: Prober,
    history: RecentHistory,
}

impl Admin {
    #[must_use]
    pub fn new(
        observed: Telemetry,
        subject: AdminSubject,
        further_metrics: Option<Arc<Registry>>,
        control: Option<watch::Receiver<ControlShown>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            observed,
            subject,
            further_metrics,
            control,
            context: Arc::default(),
            prober: Prober::default(),
            history: RecentHistory::default(),
        })
    }

    /// The edge runs from now on. Only the first counts.
    pub fn begin(&self, context: Arc<StreamContext>) {
        let _ = self.context.set(context);
    }

    /// By what the pod proves itself: a leaf of its own intermediate, once there is one.
    fn identity(&self) -> Option<Arc<Identity>> {
        let config = self.context.get()?.config();
        let name = DomainName::parse(&config.document.admin_name()).ok()?;
        config.leaves.as_ref()?.leaf(&name).ok()
    }

    /// OpenMetrics text, with what else there is to measure in the process.
    fn metrics(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        match self.subject {
            AdminSubject::Sidecar => {
                let mut shown = Registry::with_prefix(SIDECAR_PREFIX);
                shown.register_collector(Box::new(SidecarCollector {
                    metrics: Arc::clone(&self.observed.metrics),
                    context: Arc::clone(&self.context),
                }));
                encode_registry(&mut text, &shown)?;
            }
            AdminSubject::Edge | AdminSubject::EdgePod => {
                encode_registry(&mut text, self.observed.metrics.registry())?;
                if let Some(context) = self.context.get() {
                    let mut gauges = Registry::with_prefix("xmpp_edge");
                    gauges.register_collector(Box::new(EdgeCollector::new(Arc::clone(context))));
                    encode_registry(&mut text, &gauges)?;
                }
            }
        }
        if let Some(further) = &self.further_metrics {
            encode_registry(&mut text, further)?;
        }
        encode_eof(&mut text)?;
        Ok(text)
    }

    /// The running edge, once there is one.
    pub(super) fn context(&self) -> Option<&Arc<StreamContext>> {
        self.context.get()
    }

    /// What the control plane says; nothing where there is none in this process.
    pub(super) fn control(&self) -> ControlShown {
        let said = self.control.as_ref().map(|said| said.borrow().clone());
        said.unwrap_or_default()
    }

    /// What was counted before.
    pub(super) fn history(&self) -> &RecentHistory {
        &self.history
    }

    /// What everything counts in.
    pub(super) fn telemetry(&self) -> &Telemetry {
        &self.observed
    }

    pub(super) fn readiness(&self) -> Readiness {
        if let Some(context) = self.context.get() {
            return Readiness::of(context);
        }
        let mut waits = self.observed.config_status.waits_for();
        // Nothing may be missing, and the first configuration still not be one.
        if waits.is_empty() {
            waits.push("a configuration that can be used".to_owned());
        }
        Readiness {
            waits,
            remarks: self.observed.config_status.remarks(),
        }
    }

    /// The running edge, for whom it may be shown to: a token counts over TLS alone.
    fn shown_to(
        &self,
        caller: Caller,
        headers: &HeaderMap,
    ) -> Result<&Arc<StreamContext>, Box<Response>> {
        if self.subject == AdminSubject::Sidecar && !caller.is_local() {
            return Err(Box::new(
                (StatusCode::FORBIDDEN, FROM_LOOPBACK_ALONE).into_response(),
            ));
        }
        let Some(context) = self.context.get() else {
            let text = format!("there is nothing yet: {}", text(&self.readiness()));
            return Err(Box::new(
                (StatusCode::SERVICE_UNAVAILABLE, text).into_response(),
            ));
        };
        let config = context.config();
        match &config.admin_token {
            // What stays within a host needs no TLS.
            Some(_)
                if caller.channel == Channel::Plain && self.subject != AdminSubject::Sidecar =>
            {
                Err(Box::new(unauthorised(OVER_TLS_ALONE)))
            }
            Some(token) if bears(headers, token) => Ok(context),
            Some(_) if self.subject == AdminSubject::Sidecar => Err(Box::new(unauthorised(
                "send what file token beside sidecar.json has, as 'Authorization: Bearer …'\n",
            ))),
            Some(_) => Err(Box::new(unauthorised(
                "send the token of Secret <pool>-admin as 'Authorization: Bearer …'\n",
            ))),
            None if self.subject == AdminSubject::EdgePod => Err(Box::new(unauthorised(
                "the pod has no token yet: Secret <pool>-admin, key token\n",
            ))),
            None if !files::is_asked_locally(headers) => Err(Box::new(misdirected())),
            None => Ok(context),
        }
    }

    /// Whether the page's files may be sent. They hold nothing of what is shown, but in clear somebody
    /// would paste the token into them.
    fn page_to(&self, caller: Caller, headers: &HeaderMap) -> Result<(), Box<Response>> {
        let token = |context: &Arc<StreamContext>| context.config().admin_token.is_some();
        let wants_token = match self.subject {
            AdminSubject::Sidecar => return Err(Box::new(nothing_there(self.subject))),
            AdminSubject::EdgePod => true,
            AdminSubject::Edge => self.context.get().is_some_and(token),
        };
        match caller.channel {
            Channel::Plain if wants_token => Err(Box::new(unauthorised(OVER_TLS_ALONE))),
            _ if !wants_token && !files::is_asked_locally(headers) => Err(Box::new(misdirected())),
            _ => Ok(()),
        }
    }
}

const FROM_LOOPBACK_ALONE: &str = "/status of a sidecar is answered on its host and in its pod alone: `kubectl port-forward POD 9091` leads there; /healthz, /readyz and /metrics are for everybody\n";
const OVER_TLS_ALONE: &str = "ask by https, with the token of Secret <pool>-admin: /, /status, /explain and /probe are not answered in clear; /healthz, /readyz and /metrics are\n";

fn text(readiness: &Readiness) -> String {
    let mut text = if readiness.is_ready() {
        "ready\n".to_owned()
    } else {
        format!("waiting for {}\n", readiness.waits.join(", "))
    };
    for remark in &readiness.remarks {
        text.push_str(remark);
        text.push('\n');
    }
    text
}

/// Serves until `stop`.
///
/// # Errors
/// What ended it before.
pub async fn run(
    admin: Arc<Admin>,
    board: Arc<Board>,
    listener: TcpListener,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let follow = {
        let stop = stop.clone();
        move |State(admin): State<Arc<Admin>>,
              ConnectInfo(caller): ConnectInfo<Caller>,
              headers: HeaderMap| async move {
            if admin.subject == AdminSubject::Sidecar {
                return nothing_there(admin.subject);
            }
            match admin.shown_to(caller, &headers) {
                Ok(_) => updates::updates(&board, stop),
                Err(refusal) => *refusal,
            }
        }
    };
    let shown = Arc::clone(&admin);
    let open = move |socket, address| {
        let shown = Arc::clone(&shown);
        connection::open(socket, address, move || shown.identity())
    };
    let app = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(show_status))
        .route("/explain", get(show_explanation))
        .route("/probe", post(show_probe))
        .route("/", get(show_page))
        .route("/page/events", get(follow))
        .route("/page/{name}", get(show_page_file))
        .fallback(|State(admin): State<Arc<Admin>>| async move { nothing_there(admin.subject) })
        .with_state(admin);
    serving::serve_opened(listener, app, ServingBounds::default(), open, stop).await
}

async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    let readiness = admin.readiness();
    let code = if readiness.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, text(&readiness)).into_response()
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    match admin.metrics() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn show_status(
    State(admin): State<Arc<Admin>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let context = match admin.shown_to(caller, &headers) {
        Ok(context) => context,
        Err(refusal) => return *refusal,
    };
    let since = match query.get("since").map(|since| since.parse::<Timestamp>()) {
        None => None,
        Some(Ok(since)) => Some(since),
        Some(Err(error)) => {
            return bad_request(&format!("since: {error}; give a time as RFC 3339 has it"));
        }
    };
    match sidecar_status::status(context) {
        Some(status) => Json(status).into_response(),
        None => {
            let refusals = admin.history().refusals();
            Json(status::status(context, since, refusals)).into_response()
        }
    }
}

async fn show_explanation(
    State(admin): State<Arc<Admin>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let context = match admin.shown_to(caller, &headers) {
        Ok(context) => context,
        Err(refusal) => return *refusal,
    };
    if admin.subject == AdminSubject::Sidecar {
        return nothing_there(admin.subject);
    }
    let (Some(from), Some(to)) = (query.get("from"), query.get("to")) else {
        return bad_request("give both: /explain?from=JID&to=JID");
    };
    match explain::explain(context, from, to) {
        Ok(explanation) => Json(explanation).into_response(),
        Err(error) => bad_request(&error),
    }
}

/// By POST, since something is done: a peer is dialled. A page elsewhere cannot have it done by a browser.
async fn show_probe(
    State(admin): State<Arc<Admin>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let context = match admin.shown_to(caller, &headers) {
        Ok(context) => context,
        Err(refusal) => return *refusal,
    };
    if files::comes_from_elsewhere(&headers) {
        let text = "a page of another origin may not have anything probed\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let given = |name: &str| query.get(name).map(String::as_str);
    let probed = admin.prober.probe(context, given("domain"), given("from"));
    match probed.await {
        Ok(report) => Json(report).into_response(),
        Err(refusal) => (status_of(&refusal), format!("{refusal}\n")).into_response(),
    }
}

fn status_of(refusal: &ProbeRefusal) -> StatusCode {
    match refusal {
        ProbeRefusal::NoDomain
        | ProbeRefusal::Domain { .. }
        | ProbeRefusal::Own(_)
        | ProbeRefusal::NotOwn(_) => StatusCode::BAD_REQUEST,
        ProbeRefusal::NotPartner(_) | ProbeRefusal::Sidecar => StatusCode::FORBIDDEN,
        ProbeRefusal::Busy => StatusCode::TOO_MANY_REQUESTS,
        ProbeRefusal::Late => StatusCode::GATEWAY_TIMEOUT,
    }
}

async fn show_page(
    State(admin): State<Arc<Admin>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    headers: HeaderMap,
) -> Response {
    match admin.page_to(caller, &headers) {
        Ok(()) => files::index(),
        Err(refusal) => *refusal,
    }
}

async fn show_page_file(
    State(admin): State<Arc<Admin>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    match admin.page_to(caller, &headers) {
        Ok(()) => files::file(&name),
        Err(refusal) => *refusal,
    }
}

fn nothing_there(subject: AdminSubject) -> Response {
    let text = match subject {
        AdminSubject::Edge | AdminSubject::EdgePod => {
            "there are /, /healthz, /readyz, /metrics, /status and /explain\n"
        }
        AdminSubject::Sidecar => "there are /healthz, /readyz, /metrics and /status\n",
    };
    (StatusCode::NOT_FOUND, text).into_response()
}

fn bad_request(text: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{text}\n")).into_response()
}

/// Whether the bearer is this one. Takes as long for any of its length.
fn bears(headers: &HeaderMap, token: &str) -> bool {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer"));
    given.is_some_and(|(_, given)| {
        verify_slices_are_equal(given.trim().as_bytes(), token.as_bytes()).is_ok()
    })
}

/// A page elsewhere can have its own name lead here; what it asks comes from a browser in this network.
fn misdirected() -> Response {
    let text = "ask by an address, by localhost or by a name of one label: without a token no other name is answered, as a page elsewhere could have it lead here\n";
    (StatusCode::MISDIRECTED_REQUEST, text).into_response()
}

fn unauthorised(text: &'static str) -> Response {
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    (StatusCode::UNAUTHORIZED, challenge, text).into_response()
}
