//! The edge as receiving server: a peer sends its key, the authoritative server is asked.

use std::net::SocketAddr;

use anyhow::ensure;
use xmpp_edge_tests::{
    dns::Fault,
    peer::{PeerServer, Verdict},
    rig::{ALICE, EVIL, Moved, OWN, SECOND},
    servers::S2S_PORT,
    wait::{GENEROUS, until},
};

use super::{
    RIG, authority, delivers, dialled_back, in_question, publish, push, result_answer, secured,
    send_keys, verify_answer,
};

#[test]
fn d_02_a_key_is_verified_by_the_authoritative_server() {
    RIG.test(2, async |s| {
        let server = authority(s, &["good"]).await?;
        let (mut peer, id) = secured(s).await?;
        ensure!(peer.dialback(&s.domain, OWN, "good").await? == "valid");
        s.delivers_inwards(&mut peer).await?;
        // The key went to where DNS says the domain is, with the domains and the id it came with.
        let seen = server.seen();
        ensure!(seen.len() == 1 && seen[0].asked == 1, "{seen:?}");
        ensure!(seen[0].from == OWN && seen[0].to == s.domain, "{seen:?}");
        ensure!(seen[0].tls.is_some(), "the key is asked about inside TLS");
        ensure!(seen[0].text.contains(&format!("id='{id}'")), "{seen:?}");
        s.rig.serves_the_good_partner().await
    });
}

#[test]
fn d_03_an_invalid_key_closes_a_stream_that_has_nothing_else() {
    RIG.test(3, async |s| {
        let _server = authority(s, &[]).await?;
        let (mut peer, _) = secured(s).await?;
        ensure!(peer.dialback(&s.domain, OWN, "bad").await? == "invalid");
        push(s, &mut peer, &s.user("rob")).await;
        peer.expect_stream_error("not-authorized").await?;
        s.unharmed(Moved::Attempt("DialbackFailed")).await
    });
}

#[test]
fn d_04_an_authoritative_server_that_cannot_be_asked_is_an_error_and_the_stream_stays() {
    RIG.test(4, async |s| {
        let _server = authority(s, &["good"]).await?;
        let dns = s.rig.lab.dns();
        let mut others = Vec::new();
        let host = |number: u8| s.rig.lab.ip(200 + number);
        for (number, name) in ["refuses", "closes", "silent"].into_iter().enumerate() {
            let number = u8::try_from(number)?;
            let domain = format!("{name}.{}", s.domain);
            let target = format!("xmpp.{domain}");
            dns.host(&target, host(number));
            dns.xmpp_server(&domain, 0, 0, S2S_PORT, &target);
            let verdict = match name {
                "closes" => Verdict::Close,
                "silent" => Verdict::Never,
                // Nobody listens there.
                _ => continue,
            };
            let mut behaviour = s.good_behaviour()?;
            behaviour.verify = Some(verdict);
            let at = SocketAddr::from((host(number), S2S_PORT));
            others.push(PeerServer::listen(at, behaviour).await?);
        }
        dns.xmpp_server(&format!("noservice.{}", s.domain), 0, 0, 0, ".");
        let mut peer = dialled_back(s, "good").await?;
        for (name, condition) in [
            ("noservice", "remote-server-not-found"),
            ("missing", "remote-server-not-found"),
            ("refuses", "remote-connection-failed"),
            ("closes", "remote-connection-failed"),
            ("silent", "remote-server-timeout"),
        ] {
            let domain = format!("{name}.{}", s.domain);
            let got = peer.dialback(&domain, OWN, "good").await?;
            ensure!(got == condition, "{name}: {got}, not {condition}");
        }
        s.delivers_inwards(&mut peer).await?;
        push(s, &mut peer, &format!("rob@silent.{}", s.domain)).await;
        peer.expect_stream_error("invalid-from").await?;
        for outcome in [
            "AuthoritativeNotFound",
            "AuthoritativeConnectionFailed",
            "AuthoritativeTimedOut",
        ] {
            let label = format!("outcome=\"{outcome}\"");
            s.moved("attempts_total", &[&label]).await?;
        }
        s.unharmed(Moved::Attempt("StanzaFrom")).await
    });
}

#[test]
fn d_04_a_name_server_that_fails_is_an_error_and_the_stream_stays() {
    RIG.test(26, async |s| {
        let server = authority(s, &["good"]).await?;
        let owner = format!("_xmpp-server._tcp.{}", s.domain);
        s.rig.lab.dns().fault(&owner, Fault::Fails);
        let (mut peer, _) = secured(s).await?;
        let got = peer.dialback(&s.domain, OWN, "good").await?;
        ensure!(got == "remote-connection-failed", "{got}");
        ensure!(server.connections() == 0);
        push(s, &mut peer, &s.user("rob")).await;
        peer.expect_stream_error("not-authorized").await?;
        s.unharmed(Moved::Attempt("AuthoritativeConnectionFailed"))
            .await
    });
}

