//! Users of partners watch users of SIP.

use super::*;

#[test]
fn sip_27_sip_28_who_watches_hears_what_the_agent_says() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (party, agent) = (server.party().await?, stage.dial_edge().await?);
        let mut partner = stage.partner().await?;
        subscribes(&mut partner, "subscribe").await?;
        let asked = next_subscribe(&party).await?;
        for (name, expected) in [
            ("Event", "presence"),
            ("Accept", "application/pidf+xml"),
            ("Expires", "1800"),
            (
                "Contact",
                "<sip:edge.default.xmpp-edge.internal:5061;transport=tls>",
            ),
        ] {
            ensure!(asked.header(name) == Some(expected), "{asked:?}");
        }
        ensure!(asked.start.starts_with("SUBSCRIBE sip:alice@org.example "));
        is_taken(&agent, notify(&asked, 1, "pending;expires=1800", ""), 200).await?;
        counted(&stage, "watcher", "pending", 1.0).await?;
        ensure!(outside.stanzas().is_empty(), "nothing while it is pending");
        let lunch = open("ID-phone", "at lunch &amp; away");
        is_taken(
            &agent,
            notify(&asked, 2, "active;expires=1799", &lunch),
            200,
        )
        .await?;
        told(&outside, ALICE, Some("subscribed")).await?;
        let seen = told(&outside, "alice@org.example/phone", None).await?;
        ensure!(
            seen.child("status")
                .is_some_and(|it| it.text == "at lunch & away")
                && seen.attribute("to") == Some(ROB),
            "{seen:?}"
        );
        counted(&stage, "watcher", "active", 1.0).await?;
        // Politely blocked: nobody is there. Another document, then blocked.
        is_taken(&agent, notify(&asked, 3, "active", ""), 200).await?;
        told(&outside, "alice@org.example/phone", Some("unavailable")).await?;
        is_taken(&agent, notify(&asked, 4, "active", &open("desk", "x")), 200).await?;
        told(&outside, "alice@org.example/desk", None).await?;
        let end = "terminated;reason=rejected";
        is_taken(&agent, notify(&asked, 5, end, ""), 200).await?;
        told(&outside, "alice@org.example/desk", Some("unavailable")).await?;
        told(&outside, ALICE, Some("unsubscribed")).await?;
        ensure!(
            count(&outside, "subscribed") == 1,
            "{:?}",
            outside.stanzas()
        );
        is_taken(&agent, notify(&asked, 6, "active", ""), 481).await?;
        counted(&stage, "watcher", "active", 0.0).await
    });
}

#[test]
fn sip_28_codes_to_a_subscribe_are_told_and_noted() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (party, mut partner) = (server.party().await?, stage.partner().await?);
        for (number, code) in [403, 489, 603].into_iter().enumerate() {
            party.reply(Reply::Code(code, String::new()));
            let user = format!("u{number}@{OWN}");
            let stanza = format!("<presence from='{ROB}' to='{user}' type='subscribe'/>");
            partner.send(stanza).await?;
            told(&outside, &user, Some("unsubscribed")).await?;
        }
        let status = stage.edge.status().await?;
        let steps = status["gateways"][0]["lastAttempt"].to_string();
        ensure!(steps.contains("EventRefused"), "{steps}");
        Ok(())
    });
}

/// RFC 6665 section 4.1.2.4: timer N.
#[test]
fn a_server_whose_notifys_do_not_come_is_told_with_the_name_that_it_should_know_until_one_does() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (party, agent) = (server.party().await?, stage.dial_edge().await?);
        let mut partner = stage.partner().await?;
        subscribes(&mut partner, "subscribe").await?;
        let lost = next_subscribe(&party).await?;
        let anew = async || {
            let all = party.requests();
            all.into_iter().find(|it| it.method() == Some("SUBSCRIBE"))
        };
        // As long as a NOTIFY may take, and a little.
        let anew = wait::until("it is begun anew", 2 * wait::GENEROUS, anew).await?;
        ensure!(anew.header("Call-ID") != lost.header("Call-ID"), "{anew:?}");
        let steps = async || {
            let status = stage.edge.status().await.ok()?;
            Some(status["gateways"][0]["lastAttempt"].to_string())
        };
        let shown = steps().await.context("a status")?;
        ensure!(
            shown.contains("NotifyMissing") && shown.contains("edge.default.xmpp-edge.internal"),
            "{shown}"
        );
        is_taken(&agent, notify(&anew, 1, "active", &open("a", "x")), 200).await?;
        told(&outside, "alice@org.example/a", None).await?;
        let is_over = async || steps().await.filter(|it| it.contains("a NOTIFY came"));
        wait::until("it is over", wait::GENEROUS, is_over).await?;
        Ok(())
    });
}

