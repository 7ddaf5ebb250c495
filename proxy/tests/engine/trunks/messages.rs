//! Whole ways: server, sidecar, edge, partner.

use super::{
    engines::{Engine, at, edge, sidecar},
    pki::Pki,
    scripted::End,
};
use crate::peers::{Server, get, message, outward, server_at};

/// Server and partner with a sidecar and an edge between them.
struct Way {
    edge: Engine,
    sidecar: Engine,
    server: Server,
    partner: Server,
}

impl Way {
    fn open(number: u8) -> Self {
        Self::with(number, None)
    }

    /// Where stanzas may be so large, everywhere.
    fn with(number: u8, max_stanza_bytes: Option<u32>) -> Self {
        let pki = Pki::new();
        let shown = pki.sidecar(&["org.example", "org2.example"]);
        let partner = server_at(at(number, 2, 5269));
        let server = server_at(at(number, 3, 5269));
        let document = edge(number, &pki, |document| {
            if let Some(most) = max_stanza_bytes {
                document["settings"]["maxStanzaBytes"] = most.into();
            }
        });
        let edge = Engine::start(at(number, 1, 0), document);
        let mut settings = sidecar(number, &pki, &shown, &[edge.address]);
        if let Some(most) = max_stanza_bytes {
            settings.settings.max_stanza_bytes = most;
        }
        let sidecar = Engine::start(at(number, 4, 0), settings.into_inputs());
        Self {
            edge,
            sidecar,
            server,
            partner,
        }
    }

    async fn stop(self) {
        self.sidecar.stop().await;
        self.edge.stop().await;
    }
}

#[tokio::test]
async fn a_message_goes_each_way_over_the_connection_that_the_sidecar_opened() {
    let way = Way::open(1);
    let mut inside = way
        .sidecar
        .inside_stream("org.example", "partner.example")
        .await;
    inside
        .say(&outward("org.example", "partner.example", "out"))
        .await;
    way.partner.hears("id='out'").await;
    let mut outside = way
        .edge
        .partner_stream("partner.example", "org.example")
        .await;
    outside.say(&message(7)).await;
    way.server.hears("id='7'").await;
    assert_eq!(way.partner.came("out"), (1, 0));
    assert_eq!(way.server.came("7"), (1, 0));
    way.stop().await;
}

/// So large by its body.
fn filled(stanza: &str, bytes: usize) -> String {
    let more = "x".repeat(bytes - stanza.len());
    stanza.replacen("hello", &format!("hello{more}"), 1)
}

#[tokio::test]
async fn b15_a_stanza_of_the_limit_passes_each_way_and_one_byte_more_is_answered_once() {
    const MOST: usize = 10_000;
    let way = Way::with(8, Some(10_000));
    let mut inside = way
        .sidecar
        .inside_stream("org.example", "partner.example")
        .await;
    let out = |id| outward("org.example", "partner.example", id);
    inside.say(&filled(&out("exact"), MOST)).await;
    inside.say(&filled(&out("more"), MOST + 1)).await;
    inside.say(&out("after")).await;
    way.partner.hears("id='after'").await;
    way.server.hears("policy-violation").await;
    let mut outside = way
        .edge
        .partner_stream("partner.example", "org.example")
        .await;
    outside.say(&filled(&message(1), MOST)).await;
    outside.say(&filled(&message(2), MOST + 1)).await;
    outside.say(&message(3)).await;
    way.server.hears("id='3'").await;
    way.partner.hears("policy-violation").await;
    assert_eq!(way.partner.came("exact"), (1, 0));
    assert_eq!(way.partner.came("more"), (0, 0));
    assert_eq!(way.server.came("more"), (0, 1));
    assert_eq!(way.server.came("1"), (1, 0));
    assert_eq!(way.server.came("2"), (0, 0));
    assert_eq!(way.partner.came("2"), (0, 1));
    way.stop().await;
}

#[tokio::test]
async fn what_the_edge_s_policy_refuses_is_answered_to_the_server() {
    let way = Way::open(2);
    let mut inside = way
        .sidecar
        .inside_stream("org.example", "stranger.example")
        .await;
    inside
        .say(&outward("org.example", "stranger.example", "no"))
        .await;
    way.server.hears("remote-server-not-found").await;
    assert_eq!(way.server.came("no"), (0, 1));
    way.stop().await;
}

/// B-21.
#[tokio::test]
async fn when_one_of_two_edges_is_killed_the_other_takes_over_and_nothing_is_lost() {
    let number = 3;
    let pki = Pki::new();
    let shown = pki.sidecar(&["org.example"]);
    let partner = server_at(at(number, 2, 5269));
    let _server = server_at(at(number, 3, 5269));
    let mut edges = vec![
        Engine::start(at(number, 1, 0), edge(number, &pki, |_| ())),
        Engine::start(
            at(number, 5, 0),
            edge(number, &pki, |document| {
                document["pool"] = "dr".into();
                document["edges"][0]["pool"] = "dr".into();
            }),
        ),
    ];
    let addresses = [edges[0].address, edges[1].address];
    let settings = sidecar(number, &pki, &shown, &addresses);
    let sidecar = Engine::start(at(number, 4, 0), settings.into_inputs());
    let mut inside = sidecar
        .inside_stream("org.example", "partner.example")
        .await;
    let ids: Vec<String> = (0..60).map(|id| id.to_string()).collect();
    for (position, id) in ids.iter().enumerate() {
        inside
            .say(&outward("org.example", "partner.example", id))
            .await;
        if position == 30 {
            partner.comes(ids[..20].iter()).await;
            drop(edges.remove(0));
        }
    }
    partner.comes(ids.iter()).await;
    let came = partner.ids();
    let first: Vec<_> = ids
        .iter()
        .map(|id| came.iter().position(|own| own == id).expect("it came"))
        .collect();
    assert!(first.is_sorted(), "in order: {came:?}");
    assert!(ids.iter().all(|id| partner.came(id).0 <= 2), "{came:?}");
    sidecar.stop().await;
    for edge in edges {
        edge.stop().await;
    }
}

