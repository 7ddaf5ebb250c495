//! Who owns which field: one manager for what the operator provisions, one for each kind's status;
//! what others add stays, what they take is taken back.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    cluster::{FakePod, Namespace, Operator},
    wait,
};

use crate::{SERVER, stage::*};

const SOMEBODY: &str = "somebody";

/// The managers of an object's fields by subresource, as kubectl shows them.
fn managers(object: &Value) -> BTreeSet<String> {
    let entries = object["metadata"]["managedFields"].as_array();
    entries
        .into_iter()
        .flatten()
        .map(|entry| {
            let manager = entry["manager"].as_str().unwrap_or_default();
            match entry["subresource"].as_str() {
                Some(subresource) => format!("{manager} {subresource}"),
                None => manager.to_owned(),
            }
        })
        .collect()
}

fn listed(namespace: &Namespace<'_>, kinds: &str) -> Result<Vec<Value>> {
    let arguments = [
        "get",
        "-n",
        &namespace.name,
        kinds,
        "-o",
        "json",
        "--show-managed-fields",
    ];
    let text = namespace.server.kubectl().run(&arguments)?;
    let list: Value = serde_json::from_str(&text)?;
    Ok(list["items"].as_array().context("a list")?.clone())
}

#[test]
fn each_kind_has_one_manager_for_what_is_provisioned_and_one_for_its_status() {
    SERVER.test(async |namespace| {
        let _operator = Operator::start(namespace, &[]).await?;
        create(namespace, &pool(namespace, "hq", json!({}))).await?;
        let ours = |kind: &str, name: &str, spec: Value| {
            json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
        };
        create(namespace, &ours("XmppFederatedPartner", "p", json!({"domain": "p.example"}))).await?;
        create(namespace, &ours("ExternalAccessPolicy", "all", json!({"scope": "Global"}))).await?;
        let _pod = FakePod::start(namespace, "hq", 1_000).await?;
        until_says(namespace, "hq", "ConfigReplicated", "True, InSync").await?;
        let of_kind: BTreeMap<&str, &str> = [
            ("EdgePool", "xmpp-edge-operator/pool-status status"),
            ("XmppFederatedPartner", "xmpp-edge-operator/partner status"),
            ("ExternalAccessPolicy", "xmpp-edge-operator/policy status"),
        ]
        .into();
        wait::until("each has its status", SOON, async || {
            let all = listed(namespace, "epool,xfp,exap").ok()?;
            (all.len() == 3 && all.iter().all(|it| it["status"]["conditions"].is_array())).then_some(())
        })
        .await?;
        for object in listed(namespace, "epool,xfp,exap")? {
            let kind = object["kind"].as_str().context("a kind")?;
            let mut found = managers(&object);
            found.retain(|it| it.starts_with("xmpp-edge-operator"));
            ensure!(found == [of_kind[kind].to_owned()].into(), "{kind}: {found:?}");
        }
        let children = listed(namespace, "deploy,svc,pdb,netpol,secret,cm")?;
        ensure!(children.len() > 8, "{} children", children.len());
        for object in children {
            let name = object["metadata"]["name"].as_str().context("a name")?;
            let found = managers(&object);
            ensure!(found == ["xmpp-edge-operator".to_owned()].into(), "{name}: {found:?}");
        }
        Ok(())
    });
}

#[test]
fn what_others_add_to_children_stays_and_what_they_take_over_is_taken_back() {
    SERVER.test(async |namespace| {
        let _operator = Operator::start(namespace, &[]).await?;
        create(namespace, &pool(namespace, "hq", json!({}))).await?;
        until_says(namespace, "hq", "CertificateReady", "True, Issued").await?;
        let theirs = json!({"labels": {"cost-centre": "4711"}, "annotations": {"mesh.example/inject": "no"}});
        let added = |kind: &str, version: &str| {
            json!({"apiVersion": version, "kind": kind, "metadata": theirs})
        };
        let parameters = PatchParams::apply(SOMEBODY);
        let deployments: Api<Deployment> = namespace.api();
        let services: Api<Service> = namespace.api();
        let deployment = added("Deployment", "apps/v1");
        deployments.patch("hq", &parameters, &Patch::Apply(deployment)).await?;
        let mut service = added("Service", "v1");
        services.patch("hq-edge", &parameters, &Patch::Apply(&service)).await?;

        // A field of the operator's own, taken by force.
        service["spec"]["externalTrafficPolicy"] = json!("Cluster");
        let refused = services.patch("hq-edge", &parameters, &Patch::Apply(&service)).await;
        let refused = refused.err().context("without force it is a conflict")?.to_string();
        ensure!(refused.contains("xmpp-edge-operator"), "{refused}");
        let by_force = parameters.clone().force();
        let taken = Patch::Apply(&service);
        let taken = services.patch("hq-edge", &by_force, &taken).await?;
        let policy = taken.spec.and_then(|it| it.external_traffic_policy);
        ensure!(policy.as_deref() == Some("Cluster"), "{policy:?}");
        until(namespace, "hq-edge", |it: &Service| {
            let spec = it.spec.as_ref()?;
            (spec.external_traffic_policy.as_deref() == Some("Local")).then_some(())
        })
        .await?;

        // The operator writes both anew for reasons of its own.
        edit(namespace, "hq", json!({"replicas": 3, "service": {"annotations": {"a.example/b": "c"}}})).await?;
        let deployment = until(namespace, "hq", |it: &Deployment| {
            (it.spec.as_ref()?.replicas == Some(3)).then(|| it.clone())
        });
        let deployment = deployment.await?;
        let service = until(namespace, "hq-edge", |it: &Service| {
            it.annotations().contains_key("a.example/b").then(|| it.clone())
        });
        let service = service.await?;
        for (what, labels, annotations) in [
            ("Deployment", deployment.labels(), deployment.annotations()),
            ("Service", service.labels(), service.annotations()),
        ] {
            ensure!(labels.get("cost-centre").is_some_and(|it| it == "4711"), "{what}: {labels:?}");
            ensure!(annotations.contains_key("mesh.example/inject"), "{what}: {annotations:?}");
        }
        Ok(())
    });
}
