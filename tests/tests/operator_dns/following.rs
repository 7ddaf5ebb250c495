use anyhow::Result;
use hickory_proto::rr::RecordType;
use serde_json::json;
use xmpp_edge_tests::{
    cluster::Operator,
    primary::{Primary, Software},
};

use crate::{stage::*, test};

/// Somebody else's, beside ours.
const OTHERS: &str = "_xmpp-server._tcp IN SRV 50 0 5269 legacy\nlegacy IN A 192.0.2.77\n\
                      _xmpp-client._tcp IN SRV 0 0 5222 legacy\n";

fn records_follow_the_pool(software: Software) {
    test(async |namespace| {
        let own = domain(namespace);
        let primary = Primary::start(software, &[(&own, OTHERS)]).await?;
        let (sub, edge) = (format!("sub.{own}"), format!("hq.{own}"));
        let moved = format!("moved.{own}");
        let legacy = format!("50 0 5269 legacy.{own}.");
        let names = [
            starttls(&own),
            direct(&own),
            starttls(&sub),
            direct(&sub),
            edge.clone(),
            moved.clone(),
            format!("legacy.{own}"),
            format!("_xmpp-client._tcp.{own}"),
        ];
        let before = everything(&primary, &names).await?;
        let _operator = Operator::start(namespace, &[]).await?;
        key(namespace).await?;
        let balanced = json!({"accessEdge": {"fqdn": edge}, "dns": at(&primary)});
        create(namespace, &pool(&own, "hq", balanced)).await?;
        pods_are(namespace, "hq", true).await?;
        until_says(namespace, "hq", PUBLISHED, "False, AddressPending").await?;
        assert_eq!(everything(&primary, &names).await?, before);

        balancer_has(namespace, "hq", &["192.0.2.1"]).await?;
        until_says(namespace, "hq", PUBLISHED, "True, Published").await?;
        let srv = async |domain: &str, ours: &str| -> Result<()> {
            let mut expected = vec![ours];
            if domain == own {
                expected.push(&legacy);
            }
            until_answers(&primary, &starttls(domain), RecordType::SRV, &expected).await
        };
        srv(&own, &format!("10 100 5269 {edge}.")).await?;
        let over_tls = format!("10 100 5270 {edge}.");
        until_answers(&primary, &direct(&own), RecordType::SRV, &[&over_tls]).await?;
        until_answers(&primary, &edge, RecordType::A, &["192.0.2.1"]).await?;
        let marker = primary.records(&direct(&own), RecordType::TXT).await?;
        let whose = format!("pool={}/hq", namespace.name);
        assert!(marker[0].contains(&whose), "{marker:?}");

        edit(namespace, "hq", json!({"route": {"priority": 5}})).await?;
        srv(&own, &format!("5 100 5269 {edge}.")).await?;
        edit(namespace, "hq", json!({"route": {"weight": 7}})).await?;
        srv(&own, &format!("5 7 5269 {edge}.")).await?;
        balancer_has(namespace, "hq", &["2001:db8::1", "192.0.2.2"]).await?;
        until_answers(&primary, &edge, RecordType::A, &["192.0.2.2"]).await?;
        until_answers(&primary, &edge, RecordType::AAAA, &["2001:db8::1"]).await?;
        edit(
            namespace,
            "hq",
            json!({"dns": {"rfc2136": {"ttlSeconds": 120}}}),
        )
        .await?;
        until_says(namespace, "hq", PUBLISHED, "True, Published").await?;
        xmpp_edge_tests::wait::until("the TTL follows", SOON, async || {
            let ttl = primary.ttl(&direct(&own), RecordType::SRV).await.ok()?;
            (ttl == Some(120)).then_some(())
        })
        .await?;

        let both = json!([own, sub]);
        let gateways = json!([{"domains": both, "address": "prosody.chat.svc:5269"}]);
        edit(
            namespace,
            "hq",
            json!({"domains": both, "gateways": gateways}),
        )
        .await?;
        srv(&sub, &format!("5 7 5269 {edge}.")).await?;
        let only = json!([own]);
        let gateways = json!([{"domains": only, "address": "prosody.chat.svc:5269"}]);
        edit(
            namespace,
            "hq",
            json!({"domains": only, "gateways": gateways}),
        )
        .await?;
        until_answers(&primary, &starttls(&sub), RecordType::SRV, &[]).await?;
        edit(namespace, "hq", json!({"listeners": {"directTls": 0}})).await?;
        until_answers(&primary, &direct(&own), RecordType::SRV, &[]).await?;
        // Other ports are other pods.
        pods_are(namespace, "hq", true).await?;
        srv(&own, &format!("5 7 5269 {edge}.")).await?;
        edit(namespace, "hq", json!({"accessEdge": {"fqdn": moved}})).await?;
        srv(&own, &format!("5 7 5269 {moved}.")).await?;
        until_answers(&primary, &edge, RecordType::A, &[]).await?;
        until_answers(&primary, &moved, RecordType::A, &["192.0.2.2"]).await?;
        until_says(namespace, "hq", PUBLISHED, "True, Published").await?;

        // Somebody takes ours away: it comes back within the minute in which zones are looked at,
        // here at once as the pool is edited.
        primary
            .edit(&format!(
                "zone {own}\nupdate delete {} SRV 5 7 5269 {moved}.",
                starttls(&own)
            ))
            .await?;
        edit(namespace, "hq", json!({"route": {"weight": 8}})).await?;
        srv(&own, &format!("5 8 5269 {moved}.")).await?;

        delete(namespace, "hq").await?;
        until_gone(namespace, "hq").await?;
        assert_eq!(everything(&primary, &names).await?, before);
        Ok(())
    });
}

#[test]
fn records_follow_the_pool_and_its_load_balancer_and_foreign_ones_stay_at_bind() {
    records_follow_the_pool(Software::Bind);
}

#[test]
fn records_follow_the_pool_and_its_load_balancer_and_foreign_ones_stay_at_knot() {
    records_follow_the_pool(Software::Knot);
}

#[test]
fn without_spec_dns_the_records_are_withdrawn_and_shown() {
    test(async |namespace| {
        let own = domain(namespace);
        let primary = Primary::start(Software::Bind, &[(&own, "")]).await?;
        let operator = Operator::start(namespace, &[]).await?;
        key(namespace).await?;
        create(namespace, &pool(&own, "hq", json!({"dns": at(&primary)}))).await?;
        pods_are(namespace, "hq", true).await?;
        until_leads_to(&primary, &own, &[&format!("hq.{own}")]).await?;
        edit(namespace, "hq", json!({"dns": null})).await?;
        until_leads_to(&primary, &own, &[]).await?;
        let shown = until_says(namespace, "hq", PUBLISHED, "True, NotManaged").await?;
        let first = format!("{}. 60 IN SRV 10 100 5269 hq.{own}.", starttls(&own));
        assert_eq!(shown["status"]["srvRecords"][0], json!(first));
        until(namespace, "hq", |it: &xmpp_edge_crds::kinds::EdgePool| {
            kube::ResourceExt::finalizers(it).is_empty().then_some(())
        })
        .await?;
        xmpp_edge_tests::wait::until("nothing is measured of it", SOON, async || {
            let published = operator.metric("xmpp_edge_operator_dns_published", &[]);
            published.await.ok()?.is_none().then_some(())
        })
        .await
    });
}
