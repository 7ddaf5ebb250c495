//! Users of SIP watch users of partners.

use super::*;

#[test]
fn sip_49_who_subscribes_is_notified_once_the_partner_approves() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (party, alice) = (server.party().await?, stage.dial_edge().await?);
        let mut partner = stage.partner().await?;
        let route = "Record-Route: <sip:sip.org.example;lr>\r\n";
        let answer = alice.ask(subscribe("watches", route)).await?;
        ensure!(
            answer.code() == Some(200)
                && answer.header("Expires") == Some("600")
                && answer.header("Record-Route") == Some("<sip:sip.org.example;lr>")
                && answer.header("Contact").is_some(),
            "{answer:?}"
        );
        let pending = notified(&party, "pending;expires=").await?;
        ensure!(
            pending.start == "NOTIFY sip:alice@10.0.0.1 SIP/2.0"
                && pending.header("Route") == Some("<sip:sip.org.example;lr>")
                && pending.body.is_empty(),
            "{pending:?}"
        );
        told(&outside, ALICE, Some("subscribe")).await?;
        // A refresh while it is pending asks nobody.
        let refreshed = alice.ask(again(&answer, 2, 600)).await?;
        ensure!(refreshed.code() == Some(200), "{refreshed:?}");
        notified(&party, "pending;expires=").await?;
        ensure!(count(&outside, "probe") == 0, "{:?}", outside.stanzas());
        subscribes(&mut partner, "subscribed").await?;
        let active = notified(&party, "active;expires=").await?;
        ensure!(active.body.is_empty(), "{active:?}");
        told(&outside, ALICE, Some("probe")).await?;
        let away = format!(
            "<presence from='{ROB}/desk' to='{ALICE}'><show>away</show><status>out</status></presence>"
        );
        partner.send(away).await?;
        let seen = notified(&party, "active;expires=").await?;
        for part in [
            "entity='pres:rob@partner.example'",
            "<tuple id='ID-desk'>",
            "<basic>open</basic>",
            ">away</show>",
            "<rpid:away/>",
            ">out</note>",
        ] {
            ensure!(seen.body.contains(part), "{part}: {seen:?}");
        }
        counted(&stage, "notifier", "active", 1.0).await?;
        let gone = format!("<presence from='{ROB}/desk' to='{ALICE}' type='unavailable'/>");
        partner.send(gone).await?;
        let closed = notified(&party, "active;expires=").await?;
        ensure!(
            closed.body.contains("<tuple id='ID-desk'>")
                && closed.body.contains("<basic>closed</basic>"),
            "{closed:?}"
        );
        // The end of it, and R hears nothing.
        let ended = alice.ask(again(&answer, 3, 0)).await?;
        ensure!(ended.code() == Some(200), "{ended:?}");
        let last = notified(&party, "terminated;reason=timeout").await?;
        ensure!(last.body.contains("<basic>closed</basic>"), "{last:?}");
        ensure!(
            count(&outside, "unsubscribe") == 0,
            "{:?}",
            outside.stanzas()
        );
        let late = alice.ask(again(&answer, 4, 600)).await?;
        ensure!(late.code() == Some(481), "{late:?}");
        counted(&stage, "notifier", "active", 0.0).await
    });
}

#[test]
fn sip_37_the_end_of_the_last_subscription_may_end_the_contact() {
    alone(async {
        let plan = with_sip(json!({ "endOfSubscription": "Unsubscribe" }));
        let stage = Stage::start(plan).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (party, alice) = (server.party().await?, stage.dial_edge().await?);
        let answer = alice.ask(subscribe("watches", "")).await?;
        notified(&party, "pending").await?;
        let ended = alice.ask(again(&answer, 2, 0)).await?;
        ensure!(ended.code() == Some(200), "{ended:?}");
        told(&outside, ALICE, Some("unsubscribe")).await?;
        Ok(())
    });
}

