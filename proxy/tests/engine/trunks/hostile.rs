//! Whoever holds a certificate of a sidecar or an edge and does not keep to the rules.

use std::time::Duration;

use super::{
    engines::{BareSidecar, Engine, at, edge, sidecar},
    pki::Pki,
    scripted::{End, ScriptedEdge},
};
use crate::peers::{server_at, within};

const OPEN: &str =
    "<pair xmlns='urn:xmpp-edge:trunk:0' i='1' from='org.example' to='partner.example'/>";

fn message(from: &str, to: &str, id: &str) -> String {
    format!("<message from='a@{from}' to='b@{to}' id='{id}' type='chat'><body>x</body></message>")
}

#[tokio::test]
async fn b08_a_pair_from_a_domain_that_is_not_on_the_certificate_is_answered_and_the_trunk_goes_on()
{
    let pki = Pki::new();
    let partner = server_at(at(31, 2, 5269));
    let engine = Engine::start(at(31, 1, 0), edge(31, &pki, |_| ()));
    let shown = pki.sidecar(&["org.example"]);
    let mut trunk = End::standing_sidecar(engine.address, &pki, &shown, "org.example").await;
    let pairs = [
        ("org2.example", "partner.example"),
        ("other.example", "partner.example"),
        ("partner.example", "org.example"),
        ("org.example", "other.example"),
    ];
    for (number, (from, to)) in pairs.into_iter().enumerate() {
        trunk
            .say(&format!(
                "<pair xmlns='urn:xmpp-edge:trunk:0' i='{}' from='{from}' to='{to}'/>{}",
                number + 10,
                message(from, to, &format!("bad{number}"))
            ))
            .await;
        trunk.hears_times("<not-allowed", number + 1).await;
        let answer =
            format!("<pair xmlns='urn:xmpp-edge:trunk:0' i='{number}' from='{to}' to='{from}'/>");
        trunk.hears(&answer).await;
    }
    let good = message("org.example", "partner.example", "good");
    trunk.say(&format!("{OPEN}{good}")).await;
    partner.hears("id='good'").await;
    assert_eq!(partner.heard_times("<message "), 1);
}

#[tokio::test]
async fn b09_an_edge_speaks_for_partners_and_for_no_domain_that_its_issuer_excludes() {
    let pki = Pki::new();
    let server = server_at(at(32, 3, 5269));
    let scripted = ScriptedEdge::open(at(32, 1, 23456), &pki).await;
    let shown = pki.sidecar(&["org.example", "org2.example"]);
    let settings = sidecar(32, &pki, &shown, &[scripted.address]);
    let _engine = Engine::start(at(32, 4, 0), settings.into_inputs());
    let mut trunk = scripted.next().await;
    let own = ["org2.example", "chat.org.example", "other.example"];
    for (number, from) in own.into_iter().enumerate() {
        trunk
            .say(&format!(
                "<pair xmlns='urn:xmpp-edge:trunk:0' i='{number}' from='{from}' to='org.example'/>{}",
                message(from, "org.example", &format!("bad{number}"))
            ))
            .await;
        trunk.hears_times("<not-allowed", number + 1).await;
    }
    trunk
        .say(&format!(
            "<pair xmlns='urn:xmpp-edge:trunk:0' i='9' from='partner.example' to='org.example'/>{}",
            message("partner.example", "org.example", "good")
        ))
        .await;
    server.hears("id='good'").await;
    assert_eq!(server.heard_times("<message "), 1);
}

/// What ends the trunk of who says it, with the condition that it is told.
const WRONG: [(&str, &str); 9] = [
    (
        "<what xmlns='urn:xmpp-edge:trunk:0'/>",
        "unsupported-stanza-type",
    ),
    ("<r xmlns='urn:xmpp:sm:3'/>", "unsupported-stanza-type"),
    (
        "<a xmlns='urn:xmpp-edge:trunk:0'><p i='4' h='1'/></a>",
        "undefined-condition",
    ),
    (
        "<a xmlns='urn:xmpp-edge:trunk:0' n='77'/>",
        "unsupported-stanza-type",
    ),
    (
        "<end xmlns='urn:xmpp-edge:trunk:0' i='3'/>",
        "undefined-condition",
    ),
    (
        "<edge xmlns='urn:xmpp-edge:trunk:0' priority='1'/>",
        "unsupported-stanza-type",
    ),
    (
        "<pair xmlns='urn:xmpp-edge:trunk:0' i='x' from='a.example' to='b.example'/>",
        "bad-format",
    ),
    (
        "<message from='a@org.example' to='b@partner.example'/>",
        "not-authorized",
    ),
    ("<<", "not-well-formed"),
];

