//! A real Prometheus that finds and scrapes the pods as the chart's PodMonitors say, with the chart's rules.
//!
//! There is no Prometheus operator to read the PodMonitors and PrometheusRule, and Debian's Prometheus was built
//! without Kubernetes: what the objects say is put into Prometheus's own words here, and all ports of all pods into
//! a file, with the labels that it would find them by. Which of them are scraped, it decides.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    client::Client,
    cluster::{Helm, Major},
    prometheus::Prometheus,
    wait,
};

use crate::stage::{CHART, EDGE, OWN, SOON, STAGE, SYSTEM, Stage};

/// Metrics that have no series here, and why; a query of another one has to return data.
const EMPTY: &[(&str, &str)] = &[
    ("connections_refused_total", "no connection was refused"),
    ("dns_failures_total", "DNS does not fail"),
    ("trunks", "no gateway here takes trunks"),
    (
        "trunk_oldest_unacknowledged_seconds",
        "no gateway here takes trunks",
    ),
    ("trunk_ends_total", "no gateway here takes trunks"),
    ("sip_requests_total", "no server here speaks SIP"),
    ("sip_request_seconds_bucket", "no server here speaks SIP"),
    ("sip_connections", "no server here speaks SIP"),
    ("sip_untranslated_total", "no server here speaks SIP"),
    ("sip_subscriptions", "no server here speaks SIP"),
];

/// The objects of this kind that the chart renders with monitoring enabled.
fn rendered(home: &Path, kind: &str) -> Result<Vec<Value>> {
    let values = "watchNamespaces={edge},metrics.podMonitor.enabled=true,metrics.podMonitor.interval=1s,\
        metrics.prometheusRule.enabled=true";
    let place = ["--namespace", SYSTEM, "--set", values];
    let text = Helm::offline(Major::Four, home.to_owned())?
        .run(&[&["template", "xmpp-edge", CHART], &place[..]].concat())?;
    let documents = text.split("\n---").map(|it| it.trim_start_matches("---"));
    let documents = documents.map(serde_saphyr::from_str::<Value>);
    let documents = documents.collect::<Result<Vec<_>, _>>()?;
    let found = documents.into_iter().filter(|it| it["kind"] == kind);
    Ok(found.collect())
}

/// As Prometheus has a Kubernetes label's name.
fn sanitised(name: &str) -> String {
    let plain = |it: char| if it.is_ascii_alphanumeric() { it } else { '_' };
    name.chars().map(plain).collect()
}

/// The ports of these namespaces' pods, as Prometheus's own discovery describes them.
fn discovered(stage: &Stage, namespaces: &Value) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for namespace in namespaces.as_array().context("namespaces")? {
        let namespace = namespace.as_str().context("a namespace")?;
        let arguments = ["get", "pods", "--namespace", namespace, "--output=json"];
        let pods: Value = serde_json::from_str(&stage.kubectl().run(&arguments)?)?;
        for pod in pods["items"].as_array().context("items")? {
            let mut labels = serde_json::Map::new();
            let mut say = |name: &str, value: &Value| {
                labels.insert(format!("__meta_kubernetes_{name}"), value.clone());
            };
            say("namespace", &pod["metadata"]["namespace"]);
            say("pod_name", &pod["metadata"]["name"]);
            for (name, value) in pod["metadata"]["labels"].as_object().context("labels")? {
                say(&format!("pod_label_{}", sanitised(name)), value);
            }
            let ip = pod["status"]["podIP"].as_str().context("an address")?;
            for container in pod["spec"]["containers"].as_array().context("containers")? {
                for port in container["ports"].as_array().into_iter().flatten() {
                    let mut labels = labels.clone();
                    let mut say = |name: &str, value: &Value| {
                        labels.insert(
                            format!("__meta_kubernetes_pod_container_{name}"),
                            value.clone(),
                        );
                    };
                    say("name", &container["name"]);
                    say("port_name", &port["name"]);
                    let target = format!("{ip}:{}", port["containerPort"]);
                    found.push(json!({"targets": [target], "labels": labels}));
                }
            }
        }
    }
    Ok(found)
}

/// What a PodMonitor says, as a scrape job.
fn job(stage: &Stage, folder: &Path, monitor: &Value) -> Result<Value> {
    let (spec, endpoint) = (&monitor["spec"], &monitor["spec"]["podMetricsEndpoints"][0]);
    let name = monitor["metadata"]["name"].as_str().context("a name")?;
    let pods = folder.join(format!("{name}.json"));
    let found = discovered(stage, &spec["namespaceSelector"]["matchNames"])?;
    fs::write(&pods, json!(found).to_string())?;

    let meta = |name: &str| format!("__meta_kubernetes_{name}");
    let keep = |source: String, value: &Value| json!({"source_labels": [source], "regex": value, "action": "keep"});
    let copy =
        |source: String, into: &str| json!({"source_labels": [source], "target_label": into});
    let labels = spec["selector"]["matchLabels"]
        .as_object()
        .context("labels")?;
    let mut relabel: Vec<Value> = labels
        .iter()
        .map(|(name, value)| keep(meta(&format!("pod_label_{}", sanitised(name))), value))
        .collect();
    relabel.push(keep(meta("pod_container_port_name"), &endpoint["port"]));
    relabel.push(copy(meta("namespace"), "namespace"));
    relabel.push(copy(meta("pod_name"), "pod"));
    relabel.push(copy(meta("pod_container_name"), "container"));
    for own in endpoint["relabelings"].as_array().into_iter().flatten() {
        let (from, into) = (&own["sourceLabels"], &own["targetLabel"]);
        relabel.push(json!({"source_labels": from, "target_label": into}));
    }
    Ok(json!({
        "job_name": name,
        "metrics_path": endpoint["path"],
        "scrape_interval": endpoint["interval"],
        "honor_labels": endpoint["honorLabels"] == true,
        "file_sd_configs": [{"files": [pods]}],
        "relabel_configs": relabel,
    }))
}

