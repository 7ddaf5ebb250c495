//! `spec.dns.externalDns`: the objects that the operator wrote, as the API server has them by
//! external-dns's own definition, run through external-dns's own code.

use anyhow::Result;
use hickory_proto::rr::RecordType;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::ListParams,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    cluster::{Namespace, Operator},
    dns::external::{ExternalDns, Target},
    primary::{EDITOR, Primary, SECRET, Software},
    wait,
};

use crate::{stage::*, test};

/// The objects of the namespace as they stand.
async fn stored(namespace: &Namespace<'_>) -> Result<Vec<Value>> {
    let kind = GroupVersionKind::gvk("externaldns.k8s.io", "v1alpha1", "DNSEndpoint");
    let kind = ApiResource::from_gvk_with_plural(&kind, "dnsendpoints");
    let api: Api<DynamicObject> =
        Api::namespaced_with(namespace.client.clone(), &namespace.name, &kind);
    let listed = api.list(&ListParams::default()).await?;
    let objects = listed.items.iter().map(serde_json::to_value);
    Ok(objects.collect::<Result<_, _>>()?)
}

/// The targets of an object's records of one name, in order.
fn targets_of(objects: &[Value], name: &str) -> Vec<String> {
    let endpoints = objects
        .iter()
        .filter_map(|object| object["spec"]["endpoints"].as_array())
        .flatten();
    let targets = endpoints
        .filter(|endpoint| endpoint["dnsName"] == name)
        .filter_map(|endpoint| endpoint["targets"].as_array())
        .flatten();
    let mut targets: Vec<String> = targets
        .filter_map(|target| target.as_str().map(str::to_owned))
        .collect();
    targets.sort();
    targets
}

/// Waits until the objects lead to just these targets; the objects then.
async fn until_written(
    namespace: &Namespace<'_>,
    name: &str,
    expected: &[&str],
) -> Result<Vec<Value>> {
    wait::until(&format!("{name}: {expected:?}"), SOON, async || {
        let objects = stored(namespace).await.ok()?;
        (targets_of(&objects, name) == expected).then_some(objects)
    })
    .await
}

