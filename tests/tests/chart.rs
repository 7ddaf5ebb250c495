//! The chart holds what it says: its CRDs are the generated ones, its alerts fire when they should and
//! lead to a page, its dashboards ask for metrics that exist. No network; promtool must be installed.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

fn chart() -> PathBuf {
    root().join("charts/xmpp-edge")
}

fn names_in(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}

/// The words of a text that are names of our metrics; a histogram's series count as its name.
fn metrics_in(text: &str) -> BTreeSet<String> {
    text.split(|it: char| !it.is_ascii_alphanumeric() && it != '_')
        .filter(|word| word.starts_with("xmpp_edge_"))
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word).to_owned())
        .filter(|word| !word.ends_with('_'))
        .collect()
}

/// Every query of every dashboard, with dashboard and panel.
fn queries() -> Vec<(String, String)> {
    let folder = chart().join("files/dashboards");
    let mut found = Vec::new();
    for name in names_in(&folder) {
        let text = fs::read_to_string(folder.join(&name)).unwrap();
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            for target in panel["targets"].as_array().unwrap() {
                let query = target["expr"].as_str().unwrap().to_owned();
                found.push((format!("{name}: {title}"), query));
            }
        }
    }
    found
}

fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(root().join("tests/chart"))
        .output()
        .expect("promtool is installed by tests/install");
    assert!(
        output.status.success(),
        "promtool {arguments:?}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_charts_crds_are_the_generated_ones() {
    let (ours, charts) = (root().join("crds"), chart().join("files/crds"));
    let generated: BTreeSet<String> = names_in(&ours)
        .into_iter()
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    assert_eq!(generated, names_in(&charts));
    for name in generated {
        let same = fs::read(ours.join(&name)).unwrap() == fs::read(charts.join(&name)).unwrap();
        assert!(same, "copy crds/{name} to charts/xmpp-edge/files/crds/");
    }
}

#[test]
fn each_alert_fires_when_it_should_and_is_quiet_when_not() {
    promtool(&["test", "rules", "alerts.test.yaml"]);
    let rules = fs::read_to_string(chart().join("files/rules/alerts.yaml")).unwrap();
    let tests = fs::read_to_string(root().join("tests/chart/alerts.test.yaml")).unwrap();
    for alert in alerts(&rules) {
        for case in ["fires", "stays quiet"] {
            assert!(tests.contains(&format!("{alert} {case}")), "{alert} {case}");
        }
    }
}

#[test]
fn each_alert_leads_to_a_page_that_says_what_to_do() {
    let rules = fs::read_to_string(chart().join("files/rules/alerts.yaml")).unwrap();
    let guide = fs::read_to_string(root().join("docs/guide/alerts.md")).unwrap();
    assert_eq!(alerts(&rules), named(&guide, "## "));
}

#[test]
fn rules_and_dashboards_ask_for_metrics_that_exist() {
    let mut known = BTreeSet::new();
    for document in ["docs/metrics.md", "docs/operator-metrics.md"] {
        known.extend(metrics_in(
            &fs::read_to_string(root().join(document)).unwrap(),
        ));
    }
    let rules = fs::read_to_string(chart().join("files/rules/alerts.yaml")).unwrap();
    let mut rules = rules.replace("xmpp_edge_dev", "");
    for recorded in named(&rules, "- record: ") {
        rules = rules.replace(&recorded, "");
    }
    let mut asked = metrics_in(&rules);
    for (_, query) in queries() {
        asked.extend(metrics_in(&query));
    }
    let unknown: Vec<_> = asked.difference(&known).collect();
    assert!(
        unknown.is_empty(),
        "not in docs/metrics.md or docs/operator-metrics.md: {unknown:?}"
    );
}

#[test]
fn every_query_of_the_dashboards_is_promql() {
    let mut rules = String::from("groups:\n  - name: dashboards\n    rules:\n");
    for (number, (_, query)) in queries().iter().enumerate() {
        let query = serde_json::to_string(query).unwrap();
        rules.push_str(&format!(
            "      - record: panel:{number}\n        expr: {query}\n"
        ));
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), rules).unwrap();
    promtool(&["check", "rules", file.path().to_str().unwrap()]);
}

fn alerts(rules: &str) -> BTreeSet<String> {
    named(rules, "- alert: ")
}

/// What comes after `key` on a line.
fn named(rules: &str, key: &str) -> BTreeSet<String> {
    let lines = rules.lines();
    let names = lines.filter_map(|line| line.trim().strip_prefix(key));
    names.map(str::to_owned).collect()
}
