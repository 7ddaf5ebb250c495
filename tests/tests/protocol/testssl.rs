//! What testssl.sh finds on the public listeners (acceptance test T-20). Debian's `testssl.sh` must be
//! installed; real sockets, no network.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::process::Command;
use xmpp_edge_tests::rig::{Plan, Rig};

/// It makes some hundred handshakes, one after the other.
const PATIENCE: Duration = Duration::from_secs(600);

/// What it says of protocols, ciphers, forward secrecy, their order, and of known weaknesses. The
/// certificate is the lab's and no matter here.
const CHECKS: [&str; 5] = ["-p", "-s", "-f", "-P", "-U"];

async fn findings(rig: &Rig, at: SocketAddr) -> Result<Vec<Value>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("findings.json");
    let mut command = Command::new("testssl");
    command
        .args(["--quiet", "--color", "0", "--warnings", "batch"])
        .args(["--nodns", "none", "--jsonfile"])
        .arg(&path)
        .args(CHECKS);
    let said = tokio::time::timeout(
        PATIENCE,
        command.arg(at.to_string()).kill_on_drop(true).output(),
    )
    .await
    .context("testssl takes too long")?
    .context("testssl.sh is installed by tests/install")?;
    let findings = std::fs::read(&path).map_err(anyhow::Error::from);
    let findings = findings.and_then(|json| Ok(serde_json::from_slice(&json)?));
    let findings: Vec<Value> = findings.with_context(|| {
        format!(
            "no findings: {}\n{}",
            String::from_utf8_lossy(&said.stdout),
            String::from_utf8_lossy(&said.stderr)
        )
    })?;
    rig.serves_the_good_partner().await?;
    Ok(findings)
}

fn check(findings: &[Value]) -> Result<()> {
    let of = |id: &str| {
        let finding = findings.iter().find(|it| it["id"] == id);
        finding.and_then(|it| it["finding"].as_str())
    };
    for (id, expected) in [
        ("SSLv2", "not offered"),
        ("SSLv3", "not offered"),
        ("TLS1", "not offered"),
        ("TLS1_1", "not offered"),
        ("TLS1_2", "offered"),
        ("TLS1_3", "offered"),
    ] {
        let found = of(id).with_context(|| format!("nothing about {id}: {findings:#?}"))?;
        ensure!(found.starts_with(expected), "{id}: {found}");
    }
    let above_low: Vec<_> = findings
        .iter()
        .filter(|it| {
            matches!(
                it["severity"].as_str(),
                Some("MEDIUM" | "HIGH" | "CRITICAL" | "FATAL")
            )
        })
        .collect();
    ensure!(above_low.is_empty(), "{above_low:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn t_20_testssl_finds_nothing_above_low() -> Result<()> {
    let rig = Rig::start(Plan::standard("testssl", 0)).await?;
    // It knows STARTTLS of clients only. What 5269 serves after STARTTLS is what it serves at once.
    for at in [rig.public(), rig.direct()] {
        let findings = findings(&rig, at).await?;
        check(&findings).with_context(|| at.to_string())?;
    }
    Ok(())
}
