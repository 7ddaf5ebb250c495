//! What a value does to what is rendered, object by object; no cluster.

use serde_json::{Value, json};
use xmpp_edge_tests::cluster::{Helm, Major};

use super::{MAJORS, chart, documents, has_helm, title};

/// `Kind/name` to the objects of a template.
pub(super) fn render(helm: &Helm, settings: &[&str]) -> Vec<Value> {
    let chart = chart();
    let mut arguments = vec!["template", "xmpp-edge", &chart, "--namespace=edge-system"];
    arguments.push("--kube-version=1.36.0");
    arguments.extend(settings);
    documents(&helm.run(&arguments).unwrap())
}

/// Settings, object, place in it, and what is there.
type Row = (&'static [&'static str], &'static str, &'static str, Value);

const DEPLOYMENT: &str = "Deployment/xmpp-edge";
const CONTAINER: &str = "/spec/template/spec/containers/0";
const CRD: &str = "CustomResourceDefinition/edgepools.xmpp-edge.dev";
const KEEP: &str = "/metadata/annotations/helm.sh~1resource-policy";
const HOOK: &str = "/metadata/annotations/helm.sh~1hook";
/// The values for operators that outlive a node.
const HIGHLY_AVAILABLE: &str = concat!(
    "--values=",
    env!("CARGO_MANIFEST_DIR"),
    "/../charts/xmpp-edge/values-ha.yaml"
);
const APART: &str =
    "/spec/template/spec/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/0";

