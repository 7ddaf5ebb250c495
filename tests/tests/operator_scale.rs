//! Many partners and policies at once: how soon all are in force, what it costs, and that one edit
//! afterwards touches nobody else.
//!
//! `XMPP_EDGE_PARTNERS` says how many partners (default 1000, a tenth as many policies); the goals
//! are those of 10,000.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use xmpp_edge_crds::kinds::{EdgePool, ExternalAccessPolicy, XmppFederatedPartner};
use xmpp_edge_tests::{
    cluster::{
        ApiServer, Entry, FakePod, Namespace, Operator, alone_within, operator_account,
        operator_user,
    },
    wait,
};

/// From the last apply until all are `Programmed`.
const GOAL: Duration = Duration::from_secs(120);
/// Resident memory at its highest, in KiB.
const MEMORY: u64 = 300 * 1024;

fn count() -> usize {
    let asked = std::env::var("XMPP_EDGE_PARTNERS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(1000)
}

async fn create<K>(api: &Api<K>, objects: Vec<Value>) -> Result<()>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + serde::Serialize,
{
    stream::iter(objects)
        .map(|object| async {
            let object: K = serde_json::from_value(object)?;
            api.create(&PostParams::default(), &object).await?;
            anyhow::Ok(())
        })
        .buffer_unordered(16)
        .try_collect()
        .await
}

fn object(kind: &str, name: String, spec: Value) -> Value {
    json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// How many of a kind's objects are not `Ready`, as the API server has them.
async fn not_ready<K>(api: &Api<K>) -> Result<usize>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + serde::Serialize,
{
    let mut open = 0;
    let mut page = ListParams::default().limit(500);
    loop {
        let some = api.list(&page).await?;
        for object in some.items {
            let object = serde_json::to_value(object)?;
            let conditions = object["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let ready = |it: &Value| it["type"] == "Ready" && it["status"] == "True";
            open += usize::from(!conditions.iter().any(ready));
        }
        match some.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(open),
        }
    }
}

/// Waits until the operator has written of all that they are. Lists of thousands would be work for
/// the server that is measured.
async fn all_in_force(operator: &Operator, partners: usize, limit: Duration) -> Result<()> {
    let lines = [
        format!("kind=\"XmppFederatedPartner\",ready=\"True\"}} {partners}"),
        format!(
            "kind=\"ExternalAccessPolicy\",ready=\"True\"}} {}",
            partners / 10
        ),
        "xmpp_edge_operator_statuses_waiting 0".to_owned(),
    ];
    let mut last = String::new();
    wait::until("all are in force", limit, async || {
        last = operator.get("/metrics").await.ok()?;
        lines
            .iter()
            .all(|line| last.lines().any(|it| it.ends_with(line)))
            .then_some(())
    })
    .await
    .context(last)
}

/// The highest resident memory of a process, in KiB.
fn memory(process: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("Linux says it")?.parse()?)
}

/// CPU that a process has used, in seconds.
fn cpu(process: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name before may hold blanks, but no closing parenthesis of its own here.
    let (_, fields) = text.rsplit_once(") ").context("Linux says it")?;
    let mut ticks = fields.split_whitespace().skip(11).take(2);
    let mut next = || -> Result<u32> { Ok(ticks.next().context("Linux says it")?.parse()?) };
    // Linux tells them in hundredths, whatever it counts in.
    Ok(f64::from(next()? + next()?) / 100.0)
}

/// How often the operator compiled.
async fn compilations(operator: &Operator) -> Result<u64> {
    let metrics = operator.get("/metrics").await?;
    let mut lines = metrics.lines();
    let count =
        lines.find_map(|line| line.strip_prefix("xmpp_edge_operator_compile_seconds_count "));
    Ok(count.context("it is told")?.trim().parse()?)
}

/// What the operator asked, but for watches, lists and the lease.
fn acts(namespace: &Namespace<'_>, user: &str, mark: u64) -> Result<Vec<Entry>> {
    let mut entries = namespace.server.audit().of(user, mark)?;
    entries.retain(|it| it.target() != "leases" && it.verb != "watch" && it.verb != "list");
    Ok(entries)
}

#[test]
fn many_partners_and_policies_are_soon_in_force_at_little_cost() {
    let count = count();
    let applying = Duration::from_secs(60 + count as u64 / 10);
    alone_within(applying + 2 * GOAL, async {
        let server = ApiServer::start().await?;
        server.install_kinds().await?;
        let namespace = &Namespace::new(&server, "chat").await?;
        let domain = "org.example";
        let pool = object(
            "EdgePool",
            "hq".into(),
            json!({"site": "hq", "domains": [domain],
            "accessEdge": {"fqdn": "edge.org.example"}, "replicas": 1,
            "gateways": [{"domains": [domain], "address": "192.0.2.1:5269"}], "certificate": {"selfSigned": {}}}),
        );
        create(&namespace.api::<EdgePool>(), vec![pool]).await?;
        let user = &operator_user(&namespace.name);
        let identity = operator_account(namespace.server, &namespace.name, &[]).await?;
        let mut operator =
            Operator::start_as(namespace.server, &identity, &namespace.name, &[]).await?;
        let _pod = FakePod::start(namespace, "hq", 1_000_000).await?;

        let partners = (0..count)
            .map(|it| {
                object(
                    "XmppFederatedPartner",
                    format!("p{it}"),
                    json!({"domain": format!("p{it}.example")}),
                )
            })
            .collect();
        let policies = (0..count / 10)
            .map(|it| {
                let users: Vec<String> = (0..10).map(|user| format!("u{user}-{it}@{domain}")).collect();
                let spec = json!({"scope": "User", "users": users, "enableFederationAccess": true, "enableXmppAccess": true});
                object("ExternalAccessPolicy", format!("q{it}"), spec)
            })
            .collect();
        let begun = Instant::now();
        create(&namespace.api::<XmppFederatedPartner>(), partners).await?;
        create(&namespace.api::<ExternalAccessPolicy>(), policies).await?;
        let applied = Instant::now();
        let in_force = all_in_force(&operator, count, GOAL).await;
        in_force.with_context(|| operator.process().tail())?;
        let ready = applied.elapsed();
        assert_eq!(
            not_ready(&namespace.api::<XmppFederatedPartner>()).await?,
            0
        );
        assert_eq!(
            not_ready(&namespace.api::<ExternalAccessPolicy>()).await?,
            0
        );
        let entries = acts(namespace, user, 0)?;
        let mut calls: BTreeMap<(String, String), usize> = BTreeMap::new();
        for entry in &entries {
            if let Some(of) = entry
                .object_ref
                .as_ref()
                .filter(|of| of.resource != "events" && of.api_group == "xmpp-edge.dev")
            {
                *calls
                    .entry((of.resource.clone(), of.name.clone()))
                    .or_default() += 1;
            }
        }
        calls.retain(|(resource, _), _| resource != "edgepools");
        let most = calls.values().max().copied().unwrap_or_default();
        let kibibytes = memory(operator.process().id())?;
        println!(
            "{count} partners: applied in {:?}, in force {ready:?} later, {} calls, at most {most} an object, {} MiB, {} s CPU",
            applied - begun,
            entries.len(),
            kibibytes / 1024,
            cpu(operator.process().id())?
        );
        let metrics = operator.get("/metrics").await?;
        for line in metrics.lines().filter(|line| {
            ["reconcile", "compile"].iter().any(|what| {
                line.contains(&format!("{what}_seconds_sum"))
                    || line.contains(&format!("{what}_seconds_count"))
            })
        }) {
            println!("{line}");
        }
        assert!(most <= 3, "{most} calls for one object");
        assert!(kibibytes <= MEMORY, "{kibibytes} KiB");

        let before = compilations(&operator).await?;
        let mark = namespace.server.audit().mark();
        let change = json!({"spec": {"enableKeepAlive": false}});
        let api = namespace.api::<XmppFederatedPartner>();
        api.patch("p7", &PatchParams::default(), &Patch::Merge(&change))
            .await?;
        wait::until("the edit is in force", GOAL, async || {
            let now = api.get("p7").await.ok()?;
            let status = now.status?;
            let newest = status.observed_generation == now.metadata.generation;
            let ready = status
                .conditions
                .iter()
                .any(|it| it.type_ == "Ready" && it.status == "True");
            (newest && ready).then_some(())
        })
        .await?;
        let entries = acts(namespace, user, mark)?;
        let resource = |entry: &Entry, name: &str| {
            entry
                .object_ref
                .as_ref()
                .is_some_and(|of| of.resource == name)
        };
        let config = entries.iter().filter(|entry| {
            resource(entry, "configmaps")
                && entry
                    .object_ref
                    .as_ref()
                    .is_some_and(|of| of.name.starts_with("hq-config-"))
        });
        assert_eq!(config.count(), 1, "{entries:#?}");
        let others = entries.iter().filter(|entry| {
            (resource(entry, "xmppfederatedpartners") || resource(entry, "externalaccesspolicies"))
                && entry.object_ref.as_ref().is_some_and(|of| of.name != "p7")
        });
        assert_eq!(others.count(), 0, "{entries:#?}");
        // For the edit and for the document that came of it, not for each word of a pod or status.
        let compiled = compilations(&operator).await? - before;
        assert!((1..=3).contains(&compiled), "compiled {compiled} times");
        Ok(())
    });
}
