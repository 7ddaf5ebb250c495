//! How trunks begin and end: versions, edges that are older, drains, certificates that are taken away.

use super::{
    engines::{BareSidecar, Engine, at, edge, sidecar, until},
    pki::Pki,
    scripted::{ENABLE, ENABLED, End, ScriptedEdge, of_newer},
};
use crate::peers::{message, server_at, within};
use xmpp_edge_crds::edge_config::{EdgeConfig, SidecarServers};
use xmpp_edge_proxy::stream::trunk::figures::DialOutcome;

#[tokio::test]
async fn b17_a_version_two_minors_away_is_told_so_and_others_are_taken() {
    let pki = Pki::new();
    let shown = pki.sidecar(&["org.example"]);
    let engine = Engine::start(at(21, 1, 0), edge(21, &pki, |_| ()));
    let mut far = End::sidecar(engine.address, &pki, &shown, "org.example").await;
    far.say(&of_newer(ENABLE, 2)).await;
    far.hears("<unsupported-version").await;
    far.hears("one minor version apart").await;
    far.ends().await;
    // Whoever looks at the edge is told, too.
    let mut told = engine.outdated.clone();
    let refused = within("it is told", told.wait_for(|told| !told.is_empty())).await;
    let refused = refused.expect("it runs").clone();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0].gateway, "org");
    assert!(refused[0].text.contains("one minor version apart"));
    let mut near = End::sidecar(engine.address, &pki, &shown, "org.example").await;
    near.say(&of_newer(ENABLE, 1)).await;
    near.hears("<enabled ").await;
    // A newer one is there in its place.
    let cleared = within("it is told no more", told.wait_for(Vec::is_empty)).await;
    cleared.expect("it runs");
}

#[tokio::test]
async fn b17_an_edge_older_than_trunks_is_told_in_words_and_dialled_again() {
    let pki = Pki::new();
    let edge = ScriptedEdge::open(at(22, 1, 23456), &pki).await;
    let shown = pki.sidecar(&["org.example"]);
    let _sidecar = BareSidecar::start(sidecar(22, &pki, &shown, &[edge.address]));
    let old = edge.next_with("<sm xmlns='urn:xmpp:sm:3'/>").await;
    old.hears("older than trunks: upgrade the pool first").await;
    old.ends().await;
    let new = edge.next().await;
    assert_eq!(new.heard_times("<enable "), 1);
}

#[tokio::test]
async fn b17_a_newer_edge_is_taken_by_a_sidecar_of_the_minor_before_alone() {
    let pki = Pki::new();
    let scripted = ScriptedEdge::open(at(71, 1, 23456), &pki).await;
    let shown = pki.sidecar(&["org.example"]);
    let own = BareSidecar::start(sidecar(71, &pki, &shown, &[scripted.address]));
    let trunk = "<trunk xmlns='urn:xmpp-edge:trunk:0'/>";
    let mut far = scripted.next_with(trunk).await;
    far.say(&of_newer(ENABLED, 2)).await;
    far.hears("<unsupported-version").await;
    far.hears("one minor version apart").await;
    far.ends().await;
    let mut near = scripted.next_with(trunk).await;
    near.say(&of_newer(ENABLED, 1)).await;
    until("it stands", || own.context.trunks.reaches_edges()).await;
}

#[tokio::test]
async fn b06_a_certificate_that_does_not_count_opens_no_trunk_and_harms_none() {
    let pki = Pki::new();
    let shown = pki.sidecar(&["org.example"]);
    let engine = Engine::start(at(23, 1, 0), edge(23, &pki, |_| ()));
    let mut good = End::standing_sidecar(engine.address, &pki, &shown, "org.example").await;
    let header = "<?xml version='1.0'?><stream:stream xmlns='jabber:server' \
        xmlns:stream='http://etherx.jabber.org/streams' version='1.0' from='org.example' \
        to='edge.xmpp-edge.internal'>";
    let others = [
        pki.sidecar(&["other.example"]),
        Pki::new().sidecar(&["org.example"]),
        Pki::by_itself(&["org.example"]),
    ];
    for other in &others {
        let mut bad = End::dial(engine.address, &pki, other).await;
        bad.say(header).await;
        bad.hears("<not-authorized").await;
        bad.ends().await;
        assert!(!bad.heard().contains("EXTERNAL"), "{}", bad.heard());
    }
    good.say("<r xmlns='urn:xmpp-edge:trunk:0' n='1'/>").await;
    good.hears("<a xmlns='urn:xmpp-edge:trunk:0' n='1'/>").await;
}

