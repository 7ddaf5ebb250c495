//! Dashboards and alerts on a real Prometheus that scrapes a real edge between real servers and a
//! real operator, with the labels that the chart's PodMonitors give.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    client::Client,
    cluster::{ApiServer, FakePod, Namespace, Operator, alone, operator_account},
    conversation,
    edge::manifest,
    federation::{Federation, FederationPlan, Method, PARTNER, PARTNER_NAME},
    prometheus::{Prometheus, files},
    servers::{Acknowledge, Kind},
    wait,
};

use super::{get, pods_are_ready};

/// Metrics that have no series here, and why; a query of another one has to return data.
const EMPTY: &[(&str, &str)] = &[
    ("connections_refused_total", "no connection was refused"),
    ("trunks", "no gateway has sidecars"),
    (
        "trunk_oldest_unacknowledged_seconds",
        "no gateway has sidecars",
    ),
    ("trunk_ends_total", "no gateway has sidecars"),
    ("sip_requests_total", "no server here speaks SIP"),
    ("sip_request_seconds_bucket", "no server here speaks SIP"),
    ("sip_connections", "no server here speaks SIP"),
    ("sip_untranslated_total", "no server here speaks SIP"),
    ("sip_subscriptions", "no server here speaks SIP"),
    (
        "dns_published",
        "the DNS server cannot be reached: nothing is known",
    ),
    (
        "dns_last_success_timestamp_seconds",
        "the DNS server cannot be reached",
    ),
];

/// What the two are scraped with: the labels that the chart's PodMonitors give.
fn jobs(proxy: SocketAddr, operator: SocketAddr) -> [Value; 2] {
    let job = |name: &str, target: SocketAddr, honor: bool, labels: Value| {
        json!({"job_name": name, "honor_labels": honor,
            "static_configs": [{"targets": [target.to_string()], "labels": labels}]})
    };
    let (pod, replica) = (
        json!({"namespace": "chat", "pool": "hq", "pod": "hq-0"}),
        json!({"namespace": "edge-system", "pod": "xmpp-edge-0"}),
    );
    [
        job("proxy", proxy, false, pod),
        job("operator", operator, true, replica),
    ]
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": "chat"}, "spec": spec})
}

/// A pool with a pod that is ready, as the operator sees it; its DNS server does not answer.
async fn pool(server: &ApiServer) -> Result<FakePod> {
    let apply = |object: &Value| {
        let arguments = ["apply", "--server-side", "-f", "-"];
        server.kubectl().run_with(&arguments, &object.to_string())
    };
    let chat = Namespace {
        server,
        client: server.admin().client("chat").await?,
        name: "chat".to_owned(),
    };
    apply(&json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "tsig", "namespace": "chat"},
        "stringData": {"name": "key.example", "secret": "c2VjcmV0c2VjcmV0c2VjcmV0"}}))?;
    apply(&object(
        "EdgePool",
        "hq",
        json!({"site": "hq", "domains": ["org.example"], "replicas": 1,
            "accessEdge": {"fqdn": "edge.org.example", "addresses": ["192.0.2.7"]},
            "certificate": {"selfSigned": {}},
            "gateways": [{"domains": ["org.example"], "address": "192.0.2.1:5269"}],
            "dns": {"rfc2136": {"server": "127.0.0.1:9", "zone": "org.example",
                "tsigSecretRef": {"name": "tsig"}, "tsigAlgorithm": "HmacSha256"}}}),
    ))?;
    let pod = FakePod::start(&chat, "hq", 1).await?;
    wait::until("the pool's pods are ready", wait::GENEROUS, async || {
        pods_are_ready(server, "chat", "hq").ok()
    })
    .await?;
    // What the pod has not loaded yet counts as time until it has.
    apply(&object(
        "XmppFederatedPartner",
        "p",
        json!({"domain": "p.example"}),
    ))?;
    wait::until(
        "the next configuration is there",
        wait::GENEROUS,
        async || {
            let pool = get(server, "chat", "edgepool/hq").ok()?;
            (pool["status"]["config"]["generation"] == 2).then_some(())
        },
    )
    .await?;
    pod.load(2);
    Ok(pod)
}

