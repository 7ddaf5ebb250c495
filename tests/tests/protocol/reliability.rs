//! R-08 to R-13, R-17, R-21 and R-22: what becomes of stanzas when servers and connections fail.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use xmpp_edge_tests::{
    peer::{Command, Login, Peer, PeerServer, ns},
    rig::{ALICE, BOB, DOWN, Moved, OWN, Plan, Rig, Shared, alone},
    wait,
};

/// Ordinary settings.
static RIG: Shared = Shared::new(Plan::standard("r", 22));

/// The shortest times that the pool takes.
static QUICK: Shared = Shared::new(Plan {
    settings: || {
        json!({
            "queueTimeoutSeconds": 3,
        })
    },
    ..Plan::standard("q", 8)
});

/// Waits until each stanza was delivered to `server` or came back to `sender` as an error; gives how
/// many came back.
async fn fates(server: &PeerServer, sender: &PeerServer, ids: &[String]) -> Result<usize> {
    let mut back = 0;
    for id in ids {
        tokio::select! {
            got = server.stanza_id(id) => { got?; }
            got = sender.stanza_id(id) => {
                ensure!(got?.error_condition().is_some());
                back += 1;
            }
        }
    }
    Ok(back)
}

/// The numbers at the end of the ids that begin with `prefix`, in the order of arrival.
fn numbers(server: &PeerServer, prefix: &str) -> Vec<usize> {
    server
        .stanzas()
        .iter()
        .filter_map(|r| {
            let id = r.stanza.attribute("id")?;
            id.strip_prefix(prefix)?.parse().ok()
        })
        .collect()
}

/// Every number below `count` came; a second time only where the stream broke, and in order again.
fn in_order(got: &[usize], count: usize) -> Result<()> {
    let mut next = 0;
    for number in got {
        ensure!(*number <= next, "{next} is missing before {number}");
        next = next.max(number + 1);
    }
    ensure!(next == count, "{next} of {count} came");
    let falls = got.windows(2).filter(|w| w[1] <= w[0]).count();
    ensure!(falls <= 1, "order broken {falls} times: {got:?}");
    Ok(())
}

#[test]
fn r_08_a_partner_that_was_killed_gets_the_next_stanza_on_a_new_stream() {
    RIG.test(8, async |s| {
        let outside = s.outside().await?;
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &outside).await?;
        outside.kill().await;
        let outside = s.outside().await?;
        let ids: Vec<_> = (0..10).map(|_| s.fresh()).collect();
        for id in &ids {
            inside.message(ALICE, &s.user("rob"), id, "hello").await?;
        }
        fates(&outside, &s.rig.inside, &ids).await?;
        Ok(())
    });
}

#[test]
fn r_09_a_frozen_partner_is_noticed_and_its_stanzas_go_again() {
    QUICK.test(1, async |s| {
        let outside = s.outside().await?;
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &outside).await?;
        outside.freeze(outside.last_connection()).await?;
        let id = s.fresh();
        inside.message(ALICE, &s.user("rob"), &id, "hello").await?;
        outside.stanza_id(&id).await?;
        ensure!(outside.connections() >= 2, "the frozen stream was kept");
        s.moved("attempts_total", &["outcome=\"Unresponsive\""])
            .await
    });
}

#[test]
fn r_09_what_a_frozen_partner_took_twice_without_a_word_comes_back() {
    QUICK.test(4, async |s| {
        let mut behaviour = s.good_behaviour()?;
        let outside = s.serve(behaviour.clone()).await?;
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &outside).await?;
        // Whoever comes next finds nobody who answers.
        behaviour.external_verdict = xmpp_edge_tests::peer::Verdict::Never;
        outside.behave(|b| *b = behaviour);
        outside.freeze(outside.last_connection()).await?;
        let id = s.fresh();
        inside.message(ALICE, &s.user("rob"), &id, "hello").await?;
        let error = s.inside_gets(&id).await?;
        ensure!(error.error_condition() == Some("remote-server-timeout"));
        s.unharmed(Moved::Bounced("remote-server-timeout")).await
    });
}

#[test]
fn r_11_order_outwards_survives_a_broken_stream() {
    RIG.test(11, async |s| {
        let outside = s.outside().await?;
        let mut inside = s.inside().await?;
        let prefix = format!("{}-", s.fresh());
        for number in 0..1000 {
            let id = format!("{prefix}{number}");
            inside.message(ALICE, &s.user("rob"), &id, "hello").await?;
            if number == 500 {
                outside.stanza_id(&format!("{prefix}300")).await?;
                outside.tell(outside.last_connection(), Command::Drop);
            }
        }
        outside.stanza_id(&format!("{prefix}999")).await?;
        in_order(&numbers(&outside, &prefix), 1000)
    });
}

