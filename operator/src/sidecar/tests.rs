#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::{
    inject::{InjectError, Injection, inject},
    parameters::SidecarParameters,
    parts, policy,
    workload::{SidecarRendering, WorkloadError},
};

fn parameters() -> SidecarParameters {
    let resolver = "10.96.0.10:53".parse().unwrap();
    SidecarParameters::new(
        "registry.example/xmpp-edge-proxy:1.2.3".to_owned(),
        vec![resolver],
    )
}

fn rendering() -> SidecarRendering {
    SidecarRendering {
        parameters: parameters(),
        namespace: "default".to_owned(),
    }
}

fn pod(more: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "prosody", "labels": { "xmpp-edge.dev/sidecar": "org.example" } },
        "spec": { "containers": [{ "name": "prosody", "image": "prosody" }] },
    });
    let fields = more.as_object().unwrap().clone();
    pod["spec"].as_object_mut().unwrap().extend(fields);
    pod
}

fn injected(mut pod: Value) -> Value {
    let done = inject(&mut pod, "chat", &parameters()).unwrap();
    assert_eq!(done, Injection::Injected);
    pod
}

#[test]
fn a_labelled_pod_gets_the_sidecar_first_and_its_dns() {
    let pod = injected(pod(json!({ "initContainers": [{ "name": "migrate" }] })));
    let spec = &pod["spec"];
    let names: Vec<_> = spec["initContainers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, [parts::CONTAINER, "migrate"]);
    let sidecar = &spec["initContainers"][0];
    assert_eq!(sidecar["restartPolicy"], "Always");
    assert_eq!(sidecar["image"], "registry.example/xmpp-edge-proxy:1.2.3");
    let arguments = sidecar["args"].as_array().unwrap();
    assert_eq!(arguments.last().unwrap(), "--resolver=10.96.0.10:53");
    assert!(sidecar.get("readinessProbe").is_none() && sidecar.get("lifecycle").is_none());
    assert_eq!(
        spec["volumes"][0]["secret"]["secretName"],
        "xmpp-edge-sidecar-org.example"
    );
    assert_eq!(spec["volumes"][0]["secret"]["optional"], true);
    assert_eq!(spec["dnsPolicy"], "None");
    assert_eq!(spec["dnsConfig"]["nameservers"], json!(["127.0.0.1"]));
    assert_eq!(
        spec["dnsConfig"]["searches"],
        json!([
            "chat.svc.cluster.local",
            "svc.cluster.local",
            "cluster.local"
        ])
    );
    let sysctls = &spec["securityContext"]["sysctls"];
    assert_eq!(sysctls, &json!([{ "name": parts::SYSCTL, "value": "0" }]));
    for container in [&spec["containers"][0], &spec["initContainers"][1]] {
        assert_eq!(container["volumeMounts"], json!([parts::public_mount()]));
    }
    let left = pod.to_string();
    assert!(
        !left.contains("{gateway}") && !left.contains("dnsArguments"),
        "{left}"
    );
}

#[test]
fn where_the_cluster_chooses_ids_the_sidecar_names_none() {
    let mut parameters = parameters();
    let context = parameters.security_context.as_object_mut().unwrap();
    context.remove("runAsUser");
    context.remove("runAsGroup");
    let mut pod = pod(json!({}));
    inject(&mut pod, "chat", &parameters).unwrap();
    let context = &pod["spec"]["initContainers"][0]["securityContext"];
    assert_eq!(context, &parameters.security_context);
    let variables = policy::variables_of(&parameters);
    let said = variables.iter().find(|it| it["name"] == "securityContext");
    let said = said.unwrap()["expression"].as_str().unwrap();
    assert!(
        said.contains("'runAsNonRoot': dyn(true)") && !said.contains("runAsUser"),
        "{said}"
    );
    // The template itself names none.
    let [mutating, _] = policy::policies();
    assert!(!mutating.to_string().contains("65532"));
}

#[test]
fn what_is_the_pod_s_own_is_kept() {
    let own = injected(pod(json!({
        "securityContext": {
            "fsGroup": 7,
            "sysctls": [{ "name": parts::SYSCTL, "value": "25" }, { "name": "net.core.somaxconn", "value": "1" }],
        },
        "dnsConfig": {
            "searches": ["own.example", "cluster.local"],
            "options": [{ "name": "ndots", "value": "1" }, { "name": "edns0" }],
        },
        "volumes": [{ "name": "data", "emptyDir": {} }],
    })));
    let spec = &own["spec"];
    let sysctls = spec["securityContext"]["sysctls"].as_array().unwrap();
    assert_eq!((sysctls.len(), &sysctls[0]["value"]), (2, &json!("25")));
    assert_eq!(spec["securityContext"]["fsGroup"], 7);
    assert_eq!(
        spec["dnsConfig"]["searches"],
        json!([
            "chat.svc.cluster.local",
            "svc.cluster.local",
            "cluster.local",
            "own.example"
        ])
    );
    let options: Vec<_> = spec["dnsConfig"]["options"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            format!(
                "{}:{}",
                it["name"].as_str().unwrap(),
                it["value"].as_str().unwrap_or("")
            )
        })
        .collect();
    assert_eq!(options, ["ndots:1", "edns0:", "timeout:2", "attempts:3"]);
    assert_eq!(spec["volumes"][0]["name"], "data");
}

