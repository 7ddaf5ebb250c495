use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use xmpp_edge_crds::edge_config::shards;
use xmpp_edge_tests::{
    cluster::{FakePod, Operator},
    wait,
};

use crate::{SERVER, stage::*};

#[test]
fn a_pool_gets_every_object_that_it_needs_and_its_pods_pass_the_restricted_standard() {
    SERVER.test(async |namespace| {
        let _operator =
            Operator::start(namespace, &["--proxy-image=registry.example/proxy:1"]).await?;
        create(namespace, &pool(namespace, "hq", json!({}))).await?;
        let deployment = until(namespace, "hq", |it: &Deployment| Some(it.clone())).await?;
        until(namespace, "hq-edge", |it: &Service| it.spec.clone()).await?;
        until(namespace, "hq-internal", |it: &Service| it.spec.clone()).await?;
        until(namespace, "hq-pods", |it: &Service| it.spec.clone()).await?;
        until(namespace, "hq", |it: &NetworkPolicy| it.spec.clone()).await?;
        until(namespace, "hq", |it: &PodDisruptionBudget| it.spec.clone()).await?;
        let shard = until(namespace, "hq-config-0", |it: &ConfigMap| {
            Some(it.binary_data.as_ref()?.get("shard")?.0.clone())
        });
        let document = shards::decode(&[shard.await?])?.config;
        assert_eq!(document.pool, "hq");
        let trusted = until(namespace, "xmpp-edge-internal-ca", |it: &ConfigMap| {
            it.data.as_ref()?.get("ca.crt").cloned()
        })
        .await?;
        let ca = until(namespace, "xmpp-edge-internal-ca", |it: &Secret| {
            text(it, "tls.crt")
        })
        .await?;
        assert_eq!(trusted, ca);
        let gateway = format!("xmpp-edge-gateway-{}", domain(namespace));
        for (name, key) in [
            ("hq-internal-issuer", "tls.key"),
            ("hq-tls", "tls.crt"),
            ("hq-admin", "token"),
            ("xmpp-edge-dialback", "secret"),
            (&gateway, "ca.crt"),
        ] {
            until(namespace, name, |it: &Secret| text(it, key)).await?;
        }
        // Two replicas: nothing is kept in the pods.
        let claims: Api<PersistentVolumeClaim> = namespace.api();
        assert!(claims.get_opt("hq-contacts").await?.is_none());
        for kept in ["xmpp-edge-internal-ca", "xmpp-edge-dialback"] {
            let secret = namespace.api::<Secret>().get(kept).await?;
            assert!(secret.owner_references().is_empty(), "{kept}");
        }

        let strict = format!("{}-strict", namespace.name);
        let label = ("pod-security.kubernetes.io/enforce", "restricted");
        namespace.server.namespace(&strict, &[label]).await?;
        let template = deployment.spec.unwrap().template;
        let mut pod = Pod {
            metadata: template.metadata.unwrap_or_default(),
            spec: template.spec,
            ..Pod::default()
        };
        pod.metadata.name = Some("one".into());
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let pods: Api<Pod> = Api::namespaced(namespace.server.client(), &strict);
        pods.create(&dry, &pod).await?;

        let status = until_says(namespace, "hq", "CertificateReady", "True, Issued").await?;
        let status = &status["status"];
        assert_eq!(
            status["selector"],
            "app.kubernetes.io/instance=hq,app.kubernetes.io/name=xmpp-edge-proxy"
        );
        assert!(status["config"]["generation"].as_i64().unwrap() >= 1);
        assert!(status["certificate"]["dnsNames"].as_array().unwrap().len() == 2);
        assert!(
            status["srvRecords"][0]
                .as_str()
                .unwrap()
                .starts_with("_xmpp-server._tcp.")
        );
        until_says(namespace, "hq", "Ready", "False, NoReadyReplica").await?;
        Ok(())
    });
}