#[tokio::test]
async fn b16_whoever_breaks_the_rules_of_a_trunk_loses_his_own_and_no_other() {
    let pki = Pki::new();
    let engine = Engine::start(at(33, 1, 0), edge(33, &pki, |_| ()));
    let shown = pki.sidecar(&["org.example"]);
    let mut good = End::standing_sidecar(engine.address, &pki, &shown, "org.example").await;
    for (number, (said, condition)) in WRONG.into_iter().enumerate() {
        let mut bad = End::standing_sidecar(engine.address, &pki, &shown, "org.example").await;
        bad.say(said).await;
        bad.hears(&format!("<{condition}")).await;
        bad.ends().await;
        good.say(&format!("<r xmlns='urn:xmpp-edge:trunk:0' n='{number}'/>"))
            .await;
        good.hears(&format!(" n='{number}'/>")).await;
    }
}

#[tokio::test]
async fn b16_pairs_that_are_opened_and_ended_without_end_end_the_trunk() {
    let pki = Pki::new();
    let engine = Engine::start(at(34, 1, 0), edge(34, &pki, |_| ()));
    let shown = pki.sidecar(&["org.example"]);
    let mut bad = End::standing_sidecar(engine.address, &pki, &shown, "org.example").await;
    for hundred in 0..201 {
        let said: String = (0..100)
            .map(|number| {
                let number = hundred * 100 + number;
                format!(
                    "<pair xmlns='urn:xmpp-edge:trunk:0' i='{number}' from='org.example' \
                     to='x{number}.example'/><end xmlns='urn:xmpp-edge:trunk:0' i='{number}'/>"
                )
            })
            .collect();
        bad.say(&said).await;
    }
    bad.hears("<resource-constraint").await;
    bad.ends().await;
}

#[tokio::test]
async fn b15_a_stanza_that_breaks_a_limit_is_answered_and_the_trunk_goes_on() {
    let pki = Pki::new();
    let partner = server_at(at(35, 2, 5269));
    let engine = Engine::start(at(35, 1, 0), edge(35, &pki, |_| ()));
    let shown = pki.sidecar(&["org.example"]);
    let mut trunk = End::standing_sidecar(engine.address, &pki, &shown, "org.example").await;
    trunk.say(OPEN).await;
    let deep = "<a>".repeat(100) + &"</a>".repeat(100);
    let large = format!("<body>{}</body>", "x".repeat(400_000));
    for (number, content) in [deep, large].into_iter().enumerate() {
        let bad = format!(
            "<message from='a@org.example' to='b@partner.example' id='bad{number}'>{content}</message>"
        );
        trunk.say(&bad).await;
        trunk.hears_times("<policy-violation", number + 1).await;
        trunk.hears(&format!("id='bad{number}'")).await;
    }
    // An answer is settled once it has arrived, and with it what it answers.
    trunk
        .say("<a xmlns='urn:xmpp-edge:trunk:0'><p i='0' h='2'/></a>")
        .await;
    trunk
        .say(&message("org.example", "partner.example", "good"))
        .await;
    partner.hears("id='good'").await;
    trunk.hears("<p i='1' h='3'/>").await;
}

