//! What Helm says of the chart without any cluster.

use serde_json::{Value, json};
use xmpp_edge_tests::{
    cluster::{Helm, Major},
    mistakes,
};

use super::{MAJORS, chart, documents, has_helm, title};

fn with_helm(body: impl Fn(Major, Helm)) {
    if !has_helm(&MAJORS) {
        return;
    }
    for major in MAJORS {
        let home = tempfile::tempdir().unwrap();
        body(major, Helm::offline(major, home.path().to_owned()).unwrap());
    }
}

#[test]
fn lint_finds_nothing() {
    with_helm(|major, helm| {
        let said = helm
            .run(&["lint", "--strict", "--kube-version=1.36.0", &chart()])
            .unwrap();
        assert!(said.contains("0 chart(s) failed"), "{major:?}: {said}");
        assert!(!said.contains("WARNING"), "{major:?}: {said}");
    });
}

#[test]
fn an_api_server_that_is_too_old_is_refused() {
    with_helm(|major, helm| {
        let output = helm.output(&["template", &chart(), "--kube-version=1.32.9"]);
        let said = String::from_utf8(output.unwrap().stderr).unwrap();
        assert!(said.contains(">=1.33"), "{major:?}: {said}");
    });
}

/// Setting, and what the message has to name.
const MISTAKES: &[(&str, &[&str])] = &[
    ("--set=replica=2", &["replica"]),
    ("--set=replicas=0", &["replicas", "minimum"]),
    ("--set=replicas=two", &["replicas", "integer"]),
    ("--set=image.repository=", &["image/repository"]),
    ("--set=image.digest=sha256:12", &["image/digest"]),
    (
        "--set=image.repository=r.example/op:1.2",
        &["image/repository"],
    ),
    (
        "--set=image.repository=https://r.example/op",
        &["image/repository"],
    ),
    (
        "--set=proxyImage.repository=proxy@sha256:12",
        &["proxyImage/repository"],
    ),
    ("--set=image.tag=:1.2", &["image/tag"]),
    ("--set=proxyImage.tag=1.2@sha256:12", &["proxyImage/tag"]),
    (
        "--set=image.pullPolicy=Sometimes",
        &["image/pullPolicy", "Always"],
    ),
    (
        "--set=image.registry=https://r.example",
        &["image/registry"],
    ),
    ("--set=image.host=r.example", &["image", "host"]),
    (
        "--set=proxyImage.pullPolicy=Always",
        &["proxyImage", "pullPolicy"],
    ),
    ("--set=proxyImage.digest=latest", &["proxyImage/digest"]),
    (
        "--set-json=imagePullSecrets=[\"pull\"]",
        &["imagePullSecrets/0"],
    ),
    ("--set=watchNamespaces={Chat}", &["watchNamespaces/0"]),
    ("--set=watchNamespaces={a,a}", &["watchNamespaces"]),
    ("--set=watchNamespaces=chat", &["watchNamespaces", "array"]),
    ("--set-string=clusterWide=true", &["clusterWide", "boolean"]),
    (
        "--set=allowedDomains.chat={*.example.org}",
        &["allowedDomains/chat/0"],
    ),
    ("--set-json=sidecars.chat=[]", &["sidecars/chat"]),
    ("--set=sidecars.chat={Org}", &["sidecars/chat/0"]),
    ("--set=sidecars.chat={edge/org/x}", &["sidecars/chat/0"]),
    (
        "--set-json=allowedDomains.chat=[]",
        &["allowedDomains/chat"],
    ),
    (
        "--set-json=allowedDomains={\"Chat\":[\"example.org\"]}",
        &["allowedDomains", "Chat"],
    ),
    ("--set=dns.ownerId=a b", &["dns/ownerId"]),
    (
        "--set=dns.allowedServers={https://ns.example}",
        &["dns/allowedServers/0"],
    ),
    (
        "--set=sidecar.injection=yes",
        &["sidecar/injection", "auto"],
    ),
    (
        "--set=sidecar.injection=on,sidecar.resolvers={10.96.0.10}",
        &["sidecar/resolvers/0"],
    ),
    (
        "--set-string=sidecar.injection=on",
        &["sidecar.resolvers must be set"],
    ),
    (
        "--set=sidecar.resources.requests.cpu=null",
        &["/sidecar/resources/requests", "missing", "cpu"],
    ),
    ("--set=metrics.port=null", &["/metrics", "missing", "port"]),
    ("--set=hooks=null", &["missing", "hooks"]),
    (
        "--set=metrics.podMonitor=null",
        &["/metrics", "missing", "podMonitor"],
    ),
    ("--set=crds.install=true", &["crds", "install"]),
    ("--set=rbac.create=maybe", &["rbac/create"]),
    ("--set=serviceAccount.nmae=x", &["serviceAccount", "nmae"]),
    ("--set=log.format=xml", &["log/format", "json"]),
    ("--set=log.level=", &["log/level"]),
    // The operator would take it for the name of a target, and log nothing else.
    ("--set=log.level=warning", &["log/level", "trace"]),
    ("--set=log.level=info\\,hyper=verbose", &["log/level"]),
    ("--set=nodeSelector.gpu=1", &["nodeSelector/gpu", "string"]),
    ("--set=metrics.port=80", &["metrics/port", "minimum"]),
    (
        "--set=metrics.podMonitor.interval=30",
        &["metrics/podMonitor/interval"],
    ),
    (
        "--set-string=metrics.podMonitor.interval=30",
        &["metrics/podMonitor/interval", "pattern"],
    ),
    (
        "--set=metrics.serviceMonitors.enabled=true",
        &["metrics", "serviceMonitors"],
    ),
    (
        "--set=metrics.podMonitor.enabled=true,metrics.serviceMonitor.enabled=true",
        &["metrics.podMonitor", "metrics.serviceMonitor"],
    ),
    (
        "--set=metrics.prometheusRule.runbookUrl=docs/guide/alerts.md",
        &["metrics/prometheusRule/runbookUrl"],
    ),
    ("--set=dnsPolicy=Cluster", &["dnsPolicy", "ClusterFirst"]),
    ("--set=enabled=yes", &["enabled", "boolean"]),
    ("--set=cleanup=false", &["cleanup"]),
    (
        "--set=serviceAccount.create=false",
        &["serviceAccount.name must be set"],
    ),
    (
        "--set=clusterWide=true,watchNamespaces={a}",
        &["watchNamespaces", "clusterWide"],
    ),
    ("--set=fullnameOverride=Edge", &["fullnameOverride"]),
    ("--set-string=fullnameOverride=4711", &["fullnameOverride"]),
    (
        "--set=page.port=9191,metrics.port=9191",
        &["page.port", "metrics.port"],
    ),
    (
        "--set=dnsPolicy=None",
        &["dnsPolicy None", "dnsConfig.nameservers"],
    ),
    (
        "--set=dnsPolicy=None,dnsConfig=null",
        &["dnsPolicy None", "dnsConfig.nameservers"],
    ),
    (
        "--set=clusterWide=true,metrics.perNamespace=true",
        &["metrics.perNamespace", "clusterWide"],
    ),
];