#[test]
fn one_edit_of_a_partner_writes_one_document_and_hurries_the_pods() {
    SERVER.test(async |namespace| {
        let _operator = Operator::start(namespace, &[]).await?;
        create(namespace, &pool(namespace, "hq", json!({}))).await?;
        until_says(namespace, "hq", "CertificateReady", "True, Issued").await?;
        // The Service's address becomes known a look later, and is in the document.
        let settled = until(namespace, "hq-config-0", |it: &ConfigMap| {
            let shard = it.binary_data.as_ref()?.get("shard")?.0.clone();
            let document = shards::decode(&[shard]).ok()?.config;
            (!document.edges[0].addresses.is_empty()).then_some(document.generation)
        })
        .await?;
        let pod = FakePod::start(namespace, "hq", settled).await?;
        let pods: Api<Pod> = namespace.api();
        let mounted = async |than: Option<String>| -> anyhow::Result<String> {
            let found = wait::until("the pod is told", SOON, async || {
                let all = pods.list(&Default::default()).await.ok()?;
                let print = all.items[0]
                    .annotations()
                    .get("xmpp-edge.dev/mounted")?
                    .clone();
                (Some(&print) != than.as_ref()).then_some(print)
            });
            found.await
        };
        let before = mounted(None).await?;
        until_says(namespace, "hq", "ConfigReplicated", "True, InSync").await?;
        let mark = namespace.server.audit().mark();
        create(
            namespace,
            &json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "XmppFederatedPartner",
            "metadata": {"name": "p"}, "spec": {"domain": "p.example"}}),
        )
        .await?;
        mounted(Some(before)).await?;
        until_says(namespace, "hq", "ConfigReplicated", "False, Pending").await?;
        pod.load(settled + 1);
        until_says(namespace, "hq", "ConfigReplicated", "True, InSync").await?;
        let mut writes: BTreeMap<String, usize> = BTreeMap::new();
        for entry in namespace.server.audit().since(mark)? {
            let Some(object) = &entry.object_ref else {
                continue;
            };
            let ours = entry.user_agent.contains("xmpp-edge") || entry.verb == "patch";
            if ours
                && object.namespace == namespace.name
                && ["patch", "update", "create", "delete"].contains(&entry.verb.as_str())
            {
                *writes.entry(object.resource.clone()).or_default() += 1;
            }
        }
        assert_eq!(writes.get("configmaps"), Some(&1), "{writes:?}");
        assert_eq!(writes.get("pods"), Some(&1), "{writes:?}");
        for untouched in [
            "secrets",
            "services",
            "deployments",
            "networkpolicies",
            "poddisruptionbudgets",
        ] {
            assert_eq!(writes.get(untouched), None, "{writes:?}");
        }
        Ok(())
    });
}

#[test]
fn what_somebody_changes_or_deletes_comes_back_and_what_is_no_longer_wanted_goes() {
    SERVER.test(async |namespace| {
        let _operator = Operator::start(namespace, &[]).await?;
        create(namespace, &pool(namespace, "hq", json!({}))).await?;
        // They are written side by side: the Deployment's being there says nothing of the others.
        until(namespace, "hq", |it: &Deployment| it.spec.clone()).await?;
        until(namespace, "hq-edge", |it: &Service| it.spec.clone()).await?;
        until(namespace, "hq", |it: &PodDisruptionBudget| it.spec.clone()).await?;
        let services: Api<Service> = namespace.api();
        services.delete("hq-edge", &DeleteParams::default()).await?;
        until(namespace, "hq-edge", |it: &Service| it.spec.clone()).await?;
        let budgets: Api<PodDisruptionBudget> = namespace.api();
        let patch = Patch::Merge(json!({"spec": {"maxUnavailable": 2}}));
        budgets.patch("hq", &PatchParams::default(), &patch).await?;
        until(namespace, "hq", |it: &PodDisruptionBudget| {
            let spec = it.spec.as_ref()?;
            (serde_json::to_value(&spec.max_unavailable).ok()? == 1).then_some(())
        })
        .await?;
        edit(
            namespace,
            "hq",
            json!({"replicas": 1, "networkPolicy": {"enabled": false},
            "service": {"annotations": {"a.example/b": "c"}}}),
        )
        .await?;
        let policies: Api<NetworkPolicy> = namespace.api();
        wait::until("NetworkPolicy and budget go", SOON, async || {
            let policy = policies.get_opt("hq").await.ok()?;
            let budget = budgets.get_opt("hq").await.ok()?;
            (policy.is_none() && budget.is_none()).then_some(())
        })
        .await?;
        until(namespace, "hq-contacts", |it: &PersistentVolumeClaim| {
            it.spec.clone()
        })
        .await?;
        until(namespace, "hq-edge", |it: &Service| {
            it.annotations().get("a.example/b").cloned()
        })
        .await?;
        // A field less in the spec is a field less in the object.
        edit(namespace, "hq", json!({"service": {"annotations": null}})).await?;
        until(namespace, "hq-edge", |it: &Service| {
            (!it.annotations().contains_key("a.example/b")).then_some(())
        })
        .await?;
        Ok(())
    });
}

#[test]
fn an_object_of_somebody_else_is_left_alone_and_named() {
    SERVER.test(async |namespace| {
        let services: Api<Service> = namespace.api();
        let theirs = json!({"metadata": {"name": "hq-edge"}, "spec": {"ports": [{"port": 1}]}});
        services
            .create(&PostParams::default(), &serde_json::from_value(theirs)?)
            .await?;
        let _operator = Operator::start(namespace, &[]).await?;
        create(namespace, &pool(namespace, "hq", json!({}))).await?;
        let status = until_says(namespace, "hq", "Ready", "False, ObjectRefused").await?;
        assert!(
            status
                .to_string()
                .contains("Service \\\"hq-edge\\\" is there already"),
            "{status:#}"
        );
        assert!(services.get("hq-edge").await?.labels().is_empty());
        // All else is there, and it comes once the name is free and something is looked at.
        until(namespace, "hq", |it: &Deployment| it.spec.clone()).await?;
        services.delete("hq-edge", &DeleteParams::default()).await?;
        edit(namespace, "hq", json!({"replicas": 3})).await?;
        until_says(namespace, "hq", "Ready", "False, NoReadyReplica").await?;
        Ok(())
    });
}

