//! What is lost when something dies at 200 messages a second: a real Kamailio, and the edge.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, interval, sleep_until};
use xmpp_edge_tests::{
    rig::alone,
    sip::{SipMessage, SipParty, request},
    wait,
    xml::Element,
};

use super::kamailio::Town;

/// Messages of one run, three seconds of them; more where the fault has not struck by then.
const COUNT: u32 = 600;
const MOST: u32 = 6_000;
/// How many have arrived when the fault strikes.
const BEFORE: usize = 150;
const PAUSE: Duration = Duration::from_millis(5);

/// The number that a body ends with: a server that kept it puts words in front.
fn number(body: &str) -> Option<u32> {
    body.rsplit_once("number ")?.1.parse().ok()
}

fn numbers(requests: &[SipMessage]) -> BTreeSet<u32> {
    requests.iter().filter_map(|it| number(&it.body)).collect()
}

/// Prosody's user writes to Kamailio's, and Kamailio dies.
async fn inwards(is_frozen_first: bool) -> Result<()> {
    let mut town = Town::start().await?;
    let alice = town.kamailio.register("alice").await?;
    let mut ticks = interval(PAUSE);
    let mut struck = None;
    let mut sent = 0;
    while sent < COUNT || struck.is_none() && sent < MOST {
        ticks.tick().await;
        let id = format!("in-{sent}");
        let body = format!("number {sent}");
        town.rob.message("alice@org.example", &id, &body).await?;
        if struck.is_none() && numbers(&alice.requests()).len() >= BEFORE {
            if is_frozen_first {
                town.kamailio.freeze();
            } else {
                town.kamailio.kill();
            }
            struck = Some(Instant::now());
        }
        sent += 1;
    }
    let struck = struck.context("nothing arrived before the fault")?;
    // The scenario itself is a duration.
    sleep_until(struck + Duration::from_secs(3)).await;
    town.kamailio.kill();
    town.kamailio.launch().await?;
    let again = town.kamailio.register("alice").await?;
    let mut errors = BTreeSet::new();
    let all = wait::until("each arrives or is answered", wait::GENEROUS, async || {
        let is_error = |it: &Element| it.attribute("type") == Some("error");
        let back = town.rob.drain();
        let failed = back
            .iter()
            .filter(|it| is_error(it))
            .filter_map(|it| it.attribute("id")?.strip_prefix("in-")?.parse::<u32>().ok());
        errors.extend(failed);
        let mut known = numbers(&alice.requests());
        known.extend(numbers(&again.requests()));
        known.extend(&errors);
        (known.len() == sent as usize).then_some(())
    });
    all.await.with_context(|| town.said())?;
    // Nobody waited for longer than stanzas may wait: all that was not in flight arrived.
    ensure!(errors.is_empty(), "answered: {errors:?}");
    Ok(())
}

#[test]
fn sip_40_kamailio_killed_at_200_messages_a_second_loses_nothing_that_was_acknowledged() {
    alone(inwards(false));
}

#[test]
fn sip_40_kamailio_frozen_and_killed_at_200_messages_a_second_loses_nothing_that_was_acknowledged()
{
    alone(inwards(true));
}

#[test]
fn sip_39_the_edge_killed_at_200_messages_a_second_loses_nothing_that_was_answered() {
    alone(async {
        let mut town = Town::start().await?;
        let alice = Arc::new(town.kamailio.register("alice").await?);
        let mut ticks = interval(PAUSE);
        let mut arrived = BTreeSet::new();
        let mut struck = false;
        let mut sent = 0;
        while sent < COUNT || !struck && sent < MOST {
            ticks.tick().await;
            alice.send(numbered(sent));
            arrived.extend(arrivals(&town));
            if !struck && arrived.len() >= BEFORE {
                struck = true;
                town.stage.edge.kill();
                town.stage.edge.launch().await?;
            }
            sent += 1;
        }
        ensure!(struck, "nothing arrived before the fault");
        let done = wait::until("each is answered", 2 * wait::GENEROUS, async || {
            let answers = alice.answers();
            let codes = answers.iter().filter(|it| it.code() >= Some(200));
            (codes.count() == sent as usize).then_some(())
        });
        done.await.with_context(|| town.said())?;
        let taken = taken(&alice);
        wait::until("what was taken arrives", wait::GENEROUS, async || {
            arrived.extend(arrivals(&town));
            taken.is_subset(&arrived).then_some(())
        })
        .await
        .with_context(|| {
            let lost: Vec<_> = taken.difference(&arrived).collect();
            format!("lost: {lost:?}\n{}", town.said())
        })
    });
}

fn numbered(number: u32) -> String {
    let more = "Content-Type: text/plain\r\n";
    let (from, to) = ("sip:alice@org.example", "sip:rob@partner.example");
    let body = format!("number {number}");
    request("MESSAGE", from, to, &format!("out-{number}"), more, &body)
}

/// Numbers of messages that the edge answered by 200.
fn taken(alice: &SipParty) -> BTreeSet<u32> {
    let answers = alice.answers();
    let taken = answers.iter().filter(|it| it.code() == Some(200));
    let calls = taken.filter_map(|it| it.header("Call-ID"));
    calls
        .filter_map(|call| call.strip_prefix("out-")?.split('@').next()?.parse().ok())
        .collect()
}

fn arrivals(town: &Town) -> BTreeSet<u32> {
    let stanzas = town.rob.drain();
    let bodies = stanzas.iter().filter_map(|it| it.child("body"));
    bodies.filter_map(|body| number(&body.text)).collect()
}
