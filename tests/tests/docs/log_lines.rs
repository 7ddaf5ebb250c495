//! What a peer can cause to be logged is limited: below `app` a line of level info or above is written by
//! `limited!`, or stands here with the reason why no peer can cause it at will.

use super::{files, read, root};

/// Files whose lines no peer causes, and why.
const ALLOWED: [(&str, &str); 10] = [
    ("telemetry/log_limiter.rs", "the limiter itself"),
    (
        "telemetry/config_status.rs",
        "once for each change of the configuration's state",
    ),
    ("config/follow/mod.rs", "once: the process ends with it"),
    (
        "contacts/embedded/mod.rs",
        "the disk's fault, tried again with a pause",
    ),
    (
        "contacts/postgres/mod.rs",
        "once for each loss of the database",
    ),
    ("stream/message_log.rs", "the administrator asked for each"),
    ("tls/roots.rs", "once, at start"),
    ("net/mod.rs", "once, at start"),
    (
        "dns/resolver/mod.rs",
        "once for each change of /etc/resolv.conf",
    ),
    ("admin/thread.rs", "once: the process ends with it"),
];

#[test]
fn every_line_that_a_peer_can_cause_is_limited() {
    let source = root().join("proxy/src");
    let mut unlimited = Vec::new();
    let mut used = Vec::new();
    for path in files(&source, "rs") {
        let name = path.strip_prefix(&source).unwrap().display().to_string();
        // The composition root and the command line speak of the process, not of peers.
        if name.starts_with("app/") || name == "cli.rs" || name == "main.rs" {
            continue;
        }
        let text = read(&path);
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let logs = ["info!(", "warn!(", "error!("]
                .iter()
                .any(|level| code.contains(&format!("tracing::{level}")));
            let imports = code.contains("use tracing::");
            if !logs && !imports {
                continue;
            }
            match ALLOWED.iter().find(|(file, _)| *file == name) {
                Some((file, _)) if !imports => used.push(*file),
                _ => unlimited.push(format!("proxy/src/{name}:{}: {}", number + 1, line.trim())),
            }
        }
    }
    assert!(
        unlimited.is_empty(),
        "write these with limited!(…) of telemetry::log_limiter:\n{}",
        unlimited.join("\n")
    );
    for (file, reason) in ALLOWED {
        assert!(
            used.contains(&file),
            "{file} logs no more ({reason}): take it off the list"
        );
    }
}
