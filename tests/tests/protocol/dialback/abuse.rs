//! Bounds: many pairs, storms of keys, and questions that lead to questions.

use anyhow::ensure;
use xmpp_edge_tests::{
    peer::{Command, Verdict, ns},
    rig::{ALICE, EVIL, Moved, OWN},
    servers::S2S_PORT,
};

use super::{RIG, authority, delivers, dialled_back, in_question, publish, secured, verify_answer};

#[test]
fn d_20_pairs_on_one_stream_are_bounded() {
    RIG.test(20, async |s| {
        const SENDERS: usize = 1000;
        let server = authority(s, &["good"]).await?;
        let mut peer = dialled_back(s, "good").await?;
        server.behave(|b| b.verify = Some(Verdict::Never));
        let mut keys = String::new();
        for number in 0..SENDERS {
            let domain = format!("n{number}.d20.example");
            publish(s, &domain);
            keys += &format!("<db:result from='{domain}' to='{OWN}'>good</db:result>");
        }
        peer.send(keys).await?;
        let mut refused = 0;
        while refused < SENDERS - 128 {
            let answer = peer
                .expect("an answer to db:result", |e| e.is("result", ns::DIALBACK))
                .await?;
            let condition = answer.error_condition();
            ensure!(condition == Some("resource-constraint"), "{answer:?}");
            refused += 1;
        }
        ensure!(server.connections() <= 129, "{}", server.connections());
        s.delivers_inwards(&mut peer).await?;
        s.unharmed(Moved::Attempt("TooManyPairs")).await
    });
}

#[test]
fn d_21_a_storm_of_keys_is_no_amplifier() {
    RIG.test(21, async |s| {
        let victim = authority(s, &["good"]).await?;
        publish(s, "sub.d21.example");
        // Strangers cost not even a question to DNS; a stream of theirs ends at the tenth.
        for stream in 0..25 {
            let (mut peer, _) = secured(s).await?;
            for number in 0..8 {
                let got = peer
                    .dialback(&format!("n{stream}-{number}.{EVIL}"), OWN, "bad")
                    .await?;
                ensure!(got == "policy-violation", "{got}");
            }
        }
        let (mut peer, _) = secured(s).await?;
        let asked = s.rig.lab.dns().asked();
        ensure!(
            !asked.iter().any(|(name, _)| name.ends_with(EVIL)),
            "{asked:?}"
        );
        // One who may talk names itself, or another of its domains, over and over.
        ensure!(peer.dialback("sub.d21.example", OWN, "good").await? == "valid");
        let mut verdicts = Vec::new();
        for _ in 0..100 {
            verdicts.push(peer.dialback(&s.domain, OWN, "bad").await?);
        }
        ensure!(verdicts.first().unwrap() == "invalid", "{verdicts:?}");
        ensure!(
            verdicts.last().unwrap() == "resource-constraint",
            "{verdicts:?}"
        );
        // 60 a minute, and the one that was good.
        ensure!(victim.connections() <= 61, "{}", victim.connections());
        delivers(s, &mut peer, "rob@sub.d21.example", ALICE).await?;
        s.unharmed(Moved::Attempt("AuthoritativeBusy")).await
    });
}

#[test]
fn d_22_a_question_does_not_lead_to_a_question() {
    RIG.test(22, async |s| {
        let (server, mut peer, id) = in_question(s, "good").await?;
        for _ in 0..50 {
            server.tell_all(&Command::Send(format!(
                "<db:result from='{0}' to='{OWN}'>x</db:result>\
                 <db:verify from='{0}' to='{OWN}' id='{id}'>x</db:verify>",
                s.domain
            )));
        }
        server.tell_all(&verify_answer(&s.domain, OWN, &id, "valid"));
        ensure!(peer.db_answer("result", &s.domain, OWN).await? == "valid");
        s.delivers_inwards(&mut peer).await?;
        ensure!(server.connections() == 1, "{:#?}", server.seen());
        // A domain whose server, by DNS, is the edge itself.
        let dns = s.rig.lab.dns();
        dns.xmpp_server("loop.d22.example", 0, 0, S2S_PORT, "edge.example");
        let got = peer.dialback("loop.d22.example", OWN, "good").await?;
        ensure!(got == "remote-connection-failed", "{got}");
        s.delivers_inwards(&mut peer).await?;
        s.unharmed(Moved::Attempt("AuthoritativeConnectionFailed"))
            .await
    });
}