#[test]
fn d_05_a_domain_not_served_is_item_not_found_and_the_stream_stays() {
    RIG.test(5, async |s| {
        let _server = authority(s, &["good"]).await?;
        let (mut peer, _) = secured(s).await?;
        let got = peer.dialback(&s.domain, "nowhere.example", "good").await?;
        ensure!(got == "item-not-found", "{got}");
        ensure!(peer.dialback(&s.domain, OWN, "good").await? == "valid");
        s.delivers_inwards(&mut peer).await?;
        s.unharmed(Moved::Attempt("HostUnknown")).await
    });
}

#[test]
fn d_06_dialback_outside_tls_is_policy_violation() {
    RIG.test(6, async |s| {
        let server = authority(s, &["good"]).await?;
        let mut peer = s.connect().await?;
        let features = peer.open(&s.domain, OWN).await?;
        ensure!(!features.dialback(), "{features:?}");
        let got = peer.dialback(&s.domain, OWN, "good").await?;
        ensure!(got == "policy-violation", "{got}");
        push(s, &mut peer, &s.user("rob")).await;
        peer.expect_stream_error("policy-violation").await?;
        ensure!(server.connections() == 0, "nobody is asked");
        s.unharmed(Moved::Attempt("TlsRequired")).await
    });
}

#[test]
fn d_07_dialback_where_sasl_is_required_is_policy_violation() {
    RIG.test(7, async |s| {
        let server = authority(s, &["good"]).await?;
        let (mut peer, features) = s.secured(Some(&s.identity)).await?;
        ensure!(!features.dialback(), "{features:?}");
        let got = peer.dialback(&s.domain, OWN, "good").await?;
        ensure!(got == "policy-violation", "{got}");
        push(s, &mut peer, &s.user("rob")).await;
        peer.expect_stream_error("not-authorized").await?;
        ensure!(server.connections() == 0, "nobody is asked");
        s.unharmed(Moved::Attempt("DialbackNotAllowed")).await
    });
}

#[test]
fn d_08_an_unsolicited_result_authorises_nobody() {
    RIG.test(8, async |s| {
        let _server = authority(s, &[]).await?;
        let (mut peer, _) = secured(s).await?;
        for (from, to) in [(&*s.domain, OWN), (OWN, &*s.domain), (EVIL, OWN)] {
            peer.send(format!("<db:result from='{from}' to='{to}' type='valid'/>"))
                .await?;
        }
        push(s, &mut peer, &s.user("rob")).await;
        peer.expect_stream_error("not-authorized").await?;
        s.unharmed(Moved::Attempt("NotAuthorized")).await
    });
}

#[test]
fn d_10_only_the_answer_to_the_question_counts() {
    RIG.test(10, async |s| {
        let (server, mut peer, id) = in_question(s, "bad").await?;
        for (from, to, id) in [
            (&*s.domain, OWN, "another"),
            (&*s.domain, OWN, ""),
            (EVIL, OWN, &*id),
            (&*s.domain, SECOND, &*id),
            (OWN, &*s.domain, &*id),
        ] {
            server.tell_all(&verify_answer(from, to, id, "valid"));
        }
        server.tell_all(&result_answer(&s.domain, OWN, "valid"));
        // On another stream than it was asked on.
        peer.send(format!(
            "<db:verify from='{}' to='{OWN}' id='{id}' type='valid'/>",
            s.domain
        ))
        .await?;
        server.tell_all(&verify_answer(&s.domain, OWN, &id, "invalid"));
        let got = peer.db_answer("result", &s.domain, OWN).await?;
        ensure!(got == "invalid", "{got}");
        push(s, &mut peer, &s.user("rob")).await;
        peer.expect_stream_error("not-authorized").await?;
        s.unharmed(Moved::Attempt("DialbackFailed")).await
    });
}

#[test]
fn d_12_a_second_key_for_a_pair_changes_nothing() {
    RIG.test(12, async |s| {
        let _server = authority(s, &["good"]).await?;
        let (mut peer, _) = secured(s).await?;
        send_keys(s, &mut peer, ["good", "bad"]).await?;
        ensure!(peer.db_answer("result", &s.domain, OWN).await? == "valid");
        s.delivers_inwards(&mut peer).await?;
        peer.db_result(&s.domain, OWN, "bad").await?;
        s.delivers_inwards(&mut peer).await?;
        peer.send("</stream:stream>").await?;
        peer.ended().await?;
        let answers = peer.received().matches("type='valid'").count();
        // None while the first was verified, then at once: the stream carries the pair.
        ensure!(answers == 2, "{answers} in {}", peer.received());
        // Bad before good: the good one does not rescue it.
        let (mut peer, _) = secured(s).await?;
        send_keys(s, &mut peer, ["bad", "good"]).await?;
        ensure!(peer.db_answer("result", &s.domain, OWN).await? == "invalid");
        peer.expect_stream_error("not-authorized").await?;
        s.unharmed(Moved::Attempt("DialbackFailed")).await
    });
}

