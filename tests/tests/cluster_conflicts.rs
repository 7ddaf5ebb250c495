//! Conflicts between objects of one namespace, as the operator says them in conditions: who has
//! something in force keeps it, the other is left out whole, is told by whom, and gets its turn.
#![allow(clippy::unwrap_used)]

use anyhow::{Context, Result};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    cluster::{Condition, Namespace, Operator, Shared, Submission},
    wait,
};

static SERVER: Shared = Shared::new();

const PARTNER: &str = "XmppFederatedPartner";
const POLICY: &str = "ExternalAccessPolicy";
const POOL: &str = "EdgePool";

async fn create(namespace: &Namespace<'_>, kind: &str, name: &str, spec: Value) -> Result<()> {
    let object = json!({
        "apiVersion": "xmpp-edge.dev/v1alpha1",
        "kind": kind,
        "metadata": { "name": name },
        "spec": spec,
    });
    namespace.write(Submission::CREATE, &object).await.map(drop)
}

async fn change(namespace: &Namespace<'_>, kind: &str, name: &str, spec: Value) -> Result<()> {
    let object = json!({
        "apiVersion": "xmpp-edge.dev/v1alpha1",
        "kind": kind,
        "metadata": { "name": name },
        "spec": spec,
    });
    namespace.write(Submission::MERGE, &object).await.map(drop)
}

fn delete(namespace: &Namespace<'_>, target: &str) -> Result<()> {
    let arguments = ["delete", "-n", &namespace.name, target, "--wait=false"];
    namespace.server.kubectl().run(&arguments).map(drop)
}

async fn accepted(namespace: &Namespace<'_>, kind: &str, name: &str) -> Result<Condition> {
    let found = namespace
        .until_reason(kind, name, "Accepted", "Accepted")
        .await?;
    assert_eq!(found.status, "True");
    Ok(found)
}

async fn refused(
    namespace: &Namespace<'_>,
    kind: &str,
    name: &str,
    reason: &str,
) -> Result<String> {
    let found = namespace
        .until_reason(kind, name, "Accepted", reason)
        .await?;
    assert_eq!(found.status, "False");
    let ready = namespace.until_reason(kind, name, "Ready", reason).await?;
    assert_eq!(ready.status, "False");
    Ok(found.message)
}

async fn pool(namespace: &Namespace<'_>) -> Result<()> {
    let spec = json!({
        "site": "berlin", "domains": ["org.example"], "accessEdge": { "fqdn": "xmpp.org.example" },
        "gateways": [{ "domains": ["org.example"], "address": "prosody.inside.example:5269" }],
        "certificate": { "selfSigned": {} },
    });
    create(namespace, POOL, "berlin", spec).await
}

#[test]
fn of_two_partners_with_one_domain_the_first_keeps_it_until_it_lets_go() {
    SERVER.test(async |namespace| {
        let _operator = Operator::start(namespace, &[]).await?;
        let second = json!({ "domain": "second.example", "additionalDomains": ["shared.example"] });
        create(
            namespace,
            PARTNER,
            "first",
            json!({ "domain": "shared.example" }),
        )
        .await?;
        accepted(namespace, PARTNER, "first").await?;
        create(namespace, PARTNER, "second", second).await?;
        let message = refused(namespace, PARTNER, "second", "DomainConflict").await?;
        assert!(
            message.contains("shared.example") && message.contains("first"),
            "{message}"
        );

        // An edit of either changes nothing of who has it.
        change(
            namespace,
            PARTNER,
            "first",
            json!({ "description": "edited" }),
        )
        .await?;
        change(
            namespace,
            PARTNER,
            "second",
            json!({ "description": "edited" }),
        )
        .await?;
        wait::until("the edit was looked at", wait::GENEROUS, async || {
            let object = namespace.read(PARTNER, "second").await.ok()??;
            (object["status"]["observedGeneration"] == object["metadata"]["generation"])
                .then_some(())
        })
        .await?;
        refused(namespace, PARTNER, "second", "DomainConflict").await?;
        accepted(namespace, PARTNER, "first").await?;

        delete(namespace, "xfp/first")?;
        accepted(namespace, PARTNER, "second").await?;
        // Who comes back comes second.
        create(
            namespace,
            PARTNER,
            "first",
            json!({ "domain": "shared.example" }),
        )
        .await?;
        let message = refused(namespace, PARTNER, "first", "DomainConflict").await?;
        assert!(message.contains("second"), "{message}");
        // Mended by the one who has it.
        change(
            namespace,
            PARTNER,
            "second",
            json!({ "additionalDomains": [] }),
        )
        .await?;
        accepted(namespace, PARTNER, "first").await?;
        accepted(namespace, PARTNER, "second").await?;
        Ok(())
    });
}

