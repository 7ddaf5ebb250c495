//! Edits of manifests under live traffic of real servers: what is now forbidden stops, what was
//! fine goes on, and a broken edit changes nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use xmpp_edge_tests::{
    client::Client,
    edge::{manifest, texts},
    federation::{
        FQDN, Federation, FederationPlan, Method, OWN, PARTNER, PARTNER_NAME, everyone_may,
    },
    pki::Usage,
    servers::{
        Acknowledge,
        Kind::{Ejabberd, Prosody},
    },
    wait,
};

/// Within which a change of policy is in force on live streams (behaviour.md, section 6).
const IN_FORCE: Duration = Duration::from_secs(5);

/// Prosody outside, ejabberd inside: the one that would bounce for long after a closed stream.
async fn scene() -> Result<(Federation, Client, Client)> {
    let scene = Federation::start(FederationPlan {
        partner: Prosody,
        partner_method: Method::External,
        inside: Ejabberd,
        inside_method: Method::External,
        inside_acknowledge: Acknowledge::Resending,
        trace: false,
    })
    .await?;
    let (alice, bob) = tokio::try_join!(scene.inside.login("alice"), scene.partner.login("bob"))?;
    for client in [&alice, &bob] {
        client.presence(None, None, "").await?;
    }
    for (from, to) in [(&alice, &bob), (&bob, &alice)] {
        ensure!(
            fate(from, to).await? == "delivered",
            "nothing works at first"
        );
    }
    Ok((scene, alice, bob))
}

/// Sends one message and says what became of it: `delivered`, or the error's condition and, where
/// there is one, the policy's reason.
async fn fate(from: &Client, to: &Client) -> Result<String> {
    let id = format!("live-{}-{}", from.bare(), from.fresh_id());
    from.message(to.full(), &id, "does this pass?").await?;
    tokio::select! {
        arrived = to.expect_message(&id) => arrived.map(|_| "delivered".to_owned()),
        refused = from.expect_message(&id) => {
            let refused = refused?;
            let condition = refused.error_condition().context("an error")?;
            let reason = refused
                .child("error")
                .and_then(|e| e.child_in("policy", "urn:xmpp-edge:errors:0"))
                .and_then(|p| p.attribute("reason"));
            Ok(reason.map_or(condition.to_owned(), |reason| format!("{condition} {reason}")))
        }
    }
}

async fn becomes(from: &Client, to: &Client, expected: &str, limit: Duration) {
    let last = std::cell::RefCell::new(String::new());
    wait::until(expected, limit, || async {
        let now = fate(from, to).await.ok()?;
        let right = now == expected;
        last.replace(now);
        right.then_some(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error}: {}", last.borrow()));
}

fn partner(more: Value) -> Value {
    let mut spec = json!({ "domain": PARTNER, "partnerType": "Federated" });
    if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
        spec.extend(more);
    }
    manifest("XmppFederatedPartner", PARTNER_NAME, spec)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_partner_is_cut_off_at_once_and_comes_back() {
    let (scene, alice, bob) = scene().await.unwrap();
    scene
        .edge
        .apply(&partner(json!({ "suspended": true })))
        .unwrap();
    becomes(&alice, &bob, "not-allowed PartnerSuspended", IN_FORCE).await;
    let streams = wait::until("no stream with the partner is left", IN_FORCE, || async {
        let streams = scene.edge.streams("Partner").await.ok()?;
        streams.is_empty().then_some(())
    });
    streams.await.unwrap();
    scene.edge.apply(&partner(json!({}))).unwrap();
    becomes(&alice, &bob, "delivered", wait::GENEROUS).await;
    becomes(&bob, &alice, "delivered", wait::GENEROUS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_whose_access_is_taken_away_is_refused_and_others_go_on() {
    let (scene, alice, bob) = scene().await.unwrap();
    let carol = scene.inside.login("carol").await.unwrap();
    let denied = json!({ "scope": "User", "users": [format!("alice@{OWN}")] });
    scene
        .edge
        .apply(&manifest("ExternalAccessPolicy", "not-alice", denied))
        .unwrap();
    becomes(&alice, &bob, "not-allowed AccessPolicy", IN_FORCE).await;
    becomes(&bob, &alice, "service-unavailable", IN_FORCE).await;
    assert_eq!(fate(&carol, &bob).await.unwrap(), "delivered");
    scene
        .edge
        .delete("ExternalAccessPolicy", "not-alice")
        .unwrap();
    becomes(&alice, &bob, "delivered", IN_FORCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_edit_changes_nothing_and_the_next_good_one_takes_effect() {
    let (scene, alice, bob) = scene().await.unwrap();
    let file = format!("XmppFederatedPartner-{PARTNER_NAME}.yaml");
    scene.edge.write(&file, "kind: [this is: not yaml").unwrap();
    wait::until("the edge says what is wrong", wait::GENEROUS, || async {
        scene.edge.log().contains(&file).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(fate(&alice, &bob).await.unwrap(), "delivered");
    assert_eq!(fate(&bob, &alice).await.unwrap(), "delivered");
    scene
        .edge
        .apply(&partner(json!({ "suspended": true })))
        .unwrap();
    becomes(&alice, &bob, "not-allowed PartnerSuspended", IN_FORCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_served_without_closing_open_streams() {
    let (scene, alice, bob) = scene().await.unwrap();
    let serial = |status: &Value| status["certificate"]["serial"].clone();
    let before = scene.edge.status().await.unwrap();
    let ids = |status: &Value| -> Vec<Value> {
        let streams = status["streams"].as_array().cloned().unwrap_or_default();
        streams.iter().map(|s| s["id"].clone()).collect()
    };
    let renewed = scene
        .lab
        .authority()
        .issue(&[OWN, FQDN], Usage::ServerAndClientAuth);
    let entries = BTreeMap::from([("tls.crt", renewed.certificate), ("tls.key", renewed.key)]);
    scene
        .edge
        .apply(&texts("Secret", "edge-certificate", &entries))
        .unwrap();
    let after = wait::until("the new serial is in force", wait::GENEROUS, || async {
        let status = scene.edge.status().await.ok()?;
        (serial(&status) != serial(&before)).then_some(status)
    })
    .await
    .unwrap();
    for id in ids(&before) {
        assert!(ids(&after).contains(&id), "stream {id} was closed");
    }
    assert_eq!(fate(&alice, &bob).await.unwrap(), "delivered");
    assert_eq!(fate(&bob, &alice).await.unwrap(), "delivered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_policy_everyone_is_refused() {
    let (scene, alice, bob) = scene().await.unwrap();
    let name = everyone_may()["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    scene.edge.delete("ExternalAccessPolicy", &name).unwrap();
    becomes(&alice, &bob, "not-allowed AccessPolicy", IN_FORCE).await;
    becomes(&bob, &alice, "service-unavailable", IN_FORCE).await;
}
