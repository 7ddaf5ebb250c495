//! Every YAML block of the documents is what it says it is. The word after `yaml` says what:
//!
//! | word | checked as |
//! | --- | --- |
//! | `apply` | whole manifests, by `validate` |
//! | `pool`, `partner`, `policy` | part of a spec, put into an object that is valid without it, by schema and rules |
//! | `values` | the chart's values, by `helm template` |
//! | `podspec` | part of a pod's spec, by Kubernetes' own types |
//! | `ejabberd` | options that the ejabberd of the tests is run with |
//! | `autoscaler` | a HorizontalPodAutoscaler, by Kubernetes' own types, of a kind that has a scale |
//! | `argocd` | health checks in Lua for Argo CD, by what they say of objects |
//! | `status` | what an object's status may hold, by the definitions |

use std::{fs, path::Path, process::Command};

use k8s_openapi::api::{autoscaling::v2::HorizontalPodAutoscaler, core::v1::PodSpec};
use serde_json::{Value, json};
use xmpp_edge_crds::kinds;
use xmpp_edge_tests::{
    cluster::{Helm, Major, skip},
    edge,
};

use super::{Block, documents, read, root};

/// Where foreign configuration that tests run is written.
const EJABBERD: &str = "tests/src/servers/ejabberd.rs";

fn yaml(block: &Block) -> Result<Value, String> {
    serde_saphyr::from_str(&block.text).map_err(|error| error.to_string())
}

/// What `validate` says of manifests; `Err` where it finds an error.
fn validate(manifests: &str) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("block.yaml"), manifests).unwrap();
    validate_folder(directory.path())
}

fn validate_folder(folder: &Path) -> Result<(), String> {
    let output = Command::new(edge::binary().unwrap())
        .args(["validate", "--manifests"])
        .arg(folder)
        .output()
        .unwrap();
    if output.status.success() {
        return Ok(());
    }
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    Err(String::from_utf8_lossy(&said).into_owned())
}

/// An object that is valid, with these fields in its spec.
fn object(kind: &str, fields: &Value) -> Value {
    let (kind, mut spec) = match kind {
        "pool" => (
            "EdgePool",
            json!({
                "site": "hq", "domains": ["org.example"], "accessEdge": {"fqdn": "edge.org.example"},
                "gateways": [{"domains": ["org.example"], "address": "10.0.0.9:5269"}],
                "certificate": {"selfSigned": {}},
            }),
        ),
        "partner" => ("XmppFederatedPartner", json!({"domain": "partner.example"})),
        _ => ("ExternalAccessPolicy", json!({"scope": "Global"})),
    };
    for (name, field) in fields.as_object().into_iter().flatten() {
        spec[name] = field.clone();
    }
    json!({
        "apiVersion": "xmpp-edge.dev/v1alpha1", "kind": kind, "metadata": {"name": "hq"}, "spec": spec,
    })
}

fn part_of_a_spec(kind: &str, block: &Block) -> Result<(), String> {
    let fields = yaml(block)?;
    let violations = kinds::validate_manifest(&object(kind, &fields));
    if violations.is_empty() {
        return Ok(());
    }
    Err(format!("{violations:#?}"))
}

fn part_of_a_pod(block: &Block) -> Result<(), String> {
    let mut fields = yaml(block)?;
    fields["containers"] = json!([]);
    let spec: PodSpec =
        serde_json::from_value(fields.clone()).map_err(|error| error.to_string())?;
    // What the type does not know is lost on the way.
    let kept = serde_json::to_value(spec).map_err(|error| error.to_string())?;
    if kept == fields {
        Ok(())
    } else {
        Err(format!("only this is of a pod: {kept}"))
    }
}

fn an_autoscaler(block: &Block) -> Result<(), String> {
    let fields = yaml(block)?;
    let read: HorizontalPodAutoscaler =
        serde_json::from_value(fields.clone()).map_err(|error| error.to_string())?;
    let kept = serde_json::to_value(&read).map_err(|error| error.to_string())?;
    if kept != fields {
        return Err(format!("only this is of an autoscaler: {kept}"));
    }
    let target = read.spec.unwrap_or_default().scale_target_ref;
    let scales = kinds::crds().into_iter().any(|crd| {
        let version = &crd.spec.versions[0];
        let scale = version
            .subresources
            .as_ref()
            .and_then(|it| it.scale.as_ref());
        crd.spec.names.kind == target.kind && scale.is_some()
    });
    if scales {
        Ok(())
    } else {
        Err(format!("{} has no scale", target.kind))
    }
}

/// What an object's status holds, as Lua, and what Argo CD is to make of it.
const HEALTHS: [(&str, &str); 5] = [
    ("status = nil", "Progressing"),
    ("status = {observedGeneration = 2}", "Progressing"),
    (
        "status = {observedGeneration = 2, conditions = {{type = \"Ready\", status = \"True\", reason = \"Ready\"}}}",
        "Healthy",
    ),
    (
        "status = {observedGeneration = 2, conditions = {{type = \"Ready\", status = \"False\", reason = \"NoPool\", message = \"m\"}}}",
        "Degraded",
    ),
    (
        "status = {observedGeneration = 1, conditions = {{type = \"Ready\", status = \"True\", reason = \"Ready\"}}}",
        "Progressing",
    ),
];

