//! `helm upgrade` to a later version and `helm rollback` to the one before, while people talk.
//!
//! Nothing was released yet: "later" is this chart with a higher version, and images with the same binaries
//! under another tag and label. What is shown is how pods are exchanged, not that two releases understand
//! each other; of documents there is but one version so far.

use anyhow::{Context, Result, ensure};
use xmpp_edge_tests::{
    cluster::images::{Images, Product},
    wait,
};

use crate::{
    pods::Pod,
    stage::{CHART, SOON, STAGE, SYSTEM, Stage},
    talk::Talk,
};

const THIS: &str = env!("CARGO_PKG_VERSION");
const NEXT: &str = "99.0.0";

/// How the pods of the two pools were seen while they were exchanged.
#[derive(Debug, PartialEq)]
struct Look {
    /// Of `hq`, which should always have two.
    ready: usize,
    hq_has_new: bool,
    branch_is_new: bool,
}

fn has(pod: &Pod, tag: &str) -> bool {
    pod.image == format!("xmpp-edge-proxy:{tag}")
}

/// Waits until all pods have the image `tag`, and says how they came to.
async fn exchanged(stage: &Stage, tag: &str) -> Result<Vec<Look>> {
    let mut looks = Vec::new();
    let what = format!("all proxies are {tag}");
    wait::until(&what, SOON * 4, async || {
        let (hq, branch) = (stage.pods("hq").ok()?, stage.pods("branch").ok()?);
        let up = |pod: &&Pod| pod.ready && !pod.ending;
        let look = Look {
            ready: hq.iter().filter(up).count(),
            hq_has_new: hq.iter().any(|pod| has(pod, tag)),
            // An old one that drains has no say any more: the new ones take its place.
            branch_is_new: branch
                .iter()
                .all(|pod| pod.ending || has(pod, tag) && pod.ready),
        };
        if looks.last() != Some(&look) {
            looks.push(look);
        }
        let all = [hq, branch].concat();
        let done = all.len() == 4 && all.iter().all(|pod| has(pod, tag) && up(&pod));
        done.then_some(())
    })
    .await?;
    Ok(looks)
}

/// The least preferred pool first, and of `hq` never fewer than it should have.
fn one_after_the_other(looks: &[Look]) -> Result<()> {
    let in_turn = |it: &Look| it.branch_is_new || !it.hq_has_new;
    ensure!(looks.iter().all(in_turn), "{looks:?}");
    ensure!(looks.iter().all(|it| it.ready >= 2), "{looks:?}");
    Ok(())
}

/// Runs Helm to its end while everything else goes on.
async fn helm(stage: &Stage, arguments: &[&str]) -> Result<()> {
    let place = ["--namespace", SYSTEM, "--wait", "--timeout=180s"];
    let child = stage.helm()?.start(&[arguments, &place].concat())?;
    let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await??;
    ensure!(
        output.status.success(),
        "helm {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Images of the operators' pods, each once.
fn operators(stage: &Stage) -> Result<Vec<String>> {
    let arguments = [
        "get",
        "pods",
        "--namespace",
        SYSTEM,
        "--selector=app.kubernetes.io/name=xmpp-edge",
        "--output=jsonpath={.items[*].spec.containers[*].image}",
    ];
    let said = stage.kubectl().run(&arguments)?;
    let mut images: Vec<_> = said.split_whitespace().map(str::to_owned).collect();
    images.sort();
    images.dedup();
    Ok(images)
}

async fn operators_are(stage: &Stage, tag: &str) -> Result<()> {
    let wanted = [format!("xmpp-edge-operator:{tag}")];
    let what = format!("all operators are {tag}");
    wait::until(&what, SOON, async || {
        (operators(stage).ok()? == wanted).then_some(())
    })
    .await
}

/// `helm test` passes, both sites are ready, and messages cross.
async fn all_is_well(stage: &Stage, talk: &Talk) -> Result<()> {
    let test = ["test", "xmpp-edge", "--namespace", SYSTEM];
    stage.helm()?.run(&test)?;
    for pool in ["epool/hq", "epool/branch"] {
        stage.says(pool, "Ready", "True").await?;
    }
    talk.goes_on().await
}

#[test]
fn an_upgrade_and_its_rollback_lose_nothing_and_replace_pods_whose_image_changes_alone() {
    STAGE.test(async |stage| {
        let folder = tempfile::tempdir()?;
        let images = Images::find()?;
        for product in Product::ALL {
            let archive = images.build(product, NEXT, folder.path())?;
            stage.cluster.import(&archive)?;
        }
        let place = folder.path().display().to_string();
        let versions = ["--version", NEXT, "--app-version", NEXT];
        let package = ["package", CHART, "--destination", &place];
        stage.helm()?.run(&[&package[..], &versions].concat())?;
        let chart = format!("{place}/xmpp-edge-{NEXT}.tgz");
        let upgrade = ["upgrade", "xmpp-edge", &chart, "--reset-then-reuse-values"];

        let lives = stage.lives()?;
        let talk = Talk::begin(stage).await?;

        // The operators alone: no proxy is touched.
        let keep = format!("proxyImage.tag={THIS}");
        helm(stage, &[&upgrade[..], &["--set", &keep]].concat()).await?;
        operators_are(stage, NEXT).await?;
        all_is_well(stage, &talk).await?;
        ensure!(
            stage.lives()? == lives,
            "an operator's image replaced proxies"
        );

        // The proxies too.
        helm(
            stage,
            &[&upgrade[..], &["--set", "proxyImage.tag="]].concat(),
        )
        .await?;
        let looks = exchanged(stage, NEXT).await.context("upgrade")?;
        one_after_the_other(&looks)?;
        talk.goes_on().await?;

        // All of it back.
        helm(stage, &["rollback", "xmpp-edge", "1"]).await?;
        operators_are(stage, THIS).await?;
        let looks = exchanged(stage, THIS).await.context("rollback")?;
        one_after_the_other(&looks)?;
        all_is_well(stage, &talk).await?;
        talk.end().await?.nothing_lost()
    });
}
