//! INVITEs of the edge's that do not end as they should: nobody answers, or who accepts hangs up.

use anyhow::{Result, ensure};
use serde_json::json;
use xmpp_edge_tests::{
    rig::alone,
    sip::{Reply, SipMessage},
};

use super::{
    lync::{accepts, is_inside, next, stage, writes},
    stage::{Stage, StagePlan},
};

/// The BYE of who accepted this INVITE.
fn hangs_up(invite: &SipMessage) -> String {
    let header = |name| invite.header(name).unwrap_or_default();
    format!(
        "BYE sip:edge.default.xmpp-edge.internal SIP/2.0\r\n\
         Via: SIP/2.0/TLS sip.org.example:5061;branch=z9hG4bKbye\r\nMax-Forwards: 70\r\n\
         From: {};tag=answered\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: 1 BYE\r\n\
         Content-Length: 0\r\n\r\n",
        header("To"),
        header("From"),
        header("Call-ID")
    )
}

#[test]
fn who_accepts_and_hangs_up_at_once_is_written_to_outside_and_not_invited_again() {
    alone(async {
        let stage = stage().await?;
        let (server, mut partner) = (stage.sip_server().await?, stage.partner().await?);
        let party = server.party().await?;
        party.reply(Reply::Silence);
        writes(&mut partner, "one").await?;
        let invite = next(&party, "INVITE").await?;
        // In one piece: the session has ended before anything went in it.
        party.send(accepts(&invite, "") + &hangs_up(&invite));
        let text = party.text("one").await?;
        ensure!(!is_inside(&text, &invite), "{text:?}");
        let left = party.requests();
        ensure!(
            left.iter().all(|it| it.method() != Some("INVITE")),
            "{left:?}"
        );
        Ok(())
    });
}

async fn impatient() -> Result<Stage> {
    Stage::start(StagePlan {
        sip: json!({ "dialect": "Lync" }),
        settings: json!({ "queueTimeoutSeconds": 5 }),
        ..StagePlan::default()
    })
    .await
}

/// It is of the INVITE's own hop (RFC 3261 sections 9.1 and 17.1.1.3).
fn is_of_hop(message: &SipMessage, invite: &SipMessage) -> bool {
    ["Via", "Call-ID", "From"]
        .iter()
        .all(|name| message.header(name) == invite.header(name))
}

#[test]
fn an_invite_that_rings_for_too_long_is_answered_for_and_cancelled() {
    alone(async {
        let stage = impatient().await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let mut partner = stage.partner().await?;
        server.reply(Reply::Silence);
        writes(&mut partner, "rings").await?;
        let party = server.party().await?;
        let invite = next(&party, "INVITE").await?;
        party.send(invite.answer(180, ""));
        let error = outside.stanza_id("rings").await?;
        ensure!(
            error.error_condition() == Some("remote-server-timeout"),
            "{error:?}"
        );
        let cancel = next(&party, "CANCEL").await?;
        ensure!(
            is_of_hop(&cancel, &invite)
                && cancel.header("CSeq") == Some("1 CANCEL")
                && cancel.header("To") == invite.header("To"),
            "{cancel:?}"
        );
        party.send(cancel.answer(200, ""));
        party.send(invite.answer(487, ""));
        let ack = next(&party, "ACK").await?;
        ensure!(is_of_hop(&ack, &invite), "{ack:?}");
        ensure!(server.connections() == 1, "who lets it ring is not dead");
        ensure!(party.requests().is_empty(), "{:?}", party.requests());
        Ok(())
    });
}

#[test]
fn an_invite_that_is_heard_of_too_late_is_cancelled_then_and_ended_when_somebody_accepts() {
    alone(async {
        let stage = impatient().await?;
        let (server, outside) = (stage.sip_server().await?, stage.outside().await?);
        let mut partner = stage.partner().await?;
        server.reply(Reply::Silence);
        writes(&mut partner, "late").await?;
        let party = server.party().await?;
        let invite = next(&party, "INVITE").await?;
        outside.stanza_id("late").await?;
        ensure!(
            party.requests().is_empty(),
            "nothing is cancelled that was not heard of: {:?}",
            party.requests()
        );
        party.send(invite.answer(180, ""));
        let cancel = next(&party, "CANCEL").await?;
        ensure!(is_of_hop(&cancel, &invite), "{cancel:?}");
        party.send(invite.answer(183, ""));
        // Its user was faster.
        party.send(accepts(&invite, ""));
        next(&party, "ACK").await?;
        next(&party, "BYE").await?;
        ensure!(
            party.requests().is_empty(),
            "the text is answered, and it is cancelled once: {:?}",
            party.requests()
        );
        Ok(())
    });
}
