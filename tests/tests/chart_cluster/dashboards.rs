//! Dashboards and alerts on a real Prometheus that scrapes a real edge between real servers and a
//! real operator, with the labels that the chart's PodMonitors give.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use xmpp_edge_tests::{
    cluster::{ApiServer, FakePod, Namespace, Operator, alone},
    conversation,
    federation::{Federation, Method, Plan},
    process::Daemon,
    servers::Kind,
    wait,
};

use super::chart;

/// Metrics that have no series here, and why; a query of another one has to return data.
const EMPTY: &[(&str, &str)] = &[
    ("stanzas_audited_total", "no policy of mode Audit"),
    ("stanzas_bounced_total", "nothing had to be bounced"),
    ("stanzas_refused_total", "nothing was refused"),
    ("throttled_seconds_total", "no partner with limits"),
    ("probe_success", "no partner with a probe"),
    ("probe_seconds", "no partner with a probe"),
    ("connections_refused_total", "no connection was refused"),
    ("config_rejected_total", "no configuration was rejected"),
    ("attempts_total", "a panel of failed attempts: none failed"),
    ("dns_failures_total", "no pool with spec.dns"),
    ("dns_published", "no pool with spec.dns"),
    (
        "dns_last_success_timestamp_seconds",
        "no pool with spec.dns",
    ),
    (
        "certificate_not_after_timestamp_seconds",
        "a certificate by secretRef has no expiry of an issuer's",
    ),
    (
        "config_sync_seconds",
        "the configuration was there before the pod",
    ),
];

/// A running Prometheus.
struct Prometheus {
    _daemon: Daemon,
    address: SocketAddr,
}

impl Prometheus {
    fn start(
        folder: &Path,
        address: SocketAddr,
        proxy: SocketAddr,
        operator: SocketAddr,
    ) -> Result<Self> {
        let rules = format!("{}/files/rules/alerts.yaml", chart());
        let job = |name: &str, target: SocketAddr, honor: bool, labels: Value| {
            json!({"job_name": name, "honor_labels": honor,
                "static_configs": [{"targets": [target.to_string()], "labels": labels}]})
        };
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [rules],
            "scrape_configs": [
                job("proxy", proxy, false, json!({"namespace": "chat", "pool": "hq", "pod": "hq-0"})),
                job("operator", operator, true, json!({"namespace": "edge-system", "pod": "xmpp-edge-0"})),
            ],
        });
        let file = folder.join("prometheus.yml");
        fs::write(&file, config.to_string())?;
        let arguments = [
            format!("--config.file={}", file.display()),
            format!(
                "--storage.tsdb.path={}",
                folder.join("prometheus").display()
            ),
            format!("--web.listen-address={address}"),
        ];
        let log = folder.join("prometheus.log");
        let daemon = Daemon::start("prometheus", Path::new("prometheus"), &arguments, &[], &log)?;
        Ok(Self {
            _daemon: daemon,
            address,
        })
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let mut socket = TcpStream::connect(self.address).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: prometheus\r\n\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        let (_, body) = answer.split_once("\r\n\r\n").context("an HTTP answer")?;
        serde_json::from_str(body).with_context(|| body.to_owned())
    }

    /// The series that a query returns.
    async fn query(&self, query: &str) -> Result<Vec<Value>> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.get(&format!("/api/v1/query?query={encoded}")).await?;
        ensure!(answer["status"] == "success", "{query}: {answer}");
        Ok(answer["data"]["result"]
            .as_array()
            .cloned()
            .unwrap_or_default())
    }
}

/// Every query of every dashboard with its panel; variables stand for what is here.
fn queries() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for name in ["overview", "partner", "site", "operator"] {
        let text = fs::read_to_string(format!("{}/files/dashboards/{name}.json", chart())).unwrap();
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                let mut query = target["expr"].as_str().unwrap().to_owned();
                for variable in ["namespace", "pool", "partner"] {
                    query = query.replace(&format!("${variable}"), ".+");
                }
                let title = panel["title"].as_str().unwrap();
                found.push((format!("{name}: {title}"), query));
            }
        }
    }
    found
}

