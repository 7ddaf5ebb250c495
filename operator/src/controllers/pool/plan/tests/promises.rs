//! What every plan keeps, whatever the pool says.

use serde_json::Value;

use super::*;
use crate::controllers::pool::plan::deployment;

fn template(more: &str) -> Value {
    manifest(&planned(more), ChildKind::Deployment, "hq")["spec"]["template"].clone()
}

#[test]
fn pods_stay_within_the_restricted_pod_security_standard() {
    for more in [
        "",
        "  listeners: {s2s: 269}\n",
        "  podTemplate: {nodeSelector: {a: b}}\n",
    ] {
        let template = template(more);
        let (pod, container) = (&template["spec"], &template["spec"]["containers"][0]);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(
            pod["securityContext"]["seccompProfile"]["type"],
            "RuntimeDefault"
        );
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(
            container["securityContext"]["allowPrivilegeEscalation"],
            false
        );
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        assert_eq!(
            container["securityContext"]["capabilities"],
            serde_json::json!({"drop": ["ALL"]})
        );
        for field in ["hostNetwork", "hostPID", "hostIPC", "serviceAccountName"] {
            assert!(pod.get(field).is_none(), "{field}");
        }
    }
}

#[test]
fn low_ports_are_opened_by_the_safe_sysctl_alone() {
    let sysctls = |more: &str| template(more)["spec"]["securityContext"]["sysctls"].clone();
    assert_eq!(sysctls(""), Value::Null);
    assert_eq!(
        sysctls("  listeners: {directTls: 443, dns: 53}\n"),
        serde_json::json!([{"name": "net.ipv4.ip_unprivileged_port_start", "value": "53"}])
    );
}

#[test]
fn partners_policies_and_certificates_change_no_pod() {
    let before = template("");
    for certificate in [
        "  certificate: {secretRef: {name: other}}\n",
        "  certificate: {certManager: {issuerRef: {name: i}}}\n",
        "  certificate: {csr: {chainSecretRef: {name: later}}}\n",
    ] {
        let pool = pool(certificate);
        let mut config = config(&pool);
        config.generation = 77;
        let plan = plan(&pool, &config, &facts());
        let after = manifest(&plan, ChildKind::Deployment, "hq");
        assert_eq!(after["spec"]["template"], before, "{certificate}");
    }
    let scaled = template("  replicas: 7\n");
    assert_eq!(scaled, before, "more replicas replace none");
}

#[test]
fn the_grace_period_covers_notice_queues_and_closing() {
    for (timeout, grace) in [(20, 50), (25, 55), (1, 31)] {
        let template = template(&format!("  settings: {{queueTimeoutSeconds: {timeout}}}\n"));
        let spec = &template["spec"];
        assert_eq!(spec["terminationGracePeriodSeconds"], grace);
        let sleep = &spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"];
        assert!(sleep.as_i64().unwrap() + timeout < grace);
    }
}

#[test]
fn one_replica_with_embedded_contacts_has_a_volume_that_outlives_the_pool() {
    let plan = planned("  replicas: 1\n");
    let claim = manifest(&plan, ChildKind::PersistentVolumeClaim, "hq-contacts");
    assert!(claim["metadata"].get("ownerReferences").is_none());
    let deployment = manifest(&plan, ChildKind::Deployment, "hq");
    assert_eq!(
        deployment["spec"]["strategy"],
        serde_json::json!({"type": "Recreate"})
    );
    assert!(plan.child(ChildKind::PodDisruptionBudget, "hq").is_none());
    assert!(
        plan.absent
            .contains(&(ChildKind::PodDisruptionBudget, "hq".into()))
    );
    for more in [
        "  replicas: 2\n",
        "  replicas: 1\n  contacts: {postgres: {secretRef: {name: db}}}\n",
    ] {
        let plan = planned(more);
        let deployment = manifest(&plan, ChildKind::Deployment, "hq");
        assert_eq!(deployment["spec"]["strategy"]["type"], "RollingUpdate");
        let claim = plan.child(ChildKind::PersistentVolumeClaim, "hq-contacts");
        assert!(claim.is_none(), "{more}");
        // It is not deleted either: a smaller pool finds its contacts again.
        assert!(
            plan.absent
                .iter()
                .all(|(kind, _)| *kind != ChildKind::PersistentVolumeClaim)
        );
    }
}