#[test]
fn levels_and_targets_of_the_log_are_taken() {
    with_helm(|major, helm| {
        for level in [
            "warn",
            "off",
            "info\\,xmpp_edge_operator::dns=debug",
            "hyper=OFF",
        ] {
            let setting = format!("--set=log.level={level}");
            let arguments = ["template", &chart(), "--kube-version=1.36.0", &setting];
            let output = helm.output(&arguments).unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{major:?} {level}: {said}");
        }
    });
}

#[test]
fn a_map_or_list_that_is_null_is_an_empty_one() {
    const NULL: [&str; 9] = [
        "commonLabels",
        "imagePullSecrets",
        "livenessProbe",
        "readinessProbe.periodSeconds",
        "securityContext",
        "podSecurityContext",
        "resources",
        "metrics.prometheusRule.alertLabels",
        "metrics.dashboards.labels",
    ];
    with_helm(|major, helm| {
        let settings = [
            "--kube-version=1.36.0",
            "--set=metrics.dashboards.enabled=true,metrics.prometheusRule.enabled=true",
        ];
        let nulls = NULL.map(|name| format!("--set={name}=null"));
        let nulls: Vec<&str> = nulls.iter().map(String::as_str).collect();
        let chart = chart();
        let template = ["template", "xmpp-edge", &chart];
        let arguments = [&template[..], &settings[..], &nulls[..]].concat();
        let objects = documents(&helm.run(&arguments).unwrap());
        let of_kind = |kind: &str| objects.iter().find(|it| it["kind"] == kind).unwrap();
        let pod = &of_kind("Deployment")["spec"]["template"]["spec"];
        let probe = &pod["containers"][0]["livenessProbe"];
        let keys: Vec<&String> = probe.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["httpGet"], "{major:?}");
    });
}

