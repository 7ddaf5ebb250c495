//! a policy that changes while people talk.

use anyhow::ensure;
use xmpp_edge_tests::{
    crossing::{Crossing, stanza},
    rig::{ALICE, Moved},
    wait,
};

use super::{BODY, DORA, FRED, GINA, RIG, forbidden, now, of_users};

#[test]
fn a_05_a_changed_policy_counts_at_once_and_takes_presence_back() {
    RIG.test(5, async |s| {
        let mut c = Crossing::of(s).await?;
        let (rob, roy) = (s.user("rob"), s.user("roy"));
        let phone = format!("{DORA}/phone");
        let desk = format!("{rob}/desk");
        c.outwards("presence", &phone, &rob, "")
            .await?
            .delivered()?;
        c.outwards("presence", &phone, &roy, "")
            .await?
            .delivered()?;
        c.outwards("presence unavailable", &phone, &roy, "")
            .await?
            .delivered()?;
        c.inwards("presence", &desk, DORA, "").await?.delivered()?;
        c.outwards("presence", ALICE, &rob, "").await?.delivered()?;
        now(s, &of_users("dora", false, &[DORA]), DORA, false).await?;
        let leaves = |from: String, to: String| {
            move |e: &xmpp_edge_tests::xml::Element| {
                e.name == "presence"
                    && e.attribute("type") == Some("unavailable")
                    && e.attribute("id").is_none()
                    && e.attribute("from") == Some(&from)
                    && e.attribute("to") == Some(&to)
            }
        };
        c.outside
            .stanza("unavailable from dora", leaves(phone.clone(), rob.clone()))
            .await?;
        s.rig
            .inside
            .stanza("unavailable from rob", leaves(desk, DORA.to_owned()))
            .await?;
        // From now on the next stanza is refused, on the same streams.
        c.outwards("message chat", DORA, &rob, &forbidden(s))
            .await?
            .explained("not-allowed", "AccessPolicy")?;
        c.inwards("message chat", &rob, DORA, &forbidden(s))
            .await?
            .answered_as_to_nobody()?;
        // The rest is untouched: who had left already, and alice.
        let taken_back: Vec<_> = c
            .outside
            .stanzas()
            .into_iter()
            .filter(|received| {
                received.stanza.attribute("type") == Some("unavailable")
                    && received.stanza.attribute("id").is_none()
            })
            .collect();
        ensure!(taken_back.len() == 1, "{taken_back:?}");
        c.unharmed(Moved::Refused("AccessPolicy")).await?;
        // And back.
        now(s, &of_users("dora", true, &[DORA]), DORA, true).await?;
        c.outwards("message chat", DORA, &rob, BODY)
            .await?
            .delivered()?;
        c.inwards("message chat", &rob, DORA, BODY)
            .await?
            .delivered()?;
        Ok(())
    });
}

#[test]
fn a_05_the_next_stanza_is_judged_as_explain_says_on_streams_that_stand() {
    RIG.test(14, async |s| {
        let mut c = Crossing::of(s).await?;
        let rob = s.user("rob");
        for round in 0..12 {
            let allowed = round % 2 == 1;
            now(s, &of_users("gina", allowed, &[GINA]), GINA, allowed).await?;
            let out = c.outwards("message chat", GINA, &rob, BODY).await?;
            let back = c.inwards("message chat", &rob, GINA, BODY).await?;
            if allowed {
                out.delivered()?;
                back.delivered()?;
            } else {
                out.explained("not-allowed", "AccessPolicy")?;
                back.answered_as_to_nobody()?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_05_nobody_is_left_with_a_ghost_when_a_policy_changes_meanwhile() {
    RIG.test(13, async |s| {
        let mut c = Crossing::of(s).await?;
        let phone = format!("{FRED}/phone");
        let policy = of_users("fred", false, &[FRED]);
        let mut announced = 0;
        {
            let forbidden = now(s, &policy, FRED, false);
            tokio::pin!(forbidden);
            let mut done = false;
            while !done {
                let to = s.user(&format!("r{announced}"));
                c.inside
                    .send(stanza("presence", &s.fresh(), &phone, &to, ""))
                    .await?;
                announced += 1;
                tokio::select! {
                    biased;
                    result = &mut forbidden => { result?; done = true; }
                    () = tokio::time::sleep(std::time::Duration::from_micros(200)) => {}
                }
            }
        }
        // The last of what was announced is through, and too late.
        c.outwards("presence", &phone, &s.user("late"), "")
            .await?
            .dropped()?;
        let ghosts = || {
            let mut seen = std::collections::BTreeSet::new();
            for received in c.outside.stanzas() {
                let to = received
                    .stanza
                    .attribute("to")
                    .unwrap_or_default()
                    .to_owned();
                match (
                    received.stanza.name.as_str(),
                    received.stanza.attribute("type"),
                ) {
                    ("presence", None) => seen.insert(to),
                    ("presence", Some("unavailable")) => seen.remove(&to),
                    _ => false,
                };
            }
            seen
        };
        let all_left = wait::until("all have seen him leave", wait::GENEROUS / 2, || async {
            ghosts().is_empty().then_some(())
        })
        .await;
        ensure!(
            all_left.is_ok(),
            "of {announced}, these have not: {:?}",
            ghosts()
        );
        c.unharmed(Moved::Refused("AccessPolicy")).await
    });
}