#[tokio::test]
async fn b07_certificates_that_are_taken_away_close_their_trunks_and_open_no_more() {
    let pki = Pki::new();
    let shown = pki.sidecar(&["org.example"]);
    let engine = Engine::start(at(24, 1, 0), edge(24, &pki, |_| ()));
    let trunk = End::standing_sidecar(engine.address, &pki, &shown, "org.example").await;
    engine.change(|config| {
        let later = "2099-01-01T00:00:00Z".parse().expect("a time");
        config.gateways[0].issued_after = Some(later);
    });
    trunk.hears("were taken away").await;
    trunk.ends().await;
    let next = End::sidecar(engine.address, &pki, &shown, "org.example").await;
    next.hears("were taken away").await;
    next.ends().await;
}

#[tokio::test]
async fn b11_a_key_is_taken_once_it_is_listed_and_until_it_is_not() {
    let pki = Pki::new();
    let own = Pki::by_itself(&["sidecar.invalid"]);
    let engine = Engine::start(at(25, 1, 0), edge(25, &pki, |_| ()));
    let key = own.key_sha256();
    engine.change(|config| {
        let sidecar = config.gateways[0].sidecar.as_mut().expect("it has one");
        sidecar.keys = vec![xmpp_edge_crds::edge_config::SidecarKey {
            name: "rack".to_owned(),
            spki_sha256: key,
        }];
    });
    let trunk = loop {
        let mut trunk = End::dial(engine.address, &pki, &own).await;
        if trunk.opens("org.example").await {
            break trunk;
        }
    };
    engine.change(|config| {
        let sidecar = config.gateways[0].sidecar.as_mut().expect("it has one");
        sidecar.keys.clear();
    });
    trunk.hears("<not-authorized").await;
    trunk.ends().await;
}

#[tokio::test]
async fn an_edge_that_ends_drains_its_trunks_in_order() {
    let pki = Pki::new();
    let shown = pki.sidecar(&["org.example"]);
    let engine = Engine::start(at(26, 1, 0), edge(26, &pki, |_| ()));
    let mut trunk = End::standing_sidecar(engine.address, &pki, &shown, "org.example").await;
    engine.shut_down();
    trunk.hears("<drain ").await;
    trunk.hears("</stream:stream>").await;
    trunk.say("</stream:stream>").await;
    trunk.ends().await;
    engine.stop().await;
}

#[tokio::test]
async fn of_two_edges_the_one_of_lower_priority_takes_over_when_the_other_drains() {
    let pki = Pki::new();
    let shown = pki.sidecar(&["org.example"]);
    let edges = [
        ScriptedEdge::open(at(27, 1, 23456), &pki).await,
        ScriptedEdge::open(at(27, 5, 23456), &pki).await,
    ];
    let addresses = [edges[0].address, edges[1].address];
    let own = BareSidecar::start(sidecar(27, &pki, &shown, &addresses));
    let mut first = edges[0].next().await;
    let mut second = edges[1]
        .next_with("<trunk xmlns='urn:xmpp-edge:trunk:0'/>")
        .await;
    second
        .say(
            &super::scripted::ENABLED
                .replace("hq", "dr")
                .replace("priority='10'", "priority='20'"),
        )
        .await;
    second.say("<r xmlns='urn:xmpp-edge:trunk:0' n='1'/>").await;
    second.hears(" n='1'/>").await;
    let ledger = super::engines::ledger();
    own.send("x.many.example", 0, 1, &ledger);
    first.hears("</message>").await;
    let number = first.number("x.many.example");
    first
        .say(&format!(
            "<a xmlns='urn:xmpp-edge:trunk:0'><p i='{number}' h='1'/></a>\
             <edge xmlns='urn:xmpp-edge:trunk:0' withdrawn='true'/>"
        ))
        .await;
    until("it is settled", || ledger.settled() == 1).await;
    first
        .hears(&format!(
            "<end xmlns='urn:xmpp-edge:trunk:0' i='{number}'/>"
        ))
        .await;
    own.send("x.many.example", 1, 1, &ledger);
    second.hears("id='x.many.example:1'").await;
    assert_eq!(first.heard_times("<message "), 1);
}

