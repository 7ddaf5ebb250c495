//! No value of the chart is without effect.

use serde_json::{Value, json};
use xmpp_edge_tests::cluster::{Helm, Major};

use super::{chart, has_helm, unit::render};

/// Another value for each that there is. What hangs on a switch is looked at with the switch on.
fn others() -> Vec<(&'static str, Value)> {
    let digest = json!("sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb");
    vec![
        ("global", json!({"imageRegistry": "r.example"})),
        ("commonLabels", json!({"x": "y"})),
        ("image.registry", json!("r.example")),
        ("image.repository", json!("r.example/o")),
        ("image.tag", json!("x")),
        ("image.digest", digest.clone()),
        ("image.pullPolicy", json!("Always")),
        ("proxyImage.registry", json!("r.example")),
        ("proxyImage.repository", json!("r.example/p")),
        ("proxyImage.tag", json!("x")),
        ("proxyImage.digest", digest),
        ("imagePullSecrets", json!([{"name": "x"}])),
        ("replicas", json!(3)),
        ("revisionHistoryLimit", json!(1)),
        ("watchNamespaces", json!(["x"])),
        ("clusterWide", json!(true)),
        ("allowedDomains", json!({"x": ["example.org"]})),
        ("dns.ownerId", json!("x")),
        ("dns.allowedServers", json!(["192.0.2.53"])),
        ("sidecars", json!({"x": ["org"]})),
        ("sidecar.injection", json!("off")),
        ("sidecar.resolvers", json!(["192.0.2.54:53"])),
        ("sidecar.clusterDomain", json!("c.example")),
        ("sidecar.securityContext.runAsNonRoot", json!(false)),
        ("sidecar.securityContext.runAsUser", json!(1000)),
        ("sidecar.securityContext.runAsGroup", json!(1000)),
        (
            "sidecar.securityContext.allowPrivilegeEscalation",
            json!(true),
        ),
        (
            "sidecar.securityContext.readOnlyRootFilesystem",
            json!(false),
        ),
        (
            "sidecar.securityContext.capabilities.drop",
            json!(["NET_RAW"]),
        ),
        (
            "sidecar.securityContext.seccompProfile.type",
            json!("Localhost"),
        ),
        ("sidecar.resources.requests.cpu", json!("21m")),
        ("sidecar.resources.requests.memory", json!("33Mi")),
        ("sidecar.resources.limits.memory", json!("129Mi")),
        ("crds.enabled", json!(false)),
        ("crds.keep", json!(false)),
        ("rbac.create", json!(false)),
        ("rbac.people", json!(false)),
        ("rbac.tellUnwatched", json!(false)),
        ("serviceAccount.create", json!(false)),
        ("serviceAccount.name", json!("x")),
        ("serviceAccount.annotations", json!({"x": "y"})),
        ("log.level", json!("debug")),
        ("log.format", json!("text")),
        ("page.port", json!(9099)),
        ("resources.requests.cpu", json!("60m")),
        ("resources.requests.memory", json!("65Mi")),
        ("resources.limits.memory", json!("1Gi")),
        ("podSecurityContext.runAsNonRoot", json!(false)),
        ("podSecurityContext.runAsUser", json!(1000)),
        ("podSecurityContext.runAsGroup", json!(1000)),
        ("podSecurityContext.seccompProfile.type", json!("Localhost")),
        ("securityContext.allowPrivilegeEscalation", json!(true)),
        ("securityContext.readOnlyRootFilesystem", json!(false)),
        ("securityContext.capabilities.drop", json!(["NET_RAW"])),
        ("livenessProbe.periodSeconds", json!(11)),
        ("readinessProbe.periodSeconds", json!(6)),
        ("nodeSelector", json!({"x": "y"})),
        ("tolerations", json!([{"operator": "Exists"}])),
        ("affinity", json!({"nodeAffinity": {}})),
        (
            "topologySpreadConstraints",
            json!([{"maxSkew": 1, "topologyKey": "x", "whenUnsatisfiable": "ScheduleAnyway"}]),
        ),
        ("priorityClassName", json!("x")),
        ("dnsPolicy", json!("Default")),
        ("dnsConfig", json!({"nameservers": ["192.0.2.53"]})),
        ("deploymentAnnotations", json!({"x": "y"})),
        ("podAnnotations", json!({"x": "y"})),
        ("podLabels", json!({"x": "y"})),
        ("extraEnv", json!([{"name": "X", "value": "y"}])),
        ("extraArgs", json!(["--x"])),
        (
            r"hooks.podAnnotations.sidecar\.istio\.io/inject",
            json!("x"),
        ),
        (r"hooks.podAnnotations.linkerd\.io/inject", json!("x")),
        (r"hooks.podLabels.sidecar\.istio\.io/inject", json!("x")),
        (r"hooks.podLabels.kuma\.io/sidecar-injection", json!("x")),
        ("podDisruptionBudget.enabled", json!(false)),
        ("networkPolicy.enabled", json!(false)),
        ("networkPolicy.metricsFrom", json!([{"podSelector": {}}])),
        ("networkPolicy.egress", json!([{"ports": [{"port": 443}]}])),
        ("metrics.port", json!(9999)),
        ("metrics.perNamespace", json!(true)),
        ("metrics.serviceMonitor.enabled", json!(false)),
        ("metrics.serviceMonitor.labels", json!({"x": "y"})),
        ("metrics.serviceMonitor.interval", json!("15s")),
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

const SWITCHES: [&str; 6] = [
    "--set-json=sidecar.injection=\"on\"",
    "--set-json=sidecar.resolvers=[\"192.0.2.53:53\"]",
    "--set-json=networkPolicy.enabled=true",
    "--set-json=metrics.podMonitor.enabled=true",
    "--set-json=metrics.prometheusRule.enabled=true",
    "--set-json=metrics.dashboards.enabled=true",
];

/// With these instead of the monitors of pods: both at once are refused.
const SERVICE_MONITORS: [&str; 2] = [
    "--set-json=metrics.podMonitor.enabled=false",
    "--set-json=metrics.serviceMonitor.enabled=true",
];

/// Paths of all values, as `--set` takes them; an empty list or map is one.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    match value.as_object().filter(|fields| !fields.is_empty()) {
        None => found.push(path.to_owned()),
        Some(fields) => {
            for (name, field) in fields {
                let name = name.replace('.', "\\.");
                let below = if path.is_empty() {
                    name
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
    let services = [&SWITCHES[..], &SERVICE_MONITORS].concat();
    let before = [render(&helm, &SWITCHES), render(&helm, &services)];
    let mut void = Vec::new();
    for (path, other) in others {
        let setting = format!("--set-json={path}={other}");
        let of_services = path.starts_with("metrics.serviceMonitor.");
        let mut settings = if of_services {
            services.clone()
        } else {
            SWITCHES.to_vec()
        };
        settings.push(&setting);
        // An account that the chart does not make needs a name.
        if path == "serviceAccount.create" {
            settings.push("--set-json=serviceAccount.name=\"xmpp-edge\"");
        }
        if render(&helm, &settings) == before[usize::from(of_services)] {
            void.push(path);
        }
    }
    assert!(void.is_empty(), "these change nothing: {void:?}");
}