async fn started(stage: &Stage, folder: &Path) -> Result<Prometheus> {
    let monitors = rendered(folder, "PodMonitor")?;
    let jobs = monitors.iter().map(|it| job(stage, folder, it));
    let jobs = jobs.collect::<Result<Vec<_>>>()?;
    ensure!(jobs.len() == 2, "operators and proxies");
    let rules = rendered(folder, "PrometheusRule")?;
    let file = folder.join("rules.yaml");
    fs::write(&file, rules.first().context("rules")?["spec"].to_string())?;
    let own = stage.internet.address(90)?;
    Prometheus::start(folder, SocketAddr::from((own, 9090)), &file, &jobs).await
}

/// Each of the six pods is scraped, and says of which pool it is.
async fn every_pod_is_scraped(prometheus: &Prometheus) -> Result<()> {
    let mut last = Vec::new();
    let seen = wait::until("every pod is scraped", SOON, async || {
        last = prometheus.targets().await.ok()?;
        let named = |name: &str, value: &str| {
            let of = |(labels, error): &&(Value, String)| labels[name] == value && error.is_empty();
            last.iter().filter(of).count()
        };
        let counts = (
            named("pool", "hq"),
            named("pool", "branch"),
            named("namespace", SYSTEM),
        );
        (counts == (2, 2, 2) && last.len() == 6).then_some(())
    });
    let seen = seen.await;
    seen.with_context(|| format!("{last:#?}\n{}", prometheus.tail()))
}

fn policy(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "ExternalAccessPolicy",
        "metadata": {"name": name, "namespace": EDGE}, "spec": spec})
}

/// Partners that answer probes, are throttled, or do not exist, and a policy that only counts.
fn more_to_see(stage: &Stage) -> Result<()> {
    stage.edit(
        "xfp/partner",
        &json!({"limits": {"stanzasPerSecond": 5}, "probe": {"enabled": true, "intervalSeconds": 5}}),
    )?;
    let nowhere = json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "XmppFederatedPartner",
        "metadata": {"name": "nowhere", "namespace": EDGE},
        "spec": {"domain": "nowhere.example", "partnerType": "Federated"}});
    let nobody = json!({"scope": "User", "users": ["dave@org.example"]});
    let counted = json!({"scope": "User", "mode": "Audit", "users": ["carol@org.example"]});
    for object in [
        nowhere,
        policy("nobody", nobody),
        policy("counted", counted),
    ] {
        stage.apply(&object.to_string())?;
    }
    Ok(())
}

/// The organisation as the examples have it.
fn no_more_to_see(stage: &Stage) -> Result<()> {
    stage.edit("xfp/partner", &json!({"limits": null, "probe": null}))?;
    for what in ["xfp/nowhere", "exap/nobody", "exap/counted"] {
        stage
            .kubectl()
            .run(&["delete", what, "--namespace", EDGE])?;
    }
    Ok(())
}

/// Everything that a panel shows happens, again and again: it may take effect a little later.
async fn talk([alice, carol, bob]: [&Client; 3], number: usize) -> Result<()> {
    for burst in 0..8 {
        let id = format!("throttled-{number}-{burst}");
        bob.message(&format!("alice@{OWN}"), &id, "hi").await?;
    }
    let id = |what: &str| format!("{what}-{number}");
    alice
        .message("bob@nowhere.example", &id("bounced"), "hi")
        .await?;
    bob.message(&format!("dave@{OWN}"), &id("refused"), "hi")
        .await?;
    carol
        .message("bob@partner.example", &id("counted"), "hi")
        .await
}

#[test]
fn a_prometheus_scrapes_every_pod_every_panel_has_data_and_no_alert_fires() {
    STAGE.test(async |stage| {
        let folder = tempfile::tempdir()?;
        let prometheus = started(stage, folder.path()).await?;
        every_pod_is_scraped(&prometheus).await?;

        more_to_see(stage)?;
        let (alice, carol) = (format!("alice@{OWN}"), format!("carol@{OWN}"));
        let (alice, carol, bob) = tokio::try_join!(
            Client::login(stage.inside, &alice, "watched"),
            Client::login(stage.inside, &carol, "watched"),
            stage.partner.login("bob")
        )?;
        let mut number = 0;
        let mut without = Vec::new();
        let seen = wait::until("every panel has data", SOON * 2, async || {
            number += 1;
            without = match talk([&alice, &carol, &bob], number).await {
                Ok(()) => prometheus.without_data(EMPTY).await.ok()?,
                Err(error) => vec![format!("{error:#}")],
            };
            without.is_empty().then_some(())
        })
        .await;
        seen.with_context(|| format!("no data for {without:#?}"))?;
        prometheus.rules_are_evaluated().await?;
        no_more_to_see(stage)
    });
}