#[test]
fn a_wildcard_and_what_is_below_it_do_not_conflict_but_the_same_wildcard_twice_does() {
    SERVER.test(async |namespace| {
        let _operator = Operator::start(namespace, &[]).await?;
        let tree = json!({ "domain": "a.example", "additionalDomains": ["*.tree.example"] });
        create(namespace, PARTNER, "tree", tree).await?;
        create(
            namespace,
            PARTNER,
            "leaf",
            json!({ "domain": "leaf.tree.example" }),
        )
        .await?;
        accepted(namespace, PARTNER, "tree").await?;
        accepted(namespace, PARTNER, "leaf").await?;
        let again = json!({ "domain": "b.example", "additionalDomains": ["*.tree.example"] });
        create(namespace, PARTNER, "again", again).await?;
        let message = refused(namespace, PARTNER, "again", "DomainConflict").await?;
        assert!(
            message.contains("*.tree.example") && message.contains("tree"),
            "{message}"
        );
        Ok(())
    });
}

#[test]
fn an_own_domain_is_no_partners_and_is_again_when_the_pool_is_gone() {
    SERVER.test(async |namespace| {
        let _operator = Operator::start(namespace, &[]).await?;
        create(
            namespace,
            PARTNER,
            "partner",
            json!({ "domain": "org.example" }),
        )
        .await?;
        accepted(namespace, PARTNER, "partner").await?;
        pool(namespace).await?;
        let message = refused(namespace, PARTNER, "partner", "OwnDomain").await?;
        assert!(message.contains("org.example"), "{message}");
        delete(namespace, "epool/berlin")?;
        accepted(namespace, PARTNER, "partner").await?;
        Ok(())
    });
}

#[test]
fn of_two_policies_for_the_same_the_first_counts_and_a_user_is_granted_once() {
    SERVER.test(async |namespace| {
        let _operator = Operator::start(namespace, &[]).await?;
        let access = json!({ "scope": "Global", "enableFederationAccess": true });
        create(namespace, POLICY, "global", access.clone()).await?;
        accepted(namespace, POLICY, "global").await?;
        create(namespace, POLICY, "other", access).await?;
        let message = refused(namespace, POLICY, "other", "Conflict").await?;
        assert!(message.contains("global"), "{message}");

        let users = |users: &[&str]| json!({ "scope": "User", "users": users });
        create(namespace, POLICY, "sales", users(&["alice@org.example"])).await?;
        accepted(namespace, POLICY, "sales").await?;
        create(
            namespace,
            POLICY,
            "press",
            users(&["bob@org.example", "alice@org.example"]),
        )
        .await?;
        let message = refused(namespace, POLICY, "press", "Conflict").await?;
        assert!(
            message.contains("alice@org.example") && message.contains("sales"),
            "{message}"
        );
        change(namespace, POLICY, "press", users(&["bob@org.example"])).await?;
        accepted(namespace, POLICY, "press").await?;
        Ok(())
    });
}

#[test]
fn who_has_a_domain_keeps_it_over_a_restart_of_the_operator() {
    SERVER.test(async |namespace| {
        let operator = Operator::start(namespace, &[]).await?;
        create(
            namespace,
            PARTNER,
            "zulu",
            json!({ "domain": "shared.example" }),
        )
        .await?;
        accepted(namespace, PARTNER, "zulu").await?;
        let alpha = json!({ "domain": "alpha.example", "additionalDomains": ["shared.example"] });
        create(namespace, PARTNER, "alpha", alpha).await?;
        refused(namespace, PARTNER, "alpha", "DomainConflict").await?;
        operator.stop().await.context("it ends in order")?;

        let mark = namespace.server.audit().mark();
        let _operator = Operator::start(namespace, &[]).await?;
        create(
            namespace,
            PARTNER,
            "later",
            json!({ "domain": "later.example" }),
        )
        .await?;
        accepted(namespace, PARTNER, "later").await?;
        refused(namespace, PARTNER, "alpha", "DomainConflict").await?;
        accepted(namespace, PARTNER, "zulu").await?;
        let written: Vec<_> = namespace
            .server
            .audit()
            .since(mark)?
            .into_iter()
            .filter(|entry| entry.target() == "xmppfederatedpartners/status" && entry.verb != "get")
            .filter(|entry| entry.concerns(&namespace.name, "xmppfederatedpartners"))
            .filter_map(|entry| entry.object_ref.map(|object| object.name))
            .filter(|name| name != "later")
            .collect();
        assert_eq!(
            written,
            Vec::<String>::new(),
            "what did not change is not written"
        );
        Ok(())
    });
}
