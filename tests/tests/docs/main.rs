//! The documents hold what they say: links lead somewhere, what an administrator can meet is listed,
//! blocks and command lines are what they say. No network; the binaries must be built.

#![allow(clippy::unwrap_used)]

mod blocks;
mod commands;
mod failure_classes;
mod field_cases;
mod log_lines;
mod releases;
mod units;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use xmpp_edge_crds::{remedy, verdict};

/// Why policy refuses.
const VERDICTS: [verdict::Reason; 6] = [
    verdict::Reason::PoolSuspended,
    verdict::Reason::PartnerNotAllowed,
    verdict::Reason::PartnerSuspended,
    verdict::Reason::AccessPolicy,
    verdict::Reason::Content,
    verdict::Reason::Contact,
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

/// All files below `folder` with this extension, without what is built or hidden.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if name.starts_with('.') || name == "target" {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Every document and its text.
fn texts() -> Vec<(PathBuf, String)> {
    let found = files(&root(), "md").into_iter();
    found
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect()
}

/// Every document and its fenced blocks.
fn documents() -> Vec<(PathBuf, Vec<Block>)> {
    let texts = texts().into_iter();
    texts.map(|(path, text)| (path, split(&text).1)).collect()
}

/// A fenced block: its info string, and its text.
struct Block {
    info: String,
    text: String,
}

/// The prose of a document, and its fenced blocks.
fn split(document: &str) -> (String, Vec<Block>) {
    let (mut prose, mut blocks) = (String::new(), Vec::new());
    let mut open: Option<Block> = None;
    for line in document.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(info), None) => {
                open = Some(Block {
                    info: info.trim().to_owned(),
                    text: String::new(),
                });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.text.extend([line, "\n"]),
            (None, None) => prose.extend([line, "\n"]),
        }
    }
    assert!(open.is_none(), "a fenced block has no end");
    (prose, blocks)
}