#[test]
fn a_volume_that_is_there_keeps_its_storage_class() {
    let pool = pool(&format!(
        "{SELF_SIGNED}  replicas: 1\n  contacts: {{embedded: {{size: 2Gi, storageClassName: new}}}}\n"
    ));
    let held = serde_saphyr::from_str(
        "{metadata: {name: hq-contacts}, spec: {storageClassName: old, resources: {requests: {storage: 1Gi}}}}",
    )
    .unwrap();
    let facts = Facts {
        volume: Some(&held),
        ..facts()
    };
    let plan = plan(&pool, &config(&pool), &facts);
    let claim = manifest(&plan, ChildKind::PersistentVolumeClaim, "hq-contacts");
    assert_eq!(claim["spec"]["storageClassName"], "old");
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "2Gi");
}

/// The API server refuses a smaller claim at each look, and the pool would not be ready for it.
#[test]
fn a_volume_that_somebody_enlarged_stays_as_large() {
    for (held, wanted, expected) in [
        ("5Gi", "2Gi", "5Gi"),
        ("1Gi", "2Gi", "2Gi"),
        ("2048Mi", "2Gi", "2Gi"),
    ] {
        let pool = pool(&format!(
            "{SELF_SIGNED}  replicas: 1\n  contacts: {{embedded: {{size: {wanted}}}}}\n"
        ));
        let held = format!(
            "{{metadata: {{name: hq-contacts}}, spec: {{resources: {{requests: {{storage: {held}}}}}}}}}"
        );
        let held = serde_saphyr::from_str(&held).unwrap();
        let facts = Facts {
            volume: Some(&held),
            ..facts()
        };
        let plan = plan(&pool, &config(&pool), &facts);
        let claim = manifest(&plan, ChildKind::PersistentVolumeClaim, "hq-contacts");
        let asked = &claim["spec"]["resources"]["requests"]["storage"];
        assert_eq!(*asked, expected, "{held:?} {wanted}");
    }
}

#[test]
fn everything_but_the_volume_goes_with_the_pool() {
    for more in ["", "  replicas: 1\n"] {
        for child in planned(more).children {
            let manifest = child.manifest().unwrap();
            let owners = manifest["metadata"]["ownerReferences"].as_array();
            if child.kind() == ChildKind::PersistentVolumeClaim {
                assert!(owners.is_none());
            } else {
                assert_eq!(owners.unwrap()[0]["uid"], "0a-uid", "{}", child.name());
                assert_eq!(owners.unwrap()[0]["controller"], true);
            }
            let labels = &manifest["metadata"]["labels"];
            assert_eq!(labels["app.kubernetes.io/managed-by"], "xmpp-edge-operator");
            assert_eq!(labels["app.kubernetes.io/instance"], "hq");
        }
    }
}

#[test]
fn shards_in_place_are_not_planned_again_and_surplus_ones_are_absent() {
    let pool = pool(SELF_SIGNED);
    let config = config(&pool);
    let first = plan(&pool, &config, &facts());
    assert!(first.child(ChildKind::ConfigMap, "hq-config-0").is_some());
    let surplus = first
        .absent
        .iter()
        .filter(|(kind, _)| *kind == ChildKind::ConfigMap);
    assert_eq!(surplus.count(), 7);
    let facts = Facts {
        written: Some(config.generation),
        ..facts()
    };
    let again = plan(&pool, &config, &facts);
    assert!(again.child(ChildKind::ConfigMap, "hq-config-0").is_none());
    assert!(
        again
            .absent
            .iter()
            .all(|(kind, _)| *kind != ChildKind::ConfigMap)
    );
}

#[test]
fn a_deployment_rolls_until_every_pod_is_of_the_newest_template() {
    // (generation, observed, wanted, replicas, updated) → rolling
    for (generation, observed, wanted, all, updated, rolling) in [
        (2, 2, 3, 3, 3, false),
        (2, 1, 3, 3, 3, true),
        (2, 2, 3, 4, 1, true),
        (2, 2, 3, 3, 2, true),
        (2, 2, 3, 4, 3, true),
        (2, 2, 0, 0, 0, false),
    ] {
        let object = serde_json::json!({
            "metadata": {"name": "hq", "generation": generation},
            "spec": {"replicas": wanted, "selector": {}, "template": {}},
            "status": {"observedGeneration": observed, "replicas": all, "updatedReplicas": updated},
        });
        let object = serde_json::from_value(object).unwrap();
        assert_eq!(deployment::is_rolling(&object), rolling, "{object:?}");
    }
}

