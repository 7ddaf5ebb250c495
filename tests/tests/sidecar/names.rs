//! The DNS view is away for 2 s while servers and the C library ask it (B-44).

use std::{process::Stdio, time::Duration};

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep_until};
use xmpp_edge_tests::{conversation, servers::Kind};

use crate::scene::{SidecarScene, SidecarScenePlan};

const AWAY: Duration = Duration::from_secs(2);

/// What the C library finds by `resolv.conf` as the sidecar's pods have it.
async fn libc_finds(scene: &SidecarScene, name: &str) -> Result<String> {
    let view = scene.sidecars[0].dns().ip();
    let file = scene.lab.path("libc.resolv.conf");
    std::fs::write(
        &file,
        format!("nameserver {view}\noptions timeout:2 attempts:3\n"),
    )?;
    let script = "mount --bind \"$0\" /etc/resolv.conf && exec getent ahostsv4 \"$1\"";
    let output = tokio::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(&file)
        .arg(name)
        .stdin(Stdio::null())
        .output()
        .await?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn gets_over_it(inside: Kind) {
    let plan = SidecarScenePlan {
        inside,
        ..SidecarScenePlan::default()
    };
    let scene = SidecarScene::connected(&plan).await.unwrap();
    let run = async {
        scene.lab.dns().host("elsewhere.example", scene.lab.ip(99));
        let alice = scene.insides[0].login("alice").await?;
        let bob = scene.partner.login("bob").await?;
        scene.sidecars[0].freeze();
        let frozen = Instant::now();
        let back = async {
            // The scenario itself is a duration.
            sleep_until(frozen + AWAY).await;
            scene.sidecars[0].thaw();
            anyhow::Ok(())
        };
        let ((), found, ()) = tokio::try_join!(
            conversation::messages(&alice, &bob),
            libc_finds(&scene, "elsewhere.example"),
            back
        )?;
        ensure!(found.contains(&scene.lab.ip(99).to_string()), "{found}");
        Ok(())
    };
    if let Err(error) = run.await {
        panic!("{inside:?}: {error:#}\n{}", scene.logs());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_44_prosody_and_the_c_library_get_over_a_view_that_is_away_for_two_seconds() {
    gets_over_it(Kind::Prosody).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_44_ejabberd_gets_over_a_view_that_is_away_for_two_seconds() {
    gets_over_it(Kind::Ejabberd).await;
}
