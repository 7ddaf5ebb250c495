//! s9, s10, s12, s21: what ends a stream at the peer's side, and what must not.

use anyhow::{Result, ensure};
use xmpp_edge_tests::{
    peer::{Behaviour, Command, PeerServer, ns},
    rig::{ALICE, Plan, Scene, Shared},
};

static RIG: Shared = Shared::new(Plan::standard("fe", 6));

/// What many servers take by default.
const STOCK_LIMIT: usize = 131_072;

/// A small stanza, one of 200 KB and twenty small ones in one go: the large one comes back, all others
/// arrive and none of them comes back.
async fn the_culprit_alone_comes_back(s: &Scene, acks: bool) -> Result<()> {
    let outside = s
        .serve(Behaviour {
            acks,
            ends_over: Some(STOCK_LIMIT),
            ..s.good_behaviour()?
        })
        .await?;
    let mut inside = s.inside().await?;
    s.delivers_outwards(&mut inside, &outside).await?;
    let rob = s.user("rob");
    let large = s.fresh();
    let (mut ids, mut bytes) = (Vec::new(), String::new());
    for number in 0..22 {
        let (id, body) = match number {
            1 => (large.clone(), "x".repeat(200_000)),
            _ => (s.fresh(), "small".to_owned()),
        };
        bytes += &format!(
            "<message from='{ALICE}' to='{rob}' type='chat' id='{id}'><body>{body}</body></message>"
        );
        ids.extend((id != large).then_some(id));
    }
    inside.send(bytes).await?;
    let error = s.inside_gets(&large).await?;
    ensure!(
        error.error_condition() == Some("policy-violation"),
        "{error:?}"
    );
    for id in &ids {
        outside.stanza_id(id).await?;
    }
    // In order behind all of them: whatever came twice or came back has done so.
    s.delivers_outwards(&mut inside, &outside).await?;
    let came_back: Vec<_> = s.rig.inside.stanzas();
    let of = |id: &str| {
        let has = |stanza: &xmpp_edge_tests::xml::Element| stanza.attribute("id") == Some(id);
        let arrived = outside
            .stanzas()
            .iter()
            .filter(|it| has(&it.stanza))
            .count();
        let back = came_back.iter().filter(|it| has(&it.stanza)).count();
        (arrived, back)
    };
    for (number, id) in ids.iter().enumerate() {
        let (arrived, back) = of(id);
        ensure!(back == 0, "{id} came back");
        // The one before the large one was read, and may not have been acknowledged yet when the stream ended.
        let twice = !acks || number == 0;
        ensure!(
            arrived == 1 || twice && arrived == 2,
            "{id}: {arrived} times"
        );
    }
    ensure!(of(&large) == (0, 1), "the large one: {:?}", of(&large));
    // It is known now: the next one comes back at once, and no stream ends over it.
    let connections = outside.connections();
    let again = s.fresh();
    inside
        .message(ALICE, &rob, &again, &"x".repeat(200_000))
        .await?;
    let error = s.inside_gets(&again).await?;
    ensure!(error.error_condition().is_some(), "{error:?}");
    s.delivers_outwards(&mut inside, &outside).await?;
    ensure!(
        outside.connections() == connections,
        "a stream ended over it"
    );
    Ok(())
}

#[test]
fn s9_what_a_partner_with_acks_ends_its_stream_over_comes_back_alone() {
    RIG.test(1, async |s| the_culprit_alone_comes_back(s, true).await);
}

#[test]
fn s9_what_a_partner_without_acks_ends_its_stream_over_comes_back_alone() {
    RIG.test(2, async |s| the_culprit_alone_comes_back(s, false).await);
}

fn error(from: &str, to: &str, id: &str) -> String {
    format!(
        "<message type='error' from='{from}' to='{to}' id='{id}'><error type='modify'>\
         <bad-request xmlns='{}'/></error></message>",
        ns::STANZA_ERRORS
    )
}