fn rows() -> Vec<Row> {
    let arguments = |more: &[&str]| {
        let mut all = vec![
            "run",
            "--log-format=json",
            "--admin-listen=[::]:9091",
            "--proxy-image=xmpp-edge-proxy:0.2.0",
            "--lease-name=xmpp-edge",
            "--page-listen=127.0.0.1:9092",
        ];
        all.extend(more);
        json!(all)
    };
    let of_container =
        |place: &str| -> &'static str { Box::leak(format!("{CONTAINER}{place}").into_boxed_str()) };
    let digest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    vec![
        // Two replicas, one of which may be away.
        (&[], DEPLOYMENT, "/spec/replicas", json!(2)),
        (
            &[],
            "PodDisruptionBudget/xmpp-edge",
            "/spec/maxUnavailable",
            json!(1),
        ),
        // Images: version of the chart, tag, digest.
        (
            &[],
            DEPLOYMENT,
            of_container("/image"),
            json!("xmpp-edge-operator:0.2.0"),
        ),
        (
            &["--set=image.repository=r.example/o,image.tag=v2"],
            DEPLOYMENT,
            of_container("/image"),
            json!("r.example/o:v2"),
        ),
        (
            &[
                "--set=image.tag=v2",
                "--set=image.digest=sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            ],
            DEPLOYMENT,
            of_container("/image"),
            json!(format!("xmpp-edge-operator@{digest}")),
        ),
        // A digest beside a tag is the operator's alone.
        (
            &[
                "--set=image.tag=v2@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            ],
            DEPLOYMENT,
            of_container("/image"),
            json!(format!("xmpp-edge-operator:v2@{digest}")),
        ),
        (
            &[
                "--set=image.tag=v2@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            ],
            DEPLOYMENT,
            of_container("/args/3"),
            json!("--proxy-image=xmpp-edge-proxy:v2"),
        ),
        (
            &["--set=image.repository=localhost:5000/a/b,proxyImage.repository=team/op"],
            DEPLOYMENT,
            of_container("/args/3"),
            json!("--proxy-image=team/op:0.2.0"),
        ),
        // The proxies' image is where the operator's is, under its tag.
        (
            &[
                "--set=image.repository=r.example/team/op,image.tag=v2",
                "--set=proxyImage.digest=sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            ],
            DEPLOYMENT,
            of_container("/args/3"),
            json!(format!(
                "--proxy-image=r.example/team/xmpp-edge-proxy@{digest}"
            )),
        ),
        (
            &["--set=image.registry=r.example:5000,proxyImage.tag=v3"],
            DEPLOYMENT,
            of_container("/args/3"),
            json!("--proxy-image=r.example:5000/xmpp-edge-proxy:v3"),
        ),
        (
            &["--set=global.imageRegistry=mirror.example,proxyImage.repository=edge/proxy"],
            DEPLOYMENT,
            of_container("/args/3"),
            json!("--proxy-image=mirror.example/edge/proxy:0.2.0"),
        ),
        (
            &["--set=global.imageRegistry=mirror.example"],
            "Job/xmpp-edge-uninstall",
            of_container("/image"),
            json!("mirror.example/xmpp-edge-operator:0.2.0"),
        ),
        (
            &["--set=global.imagePullSecrets={all},imagePullSecrets[0].name=own"],
            DEPLOYMENT,
            "/spec/template/spec/imagePullSecrets",
            json!([{"name": "own"}, {"name": "all"}]),
        ),
        // They reach the pools.
        (
            &["--set=imagePullSecrets[0].name=own"],
            DEPLOYMENT,
            of_container("/args/4"),
            json!("--proxy-image-pull-secret=own"),
        ),
        // What it is started with.
        (
            &[],
            DEPLOYMENT,
            of_container("/args"),
            arguments(&["--watch-namespace=edge-system"]),
        ),
        (
            &[
                "--set=watchNamespaces={club,chat}",
                "--set=dns.ownerId=west",
                "--set=dns.allowedServers={ns.example.org,192.0.2.53:5353}",
                "--set=allowedDomains.chat={example.org,example.com}",
                "--set=sidecars.servers={chat/org,lab}",
            ],
            DEPLOYMENT,
            of_container("/args"),
            arguments(&[
                "--dns-owner-id=west",
                "--allowed-dns-server=ns.example.org",
                "--allowed-dns-server=192.0.2.53:5353",
                "--watch-namespace=chat",
                "--watch-namespace=club",
                "--allowed-domains=chat=example.org,example.com",
                "--sidecar-namespace=servers=chat/org,lab",
            ]),
        ),
        // Of two tenants' gateways of one name there is one Secret.
        (
            &["--set=sidecars.servers={chat/org,club/org,lab}"],
            "Role/xmpp-edge-sidecars",
            "/rules/1/resourceNames",
            json!(["xmpp-edge-sidecar-org", "xmpp-edge-sidecar-lab"]),
        ),
        (
            &["--set=clusterWide=true"],
            DEPLOYMENT,
            of_container("/args"),
            arguments(&["--cluster-wide"]),
        ),
        // The restricted Pod Security standard.
        (
            &[],
            DEPLOYMENT,
            of_container("/securityContext"),
            json!({
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
            }),
        ),
        (
            &[],
            DEPLOYMENT,
            "/spec/template/spec/securityContext",
            json!({
                "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            }),
        ),
        // OpenShift chooses the IDs.
        (
            &[
                "--set=podSecurityContext.runAsUser=null",
                "--set=podSecurityContext.runAsGroup=null",
            ],
            "Job/xmpp-edge-uninstall",
            "/spec/template/spec/securityContext",
            json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}),
        ),
        (
            &["--set=securityContext.privileged=false"],
            DEPLOYMENT,
            of_container("/securityContext/privileged"),
            json!(false),
        ),
        // What other charts have.
        (
            &["--set=commonLabels.team=chat"],
            "Role/xmpp-edge-leader",
            "/metadata/labels/team",
            json!("chat"),
        ),
        (
            &["--set=commonLabels.team=chat"],
            DEPLOYMENT,
            "/spec/selector/matchLabels/team",
            Value::Null,
        ),
        (
            &["--set=extraArgs={--dns-owner-id=west}"],
            DEPLOYMENT,
            of_container("/args/7"),
            json!("--dns-owner-id=west"),
        ),
        (
            &["--set=dnsPolicy=None,dnsConfig.nameservers={192.0.2.53}"],
            DEPLOYMENT,
            "/spec/template/spec/dnsConfig",
            json!({"nameservers": ["192.0.2.53"]}),
        ),
        (
            &["--set=dnsPolicy=Default"],
            "Job/xmpp-edge-uninstall",
            "/spec/template/spec/dnsPolicy",
            json!("Default"),
        ),
        // It looks for the operators' Service, whose name the cluster's DNS alone has.
        (
            &["--set=dnsPolicy=Default"],
            "Pod/xmpp-edge-check",
            "/spec/dnsPolicy",
            Value::Null,
        ),
        (
            &["--set=dnsPolicy=None,dnsConfig.nameservers={192.0.2.53}"],
            "Pod/xmpp-edge-check",
            "/spec/dnsConfig",
            Value::Null,
        ),
        (
            &["--set=deploymentAnnotations.note=x,revisionHistoryLimit=1"],
            DEPLOYMENT,
            "/spec/revisionHistoryLimit",
            json!(1),
        ),
        (
            &["--set=readinessProbe.timeoutSeconds=9"],
            DEPLOYMENT,
            of_container("/readinessProbe"),
            json!({"httpGet": {"path": "/readyz", "port": "admin"}, "periodSeconds": 5, "timeoutSeconds": 9}),
        ),
        (&[HIGHLY_AVAILABLE], DEPLOYMENT, "/spec/replicas", json!(3)),
        // Definitions stay with what is made from them, unless that is not wanted.
        (&[], CRD, KEEP, json!("keep")),
        (&["--set=crds.keep=false"], CRD, KEEP, Value::Null),
        // Hooks.
        (&[], "Job/xmpp-edge-uninstall", HOOK, json!("pre-delete")),
        (&[], "Pod/xmpp-edge-check", HOOK, json!("test")),
        // Rights in another namespace are for the account of the release's.
        (
            &["--set=watchNamespaces={chat}"],
            "RoleBinding/xmpp-edge",
            "/subjects/0/namespace",
            json!("edge-system"),
        ),
        (
            &["--set=watchNamespaces={chat}"],
            "RoleBinding/xmpp-edge",
            "/metadata/namespace",
            json!("chat"),
        ),
        // Monitoring.
        (
            &[
                "--set=metrics.podMonitor.enabled=true",
                "--set=watchNamespaces={chat}",
            ],
            "PodMonitor/xmpp-edge-proxy",
            "/spec/namespaceSelector/matchNames",
            json!(["chat"]),
        ),
        (
            &[
                "--set=metrics.podMonitor.enabled=true",
                "--set=clusterWide=true",
            ],
            "PodMonitor/xmpp-edge-proxy",
            "/spec/namespaceSelector",
            json!({"any": true}),
        ),
        (
            &[
                "--set=metrics.prometheusRule.enabled=true",
                "--set=metrics.prometheusRule.runbookUrl=https://r.example/alerts",
            ],
            "PrometheusRule/xmpp-edge",
            "/spec/groups/0/rules/0/annotations/runbook_url",
            json!("https://r.example/alerts#xmppedgepartnerfailing"),
        ),
        // Without a place that is known, no link is better than one that leads nowhere.
        (
            &["--set=metrics.prometheusRule.enabled=true"],
            "PrometheusRule/xmpp-edge",
            "/spec/groups/0/rules/0/annotations/runbook_url",
            Value::Null,
        ),
        (
            &["--set=metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.interval="],
            "ServiceMonitor/xmpp-edge-proxy",
            "/spec/endpoints/0",
            json!({"port": "admin", "path": "/metrics", "relabelings": [{
                "sourceLabels": ["__meta_kubernetes_service_label_xmpp_edge_dev_pool"], "targetLabel": "pool",
            }]}),
        ),
        (
            &["--set=metrics.dashboards.enabled=true"],
            "ConfigMap/xmpp-edge-dashboard-overview",
            "/metadata/labels/grafana_dashboard",
            json!("1"),
        ),
        // Who reads metrics, `helm test` included.
        (
            &[
                "--set=networkPolicy.enabled=true",
                "--set-json=networkPolicy.metricsFrom=[{\"podSelector\":{}}]",
            ],
            "NetworkPolicy/xmpp-edge",
            "/spec/ingress/0/from/0",
            json!({"podSelector": {}}),
        ),
    ]
}

#[test]
fn values_do_what_they_say() {
    if !has_helm(&MAJORS) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let helms = MAJORS.map(|major| Helm::offline(major, home.path().to_owned()).unwrap());
    for ((settings, object, place, expected), helm) in rows().into_iter().zip(helms.iter().cycle())
    {
        let objects = render(helm, settings);
        let found = objects.iter().find(|it| title(it) == object);
        let found = found.unwrap_or_else(|| panic!("{settings:?}: no {object}"));
        let value = found.pointer(place).unwrap_or(&Value::Null);
        assert_eq!(*value, expected, "{settings:?}: {object} {place}");
    }
}

/// One pod more than before comes first, and three nodes have no fourth place for it.
#[test]
fn an_upgrade_of_three_replicas_on_three_nodes_goes_through() {
    render_with(&[HIGHLY_AVAILABLE], |_, objects| {
        let deployment = objects.iter().find(|it| title(it) == DEPLOYMENT).unwrap();
        let apart = deployment.pointer(APART).unwrap();
        assert_eq!(apart["topologyKey"], "kubernetes.io/hostname");
        assert_eq!(apart["matchLabelKeys"], json!(["pod-template-hash"]));
    });
}

#[test]
fn operators_that_outlive_a_node_ask_for_no_priority_that_a_cluster_refuses() {
    render_with(&[HIGHLY_AVAILABLE], |_, objects| {
        for object in objects {
            let text = object.to_string();
            assert!(!text.contains("system-cluster-critical"), "{text}");
        }
    });
}

#[test]
fn the_notes_say_what_to_do_next_and_what_is_not_installed() {
    if !has_helm(&[Major::Four]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let helm = Helm::offline(Major::Four, home.path().to_owned()).unwrap();
    let chart = chart();
    let said = helm
        .run(&[
            "install",
            "xmpp-edge",
            &chart,
            "--namespace=edge-system",
            "--dry-run=client",
            "--set=watchNamespaces={chat,club}",
        ])
        .unwrap();
    let notes = said.split("NOTES:").nth(1).unwrap();
    for part in [
        "is installed in edge-system",
        "It watches chat, club",
        "EdgePool",
        "XmppFederatedPartner",
        "ExternalAccessPolicy",
        "kubectl get xmpp -n chat",
        "helm test xmpp-edge -n edge-system --logs",
        "cert-manager is not installed",
        "external-dns (0.22.0 or newer",
    ] {
        assert!(notes.contains(part), "{part} is not in {notes}");
    }
}

fn render_with(settings: &[&str], body: impl Fn(&Helm, Vec<Value>)) {
    if !has_helm(&MAJORS) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    for major in MAJORS {
        let helm = Helm::offline(major, home.path().to_owned()).unwrap();
        let objects = render(&helm, settings);
        body(&helm, objects);
    }
}

#[test]
fn k5_a_parent_chart_may_switch_the_chart_by_its_condition() {
    if !has_helm(&MAJORS) {
        return;
    }
    for major in MAJORS {
        let home = tempfile::tempdir().unwrap();
        let parent = home.path().join("parent");
        std::fs::create_dir_all(&parent).unwrap();
        let about = format!(
            "apiVersion: v2\nname: parent\nversion: 1.0.0\ndependencies:\n- name: xmpp-edge\n  version: 0.2.0\n  \
             repository: file://{}\n  condition: xmpp-edge.enabled\n",
            std::fs::canonicalize(chart()).unwrap().display()
        );
        std::fs::write(parent.join("Chart.yaml"), about).unwrap();
        let helm = Helm::offline(major, home.path().to_owned()).unwrap();
        let parent = parent.to_str().unwrap();
        helm.run(&["dependency", "update", parent]).unwrap();
        let render = |values: Value| {
            let file = home.path().join("values.json");
            std::fs::write(&file, values.to_string()).unwrap();
            let file = format!("--values={}", file.display());
            helm.run(&["template", "up", parent, "--kube-version=1.36.0", &file])
                .unwrap()
        };
        for (enabled, there) in [(true, true), (false, false)] {
            let rendered = render(json!({
                "global": {"imageRegistry": "r.example", "anybody": {"else": "s"}},
                "tags": {"chat": true},
                "xmpp-edge": {"enabled": enabled, "x-common": {"a": 1}},
            }));
            let found = rendered.contains("r.example/xmpp-edge-operator");
            assert_eq!(found, there, "{major:?} enabled={enabled}");
        }
        // As other charts of the parent take them.
        for (global, image, secrets) in [
            (
                json!({"imageRegistry": "r.example/", "imagePullSecrets": "pull"}),
                "r.example/xmpp-edge-operator:0.2.0",
                json!([{"name": "pull"}]),
            ),
            (
                json!({"imageRegistry": null, "imagePullSecrets": null}),
                "xmpp-edge-operator:0.2.0",
                Value::Null,
            ),
            (
                json!({"imageRegistry": "", "imagePullSecrets": ""}),
                "xmpp-edge-operator:0.2.0",
                Value::Null,
            ),
        ] {
            let objects = documents(&render(json!({"global": global})));
            let mut deployments = objects.iter().filter(|it| it["kind"] == "Deployment");
            let pod = &deployments.next().unwrap()["spec"]["template"]["spec"];
            assert_eq!(pod["containers"][0]["image"], image, "{major:?} {global}");
            assert_eq!(pod["imagePullSecrets"], secrets, "{major:?} {global}");
        }
    }
}

#[test]
fn k10_a_mesh_leaves_the_pods_of_hooks_alone() {
    render_with(&[], |_, objects| {
        for (name, metadata) in [
            ("Job/xmpp-edge-uninstall", "/spec/template/metadata"),
            ("Pod/xmpp-edge-check", "/metadata"),
        ] {
            let hook = objects.iter().find(|it| title(it) == name).unwrap();
            let metadata = hook.pointer(metadata).unwrap();
            for (place, value) in [
                ("/labels/sidecar.istio.io~1inject", "false"),
                ("/annotations/sidecar.istio.io~1inject", "false"),
                ("/annotations/linkerd.io~1inject", "disabled"),
                ("/labels/kuma.io~1sidecar-injection", "disabled"),
            ] {
                assert_eq!(
                    metadata.pointer(place),
                    Some(&json!(value)),
                    "{name} {place}"
                );
            }
        }
    });
}

/// Objects without a namespace are one to the cluster.
#[test]
fn k16_two_releases_share_no_object_of_the_cluster_but_the_definitions() {
    if !has_helm(&MAJORS) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let helm = Helm::offline(MAJORS[0], home.path().to_owned()).unwrap();
    let chart = chart();
    let of = |release: &str, namespace: &str, more: &str| -> std::collections::BTreeSet<String> {
        let namespace = format!("--namespace={namespace}");
        let arguments = [
            "template",
            release,
            &chart,
            &namespace,
            "--kube-version=1.36.0",
            more,
        ];
        let objects = documents(&helm.run(&arguments).unwrap());
        let wide = objects
            .iter()
            .filter(|it| it["metadata"]["namespace"].is_null());
        wide.map(title).collect()
    };
    for more in ["--set=clusterWide=true", "--set=watchNamespaces={chat}"] {
        for (one, other) in [
            (("a", "x"), ("b", "y")),
            // Of namespace and name one text is not enough.
            (("prod", "edge"), ("xmpp-edge", "edge-prod")),
        ] {
            let (one, other) = (of(one.0, one.1, more), of(other.0, other.1, more));
            let both: Vec<_> = one.intersection(&other).collect();
            assert!(
                both.iter()
                    .all(|it| it.starts_with("CustomResourceDefinition/")),
                "{both:?}"
            );
        }
    }
}

#[test]
fn k17_where_namespaces_are_enforced_each_has_its_rule_and_monitor() {
    let settings = [
        "--set=watchNamespaces={chat,club}",
        "--set=metrics.perNamespace=true",
        "--set=metrics.podMonitor.enabled=true",
        "--set=metrics.prometheusRule.enabled=true",
    ];
    render_with(&settings, |_, objects| {
        let at = |kind: &str, name: &str| -> Vec<String> {
            let title_of = format!("{kind}/{name}");
            let found = objects.iter().filter(|it| title(it) == title_of);
            let text = |it: &Value| it["metadata"]["namespace"].as_str().unwrap().to_owned();
            found.map(text).collect()
        };
        assert_eq!(at("PodMonitor", "xmpp-edge-proxy"), ["chat", "club"]);
        assert_eq!(at("PodMonitor", "xmpp-edge-operator"), ["edge-system"]);
        assert_eq!(at("PrometheusRule", "xmpp-edge"), ["chat", "club"]);
        assert_eq!(at("PrometheusRule", "xmpp-edge-operator"), ["edge-system"]);
    });
}