fn health_checks(block: &Block) -> Result<(), String> {
    let checks = yaml(block)?;
    for (name, script) in checks.as_object().into_iter().flatten() {
        let kind = name.strip_prefix("resource.customizations.health.xmpp-edge.dev_");
        if !kinds::crds()
            .iter()
            .any(|crd| Some(&*crd.spec.names.kind) == kind)
        {
            return Err(format!("{name} is of no kind"));
        }
        let script = script.as_str().ok_or("a script is a text")?;
        for (status, expected) in HEALTHS {
            let program = format!(
                "obj = {{metadata = {{generation = 2}}, {status}}}\nlocal function check()\n{script}\nend\nprint(check().status)"
            );
            // Prosody's own interpreter.
            let output = Command::new("lua5.4")
                .args(["-e", &program])
                .output()
                .map_err(|error| format!("lua5.4: {error}"))?;
            let said = String::from_utf8_lossy(&output.stdout);
            if said.trim() != expected {
                let fault = String::from_utf8_lossy(&output.stderr);
                return Err(format!("{status}: {said}{fault}, not {expected}"));
            }
        }
    }
    Ok(())
}

/// Names of all options in a configuration, modules included.
fn options(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                found.push(name.clone());
                options(field, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| options(item, found)),
        _ => {}
    }
}

fn run_by_the_tests(block: &Block) -> Result<(), String> {
    let mut names = Vec::new();
    options(&yaml(block)?, &mut names);
    let source = read(EJABBERD);
    let unknown = names
        .iter()
        .filter(|name| !source.contains(&format!("{name}:")));
    let unknown: Vec<_> = unknown.collect();
    if unknown.is_empty() && !names.is_empty() {
        return Ok(());
    }
    Err(format!("{EJABBERD} does not set {unknown:?}"))
}

fn values_of_the_chart(block: &Block) -> Result<(), String> {
    let home = tempfile::tempdir().unwrap();
    let helm = match Helm::offline(Major::Four, home.path().to_owned()) {
        Ok(helm) => helm,
        Err(missing) => {
            skip(&missing);
            return Ok(());
        }
    };
    let file = home.path().join("values.yaml");
    fs::write(&file, &block.text).unwrap();
    let chart = root().join("charts/xmpp-edge").display().to_string();
    let file = file.display().to_string();
    let arguments = [
        "template",
        &chart,
        "--kube-version=1.36.0",
        "--values",
        &file,
    ];
    helm.run(&arguments)
        .map(|_| ())
        .map_err(|error| format!("{error:#}"))
}

/// Fields of a status that no definition knows.
fn part_of_a_status(block: &Block) -> Result<(), String> {
    let shown = yaml(block)?;
    let status = shown.get("status").ok_or("no status")?;
    let known = kinds::crds().iter().any(|crd| {
        let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
        let schema = &schema["openAPIV3Schema"]["properties"]["status"];
        fits(status, schema)
    });
    if known {
        Ok(())
    } else {
        Err("no kind has these fields".to_owned())
    }
}

fn fits(value: &Value, schema: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.iter().all(|(name, field)| {
            let known = &schema["properties"][name];
            known.is_object() && fits(field, known)
        }),
        Value::Array(items) => items.iter().all(|item| fits(item, &schema["items"])),
        _ => true,
    }
}

#[test]
fn every_yaml_block_is_what_it_says() {
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for (path, blocks) in documents() {
        for block in blocks {
            let words: Vec<&str> = block.info.split_whitespace().collect();
            let Some((&"yaml", kind)) = words.split_first() else {
                continue;
            };
            let done = match kind {
                ["apply"] => validate(&block.text),
                [kind @ ("pool" | "partner" | "policy")] => part_of_a_spec(kind, &block),
                ["values"] => values_of_the_chart(&block),
                ["podspec"] => part_of_a_pod(&block),
                ["ejabberd"] => run_by_the_tests(&block),
                ["autoscaler"] => an_autoscaler(&block),
                ["argocd"] => health_checks(&block),
                ["status"] => part_of_a_status(&block),
                _ => Err(format!(
                    "{:?} does not say what it is: see this file's head",
                    block.info
                )),
            };
            checked += 1;
            if let Err(why) = done {
                wrong.push(format!("{}:\n{}\n{why}", path.display(), block.text));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 15, "the documents are read wrongly");
}

/// Names are whole: the edge appends nothing of a search list.
#[test]
fn no_block_names_a_service_that_a_search_list_would_have_to_complete() {
    for (path, blocks) in documents() {
        for block in blocks {
            let found = block.text.lines().find(|line| line.contains(".svc:"));
            assert_eq!(found, None, "{}", path.display());
        }
    }
}

#[test]
fn the_examples_of_a_cluster_and_of_a_sip_server_are_valid() {
    for folder in ["examples/cluster", "examples/sip"] {
        if let Err(said) = validate_folder(&root().join(folder)) {
            panic!("{folder}: {said}");
        }
    }
}
