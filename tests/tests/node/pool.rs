//! What becomes of messages when pods go: killed, drained, replaced, more or fewer of them.

use anyhow::{Result, ensure};
use hickory_proto::rr::RecordType;
use serde_json::json;
use xmpp_edge_tests::wait;

use crate::{
    pods::Pod,
    stage::{EDGE, OWN, SOON, STAGE, Stage},
    talk::Talk,
};

/// Waits until a pool has this many ready pods, and no other.
async fn settled(stage: &Stage, pool: &str, ready: usize) -> Result<()> {
    let what = format!("{pool} has {ready} pods");
    wait::until(&what, SOON, async || {
        let pods = stage.pods(pool).ok()?;
        let all = pods.iter().all(|pod| pod.ready && !pod.ending);
        (pods.len() == ready && all).then_some(())
    })
    .await
}

/// Waits until DNS has these targets for the own domain.
async fn published(stage: &Stage, targets: &[&str]) -> Result<()> {
    let name = format!("_xmpp-server._tcp.{OWN}");
    let what = format!("DNS has {targets:?}");
    wait::until(&what, SOON, async || {
        let records = stage.dns.records(&name, RecordType::SRV).await.ok()?;
        let named = |(record, target): (&String, &&str)| record.ends_with(&format!(" {target}."));
        let right = records.len() == targets.len() && records.iter().zip(targets).all(named);
        right.then_some(())
    })
    .await
}

fn scale(stage: &Stage, pool: &str, replicas: usize) -> Result<()> {
    let what = format!("epool/{pool}");
    let replicas = format!("--replicas={replicas}");
    let arguments = ["scale", &what, "--namespace", EDGE, &replicas];
    stage.kubectl().run(&arguments)?;
    Ok(())
}

#[test]
fn a_proxy_is_killed_and_nothing_is_lost() {
    STAGE.test(async |stage| {
        let talk = Talk::begin(stage).await?;
        // One after the other, so that it meets the pods that the streams are on.
        for pod in stage.pods("hq")? {
            stage.kill(&pod)?;
            let back = async || {
                let pods = stage.pods("hq").ok()?;
                let now = pods.into_iter().find(|it| it.uid == pod.uid)?;
                (now.restarts > pod.restarts && now.ready).then_some(())
            };
            wait::until("the kubelet starts it again", SOON, back).await?;
            talk.goes_on().await?;
        }
        talk.end().await?.nothing_lost()
    });
}

#[test]
fn a_pod_is_deleted_and_replaced_and_nothing_is_lost() {
    STAGE.test(async |stage| {
        let talk = Talk::begin(stage).await?;
        for pod in stage.pods("hq")? {
            let arguments = [
                "delete",
                "pod",
                &pod.name,
                "--namespace",
                EDGE,
                "--wait=false",
            ];
            stage.kubectl().run(&arguments)?;
            wait::until("it is gone", SOON, async || {
                let pods = stage.pods("hq").ok()?;
                (!pods.iter().any(|it| it.uid == pod.uid)).then_some(())
            })
            .await?;
            settled(stage, "hq", 2).await?;
            talk.goes_on().await?;
        }
        talk.end().await?.nothing_lost()
    });
}

#[test]
fn a_pool_is_scaled_up_and_down_and_nothing_is_lost() {
    STAGE.test(async |stage| {
        let talk = Talk::begin(stage).await?;
        scale(stage, "hq", 3)?;
        settled(stage, "hq", 3).await?;
        scale(stage, "hq", 2)?;
        settled(stage, "hq", 2).await?;
        talk.goes_on().await?;
        talk.end().await?.nothing_lost()
    });
}

