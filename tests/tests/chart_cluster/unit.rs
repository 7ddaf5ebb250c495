//! What a value does to what is rendered, object by object; no cluster.

use serde_json::{Value, json};
use xmpp_edge_tests::cluster::{Helm, Major};

use super::{MAJORS, chart, documents, has_helm, title};

/// `Kind/name` to the objects of a template.
fn render(helm: &Helm, settings: &[&str]) -> Vec<Value> {
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

fn rows() -> Vec<Row> {
    let arguments = |more: &[&str]| {
        let mut all = vec![
            "run",
            "--log-format=json",
            "--admin-listen=[::]:9091",
            "--proxy-image=xmpp-edge-proxy:0.1.0",
            "--lease-name=xmpp-edge",
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
            json!("xmpp-edge-operator:0.1.0"),
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
                "--set=allowedDomains.chat={example.org,example.com}",
            ],
            DEPLOYMENT,
            of_container("/args"),
            arguments(&[
                "--dns-owner-id=west",
                "--watch-namespace=chat",
                "--watch-namespace=club",
                "--allowed-domains=chat=example.org,example.com",
            ]),
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

/// Another value for each that there is. What hangs on a switch is looked at with the switch on.
fn others() -> Vec<(&'static str, Value)> {
    let digest = json!("sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb");
    vec![
        ("image.repository", json!("r.example/o")),
        ("image.tag", json!("x")),
        ("image.digest", digest.clone()),
        ("image.pullPolicy", json!("Always")),
        ("proxyImage.repository", json!("r.example/p")),
        ("proxyImage.tag", json!("x")),
        ("proxyImage.digest", digest),
        ("imagePullSecrets", json!([{"name": "x"}])),
        ("replicas", json!(3)),
        ("watchNamespaces", json!(["x"])),
        ("clusterWide", json!(true)),
        ("allowedDomains", json!({"x": ["example.org"]})),
        ("dns.ownerId", json!("x")),
        ("crds.enabled", json!(false)),
        ("crds.keep", json!(false)),
        ("rbac.create", json!(false)),
        ("rbac.people", json!(false)),
        ("serviceAccount.create", json!(false)),
        ("serviceAccount.name", json!("x")),
        ("serviceAccount.annotations", json!({"x": "y"})),
        ("log.level", json!("debug")),
        ("log.format", json!("text")),
        ("resources.requests.cpu", json!("60m")),
        ("resources.requests.memory", json!("65Mi")),
        ("resources.limits.memory", json!("1Gi")),
        ("nodeSelector", json!({"x": "y"})),
        ("tolerations", json!([{"operator": "Exists"}])),
        ("affinity", json!({"nodeAffinity": {}})),
        (
            "topologySpreadConstraints",
            json!([{"maxSkew": 1, "topologyKey": "x", "whenUnsatisfiable": "ScheduleAnyway"}]),
        ),
        ("priorityClassName", json!("x")),
        ("podAnnotations", json!({"x": "y"})),
        ("podLabels", json!({"x": "y"})),
        ("extraEnv", json!([{"name": "X", "value": "y"}])),
        ("podDisruptionBudget.enabled", json!(false)),
        ("networkPolicy.enabled", json!(false)),
        ("networkPolicy.metricsFrom", json!([{"podSelector": {}}])),
        ("metrics.port", json!(9999)),
        ("metrics.podMonitor.enabled", json!(false)),
        ("metrics.podMonitor.labels", json!({"x": "y"})),
        ("metrics.podMonitor.interval", json!("15s")),
        ("metrics.prometheusRule.enabled", json!(false)),
        ("metrics.prometheusRule.labels", json!({"x": "y"})),
        ("metrics.prometheusRule.alertLabels", json!({"x": "y"})),
        ("metrics.prometheusRule.runbookUrl", json!("https://x")),
        ("metrics.dashboards.enabled", json!(false)),
        ("metrics.dashboards.labels.grafana_dashboard", json!("x")),
        ("metrics.dashboards.annotations", json!({"x": "y"})),
        ("cleanup.enabled", json!(false)),
    ]
}

const SWITCHES: [&str; 4] = [
    "--set-json=networkPolicy.enabled=true",
    "--set-json=metrics.podMonitor.enabled=true",
    "--set-json=metrics.prometheusRule.enabled=true",
    "--set-json=metrics.dashboards.enabled=true",
];

/// Paths of all values; an empty list or map is one.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    match value.as_object().filter(|fields| !fields.is_empty()) {
        None => found.push(path.to_owned()),
        Some(fields) => {
            for (name, field) in fields {
                let below = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                leaves(field, &below, found);
            }
        }
    }
}

#[test]
fn no_value_is_without_effect() {
    if !has_helm(&[Major::Four]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let helm = Helm::offline(Major::Four, home.path().to_owned()).unwrap();
    let values = std::fs::read_to_string(format!("{}/values.yaml", chart())).unwrap();
    let mut known = Vec::new();
    leaves(&serde_saphyr::from_str(&values).unwrap(), "", &mut known);
    known.sort();
    let others = others();
    let mut tried: Vec<&str> = others.iter().map(|(path, _)| *path).collect();
    tried.sort_unstable();
    assert_eq!(
        tried, known,
        "each value of values.yaml needs another one here"
    );
    let before = render(&helm, &SWITCHES);
    let mut void = Vec::new();
    for (path, other) in others {
        let setting = format!("--set-json={path}={other}");
        let mut settings = SWITCHES.to_vec();
        settings.push(&setting);
        // An account that the chart does not make needs a name.
        if path == "serviceAccount.create" {
            settings.push("--set-json=serviceAccount.name=\"xmpp-edge\"");
        }
        if render(&helm, &settings) == before {
            void.push(path);
        }
    }
    assert!(void.is_empty(), "these change nothing: {void:?}");
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
        "kubectl get xmpp",
        "cert-manager is not installed",
        "external-dns (0.22.0 or newer",
    ] {
        assert!(notes.contains(part), "{part} is not in {notes}");
    }
}
