//! What a sidecar does before there is an edge.

use std::fs;

use xmpp_edge_tests::{
    lab::Lab,
    sidecar::{self, Sidecar},
    wait,
};

/// What `dig` says at the sidecar's view.
async fn dig(sidecar: &Sidecar, question: &str) -> String {
    let at = sidecar.dns();
    let output = tokio::process::Command::new("dig")
        .arg(format!("@{}", at.ip()))
        .args(["+time=10", "+tries=1"])
        .args(question.split(' '))
        .output()
        .await
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn without_a_document_it_lives_names_what_it_waits_for_and_forwards_dns() {
    let lab = Lab::new().await.unwrap();
    lab.dns().host("elsewhere.example", lab.ip(99));
    let mut sidecar = Sidecar::in_lab(&lab, 40).unwrap();
    sidecar.start().await.unwrap();
    let (code, waits) = sidecar.get("/readyz").await.unwrap();
    assert_eq!(code, 503, "{waits}");
    assert!(waits.contains("sidecar.json is not there"), "{waits}");
    let said = dig(&sidecar, "_xmpp-server._tcp.partner.example SRV").await;
    assert!(said.contains("status: SERVFAIL"), "{said}");
    let said = dig(&sidecar, "+short elsewhere.example A").await;
    assert_eq!(said.trim(), lab.ip(99).to_string());
    // Its key is the one that the command prints, and is told where a person looks first.
    let key = sidecar.key().unwrap();
    assert!(sidecar.log().contains(&key), "{}", sidecar.log());
    // A document that is no document is told with the remedy, and costs nothing.
    fs::write(sidecar.path("given/sidecar.json"), "{}").unwrap();
    wait::until("it is told", wait::GENEROUS, async || {
        let (_, waits) = sidecar.get("/readyz").await.ok()?;
        waits.contains("copy sidecar.json whole").then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_address_that_others_reach_is_refused() {
    let output = std::process::Command::new(sidecar::program().unwrap())
        .args(["sidecar", "--config", "/nowhere.json", "--bind", "0.0.0.0"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("--bind 0.0.0.0 is no loopback address"),
        "{said}"
    );
}
