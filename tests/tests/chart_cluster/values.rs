//! What the chart renders for a table of values, against the real API server.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xmpp_edge_tests::cluster::{ApiServer, Helm, Namespace};

use super::{MAJORS, SERVER, chart, documents, has_helm, title};

/// Where the definitions of PodMonitor and PrometheusRule are from.
const PROMETHEUS_OPERATOR: &str = "github.com/prometheus-operator/prometheus-operator@v0.85.0";

struct Case {
    name: &'static str,
    settings: &'static [&'static str],
    /// Objects that are there beside those of all cases.
    there: &'static [&'static str],
    /// Objects that are not.
    gone: &'static [&'static str],
}

/// Of the defaults.
const ALWAYS: &[&str] = &[
    "ServiceAccount/xmpp-edge",
    "Deployment/xmpp-edge",
    "Service/xmpp-edge",
    "Job/xmpp-edge-uninstall",
    "Pod/xmpp-edge-check",
];

const CASES: &[Case] = &[
    Case {
        name: "defaults",
        settings: &[],
        there: &[
            "CustomResourceDefinition/edgepools.xmpp-edge.dev",
            "Role/xmpp-edge",
            "RoleBinding/xmpp-edge",
            "Role/xmpp-edge-leader",
            "ClusterRole/xmpp-edge-partners",
            "PodDisruptionBudget/xmpp-edge",
            "ClusterRole/edge-system:xmpp-edge-unwatched",
            "ClusterRoleBinding/edge-system:xmpp-edge-unwatched",
        ],
        gone: &["PodMonitor/", "NetworkPolicy/"],
    },
    Case {
        name: "sidecars",
        settings: &[
            "--set=sidecar.injection=on",
            "--set=sidecar.resolvers={10.96.0.10:53}",
        ],
        there: &[
            "MutatingAdmissionPolicy/xmpp-edge-sidecar",
            "MutatingAdmissionPolicyBinding/xmpp-edge-sidecar",
            "ValidatingAdmissionPolicy/xmpp-edge-sidecar",
            "ValidatingAdmissionPolicyBinding/xmpp-edge-sidecar",
        ],
        gone: &[],
    },
    Case {
        name: "two namespaces, bounded",
        settings: &[
            "--set=watchNamespaces={chat,club}",
            "--set=allowedDomains.chat={example.org,example.com}",
            "--set=dns.ownerId=west",
            "--set=sidecars.club={org}",
        ],
        there: &[
            "Role/xmpp-edge-sidecars",
            "RoleBinding/xmpp-edge-sidecars",
            "Role/xmpp-edge",
            "RoleBinding/xmpp-edge",
            "ClusterRole/edge-system:xmpp-edge-let-go",
            "ClusterRoleBinding/edge-system:xmpp-edge-let-go",
        ],
        gone: &["ClusterRoleBinding/edge-system:xmpp-edge"],
    },
    Case {
        name: "the whole cluster",
        settings: &["--set=clusterWide=true"],
        there: &[
            "ClusterRoleBinding/edge-system:xmpp-edge",
            "ClusterRole/edge-system:xmpp-edge",
        ],
        gone: &[
            "Role/xmpp-edge",
            "RoleBinding/xmpp-edge",
            "ClusterRole/edge-system:xmpp-edge-let-go",
            "ClusterRole/edge-system:xmpp-edge-unwatched",
        ],
    },
    Case {
        name: "all metrics",
        settings: &[
            "--set=metrics.podMonitor.enabled=true",
            "--set=metrics.podMonitor.labels.release=monitoring",
            "--set=metrics.prometheusRule.enabled=true",
            "--set=metrics.prometheusRule.alertLabels.team=chat",
            "--set=metrics.dashboards.enabled=true",
        ],
        there: &[
            "PodMonitor/xmpp-edge-operator",
            "PodMonitor/xmpp-edge-proxy",
            "PrometheusRule/xmpp-edge",
            "ConfigMap/xmpp-edge-dashboard-overview",
            "ConfigMap/xmpp-edge-dashboard-partner",
            "ConfigMap/xmpp-edge-dashboard-site",
            "ConfigMap/xmpp-edge-dashboard-operator",
        ],
        gone: &[],
    },
    Case {
        name: "without definitions and roles for people",
        settings: &[
            "--set=crds.enabled=false",
            "--set=rbac.people=false",
            "--set=rbac.tellUnwatched=false",
        ],
        there: &["Role/xmpp-edge"],
        gone: &["CustomResourceDefinition/", "ClusterRole/"],
    },
    Case {
        name: "pinned, placed and walled",
        settings: &[
            "--set=image.digest=sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "--set=proxyImage.tag=1.2.3",
            "--set=imagePullSecrets[0].name=pull",
            "--set=nodeSelector.pool=edge",
            "--set=tolerations[0].operator=Exists",
            "--set=podLabels.team=chat",
            "--set=podAnnotations.note=x",
            "--set=extraEnv[0].name=HTTPS_PROXY",
            "--set=extraEnv[0].value=http://proxy.example:3128",
            "--set=networkPolicy.enabled=true",
            "--set=networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.name=monitoring",
        ],
        there: &["NetworkPolicy/xmpp-edge"],
        gone: &[],
    },
    Case {
        name: "one replica under another account",
        settings: &[
            "--set=replicas=1",
            "--set=serviceAccount.name=other",
            "--set=rbac.create=false",
        ],
        there: &["ServiceAccount/other"],
        gone: &[
            "PodDisruptionBudget/",
            "Role/",
            "ClusterRole/",
            "ServiceAccount/xmpp-edge",
        ],
    },
];