#[test]
fn an_absent_number_of_replicas_is_what_the_store_of_contacts_serves_well() {
    for (more, replicas, volume, strategy) in [
        ("", 1, true, "Recreate"),
        ("  contacts: {embedded: {}}\n", 1, true, "Recreate"),
        (
            "  contacts: {postgres: {secretRef: {name: db}}}\n",
            2,
            false,
            "RollingUpdate",
        ),
    ] {
        // The word keeps the fixture from a number of its own.
        let pool = pool(&format!("  # no replicas:\n{SELF_SIGNED}{more}"));
        let plan = plan(&pool, &config(&pool), &facts());
        let deployment = manifest(&plan, ChildKind::Deployment, "hq");
        assert_eq!(deployment["spec"]["replicas"], replicas, "{more}");
        assert_eq!(deployment["spec"]["strategy"]["type"], strategy, "{more}");
        let claim = plan.child(ChildKind::PersistentVolumeClaim, "hq-contacts");
        assert_eq!(claim.is_some(), volume, "{more}");
    }
}

#[test]
fn k6_user_and_groups_are_left_out_where_the_pool_says_so() {
    let ids = |more: &str| {
        let context = &template(more)["spec"]["securityContext"];
        ["runAsUser", "runAsGroup", "fsGroup"].map(|key| context[key].as_i64())
    };
    assert_eq!(ids(""), [Some(65_532); 3]);
    let none = "  podTemplate: {securityContext: {}}\n";
    assert_eq!(ids(none), [None; 3]);
    let user = "  podTemplate: {securityContext: {runAsUser: 1000700000}}\n";
    assert_eq!(ids(user), [Some(1_000_700_000), None, None]);
    for more in [none, user] {
        let template = template(more);
        let context = &template["spec"]["securityContext"];
        assert_eq!(context["runAsNonRoot"], true);
        assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
    }
}

#[test]
fn k9_pull_secrets_of_the_operator_reach_pools_that_name_none() {
    let given = ["all".to_owned()];
    let names = |more: &str| {
        let pool = pool(&format!("{SELF_SIGNED}{more}"));
        let mut facts = facts();
        facts.proxy_image.pull_secrets = &given;
        let plan = plan(&pool, &config(&pool), &facts);
        let deployment = manifest(&plan, ChildKind::Deployment, "hq");
        deployment["spec"]["template"]["spec"]["imagePullSecrets"].clone()
    };
    assert_eq!(names(""), serde_json::json!([{"name": "all"}]));
    let own = "  podTemplate: {imagePullSecrets: [{name: own}]}\n";
    assert_eq!(names(own), serde_json::json!([{"name": "own"}]));
}

#[test]
fn a_renewal_by_cert_manager_keeps_the_key_that_partners_pinned_unless_told_otherwise() {
    for (more, policy) in [
        ("", "Never"),
        (", privateKey: {rotationPolicy: Always}", "Always"),
    ] {
        let pool = pool(&format!(
            "  certificate: {{certManager: {{issuerRef: {{name: i}}{more}}}}}\n"
        ));
        let plan = plan(&pool, &config(&pool), &facts());
        let certificate = manifest(&plan, ChildKind::Certificate, "hq");
        let key = &certificate["spec"]["privateKey"];
        assert_eq!(key["rotationPolicy"], policy, "{more}");
    }
}

#[test]
fn sidecars_find_each_pod_ready_or_not_and_the_edge_dials_none_of_their_servers() {
    let plain = planned("");
    assert!(plain.child(ChildKind::Service, "hq-trunk").is_none());
    let mut pool = pool(SELF_SIGNED);
    let gateway = &mut pool.spec.gateways[0];
    gateway.mode = xmpp_edge_crds::edge_config::GatewayMode::Sidecar;
    let config = config(&pool);
    let behind = plan(&pool, &config, &facts());
    let service = manifest(&behind, ChildKind::Service, "hq-trunk");
    assert_eq!(service["spec"]["clusterIP"], "None");
    assert_eq!(service["spec"]["publishNotReadyAddresses"], true);
    assert_eq!(service["spec"]["ports"][0]["port"], 23456);
    assert_eq!(config.edges[0].replicas, 2);
    let dialled = |plan: &PoolPlan| {
        let policy = manifest(plan, ChildKind::NetworkPolicy, "hq");
        policy["spec"]["egress"].to_string().contains("\"chat\"")
    };
    assert!(dialled(&plain) && !dialled(&behind));
}
