//! A deleted object is gone, however late the API server's answers are.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;
use xmpp_edge_crds::edge_config::shards;
use xmpp_edge_tests::{
    cluster::{LateAnswers, Namespace, Operator, operator_account},
    wait,
};

use super::{
    SERVER,
    stage::{SOON, condition, create, delete, get, partner, pool, until_says},
};

/// Partners that the document of the pool `hq` has.
async fn in_document(namespace: &Namespace<'_>) -> Option<Vec<String>> {
    let map = namespace.api::<ConfigMap>().get("hq-config-0").await.ok()?;
    let shard = map.binary_data?.remove("shard")?;
    let document = shards::decode(&[shard.0]).ok()?.config;
    Some(document.partners.into_iter().map(|it| it.name).collect())
}

#[test]
fn a_deleted_partner_stays_gone_however_late_answers_are() {
    SERVER.test(async |namespace| {
        let account = operator_account(namespace.server, &namespace.name, &[]).await?;
        let slow = LateAnswers::start(&account, Duration::from_millis(300)).await?;
        let (server, name) = (namespace.server, &namespace.name);
        let stays = partner("stays", json!({ "domain": "stays.example" }));
        create(namespace, &[pool(namespace), stays.clone()]).await?;
        let operator = Operator::start_as(server, &slow.before(&account), name, &[]).await?;
        until_says(namespace, &stays, &[("Accepted", "True, Accepted")]).await?;

        for round in 0..6 {
            let name = format!("goes-{round}");
            let goes = partner(&name, json!({ "domain": format!("{name}.example") }));
            create(namespace, std::slice::from_ref(&goes)).await?;
            // The status is written, and the operator does not know it yet.
            wait::until("its first status is there", SOON, async || {
                let now = get(namespace, &goes).await.ok()?;
                (condition(&now, "Accepted") == "True, Accepted").then_some(())
            })
            .await?;
            delete(namespace, &goes).await?;
        }
        let mut last = None;
        let gone = wait::until(
            "the document has the partner that stays alone",
            SOON,
            async || {
                last = in_document(namespace).await;
                (last.as_deref()? == ["stays"]).then_some(())
            },
        );
        gone.await.with_context(|| format!("{last:?}"))?;

        // And it is nobody's business any more: what is not there is not written to.
        let mark = server.audit().mark();
        let later = partner("later", json!({ "domain": "later.example" }));
        create(namespace, std::slice::from_ref(&later)).await?;
        until_says(namespace, &later, &[("Accepted", "True, Accepted")]).await?;
        assert_eq!(
            in_document(namespace).await.context("a document")?,
            ["later", "stays"]
        );
        assert_eq!(written_to_nothing(namespace, mark)?, Vec::<String>::new());
        drop(operator);
        Ok(())
    });
}

/// Writes of statuses that found no object.
fn written_to_nothing(namespace: &Namespace<'_>, mark: u64) -> Result<Vec<String>> {
    let entries = namespace.server.audit().since(mark)?;
    let of_here = entries.into_iter().filter(|entry| {
        entry.target().ends_with("/status")
            && entry.code() == 404
            && entry
                .object_ref
                .as_ref()
                .is_some_and(|it| it.namespace == namespace.name)
    });
    Ok(of_here.map(|entry| entry.uri).collect())
}
