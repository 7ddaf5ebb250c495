//! s4, s10, s14: peers with quirks.

use anyhow::{Context, Result, ensure};
use tokio::net::TcpListener;
use xmpp_edge_tests::{
    peer::{Event, Identity, Open, Peer, ServerTls, ns},
    rig::{ALICE, Moved, OWN, Plan, Scene, Shared},
    servers::S2S_PORT,
};

/// The first target negotiates too long; the second is tried beside it and wins. The first one's stream ends
/// in order, and never carries the pair.
#[test]
fn s11_of_two_negotiations_beside_each_other_the_one_that_is_not_needed_ends_in_order() {
    super::RIG.test(7, async |s| {
        const PORT: u16 = 5510;
        s.unpublish();
        let dns = s.rig.lab.dns();
        let service = format!("_xmpp-server._tcp.{}", s.domain);
        dns.srv(&service, 1, 0, PORT, &s.target());
        dns.srv(&service, 2, 0, S2S_PORT, &s.target());
        let slow = TcpListener::bind(s.at(PORT)).await?;
        let outside = s.outside().await?;
        let mut inside = s.inside().await?;
        let id = s.fresh();
        inside.message(ALICE, &s.user("rob"), &id, "hello").await?;
        let mut first = Peer::accept(&slow).await?;
        first.header().await?;
        outside.stanza_id(&id).await?;
        let last = first.ended().await?;
        ensure!(last == [Event::Close], "its stream ends with {last:?}");
        s.delivers_outwards(&mut inside, &outside).await?;
        ensure!(outside.connections() == 1, "{}", outside.connections());
        Ok(())
    });
}

static RIG: Shared = Shared::new(Plan::standard("fp", 6));

#[test]
fn s4_bidi_is_taken_in_the_namespace_of_its_feature() {
    RIG.test(1, async |s| {
        let (mut peer, _) = s.secured(Some(&s.identity)).await?;
        peer.send("<bidi xmlns='urn:xmpp:features:bidi'/>").await?;
        let answer = peer.auth("EXTERNAL", "=").await?;
        ensure!(answer.is("success", ns::SASL), "{answer:?}");
        peer.open(&s.domain, OWN).await?;
        s.delivers_inwards(&mut peer).await
    });
}

/// A responder up to its features after TLS.
async fn responds(s: &Scene, listener: &TcpListener, features: &str) -> Result<Peer> {
    let mut peer = Peer::accept(listener).await?;
    let mut open = Open::new(&s.domain, OWN);
    open.id = Some("partner-1".to_owned());
    peer.header().await?;
    peer.send(
        open.text()
            + &format!(
                "<stream:features><starttls xmlns='{}'><required/></starttls></stream:features>",
                ns::TLS
            ),
    )
    .await?;
    peer.expect("<starttls/>", |e| e.name == "starttls").await?;
    peer.send(format!("<proceed xmlns='{}'/>", ns::TLS)).await?;
    peer.tls_server(&ServerTls::new(Identity::of(&s.identity)?))
        .await?;
    peer.restart();
    peer.header().await?;
    peer.send(open.text() + features).await?;
    Ok(peer)
}

#[test]
fn s4_a_peer_that_ends_the_stream_over_bidi_gets_one_without() {
    RIG.test(2, async |s| {
        let listener = TcpListener::bind(s.address()).await?;
        let mut inside = s.inside().await?;
        let id = s.fresh();
        inside.message(ALICE, &s.user("rob"), &id, "hello").await?;
        let features = format!(
            "<stream:features><mechanisms xmlns='{}'><mechanism>EXTERNAL</mechanism></mechanisms>\
             <bidi xmlns='urn:xmpp:features:bidi'/></stream:features>",
            ns::SASL
        );
        let mut first = responds(s, &listener, &features).await?;
        first.expect("<bidi/>", |e| e.name == "bidi").await?;
        first
            .send_anyway(format!(
                "<stream:error><unsupported-stanza-type xmlns='{}'/></stream:error></stream:stream>",
                ns::STREAM_ERRORS
            ))
            .await;
        let mut second = responds(s, &listener, &features).await?;
        let auth = second.element().await?;
        ensure!(auth.name == "auth", "bidi is asked for again: {auth:?}");
        second.send(format!("<success xmlns='{}'/>", ns::SASL)).await?;
        second.restart();
        second.header().await?;
        let mut open = Open::new(&s.domain, OWN);
        open.id = Some("partner-2".to_owned());
        second.send(open.text() + "<stream:features/>").await?;
        second.stanza(&id).await?;
        Ok(())
    });
}