/// A text without what stands in backticks: code may look like a link.
fn without_code(prose: &str) -> String {
    let lines = prose.lines().map(|line| {
        let outside = line.split('`').step_by(2);
        outside.collect::<String>()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Headings as a browser addresses them.
fn anchors(prose: &str) -> BTreeSet<String> {
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut broken = Vec::new();
    for path in files(&root(), "md") {
        let (prose, _) = split(&fs::read_to_string(&path).unwrap());
        for link in without_code(&prose)
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                path.clone()
            } else {
                path.parent().unwrap().join(file)
            };
            let found = if anchor.is_empty() {
                target.exists()
            } else {
                fs::read_to_string(&target)
                    .is_ok_and(|text| anchors(&split(&text).0).contains(anchor))
            };
            if !found {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

/// Names of all metrics as they are exposed, from what registers them and from what is shown at scrape
/// time, gauges all but what contacts count themselves.
fn registered_metrics() -> BTreeSet<String> {
    let source = read("proxy/src/telemetry/metrics/mod.rs");
    let mut types: BTreeMap<&str, &str> = BTreeMap::new();
    for line in source.lines() {
        let field = line.trim().trim_start_matches("pub ");
        if let Some((name, kind)) = field.split_once(": ")
            && kind.ends_with(',')
        {
            types.entry(name).or_insert(kind);
        }
    }
    let mut names = BTreeSet::new();
    let calls = source.split("        add(\n            r,\n").skip(1);
    for call in calls.chain(source.split("r.register_with_unit(").skip(1)) {
        let call = call.split(");").next().unwrap();
        let name = call.split('"').nth(1).unwrap();
        let field = call
            .split("self.")
            .nth(1)
            .and_then(|rest| rest.split('.').next());
        let counter = field
            .and_then(|field| types.get(field))
            .is_some_and(|kind| kind.contains("Counter"));
        let unit = match call.split("Unit::").nth(1) {
            None => "",
            Some(unit) if unit.starts_with("Seconds") => "_seconds",
            Some(unit) if unit.starts_with("Bytes") => "_bytes",
            Some(unit) => panic!("another unit: {unit}"),
        };
        let total = if counter { "_total" } else { "" };
        names.insert(format!("xmpp_edge_{name}{unit}{total}"));
    }
    for name in shown("proxy/src/admin/collector.rs") {
        let total = if name.ends_with("_recorded") {
            "_total"
        } else {
            ""
        };
        names.insert(format!("xmpp_edge_{name}{total}"));
    }
    for (path, counters) in [
        ("proxy/src/telemetry/metrics/sidecar.rs", true),
        ("proxy/src/admin/sidecar_collector.rs", false),
    ] {
        for name in shown(path) {
            // What has no unit is counted there.
            let total = if counters && !name.ends_with("_seconds") {
                "_total"
            } else {
                ""
            };
            names.insert(format!("xmpp_edge_sidecar_{name}{total}"));
        }
    }
    // Counters with a room of their own; a sidecar's DNS view counts before there is anything else.
    for (path, prefix) in [
        ("proxy/src/sidecar/view.rs", "xmpp_edge_sidecar_"),
        ("proxy/src/telemetry/metrics/sip.rs", "xmpp_edge_"),
    ] {
        let source = read(path);
        for rest in source.split("registry.register(\n            \"").skip(1) {
            let name = rest.split('"').next().unwrap();
            // What goes up and down has no ending, and neither have times.
            let is_gauge = ["sip_subscriptions", "sip_sessions"].contains(&name);
            let is_counter = !is_gauge && !name.ends_with("_seconds");
            let ending = if is_counter { "_total" } else { "" };
            names.insert(format!("{prefix}{name}{ending}"));
        }
    }
    names
}

/// Names of metrics that a collector makes.
fn shown(path: &str) -> Vec<String> {
    let source = read(path);
    let tuples = source.split("            (\n                \"").skip(1);
    let tuples = tuples.chain(source.split("        (\n            \"").skip(1));
    tuples
        .map(|rest| rest.split('"').next().unwrap().to_owned())
        .collect()
}

#[test]
fn the_metrics_listed_are_those_that_exist() {
    let documented: BTreeSet<String> = read("docs/metrics.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|row| row.split('`').next())
        .filter(|name| name.starts_with("xmpp_edge_") && !name.contains(' '))
        .map(str::to_owned)
        .collect();
    let registered = registered_metrics();
    assert!(registered.len() > 15, "the source is read wrongly");
    assert_eq!(documented, registered);
}

/// CamelCase words that a `fn label` of this file answers.
fn labels(path: &str) -> BTreeSet<String> {
    let source = read(path);
    let body = source.split("fn label(&self)").nth(1).unwrap();
    let body = body.split("\n    }\n").next().unwrap();
    body.split("=> \"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .map(str::to_owned)
        .collect()
}

/// The constants of one enum of conditions. Read from the source: this crate builds without `kinds`.
fn condition_names(of: &str) -> BTreeSet<String> {
    let source = read("crds/src/kinds/conditions.rs");
    let list = source.split(&format!("    {of} {{\n")).nth(1).unwrap();
    let names: BTreeSet<String> = list
        .split("\n    }\n")
        .next()
        .unwrap()
        .lines()
        .map(|line| line.trim().trim_end_matches(',').to_owned())
        .filter(|name| !name.is_empty() && !name.starts_with("//"))
        .collect();
    assert!(names.len() > 5, "{of} is read wrongly");
    names
}

/// Words of the causes why an attempt fails.
fn causes() -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for path in [
        "proxy/src/tls/fault.rs",
        "proxy/src/tls/handshake/mod.rs",
        "proxy/src/negotiation/fault.rs",
        "proxy/src/dns/error.rs",
        "proxy/src/dns/egress_fault.rs",
    ] {
        let found = labels(path);
        assert!(found.len() > 5, "{path} is read wrongly");
        words.extend(found);
    }
    words
}

#[test]
fn every_cause_has_a_remedy_where_it_is_shown() {
    let mut causes = causes();
    causes.extend(labels("proxy/src/xml/error.rs"));
    causes.extend(labels("proxy/src/trunk/fault.rs"));
    causes.remove("Ok");
    let without = |word: &&String| remedy::of_outcome(word).is_none();
    let missing: Vec<_> = causes.iter().filter(without).collect();
    assert!(missing.is_empty(), "not in crds/src/remedy.rs: {missing:?}");
    for reason in VERDICTS {
        assert!(remedy::of_refusal(reason.as_str()).is_some(), "{reason:?}");
    }
    assert_eq!(remedy::of_outcome("Ok"), None);
}

#[test]
fn every_reason_and_outcome_is_explained() {
    let mut words: BTreeSet<String> = BTreeSet::new();
    words.extend(condition_names("ConditionType"));
    words.extend(condition_names("Reason"));
    words.extend(VERDICTS.map(|it| it.as_str().to_owned()));
    words.extend(causes());
    for path in files(&root().join("proxy/src"), "rs") {
        let source = fs::read_to_string(path).unwrap();
        let literals = source.split("connection_refused(\"").skip(1);
        words.extend(literals.filter_map(|rest| rest.split('"').next().map(str::to_owned)));
    }
    // An orderly end by itself says nothing that a document could add to.
    words.remove("Ok");
    let explained = read("docs/errors.md");
    let missing: Vec<_> = words
        .iter()
        .filter(|word| !explained.contains(&format!("`{word}`")))
        .collect();
    assert!(missing.is_empty(), "not in docs/errors.md: {missing:?}");
}

/// Reasons that code of the operator gives, by the conditions' enum.
fn reasons_in_use() -> BTreeSet<String> {
    let known = condition_names("Reason");
    let sources = files(&root().join("operator/src"), "rs").into_iter();
    let reasons = sources.flat_map(|path| reasons_of(&fs::read_to_string(path).unwrap()));
    reasons.filter(|word| known.contains(word)).collect()
}

/// What stands behind `Reason::` in a source.
fn reasons_of(source: &str) -> BTreeSet<String> {
    let words = source.split("Reason::").skip(1).map(|rest| {
        let word = rest.chars().take_while(char::is_ascii_alphanumeric);
        word.collect::<String>()
    });
    words.collect()
}

#[test]
fn what_external_dns_fails_with_is_in_both_lists_of_remedies() {
    let mut words = reasons_of(&read("operator/src/controllers/pool/external_dns.rs"));
    // Nothing has failed yet.
    assert!(words.remove("Pending"), "the source is read wrongly");
    let (errors, guide) = (read("docs/errors.md"), read("docs/guide/dns.md"));
    for word in words {
        let row = format!("| `{word}` |");
        let mut rows = errors.lines().filter(|line| line.starts_with(&row));
        let is_there = rows.any(|line| line.contains("`DnsPublished=False`"));
        assert!(is_there, "docs/errors.md: {word}");
        assert!(guide.contains(&row), "docs/guide/dns.md: {word}");
    }
}

#[test]
fn the_guide_to_the_status_names_every_condition_and_reason() {
    let guide = read("docs/guide/read-the-status.md");
    let mut wanted = reasons_in_use();
    assert!(wanted.len() > 30, "the source is read wrongly");
    wanted.extend(condition_names("ConditionType"));
    wanted.retain(|word| !guide.contains(&format!("`{word}`")));
    assert!(wanted.is_empty(), "not in the guide: {wanted:?}");
}

/// A namespace without rights, in the words that `/readyz` and the log have for it.
#[test]
fn what_is_said_of_a_namespace_that_may_not_be_read_is_in_the_list_of_messages() {
    let source = read("operator/src/runtime/caches/readiness.rs");
    let words =
        ": give the operator its Role there, or take the namespace out of those that are watched";
    assert!(source.contains(&format!("may not be read ({{error}}){words}")));
    let row = format!("| … may not be read (…){words} … |");
    assert!(read("docs/errors.md").contains(&row), "not there: {row}");
}

/// Objects whose names come from the pool's; of the others those that somebody meets.
#[test]
fn the_guide_to_pools_lists_what_a_pool_makes() {
    let guide = read("docs/guide/pools.md");
    let mut names = vec![
        "`xmpp-edge-sidecar-<name>`".to_owned(),
        "`xmpp-edge-gateway-<first domain>`".to_owned(),
    ];
    for path in [
        "operator/src/controllers/pool/plan/names.rs",
        "operator/src/compile/peer_keys.rs",
    ] {
        let source = read(path);
        let made = source.split("format!(\"{pool}").skip(1);
        let endings = made.filter_map(|rest| rest.split('"').next());
        names.extend(endings.map(|ending| format!("`<pool>{ending}`")));
    }
    assert!(names.len() > 7, "the sources are read wrongly: {names:?}");
    names.retain(|name| !guide.contains(name.as_str()));
    assert!(names.is_empty(), "not in the guide: {names:?}");
}

/// The tables that the tests of `kubectl get` expect of a real one.
#[test]
fn the_guide_to_the_status_shows_what_kubectl_shows() {
    let guide = read("docs/guide/read-the-status.md");
    let source = read("tests/tests/cluster_crds/columns.rs");
    let tables: Vec<&str> = source
        .split("\"\\\n")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .filter(|table| table.starts_with("NAME "))
        .collect();
    assert_eq!(tables.len(), 3, "the source is read wrongly");
    for table in tables {
        assert!(guide.contains(table), "not in the guide:\n{table}");
    }
}

#[test]
fn the_matrix_in_the_guide_is_the_rule() {
    use xmpp_edge_crds::negotiation::{KeyBinding, Method, Negotiation, Requirement};
    let word = |text: &str| match text.trim().trim_matches('`') {
        "Required" => Requirement::Required,
        "Optional" => Requirement::Optional,
        "NotSupported" => Requirement::NotSupported,
        other => panic!("{other:?} is no requirement"),
    };
    let guide = read("docs/guide/negotiation.md");
    let mut rows = 0;
    for line in guide.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if cells.len() < 7 || cells[1].parse::<u8>().is_err() {
            continue;
        }
        rows += 1;
        let settings = Negotiation {
            tls: word(cells[2]),
            sasl: word(cells[3]),
            dialback: cells[4].starts_with("true"),
        };
        let shown = cells[5].split(';').next().unwrap();
        match settings.methods(KeyBinding::Open) {
            Err(_) => assert!(shown.starts_with("refused"), "{line}"),
            Ok(methods) => {
                for method in [
                    Method::SaslOverTls,
                    Method::TlsDialback,
                    Method::TcpDialback,
                ] {
                    let listed = shown.contains(&format!("`{method}`"));
                    assert_eq!(listed, methods.contains(method), "{line}");
                }
                assert_eq!(
                    shown.ends_with('*'),
                    methods.contains(Method::TcpDialback),
                    "{line}"
                );
            }
        }
    }
    assert_eq!(rows, 18);
}