#[tokio::test]
async fn an_edge_is_told_when_the_server_is_away_and_when_it_is_back() {
    let pki = Pki::new();
    let scripted = ScriptedEdge::open(at(28, 1, 23456), &pki).await;
    let shown = pki.sidecar(&["org.example"]);
    let settings = sidecar(28, &pki, &shown, &[scripted.address]);
    let _engine = Engine::start(at(28, 4, 0), settings.into_inputs());
    let mut trunk = scripted.next().await;
    trunk
        .say(
            "<pair xmlns='urn:xmpp-edge:trunk:0' i='1' from='partner.example' to='org.example'/>\
             <message from='rob@partner.example' to='alice@org.example' id='waits'><body/></message>",
        )
        .await;
    trunk
        .hears("<server xmlns='urn:xmpp-edge:trunk:0' up='false' text='")
        .await;
    let server = server_at(at(28, 3, 5269));
    trunk
        .hears("<server xmlns='urn:xmpp-edge:trunk:0' up='true'/>")
        .await;
    server.hears("id='waits'").await;
    trunk.hears("<p i='1' h='1'/>").await;
}

#[tokio::test]
async fn a_sidecar_says_of_each_edge_what_keeps_it_from_it_and_which_key_to_list() {
    let pki = Pki::new();
    let engine = Engine::start(at(29, 1, 0), edge(29, &pki, |_| ()));
    let unlisted = Pki::by_itself(&["org.example"]);
    let nobody = at(29, 5, 23456);
    let settings = sidecar(29, &pki, &unlisted, &[engine.address, nobody]);
    let own = BareSidecar::start(settings);
    let failure_at = |address| {
        let edges = own.context.trunks.edges();
        let own = edges.into_iter().find(|edge| edge.address == address);
        own.and_then(|edge| match edge.outcome {
            DialOutcome::Failed(failure) => Some(failure),
            DialOutcome::None | DialOutcome::Redundant { .. } => None,
        })
    };
    until("both were tried", || {
        failure_at(engine.address).is_some_and(|own| own.label == "SidecarRefused")
            && failure_at(nobody).is_some()
    })
    .await;
    let refused = failure_at(engine.address).expect("it was tried");
    assert_eq!(refused.step.as_str(), "certificate");
    let remedy = format!("sha256:{}", unlisted.key_sha256());
    assert!(refused.text.contains(&remedy), "{}", refused.text);
    let absent = failure_at(nobody).expect("it was tried");
    assert_eq!((absent.step.as_str(), absent.label), ("tcp", "TcpRefused"));
}

#[tokio::test]
async fn a_gateway_that_loses_a_domain_drains_the_trunk_on_which_pairs_of_it_are_open() {
    let pki = Pki::new();
    let shown = pki.sidecar(&["org.example", "org2.example"]);
    let engine = Engine::start(at(30, 1, 0), edge(30, &pki, |_| ()));
    let mut trunk = End::standing_sidecar(engine.address, &pki, &shown, "org.example").await;
    trunk
        .say("<pair xmlns='urn:xmpp-edge:trunk:0' i='1' from='org2.example' to='partner.example'/>")
        .await;
    trunk.say("<r xmlns='urn:xmpp-edge:trunk:0' n='1'/>").await;
    trunk.hears(" n='1'").await;
    engine.change(|config| {
        config.gateways[0].domains.truncate(1);
        config.domains.truncate(1);
    });
    trunk.hears("<drain ").await;
}

#[tokio::test]
async fn before_a_certificate_ends_the_next_trunk_is_opened_and_the_one_before_drains() {
    let pki = Pki::new();
    let edge = ScriptedEdge::open(at(20, 1, 23456), &pki).await;
    let shown = pki.sidecar_for(&["org.example"], 15);
    let own = BareSidecar::start(sidecar(20, &pki, &shown, &[edge.address]));
    let mut old = edge.next().await;
    let ledger = super::engines::ledger();
    own.send("x.many.example", 0, 1, &ledger);
    old.hears("</message>").await;
    let mut new = tokio::select! {
        new = edge.next() => new,
        () = old.stays_alive() => panic!("it goes on for ever"),
    };
    old.hears("<drain ").await;
    own.send("y.many.example", 1, 1, &ledger);
    new.hears("id='y.many.example:1'").await;
    new.say("<r xmlns='urn:xmpp-edge:trunk:0' n='1'/>").await;
    new.hears(" n='1'/>").await;
    assert_eq!(old.heard_times("<message "), 1);
}