#[test]
fn s10_a_language_that_is_none_is_not_handed_on() {
    RIG.test(3, async |s| {
        for (number, lang) in ["en_US", "en-US-#u-fw-mon"].into_iter().enumerate() {
            let (mut peer, _) = s.secured(Some(&s.identity)).await?;
            ensure!(peer.auth("EXTERNAL", "=").await?.name == "success");
            let mut open = Open::new(&s.domain, OWN);
            open.more = format!(" xml:lang='{lang}'");
            peer.open_with(&open).await?;
            peer.header().await?;
            peer.features().await?;
            let id = format!("{}-{number}", s.fresh());
            peer.message(&s.user("rob"), ALICE, &id, "hello").await?;
            let got = s.inside_gets(&id).await?;
            ensure!(
                got.attribute("lang").is_none() && got.attribute("xml:lang").is_none(),
                "{got:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn s14_an_error_without_a_header_is_told_as_what_the_peer_said() {
    RIG.test(4, async |s| {
        let listener = TcpListener::bind(s.address()).await?;
        let mut inside = s.inside().await?;
        let id = s.fresh();
        inside.message(ALICE, &s.user("rob"), &id, "hello").await?;
        let mut peer = Peer::accept(&listener).await?;
        peer.header().await?;
        peer.send_anyway(format!(
            "<stream:error><host-unknown xmlns='{}'/></stream:error>",
            ns::STREAM_ERRORS
        ))
        .await;
        let bounce = s.inside_gets(&id).await?;
        ensure!(
            bounce.error_text().contains("host-unknown"),
            "{}",
            bounce.error_text()
        );
        s.unharmed(Moved::Attempt("PeerError")).await
    });
}

/// A server that has nothing to say but an error, in a stream as before XMPP 1.0.
#[test]
fn s14_an_error_behind_a_header_without_version_is_told_as_what_the_peer_said() {
    RIG.test(6, async |s| {
        let listener = TcpListener::bind(s.address()).await?;
        let mut inside = s.inside().await?;
        let id = s.fresh();
        inside.message(ALICE, &s.user("rob"), &id, "hello").await?;
        let mut peer = Peer::accept(&listener).await?;
        peer.header().await?;
        peer.send_anyway(
            "<stream:stream xmlns='jabber:server' \
             xmlns:stream='http://etherx.jabber.org/streams' id='1'>",
        )
        .await;
        // Our end, which comes before the peer says why.
        peer.expect("our error", |e| e.is("error", ns::STREAM))
            .await?;
        peer.send_anyway("<stream:error><host-unknown/></stream:error></stream:stream>")
            .await;
        let bounce = s.inside_gets(&id).await?;
        ensure!(
            bounce.error_text().contains("host-unknown"),
            "{}",
            bounce.error_text()
        );
        s.unharmed(Moved::Attempt("PeerError")).await
    });
}

#[test]
fn s14_features_without_a_header_after_success_are_told() {
    RIG.test(5, async |s| {
        let listener = TcpListener::bind(s.address()).await?;
        let mut inside = s.inside().await?;
        let id = s.fresh();
        inside.message(ALICE, &s.user("rob"), &id, "hello").await?;
        let features = format!(
            "<stream:features><mechanisms xmlns='{}'><mechanism>EXTERNAL</mechanism></mechanisms></stream:features>",
            ns::SASL
        );
        let mut peer = responds(s, &listener, &features).await?;
        peer.expect("<auth/>", |e| e.name == "auth").await?;
        peer.send(format!("<success xmlns='{}'/>", ns::SASL)).await?;
        peer.restart();
        peer.header().await.context("our header after SASL")?;
        peer.send_anyway("<stream:features/>").await;
        peer.ended().await?;
        s.inside_gets(&id).await?;
        s.unharmed(Moved::Attempt("UnexpectedElement")).await
    });
}