#[test]
fn pools_of_one_domain_get_a_new_template_one_after_the_other() {
    SERVER.test(async |namespace| {
        let _operator = Operator::start(namespace, &[]).await?;
        for (name, priority) in [("hq", 10), ("branch", 20)] {
            create(
                namespace,
                &pool(namespace, name, json!({"route": {"priority": priority}})),
            )
            .await?;
        }
        let deployments: Api<Deployment> = namespace.api();
        let settle = async |name: &str| -> anyhow::Result<()> {
            let now = until(namespace, name, |it: &Deployment| Some(it.clone())).await?;
            let status = json!({"status": {"observedGeneration": now.metadata.generation,
                "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2}});
            deployments
                .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
                .await?;
            Ok(())
        };
        settle("hq").await?;
        settle("branch").await?;
        for name in ["hq", "branch"] {
            until_says(namespace, name, "CertificateReady", "True, Issued").await?;
        }
        let image = |it: &Deployment| {
            let pod = it.spec.as_ref()?.template.spec.as_ref()?;
            pod.containers[0].image.clone()
        };
        let is = |it: &Deployment| (image(it).as_deref() == Some("proxy:new")).then_some(());
        for name in ["hq", "branch"] {
            edit(namespace, name, json!({"image": "proxy:new"})).await?;
        }
        until(namespace, "branch", is).await?;
        // More pods of the old template are no new template.
        edit(namespace, "hq", json!({"replicas": 3})).await?;
        until(namespace, "hq", |it: &Deployment| {
            (it.spec.as_ref()?.replicas == Some(3)).then_some(())
        })
        .await?;
        let held = deployments.get("hq").await?;
        assert_ne!(image(&held).as_deref(), Some("proxy:new"));
        settle("branch").await?;
        until(namespace, "hq", is).await?;
        Ok(())
    });
}

#[test]
fn a_pool_is_scaled_as_a_deployment_is_and_says_how_far_its_pods_are() {
    SERVER.test(async |namespace| {
        let _operator = Operator::start(namespace, &[]).await?;
        create(namespace, &pool(namespace, "hq", json!({}))).await?;
        until(namespace, "hq", |it: &Deployment| it.spec.clone()).await?;
        let kubectl = namespace.server.kubectl();
        kubectl.run(&[
            "scale",
            "-n",
            &namespace.name,
            "epool",
            "hq",
            "--replicas=3",
        ])?;
        let deployment = until(namespace, "hq", |it: &Deployment| {
            (it.spec.as_ref()?.replicas == Some(3)).then(|| it.clone())
        })
        .await?;
        let status = json!({"status": {"observedGeneration": deployment.metadata.generation,
            "replicas": 3, "updatedReplicas": 3, "readyReplicas": 2, "availableReplicas": 2}});
        let deployments: Api<Deployment> = namespace.api();
        let patch = Patch::Merge(status);
        deployments
            .patch_status("hq", &PatchParams::default(), &patch)
            .await?;
        // What an autoscaler reads: it counts the pods that the selector names.
        let path = format!(
            "/apis/xmpp-edge.dev/v1alpha1/namespaces/{}/edgepools/hq/scale",
            namespace.name
        );
        let mut last = String::new();
        let found = wait::until("the scale says so", SOON, async || {
            last = kubectl.run(&["get", "--raw", &path]).ok()?;
            let scale: serde_json::Value = serde_json::from_str(&last).ok()?;
            (scale["spec"]["replicas"] == 3 && scale["status"]["replicas"] == 3).then_some(scale)
        });
        let scale = found.await.map_err(|error| error.context(last.clone()))?;
        let selector = scale["status"]["selector"].as_str().unwrap();
        let labels = deployment.spec.unwrap().selector.match_labels.unwrap();
        let labels: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        assert_eq!(selector, labels.join(","));
        Ok(())
    });
}

#[test]
fn a_document_that_a_backup_brings_back_under_the_number_in_force_is_written_over() {
    SERVER.test(async |namespace| {
        let _operator = Operator::start(namespace, &[]).await?;
        create(namespace, &pool(namespace, "hq", json!({}))).await?;
        let shard = |it: &ConfigMap| Some(it.binary_data.as_ref()?.get("shard")?.0.clone());
        let settled = until(namespace, "hq-config-0", |it: &ConfigMap| {
            let config = shards::decode(&[shard(it)?]).ok()?.config;
            (!config.edges[0].addresses.is_empty()).then_some(config)
        })
        .await?;
        let written = shards::encode(&settled)?.shards.remove(0);
        let mut other = settled;
        other.site = "of-before".into();
        let restored = shards::encode(&other)?.shards.remove(0);
        let content = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, restored);
        let patch = Patch::Merge(json!({"binaryData": {"shard": content}}));
        let maps: Api<ConfigMap> = namespace.api();
        maps.patch("hq-config-0", &PatchParams::default(), &patch)
            .await?;
        until(namespace, "hq-config-0", |it: &ConfigMap| {
            (shard(it)? == written).then_some(())
        })
        .await
    });
}
