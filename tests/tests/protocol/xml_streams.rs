//! X: the streams that the edge itself opens, towards a partner that answers with what it may not,
//! and how streams end with stanzas still on their way.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use tokio::net::TcpListener;
use xmpp_edge_tests::{
    peer::{ClientTls, Command, Event, Identity, Open, Peer, PeerServer, ns},
    rig::{ALICE, Moved, OWN, Plan, Scene, Shared},
};

static RIG: Shared = Shared::new(Plan::standard("xs", 14));

/// The edge opens a stream to the partner, who answers with these bytes: the edge ends the stream
/// with this error, and the message that wanted it opened is answered.
fn responder_is_refused(test: u8, answer: fn(&Open) -> String, condition: &str, outcome: &str) {
    RIG.test(test, async |s| {
        let listener = TcpListener::bind(s.address()).await?;
        let mut inside = s.inside().await?;
        let id = s.fresh();
        inside.message(ALICE, &s.user("rob"), &id, "hello").await?;
        let mut peer = Peer::accept(&listener).await?;
        peer.header().await?;
        let mut open = Open::new(&s.domain, OWN);
        open.id = Some("partner-1".to_owned());
        peer.send_anyway(answer(&open)).await;
        peer.expect_stream_error(condition).await?;
        let bounce = s.inside_gets(&id).await?;
        ensure!(
            bounce.error_condition() == Some("remote-server-timeout"),
            "{bounce:?}"
        );
        s.unharmed(Moved::Attempt(outcome)).await
    });
}

#[test]
fn x_01_a_responder_s_stream_for_clients_is_invalid_namespace() {
    let answer = |open: &Open| {
        let content = "jabber:client".to_owned();
        Open {
            content,
            ..open.clone()
        }
        .text()
    };
    responder_is_refused(1, answer, "invalid-namespace", "ContentNamespace");
}

#[test]
fn x_02_a_responder_s_wrong_stream_namespace_is_invalid_namespace() {
    let answer = |open: &Open| {
        let stream = "urn:x:streams".to_owned();
        Open {
            stream,
            ..open.clone()
        }
        .text()
    };
    responder_is_refused(2, answer, "invalid-namespace", "StreamNamespace");
}

#[test]
fn x_07_a_responder_s_dtd_is_restricted_xml() {
    let answer = |open: &Open| {
        let declaration = "<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'b'>]>".to_owned();
        Open {
            declaration,
            ..open.clone()
        }
        .text()
    };
    responder_is_refused(3, answer, "restricted-xml", "DocumentType");
}

#[test]
fn x_09_a_responder_s_features_that_are_not_well_formed_end_the_stream() {
    let answer = |open: &Open| open.text() + "<stream:features><a></b></stream:features>";
    responder_is_refused(4, answer, "not-well-formed", "EndTag");
}

#[test]
fn x_15_a_responder_s_deep_features_are_policy_violation() {
    let answer = |open: &Open| open.text() + "<stream:features>" + &"<a>".repeat(1_000);
    responder_is_refused(5, answer, "policy-violation", "TooDeep");
}

#[test]
fn x_16_a_responder_s_endless_features_are_policy_violation() {
    let answer = |open: &Open| open.text() + "<stream:features>" + &"<a/>".repeat(100_000);
    responder_is_refused(6, answer, "policy-violation", "TooLarge");
}

#[test]
fn x_08_a_responder_may_not_send_restricted_xml_once_authenticated_either() {
    RIG.test(7, async |s| {
        let outside = s.outside().await?;
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &outside).await?;
        outside.tell_all(&Command::Send("<!-- c -->".to_owned()));
        outside
            .until("the stream ends with restricted-xml", |seen| {
                seen.iter()
                    .any(|one| one.ended && one.text.contains("<restricted-xml"))
            })
            .await?;
        s.delivers_outwards(&mut inside, &outside).await?;
        s.unharmed(Moved::Attempt("Comment")).await
    });
}

/// How the partner ends a stream that it reads no further until then.
#[derive(Clone, Copy, Debug)]
enum End {
    /// `</stream:stream>`, TCP left open.
    Tag,
    /// FIN (with TLS: `close_notify` first), no tag.
    Half,
}

