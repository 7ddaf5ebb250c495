//! The chart holds what it says: its CRDs are the generated ones, its alerts fire when they should and
//! lead to a page, its dashboards ask for metrics that exist. No network; promtool must be installed.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use xmpp_edge_tests::failure_class::{self, FailureClass};

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

/// A target that is slow, while the next one is tried beside it, has failed in nothing.
#[test]
fn rules_and_dashboards_count_as_failures_what_the_page_does() {
    let mut asked = queries();
    let rules = fs::read_to_string(chart().join("files/rules/alerts.yaml")).unwrap();
    asked.extend(rules.lines().map(|line| (line.to_owned(), line.to_owned())));
    asked.retain(|(_, query)| query.contains("outcome!"));
    assert!(asked.len() > 3, "they are read wrongly: {asked:?}");
    for (place, query) in asked {
        assert!(
            query.contains(r#"outcome!~"Ok|TcpSilent""#),
            "{place}: {query}"
        );
    }
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

/// Each key of values.yaml with its default and the comment above it, as a table.
fn table_of_values() -> String {
    let text = fs::read_to_string(chart().join("values.yaml")).unwrap();
    let values: Value = serde_saphyr::from_str(&text).unwrap();
    let mut table = String::from("| value | default | meaning |\n| --- | --- | --- |\n");
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut comment = String::new();
    for line in text.lines() {
        let depth = line.len() - line.trim_start().len();
        let line = line.trim();
        if let Some(more) = line.strip_prefix("# ") {
            let space = if comment.is_empty() { "" } else { " " };
            comment = format!("{comment}{space}{more}");
            continue;
        }
        let Some((key, _)) = line.split_once(':') else {
            comment.clear();
            continue;
        };
        path.retain(|(at, _)| *at < depth);
        path.push((depth, key.to_owned()));
        let names: Vec<&str> = path.iter().map(|(_, name)| name.as_str()).collect();
        let pointer = format!("/{}", names.join("/"));
        let default = values.pointer(&pointer).unwrap_or(&Value::Null);
        if !comment.is_empty() {
            let filled = |it: &serde_json::Map<String, Value>| !it.is_empty();
            // A heading over values that have rows of their own.
            let heads =
                default.as_object().is_some_and(filled) && has_commented_child(&text, &names);
            let default = if heads {
                String::new()
            } else {
                format!("`{}`", compact(default))
            };
            table.push_str(&format!(
                "| `{}` | {default} | {} |\n",
                names.join("."),
                std::mem::take(&mut comment).replace('|', "\\|")
            ));
        }
    }
    table
}

/// JSON on one line, keys in alphabetical order whatever the order of insertion.
fn compact(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<_, _> = fields.iter().collect();
            let fields = fields.into_iter();
            let fields: Vec<_> = fields
                .map(|(key, field)| format!("{key:?}: {}", compact(field)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(compact).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

/// Whether the line below this key is a comment.
fn has_commented_child(text: &str, names: &[&str]) -> bool {
    let head = format!(
        "{}{}:",
        " ".repeat(2 * (names.len() - 1)),
        names[names.len() - 1]
    );
    let mut lines = text.lines().skip_while(|line| *line != head).skip(1);
    lines
        .next()
        .is_some_and(|line| line.trim_start().starts_with('#'))
}

/// `UPDATE_GOLDEN=1 cargo test -p xmpp-edge-tests --test chart readme` writes it anew.
#[test]
fn the_charts_readme_lists_every_value_with_its_default() {
    let path = chart().join("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (head, _) = readme.split_once("| value | default | meaning |").unwrap();
    let wanted = format!("{head}{}", table_of_values());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    let on_disk = fs::read_to_string(&path).unwrap();
    assert!(on_disk == wanted, "stale: run with UPDATE_GOLDEN=1");
    let values = fs::read_to_string(chart().join("values.yaml")).unwrap();
    let top = values.lines().filter(|line| !line.starts_with([' ', '#']));
    for line in top.filter(|line| !line.is_empty()) {
        let name = line.split(':').next().unwrap();
        assert!(
            wanted.contains(&format!("| `{name}")),
            "{name} has no comment in values.yaml"
        );
    }
}

/// A partner fails in this way for as long as the test lasts, and the alert says so.
fn failing(class: &FailureClass) -> Value {
    let (step, outcome) = (class.step, class.outcome);
    let (alert, severity, summary, description) = if class.direction == "outbound" {
        (
            "XmppEdgePartnerFailing",
            "warning",
            "Partner globex cannot be reached from pool hq",
            format!(
                "Attempts to reach it fail at step {step} with {outcome}, and no stream to it stands."
            ),
        )
    } else {
        (
            "XmppEdgePartnerTurnedAway",
            "info",
            "Whoever comes to pool hq as partner globex is turned away",
            format!(
                "Connections in the partner's name fail at step {step} with {outcome}, and no stream from it stands. It may be the partner, or a stranger that names it:"
            ),
        )
    };
    let labels = json!({"namespace": "acme", "pool": "hq", "partner": "globex", "step": step,
        "outcome": outcome, "severity": severity});
    let series = format!(
        "xmpp_edge_attempts_total{{namespace=\"acme\",pool=\"hq\",partner=\"globex\",direction=\"{}\",step=\"{}\",outcome=\"{}\"}}",
        class.direction, class.step, class.outcome
    );
    json!({
        "name": class.name, "interval": "1m",
        "input_series": [{"series": series, "values": "0+2x40"}],
        "alert_rule_test": [{"eval_time": "30m", "alertname": alert, "exp_alerts": [{
            "exp_labels": labels,
            "exp_annotations": {
                "summary": format!("{summary}: step {step}, {outcome}"),
                "description": format!("{description} kubectl describe xfp globex has time, address, what was seen and what to do."),
            },
        }]}],
    })
}

#[test]
fn the_alert_on_a_partner_says_the_class_of_its_failure() {
    let cases: Vec<Value> = failure_class::ALL.iter().map(failing).collect();
    let rules = chart().join("files/rules/alerts.yaml");
    let tests = json!({"rule_files": [rules], "evaluation_interval": "1m", "tests": cases});
    let file = tempfile::NamedTempFile::new().unwrap();
    // JSON is YAML.
    fs::write(file.path(), tests.to_string()).unwrap();
    promtool(&["test", "rules", file.path().to_str().unwrap()]);
}

#[test]
fn the_charts_examples_are_valid_objects_of_each_kind() {
    let chart: Value =
        serde_saphyr::from_str(&fs::read_to_string(chart().join("Chart.yaml")).unwrap()).unwrap();
    let examples = chart["annotations"]["artifacthub.io/crdsExamples"]
        .as_str()
        .unwrap();
    let examples: Vec<Value> = serde_saphyr::from_str(examples).unwrap();
    let mut kinds: BTreeSet<&str> = BTreeSet::new();
    for example in &examples {
        let violations = xmpp_edge_crds::kinds::validate_manifest(example);
        assert!(violations.is_empty(), "{example:#}: {violations:#?}");
        kinds.insert(example["kind"].as_str().unwrap());
    }
    assert_eq!(kinds.len(), 3);
}
