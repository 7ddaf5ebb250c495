//! The demonstration keeps working.

#![allow(clippy::unwrap_used)]

use std::process::Command;

/// Shows a message that passes, streams and metrics, and what is expected beside.
fn shows(arguments: &[&str], expected: &[&str]) {
    let demo = Command::new(env!("CARGO_BIN_EXE_demo"))
        .args(arguments)
        .output();
    let output = demo.unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{shown}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let always = [
        "arrived, from alice@org.example",
        "SaslOverTls",
        "xmpp_edge_stanzas_refused_total{",
    ];
    for expected in always.iter().chain(expected) {
        assert!(shown.contains(expected), "no {expected:?} in {shown}");
    }
}

#[test]
fn the_demonstration_shows_a_message_allowed_one_refused_streams_and_metrics() {
    shows(&[], &["not-allowed, reason AccessPolicy"]);
}

#[test]
fn the_demonstration_shows_the_same_where_a_sidecar_is_the_way_inside() {
    let refused = "not-allowed, reason AccessPolicy";
    shows(
        &["--sidecar"],
        &[refused, "xmpp-edge-proxy sidecar key: sha256:"],
    );
}

#[test]
fn the_demonstration_shows_messages_and_presence_where_a_kamailio_is_inside() {
    shows(
        &["--sip"],
        &[
            "arrived, <sip:bob@partner.example>",
            "SIP/2.0 403 Forbidden, Warning: 399 edge.default.xmpp-edge.internal",
            "bob@partner.example sees alice@org.example/phone: away, \"at lunch\"",
            "alice@org.example sees bob@partner.example: busy, \"writing\"",
        ],
    );
}
