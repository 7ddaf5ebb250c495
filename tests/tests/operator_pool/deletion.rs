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
fn only_a_pool_with_records_is_held_and_it_goes_at_once_when_there_is_no_key() {
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
        until(namespace, "plain", |it: &EdgePool| {
            it.finalizers()
                .iter()
                .any(|it| it == FINALIZER)
                .then_some(())
        })
        .await?;
        api.delete("plain", &DeleteParams::default()).await?;
        wait::until("the pool goes", SOON, async || {
            api.get_opt("plain").await.ok()?.is_none().then_some(())
        })
        .await?;
        let events: Api<Event> = namespace.api();
        wait::until("an Event names what is left", SOON, async || {
            let all = events.list(&Default::default()).await.ok()?;
            all.items
                .iter()
                .any(|event| event.reason.as_deref() == Some("RecordsLeft"))
                .then_some(())
        })
        .await?;
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