/// `--reuse-values` keeps those of a version that had none.
#[test]
fn sidecars_are_hardened_where_the_values_say_nothing_of_their_security_context() {
    with_helm(|major, helm| {
        let chart = chart();
        let said = |setting: &str| -> Value {
            let arguments = [
                "template",
                "xmpp-edge",
                &chart,
                "--kube-version=1.36.0",
                "--set=sidecar.injection=on,sidecar.resolvers={10.96.0.10:53}",
                setting,
            ];
            let objects = documents(&helm.run(&arguments).unwrap());
            let mut policies = objects.iter();
            let policy = policies.find(|it| it["kind"] == "MutatingAdmissionPolicy");
            policy.unwrap()["spec"]["variables"][0].clone()
        };
        let by_default = said("--set=sidecar.injection=on");
        assert_eq!(by_default["name"], "securityContext", "{major:?}");
        let without = said("--set=sidecar.securityContext=null");
        assert_eq!(without, by_default, "{major:?}");
    });
}

/// The templates read what is in it, and Helm's own error names a template.
#[test]
fn a_group_of_values_that_is_null_is_refused_with_its_name() {
    const GROUPS: [&str; 18] = [
        "image",
        "proxyImage",
        "dns",
        "sidecar",
        "crds",
        "rbac",
        "serviceAccount",
        "log",
        "page",
        "hooks",
        "podDisruptionBudget",
        "networkPolicy",
        "metrics",
        "metrics.podMonitor",
        "metrics.serviceMonitor",
        "metrics.prometheusRule",
        "metrics.dashboards",
        "cleanup",
    ];
    with_helm(|major, helm| {
        for group in GROUPS {
            let setting = format!("--set={group}=null");
            let arguments = ["template", &chart(), "--kube-version=1.36.0", &setting];
            let output = helm.output(&arguments).unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            let name = group.rsplit('.').next().unwrap();
            let is_told = said.contains("missing property") && said.contains(name);
            assert!(
                !output.status.success() && is_told,
                "{major:?} {group}: {said}"
            );
        }
    });
}

/// A Deployment whose pods its own selector does not find is refused by the API server, and a hook's pod by this label
/// is one that reads the metrics.
#[test]
fn labels_of_pods_change_none_of_those_that_select_them() {
    const LABELS: &str =
        r#"{"app.kubernetes.io/component":"x","app.kubernetes.io/name":"x","team":"pods"}"#;
    with_helm(|major, helm| {
        let chart = chart();
        let pods = format!("--set-json=podLabels={LABELS}");
        let hooks = format!("--set-json=hooks.podLabels={LABELS}");
        let arguments = [
            "template",
            "xmpp-edge",
            &chart,
            "--kube-version=1.36.0",
            "--set=commonLabels.team=all,commonLabels.house=one",
            &pods,
            &hooks,
        ];
        let objects = documents(&helm.run(&arguments).unwrap());
        for (name, place, component) in [
            (
                "Deployment/xmpp-edge",
                "/spec/template/metadata/labels",
                "operator",
            ),
            (
                "Job/xmpp-edge-uninstall",
                "/spec/template/metadata/labels",
                "uninstall",
            ),
            ("Pod/xmpp-edge-check", "/metadata/labels", "check"),
        ] {
            let object = objects.iter().find(|it| title(it) == name).unwrap();
            let labels = object.pointer(place).unwrap();
            for (key, value) in [
                ("app.kubernetes.io/component", component),
                ("app.kubernetes.io/name", "xmpp-edge"),
                ("team", "pods"),
                ("house", "one"),
            ] {
                assert_eq!(labels[key], value, "{major:?} {name}: {key}");
            }
        }
    });
}

