//! A fault of one stanza ends no trunk (B-15): real Prosody on both sides, amid traffic.

use std::fmt::Write;

use anyhow::{Result, ensure};
use serde_json::json;
use xmpp_edge_tests::traffic::{RATE, Traffic};

use crate::scene::{SidecarScene, SidecarScenePlan};

/// `maxStanzaBytes` of edge and sidecar.
const LARGEST: usize = 16_384;

/// When the trunk of the first edge came.
async fn established(scene: &SidecarScene) -> Result<String> {
    let shown = scene.shown_sidecars(0).await?;
    ensure!(shown.len() == 1, "{shown:?}");
    Ok(shown[0]["establishedTime"].to_string())
}

fn namespaces() -> String {
    (0..200).fold(String::new(), |mut all, number| {
        let _ = write!(all, "<x xmlns='urn:example:{number}'>");
        all
    }) + &"</x>".repeat(200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_15_stanzas_beyond_a_limit_are_each_answered_once_and_end_no_trunk() {
    let plan = SidecarScenePlan {
        settings: json!({ "maxStanzaBytes": LARGEST }),
        ..SidecarScenePlan::default()
    };
    let scene = SidecarScene::connected(&plan).await.unwrap();
    let run = async {
        let before = established(&scene).await?;
        let traffic = Traffic::start(scene.alice(0), scene.bob(), 60 * RATE, RATE).await?;
        traffic.arrived(200).await?;
        let alice = scene.insides[0].login("alice").await?;
        let bob = scene.partner.login("bob").await?;
        let deep = "<x xmlns='urn:example:d'>".repeat(100) + &"</x>".repeat(100);
        let contents = [
            (
                format!("<body>{}</body>", "x".repeat(LARGEST - 1_000)),
                true,
            ),
            (format!("<body>{}</body>", "x".repeat(LARGEST)), false),
            (namespaces(), false),
            (deep, false),
        ];
        for (content, passes) in contents {
            let id = alice.fresh_id();
            let to = bob.full();
            alice
                .send(&format!(
                    "<message to='{to}' type='chat' id='{id}'>{content}</message>"
                ))
                .await?;
            if passes {
                bob.expect_message(&id).await?;
            } else {
                let answer = alice.expect_message(&id).await?;
                ensure!(answer.error_condition().is_some(), "{answer:?}");
            }
        }
        traffic.arrived(traffic.so_far() + RATE as usize).await?;
        traffic.stop();
        let account = traffic.finish().await?;
        ensure!(account.lost == 0 && account.bounced == 0, "{account}");
        let again: Vec<_> = alice
            .drain()
            .into_iter()
            .filter(|stanza| stanza.error_condition().is_some())
            .collect();
        ensure!(again.is_empty(), "answered more than once: {again:?}");
        ensure!(before == established(&scene).await?, "the trunk is another");
        Ok(())
    };
    if let Err(error) = run.await {
        panic!("{error:#}\n{}", scene.logs());
    }
}
