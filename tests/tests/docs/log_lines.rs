//! What others can cause to be logged is limited. In the proxy a peer's: below `app` a line of level info or above
//! is written by `limited!`, or is counted here with the reason why no peer can cause it at will. In the operator a
//! pod's, which may be broken into: each line is counted here with what limits it.

use std::collections::BTreeMap;

use super::{files, read, root};

/// Files with lines that no peer causes, how many, and why.
const ALLOWED: [(&str, usize, &str); 14] = [
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
    ("logging.rs", 2, "once, at start"),
    ("net/mod.rs", 1, "once, at start"),
    ("sidecar/run.rs", 1, "once, at start"),
    ("sidecar/view.rs", 1, "once, at start"),
    (
        "stream/message_log.rs",
        1,
        "the administrator asked for each",
    ),
    (
        "telemetry/config_status.rs",
        5,
        "once for each change of the configuration's state",
    ),
    ("telemetry/log_limiter.rs", 1, "the limiter itself"),
    ("tls/roots.rs", 2, "once, at start"),
];

/// The operator's, likewise: what a pod says is cut where it is read (`proxy_status/border.rs`), and how often it
/// says another thing is what each of these bounds.
const OF_THE_OPERATOR: [(&str, usize, &str); 25] = [
    (
        "controllers/namespace/inputs.rs",
        1,
        "ours to write, or an administrator's",
    ),
    (
        "controllers/namespace/peer_keys.rs",
        2,
        "once for a fault; once for a key that was written, and of a partner 4 an hour are at most",
    ),
    (
        "controllers/namespace/reconciler/mod.rs",
        1,
        "our own fault",
    ),
    (
        "controllers/pool/apply/contention.rs",
        1,
        "another operator's doing, once a minute for an object",
    ),
    (
        "controllers/pool/apply/mod.rs",
        2,
        "an administrator's change, written",
    ),
    (
        "controllers/pool/apply/secret.rs",
        3,
        "an administrator's change, written, or a renewal",
    ),
    (
        "controllers/pool/cert_manager/mod.rs",
        1,
        "the API server's answer, with a growing pause",
    ),
    (
        "controllers/pool/external_dns.rs",
        1,
        "the API server's answer, with a growing pause",
    ),
    (
        "controllers/pool/publish/finalizer.rs",
        1,
        "an administrator deleted the pool",
    ),
    (
        "controllers/pool/publish/leaving.rs",
        1,
        "the API server's answer, where it is another",
    ),
    (
        "controllers/pool/sidecar_secrets.rs",
        2,
        "an administrator took a gateway away",
    ),
    (
        "dns/addresses.rs",
        2,
        "the zone's administrator, once for each look-up",
    ),
    (
        "dns/backend/pool_records.rs",
        2,
        "the name server's answer, with a growing pause",
    ),
    ("dns/controller.rs", 1, "our own fault"),
    (
        "proxy_status/poll.rs",
        1,
        "a pod that does not answer, once a minute for a pod",
    ),
    (
        "runtime/caches/mod.rs",
        1,
        "the API server's answer, with a growing pause",
    ),
    (
        "runtime/events.rs",
        1,
        "the API server's answer, once for an Event",
    ),
    (
        "runtime/leader/lease.rs",
        4,
        "the API server's answer, once for a try",
    ),
    (
        "runtime/store/referenced/mod.rs",
        1,
        "the API server's answer, with a growing pause",
    ),
    (
        "standalone/dns.rs",
        1,
        "once for each change of the condition",
    ),
    (
        "standalone/peer_keys.rs",
        1,
        "the proxy's own word: once for a key that was written",
    ),
    (
        "standalone/station/mod.rs",
        1,
        "an administrator's directory, once at the start",
    ),
    ("standalone/status.rs", 3, "an administrator's change"),
    (
        "status/queue.rs",
        2,
        "the API server's answer, with a growing pause",
    ),
    (
        "status/unwatched.rs",
        2,
        "once for each change of what is found",
    ),
];

#[test]
fn every_line_that_a_peer_can_cause_is_limited() {
    // The composition root and the command line speak of the process, not of peers.
    let unlimited = lines_but(
        "proxy/src",
        |name| name.starts_with("app/") || name == "cli.rs" || name == "main.rs",
        &ALLOWED,
    );
    assert!(
        unlimited.is_empty(),
        "write these with limited!(…) of telemetry::log_limiter:\n{}",
        unlimited.join("\n")
    );
}

#[test]
fn every_line_of_the_operator_that_a_pod_can_cause_is_limited() {
    let unlimited = lines_but(
        "operator/src",
        |name| name.starts_with("cli/") || name == "standalone/run.rs",
        &OF_THE_OPERATOR,
    );
    assert!(
        unlimited.is_empty(),
        "can a pod cause these at will? Bound them, and say here by what:\n{}",
        unlimited.join("\n")
    );
}

/// Lines below a folder in files that are not `apart`, without those that are counted.
fn lines_but(
    folder: &str,
    apart: impl Fn(&str) -> bool,
    counted: &[(&str, usize, &str)],
) -> Vec<String> {
    let source = root().join(folder);
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in files(&source, "rs") {
        let name = path.strip_prefix(&source).unwrap().display().to_string();
        if apart(&name) {
            continue;
        }
        for (number, line) in read(&path).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let logs = ["info!(", "warn!(", "error!("]
                .iter()
                .any(|level| code.contains(&format!("tracing::{level}")));
            if logs || code.contains("use tracing::") {
                let place = format!("{folder}/{name}:{}: {}", number + 1, line.trim());
                found.entry(name.clone()).or_default().push(place);
            }
        }
    }
    for (file, count, reason) in counted {
        let lines = found.remove(*file).unwrap_or_default();
        assert_eq!(
            lines.len(),
            *count,
            "{folder}/{file} ({reason}): can somebody cause a new one at will? Then it is to be limited\n{}",
            lines.join("\n")
        );
    }
    found.into_values().flatten().collect()
}
