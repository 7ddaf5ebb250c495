//! What a sidecar says of itself: each fault with step, cause and remedy, in `/readyz`, in `/status` and in its log;
//! its metrics; and who may see what.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpListener};
use xmpp_edge_tests::wait;

use crate::scene::{INSIDE_HOST, OWN, SidecarScene, SidecarScenePlan, Trust};

/// Edges that the sidecar dials in vain, by what is at the other end.
const NOWHERE: &str = "nowhere.example:23456";
const CLOSED_HOST: u8 = 50;
const OTHER_HOST: u8 = 51;

/// What is told of one address, or of the server.
struct Told {
    /// As `/status` names it.
    address: String,
    step: &'static str,
    outcomes: &'static [&'static str],
    remedy: &'static str,
}

async fn status(scene: &SidecarScene) -> Result<Value> {
    let (code, body) = scene.sidecars[0].get("/status").await?;
    anyhow::ensure!(code == 200, "{code}: {body}");
    Ok(serde_json::from_str(&body)?)
}

/// The step that failed, as `/status` has it.
fn failed<'a>(status: &'a Value, told: &Told) -> Option<&'a Value> {
    let attempt = if status["server"]["address"] == *told.address {
        &status["server"]["lastAttempt"]
    } else {
        let trunks = status["trunks"].as_array()?;
        let own = trunks.iter().find(|it| it["address"] == *told.address)?;
        &own["lastAttempt"]
    };
    let mut steps = attempt.as_array()?.iter();
    steps.find(|it| {
        told.outcomes
            .iter()
            .any(|outcome| it["outcome"] == **outcome)
    })
}

async fn is_told(scene: &SidecarScene, told: &Told) -> Result<()> {
    let found = wait::until("a fault is told everywhere", wait::GENEROUS, async || {
        let status = status(scene).await.ok()?;
        let step = failed(&status, told)?.clone();
        let (_, readyz) = scene.sidecars[0].get("/readyz").await.ok()?;
        let outcome = step["outcome"].as_str()?.to_owned();
        let line = format!("step {} ({outcome}): ", told.step);
        let mut lines = readyz.lines().flat_map(|line| line.split(", a trunk"));
        let is_ready_told = lines.any(|it| it.contains(&line) && it.contains(told.remedy));
        let log = scene.sidecars[0].log();
        let is_logged = log
            .lines()
            .any(|it| it.contains(&outcome) && it.contains(told.remedy));
        (is_ready_told && is_logged).then_some(step)
    })
    .await
    .with_context(|| format!("{} {}", told.address, told.step))?;
    assert_eq!(found["step"], told.step, "{found}");
    let remedy = found["remedy"].as_str().unwrap_or_default();
    assert!(remedy.contains(told.remedy), "{found}");
    Ok(())
}

/// Name, TCP, TLS, certificate and a server that refuses TCP; an edge older than trunks is played by `engine`, and a
/// server that refuses the leaf by B-04.
#[tokio::test]
async fn b_45_each_fault_is_told_with_step_cause_and_remedy_in_readyz_status_and_log() {
    let mut scene = SidecarScene::start(&SidecarScenePlan::default())
        .await
        .unwrap();
    scene.sidecars[0].kill();
    scene.insides[0].kill();
    let closed = format!("{}:23456", scene.lab.ip(CLOSED_HOST));
    let other = format!("{}:23456", scene.lab.ip(OTHER_HOST));
    let listener = TcpListener::bind(&other).await.unwrap();
    let talks = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // Whoever dials may be gone.
            let _ = stream.write_all(b"220 smtp.example ESMTP\r\n").await;
        }
    });
    let edge = scene
        .rewrite(|document| {
            let edge = document["edges"][0].as_str().unwrap_or_default().to_owned();
            document["edges"] = json!([edge, NOWHERE, closed, other]);
            edge
        })
        .unwrap();
    scene.sidecars[0].start().await.unwrap();
    let server = format!("{}:5269", scene.lab.ip(INSIDE_HOST));
    let table = [
        Told {
            address: NOWHERE.to_owned(),
            step: "dns",
            outcomes: &["DnsNotFound", "DnsNoRecords"],
            remedy: "spec.gateways[].sidecar.edges",
        },
        Told {
            address: closed,
            step: "tcp",
            outcomes: &["TcpRefused"],
            remedy: "no edge listens there",
        },
        Told {
            address: other,
            step: "tls",
            outcomes: &["NotTls", "TlsFailed", "TlsClosed"],
            remedy: "what listens there is no edge",
        },
        Told {
            address: edge,
            step: "certificate",
            outcomes: &["SidecarRefused"],
            remedy: "add its key to spec.gateways[].sidecar.keys",
        },
        Told {
            address: server,
            step: "tcp",
            outcomes: &["TcpRefused"],
            remedy: "start the server",
        },
    ];
    for told in &table {
        if let Err(error) = is_told(&scene, told).await {
            let status = status(&scene).await;
            panic!("{error:#}\n{status:#?}\n{}", scene.sidecars[0].log());
        }
    }
    // The edge tells the same of who is refused.
    let refused = async {
        let status = scene.edges[0].status().await.ok()?;
        let steps = status["gateways"][0]["lastAttempt"].as_array()?.clone();
        steps.into_iter().find(|it| {
            let remedy = it["remedy"].as_str().unwrap_or_default();
            it["step"] == "certificate" && remedy.contains("spec.gateways[].sidecar.keys")
        })
    };
    assert!(refused.await.is_some(), "{}", scene.edges[0].log());
    talks.abort();
}