#[test]
fn sip_37_who_logs_in_again_sees_presence_again_and_the_partner_hears_of_no_logout() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (party, alice) = (server.party().await?, stage.dial_edge().await?);
        let mut partner = stage.partner().await?;
        for unique in ["morning", "next morning"].map(|it| it.replace(' ', "-")) {
            let answer = alice.ask(subscribe(&unique, "")).await?;
            ensure!(answer.code() == Some(200), "{answer:?}");
            notified(&party, "pending").await?;
            // The second time R's server says so by itself (RFC 6121 section 3.1.3).
            subscribes(&mut partner, "subscribed").await?;
            notified(&party, "active").await?;
            partner
                .send(format!("<presence from='{ROB}/desk' to='{ALICE}'/>"))
                .await?;
            let seen = notified(&party, "active").await?;
            ensure!(seen.body.contains("<basic>open</basic>"), "{seen:?}");
            let ended = alice.ask(again(&answer, 2, 0)).await?;
            ensure!(ended.code() == Some(200), "{ended:?}");
            let last = notified(&party, "terminated;reason=timeout").await?;
            ensure!(last.body.contains("<basic>closed</basic>"), "{last:?}");
        }
        for kind in ["unsubscribe", "unavailable"] {
            ensure!(count(&outside, kind) == 0, "{:?}", outside.stanzas());
        }
        Ok(())
    });
}

#[test]
fn sip_36_who_may_not_watch_is_told_by_code_or_by_notify() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (party, alice) = (server.party().await?, stage.dial_edge().await?);
        let mut partner = stage.partner().await?;
        let asks = async |from: &str, to: &str, unique: &str, expires: u32| {
            let more = format!(
                "Event: presence\r\nExpires: {expires}\r\nContact: <sip:alice@10.0.0.1>\r\n"
            );
            alice
                .ask(request("SUBSCRIBE", from, to, unique, &more, ""))
                .await
        };
        for expires in [600, 0] {
            let unique = format!("stranger{expires}");
            let stranger = asks(ALICE_URI, "sip:x@stranger.example", &unique, expires).await?;
            ensure!(stranger.code() == Some(404), "{stranger:?}");
            let unique = format!("bob{expires}");
            let bob = asks("sip:bob@org.example", ROB_URI, &unique, expires).await?;
            let warning = bob.header("Warning").unwrap_or_default();
            ensure!(
                bob.code() == Some(403) && warning.starts_with("399 "),
                "{bob:?}"
            );
        }
        is_taken(&alice, subscribe("watches", ""), 200).await?;
        notified(&party, "pending").await?;
        subscribes(&mut partner, "unsubscribed").await?;
        notified(&party, "terminated;reason=rejected").await?;
        // R's server knows nobody of that name.
        is_taken(&alice, subscribe("nobody", ""), 200).await?;
        notified(&party, "pending").await?;
        let both = async || (count(&outside, "subscribe") == 2).then_some(());
        wait::until("both questions are there", wait::GENEROUS, both).await?;
        let all = outside.stanzas();
        let asked = all
            .iter()
            .rev()
            .find(|it| it.stanza.attribute("type") == Some("subscribe"));
        let id = asked
            .and_then(|it| it.stanza.attribute("id"))
            .context("an id")?
            .to_owned();
        let error = format!(
            "<presence from='{ROB}' to='{ALICE}' type='error' id='{id}'><error type='cancel'>\
             <item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>"
        );
        partner.send(error).await?;
        notified(&party, "terminated;reason=noresource").await?;
        Ok(())
    });
}

#[test]
fn sip_38_a_fetch_is_one_notify_and_what_cannot_be_served_has_its_code() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (party, alice) = (server.party().await?, stage.dial_edge().await?);
        let mut partner = stage.partner().await?;
        for (unique, from, to, code, field) in [
            ("brief", "Expires: 600", "Expires: 30", 423, "Min-Expires"),
            (
                "frob",
                "Event: presence",
                "Event: frob",
                489,
                "Allow-Events",
            ),
            ("html", "Event", "Accept: text/html\r\nEvent", 406, "Accept"),
        ] {
            let answer = alice.ask(subscribe(unique, "").replace(from, to)).await?;
            ensure!(
                answer.code() == Some(code) && answer.header(field).is_some(),
                "{answer:?}"
            );
        }
        let fetch = subscribe("fetch", "").replace("Expires: 600", "Expires: 0");
        is_taken(&alice, fetch, 200).await?;
        told(&outside, ALICE, Some("probe")).await?;
        partner
            .send(format!("<presence from='{ROB}/desk' to='{ALICE}'/>"))
            .await?;
        let seen = notified(&party, "terminated;reason=timeout").await?;
        ensure!(seen.body.contains("<tuple id='ID-desk'>"), "{seen:?}");
        ensure!(count(&outside, "subscribe") == 0, "{:?}", outside.stanzas());
        counted(&stage, "notifier", "pending", 0.0).await
    });
}