#[test]
fn dns_is_left_alone_where_the_pod_says_so() {
    let mut off = pod(json!({}));
    off["metadata"]["labels"][parts::DNS_LABEL] = json!("off");
    let none = pod(json!({ "dnsPolicy": "None", "dnsConfig": { "nameservers": ["192.0.2.53"] } }));
    for pod in [off, none] {
        let before = pod["spec"].clone();
        let after = injected(pod);
        let spec = &after["spec"];
        for field in ["dnsPolicy", "dnsConfig", "securityContext"] {
            assert_eq!(spec[field], before[field], "{field}");
        }
        let arguments = spec["initContainers"][0]["args"].as_array().unwrap();
        assert_eq!(arguments.last().unwrap(), parts::NO_VIEW);
    }
}

#[test]
fn a_template_without_label_or_with_a_sidecar_is_not_touched() {
    let mut plain = pod(json!({ "hostNetwork": true }));
    plain["metadata"].as_object_mut().unwrap().remove("labels");
    let present = injected(pod(json!({})));
    for (pod, expected) in [(plain, Injection::NotAsked), (present, Injection::Present)] {
        let mut after = pod.clone();
        assert_eq!(inject(&mut after, "chat", &parameters()), Ok(expected));
        assert_eq!(after, pod);
    }
}

#[test]
fn what_cannot_have_a_sidecar_is_refused_with_what_to_do_and_not_touched() {
    let mut name = pod(json!({}));
    name["metadata"]["labels"][parts::LABEL] = json!("Org_Example");
    let cases = [
        (name, InjectError::Name),
        (
            pod(json!({ "hostNetwork": true })),
            InjectError::HostNetwork,
        ),
        (
            pod(json!({ "containers": "none" })),
            InjectError::Shape("containers"),
        ),
        (pod(json!({ "volumes": 7 })), InjectError::Shape("volumes")),
    ];
    for (pod, expected) in cases {
        let mut after = pod.clone();
        assert_eq!(inject(&mut after, "chat", &parameters()), Err(expected));
        assert_eq!(after, pod);
    }
    let mut parameters = parameters();
    parameters.resolvers.clear();
    let mut asks = pod(json!({}));
    let fault = inject(&mut asks, "chat", &parameters).unwrap_err();
    assert!(
        fault.to_string().contains("give --resolver IP:PORT"),
        "{fault}"
    );
}

fn workload(kind: &str) -> Value {
    let template =
        json!({ "metadata": pod(json!({}))["metadata"], "spec": pod(json!({}))["spec"] });
    let spec = match kind {
        "CronJob" => json!({ "jobTemplate": { "spec": { "template": template } } }),
        _ => json!({ "template": template }),
    };
    json!({ "apiVersion": "x/v1", "kind": kind, "metadata": { "name": "a", "namespace": "own" }, "spec": spec })
}

#[test]
fn every_kind_of_workload_is_known_and_other_objects_pass() {
    let service = json!({ "kind": "Service", "metadata": { "name": "prosody" } });
    for kind in [
        "Deployment",
        "StatefulSet",
        "DaemonSet",
        "ReplicaSet",
        "Job",
        "CronJob",
    ] {
        let objects = [service.clone(), workload(kind)];
        let rendered = rendering().objects(&objects).unwrap();
        assert_eq!(rendered[0], service);
        let text = rendered[1].to_string();
        assert!(text.contains("own.svc.cluster.local"), "{kind}: {text}");
        let patches = rendering().patches(&objects).unwrap();
        assert_eq!(patches.len(), 1);
        assert_eq!(
            patches[0]["metadata"],
            json!({ "name": "a", "namespace": "own" })
        );
        assert!(patches[0].to_string().contains(parts::CONTAINER), "{kind}");
        assert!(
            !patches[0].to_string().contains("\"image\":\"prosody\""),
            "{kind}"
        );
    }
    assert_eq!(rendering().objects(&[service]), Err(WorkloadError::NoLabel));
    let done = rendering().objects(&[workload("Deployment")]).unwrap();
    assert_eq!(
        rendering().patches(&done),
        Err(WorkloadError::NothingToPatch)
    );
    let said = rendering().objects(&[pod(json!({ "hostNetwork": true }))]);
    let said = said.unwrap_err().to_string();
    assert!(
        said.starts_with("Pod \"prosody\": a sidecar shares its loopback"),
        "{said}"
    );
}

/// A slot that CEL does not know would stand in pods as it is.
#[test]
fn no_slot_is_left_in_the_policies() {
    for policy in policy::policies() {
        let text = policy.to_string();
        for left in [
            "{gateway}",
            "{namespace}",
            "{image",
            "{cluster",
            "Request}",
            "Limit}",
            "{dns",
        ] {
            assert!(!text.contains(left), "{left}: {text}");
        }
    }
}

/// `UPDATE_CRDS=1 cargo test -p xmpp-edge-operator --lib sidecar` writes it anew.
#[test]
fn the_chart_has_the_policies_that_the_template_makes() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../charts/xmpp-edge/files/sidecar/policies.yaml"
    );
    let wanted = serde_saphyr::to_string(&policy::policies()).unwrap();
    if std::env::var_os("UPDATE_CRDS").is_some() {
        std::fs::write(path, &wanted).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        there == wanted,
        "{path} is stale: run the test with UPDATE_CRDS=1"
    );
}
