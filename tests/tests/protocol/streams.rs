//! R-15, R-16 and R-18 to R-20: keep-alive, acknowledgements, and streams for both directions.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    peer::{Command, Event, Login, Peer, PeerServer, ns},
    rig::{ALICE, BOB, Moved, OWN, Plan, Scene, Shared},
    wait,
};

fn partner(test: u8) -> Value {
    match test {
        2 => json!({ "enableKeepAlive": false }),
        3 => {
            json!({ "tlsNegotiation": "NotSupported", "saslNegotiation": "NotSupported", "allowPlaintext": true })
        }
        4 => json!({ "confirmByPing": false }),
        _ => json!({}),
    }
}

/// Ordinary settings.
static RIG: Shared = Shared::new(Plan::standard("r", 20));

/// The shortest times that the pool takes.
static QUICK: Shared = Shared::new(Plan {
    partner,
    settings: || {
        json!({
            "queueTimeoutSeconds": 3,
            "keepAliveIntervalSeconds": 5,
            "streamInactivityTimeoutSeconds": 10,
        })
    },
    ..Plan::standard("q", 8)
});

#[test]
fn r_15_a_silent_stream_is_asked_for_a_sign_of_life() {
    QUICK.test(6, async |s| {
        let outside = s.outside().await?;
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &outside).await?;
        let asked = |seen: &str| seen.matches("<r xmlns='urn:xmpp:sm:3'/>").count();
        let before = asked(&outside.transcript());
        outside
            .until("the stream is asked for an answer", |seen| {
                seen.iter().map(|s| asked(&s.text)).sum::<usize>() > before
            })
            .await?;
        ensure!(outside.connections() == 1, "the stream was not kept");
        s.delivers_outwards(&mut inside, &outside).await
    });
}

/// The keep-alive of this edge is every 180 s.
#[test]
fn r_15_a_peer_that_tells_its_idle_seconds_hears_from_the_edge_before_they_are_over() {
    RIG.test(15, async |s| {
        let mut behaviour = s.good_behaviour()?;
        behaviour.idle_seconds = Some(6);
        let outside = s.serve(behaviour).await?;
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &outside).await?;
        let asked = |seen: &str| seen.matches("<r xmlns='urn:xmpp:sm:3'/>").count();
        // All is confirmed: what comes is for no stanza.
        let before = asked(&outside.transcript());
        outside
            .until("three signs of life", |seen| {
                seen.iter().map(|s| asked(&s.text)).sum::<usize>() >= before + 3
            })
            .await?;
        ensure!(outside.connections() == 1, "the stream was not kept");
        Ok(())
    });
}

#[test]
fn a_peer_without_acks_is_asked_by_ping_unless_confirm_by_ping_is_false() {
    // The question goes out with the first stanza, where there is one.
    let asked = async |s: &Scene| {
        let mut behaviour = s.good_behaviour()?;
        behaviour.acks = false;
        let outside = s.serve(behaviour).await?;
        let mut inside = s.inside().await?;
        inside.enable_acks().await?;
        s.delivers_outwards(&mut inside, &outside).await?;
        wait::until("the stanza is acknowledged", wait::GENEROUS, async || {
            inside
                .send(format!("<r xmlns='{}'/>", ns::ACKS))
                .await
                .ok()?;
            let ack = inside.element().await.ok()?;
            (ack.is("a", ns::ACKS) && ack.attribute("h") == Some("1")).then_some(())
        })
        .await?;
        s.delivers_outwards(&mut inside, &outside).await?;
        anyhow::Ok(outside.transcript().contains("urn:xmpp:ping"))
    };
    QUICK.test(4, async |s| {
        ensure!(!asked(s).await?, "confirmByPing is false");
        Ok(())
    });
    QUICK.test(5, async |s| {
        ensure!(asked(s).await?, "nobody was asked: this test tells nothing");
        Ok(())
    });
}

/// It may have been frozen before it ever answered, and what it had not read is lost with it.
#[test]
fn what_a_peer_was_asked_for_the_first_time_and_did_not_answer_goes_again_when_it_dies() {
    RIG.test(1, async |s| {
        let mut behaviour = s.good_behaviour()?;
        behaviour.acks = false;
        let outside = s.serve(behaviour).await?;
        let mut inside = s.inside().await?;
        let id = s.fresh();
        inside.message(ALICE, &s.user("rob"), &id, "hello").await?;
        outside.stanza_id(&id).await?;
        let asked = |seen: &str| seen.contains("urn:xmpp:ping");
        outside
            .until("a ping", |seen| seen.iter().any(|it| asked(&it.text)))
            .await?;
        // The scenario itself is a duration: longer than servers that answer take to do so.
        tokio::time::sleep(Duration::from_secs(4)).await;
        outside.tell(outside.last_connection(), Command::Drop);
        let times = |text: &str| text.matches(&format!("'{id}'")).count();
        outside
            .until("the stanza again", |seen| {
                seen.iter().map(|it| times(&it.text)).sum::<usize>() == 2
            })
            .await?;
        Ok(())
    });
}