/// The server that a stanza was sent to answers it on the same stream: ten others arrive once each, and
/// the error reaches its sender.
#[test]
fn s10_an_error_stanza_on_a_stream_to_the_inside_is_an_error_and_no_refusal_of_the_pair() {
    RIG.test(3, async |s| {
        let outside = s.outside().await?;
        let mut peer = s.partner().await?;
        s.delivers_inwards(&mut peer).await?;
        let stream = s.stream_inside()?;
        let rob = s.user("rob");
        let mut ids = Vec::new();
        for number in 0..11 {
            let id = s.fresh();
            peer.message(&rob, ALICE, &id, "hello").await?;
            if number == 5 {
                s.inside_gets(&id).await?;
                let answer = error(ALICE, &rob, &id);
                s.rig.inside.tell(stream, Command::Send(answer));
                let back = outside.stanza_id(&id).await?;
                ensure!(back.error_condition() == Some("bad-request"), "{back:?}");
            }
            ids.push(id);
        }
        s.delivers_inwards(&mut peer).await?;
        let stanzas = s.rig.inside.stanzas();
        for id in &ids {
            let came: Vec<_> = stanzas
                .iter()
                .filter(|it| it.stanza.attribute("id") == Some(id))
                .collect();
            ensure!(came.len() == 1, "{id} came {} times", came.len());
            ensure!(came[0].connection == stream, "on another stream");
        }
        let back = outside.stanzas();
        ensure!(back.len() == 1, "others came back: {back:?}");
        Ok(())
    });
}

/// The same the other way, with a stream to a partner that is not bidirectional; anything but an error
/// still ends it.
#[test]
fn s10_an_error_stanza_on_a_stream_to_a_partner_is_an_error_and_no_refusal_of_the_pair() {
    RIG.test(4, async |s| {
        let outside = s.outside().await?;
        let mut inside = s.inside().await?;
        let rob = s.user("rob");
        let id = s.fresh();
        inside.message(ALICE, &rob, &id, "hello").await?;
        outside.stanza_id(&id).await?;
        let stream = outside.last_connection();
        // One from somebody else's domain would be no answer.
        outside.tell(stream, Command::Send(error(&rob, ALICE, &id)));
        let back = s.inside_gets(&id).await?;
        ensure!(back.error_condition() == Some("bad-request"), "{back:?}");
        s.delivers_outwards(&mut inside, &outside).await?;
        ensure!(outside.connections() == 1, "the stream ended");
        let forged = format!(
            "<message from='{rob}' to='{ALICE}' id='{}'><body>{}</body></message>",
            s.fresh(),
            s.forbidden()
        );
        outside.tell(stream, Command::Send(forged));
        outside
            .until("the stream ends", |seen| seen[stream - 1].ended)
            .await?;
        s.delivers_outwards(&mut inside, &outside).await?;
        ensure!(
            !s.rig.inside.transcript().contains(&s.forbidden()),
            "it was taken"
        );
        Ok(())
    });
}

#[test]
fn s12_a_peer_that_ends_idle_streams_hears_from_the_edge_before() {
    RIG.test(5, async |s| {
        let outside = s
            .serve(Behaviour {
                idle_seconds: Some(6),
                ..s.good_behaviour()?
            })
            .await?;
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &outside).await?;
        let stream = outside.last_connection();
        let signs = |text: &str| text.matches("<r ").count();
        // The one that confirms the message, and one more that nothing but silence can cause: the edge's
        // own interval is minutes.
        outside
            .until("a sign of life", |seen| signs(&seen[stream - 1].text) >= 3)
            .await?;
        ensure!(outside.connections() == 1, "the stream ended");
        Ok(())
    });
}

#[test]
fn s21_direct_tls_that_offers_no_way_to_authenticate_leaves_starttls() {
    RIG.test(6, async |s| {
        let useless = Behaviour {
            external: false,
            dialback: false,
            acks: false,
            ..s.good_behaviour()?
        };
        let direct = PeerServer::listen(s.at(5401), useless).await?;
        let starttls = PeerServer::listen(s.at(5402), s.good_behaviour()?).await?;
        s.unpublish();
        let dns = s.rig.lab.dns();
        dns.xmpps_server(&s.domain, 1, 0, 5401, &s.target());
        dns.xmpp_server(&s.domain, 2, 0, 5402, &s.target());
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &starttls).await?;
        ensure!(direct.connections() == 1, "it was tried first");
        Ok(())
    });
}
