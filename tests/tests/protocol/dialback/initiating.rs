//! The edge as initiating server: its own key, and answers that nobody asked for.

use anyhow::ensure;
use xmpp_edge_tests::{
    peer::{Verdict, ns},
    rig::{ALICE, EVIL, Moved, OWN, SECOND},
};

use super::{
    RIG, authority, dialback_server, publish, push, result_answer, secured, verify_answer,
};

#[test]
fn d_09_an_unsolicited_verify_authorises_nobody() {
    RIG.test(9, async |s| {
        let outside = authority(s, &[]).await?;
        // On a stream of the edge's own, which lives on.
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &outside).await?;
        for id in ["1", "xmpp-edge-probe-1", ""] {
            outside.tell_all(&verify_answer(&s.domain, OWN, id, "valid"));
        }
        s.delivers_outwards(&mut inside, &outside).await?;
        ensure!(outside.connections() == 1, "the stream went on");
        // On the peer's, with the very id of the stream.
        let (mut peer, id) = secured(s).await?;
        peer.send(format!(
            "<db:verify from='{}' to='{OWN}' id='{id}' type='valid'/>",
            s.domain
        ))
        .await?;
        push(s, &mut peer, &s.user("rob")).await;
        peer.expect_stream_error("not-authorized").await?;
        s.unharmed(Moved::Attempt("NotAuthorized")).await
    });
}

#[test]
fn d_11_a_result_for_a_pair_never_asked_lets_nothing_out() {
    RIG.test(11, async |s| {
        let server = dialback_server(s, |b| b.result = Some(Verdict::Never)).await?;
        let mut inside = s.inside().await?;
        let id = s.forbidden();
        inside.message(ALICE, &s.user("rob"), &id, "hello").await?;
        server
            .until("the edge sends its key", |seen| {
                seen.iter().any(|c| !c.keys.is_empty())
            })
            .await?;
        for (from, to) in [(&*s.domain, SECOND), (EVIL, OWN), (OWN, &*s.domain)] {
            server.tell_all(&result_answer(from, to, "valid"));
        }
        server.tell_all(&verify_answer(&s.domain, OWN, "1", "valid"));
        server.tell_all(&result_answer(&s.domain, OWN, "invalid"));
        let error = s.inside_gets(&id).await?;
        ensure!(error.attribute("type") == Some("error"), "{error:?}");
        ensure!(server.stanzas().is_empty(), "{:?}", server.stanzas());
        s.rig.serves_the_good_partner().await?;
        s.moved("attempts_total", &["outcome=\"DialbackRejected\""])
            .await
    });
}

#[test]
fn d_19_a_peer_without_errors_gets_a_stream_for_each_target() {
    RIG.test(19, async |s| {
        let server = dialback_server(s, |b| b.errors = false).await?;
        publish(s, "sub.d19.example");
        for user in [s.user("rob"), "rob@sub.d19.example".to_owned()] {
            let domain = user.split_once('@').unwrap().1;
            let mut inside = s.inside_to(domain).await?;
            let id = s.fresh();
            inside.message(ALICE, &user, &id, "hello").await?;
            server.stanza_id(&id).await?;
        }
        let seen = server.seen();
        ensure!(seen.len() == 2, "{seen:#?}");
        ensure!(seen.iter().all(|c| c.keys.len() == 1), "{seen:#?}");
        Ok(())
    });
}

#[test]
fn d_23_any_prefix_is_read_and_db_is_written() {
    RIG.test(23, async |s| {
        let server = dialback_server(s, |_| {}).await?;
        server.made("good");
        let (mut peer, _) = secured(s).await?;
        peer.send(format!(
            "<x:result xmlns:x='{}' from='{}' to='{OWN}'>good</x:result>",
            ns::DIALBACK,
            s.domain
        ))
        .await?;
        ensure!(peer.db_answer("result", &s.domain, OWN).await? == "valid");
        ensure!(
            peer.received().contains("<db:result"),
            "{}",
            peer.received()
        );
        s.delivers_inwards(&mut peer).await?;
        let (mut peer, _) = secured(s).await?;
        peer.send(format!(
            "<result xmlns='{}' from='{}' to='{OWN}'>good</result>",
            ns::DIALBACK,
            s.domain
        ))
        .await?;
        ensure!(peer.db_answer("result", &s.domain, OWN).await? == "valid");
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &server).await?;
        let text = server.transcript();
        ensure!(
            text.contains("<db:result") && text.contains("<db:verify"),
            "{text}"
        );
        Ok(())
    });
}