#[test]
fn pools_of_a_domain_are_replaced_one_after_the_other_the_least_preferred_first() {
    STAGE.test(async |stage| {
        let standing = |pool: &str| -> Result<Vec<Pod>> {
            let mut pods = stage.pods(pool)?;
            pods.retain(|pod| !pod.ending);
            Ok(pods)
        };
        let (hq, branch) = (standing("hq")?, standing("branch")?);
        let talk = Talk::begin(stage).await?;
        let stamp = format!("{:?}", std::time::SystemTime::now());
        for pool in ["epool/branch", "epool/hq"] {
            stage.edit(
                pool,
                &json!({"podTemplate": {"annotations": {"stamp": stamp}}}),
            )?;
        }
        let is_new = |pod: &Pod, old: &[Pod]| pod.print != old[0].print;
        let mut seen = Vec::new();
        wait::until("both are replaced", SOON * 2, async || {
            // The more preferred one first, so that nothing of the other can happen in between.
            let preferred = standing("hq").ok()?;
            let other = standing("branch").ok()?;
            let begun = preferred.iter().any(|it| is_new(it, &hq));
            let done = |pods: &[Pod], old: &[Pod]| {
                let new = pods.iter().all(|it| is_new(it, old) && it.ready);
                new && pods.len() == old.len()
            };
            let step = (done(&other, &branch), begun);
            if seen.last() != Some(&step) {
                seen.push(step);
            }
            (step.0 && done(&preferred, &hq)).then_some(())
        })
        .await?;
        let in_order = !seen.contains(&(false, true));
        ensure!(in_order, "branch is done, hq has begun: {seen:?}");
        talk.goes_on().await?;
        talk.end().await?.nothing_lost()
    });
}

#[test]
fn a_pool_is_drained_and_the_second_site_takes_over_and_back_and_nothing_is_lost() {
    STAGE.test(async |stage| {
        let talk = Talk::begin(stage).await?;
        stage.edit("epool/hq", &json!({"route": {"enabled": false}}))?;
        published(stage, &["edge2.org.example"]).await?;
        scale(stage, "hq", 0)?;
        settled(stage, "hq", 0).await?;
        talk.goes_on().await?;

        scale(stage, "hq", 2)?;
        settled(stage, "hq", 2).await?;
        stage.edit("epool/hq", &json!({"route": {"enabled": true}}))?;
        published(stage, &["edge.org.example", "edge2.org.example"]).await?;
        talk.goes_on().await?;
        talk.end().await?.nothing_lost()
    });
}

#[test]
fn a_site_dies_and_the_second_one_takes_over_and_back_and_nothing_is_lost() {
    STAGE.test(async |stage| {
        let talk = Talk::begin(stage).await?;
        // No place for new pods: the site stays away.
        stage.kubectl().run(&["cordon", "node1"])?;
        let selector = "--selector=xmpp-edge.dev/pool=hq";
        let now = ["--grace-period=0", "--force", "--namespace", EDGE];
        stage
            .kubectl()
            .run(&[&["delete", "pods", selector], &now[..]].concat())?;
        published(stage, &["edge2.org.example"]).await?;
        talk.goes_on().await?;

        stage.kubectl().run(&["uncordon", "node1"])?;
        settled(stage, "hq", 2).await?;
        published(stage, &["edge.org.example", "edge2.org.example"]).await?;
        talk.goes_on().await?;
        talk.end().await?.nothing_lost()
    });
}

#[test]
fn without_an_api_server_pods_go_on_and_come_back_when_they_are_killed() {
    STAGE.test(async |stage| {
        let pods = stage.pods("hq")?;
        let talk = Talk::begin(stage).await?;
        stage.cluster.server().kill();
        talk.goes_on().await?;
        let before = stage.processes(&pods[0])?;
        stage.kill(&pods[0])?;
        // The kubelet starts it again by itself, on the volumes that it has.
        let back = async || {
            let now = stage.processes(&pods[0]).ok()?;
            now.iter().any(|id| !before.contains(id)).then_some(())
        };
        wait::until("the proxy runs again", SOON, back).await?;
        talk.goes_on().await?;
        stage.cluster.server().launch().await?;
        settled(stage, "hq", 2).await?;
        talk.goes_on().await?;
        talk.end().await?.nothing_lost()
    });
}