/// As in a pod whose label names a gateway that is made later.
#[tokio::test]
async fn b_41_a_sidecar_that_starts_before_its_files_names_them_and_connects_without_a_restart() {
    let mut scene = SidecarScene::start(&SidecarScenePlan::default())
        .await
        .unwrap();
    scene.sidecars[0].kill();
    for file in ["given/sidecar.json", "given/ca.crt"] {
        fs::remove_file(scene.sidecars[0].path(file)).unwrap();
    }
    let connects = async {
        scene.sidecars[0].start().await?;
        let (code, waits) = scene.sidecars[0].get("/readyz").await?;
        assert_eq!(code, 503);
        assert!(waits.contains("sidecar.json is not there"), "{waits}");
        assert!(waits.contains("ca.crt is not there"), "{waits}");
        assert_eq!(scene.sidecars[0].get("/status").await?.0, 503);
        scene.list_keys()?;
        scene.sidecars[0].copy_from(scene.edges[0].place(), OWN)?;
        let is_ready =
            async || (scene.sidecars[0].get("/readyz").await.ok()?.0 == 200).then_some(());
        wait::until("it is connected", wait::GENEROUS, is_ready).await?;
        assert_eq!(scene.trunks(0).await?, 1);
        Ok::<_, anyhow::Error>(())
    };
    if let Err(error) = connects.await {
        panic!("{error:#}\n{}", scene.logs());
    }
}

#[tokio::test]
async fn b_04_a_server_that_does_not_trust_the_sidecar_is_told_with_its_words_and_the_line_to_add()
{
    let plan = SidecarScenePlan {
        trust: Trust::Missing,
        ..SidecarScenePlan::default()
    };
    let mut scene = SidecarScene::start(&plan).await.unwrap();
    let told = async {
        scene.list_keys()?;
        wait::until("the edge is told", wait::GENEROUS, async || {
            let status = scene.edges[0].status().await.ok()?;
            let own = &status["gateways"][0]["sidecars"][0];
            let text = own["serverText"].as_str()?;
            (own["serverUp"] == false && text.contains("s2s_ssl = { cafile =")).then_some(())
        })
        .await?;
        let (_, readyz) = scene.sidecars[0].get("/readyz").await?;
        assert!(readyz.contains("its server: step "), "{readyz}");
        assert!(readyz.contains("s2s_ssl = { cafile ="), "{readyz}");
        assert!(
            scene.sidecars[0]
                .log()
                .contains("the server is not reached")
        );
        let status = status(&scene).await?;
        assert_eq!(status["server"]["up"], false, "{status:#}");
        let text = status["server"]["text"].as_str().unwrap_or_default();
        assert!(text.contains("s2s_ssl"), "{status:#}");
        // Mended, it is noticed without any stanza.
        scene.trust_sidecar().await?;
        wait::until("it is up", wait::GENEROUS, async || {
            let status = scene.edges[0].status().await.ok()?;
            (status["gateways"][0]["sidecars"][0]["serverUp"] == true).then_some(())
        })
        .await
    };
    if let Err(error) = told.await {
        panic!("{error:#}\n{}", scene.logs());
    }
}

#[tokio::test]
async fn what_a_sidecar_shows_is_its_own_and_status_wants_the_token_where_there_is_one() {
    let scene = SidecarScene::connected(&SidecarScenePlan::default())
        .await
        .unwrap();
    let shown = async {
        // It tries its server as it starts, and each second while that does not answer.
        let whole = wait::until("its server is up", wait::GENEROUS, async || {
            let whole = status(&scene).await.ok()?;
            (whole["server"]["up"] == true).then_some(whole)
        })
        .await?;
        let trunk = &whole["trunks"][0];
        for (field, expected) in [
            ("state", json!("Up")),
            ("pool", json!("edge")),
            ("active", json!(true)),
        ] {
            assert_eq!(trunk[field], expected, "{whole:#}");
        }
        assert_eq!(whole["instance"], "prosody-0");
        let key = scene.sidecars[0].key()?;
        assert_eq!(whole["keySha256"], *key);
        let (code, ready) = scene.sidecars[0].get("/readyz").await?;
        assert_eq!((code, ready.trim()), (200, "ready"));
        let (_, text) = scene.sidecars[0].get("/metrics").await?;
        let names: BTreeSet<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split(['{', ' ']).next())
            .collect();
        let others: Vec<_> = names
            .iter()
            .filter(|it| !it.starts_with("xmpp_edge_sidecar_"))
            .collect();
        assert!(others.is_empty(), "{others:?}");
        for line in [
            "xmpp_edge_sidecar_trunks{pool=\"edge\"} 1",
            "xmpp_edge_sidecar_server_up 1",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        for path in [
            "/",
            "/explain?from=a@b.example&to=c@d.example",
            "/page/events",
        ] {
            assert_eq!(scene.sidecars[0].get(path).await?.0, 404, "{path}");
        }
        fs::write(scene.sidecars[0].path("given/token"), "a secret of ours\n")?;
        wait::until("it is asked for", wait::GENEROUS, async || {
            (scene.sidecars[0].get("/status").await.ok()?.0 == 401).then_some(())
        })
        .await?;
        let (code, _) = scene.sidecars[0]
            .get_with("/status", Some("another"))
            .await?;
        assert_eq!(code, 401);
        let (code, _) = scene.sidecars[0]
            .get_with("/status", Some("a secret of ours"))
            .await?;
        assert_eq!(code, 200);
        assert_eq!(scene.sidecars[0].get("/readyz").await?.0, 200);
        Ok::<_, anyhow::Error>(())
    };
    if let Err(error) = shown.await {
        panic!("{error:#}\n{}", scene.logs());
    }
}