#[test]
fn sip_35_a_device_that_answers_no_notify_is_gone_and_the_other_goes_on() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (party, alice) = (server.party().await?, stage.dial_edge().await?);
        let mut partner = stage.partner().await?;
        for unique in ["phone", "desk"] {
            is_taken(&alice, subscribe(unique, ""), 200).await?;
            notified(&party, "pending").await?;
        }
        told(&outside, ALICE, Some("subscribe")).await?;
        party.reply(Reply::Silence);
        subscribes(&mut partner, "subscribed").await?;
        for _ in 0..2 {
            let active = notified(&party, "active").await?;
            let call = active.header("Call-ID").unwrap_or_default();
            let code = if call.starts_with("phone") { 481 } else { 200 };
            party.send(active.answer(code, ""));
        }
        party.reply(Reply::Code(200, String::new()));
        counted(&stage, "notifier", "active", 1.0).await?;
        partner
            .send(format!("<presence from='{ROB}/desk' to='{ALICE}'/>"))
            .await?;
        let seen = notified(&party, "active").await?;
        ensure!(
            seen.header("Call-ID")
                .is_some_and(|it| it.starts_with("desk"))
                && seen.body.contains("ID-desk"),
            "{seen:?}"
        );
        Ok(())
    });
}

/// RFC 6665 section 4.2.2, with the time that an answer has: 64·T1.
#[test]
fn sip_35_a_device_that_says_nothing_is_gone_after_32_s_and_the_other_goes_on_meanwhile() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (party, alice) = (server.party().await?, stage.dial_edge().await?);
        let mut partner = stage.partner().await?;
        let phone = alice.ask(subscribe("phone", "")).await?;
        is_taken(&alice, subscribe("desk", ""), 200).await?;
        for _ in 0..2 {
            notified(&party, "pending").await?;
        }
        told(&outside, ALICE, Some("subscribe")).await?;
        party.reply(Reply::Silence);
        subscribes(&mut partner, "subscribed").await?;
        let of_desk = |it: &SipMessage| {
            let call = it.header("Call-ID").unwrap_or_default();
            call.starts_with("desk")
        };
        for _ in 0..2 {
            let active = notified(&party, "active").await?;
            if of_desk(&active) {
                party.send(active.answer(200, ""));
            }
        }
        for device in ["desk", "car"] {
            partner
                .send(format!("<presence from='{ROB}/{device}' to='{ALICE}'/>"))
                .await?;
            let seen = notified(&party, "active").await?;
            ensure!(
                of_desk(&seen) && seen.body.contains(&format!("ID-{device}")),
                "{seen:?}"
            );
            party.send(seen.answer(200, ""));
        }
        // As long as an answer may take, and a little.
        let labels = ["role=\"notifier\"", "state=\"active\""];
        wait::until("it is gone", 2 * wait::GENEROUS, async || {
            let now = stage.edge.metric("sip_subscriptions", &labels).await.ok()?;
            (now.to_bits() == 1.0_f64.to_bits()).then_some(())
        })
        .await?;
        let late = alice.ask(again(&phone, 2, 600)).await?;
        ensure!(late.code() == Some(481), "{late:?}");
        let labels = ["method=\"NOTIFY\"", "code=\"none\""];
        let unanswered = stage.edge.metric("sip_requests_total", &labels).await?;
        ensure!(unanswered.to_bits() == 1.0_f64.to_bits(), "{unanswered}");
        partner
            .send(format!("<presence from='{ROB}/home' to='{ALICE}'/>"))
            .await?;
        let seen = notified(&party, "active").await?;
        ensure!(of_desk(&seen) && seen.body.contains("ID-home"), "{seen:?}");
        ensure!(server.connections() == 1, "the connection stands");
        Ok(())
    });
}