#[tokio::test]
async fn b19_where_memory_is_used_up_stanzas_are_answered_and_the_trunk_is_read_and_recovers() {
    let pki = Pki::new();
    let document = edge(36, &pki, |document| {
        document["settings"]["queueBytes"] = 100_000.into();
        document["settings"]["queueTotalBytes"] = 4_000_000.into();
    });
    let engine = Engine::start(at(36, 1, 0), document);
    let shown = pki.sidecar(&["org.example"]);
    let mut trunk = End::standing_sidecar(engine.address, &pki, &shown, "org.example").await;
    trunk.say(OPEN).await;
    // The partner is down: what is for it waits. Its share is a quarter of the whole.
    let body = "x".repeat(4_000);
    for id in 0..290 {
        let full = message("org.example", "partner.example", &format!("w{id}"));
        trunk
            .say(&full.replace("<body>x", &format!("<body>{body}")))
            .await;
    }
    trunk.hears("<resource-constraint").await;
    trunk.say("<r xmlns='urn:xmpp-edge:trunk:0' n='5'/>").await;
    trunk.hears(" n='5'").await;
    let partner = server_at(at(36, 2, 5269));
    partner.hears("id='w0'").await;
    // Each answer is settled once it has arrived.
    within("all is settled", async {
        while !trunk.heard().contains("<p i='1' h='290'/>") {
            let answered = trunk.heard_times("<resource-constraint");
            let ack = format!("<p i='0' h='{answered}'/>");
            trunk
                .say(&format!("<a xmlns='urn:xmpp-edge:trunk:0'>{ack}</a>"))
                .await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    trunk
        .say(&message("org.example", "partner.example", "after"))
        .await;
    partner.hears("id='after'").await;
}

#[tokio::test]
async fn b16_a_gateway_has_so_many_trunks_to_a_pod_and_no_more() {
    let pki = Pki::new();
    let engine = Engine::start(at(37, 1, 0), edge(37, &pki, |_| ()));
    let shown = pki.sidecar(&["org.example"]);
    let mut trunks = Vec::new();
    for _ in 0..xmpp_edge_proxy::stream::trunk::registry::MOST_OF_GATEWAY {
        trunks.push(End::standing_sidecar(engine.address, &pki, &shown, "org.example").await);
    }
    let mut more = End::sidecar(engine.address, &pki, &shown, "org.example").await;
    more.say(super::scripted::ENABLE).await;
    more.hears("<resource-constraint").await;
    more.ends().await;
    trunks[0]
        .say("<r xmlns='urn:xmpp-edge:trunk:0' n='1'/>")
        .await;
    trunks[0].hears(" n='1'").await;
}

#[tokio::test]
async fn b16_a_sidecar_that_claims_without_end_loses_its_trunk() {
    let pki = Pki::new();
    let engine = Engine::start(at(38, 1, 0), edge(38, &pki, |_| ()));
    let shown = pki.sidecar(&["org.example"]);
    let mut bad = End::standing_sidecar(engine.address, &pki, &shown, "org.example").await;
    for second in 0..130 {
        let since = format!("2026-11-28T10:{:02}:{:02}Z", second / 60, second % 60);
        bad.say(&format!(
            "<claim xmlns='urn:xmpp-edge:trunk:0' since='{since}'/>"
        ))
        .await;
    }
    bad.hears("<policy-violation").await;
    bad.ends().await;
}

/// A stolen edge pod may name any partner: that must not be memory without end.
#[tokio::test]
async fn b16_an_edge_that_floods_as_hundreds_of_partners_fills_no_more_than_the_whole() {
    const WHOLE: u64 = 4_000_000;
    let pki = Pki::new();
    let scripted = ScriptedEdge::open(at(39, 1, 23456), &pki).await;
    let shown = pki.sidecar(&["org.example"]);
    let mut settings = sidecar(39, &pki, &shown, &[scripted.address]);
    settings.settings.queue_total_bytes = WHOLE;
    // Its server is not there: what comes waits.
    let own = BareSidecar::start(settings);
    let mut trunk = scripted.next().await;
    let body = "x".repeat(4_000);
    let mut most = 0;
    for number in 0..300 {
        // Half of them are pairs that may not be.
        let (from, to) = match number % 2 {
            0 => (format!("x{number}.example"), "org.example"),
            _ => (format!("x{number}.org.example"), "org.example"),
        };
        let stanza = message(&from, to, "flood").replace("<body>x", &format!("<body>{body}"));
        trunk
            .say(&format!(
                "<pair xmlns='urn:xmpp-edge:trunk:0' i='{number}' from='{from}' to='{to}'/>{}",
                stanza.repeat(12)
            ))
            .await;
        most = most.max(own.context.router.held());
    }
    trunk.say("<r xmlns='urn:xmpp-edge:trunk:0' n='9'/>").await;
    trunk.hears(" n='9'").await;
    most = most.max(own.context.router.held());
    // One read more than the whole and its eighth.
    let bound = usize::try_from(WHOLE + WHOLE / 8).expect("it fits") + 2 * 65_536;
    assert!(most <= bound, "{most} bytes held");
    assert!(most > 1_000_000, "{most}: it came at all");
}