/// YAML reads `no` as false and `4711` as a number where they are not quoted.
#[test]
fn names_and_namespaces_that_look_like_something_else_are_text() {
    with_helm(|major, helm| {
        let chart = chart();
        for word in ["no", "4711"] {
            let namespace = format!("--namespace={word}");
            let whole = if word == "no" {
                "fullnameOverride=no,"
            } else {
                ""
            };
            let names = format!(
                "--set-string={whole}nameOverride={word},serviceAccount.name={word},priorityClassName={word}"
            );
            let own = ["template", word, &chart, &namespace, &names];
            for wide in [true, false] {
                let values = json!({
                    "watchNamespaces": if wide { json!([]) } else { json!([word, "chat"]) },
                    "clusterWide": wide,
                    "sidecars": { word: ["org"] },
                    "crds": { "enabled": false },
                    "networkPolicy": { "enabled": true },
                    "metrics": {
                        "perNamespace": !wide,
                        "podMonitor": { "enabled": true },
                        "prometheusRule": { "enabled": true },
                        "dashboards": { "enabled": true },
                    },
                });
                let file = tempfile::NamedTempFile::new().unwrap();
                std::fs::write(file.path(), values.to_string()).unwrap();
                let more = format!("--values={}", file.path().display());
                let more = ["--kube-version=1.36.0", &more];
                let rendered = helm.run(&[&own[..], &more[..]].concat()).unwrap();
                let bare = [": ", "- ", "["].map(|it| format!("{it}{word}"));
                let is_bare = |line: &&str| {
                    let line = line.trim_end_matches(']');
                    bare.iter().any(|it| line.ends_with(it))
                };
                let found: Vec<&str> = rendered.lines().filter(is_bare).collect();
                assert!(found.is_empty(), "{major:?} {found:#?}");
                let quoted = format!("namespace: \"{word}\"");
                assert!(rendered.contains(&quoted), "{major:?}: {rendered}");
            }
        }
    });
}

/// A Service's name is of letters, digits and hyphens, a letter first and no hyphen last (RFC 1035).
#[test]
fn each_name_that_a_release_can_have_makes_names_that_the_api_server_takes() {
    with_helm(|major, helm| {
        let chart = chart();
        for (release, expected) in [
            ("xmpp-edge", "xmpp-edge"),
            ("chat", "chat-xmpp-edge"),
            ("my.chat", "my-chat-xmpp-edge"),
            ("4711", "x4711-xmpp-edge"),
            ("4.xmpp-edge", "x4-xmpp-edge"),
            // Of what is longer, the first 50.
            (
                "a23456789012345678901234567890123456789012345678--b",
                "a23456789012345678901234567890123456789012345678",
            ),
            (
                "a234567890123456789012345678901234567890123456789.b",
                "a234567890123456789012345678901234567890123456789",
            ),
            (
                "4a34567890123456789012345678901234567890123456789.b",
                "x4a34567890123456789012345678901234567890123456789",
            ),
        ] {
            let arguments = ["template", release, &chart, "--kube-version=1.36.0"];
            let objects = documents(&helm.run(&arguments).unwrap());
            let mut services = objects.iter().filter(|it| it["kind"] == "Service");
            let service = services.next().unwrap();
            assert_eq!(service["metadata"]["name"], expected, "{major:?} {release}");
        }
    });
}

/// An image is pulled where nothing runs it: the Job that undoes an installation goes to where it is.
#[test]
fn the_job_before_an_uninstallation_needs_no_registry_beside_an_operator() {
    with_helm(|major, helm| {
        let set = ["--kube-version=1.36.0", "--set=image.pullPolicy=Always"];
        let rendered = helm.run(&[&["template", "xmpp-edge", &chart()], &set[..]].concat());
        let objects = documents(&rendered.unwrap());
        let job = objects.iter().find(|it| it["kind"] == "Job").unwrap();
        let pod = &job["spec"]["template"]["spec"];
        assert_eq!(
            pod["containers"][0]["imagePullPolicy"], "IfNotPresent",
            "{major:?}"
        );
        let term =
            &pod["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"][0];
        let selector = &term["podAffinityTerm"]["labelSelector"]["matchLabels"];
        let deployment = objects
            .iter()
            .find(|it| it["kind"] == "Deployment")
            .unwrap();
        assert_eq!(
            selector, &deployment["spec"]["selector"]["matchLabels"],
            "{major:?}"
        );
    });
}

#[test]
fn each_mistake_in_the_values_is_refused_with_its_field() {
    with_helm(|major, helm| {
        let mut wrong = Vec::new();
        let mut messages = Vec::new();
        for (setting, named) in MISTAKES {
            let arguments = ["template", &chart(), "--kube-version=1.36.0", setting];
            let output = helm.output(&arguments).unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            if output.status.success() || !named.iter().all(|it| said.contains(it)) {
                wrong.push(format!("{major:?} {setting}: {said}"));
            }
            messages.push(said);
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        mistakes::compare("Values of the chart", &messages);
    });
}