fn may_be_empty(query: &str) -> bool {
    EMPTY.iter().any(|(metric, _)| {
        let (proxy, operator) = (
            format!("xmpp_edge_{metric}"),
            format!("xmpp_edge_operator_{metric}"),
        );
        let after = |name: &str| query.split_once(name).map(|(_, rest)| rest.to_owned());
        let ends =
            |rest: String| !rest.starts_with(|it: char| it.is_ascii_alphanumeric() || it == '_');
        after(&proxy).is_some_and(ends) || after(&operator).is_some_and(ends)
    })
}

/// A pool with a pod that is ready, as the operator sees it.
async fn pool(server: &ApiServer) -> Result<FakePod> {
    let object = json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool",
        "metadata": {"name": "hq", "namespace": "chat"},
        "spec": {"site": "hq", "domains": ["org.example"], "accessEdge": {"fqdn": "edge.org.example"},
            "replicas": 1, "certificate": {"selfSigned": {}},
            "gateways": [{"domains": ["org.example"], "address": "192.0.2.1:5269"}]}});
    server
        .kubectl()
        .run_with(&["apply", "--server-side", "-f", "-"], &object.to_string())?;
    let chat = Namespace {
        server,
        client: server.admin().client("chat").await?,
        name: "chat".to_owned(),
    };
    FakePod::start(&chat, "hq", 1).await
}

async fn shown(server: &ApiServer) -> Result<()> {
    server.namespace("chat", &[]).await?;
    server.install_kinds().await?;
    let operator = Operator::start_as(server, server.admin(), "chat", &[]).await?;
    let _pod = pool(server).await?;
    let federation = Federation::start(Plan {
        partner: Kind::Prosody,
        partner_method: Method::External,
        inside: Kind::Prosody,
        inside_method: Method::External,
        trace: false,
    })
    .await?;
    let lab = &federation.lab;
    let proxy = SocketAddr::from((federation.edge.place().internal_bind, 9090));
    let at = SocketAddr::from((lab.ip(90), 9090));
    let prometheus = Prometheus::start(lab.directory(), at, proxy, operator.admin())?;
    let (alice, bob) = tokio::try_join!(
        federation.inside.login("alice"),
        federation.partner.login("bob")
    )?;
    conversation::all(&alice, &bob).await?;
    wait::until("both are scraped twice since", wait::GENEROUS, async || {
        let seen = prometheus
            .query("count_over_time(xmpp_edge_stanzas_total[1m]) > 2")
            .await
            .ok()?;
        let other = prometheus
            .query("count_over_time(xmpp_edge_operator_leader[1m]) > 2")
            .await
            .ok()?;
        (!seen.is_empty() && !other.is_empty()).then_some(())
    })
    .await?;
    let mut without = Vec::new();
    for (panel, query) in queries() {
        if prometheus.query(&query).await?.is_empty() && !may_be_empty(&query) {
            without.push(format!("{panel}: {query}"));
        }
    }
    ensure!(without.is_empty(), "no data for {without:#?}");
    rules_are_evaluated(&prometheus).await
}

async fn rules_are_evaluated(prometheus: &Prometheus) -> Result<()> {
    let groups = prometheus.get("/api/v1/rules").await?;
    let groups = groups["data"]["groups"]
        .as_array()
        .cloned()
        .context("groups")?;
    let rules = groups
        .iter()
        .flat_map(|it| it["rules"].as_array().cloned().unwrap_or_default());
    let rules: Vec<Value> = rules.collect();
    ensure!(!rules.is_empty());
    for rule in rules {
        ensure!(rule["health"] == "ok", "{rule:#}");
        // What fires says so of something that is wrong; nothing is.
        ensure!(rule["state"] != "firing", "{rule:#}");
    }
    Ok(())
}

#[test]
fn every_panel_has_data_and_no_alert_fires_while_all_is_well() {
    alone(async {
        let server = ApiServer::start().await?;
        shown(&server).await
    });
}
