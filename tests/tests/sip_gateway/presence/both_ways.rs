//! Policy, restarts, hostile documents.

use super::*;

#[test]
fn sip_45_sip_48_what_policy_takes_away_ends_on_both_sides() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (party, agent) = (server.party().await?, stage.dial_edge().await?);
        let mut partner = stage.partner().await?;
        subscribes(&mut partner, "subscribe").await?;
        let asked = next_subscribe(&party).await?;
        is_taken(&agent, notify(&asked, 1, "active", &open("a", "x")), 200).await?;
        told(&outside, "alice@org.example/a", None).await?;
        is_taken(&agent, subscribe("watches", ""), 200).await?;
        notified(&party, "pending").await?;
        told(&outside, ALICE, Some("subscribe")).await?;
        stage
            .edge
            .edit("ExternalAccessPolicy", "everybody", |policy| {
                for field in [
                    "enableFederationAccess",
                    "enableXmppAccess",
                    "enablePublicCloudAccess",
                ] {
                    policy["spec"][field] = json!(false);
                }
            })?;
        told(&outside, "alice@org.example/a", Some("unavailable")).await?;
        let end = next_subscribe(&party).await?;
        ensure!(end.header("Expires") == Some("0"), "{end:?}");
        notified(&party, "terminated;reason=rejected").await?;
        ensure!(
            count(&outside, "unsubscribed") == 0,
            "the partner is told nothing"
        );
        Ok(())
    });
}

#[test]
fn sip_41_who_went_while_the_server_was_away_is_gone_when_it_is_back() {
    alone(async {
        let stage = Stage::start(StagePlan {
            settings: json!({ "queueTimeoutSeconds": 5 }),
            ..StagePlan::default()
        })
        .await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (party, agent) = (server.party().await?, stage.dial_edge().await?);
        let mut partner = stage.partner().await?;
        // Each watches the other.
        subscribes(&mut partner, "subscribe").await?;
        let asked = next_subscribe(&party).await?;
        is_taken(&agent, notify(&asked, 1, "active", &open("a", "x")), 200).await?;
        told(&outside, "alice@org.example/a", None).await?;
        is_taken(&agent, subscribe("watches", ""), 200).await?;
        notified(&party, "pending").await?;
        subscribes(&mut partner, "subscribed").await?;
        let desk = |kind: &str| format!("<presence from='{ROB}/desk' to='{ALICE}'{kind}/>");
        partner.send(desk("")).await?;
        let sees_desk = |it: &SipMessage| it.body.contains("<tuple id='ID-desk'>");
        party.requested("NOTIFY of the desk", sees_desk).await?;
        drop((party, server));
        stage.misses_server("tcp").await?;
        partner.send(desk(" type='unavailable'")).await?;
        subscribes(&mut partner, "unsubscribe").await?;
        // What waits for the server does so in vain meanwhile.
        partner.message(ROB, ALICE, "late", "late").await?;
        let error = outside.stanza_id("late").await?;
        ensure!(
            error.error_condition() == Some("remote-server-timeout"),
            "{error:?}"
        );
        let server = stage.sip_server().await?;
        let party = server.party().await?;
        let last = party.requested("NOTIFY after it", sees_desk).await?;
        ensure!(
            last.body.contains("closed") && !last.body.contains("open"),
            "{last:?}"
        );
        let end = next_subscribe(&party).await?;
        ensure!(end.header("Expires") == Some("0"), "{end:?}");
        told(&outside, ALICE, Some("unsubscribed")).await.map(drop)
    });
}