/// A stream for both directions that the partner opened.
async fn bidirectional(s: &Scene, acks: bool) -> Result<Peer> {
    let mut peer = s.connect().await?;
    peer.open(&s.domain, OWN).await?;
    let identity = Some(Identity::of(&s.identity)?);
    peer.starttls(&ClientTls::new(Some(OWN), identity)).await?;
    let features = peer.open(&s.domain, OWN).await?;
    ensure!(features.bidi(), "no bidi: {features:?}");
    peer.send(format!("<bidi xmlns='{}'/>", ns::BIDI)).await?;
    ensure!(peer.auth("EXTERNAL", "=").await?.name == "success");
    peer.open(&s.domain, OWN).await?;
    if acks {
        peer.enable_acks().await?;
    }
    Ok(peer)
}

/// A hundred messages for the partner, most of them more than sockets hold, when it ends its stream
/// unread: what is not on that stream is on the next one. The order holds on each.
async fn nothing_is_lost(s: &Scene, acks: bool, end: End) -> Result<()> {
    let outside = s.outside().await?;
    let mut peer = bidirectional(s, acks).await?;
    let mut inside = s.inside().await?;
    // One that the edge sends on it: the stream is the pair's from here on.
    let first = s.fresh();
    let rob = s.user("rob");
    inside.message(ALICE, &rob, &first, "hello").await?;
    peer.stanza(&first).await?;
    let run = s.fresh();
    let numbered: Vec<_> = (0..100).map(|n| format!("{run}-{n:03}")).collect();
    let long = "x".repeat(60_000);
    let sending = async {
        for id in &numbered {
            inside.message(ALICE, &rob, id, &long).await?;
        }
        anyhow::Ok(())
    };
    let ending = async {
        // Something is on its way already.
        peer.stanza(&numbered[0]).await?;
        match end {
            End::Tag => peer.send("</stream:stream>").await?,
            End::Half => peer.half_close().await?,
        }
        let mut got = vec![numbered[0].clone()];
        loop {
            match peer.next().await? {
                Event::Element(element) if element.name == "message" => {
                    got.extend(element.attribute("id").map(str::to_owned));
                }
                Event::Eof | Event::Broken(_) => return anyhow::Ok(got),
                _ => {}
            }
        }
    };
    let (sent, got) = tokio::join!(sending, ending);
    sent.context("the edge takes all from inside")?;
    all_arrive(s, &outside, &numbered, &got?).await
}

async fn all_arrive(
    s: &Scene,
    outside: &PeerServer,
    wanted: &[String],
    here: &[String],
) -> Result<()> {
    let known: BTreeSet<_> = here.iter().collect();
    for id in wanted.iter().filter(|id| !known.contains(id)) {
        tokio::select! {
            got = outside.stanza_id(id) => { got?; }
            got = s.rig.inside.stanza_id(id) => {
                ensure!(got?.error_condition().is_some(), "{id} came back whole");
            }
        }
    }
    let there: Vec<_> = outside
        .stanzas()
        .into_iter()
        .filter_map(|received| received.stanza.attribute("id").map(str::to_owned))
        .filter(|id| wanted.contains(id))
        .collect();
    for (place, ids) in [("first", here), ("next", &there)] {
        ensure!(
            ids.is_sorted(),
            "out of order on the {place} stream: {ids:?}"
        );
    }
    Ok(())
}

#[test]
fn x_22_what_is_queued_when_the_partner_closes_its_stream_is_not_lost() {
    RIG.test(8, async |s| nothing_is_lost(s, false, End::Tag).await);
}

#[test]
fn x_22_what_is_queued_when_the_partner_closes_its_stream_is_not_lost_with_acks() {
    RIG.test(9, async |s| nothing_is_lost(s, true, End::Tag).await);
}

#[test]
fn x_23_what_is_queued_when_the_partner_half_closes_is_not_lost() {
    RIG.test(10, async |s| nothing_is_lost(s, false, End::Half).await);
}

#[test]
fn x_23_what_is_queued_when_the_partner_half_closes_is_not_lost_with_acks() {
    RIG.test(11, async |s| nothing_is_lost(s, true, End::Half).await);
}

#[test]
fn x_22_the_edge_closes_where_the_partner_keeps_the_connection_open() {
    RIG.test(12, async |s| {
        // Plain, secured, authenticated: wherever the tag comes, it is answered and TCP ends.
        let mut plain = s.connect().await?;
        plain.open(&s.domain, OWN).await?;
        let (secured, _) = s.secured(Some(&s.identity)).await?;
        for mut peer in [plain, secured, s.partner().await?] {
            peer.send("</stream:stream>").await?;
            ensure!(peer.next().await? == Event::Close);
            ensure!(peer.next().await? == Event::Eof);
        }
        s.rig.serves_the_good_partner().await
    });
}
