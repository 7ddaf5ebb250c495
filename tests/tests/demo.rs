//! The demonstration keeps working.

#![allow(clippy::unwrap_used)]

use std::process::Command;

#[test]
fn the_demonstration_shows_a_message_allowed_one_refused_streams_and_metrics() {
    let output = Command::new(env!("CARGO_BIN_EXE_demo")).output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{shown}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for expected in [
        "arrived, from alice@org.example",
        "not-allowed, reason AccessPolicy",
        "SaslOverTls",
        "xmpp_edge_stanzas_refused_total{",
    ] {
        assert!(shown.contains(expected), "no {expected:?} in {shown}");
    }
}