#[test]
fn sip_39_who_watched_is_asked_for_again_when_the_edge_is_back_and_who_was_notified_is_told() {
    alone(async {
        let mut stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (party, agent) = (server.party().await?, stage.dial_edge().await?);
        let mut partner = stage.partner().await?;
        subscribes(&mut partner, "subscribe").await?;
        let asked = next_subscribe(&party).await?;
        is_taken(&agent, notify(&asked, 1, "active", &open("a", "x")), 200).await?;
        told(&outside, "alice@org.example/a", None).await?;
        is_taken(&agent, subscribe("watches", ""), 200).await?;
        notified(&party, "pending").await?;
        stage.edge.stop().await?;
        let ended = notified(&party, "terminated;reason=deactivated").await;
        ended.with_context(|| stage.edge.log())?;
        stage.edge.launch().await?;
        stage.reaches_server().await?;
        let party = server.party().await?;
        let anew = next_subscribe(&party).await?;
        ensure!(
            anew.header("Call-ID") != asked.header("Call-ID")
                && anew.start.contains(ALICE_URI)
                && anew.header("From").is_some_and(|it| it.contains(ROB_URI)),
            "{anew:?}"
        );
        let agent = stage.dial_edge().await?;
        let note = open("a", "after the restart");
        is_taken(&agent, notify(&anew, 1, "active", &note), 200).await?;
        let fits = |it: &Element| {
            let status = it.child("status");
            status.is_some_and(|it| it.text == "after the restart")
        };
        outside.stanza("presence after the restart", fits).await?;
        Ok(())
    });
}

#[test]
fn sip_34_a_stranger_sees_no_note_and_a_federated_partner_does() {
    alone(async {
        for (partner_type, sees) in [("PublicUnverified", false), ("Federated", true)] {
            let stage = Stage::start(StagePlan {
                partner: json!({ "domain": PARTNER, "partnerType": partner_type }),
                ..StagePlan::default()
            })
            .await?;
            let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
            let (party, agent) = (server.party().await?, stage.dial_edge().await?);
            let mut partner = stage.partner().await?;
            // alice adds rob: a stranger may not even ask before.
            is_taken(&agent, subscribe("watches", ""), 200).await?;
            notified(&party, "pending").await?;
            subscribes(&mut partner, "subscribe").await?;
            let asked = next_subscribe(&party).await?;
            is_taken(&agent, notify(&asked, 1, "active", &open("a", "x")), 200).await?;
            let seen = told(&outside, "alice@org.example/a", None).await?;
            ensure!(seen.child("status").is_some() == sees, "{seen:?}");
        }
        Ok(())
    });
}

#[test]
fn sip_43_hostile_documents_and_notifys_of_nobody_leave_the_rest_alone() {
    alone(async {
        let stage = Stage::start(StagePlan::default()).await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let (party, agent) = (server.party().await?, stage.dial_edge().await?);
        let mut partner = stage.partner().await?;
        let stray = request(
            "NOTIFY",
            ALICE_URI,
            ROB_URI,
            "stray",
            "Event: presence\r\n",
            "",
        );
        is_taken(&agent, stray, 481).await?;
        subscribes(&mut partner, "subscribe").await?;
        let asked = next_subscribe(&party).await?;
        let bomb = format!(
            "<!DOCTYPE p [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;'>]>{}",
            open("a", "&b;")
        );
        let deep = format!("{}{}", "<x>".repeat(2_000), "</x>".repeat(2_000));
        let deep = open("a", "x").replace("</presence>", &format!("{deep}</presence>"));
        let other = open("a", "x").replace(ALICE_URI, "sip:bob@org.example");
        for (cseq, document) in [(1, bomb), (2, deep), (3, other)] {
            is_taken(&agent, notify(&asked, cseq, "active", &document), 200).await?;
        }
        let large = open("a", &"x".repeat(70_000));
        is_taken(&agent, notify(&asked, 4, "active", &large), 413).await?;
        let many: String = (0..50)
            .map(|number| {
                format!("<tuple id='t{number}'><status><basic>open</basic></status></tuple>")
            })
            .collect();
        let many = format!(
            "<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='{ALICE_URI}'>{many}</presence>"
        );
        is_taken(&agent, notify(&asked, 5, "active", &many), 200).await?;
        told(&outside, "alice@org.example/t9", None).await?;
        is_taken(&agent, notify(&asked, 6, "active", &open("a", "then")), 200).await?;
        told(&outside, "alice@org.example/a", None).await?;
        let seen = outside.stanzas();
        let devices = seen.iter().filter(|it| {
            let from = it.stanza.attribute("from").unwrap_or_default();
            from.starts_with("alice@org.example/t") && it.stanza.attribute("type").is_none()
        });
        ensure!(devices.count() == 10, "{seen:?}");
        let labels = ["direction=\"outbound\"", "kind=\"Document\""];
        let unread = stage.edge.metric("sip_untranslated_total", &labels).await?;
        ensure!(unread >= 3.0, "{unread}");
        Ok(())
    });
}