#[test]
fn what_the_operator_writes_external_dns_creates_changes_and_withdraws() {
    test(async |namespace| {
        let Some(external_dns) = ExternalDns::build()? else {
            return Ok(());
        };
        let own = domain(namespace);
        let operator = Operator::start(namespace, &[]).await?;
        let site = |name: &str, ip: &str, priority: u16| {
            let fqdn = format!("{name}.{own}");
            let filters =
                json!({"labels": {"zone": "public"}, "annotations": {"filter": "public"}});
            let more = json!({"dns": {"externalDns": filters}, "route": {"priority": priority},
                "accessEdge": {"fqdn": fqdn, "addresses": [ip]}});
            pool(&own, name, more)
        };
        create(namespace, &site("hq", "192.0.2.1", 10)).await?;
        pods_are(namespace, "hq", true).await?;
        let missing = until_says(namespace, "hq", PUBLISHED, "False, KindMissing").await?;
        let said = message(&missing, PUBLISHED);
        assert!(
            said.contains("CustomResourceDefinition of external-dns"),
            "{said}"
        );

        let definition: CustomResourceDefinition =
            serde_saphyr::from_str(&external_dns.definition()?)?;
        namespace.server.install(&definition).await?;
        create(namespace, &site("dr", "2001:db8::2", 20)).await?;
        pods_are(namespace, "dr", true).await?;
        let srv = starttls(&own);
        let (hq, dr) = (
            format!("10 100 5269 hq.{own}."),
            format!("20 100 5269 dr.{own}."),
        );
        let mut moments = Vec::new();
        moments.push(until_written(namespace, &srv, &[&hq, &dr]).await?);
        for object in &moments[0] {
            assert_eq!(object["metadata"]["labels"]["zone"], "public");
            assert_eq!(object["metadata"]["annotations"]["filter"], "public");
            let owners = object["metadata"]["ownerReferences"].as_array();
            let owners = owners.into_iter().flatten();
            assert!(owners.clone().count() >= 1, "{object:#}");
            for owner in owners {
                assert_eq!(owner["kind"], "EdgePool");
                assert_ne!(owner["controller"], true);
            }
        }
        // No resolver here has it: the condition is what DNS answers, not what was written.
        let unheard = until(namespace, "hq", |pool: &xmpp_edge_crds::kinds::EdgePool| {
            let conditions = &pool.status.as_ref()?.conditions;
            let said = conditions.iter().find(|it| it.type_ == PUBLISHED)?;
            let told = matches!(said.reason.as_str(), "NotAnswered" | "DnsFailed");
            (said.status == "False" && told).then(|| said.message.clone())
        });
        assert!(unheard.await?.contains("the resolver does not answer"));
        let metric = operator.metric("xmpp_edge_operator_dns_published", &["pool=\"hq\""]);
        assert_eq!(metric.await?, Some(0.0));

        edit(namespace, "hq", json!({"route": {"priority": 5}})).await?;
        let hq = format!("5 100 5269 hq.{own}.");
        moments.push(until_written(namespace, &srv, &[&dr, &hq]).await?);
        pods_are(namespace, "hq", false).await?;
        moments.push(until_written(namespace, &srv, &[&dr]).await?);
        pods_are(namespace, "dr", false).await?;
        until(namespace, "dr", |pool: &xmpp_edge_crds::kinds::EdgePool| {
            (pool.status.as_ref()?.ready_replicas == 0).then_some(())
        })
        .await?;
        moments.push(until_written(namespace, &srv, &[&dr]).await?);
        pods_are(namespace, "hq", true).await?;
        moments.push(until_written(namespace, &srv, &[&hq]).await?);
        edit(namespace, "hq", json!({"route": {"enabled": false}})).await?;
        edit(namespace, "dr", json!({"route": {"enabled": false}})).await?;
        moments.push(until_written(namespace, &srv, &[]).await?);

        let answers = external_dns.run(None, &[&own], &moments)?;
        for answer in &answers {
            assert_eq!(answer["refused"], json!([]), "{answer:#}");
        }
        let led = |answer: &Value| -> Vec<String> {
            let records = answer["records"].as_array().unwrap().iter();
            let records = records.filter_map(Value::as_str);
            let ours = records.filter(|record| record.starts_with("_xmpp-server."));
            ours.map(|record| record.rsplit(' ').next().unwrap().to_owned())
                .collect()
        };
        let (hq, dr) = (format!("hq.{own}."), format!("dr.{own}."));
        let (hq, dr) = (hq.as_str(), dr.as_str());
        // The records of one name are told in the order of their text, priority first.
        for (moment, expected) in [
            (0, vec![hq, dr]),
            (1, vec![dr, hq]),
            (2, vec![dr]),
            (3, vec![dr]),
            (4, vec![hq]),
            (5, vec![]),
        ] {
            assert_eq!(led(&answers[moment]), expected, "{:#}", answers[moment]);
        }
        assert_eq!(answers[0]["created"], 4, "two services and two hosts");
        assert_eq!(answers[1]["updated"], 2, "{:#}", answers[1]);
        assert_eq!(answers[3]["updated"], 0, "{:#}", answers[3]);

        // Its provider for RFC 2136 cannot list SRV, but it creates what the objects say.
        let primary = Primary::start(Software::Bind, &[(&own, "")]).await?;
        let target = Target {
            server: &primary.address().to_string(),
            key: EDITOR,
            secret: SECRET,
        };
        let made = external_dns.run(Some(target), &[&own], &moments[..1])?;
        assert_eq!(made[0]["created"], 4, "{:#}", made[0]);
        until_leads_to(
            &primary,
            &own,
            &[&format!("dr.{own}"), &format!("hq.{own}")],
        )
        .await?;
        let names = [format!("hq.{own}"), format!("dr.{own}")];
        until_answers(&primary, &names[0], RecordType::A, &["192.0.2.1"]).await?;
        until_answers(&primary, &names[1], RecordType::AAAA, &["2001:db8::2"]).await
    });
}
