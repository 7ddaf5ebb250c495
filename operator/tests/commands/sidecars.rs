//! `render --sidecar`: a file's labelled workloads with what their pods get.

use std::process::Output;

use serde_json::Value;

use super::{PARTNER, directory, err, out, run};

const WORKLOAD: &str = "# kept as it is\napiVersion: v1\nkind: Service\nmetadata: {name: prosody}\n---\napiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: prosody, namespace: chat}\nspec:\n  template:\n    metadata:\n      labels: {xmpp-edge.dev/sidecar: org.example}\n    spec:\n      containers:\n      - {name: prosody, image: prosody}\n";

fn render_sidecar(yaml: &str, more: &[&str]) -> Output {
    let folder = directory(yaml);
    let file = folder.path().join("a.yaml").display().to_string();
    let mut arguments = vec!["render", "--sidecar", &file];
    arguments.extend(more);
    run(&arguments)
}

const SIDECAR_OPTIONS: [&str; 4] = ["--proxy-image", "p:1", "--resolver", "10.96.0.10:53"];

#[test]
fn render_adds_sidecars_to_a_file_s_labelled_workloads_and_prints_all_of_it() {
    let output = render_sidecar(WORKLOAD, &SIDECAR_OPTIONS);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let text = out(&output);
    for part in [
        "kind: Service",
        "xmpp-edge-sidecar-org.example",
        "chat.svc.cluster.local",
        "--resolver=10.96.0.10:53",
        "image: p:1",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let mut patching = SIDECAR_OPTIONS.to_vec();
    patching.extend(["--patch", "--output", "json"]);
    let patches = out(&render_sidecar(WORKLOAD, &patching));
    let patches: Value = serde_json::from_str(&patches).unwrap();
    assert_eq!(patches.as_array().unwrap().len(), 1);
    assert_eq!(patches[0]["kind"], "StatefulSet");
}

#[test]
fn what_cannot_be_rendered_with_a_sidecar_is_told_with_the_file_and_what_to_do() {
    for (yaml, options, code, expected) in [
        (
            WORKLOAD,
            &SIDECAR_OPTIONS[..2],
            1,
            "give --resolver IP:PORT",
        ),
        (
            PARTNER,
            &SIDECAR_OPTIONS[..],
            1,
            "no pod template has the label",
        ),
        ("kind: [", &SIDECAR_OPTIONS[..], 1, "document 1, line 1"),
        (WORKLOAD, &[], 2, "--proxy-image <IMAGE>"),
    ] {
        let output = render_sidecar(yaml, options);
        assert_eq!(output.status.code(), Some(code), "{expected}");
        assert!(err(&output).contains(expected), "{}", err(&output));
    }
    let output = run(&["render", "--sidecar", "/nowhere", "--proxy-image", "p"]);
    assert_eq!(output.status.code(), Some(2));
    let said = err(&output);
    assert!(
        said.contains("cannot read /nowhere") && said.contains("give a file"),
        "{said}"
    );
    let neither = run(&["render"]);
    assert_eq!(neither.status.code(), Some(2));
}
