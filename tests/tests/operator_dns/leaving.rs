//! Pools on their way out: their records go first, a server that is away holds them for ten minutes
//! at most, and what stays behind is named.

use anyhow::{Context, Result};
use k8s_openapi::api::{
    core::v1::{Namespace as NamespaceObject, Secret},
    events::v1::Event,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use xmpp_edge_crds::kinds::EdgePool;
use xmpp_edge_tests::{
    cluster::{Clock, Namespace, Operator, operator_account},
    primary::{Primary, Software},
    wait,
};

use crate::{stage::*, test};

const LEFT: &str = "RecordsLeft";

/// A published pool.
async fn published(namespace: &Namespace<'_>) -> Result<(String, Primary)> {
    let own = domain(namespace);
    let primary = Primary::start(Software::Bind, &[(&own, "")]).await?;
    key(namespace).await?;
    republish(namespace, &own, &primary).await?;
    Ok((own, primary))
}

async fn republish(namespace: &Namespace<'_>, own: &str, primary: &Primary) -> Result<()> {
    create(namespace, &pool(own, "hq", json!({"dns": at(primary)}))).await?;
    pods_are(namespace, "hq", true).await?;
    until_says(namespace, "hq", PUBLISHED, "True, Published").await?;
    until_leads_to(primary, own, &[&format!("hq.{own}")]).await
}

/// Log, metric and Event name what is left behind.
async fn left_behind(
    namespace: &Namespace<'_>,
    operator: &mut Operator,
    own: &str,
    why: &str,
) -> Result<()> {
    let named = format!("{why}: SRV of {own}, addresses of hq.{own}");
    operator.process().await_line(&named, SOON).await?;
    let label = format!("reason=\"{LEFT}\"");
    let failures = "xmpp_edge_operator_dns_failures_total";
    assert_eq!(operator.metric(failures, &[&label]).await?, Some(1.0));
    let published = operator.metric("xmpp_edge_operator_dns_published", &[]);
    assert_eq!(published.await?, None, "it is gone");
    let events: Api<Event> = namespace.api();
    wait::until("an Event names what is left", SOON, async || {
        let all = events.list(&Default::default()).await.ok()?.items;
        let named = |event: &Event| {
            event.reason.as_deref() == Some(LEFT)
                && event
                    .note
                    .as_ref()
                    .is_some_and(|note| note.contains(&named))
        };
        all.iter().any(named).then_some(())
    })
    .await
}

async fn is_deleted(namespace: &Namespace<'_>) -> Result<()> {
    until(namespace, "hq", |it: &EdgePool| {
        it.metadata.deletion_timestamp.clone()
    })
    .await?;
    Ok(())
}

#[test]
fn a_server_that_is_away_holds_a_pool_whatever_the_operator_s_clock_and_no_other_pool() {
    test(async |namespace| {
        let clock = Clock::new()?;
        let mut operator = Operator::start_by(&clock, namespace, &[]).await?;
        let (own, primary) = published(namespace).await?;
        primary.freeze().await?;
        delete(namespace, "hq").await?;
        let said = "did not answer within 5 s";
        operator.process().await_line(said, SOON).await?;
        until_says(namespace, "hq", PUBLISHED, "False, Terminating").await?;
        until_told(namespace, "hq", "Ready", said).await?;
        // Meanwhile others are served.
        let other = pool(&format!("other-{own}"), "dr", json!({}));
        create(namespace, &other).await?;
        until_says(namespace, "dr", "CertificateReady", "True, Issued").await?;
        // By the API server's clock, which dated the deletion, ten minutes are far away.
        clock.ahead(11 * 60)?;
        let failures = "xmpp_edge_operator_dns_failures_total";
        let timeouts = async |operator: &Operator| {
            let label = "reason=\"DnsServerTimeout\"";
            operator.metric(failures, &[label]).await.ok().flatten()
        };
        let before = timeouts(&operator).await;
        wait::until("it is tried again", SOON, async || {
            (timeouts(&operator).await > before).then_some(())
        })
        .await?;
        is_deleted(namespace).await?;

        // What is signed says when.
        clock.ahead(0)?;
        primary.thaw();
        until_gone(namespace, "hq").await?;
        until_leads_to(&primary, &own, &[]).await
    });
}

#[test]
fn a_pool_is_let_go_by_the_annotation_and_one_of_its_name_takes_its_records_up_again() {
    test(async |namespace| {
        let mut operator = Operator::start(namespace, &[]).await?;
        let (own, primary) = published(namespace).await?;
        primary.freeze().await?;
        delete(namespace, "hq").await?;
        is_deleted(namespace).await?;
        let skip = json!({"metadata": {"annotations": {"xmpp-edge.dev/dns-cleanup": "skip"}}});
        let pools: Api<EdgePool> = namespace.api();
        pools
            .patch("hq", &PatchParams::default(), &Patch::Merge(skip))
            .await?;
        until_gone(namespace, "hq").await?;
        left_behind(namespace, &mut operator, &own, "as its annotation asks").await?;
        primary.thaw();
        until_leads_to(&primary, &own, &[&format!("hq.{own}")]).await?;

        republish(namespace, &own, &primary).await?;
        let held = pools.get("hq").await?;
        assert_eq!(held.finalizers(), ["xmpp-edge.dev/dns"]);
        delete(namespace, "hq").await?;
        until_gone(namespace, "hq").await?;
        let names = [starttls(&own), direct(&own), format!("hq.{own}")];
        assert!(everything(&primary, &names).await?.is_empty());
        Ok(())
    });
}

#[test]
fn the_key_last_read_withdraws_and_without_any_the_pool_goes_at_once() {
    test(async |namespace| {
        let operator = Operator::start(namespace, &[]).await?;
        let (own, primary) = published(namespace).await?;
        let secrets: Api<Secret> = namespace.api();
        let now = DeleteParams::default();
        secrets.delete(KEY, &now).await?;
        until_says(namespace, "hq", PUBLISHED, "False, ReferenceMissing").await?;
        delete(namespace, "hq").await?;
        until_gone(namespace, "hq").await?;
        until_leads_to(&primary, &own, &[]).await?;

        key(namespace).await?;
        republish(namespace, &own, &primary).await?;
        operator.stop().await?;
        secrets.delete(KEY, &now).await?;
        // Who starts now has never read the key.
        let mut operator = Operator::start(namespace, &[]).await?;
        delete(namespace, "hq").await?;
        until_gone(namespace, "hq").await?;
        let why = "as there is no key to withdraw them with";
        left_behind(namespace, &mut operator, &own, why).await?;
        until_leads_to(&primary, &own, &[&format!("hq.{own}")]).await
    });
}

#[test]
fn a_finalizer_that_a_backup_applied_too_goes_with_the_records() {
    test(async |namespace| {
        let mut operator = Operator::start(namespace, &[]).await?;
        let (own, primary) = published(namespace).await?;
        let pools: Api<EdgePool> = namespace.api();
        let restored = json!({
            "apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool",
            "metadata": {"name": "hq", "finalizers": ["xmpp-edge.dev/dns"]},
        });
        let parameters = PatchParams::apply("backup").force();
        pools
            .patch("hq", &parameters, &Patch::Apply(&restored))
            .await?;
        delete(namespace, "hq").await?;
        until_gone(namespace, "hq").await?;
        let names = [starttls(&own), direct(&own), format!("hq.{own}")];
        assert!(everything(&primary, &names).await?.is_empty());
        assert!(!operator.process().log().contains("records left"));
        Ok(())
    });
}

#[test]
fn a_namespace_that_is_deleted_whole_takes_its_records_along() {
    test(async |namespace| {
        let server = namespace.server;
        let home = format!("{}-operator", namespace.name);
        server.namespace(&home, &[]).await?;
        let watch = format!("--watch-namespace={}", namespace.name);
        let account = operator_account(server, &home, &[&namespace.name]).await?;
        let _operator = Operator::start_as(server, &account, &home, &[&watch]).await?;
        let (own, primary) = published(namespace).await?;
        let namespaces: Api<NamespaceObject> = Api::all(server.client());
        namespaces
            .delete(&namespace.name, &DeleteParams::default())
            .await?;
        wait::until("the namespace is gone", SOON, async || {
            let left = namespaces.get_opt(&namespace.name).await.ok()?;
            left.is_none().then_some(())
        })
        .await
        .context(server.logs_about(&namespace.name))?;
        let names = [starttls(&own), direct(&own), format!("hq.{own}")];
        assert!(everything(&primary, &names).await?.is_empty());
        Ok(())
    });
}
