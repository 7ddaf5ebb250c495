//! Many edits at once: what is said at the end is of the last of them, and no edit is paid for by
//! itself. And watches that are cut while they come.
//!
//! `XMPP_EDGE_EDITS` says how many (default 300).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    cluster::{
        ApiServer, Entry, FakePod, Namespace, Operator, Submission, alone_within, operator_account,
        operator_user,
    },
    wait,
};

use super::{
    SERVER,
    stage::{SOON, create, partner, pool, until_says},
};

/// How many edits a storm has.
fn edits() -> usize {
    let asked = std::env::var("XMPP_EDGE_EDITS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(300)
}

/// What a loaded machine may need for a storm.
fn limit() -> Duration {
    Duration::from_millis(200 * edits() as u64) + 4 * SOON
}

/// Objects that a storm goes over.
const MANY: usize = 50;
/// Edits under way at a time, each of another object: of one object they would only wait for each
/// other in the server.
const AT_ONCE: usize = 16;

/// What the last edit of a storm leaves: nothing before it does.
const LAST: u32 = 77;

fn limited(name: &str, limit: u32) -> Value {
    let mut object = partner(name, json!({ "connectionLimit": limit }));
    object["spec"]["description"] = json!(format!("{name} {limit}"));
    object
}

/// Writes of the operator, but for its lease and Events.
fn writes(server: &ApiServer, user: &str, mark: u64) -> Result<Vec<Entry>> {
    let mut entries = server.audit().of(user, mark)?;
    entries.retain(|it| {
        ["create", "update", "patch", "delete"].contains(&it.verb.as_str())
            && it.target() != "leases"
            && it.target() != "events"
    });
    Ok(entries)
}

/// How often the most written object was.
fn most(entries: &[Entry]) -> (usize, String) {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for entry in entries {
        let name = entry.object_ref.as_ref().map_or("", |of| of.name.as_str());
        *counts
            .entry(format!("{} {name}", entry.target()))
            .or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map_or((0, String::new()), |(what, count)| (count, what))
}

/// Edits them in turn, and each at last to [`LAST`]. A server that is away is asked again.
async fn storm(namespace: &Namespace<'_>, names: &[String], edits: usize) -> Result<()> {
    let at_once = AT_ONCE.min(names.len());
    let edit = |name: &str, limit: u32| {
        let object = limited(name, limit);
        async move {
            wait::until("an edit is taken", SOON * 2, async || {
                namespace
                    .submit(Submission::MERGE, &object)
                    .await
                    .ok()?
                    .ok()
            })
            .await
        }
    };
    let edits = (0..edits).map(|number| {
        let limit = 1 + u32::try_from(number % 70).unwrap_or_default();
        edit(&names[number % names.len()], limit)
    });
    stream::iter(edits)
        .buffer_unordered(at_once)
        .try_for_each(async |_| Ok(()))
        .await?;
    stream::iter(names.iter().map(|name| edit(name, LAST)))
        .buffer_unordered(at_once)
        .try_for_each(async |_| Ok(()))
        .await
}

async fn all_are_ready(namespace: &Namespace<'_>, names: &[String]) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for name in names {
        let object = limited(name, LAST);
        all.push(until_says(namespace, &object, &[("Ready", "True, Ready")]).await?);
    }
    Ok(all)
}

/// The last edit of each is in force, as its status says.
async fn settled(namespace: &Namespace<'_>, names: &[String]) -> Result<()> {
    for now in all_are_ready(namespace, names).await? {
        ensure!(now["spec"]["connectionLimit"] == LAST, "{now:#}");
    }
    Ok(())
}

async fn begin(namespace: &Namespace<'_>) -> Result<Vec<String>> {
    let names: Vec<String> = (0..MANY).map(|number| format!("p{number}")).collect();
    create(namespace, &[pool(namespace)]).await?;
    for name in &names {
        let domain = format!("{name}.example");
        create(namespace, &[partner(name, json!({ "domain": domain }))]).await?;
    }
    Ok(names)
}

/// Storms over the first of many partners: how often anything was written.
fn weather(stormed: usize) {
    SERVER.test_within(limit(), async |namespace| {
        let names = begin(namespace).await?;
        let user = operator_user(&namespace.name);
        let identity = operator_account(namespace.server, &namespace.name, &[]).await?;
        let _operator =
            Operator::start_as(namespace.server, &identity, &namespace.name, &[]).await?;
        let _pod = FakePod::start(namespace, "hq", 1_000_000).await?;
        all_are_ready(namespace, &names).await?;
        let stormed = &names[..stormed];
        let mark = namespace.server.audit().mark();
        let begun = Instant::now();
        storm(namespace, stormed, edits()).await?;
        settled(namespace, stormed).await?;
        let took = begun.elapsed();
        let entries = writes(namespace.server, &user, mark)?;
        let (most, what) = most(&entries);
        println!(
            "{} edits of {}: {took:?}, {} writes, at most {most}, of {what}",
            edits(),
            stormed.len(),
            entries.len()
        );
        // Looks are a second apart, and an object is written once a look; the document too.
        let looks = usize::try_from(took.as_secs())? + 3;
        ensure!(most <= looks, "{what} {most} times in {took:?}");
        // One that is not stormed is left alone.
        let others = entries.iter().filter(|it| {
            let of = it.object_ref.as_ref();
            it.target() == "xmppfederatedpartners/status"
                && !of.is_some_and(|of| stormed.contains(&of.name))
        });
        ensure!(others.count() == 0, "others are written");
        ensure!(entries.iter().all(|it| !it.denied()), "denied");
        Ok(())
    });
}

#[test]
fn a_storm_of_edits_of_one_object_is_looked_at_and_not_edit_by_edit() {
    weather(1);
}

#[test]
fn a_storm_of_edits_of_many_objects_is_looked_at_and_not_edit_by_edit() {
    weather(MANY);
}

#[test]
fn watches_that_are_cut_amid_edits_and_told_that_they_are_too_old_lose_none() {
    alone_within(limit() + 4 * SOON, async {
        let server = ApiServer::start().await?;
        server.install_kinds().await?;
        let namespace = &Namespace::new(&server, "chat").await?;
        let names = begin(namespace).await?;
        let leader = Operator::start(namespace, &[]).await?;
        wait::until("it leads", SOON, async || {
            let metrics = leader.get("/metrics").await.ok()?;
            metrics.contains("operator_leader 1").then_some(())
        })
        .await?;
        // Its watches live through all of it, whatever becomes of the leader.
        let mut follower = Operator::start(namespace, &[]).await?;
        let _pod = FakePod::start(namespace, "hq", 1_000_000).await?;
        all_are_ready(namespace, &names).await?;
        let mark = server.audit().mark();
        let restarts = async {
            for _ in 0..2 {
                let before = server.audit().mark();
                // Some edits later, amid others.
                wait::until("edits come", limit(), async || {
                    let asked = server.audit().of("admin", before).ok()?;
                    (asked.iter().filter(|it| it.verb == "patch").count() > edits() / 10)
                        .then_some(())
                })
                .await?;
                // Who leads loses the lease where a loaded machine takes longer than that to start the server: the
                // follower, once it leads, is not put to that.
                let metrics = leader.get("/metrics").await.unwrap_or_default();
                if !metrics.contains("operator_leader 1") {
                    break;
                }
                server.kill();
                server.launch().await?;
            }
            anyhow::Ok(())
        };
        let begun = Instant::now();
        let (stormed, restarted) = tokio::join!(storm(namespace, &names, edits() / 2), restarts);
        stormed?;
        restarted?;
        // Who acts from here on has not been started anew.
        drop(leader);
        assert_eq!(
            follower.process().exited(),
            None,
            "{}",
            follower.process().tail()
        );
        settled(namespace, &names)
            .await
            .with_context(|| follower.process().tail())?;
        let looks = usize::try_from(begun.elapsed().as_secs())? + 3;
        let entries = writes(&server, &operator_user("chat"), mark)?;
        let (most, what) = most(&entries);
        println!("{} writes, at most {most}, of {what}", entries.len());
        assert!(most <= looks, "{what} {most} times");
        // The log says it once for all watches of a namespace; the metric counts each.
        let metrics = follower.get("/metrics").await?;
        let failed = |line: &&str| line.starts_with("xmpp_edge_operator_watch_errors_total");
        let failures: Vec<_> = metrics.lines().filter(failed).collect();
        assert!(
            failures.iter().any(|line| line.contains("code=\"410\"")),
            "no watch was told that it is too old: {failures:#?}"
        );
        Ok(())
    });
}