#[test]
fn r_11_order_inwards_survives_a_new_stream() {
    RIG.test(12, async |s| {
        let prefix = format!("{}-", s.fresh());
        for half in [0..500, 500..1000] {
            let mut peer = s.partner().await?;
            for number in half {
                let id = format!("{prefix}{number}");
                peer.message(&s.user("rob"), ALICE, &id, "hello").await?;
            }
            peer.send("</stream:stream>").await?;
            peer.ended().await?;
        }
        s.inside_gets(&format!("{prefix}999")).await?;
        in_order(&numbers(&s.rig.inside, &prefix), 1000)
    });
}

#[test]
fn r_12_a_server_inside_that_is_down_is_remote_server_timeout_until_it_is_back() {
    QUICK.test(5, async |s| {
        let outside = s.outside().await?;
        let login = Login::External(&s.identity);
        let mut peer = Peer::login(s.rig.public(), &s.domain, DOWN, &login).await?;
        let dora = format!("dora@{DOWN}");
        let id = s.fresh();
        peer.message(&s.user("rob"), &dora, &id, "hello").await?;
        let error = outside.stanza_id(&id).await?;
        ensure!(error.error_condition() == Some("remote-server-timeout"));
        // Others inside are there.
        let mut other = s.partner().await?;
        s.delivers_inwards(&mut other).await?;
        s.unharmed(Moved::Bounced("remote-server-timeout")).await?;
        // It is back: the next stanza arrives within a second's try, on the same stream.
        let down = s.rig.down().await?;
        let id = s.fresh();
        peer.message(&s.user("rob"), &dora, &id, "hello").await?;
        down.stanza_id(&id).await?;
        Ok(())
    });
}

#[test]
fn r_13_a_slow_server_inside_slows_its_partner_and_nobody_else() {
    RIG.test(13, async |s| {
        let mut peer = s.partner().await?.with_patience(Duration::from_secs(2));
        s.delivers_inwards(&mut peer).await?;
        let inside = &s.rig.inside;
        let connection = s.stream_inside()?;
        inside.freeze(connection).await?;
        let body = "x".repeat(10_000);
        let mut ids = Vec::new();
        // Socket buffers and 1 MiB of queue take a part; then the edge does not read.
        let stopped = loop {
            let id = s.fresh();
            let sent = peer.message(&s.user("rob"), ALICE, &id, &body).await;
            if sent.is_err() {
                break true;
            }
            ids.push(id);
            if ids.len() > 10_000 {
                break false;
            }
        };
        ensure!(
            stopped,
            "100 MB were taken in for a server that does not read"
        );
        let held = s.rig.metrics().await?;
        let label = format!(
            "queue_bytes{{partner=\"{}\",direction=\"inbound\"}}",
            s.name
        );
        let held: f64 = held
            .lines()
            .find_map(|line| line.split_once(&label)?.1.trim().parse().ok())
            .context("no queue_bytes")?;
        ensure!(held < 2e6, "{held} bytes are held");
        s.rig.serves_the_good_partner().await?;
        // Reads again: all that was taken in arrives, in order.
        inside.tell(connection, Command::Thaw);
        for id in &ids {
            inside.stanza_id(id).await?;
        }
        let order: Vec<_> = inside
            .stanzas()
            .iter()
            .filter_map(|r| r.stanza.attribute("id").map(str::to_owned))
            .filter(|id| ids.contains(id))
            .collect();
        ensure!(order == ids, "order was lost");
        Ok(())
    });
}

#[test]
fn r_17_a_stop_writes_what_is_queued_and_says_system_shutdown() {
    alone(async {
        let rig = Rig::start(Plan::standard("z", 0)).await?;
        let login = Login::External(rig.own_identity());
        let mut inside = Peer::login(rig.internal(), OWN, "good.example", &login).await?;
        let ids: Vec<_> = (0..200).map(|_| rig.fresh()).collect();
        for id in &ids {
            inside
                .message(ALICE, "friend@good.example", id, "hello")
                .await?;
        }
        rig.good.stanza_id(&ids[0]).await?;
        rig.edge.lock().await.stop().await?;
        let condition = inside.stream_error().await?;
        ensure!(condition == "system-shutdown", "{condition}");
        fates(&rig.good, &rig.inside, &ids).await?;
        ensure!(rig.good.transcript().contains("system-shutdown"));
        Ok(())
    });
}

