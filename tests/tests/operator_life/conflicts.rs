//! Conflicts beyond the plain ones: who has something in force keeps it whatever the names say, over a
//! restart too, and who is left out gets its turn.

use std::slice;

use anyhow::Result;
use serde_json::{Value, json};
use xmpp_edge_tests::cluster::{Namespace, Operator};

use super::{
    SERVER,
    stage::{create, delete, edit, partner, policy, pool, until_says},
};

const ACCEPTED: &[(&str, &str)] = &[("Accepted", "True, Accepted")];

async fn accepted(namespace: &Namespace<'_>, object: &Value) -> Result<()> {
    until_says(namespace, object, ACCEPTED).await.map(drop)
}

/// Waits until `object` is left out for `reason`, in words that name `what` and `winner`.
async fn left_out(
    namespace: &Namespace<'_>,
    object: &Value,
    reason: &str,
    what: &str,
    winner: &str,
) -> Result<()> {
    let said = format!("False, {reason}");
    let expected = [("Accepted", said.as_str()), ("Ready", said.as_str())];
    let found = until_says(namespace, object, &expected).await?;
    let conditions = found["status"]["conditions"].to_string();
    assert!(
        conditions.contains(what) && conditions.contains(winner),
        "{conditions}"
    );
    Ok(())
}

/// A partner `zulu` that has `shared.example`, and `alpha`, which came later and is told so.
async fn who_wants_anothers_domain(namespace: &Namespace<'_>) -> Result<(Value, Value)> {
    let has = partner("zulu", json!({ "domain": "shared.example" }));
    let wants = partner(
        "alpha",
        json!({ "domain": "alpha.example", "additionalDomains": ["shared.example"] }),
    );
    create(namespace, &[pool(namespace), has.clone()]).await?;
    accepted(namespace, &has).await?;
    create(namespace, slice::from_ref(&wants)).await?;
    let conflict = "DomainConflict";
    left_out(namespace, &wants, conflict, "shared.example", "zulu").await?;
    Ok((has, wants))
}

#[test]
fn an_edit_takes_nothing_from_who_has_it_and_who_comes_back_comes_second() {
    SERVER.test(async |namespace| {
        let _operator = Operator::start(namespace, &[]).await?;
        let (has, wants) = who_wants_anothers_domain(namespace).await?;
        let conflict = "DomainConflict";

        edit(namespace, &has, json!({ "description": "edited" })).await?;
        edit(namespace, &wants, json!({ "description": "edited" })).await?;
        left_out(namespace, &wants, conflict, "shared.example", "zulu").await?;
        accepted(namespace, &has).await?;

        delete(namespace, &has).await?;
        accepted(namespace, &wants).await?;
        create(namespace, slice::from_ref(&has)).await?;
        left_out(namespace, &has, conflict, "shared.example", "alpha").await?;
        // Mended by the one who has it now.
        edit(namespace, &wants, json!({ "additionalDomains": [] })).await?;
        accepted(namespace, &has).await?;
        accepted(namespace, &wants).await
    });
}

#[test]
fn a_wildcard_leaves_what_is_below_it_to_others_but_not_itself() {
    SERVER.test(async |namespace| {
        let _operator = Operator::start(namespace, &[]).await?;
        let tree = |name: &str| {
            let domain = format!("{name}.example");
            partner(
                name,
                json!({ "domain": domain, "additionalDomains": ["*.tree.example"] }),
            )
        };
        let (first, leaf, again) = (
            tree("zulu"),
            partner("leaf", json!({ "domain": "leaf.tree.example" })),
            tree("alpha"),
        );
        create(namespace, &[pool(namespace), first.clone(), leaf.clone()]).await?;
        accepted(namespace, &first).await?;
        accepted(namespace, &leaf).await?;
        create(namespace, slice::from_ref(&again)).await?;
        left_out(
            namespace,
            &again,
            "DomainConflict",
            "*.tree.example",
            "zulu",
        )
        .await
    });
}

#[test]
fn a_partner_yields_to_a_pool_that_takes_its_domain_and_returns_after_it() {
    SERVER.test(async |namespace| {
        let _operator = Operator::start(namespace, &[]).await?;
        let own = pool(namespace);
        let domain = own["spec"]["domains"][0].as_str().unwrap();
        let object = partner("partner", json!({ "domain": domain }));
        create(namespace, slice::from_ref(&object)).await?;
        accepted(namespace, &object).await?;
        create(namespace, slice::from_ref(&own)).await?;
        left_out(namespace, &object, "OwnDomain", domain, "hq").await?;
        delete(namespace, &own).await?;
        accepted(namespace, &object).await
    });
}

#[test]
fn a_user_is_granted_by_one_policy_and_the_other_is_left_out_whole() {
    SERVER.test(async |namespace| {
        let _operator = Operator::start(namespace, &[]).await?;
        let own = pool(namespace);
        let domain = own["spec"]["domains"][0].as_str().unwrap();
        let (alice, bob) = (format!("alice@{domain}"), format!("bob@{domain}"));
        let sales = policy("sales", json!({ "scope": "User", "users": [alice] }));
        let press = policy("press", json!({ "scope": "User", "users": [bob, alice] }));
        create(namespace, &[own.clone(), sales.clone()]).await?;
        accepted(namespace, &sales).await?;
        create(namespace, slice::from_ref(&press)).await?;
        left_out(namespace, &press, "Conflict", &alice, "sales").await?;
        edit(namespace, &press, json!({ "users": [bob] })).await?;
        accepted(namespace, &press).await
    });
}

#[test]
fn who_has_a_domain_keeps_it_over_a_restart_and_nothing_is_written_anew() {
    SERVER.test(async |namespace| {
        let operator = Operator::start(namespace, &[]).await?;
        let (has, wants) = who_wants_anothers_domain(namespace).await?;
        operator.stop().await?;

        let mark = namespace.server.audit().mark();
        let _operator = Operator::start(namespace, &[]).await?;
        let later = partner("later", json!({ "domain": "later.example" }));
        create(namespace, slice::from_ref(&later)).await?;
        accepted(namespace, &later).await?;
        left_out(
            namespace,
            &wants,
            "DomainConflict",
            "shared.example",
            "zulu",
        )
        .await?;
        accepted(namespace, &has).await?;
        let written: Vec<_> = namespace
            .server
            .audit()
            .since(mark)?
            .into_iter()
            .filter(|entry| entry.concerns(&namespace.name, "xmppfederatedpartners"))
            .filter(|entry| entry.target() == "xmppfederatedpartners/status")
            .filter_map(|entry| entry.object_ref.map(|object| object.name))
            .filter(|name| name != "later")
            .collect();
        assert_eq!(written, Vec::<String>::new());
        Ok(())
    });
}