/// Applies the definitions of PodMonitor and PrometheusRule; why not, where they cannot be had.
fn install_monitoring(server: &ApiServer) -> Result<(), String> {
    let answer = Command::new("go")
        .args(["mod", "download", "-json", PROMETHEUS_OPERATOR])
        .output()
        .map_err(|error| format!("go: {error}"))?;
    let answer: Value =
        serde_json::from_slice(&answer.stdout).map_err(|error| error.to_string())?;
    let folder = answer["Dir"].as_str().ok_or(answer.to_string())?;
    for name in ["podmonitors", "prometheusrules"] {
        let file = format!("example/prometheus-operator-crd/monitoring.coreos.com_{name}.yaml");
        let text = fs::read_to_string(Path::new(folder).join(file)).map_err(|e| e.to_string())?;
        let arguments = ["apply", "--server-side", "-f", "-"];
        let applied = server.kubectl().run_with(&arguments, &text);
        applied.map_err(|error| format!("{error:#}"))?;
        let definition = format!("crd/{name}.monitoring.coreos.com");
        let wait = [
            "wait",
            "--for=condition=Established",
            "--timeout=120s",
            &definition,
        ];
        server
            .kubectl()
            .run(&wait)
            .map_err(|error| format!("{error:#}"))?;
    }
    Ok(())
}

/// Whether the objects are there as the table says.
fn inventory(case: &Case, objects: &[Value]) {
    let titles: Vec<String> = objects.iter().map(title).collect();
    let expected = ALWAYS.iter().filter(|it| !case.gone.contains(it));
    for expected in expected.chain(case.there) {
        assert!(
            titles.iter().any(|it| it == expected),
            "{}: no {expected} in {titles:?}",
            case.name
        );
    }
    for gone in case.gone {
        let is_gone = |it: &String| it != gone && !(gone.ends_with('/') && it.starts_with(gone));
        assert!(
            titles.iter().all(is_gone),
            "{}: {gone} in {titles:?}",
            case.name
        );
    }
}

async fn accepted(namespace: &Namespace<'_>) -> Result<()> {
    let server = namespace.server;
    for name in ["edge-system", "chat", "club"] {
        let level = "restricted";
        let labels = [
            ("pod-security.kubernetes.io/enforce", level),
            ("pod-security.kubernetes.io/warn", level),
        ];
        server.namespace(name, &labels).await?;
    }
    // Admission looks for a pod's account, which a dry run does not leave.
    for account in ["xmpp-edge", "other"] {
        server.service_account("edge-system", account).await?;
    }
    let monitoring = install_monitoring(server);
    if let Err(why) = &monitoring {
        use std::io::Write;
        let _ = writeln!(
            std::io::stderr(),
            "skipped: PodMonitor and PrometheusRule: {why}"
        );
    }
    for (case, major) in CASES.iter().zip(MAJORS.into_iter().cycle()) {
        let helm = Helm::on(server, major, server.admin())?;
        let chart = chart();
        let mut arguments = vec!["template", "xmpp-edge", &chart, "--namespace=edge-system"];
        arguments.push("--kube-version=1.36.0");
        arguments.extend(case.settings);
        let rendered = helm.run(&arguments).context(case.name)?;
        let mut objects = documents(&rendered);
        inventory(case, &objects);
        if monitoring.is_err() {
            objects.retain(|it| it["apiVersion"] != "monitoring.coreos.com/v1");
        }
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let apply = [
            "apply",
            "--server-side",
            "--dry-run=server",
            "--force-conflicts",
        ];
        let arguments = [&apply[..], &["-f", "-"]].concat();
        let output = server.kubectl().output(&arguments, &list.to_string())?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(output.status.success(), "{}: {said}", case.name);
        // Neither Pod Security nor a field that nobody knows.
        ensure!(
            !said.to_lowercase().contains("warning"),
            "{}: {said}",
            case.name
        );
    }
    Ok(())
}

#[test]
fn the_api_server_takes_every_object_without_a_warning() {
    if has_helm(&MAJORS) {
        SERVER.test(accepted);
    }
}