#[test]
fn r_21_errors_results_and_presence_are_never_answered() {
    RIG.test(21, async |s| {
        let outside = s.outside().await?;
        let mut peer = s.partner().await?;
        let rob = s.user("rob");
        let ids: Vec<_> = (0..5).map(|_| s.fresh()).collect();
        // To bob, who may have nothing: each is refused, none is answered.
        for (id, stanza) in ids.iter().zip([
            "<message TYPE='error'><error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>",
            "<message TYPE='headline'><body>x</body></message>",
            "<presence/>",
            "<iq TYPE='result'/>",
            "<iq TYPE='error'><error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>",
        ]) {
            let name_end = stanza.find([' ', '/', '>']).unwrap();
            let (head, tail) = stanza.split_at(name_end);
            let text = format!("{head} from='{rob}' to='{BOB}' id='{id}'{tail}");
            peer.send(text.replace("TYPE", "type")).await?;
        }
        // What is answered shows that the others were not: order within the pair is kept.
        let last = s.fresh();
        peer.message(&rob, BOB, &last, "x").await?;
        ensure!(outside.stanza_id(&last).await?.error_condition().is_some());
        let answered: Vec<_> = outside
            .stanzas()
            .iter()
            .filter_map(|r| r.stanza.attribute("id").map(str::to_owned))
            .filter(|id| ids.contains(id))
            .collect();
        ensure!(answered.is_empty(), "answered: {answered:?}");
        s.unharmed(Moved::Refused("AccessPolicy")).await
    });
}

#[test]
fn r_21_what_cannot_be_delivered_and_is_no_request_is_dropped() {
    RIG.test(22, async |s| {
        // Nobody listens at the partner's address.
        let mut inside = s.inside().await?;
        let rob = s.user("rob");
        let quiet = s.fresh();
        for stanza in [
            format!("<presence from='{ALICE}' to='{rob}' id='{quiet}'/>"),
            format!("<iq type='result' from='{ALICE}' to='{rob}' id='{quiet}'/>"),
            format!(
                "<message type='error' from='{ALICE}' to='{rob}' id='{quiet}'><error type='cancel'><gone xmlns='{}'/></error></message>",
                ns::STANZA_ERRORS
            ),
        ] {
            inside.send(stanza).await?;
        }
        let loud = s.fresh();
        inside
            .send(format!(
                "<presence type='subscribe' from='{ALICE}' to='{rob}' id='{loud}'/>"
            ))
            .await?;
        let error = s.inside_gets(&loud).await?;
        ensure!(error.name == "presence" && error.error_condition().is_some());
        let answered = s
            .rig
            .inside
            .stanzas()
            .iter()
            .any(|r| r.stanza.attribute("id") == Some(&quiet));
        ensure!(!answered, "what is no request was answered");
        Ok(())
    });
}

#[test]
fn r_10_a_stream_over_a_connection_that_was_cut_is_replaced() {
    RIG.test(10, async |s| {
        // A reset, as from a firewall that forgot the connection; one that only drops packets is
        // R-09 for the edge, with TCP_USER_TIMEOUT as second guard.
        let outside = s.outside().await?;
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &outside).await?;
        outside.tell_all(&Command::Drop);
        let ids: Vec<_> = (0..10).map(|_| s.fresh()).collect();
        for id in &ids {
            inside.message(ALICE, &s.user("rob"), id, "hello").await?;
        }
        ensure!(fates(&outside, &s.rig.inside, &ids).await? == 0);
        Ok(())
    });
}

/// Takes a minute: named so that it starts first.
mod a_minute {
    use super::*;

    #[test]
    fn r_22_when_a_partner_is_gone_its_presence_is_taken_back() {
        RIG.test(2, async |s| {
            let outside = s.outside().await?;
            let mut peer = s.partner().await?;
            let full = format!("{}/desk", s.user("rob"));
            peer.send(format!("<presence from='{full}' to='{ALICE}'/>"))
                .await?;
            let of_rob = |kind: Option<&'static str>| {
                let full = full.clone();
                move |e: &xmpp_edge_tests::xml::Element| {
                    e.name == "presence"
                        && e.attribute("from") == Some(&full)
                        && e.attribute("type") == kind
                }
            };
            s.rig.inside.stanza("presence", of_rob(None)).await?;
            // Gone: no stream, and an attempt at every target fails.
            drop(peer);
            outside.kill().await;
            let mut inside = s.inside().await?;
            let id = s.fresh();
            inside.message(ALICE, &s.user("rob"), &id, "hello").await?;
            ensure!(s.inside_gets(&id).await?.error_condition().is_some());
            wait::until(
                "presence is taken back after a minute",
                Duration::from_secs(100),
                async || {
                    let left = of_rob(Some("unavailable"));
                    let all = s.rig.inside.stanzas();
                    all.iter().any(|r| left(&r.stanza)).then_some(())
                },
            )
            .await?;
            // It is back: the edge asks for presence in alice's name.
            let outside = s.outside().await?;
            let mut peer = s.partner().await?;
            s.delivers_inwards(&mut peer).await?;
            outside
                .stanza("probe", |e| {
                    e.attribute("type") == Some("probe") && e.attribute("from") == Some(ALICE)
                })
                .await?;
            Ok(())
        });
    }
}