#[test]
fn r_15_an_idle_stream_without_keep_alive_ends_in_order_and_comes_back() {
    QUICK.test(2, async |s| {
        let outside = s.outside().await?;
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &outside).await?;
        let seen = outside
            .until("the stream ends", |seen| seen.iter().any(|s| s.ended))
            .await?;
        let ended = seen.iter().find(|s| s.ended).unwrap();
        ensure!(
            ended.text.contains("</stream:stream>") && !ended.text.contains("stream:error"),
            "not in order: {}",
            ended.text
        );
        s.delivers_outwards(&mut inside, &outside).await?;
        ensure!(outside.connections() == 2);
        Ok(())
    });
}

#[test]
fn r_16_acks_are_granted_without_resumption() {
    RIG.test(16, async |s| {
        let mut peer = s.partner().await?;
        peer.send(format!("<enable xmlns='{}' resume='true'/>", ns::ACKS))
            .await?;
        let enabled = peer.element().await?;
        ensure!(
            enabled.is("enabled", ns::ACKS) && enabled.attribute("resume") != Some("true"),
            "{enabled:?}"
        );
        peer.send(format!("<resume xmlns='{}' previd='x' h='0'/>", ns::ACKS))
            .await?;
        let failed = peer.element().await?;
        ensure!(
            failed.is("failed", ns::ACKS) && failed.child("item-not-found").is_some(),
            "{failed:?}"
        );
        // Each <r/> is answered; the stanza is acknowledged once the server inside has it.
        s.delivers_inwards(&mut peer).await?;
        wait::until("the stanza is acknowledged", wait::GENEROUS, async || {
            peer.send(format!("<r xmlns='{}'/>", ns::ACKS)).await.ok()?;
            let ack = peer.element().await.ok()?;
            (ack.is("a", ns::ACKS) && ack.attribute("h") == Some("1")).then_some(())
        })
        .await
    });
}

#[test]
fn r_16_an_ack_is_withheld_until_the_next_hop_has_acknowledged() {
    RIG.test(7, async |s| {
        let mut peer = s.partner().await?;
        peer.enable_acks().await?;
        s.delivers_inwards(&mut peer).await?;
        let inside = &s.rig.inside;
        let acknowledged = async |peer: &mut Peer, count: &str| {
            peer.send(format!("<r xmlns='{}'/>", ns::ACKS)).await?;
            let ack = peer.element().await?;
            ensure!(ack.is("a", ns::ACKS), "{ack:?}");
            anyhow::Ok(ack.attribute("h") == Some(count))
        };
        wait::until("the first is acknowledged", wait::GENEROUS, async || {
            acknowledged(&mut peer, "1").await.ok()?.then_some(())
        })
        .await?;
        let connection = s.stream_inside()?;
        inside.freeze(connection).await?;
        let id = s.fresh();
        let message = format!(
            "<message from='{}' to='{ALICE}' id='{id}' type='chat'><body>x</body></message>",
            s.user("rob")
        );
        peer.send(message).await?;
        for _ in 0..20 {
            ensure!(
                !acknowledged(&mut peer, "2").await?,
                "before the next hop had it"
            );
        }
        inside.tell(connection, Command::Thaw);
        wait::until("the second is acknowledged", wait::GENEROUS, async || {
            acknowledged(&mut peer, "2").await.ok()?.then_some(())
        })
        .await?;
        s.inside_gets(&id).await?;
        Ok(())
    });
}

/// A stream from the partner that asks for both directions before it authenticates.
async fn bidirectional(s: &Scene) -> Result<Peer> {
    let (mut peer, features) = s.secured(Some(&s.identity)).await?;
    ensure!(features.bidi(), "bidi is not offered: {features:?}");
    peer.send(format!("<bidi xmlns='{}'/>", ns::BIDI)).await?;
    ensure!(peer.auth("EXTERNAL", "=").await?.name == "success");
    peer.open(&s.domain, OWN).await?;
    Ok(peer)
}

#[test]
fn r_18_one_stream_carries_both_directions_under_one_policy() {
    RIG.test(18, async |s| {
        let mut peer = bidirectional(s).await?;
        s.delivers_inwards(&mut peer).await?;
        let mut inside = s.inside().await?;
        // Nobody listens at the partner's address: it can come on this stream only.
        let id = s.fresh();
        inside.message(ALICE, &s.user("rob"), &id, "hello").await?;
        peer.stanza(&id).await?;
        // Policy in both directions: bob may not send, and nobody may send to him.
        let refused = s.fresh();
        inside
            .message(BOB, &s.user("rob"), &refused, &s.forbidden())
            .await?;
        let error = s.inside_gets(&refused).await?;
        ensure!(error.error_condition() == Some("not-allowed"), "{error:?}");
        let refused = s.fresh();
        peer.message(&s.user("rob"), BOB, &refused, &s.forbidden())
            .await?;
        let error = peer.stanza(&refused).await?;
        ensure!(error.error_condition() == Some("service-unavailable"));
        ensure!(!peer.received().contains(&s.forbidden()));
        s.unharmed(Moved::Refused("AccessPolicy")).await
    });
}

