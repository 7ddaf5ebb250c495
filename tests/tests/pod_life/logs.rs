//! What a log says of a stream from its start to its end, field by field, as `docs/logs.md` has it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use xmpp_edge_tests::wait;

use crate::{ALICE, BOB, scene::Scene};

/// Beside the fields, in every line.
const COMMON: [&str; 4] = ["timestamp", "level", "target", "message"];

/// Messages with their fields, as the document lists them.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/logs.md");
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let of = |cell: &str| -> BTreeSet<String> {
        let words = cell.split('`').skip(1).step_by(2);
        words.map(str::to_owned).collect()
    };
    let rows = rows.filter_map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        // Message, fields, when; the other table has two columns.
        (cells.len() == 5).then(|| (cells[1].trim_matches('`').to_owned(), of(cells[2])))
    });
    rows.collect()
}

fn lines(log: &str) -> Vec<BTreeMap<String, Value>> {
    let lines = log.lines().filter(|line| line.starts_with('{'));
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn a_stream_s_start_and_end_refusals_and_failed_attempts_have_the_fields_that_are_documented()
{
    let s = Scene::logging("json").await.unwrap();
    let mut peer = s.partner_stream().await.unwrap();
    peer.message(BOB, ALICE, "passes", "hello").await.unwrap();
    s.inside.stanza_id("passes").await.unwrap();
    peer.send(&format!(
        "<message from='{BOB}' to='{ALICE}' type='groupchat'><body>a room</body></message></stream:stream>"
    ))
    .await
    .unwrap();
    // Nobody knows this domain.
    s.fails_to_reach_the_partner().await.unwrap();
    let documented = documented();
    assert_eq!(documented.len(), 8, "{documented:?}");
    let of = |wanted: &str| {
        let lines = lines(&s.pod.log()).into_iter();
        let mut of = lines.filter(|line| {
            line["message"] == wanted && line.get("side").is_none_or(|side| side == "partner")
        });
        of.next()
    };
    for message in [
        "stream started",
        "stream ended",
        "refused",
        "attempt failed",
    ] {
        let line = wait::until(message, wait::GENEROUS, async || of(message)).await;
        let line = line.unwrap_or_else(|error| panic!("{error}: {}", s.pod.log()));
        let fields: BTreeSet<String> = line
            .keys()
            .filter(|name| !COMMON.contains(&name.as_str()))
            .cloned()
            .collect();
        let missing: Vec<_> = documented[message].difference(&fields).collect();
        // Before there is a connection there is no address.
        assert!(
            missing.iter().all(|it| *it == "address"),
            "{message}: {missing:?}: {line:?}"
        );
        let unknown: Vec<_> = fields.difference(&documented[message]).collect();
        assert!(unknown.is_empty(), "{message}: {unknown:?}: {line:?}");
        assert_eq!(line["partner"], "partner", "{line:?}");
    }
    let ended = of("stream ended").unwrap();
    for (field, value) in [
        ("direction", "inbound"),
        ("method", "SaslOverTls"),
        ("tls", "TLSv1.3"),
        ("reason", "PeerClosed"),
        ("peer_domain", "partner.example"),
        ("local_domain", "org.example"),
    ] {
        assert_eq!(ended[field], value, "{ended:?}");
    }
    assert_eq!(ended["stanzas_in"], 2, "{ended:?}");
    assert_eq!(ended["stream"], of("stream started").unwrap()["stream"]);
}

#[tokio::test]
async fn text_has_no_colours_where_nobody_looks_at_a_terminal() {
    let s = Scene::logging("text").await.unwrap();
    s.delivers("one").await.unwrap();
    let ended = async || s.pod.log().contains("stream ended").then_some(());
    wait::until("the end is logged", wait::GENEROUS, ended)
        .await
        .unwrap();
    let log = s.pod.log();
    assert!(!log.contains('\u{1b}'), "{log}");
    let started = log.lines().find(|line| line.contains("stream started"));
    assert!(
        started
            .is_some_and(|line| line.contains("INFO") && line.contains("method=\"SaslOverTls\"")),
        "{log}"
    );
}