/// Partners that answer probes, are throttled, or do not exist, and a policy that only counts.
fn more_to_see(federation: &Federation) -> Result<()> {
    let edge = &federation.edge;
    edge.apply(&manifest(
        "XmppFederatedPartner",
        PARTNER_NAME,
        json!({"domain": PARTNER, "partnerType": "Federated", "limits": {"stanzasPerSecond": 5},
            "probe": {"enabled": true, "intervalSeconds": 5}}),
    ))?;
    edge.apply(&manifest(
        "XmppFederatedPartner",
        "nowhere",
        json!({"domain": "nowhere.example", "partnerType": "Federated"}),
    ))?;
    edge.apply(&manifest(
        "ExternalAccessPolicy",
        "nobody",
        json!({"scope": "User", "users": ["dave@org.example"]}),
    ))?;
    edge.apply(&manifest(
        "ExternalAccessPolicy",
        "counted",
        json!({"scope": "User", "mode": "Audit", "users": ["carol@org.example"]}),
    ))
}

/// Everything that a panel shows happens, again and again: it may take effect a little later.
async fn talk(alice: &Client, carol: &Client, bob: &Client, number: usize) -> Result<()> {
    for burst in 0..8 {
        let id = format!("throttled-{number}-{burst}");
        bob.message("alice@org.example", &id, "hi").await?;
    }
    alice
        .message("bob@nowhere.example", &format!("bounced-{number}"), "hi")
        .await?;
    bob.message("dave@org.example", &format!("refused-{number}"), "hi")
        .await?;
    carol
        .message("bob@partner.example", &format!("counted-{number}"), "hi")
        .await
}

async fn shown(server: &ApiServer) -> Result<()> {
    server.namespace("chat", &[]).await?;
    server.install_kinds().await?;
    let account = operator_account(server, "chat", &[]).await?;
    let mut operator = Operator::start_as(server, &account, "chat", &[]).await?;
    let _pod = pool(server).await?;
    let federation = Federation::start(FederationPlan {
        partner: Kind::Prosody,
        partner_method: Method::External,
        inside: Kind::Prosody,
        inside_method: Method::External,
        inside_acknowledge: Acknowledge::Resending,
        trace: false,
    })
    .await?;
    let lab = &federation.lab;
    let proxy = SocketAddr::from((federation.edge.place().internal_bind, 9090));
    let at = SocketAddr::from((lab.ip(90), 9090));
    let rules = files().join("rules/alerts.yaml");
    let jobs = jobs(proxy, operator.admin());
    let prometheus = Prometheus::start(lab.directory(), at, &rules, &jobs).await?;
    let (alice, carol, bob) = tokio::try_join!(
        federation.inside.login("alice"),
        federation.inside.login("carol"),
        federation.partner.login("bob")
    )?;
    conversation::all(&alice, &bob).await?;
    more_to_see(&federation)?;
    let mut number = 0;
    let mut without = Vec::new();
    let seen = wait::until("every panel has data", wait::GENEROUS * 2, async || {
        number += 1;
        without = match talk(&alice, &carol, &bob, number).await {
            Ok(()) => prometheus.without_data(EMPTY).await.ok()?,
            Err(error) => vec![format!("{error:#}")],
        };
        without.is_empty().then_some(())
    })
    .await;
    seen.with_context(|| format!("no data for {without:#?}"))
        .with_context(|| operator.process().tail())?;
    prometheus.rules_are_evaluated().await
}

#[test]
fn every_panel_has_data_and_no_alert_fires_while_all_is_well() {
    alone(async {
        let server = ApiServer::start().await?;
        shown(&server).await
    });
}