#[test]
fn r_18_nothing_comes_back_before_authentication() {
    RIG.test(17, async |s| {
        let (mut peer, _) = s.secured(Some(&s.identity)).await?;
        peer.send(format!("<bidi xmlns='{}'/>", ns::BIDI)).await?;
        let mut inside = s.inside().await?;
        let id = s.fresh();
        inside.message(ALICE, &s.user("rob"), &id, "hello").await?;
        // Its own attempt fails: nobody listens. So it comes back, or passes once there is a stream.
        ensure!(s.inside_gets(&id).await?.error_condition().is_some());
        ensure!(!peer.received().contains(&id));
        let answer = peer.auth("EXTERNAL", "=").await?;
        ensure!(answer.name == "success", "{answer:?}");
        Ok(())
    });
}

#[test]
fn r_19_a_stream_for_one_direction_carries_nothing_back() {
    RIG.test(19, async |s| {
        let mut peer = s.partner().await?;
        let outside = s.outside().await?;
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &outside).await?;
        // An error, too, takes the stream of its own direction.
        let id = s.fresh();
        peer.message(&s.user("rob"), BOB, &id, "hello").await?;
        outside.stanza_id(&id).await?;
        peer.send("</stream:stream>").await?;
        ensure!(peer.next().await? == Event::Close, "{}", peer.received());
        Ok(())
    });
}

#[test]
fn r_20_both_sides_may_open_at_the_same_time() {
    RIG.test(20, async |s| {
        let outside = s.outside().await?;
        for _ in 0..20 {
            let (outwards, inwards) = (s.fresh(), s.fresh());
            let (rob, login) = (s.user("rob"), Login::External(&s.identity));
            let mut inside = s.inside().await?;
            tokio::try_join!(
                async {
                    let mut peer = s.partner_by(&login).await?;
                    peer.message(&rob, ALICE, &inwards, "hello").await?;
                    s.inside_gets(&inwards).await?;
                    peer.send("</stream:stream>").await?;
                    peer.ended().await
                },
                async {
                    inside.message(ALICE, &rob, &outwards, "hello").await?;
                    outside.stanza_id(&outwards).await
                }
            )?;
            inside.send("</stream:stream>").await?;
            inside.ended().await?;
            // So that the edge has to open anew.
            outside.tell(outside.last_connection(), Command::Drop);
            let twice = |server: &PeerServer, id: &str| {
                let all = server.stanzas();
                all.iter()
                    .filter(|r| r.stanza.attribute("id") == Some(id))
                    .count()
            };
            ensure!(twice(&s.rig.inside, &inwards) == 1, "delivered twice");
        }
        Ok(())
    });
}

#[test]
fn r_16_a_partner_by_plain_dialback_has_acks_too() {
    QUICK.test(3, async |s| {
        let outside = s.serve(xmpp_edge_tests::peer::Behaviour::plain()).await?;
        outside.made("key");
        let mut peer = s.partner_by(&Login::TcpDialback("key")).await?;
        peer.enable_acks().await?;
        s.delivers_inwards(&mut peer).await
    });
}

#[test]
fn r_18_the_edge_asks_a_partner_for_both_directions_and_takes_stanzas_back() {
    RIG.test(6, async |s| {
        let mut behaviour = s.good_behaviour()?;
        behaviour.bidi = true;
        let outside = s.serve(behaviour).await?;
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &outside).await?;
        ensure!(outside.transcript().contains("<bidi"), "it did not ask");
        let id = s.fresh();
        let back = format!(
            "<message from='{}' to='{ALICE}' id='{id}' type='chat'><body>x</body></message>",
            s.user("rob")
        );
        outside.tell(outside.last_connection(), Command::Send(back));
        s.inside_gets(&id).await?;
        // Of no other domain.
        let id = s.forbidden();
        let foreign = format!(
            "<message from='rob@good.example' to='{ALICE}' id='{id}' type='chat'><body>{id}</body></message>"
        );
        outside.tell(outside.last_connection(), Command::Send(foreign));
        outside
            .until("the stream ends", |seen| {
                seen.iter().any(|s| s.text.contains("invalid-from"))
            })
            .await?;
        s.unharmed(Moved::Attempt("StanzaFrom")).await
    });
}
