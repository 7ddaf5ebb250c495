//! The only way out is a SOCKS5 proxy: real ones, between real servers.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    client::Client,
    edge::{self, texts},
    federation::{Federation, FederationPlan, Method, PARTNER},
    servers::{Acknowledge, Kind::Prosody},
    socks::{PASSWORD, SocksServer, USER},
    wait,
};

const PROXY_HOST: u8 = 40;
const PARTNER_HOST: u8 = 10;

struct Scene {
    alice: Client,
    bob: Client,
    federation: Federation,
}

impl Scene {
    async fn start() -> Result<Self> {
        let federation = Federation::start(FederationPlan {
            partner: Prosody,
            partner_method: Method::External,
            inside: Prosody,
            inside_method: Method::External,
            inside_acknowledge: Acknowledge::Resending,
            trace: false,
        })
        .await?;
        let (alice, bob) = tokio::try_join!(
            federation.inside.login("alice"),
            federation.partner.login("bob")
        )?;
        bob.presence(None, None, "").await?;
        Ok(Self {
            alice,
            bob,
            federation,
        })
    }

    /// Puts the proxy into force, before anything was dialled.
    async fn by(&self, proxy: Value) -> Result<()> {
        let edge = &self.federation.edge;
        let before = edge.metric("config_generation", &[]).await?;
        edge.edit("EdgePool", "edge", |pool| {
            pool["spec"]["settings"]["egressProxy"] = proxy;
        })?;
        wait::until("the proxy is in force", wait::GENEROUS, async || {
            let now = edge.metric("config_generation", &[]).await.ok()?;
            (now > before).then_some(())
        })
        .await
    }

    fn password(&self, password: &str) -> Result<()> {
        let entries = BTreeMap::from([
            ("username", USER.to_owned()),
            ("password", password.to_owned()),
        ]);
        let secret = texts("Secret", "egress", &entries);
        self.federation.edge.apply(&secret)
    }

    /// A message from alice to bob: none where it arrives, else the text of the error.
    async fn refusal(&self) -> Result<Option<String>> {
        let id = self.alice.fresh_id();
        self.alice
            .message(self.bob.full(), &id, "does this pass?")
            .await?;
        tokio::select! {
            arrived = self.bob.expect_message(&id) => arrived.map(|_| None),
            refused = self.alice.expect_message(&id) => {
                let refused = refused?;
                ensure!(refused.error_condition().is_some(), "{refused:?}");
                Ok(Some(refused.error_text().to_owned()))
            }
        }
    }

    async fn delivers(&self) -> Result<()> {
        wait::until("messages pass", wait::GENEROUS, async || {
            self.refusal().await.ok()?.is_none().then_some(())
        })
        .await
    }

    /// Each step of the newest attempt with its outcome.
    async fn steps(&self) -> Result<Vec<(String, String)>> {
        let status = self.federation.edge.status().await?;
        let partners = status["partners"].as_array().context("no partners")?;
        let steps = &partners.first().context("one partner")?["lastAttempt"];
        let steps = steps.as_array().context("no lastAttempt")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(steps
            .iter()
            .map(|step| (text(&step["step"]), text(&step["outcome"])))
            .collect())
    }

    /// What `xmpp-edge-proxy probe` reports by way of the proxy, which is given names or addresses.
    fn probe(&self, proxy: &SocksServer, names: bool) -> Result<Value> {
        let lab = &self.federation.lab;
        let (authority, credentials) = (lab.path("authority.pem"), lab.path("egress"));
        std::fs::write(&authority, lab.authority().certificate())?;
        std::fs::create_dir_all(&credentials)?;
        std::fs::write(credentials.join("username"), USER)?;
        std::fs::write(credentials.join("password"), format!("{PASSWORD}\n"))?;
        let mut command = Command::new(edge::binary()?.with_file_name("xmpp-edge-proxy"));
        command
            .args(["probe", PARTNER, "--json", "--resolver"])
            .arg(lab.dns().address().to_string())
            .arg("--ca")
            .arg(authority)
            .args(["--egress-proxy", &proxy.address().to_string()])
            .arg("--egress-credentials")
            .arg(credentials);
        if names {
            command.arg("--egress-names");
        }
        let done = command.output()?;
        serde_json::from_slice(&done.stdout)
            .with_context(|| String::from_utf8_lossy(&done.stderr).into_owned())
    }

