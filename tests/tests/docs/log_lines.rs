//! What a peer can cause to be logged is limited: below `app` a line of level info or above is written by
//! `limited!`, or is counted here with the reason why no peer can cause it at will.

use std::collections::BTreeMap;

use super::{files, read, root};

/// Files with lines that no peer causes, how many, and why.
const ALLOWED: [(&str, usize, &str); 12] = [
    (
        "admin/probe.rs",
        1,
        "an administrator asked for each, one at a time",
    ),
    ("admin/thread.rs", 1, "once: the process ends with it"),
    ("config/follow/mod.rs", 1, "once: the process ends with it"),
    (
        "contacts/embedded/mod.rs",
        2,
        "the disk's fault: each cause once, no more than one a minute",
    ),
    (
        "contacts/postgres/mod.rs",
        4,
        "the database's fault, and what it cannot hold: no more than one a minute",
    ),
    (
        "dns/resolver/mod.rs",
        5,
        "once for each change of resolv.conf",
    ),
    ("net/mod.rs", 1, "once, at start"),
    ("sidecar/run.rs", 1, "once, at start"),
    (
        "stream/message_log.rs",
        1,
        "the administrator asked for each",
    ),
    (
        "telemetry/config_status.rs",
        4,
        "once for each change of the configuration's state",
    ),
    ("telemetry/log_limiter.rs", 1, "the limiter itself"),
    ("tls/roots.rs", 2, "once, at start"),
];

#[test]
fn every_line_that_a_peer_can_cause_is_limited() {
    let source = root().join("proxy/src");
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in files(&source, "rs") {
        let name = path.strip_prefix(&source).unwrap().display().to_string();
        // The composition root and the command line speak of the process, not of peers.
        if name.starts_with("app/") || name == "cli.rs" || name == "main.rs" {
            continue;
        }
        for (number, line) in read(&path).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let logs = ["info!(", "warn!(", "error!("]
                .iter()
                .any(|level| code.contains(&format!("tracing::{level}")));
            if logs || code.contains("use tracing::") {
                let place = format!("proxy/src/{name}:{}: {}", number + 1, line.trim());
                found.entry(name.clone()).or_default().push(place);
            }
        }
    }
    for (file, count, reason) in ALLOWED {
        let lines = found.remove(file).unwrap_or_default();
        assert_eq!(
            lines.len(),
            count,
            "{file} ({reason}): is a new one caused by a peer? Then it is written with limited!(…)\n{}",
            lines.join("\n")
        );
    }
    let unlimited: Vec<_> = found.into_values().flatten().collect();
    assert!(
        unlimited.is_empty(),
        "write these with limited!(…) of telemetry::log_limiter:\n{}",
        unlimited.join("\n")
    );
}
