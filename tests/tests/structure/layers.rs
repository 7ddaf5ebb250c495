//! Imports go down only, and no two rooms need each other.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Finding, assert_excepted,
    source::{Source, root},
};

/// The proxy's rooms from the top, by rank.
const PROXY: &[&[&str]] = &[
    &["main", "lib"],
    &["cli"],
    &["sidecar"],
    &["app"],
    &["admin"],
    &["stream"],
    &["trunk"],
    &["routing"],
    &["presence"],
    &["config"],
    &["policy", "contacts", "probe"],
    &["negotiation", "sip"],
    &["tls", "dns", "dns_view", "xml", "net"],
    &["telemetry"],
    &["random", "remembered", "same_bytes"],
];

/// The layer rule as `docs/architecture.md` says it.
const RULE: &str = "sidecar, app, admin → stream → trunk → routing → presence → config → policy, contacts → negotiation, sip → \
                    tls, dns, dns_view, xml, net → telemetry → crds";

/// The operator's, likewise.
const OPERATOR: &[&[&str]] = &[
    &["main", "lib"],
    &["cli"],
    &["standalone", "lync"],
    &["controllers"],
    &["proxy_status", "status", "page"],
    &["sidecar"],
    &["compile", "dns", "secrets"],
    &["runtime"],
    &["text"],
];

/// Pairs of the operator's rooms of which the first never names the second.
const OPERATOR_STRANGERS: &[(&str, &str)] = &[("compile", "dns"), ("dns", "compile")];

/// Rooms of the operator that name nothing of ours but `crds`.
const OPERATOR_ALONE: &[&str] = &["secrets"];

/// A library, and the rooms of the proxy that may know it.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("rustls", &["tls"]),
    ("webpki", &["tls"]),
    ("hickory_net", &["dns", "dns_view"]),
    ("hickory_proto", &["dns", "dns_view"]),
    ("hickory_resolver", &["dns"]),
    ("quick_xml", &["xml"]),
    ("axum", &["admin"]),
    ("redb", &["contacts"]),
    ("tokio_postgres", &["contacts", "tls"]),
    ("tokio_socks", &["dns"]),
];

#[test]
fn the_document_says_the_rule_that_is_held() {
    let document = std::fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let words: Vec<&str> = document.split_whitespace().collect();
    let rule: Vec<&str> = RULE.split_whitespace().collect();
    let document = words.join(" ").replace('`', "");
    assert!(document.contains(&rule.join(" ")), "{RULE}");
}

#[test]
fn rooms_name_only_rooms_below_them() {
    let mut found = Vec::new();
    for (name, ranks) in [("proxy", PROXY), ("operator", OPERATOR)] {
        for import in imports(name) {
            match (rank(ranks, &import.from), rank(ranks, &import.to)) {
                (Some(from), Some(to)) if from <= to => {}
                (None, _) => found.push(Finding {
                    key: format!("{name}: {} has no rank", import.from),
                    place: import.place(),
                }),
                _ => found.push(import.into_finding()),
            }
        }
    }
    assert_excepted("imports that go up", &found);
}

fn rank(ranks: &[&[&str]], room: &str) -> Option<usize> {
    ranks.iter().position(|rooms| rooms.contains(&room))
}

#[test]
fn each_library_is_known_to_its_room_alone() {
    let mut found = Vec::new();
    for source in sources("proxy") {
        let room = source.room().to_owned();
        for (library, line) in source.heads() {
            let owners = LIBRARIES.iter().find(|(name, _)| *name == library);
            if owners.is_some_and(|(_, rooms)| !rooms.contains(&room.as_str())) {
                found.push(Finding {
                    key: format!("{} -> {library}", source.path),
                    place: format!("{}:{line}", source.path),
                });
            }
        }
    }
    assert_excepted("proxy: libraries outside their room", &found);
}

#[test]
fn the_operator_s_rooms_do_not_name_what_they_must_not_know() {
    let mut found = Vec::new();
    for import in imports("operator") {
        let (from, to) = (import.from.as_str(), import.to.as_str());
        if OPERATOR_STRANGERS.contains(&(from, to)) || OPERATOR_ALONE.contains(&from) {
            found.push(import.into_finding());
        }
    }
    assert_excepted("operator: imports that are forbidden", &found);
}

/// Where rooms have ranks, those of one rank: the rule above holds the others.
#[test]
fn no_two_rooms_need_each_other() {
    let mut found = BTreeMap::new();
    for (name, ranks) in [
        ("proxy", PROXY),
        ("operator", OPERATOR),
        ("crds", &[]),
        ("page", &[]),
    ] {
        let mut imports = imports(name);
        imports.retain(|it| rank(ranks, &it.from) == rank(ranks, &it.to));
        let mut below: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for import in &imports {
            below.entry(&import.from).or_default().insert(&import.to);
        }
        for import in &imports {
            if reaches(&below, &import.to, &import.from) {
                let key = format!("{name}: {} -> {}", import.from, import.to);
                let places: &mut Vec<String> = found.entry(key).or_default();
                places.push(import.place());
            }
        }
    }
    let found: Vec<_> = found
        .into_iter()
        .map(|(key, places)| Finding {
            key,
            place: places.join("\n    "),
        })
        .collect();
    assert_excepted("circles of rooms", &found);
}

/// One room named in a file of another.
struct Import {
    path: String,
    line: usize,
    from: String,
    to: String,
    words: String,
}

impl Import {
    fn place(&self) -> String {
        format!("{}:{} crate::{}", self.path, self.line, self.words)
    }

    fn into_finding(self) -> Finding {
        Finding {
            key: format!("{} -> {}", self.path, self.to),
            place: self.place(),
        }
    }
}

/// What is left when tests are: these look at a room from where they need to.
pub fn sources(name: &str) -> Vec<Source> {
    let sources = Source::all(name);
    sources.into_iter().filter(|it| !it.is_test()).collect()
}

fn imports(name: &str) -> Vec<Import> {
    let sources = sources(name);
    let rooms: BTreeSet<String> = sources.iter().map(|it| it.room().to_owned()).collect();
    let mut imports = Vec::new();
    for source in &sources {
        for reference in source.references() {
            let Some(to) = reference.path.first() else {
                continue;
            };
            if to != source.room() && rooms.contains(to) {
                imports.push(Import {
                    path: source.path.clone(),
                    line: reference.line,
                    from: source.room().to_owned(),
                    to: to.clone(),
                    words: reference.path.join("::"),
                });
            }
        }
    }
    assert!(!imports.is_empty(), "{name} is read wrongly");
    imports
}

pub fn reaches<'a>(below: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &'a str, to: &str) -> bool {
    let mut seen = BTreeSet::new();
    let mut next = vec![from];
    while let Some(room) = next.pop() {
        if room == to {
            return true;
        }
        if seen.insert(room) {
            next.extend(below.get(room).into_iter().flatten());
        }
    }
    false
}