#[tokio::test]
async fn without_a_sidecar_what_comes_in_waits_its_time_and_is_answered_with_since_when() {
    let pki = Pki::new();
    let partner = server_at(at(5, 2, 5269));
    let document = edge(5, &pki, |document| {
        document["settings"]["queueTimeoutSeconds"] = 1.into();
    });
    let engine = Engine::start(at(5, 1, 0), document);
    let mut outside = engine
        .partner_stream("partner.example", "org.example")
        .await;
    outside.say(&message(7)).await;
    partner.hears("<remote-server-timeout").await;
    partner
        .hears("no sidecar of org.example is connected since ")
        .await;
    assert_eq!(partner.came("7"), (0, 1));
}

/// B-13, at the edge: what waits for a partner that is down keeps nobody else waiting.
#[tokio::test]
async fn what_one_partner_does_not_take_keeps_no_other_waiting_at_the_edge() {
    let pki = Pki::new();
    let document = edge(6, &pki, |document| {
        document["partners"][1]["proxyFqdn"] = at(6, 6, 5269).to_string().into();
    });
    let engine = Engine::start(at(6, 1, 0), document);
    let other = server_at(at(6, 6, 5269));
    let shown = pki.sidecar(&["org.example"]);
    let mut trunk = End::standing_sidecar(engine.address, &pki, &shown, "org.example").await;
    let pairs = "<pair xmlns='urn:xmpp-edge:trunk:0' i='1' from='org.example' to='partner.example'/>\
                 <pair xmlns='urn:xmpp-edge:trunk:0' i='2' from='org.example' to='x.many.example'/>";
    trunk.say(pairs).await;
    for id in 0..50 {
        let waits = outward("org.example", "partner.example", &format!("w{id}"));
        let flows = outward("org.example", "x.many.example", &id.to_string());
        trunk.say(&format!("{waits}{flows}")).await;
    }
    trunk.hears("<p i='2' h='50'/>").await;
    let ids: Vec<String> = (0..50).map(|id| id.to_string()).collect();
    assert_eq!(other.ids(), ids);
    assert!(!trunk.heard().contains("<p i='1' "), "{}", trunk.heard());
    let partner = server_at(at(6, 2, 5269));
    partner.hears("id='w49'").await;
    trunk.hears("<p i='1' h='50'/>").await;
}

#[tokio::test]
async fn the_edge_shows_its_sidecars_in_status_and_metrics() {
    let number = 7;
    let pki = Pki::new();
    let shown = pki.sidecar(&["org.example", "org2.example"]);
    let document = edge(number, &pki, |document| {
        document["listeners"]["admin"] = 9090.into();
    });
    let engine = Engine::start(at(number, 1, 0), document);
    let mut trunk = End::standing_sidecar(engine.address, &pki, &shown, "org.example").await;
    let pair =
        "<pair xmlns='urn:xmpp-edge:trunk:0' i='1' from='org.example' to='partner.example'/>";
    trunk.say(pair).await;
    trunk.say("<r xmlns='urn:xmpp-edge:trunk:0' n='1'/>").await;
    trunk.hears(" n='1'").await;
    let admin = at(number, 1, 9090);
    let status = get(admin, "/status").await;
    for part in [
        "\"name\":\"org\",\"mode\":\"Sidecar\"",
        concat!(
            "\"instance\":\"prosody-0\",\"version\":\"",
            env!("CARGO_PKG_VERSION"),
            "\""
        ),
        "\"active\":true,\"serverUp\":true",
        "\"pairs\":1,\"unacknowledgedStanzas\":0",
        "\"trunk\":true",
        "\"peerDomains\":[\"org.example\"],\"localDomains\":[\"edge.xmpp-edge.internal\"]",
        &format!("\"keySha256\":\"{}\"", shown.key_sha256()),
    ] {
        assert!(status.contains(part), "{part} is not in {status}");
    }
    let metrics = get(admin, "/metrics").await;
    for line in [
        "xmpp_edge_trunks{gateway=\"org\"} 1",
        "xmpp_edge_trunk_pairs{gateway=\"org\"} 1",
        "xmpp_edge_gateway_reachable{domain=\"org.example\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    trunk.say("<what xmlns='urn:xmpp-edge:trunk:0'/>").await;
    trunk.ends().await;
    let metrics = get(admin, "/metrics").await;
    let ended = "xmpp_edge_trunk_ends_total{gateway=\"org\",reason=\"UnknownElement\"} 1";
    assert!(metrics.contains(ended), "{metrics}");
}
