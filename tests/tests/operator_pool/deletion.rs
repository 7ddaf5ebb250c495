use k8s_openapi::api::events::v1::Event;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use xmpp_edge_crds::kinds::EdgePool;
use xmpp_edge_tests::{cluster::Operator, wait};

use crate::{SERVER, stage::*};

const FINALIZER: &str = "xmpp-edge.dev/dns";

#[test]
fn a_pool_that_never_had_a_key_is_not_held_and_leaves_no_records() {
    SERVER.test(async |namespace| {
        let _operator = Operator::start(namespace, &[]).await?;
        let api: Api<EdgePool> = namespace.api();
        create(namespace, &pool(namespace, "plain", json!({}))).await?;
        until_says(namespace, "plain", "DnsPublished", "True, NotManaged").await?;
        assert!(api.get("plain").await?.finalizers().is_empty());
        edit(
            namespace,
            "plain",
            json!({"dns": {"rfc2136": {"server": "192.0.2.53", "tsigSecretRef": {"name": "key"}}}}),
        )
        .await?;
        until_says(
            namespace,
            "plain",
            "DnsPublished",
            "False, ReferenceMissing",
        )
        .await?;
        assert!(api.get("plain").await?.finalizers().is_empty());
        api.delete("plain", &DeleteParams::default()).await?;
        wait::until("the pool goes", SOON, async || {
            api.get_opt("plain").await.ok()?.is_none().then_some(())
        })
        .await?;
        let events: Api<Event> = namespace.api();
        let all = events.list(&Default::default()).await?;
        let left = |event: &&Event| event.reason.as_deref() == Some("RecordsLeft");
        let said = all.items.iter().find(left);
        assert!(said.is_none(), "nothing was ever published: {said:?}");
        Ok(())
    });
}

#[test]
fn the_annotation_lets_a_pool_go_although_the_server_does_not_answer() {
    SERVER.test(async |namespace| {
        let _operator = Operator::start(namespace, &[]).await?;
        let api: Api<EdgePool> = namespace.api();
        secret(namespace, "key", json!({"name": "k.example", "secret": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="})).await?;
        // Nobody listens there.
        let dns = json!({"dns": {"rfc2136": {"server": "127.0.0.1:9", "zone": "example", "tsigSecretRef": {"name": "key"}}}});
        create(namespace, &pool(namespace, "hq", dns)).await?;
        until(namespace, "hq", |it: &EdgePool| {
            it.finalizers().iter().any(|it| it == FINALIZER).then_some(())
        })
        .await?;
        api.delete("hq", &DeleteParams::default()).await?;
        until(namespace, "hq", |it: &EdgePool| it.metadata.deletion_timestamp.clone()).await?;
        let skip = Patch::Merge(json!({"metadata": {"annotations": {"xmpp-edge.dev/dns-cleanup": "skip"}}}));
        api.patch("hq", &PatchParams::default(), &skip).await?;
        wait::until("the pool goes", SOON, async || {
            api.get_opt("hq").await.ok()?.is_none().then_some(())
        })
        .await?;
        Ok(())
    });
}