#[test]
fn d_13_a_stanza_before_the_verdict_ends_the_stream() {
    RIG.test(13, async |s| {
        let (server, mut peer, id) = in_question(s, "good").await?;
        push(s, &mut peer, &s.user("rob")).await;
        peer.expect_stream_error("not-authorized").await?;
        // The verdict that comes after releases nothing.
        server.tell_all(&verify_answer(&s.domain, OWN, &id, "valid"));
        s.unharmed(Moved::Attempt("NotAuthorized")).await
    });
}

#[test]
fn d_13_a_stanza_of_a_further_pair_before_its_verdict_is_invalid_from() {
    RIG.test(27, async |s| {
        let server = authority(s, &["good"]).await?;
        let mut peer = dialled_back(s, "good").await?;
        server.behave(|b| b.verify = Some(Verdict::Never));
        publish(s, "sub.d13.example");
        peer.db_result("sub.d13.example", OWN, "good").await?;
        push(s, &mut peer, "rob@sub.d13.example").await;
        peer.expect_stream_error("invalid-from").await?;
        s.unharmed(Moved::Attempt("StanzaFrom")).await
    });
}

#[test]
fn d_17_each_sender_on_a_stream_is_judged_by_its_own_terms() {
    RIG.test(17, async |s| {
        let server = authority(s, &["good"]).await?;
        for domain in [
            "sub.d17.example",
            "strict-d17.example",
            "suspended-d17.example",
        ] {
            publish(s, domain);
        }
        let mut peer = dialled_back(s, "good").await?;
        let connections = server.connections();
        for domain in ["strict-d17.example", "suspended-d17.example", EVIL] {
            let got = peer.dialback(domain, OWN, "good").await?;
            ensure!(got == "policy-violation", "{domain}: {got}");
        }
        ensure!(server.connections() == connections, "nobody is asked");
        ensure!(peer.dialback("sub.d17.example", OWN, "bad").await? == "invalid");
        s.delivers_inwards(&mut peer).await?;
        ensure!(peer.dialback("sub.d17.example", OWN, "good").await? == "valid");
        delivers(s, &mut peer, "rob@sub.d17.example", ALICE).await?;
        s.delivers_inwards(&mut peer).await?;
        push(s, &mut peer, "rob@strict-d17.example").await;
        peer.expect_stream_error("invalid-from").await?;
        s.moved_anywhere(
            "attempts_total",
            &["partner=\"d-17-strict\"", "outcome=\"DialbackNotAllowed\""],
        )
        .await?;
        s.unharmed(Moved::Stranger("PartnerNotAllowed")).await
    });
}

#[test]
fn d_17_each_sender_on_a_stream_counts_for_its_own_partner() {
    RIG.test(28, async |s| {
        let _server = authority(s, &["good"]).await?;
        let other = "full-d17.example";
        publish(s, other);
        let mut one = dialled_back(s, "good").await?;
        ensure!(one.dialback(other, OWN, "good").await? == "valid");
        delivers(s, &mut one, "rob@full-d17.example", ALICE).await?;
        // It may have one stream, and has it; the stream that asks lives on.
        let mut two = dialled_back(s, "good").await?;
        let got = two.dialback(other, OWN, "good").await?;
        ensure!(got == "resource-constraint", "{got}");
        s.delivers_inwards(&mut two).await?;
        // With the stream the place is free again.
        one.send("</stream:stream>").await?;
        one.ended().await?;
        until("its place is free", GENEROUS, || async {
            let streams = s.rig.edge.lock().await.streams("Partner").await.ok()?;
            let gone = !streams
                .iter()
                .any(|stream| stream["peerDomains"].to_string().contains(other));
            gone.then_some(())
        })
        .await?;
        ensure!(two.dialback(other, OWN, "good").await? == "valid");
        delivers(s, &mut two, "rob@full-d17.example", ALICE).await?;
        s.unharmed(Moved::Connection("PartnerConnectionLimit"))
            .await
    });
}

#[test]
fn d_18_one_stream_reaches_a_second_domain_of_ours() {
    RIG.test(18, async |s| {
        let _server = authority(s, &["good"]).await?;
        let mut peer = dialled_back(s, "good").await?;
        ensure!(peer.dialback(&s.domain, SECOND, "good").await? == "valid");
        delivers(s, &mut peer, &s.user("rob"), "carol@second.example").await?;
        s.delivers_inwards(&mut peer).await
    });
}

#[test]
fn d_24_dialback_that_is_switched_off_is_answered() {
    RIG.test(24, async |s| {
        let server = authority(s, &["good"]).await?;
        let (mut peer, _) = s.secured(Some(&s.identity)).await?;
        let got = peer.dialback(&s.domain, OWN, "good").await?;
        ensure!(got == "policy-violation", "{got}");
        ensure!(server.connections() == 0, "nobody is asked");
        // The way that is left works on the same stream.
        let answer = peer.auth("EXTERNAL", "=").await?;
        ensure!(answer.name == "success", "{answer:?}");
        peer.open(&s.domain, OWN).await?;
        s.delivers_inwards(&mut peer).await?;
        s.unharmed(Moved::Attempt("DialbackNotAllowed")).await
    });
}
