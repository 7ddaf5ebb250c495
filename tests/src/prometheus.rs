//! A real Prometheus that scrapes what a test tells it to, and what the chart's dashboards and alerts ask it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{process::Daemon, wait};

/// A running Prometheus.
pub struct Prometheus {
    daemon: Daemon,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts one that listens at `address`, keeps its files in `folder`, and scrapes and evaluates each
    /// second where a job says nothing else.
    ///
    /// # Errors
    /// When it does not get ready; carries the end of its log.
    pub async fn start(
        folder: &Path,
        address: SocketAddr,
        rules: &Path,
        jobs: &[Value],
    ) -> Result<Self> {
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [rules],
            "scrape_configs": jobs,
        });
        let file = folder.join("prometheus.yml");
        fs::write(&file, config.to_string())?;
        let data = folder.join("prometheus");
        let arguments = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", data.display()),
            format!("--web.listen-address={address}"),
        ];
        let log = folder.join("prometheus.log");
        let program = Path::new("prometheus");
        let mut daemon = Daemon::start("prometheus", program, &arguments, &[], &log)?;
        daemon
            .until("Prometheus is ready", wait::GENEROUS, async || {
                let (head, _) = get(address, "/-/ready").await.ok()?;
                head.contains(" 200 ").then_some(())
            })
            .await?;
        Ok(Self { daemon, address })
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let (_, body) = get(self.address, path).await?;
        serde_json::from_str(&body).with_context(|| body.clone())
    }

    /// The series that a query returns.
    ///
    /// # Errors
    /// When it does not answer, or the query is none.
    pub async fn query(&self, query: &str) -> Result<Vec<Value>> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.get(&format!("/api/v1/query?query={encoded}")).await?;
        ensure!(answer["status"] == "success", "{query}: {answer}");
        let series = answer["data"]["result"].as_array();
        Ok(series.cloned().unwrap_or_default())
    }

    /// Queries of the chart's dashboards that return nothing, with their panels; `empty` names metrics
    /// that have no series and why, whose queries need not return anything.
    ///
    /// # Errors
    /// When one is no query.
    pub async fn without_data(&self, empty: &[(&str, &str)]) -> Result<Vec<String>> {
        let mut without = Vec::new();
        for (panel, query) in queries() {
            if self.query(&query).await?.is_empty() && !may_be_empty(&query, empty) {
                without.push(format!("{panel}: {query}"));
            }
        }
        Ok(without)
    }

    /// That every rule can be evaluated, and that no alert fires: nothing is wrong.
    ///
    /// # Errors
    /// The first of which that is not so.
    pub async fn rules_are_evaluated(&self) -> Result<()> {
        let answer = self.get("/api/v1/rules").await?;
        let groups = answer["data"]["groups"].as_array().context("groups")?;
        let rules = groups.iter().filter_map(|it| it["rules"].as_array());
        let rules: Vec<_> = rules.flatten().collect();
        ensure!(!rules.is_empty(), "{answer:#}");
        for rule in rules {
            ensure!(rule["health"] == "ok", "{rule:#}");
            ensure!(rule["state"] != "firing", "{rule:#}");
        }
        Ok(())
    }

    /// What it scrapes: each target's labels, and its last error, empty where there is none.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn targets(&self) -> Result<Vec<(Value, String)>> {
        let answer = self.get("/api/v1/targets?state=active").await?;
        let targets = answer["data"]["activeTargets"].as_array();
        let told = |it: &Value| {
            let error = it["lastError"].as_str().unwrap_or_default();
            (it["labels"].clone(), error.to_owned())
        };
        Ok(targets.context("targets")?.iter().map(told).collect())
    }

    /// The end of its log.
    pub fn tail(&self) -> String {
        self.daemon.tail()
    }
}

/// Head and body of an answer.
async fn get(address: SocketAddr, path: &str) -> Result<(String, String)> {
    let mut socket = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: prometheus\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an HTTP answer")?;
    Ok((head.to_owned(), body.to_owned()))
}

/// The folder of the chart with its dashboards and rules.
pub fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/xmpp-edge/files")
}

/// Every query of every dashboard with its panel; variables stand for everything.
///
/// # Panics
/// When a dashboard is not as Grafana has them.
pub fn queries() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for name in ["overview", "partner", "site", "operator"] {
        let file = files().join(format!("dashboards/{name}.json"));
        let text = fs::read_to_string(file).expect("the chart has it");
        let dashboard: Value = serde_json::from_str(&text).expect("it is JSON");
        for panel in dashboard["panels"].as_array().expect("it has panels") {
            let title = panel["title"].as_str().expect("a panel has a title");
            for target in panel["targets"].as_array().expect("a panel has targets") {
                let mut query = target["expr"].as_str().expect("a query").to_owned();
                for variable in ["namespace", "pool", "partner"] {
                    query = query.replace(&format!("${variable}"), ".+");
                }
                found.push((format!("{name}: {title}"), query));
            }
        }
    }
    found
}

fn may_be_empty(query: &str, empty: &[(&str, &str)]) -> bool {
    let names = |name: String| {
        let rest = query.split_once(&name).map(|(_, rest)| rest);
        let longer = |it: char| it.is_ascii_alphanumeric() || it == '_';
        rest.is_some_and(|rest| !rest.starts_with(longer))
    };
    empty.iter().any(|(metric, _)| {
        names(format!("xmpp_edge_{metric}")) || names(format!("xmpp_edge_operator_{metric}"))
    })
}
