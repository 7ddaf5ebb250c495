//! P-07: a partner that is deleted or suspended while it is talked to, and one that comes back.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::net::TcpListener;
use xmpp_edge_tests::{
    crossing::{Crossing, Fate},
    edge::manifest,
    peer::Peer,
    rig::{ALICE, Moved, Scene},
    wait,
    xml::Element,
};

use super::partner::{RIG, turned_away};

#[test]
fn p_07_a_deleted_partner_loses_its_streams() {
    RIG.test(7, async |s| {
        let mut c = Crossing::of(s).await?;
        s.delivers_inwards(&mut c.partner).await?;
        s.delivers_outwards(&mut c.inside, &c.outside).await?;
        s.rig
            .edge
            .lock()
            .await
            .delete("XmppFederatedPartner", &s.name)?;
        c.partner.expect_stream_error("policy-violation").await?;
        let seen = c
            .outside
            .until("our streams end", |seen| seen.iter().all(|s| s.ended))
            .await?;
        let last = &seen.last().context("no stream to the partner")?.text;
        ensure!(last.contains("<policy-violation"), "{last}");
        turned_away(s, &s.domain).await?;
        // The stream inside stays: its stanzas are answered one by one.
        let id = s.fresh();
        c.inside
            .message(ALICE, &s.user("rob"), &id, &s.forbidden())
            .await?;
        Fate::Answered(s.inside_gets(&id).await?)
            .explained("remote-server-not-found", "PartnerNotAllowed")?;
        c.unharmed(Moved::Connection("PartnerNotAllowed")).await
    });
}

/// What becomes of a message to the partner.
async fn answered(s: &Scene, inside: &mut Peer) -> Result<Fate> {
    let id = s.fresh();
    let rob = s.user("rob");
    inside.message(ALICE, &rob, &id, &s.forbidden()).await?;
    Ok(Fate::Answered(s.inside_gets(&id).await?))
}

#[test]
fn p_07_a_suspended_partner_loses_its_streams_and_gets_them_back() {
    RIG.test(22, async |s| {
        let mut c = Crossing::of(s).await?;
        s.delivers_inwards(&mut c.partner).await?;
        s.delivers_outwards(&mut c.inside, &c.outside).await?;
        let suspended = async |yes: bool| {
            let spec = json!({ "domain": s.domain, "partnerType": "Federated", "suspended": yes });
            let partner = manifest("XmppFederatedPartner", &s.name, spec);
            s.rig.edge.lock().await.apply(&partner)
        };
        suspended(true).await?;
        c.partner.expect_stream_error("policy-violation").await?;
        c.outside
            .until("our streams end", |seen| seen.iter().all(|s| s.ended))
            .await?;
        turned_away(s, &s.domain).await?;
        // Each stream judges by it once it has heard of it; what passed before is refused on its way.
        let mut answer = answered(s, &mut c.inside).await?;
        for _ in 0..1_000 {
            if answer
                .clone()
                .explained("not-allowed", "PartnerSuspended")
                .is_ok()
            {
                break;
            }
            answer = answered(s, &mut c.inside).await?;
        }
        answer.explained("not-allowed", "PartnerSuspended")?;
        c.unharmed(Moved::Refused("PartnerSuspended")).await?;
        suspended(false).await?;
        c.partner = wait::until("it may talk again", wait::GENEROUS, || async {
            s.partner().await.ok()
        })
        .await?;
        s.delivers_inwards(&mut c.partner).await?;
        s.delivers_outwards(&mut c.inside, &c.outside).await
    });
}

#[test]
fn p_07_a_suspended_partner_sees_our_users_leave_and_ours_see_its_own_again_when_it_is_back() {
    RIG.test(23, async |s| {
        let mut c = Crossing::of(s).await?;
        let rob = s.user("rob");
        c.inwards("presence", &rob, ALICE, "").await?.delivered()?;
        c.outwards("presence", ALICE, &rob, "").await?.delivered()?;
        let suspended = async |yes: bool| {
            let spec = json!({ "domain": s.domain, "partnerType": "Federated", "suspended": yes });
            let partner = manifest("XmppFederatedPartner", &s.name, spec);
            s.rig.edge.lock().await.apply(&partner)
        };
        let presence = |type_: &'static str| {
            let rob = rob.clone();
            move |stanza: &Element| {
                stanza.name == "presence"
                    && stanza.attribute("type") == Some(type_)
                    && stanza.attribute("from") == Some(ALICE)
                    && stanza.attribute("to") == Some(rob.as_str())
            }
        };
        suspended(true).await?;
        c.partner.expect_stream_error("policy-violation").await?;
        // On the stream that the suspension ends.
        c.outside
            .stanza("our user leaves", presence("unavailable"))
            .await?;
        suspended(false).await?;
        c.partner = wait::until("it may talk again", wait::GENEROUS, || async {
            s.partner().await.ok()
        })
        .await?;
        c.outside
            .stanza("its user is asked for", presence("probe"))
            .await?;
        Ok(())
    });
}

#[test]
fn p_07_what_waits_for_a_deleted_partner_is_answered() {
    RIG.test(21, async |s| {
        let silent = TcpListener::bind(s.address()).await?;
        let mut inside = s.inside().await?;
        let ids: Vec<_> = (0..10).map(|_| s.fresh()).collect();
        for id in &ids {
            inside.message(ALICE, &s.user("rob"), id, "hello").await?;
        }
        let _peer = Peer::accept(&silent).await?;
        s.rig
            .edge
            .lock()
            .await
            .delete("XmppFederatedPartner", &s.name)?;
        for id in &ids {
            let answer = s.inside_gets(id).await?;
            let condition = answer.error_condition();
            ensure!(condition == Some("not-allowed"), "{answer:?}");
            ensure!(!answer.error_text().is_empty(), "{answer:?}");
        }
        s.rig.serves_the_good_partner().await
    });
}