#[tokio::test]
async fn no_trunk_outlives_the_certificate_that_it_was_opened_with() {
    let pki = Pki::new();
    let engine = Engine::start(at(19, 1, 0), edge(19, &pki, |_| ()));
    let shown = pki.sidecar_for(&["org.example"], 10);
    let trunk = End::standing_sidecar(engine.address, &pki, &shown, "org.example").await;
    trunk
        .hears("the certificate that this trunk was opened with has ended")
        .await;
    trunk.ends().await;
}

/// What a trunk was set up by is compared whole: where it is otherwise now, the next one has it.
#[tokio::test]
async fn an_edge_whose_settings_a_trunk_cannot_follow_drains_it() {
    let pki = Pki::new();
    let shown = pki.sidecar(&["org.example"]);
    let engine = Engine::start(at(77, 1, 0), edge(77, &pki, |_| ()));
    let changes: [fn(&mut EdgeConfig); 5] = [
        |config| config.settings.max_stanza_bytes *= 2,
        |config| config.settings.queue_bytes *= 2,
        |config| config.gateways[0].name = Some("renamed".to_owned()),
        |config| servers(config, SidecarServers::Clustered),
        |config| servers(config, SidecarServers::Single),
    ];
    for change in changes {
        let mut trunk = End::standing_sidecar(engine.address, &pki, &shown, "org.example").await;
        // Nothing that it follows drains it.
        engine.change(|config| config.edges[0].priority += 1);
        trunk.hears("<edge ").await;
        assert_eq!(trunk.heard_times("<drain "), 0, "{}", trunk.heard());
        engine.change(change);
        trunk.hears("<drain ").await;
        trunk.say("</stream:stream>").await;
        trunk.ends().await;
    }
}

fn servers(config: &mut EdgeConfig, servers: SidecarServers) {
    if let Some(sidecar) = &mut config.gateways[0].sidecar {
        sidecar.server = servers;
    }
}

#[tokio::test]
async fn a_sidecar_whose_settings_a_trunk_cannot_follow_opens_the_next_while_that_drains() {
    let pki = Pki::new();
    let scripted = ScriptedEdge::open(at(78, 1, 23456), &pki).await;
    let shown = pki.sidecar(&["org.example"]);
    let settings = sidecar(78, &pki, &shown, &[scripted.address]);
    let engine = Engine::start(at(78, 4, 0), settings.into_inputs());
    let mut old = scripted.next().await;
    old.say("<r xmlns='urn:xmpp-edge:trunk:0' n='1'/>").await;
    old.hears(" n='1'").await;
    engine.change(|config| config.settings.queue_bytes = 2_000_000);
    old.hears("<drain ").await;
    // It is not over: what it took may take as long as stanzas wait.
    let new = scripted.next().await;
    assert!(new.heard().contains(" queue='2000000'"), "{}", new.heard());
}

/// A sidecar that finds its pod reached already closes the trunk unused: no pair moves there and back.
#[tokio::test]
async fn a_second_trunk_of_a_sidecar_gets_nothing_before_the_first_drains() {
    let pki = Pki::new();
    let _partner = server_at(at(79, 2, 5269));
    let shown = pki.sidecar(&["org.example"]);
    let engine = Engine::start(at(79, 1, 0), edge(79, &pki, |_| ()));
    let mut first = End::standing_sidecar(engine.address, &pki, &shown, "org.example").await;
    let mut outside = engine
        .partner_stream("partner.example", "org.example")
        .await;
    outside.say(&message(1)).await;
    first.hears("id='1'").await;
    let number = first.number("org.example");
    let mut second = End::standing_sidecar(engine.address, &pki, &shown, "org.example").await;
    first
        .say(&format!(
            "<a xmlns='urn:xmpp-edge:trunk:0'><p i='{number}' h='1'/></a>"
        ))
        .await;
    outside.say(&message(2)).await;
    first.hears("id='2'").await;
    first
        .say(&format!(
            "<a xmlns='urn:xmpp-edge:trunk:0'><p i='{number}' h='2'/></a>\
             <drain xmlns='urn:xmpp-edge:trunk:0'/></stream:stream>"
        ))
        .await;
    outside.say(&message(3)).await;
    second.hears("id='3'").await;
    assert_eq!(second.ids(), ["3"]);
    second.say("<r xmlns='urn:xmpp-edge:trunk:0' n='1'/>").await;
}
