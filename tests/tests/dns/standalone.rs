//! Standalone publishes its records on a real primary, from the manifests to DNS and to status.json.

use std::{collections::BTreeMap, fs};

use anyhow::Result;
use hickory_proto::rr::RecordType;
use serde_json::{Value, json};
use xmpp_edge_tests::{
    edge::{Edge, Place, manifest, texts},
    lab::Lab,
    primary::{EDITOR, Primary, SECRET, Software},
    wait,
};

const STARTTLS: &str = "_xmpp-server._tcp.org.example";

fn pool(primary: &Primary, more: &Value) -> Value {
    let mut spec = json!({
        "site": "hq", "domains": ["org.example"],
        "accessEdge": { "fqdn": "edge.org.example", "addresses": ["192.0.2.1"] },
        "gateways": [{ "domains": ["org.example"], "mode": "Direct", "address": "127.0.0.1:1" }],
        "certificate": { "selfSigned": {} },
        "dns": { "rfc2136": {
            "server": primary.address().to_string(), "tsigSecretRef": { "name": "tsig" }
        }},
    });
    let more = more.as_object().unwrap().clone();
    let spec_fields = spec.as_object_mut().unwrap();
    spec_fields.extend(more);
    spec_fields.retain(|_, value| !value.is_null());
    manifest("EdgePool", "hq", spec)
}

fn key(secret: &str) -> Value {
    let entries = [("name", EDITOR.to_owned()), ("secret", secret.to_owned())];
    texts("Secret", "tsig", &BTreeMap::from(entries))
}

/// `DnsPublished` in status.json, once it is there with this reason.
async fn condition(edge: &Edge, reason: &str) -> Result<Value> {
    let path = edge.place().directory.join("state/status.json");
    wait::until(
        &format!("DnsPublished is {reason}"),
        wait::GENEROUS,
        async || {
            let report: Value = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
            let objects = report["objects"].as_array()?.iter();
            let mut conditions = objects.flat_map(|it| it["conditions"].as_array().cloned());
            let mut conditions = conditions.by_ref().flatten();
            conditions.find(|it| it["type"] == "DnsPublished" && it["reason"] == reason)
        },
    )
    .await
}

async fn starttls(primary: &Primary, expected: &[&str]) -> Result<()> {
    let what = format!("SRV records {expected:?}");
    wait::until(&what, wait::GENEROUS, async || {
        let found = primary.records(STARTTLS, RecordType::SRV).await.ok()?;
        (found == expected).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn standalone_publishes_follows_edits_and_withdraws() -> Result<()> {
    let lab = Lab::new().await?;
    let primary = Primary::start(Software::Bind, &[("org.example", "")]).await?;
    let mut edge = Edge::start(
        Place::in_lab(&lab, 1, 2),
        &[pool(&primary, &json!({})), key(SECRET)],
    )
    .await?;
    starttls(&primary, &["10 100 5269 edge.org.example."]).await?;
    assert_eq!(condition(&edge, "Published").await?["status"], "True");
    assert_eq!(
        primary.records("edge.org.example", RecordType::A).await?,
        ["192.0.2.1"]
    );

    let published = "xmpp_edge_operator_dns_published{namespace=\"default\",pool=\"hq\",domain=\"org.example\"}";
    let metrics = async || Ok::<_, anyhow::Error>(edge.get("/metrics").await?.1);
    let said = metrics().await?;
    assert!(said.contains(&format!("{published} 1")), "{said}");
    assert!(said.contains("xmpp_edge_operator_dns_last_success_timestamp_seconds{"));
    assert!(said.contains("xmpp_edge_build_info") && said.ends_with("# EOF\n"));

    edge.apply(&pool(&primary, &json!({ "route": { "priority": 5 } })))?;
    starttls(&primary, &["5 100 5269 edge.org.example."]).await?;

    // A key that broke takes nothing down, and says what to do.
    edge.apply(&key("d3Jvbmc="))?;
    let broken = condition(&edge, "TsigBadSignature").await?;
    assert_eq!(broken["status"], "False");
    assert!(
        broken["message"].as_str().unwrap().contains("base64"),
        "{broken}"
    );
    starttls(&primary, &["5 100 5269 edge.org.example."]).await?;
    let said = metrics().await?;
    assert!(said.contains(&format!("{published} 0")), "{said}");
    assert!(said.contains(
        "dns_failures_total{namespace=\"default\",pool=\"hq\",reason=\"TsigBadSignature\"}"
    ));
    edge.apply(&key(SECRET))?;
    condition(&edge, "Published").await?;

    // A restart is no reason to change DNS; records are found again after it.
    edge.stop().await?;
    starttls(&primary, &["5 100 5269 edge.org.example."]).await?;
    let moved = json!({ "accessEdge": { "fqdn": "new.org.example", "addresses": ["192.0.2.1"] } });
    edge.apply(&pool(&primary, &moved))?;
    edge.launch().await?;
    starttls(&primary, &["10 100 5269 new.org.example."]).await?;
    wait::until("the old address is gone", wait::GENEROUS, async || {
        let old = primary.records("edge.org.example", RecordType::A).await;
        old.ok()?.is_empty().then_some(())
    })
    .await?;

    edge.apply(&pool(&primary, &json!({ "route": { "enabled": false } })))?;
    starttls(&primary, &[]).await?;
    edge.apply(&pool(&primary, &json!({})))?;
    starttls(&primary, &["10 100 5269 edge.org.example."]).await?;
    edge.apply(&pool(&primary, &json!({ "suspended": true })))?;
    starttls(&primary, &[]).await?;
    edge.apply(&pool(&primary, &json!({})))?;
    starttls(&primary, &["10 100 5269 edge.org.example."]).await?;

    // Under another name they go first: nobody could withdraw them later.
    edge.stop().await?;
    let mut renamed = pool(&primary, &json!({ "route": { "priority": 7 } }));
    edge.delete("EdgePool", "hq")?;
    renamed["metadata"]["name"] = json!("dr");
    edge.apply(&renamed)?;
    edge.launch().await?;
    starttls(&primary, &["7 100 5269 edge.org.example."]).await?;
    let texts = primary.records(STARTTLS, RecordType::TXT).await?;
    assert!(texts.iter().all(|it| it.contains("/dr")), "{texts:?}");
    edge.stop().await?;
    edge.delete("EdgePool", "dr")?;
    edge.apply(&pool(&primary, &json!({})))?;
    edge.launch().await?;
    starttls(&primary, &["10 100 5269 edge.org.example."]).await?;

    // Without spec.dns the records are not ours any more.
    edge.apply(&pool(&primary, &json!({ "dns": null })))?;
    condition(&edge, "NotManaged").await?;
    starttls(&primary, &[]).await?;
    let texts = primary.records(STARTTLS, RecordType::TXT).await?;
    assert!(texts.is_empty(), "{texts:?}");
    assert!(!edge.log().contains(SECRET));
    edge.stop().await
}