#[test]
fn sip_29_a_notify_is_answered_while_the_partner_reads_nothing() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (party, agent) = (server.party().await?, stage.dial_edge().await?);
        let mut partner = stage.partner().await?;
        // Not answered yet: the NOTIFY comes first.
        party.reply(Reply::Silence);
        subscribes(&mut partner, "subscribe").await?;
        let asked = next_subscribe(&party).await?;
        is_taken(&agent, notify(&asked, 1, "active", &open("a", "x")), 200).await?;
        told(&outside, "alice@org.example/a", None).await?;
        party.send(asked.answer(200, "Expires: 600\r\n"));
        outside.freeze(outside.last_connection()).await?;
        for cseq in 2..20 {
            let document = open("a", &format!("note {cseq}"));
            is_taken(&agent, notify(&asked, cseq, "active", &document), 200).await?;
        }
        let fork = notify(&asked, 20, "active", "").replace(";tag=agent", ";tag=fork");
        is_taken(&agent, fork, 481).await
    });
}

#[test]
fn sip_31_a_subscription_is_refreshed_in_its_dialog_and_begun_anew_where_it_is_forgotten() {
    alone(async {
        let stage = Stage::start(with_sip(json!({ "presenceExpiresSeconds": 60 }))).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (party, agent) = (server.party().await?, stage.dial_edge().await?);
        let mut partner = stage.partner().await?;
        party.reply(Reply::Code(200, "Expires: 4\r\n".to_owned()));
        subscribes(&mut partner, "subscribe").await?;
        let asked = next_subscribe(&party).await?;
        ensure!(asked.header("Expires") == Some("60"), "{asked:?}");
        is_taken(&agent, notify(&asked, 1, "active", &open("a", "x")), 200).await?;
        told(&outside, "alice@org.example/a", None).await?;
        let refresh = next_subscribe(&party).await?;
        ensure!(
            refresh.start == "SUBSCRIBE sip:agent@sip.org.example SIP/2.0"
                && refresh.header("Call-ID") == asked.header("Call-ID")
                && refresh.header("CSeq") == Some("2 SUBSCRIBE")
                && refresh.header("To") == Some("<sip:alice@org.example>;tag=agent"),
            "{refresh:?}"
        );
        party.reply(Reply::Silence);
        // A refresh that had its 200 may have come meanwhile: all of the old call are forgotten.
        let anew = loop {
            let next = next_subscribe(&party).await?;
            if next.header("Call-ID") != asked.header("Call-ID") {
                break next;
            }
            party.send(next.answer(481, ""));
        };
        party.send(anew.answer(200, ""));
        let note = open("a", "after it was forgotten");
        is_taken(&agent, notify(&anew, 1, "active", &note), 200).await?;
        let fits = |it: &Element| {
            let status = it.child("status");
            status.is_some_and(|it| it.text == "after it was forgotten")
        };
        outside.stanza("presence after it", fits).await?;
        ensure!(count(&outside, "unavailable") == 0, "it never went");
        Ok(())
    });
}

#[test]
fn sip_50_an_unsubscribe_ends_it_and_a_probe_is_answered_from_what_is_known() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (party, agent) = (server.party().await?, stage.dial_edge().await?);
        let mut partner = stage.partner().await?;
        subscribes(&mut partner, "probe").await?;
        let asked = next_subscribe(&party).await?;
        is_taken(&agent, notify(&asked, 1, "active", ""), 200).await?;
        counted(&stage, "watcher", "active", 1.0).await?;
        subscribes(&mut partner, "probe").await?;
        told(&outside, ALICE, Some("unavailable")).await?;
        subscribes(&mut partner, "unsubscribe").await?;
        let end = next_subscribe(&party).await?;
        ensure!(
            end.header("Expires") == Some("0") && end.header("CSeq") == Some("2 SUBSCRIBE"),
            "{end:?}"
        );
        told(&outside, ALICE, Some("unsubscribed")).await?;
        ensure!(count(&outside, "subscribed") == 0, "nobody asked");
        ensure!(party.requests().is_empty(), "{:?}", party.requests());
        counted(&stage, "watcher", "active", 0.0).await
    });
}