    async fn shows(&self, step: &str, outcome: &str) -> Result<()> {
        let steps = self.steps().await?;
        let wanted = (step.to_owned(), outcome.to_owned());
        ensure!(steps.contains(&wanted), "{step} {outcome}: {steps:?}");
        ensure!(
            steps.iter().all(|(step, _)| step != "tcp"),
            "dialled directly: {steps:?}"
        );
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s20_partners_are_dialled_by_the_proxy_with_the_password_of_the_secret() {
    let scene = Scene::start().await.unwrap();
    let lab = &scene.federation.lab;
    let proxy = SocksServer::microsocks(lab, PROXY_HOST, &[]).await.unwrap();
    scene.password("wrong").unwrap();
    let address = proxy.address().to_string();
    scene
        .by(json!({ "address": address, "secretRef": { "name": "egress" } }))
        .await
        .unwrap();
    let text = scene.refusal().await.unwrap().expect("a wrong password");
    assert!(
        text.contains("egress proxy") && text.contains("refused the user name or the password"),
        "{text}"
    );
    scene
        .shows("egress-proxy", "EgressAuthentication")
        .await
        .unwrap();
    // The right one comes into force without a restart.
    scene.password(PASSWORD).unwrap();
    scene.delivers().await.unwrap();
    scene.shows("egress-proxy", "Ok").await.unwrap();
    assert_eq!(scene.refusal().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s20_the_proxy_resolves_names_that_the_edge_does_not_know() {
    let scene = Scene::start().await.unwrap();
    let lab = &scene.federation.lab;
    let host = format!("xmpp.{PARTNER}");
    lab.dns().remove(&host);
    let names = [(host.as_str(), lab.ip(PARTNER_HOST))];
    let proxy = SocksServer::microsocks(lab, PROXY_HOST, &names)
        .await
        .unwrap();
    scene.password(PASSWORD).unwrap();
    let egress = |resolution: &str| {
        json!({
            "address": proxy.address().to_string(),
            "nameResolution": resolution,
            "secretRef": { "name": "egress" },
        })
    };
    scene.by(egress("Edge")).await.unwrap();
    let text = scene.refusal().await.unwrap().expect("it has no address");
    assert!(text.contains(&host), "{text}");
    scene.by(egress("Proxy")).await.unwrap();
    for (names, found) in [(false, false), (true, true)] {
        let report = scene.probe(&proxy, names).unwrap();
        let reached = report["targets"].as_array().is_some_and(|targets| {
            targets
                .iter()
                .any(|target| target["certificate"].is_object())
        });
        assert_eq!(reached, found, "{report:#}");
    }
    // A proxy that hangs for a while costs nobody an error.
    proxy.freeze();
    let id = scene.alice.fresh_id();
    scene
        .alice
        .message(scene.bob.full(), &id, "later")
        .await
        .unwrap();
    proxy.thaw();
    scene.delivers().await.unwrap();
    scene.shows("egress-proxy", "Ok").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s20_what_the_proxys_rules_forbid_and_a_proxy_that_is_away_are_named() {
    if !SocksServer::has_dante() {
        eprintln!("skipped: no danted here (Debian's dante-server, which Debian 13 does not have)");
        return;
    }
    let scene = Scene::start().await.unwrap();
    let lab = &scene.federation.lab;
    let mut proxy = SocksServer::dante(lab, PROXY_HOST, lab.ip(PARTNER_HOST))
        .await
        .unwrap();
    scene
        .by(json!({ "address": proxy.address().to_string() }))
        .await
        .unwrap();
    let text = scene.refusal().await.unwrap().expect("a rule forbids it");
    let reply = "connection not allowed by ruleset (SOCKS reply 2)";
    assert!(text.contains(reply), "{text}");
    scene
        .shows("egress-proxy", "EgressNotAllowed")
        .await
        .unwrap();
    proxy.stop().await.unwrap();
    let edge = &scene.federation.edge;
    wait::until("the proxy's absence is told", wait::GENEROUS, async || {
        let _ = scene.refusal().await.ok()?;
        let labels = ["step=\"egress-proxy\"", "outcome=\"EgressUnreachable\""];
        let count = edge.metric("attempts_total", &labels).await.ok()?;
        (count > 0.0).then_some(())
    })
    .await
    .unwrap();
}
