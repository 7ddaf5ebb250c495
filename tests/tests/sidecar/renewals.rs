//! Certificates of sidecar and edge, and the authority that they are from, are renewed amid traffic both ways, as
//! mounted files change (B-05, B-10): real Prosody on both sides, real processes.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use xmpp_edge_crds::{edge_config::EdgeConfig, sidecar_config::SidecarDocument};
use xmpp_edge_tests::{
    edge::Place,
    lab::Lab,
    pki::{Authority, Draft, Leaf, Usage, Validity},
    pod::{Document, Pod, Volume},
    servers::{Kind, S2S_PORT, Security, Server},
    sidecar::Sidecar,
    wait,
};

use crate::{
    load::{BothWays, turn},
    scene::{INSIDE_HOST, OWN, PARTNER, authority_of, end},
};

const TOKEN: &str = "a token of the pool";
/// Seconds that a trunk's certificate has left when it is opened: after two thirds the next one is.
const LEFT: u32 = 7;
/// And when it is issued, which is when the trunk before was opened.
const LIFE: u32 = LEFT + LEFT * 2 / 3 + 1;
/// No trunk is away for longer.
const MOST_AWAY: Duration = Duration::from_secs(1);

/// A pod and a sidecar whose files are a test's to change, between two servers.
struct Renewed {
    partner: Server,
    inside: Server,
    pod: Pod,
    sidecar: Sidecar,
    /// What the sidecar has mounted.
    given: Volume,
    // Last, so that its directory and DNS outlive the processes.
    _lab: Lab,
}

fn document(lab: &Lab) -> Result<EdgeConfig> {
    let document = Document {
        own: OWN.to_owned(),
        gateway: SocketAddr::from((lab.ip(INSIDE_HOST), S2S_PORT)),
        partner: PARTNER.to_owned(),
        roots: lab.authority().certificate(),
        partner_type: "Federated",
        suspended: false,
        contacts: "Embedded",
    };
    let mut document = serde_json::to_value(document.generation(1))?;
    document["version"]["minor"] = json!(1);
    let gateway = &mut document["gateways"][0];
    gateway["name"] = json!("org");
    gateway["mode"] = json!("Sidecar");
    gateway["sidecar"] = json!({ "server": "Single" });
    gateway.as_object_mut().map(|it| it.remove("address"));
    Ok(serde_json::from_value(document)?)
}

fn certificate(authority: &Authority, seconds: u32) -> Leaf {
    authority.issue_as(&Draft {
        validity: Validity::Seconds(seconds),
        ..Draft::of(&[OWN])
    })
}

impl Renewed {
    async fn start(internal: &Authority) -> Result<Self> {
        let lab = Lab::new().await?;
        let mut outer = lab.spec(PARTNER, 10, "bob", Security::Certificates);
        outer.trace = true;
        lab.publish(&outer);
        let place = Place::in_lab(&lab, 20, 21);
        lab.dns().host("edge.example", place.bind);
        lab.dns().xmpp_server(OWN, 10, 0, S2S_PORT, "edge.example");
        let mut pod = Pod::start(place).await?;
        let names = [OWN, "edge.example"];
        let public = lab.authority().issue(&names, Usage::ServerAndClientAuth);
        pod.secrets.change(&[
            ("tls.crt", Some(public.certificate.as_bytes())),
            ("tls.key", Some(public.key.as_bytes())),
            ("dialback-secret", Some(b"a secret of more than sixteen")),
            ("admin-token", Some(TOKEN.as_bytes())),
        ])?;
        edge_has(&mut pod, internal, &internal.certificate())?;
        pod.configure(&document(&lab)?)?;
        let mut sidecar = Sidecar::at(&lab, lab.ip(40), "prosody-0")?;
        sidecar.server = Some((lab.ip(INSIDE_HOST), S2S_PORT).into());
        let mut given = Volume::new(sidecar.path("given"))?;
        let mut own = SidecarDocument::new("org", "org", vec![OWN.to_owned()]);
        own.edges = vec![pod.internal().to_string()];
        let own = serde_json::to_vec(&own)?;
        given.change(&[("sidecar.json", Some(&own))])?;
        let first = certificate(internal, LEFT);
        sidecar_has(&mut given, &first, &internal.certificate())?;
        sidecar.start().await?;
        let mut inner = lab.spec(OWN, INSIDE_HOST, "alice", Security::TlsDialback);
        inner.resolver = lab.ip(40);
        inner.trust = authority_of(&sidecar).await?;
        inner.trace = true;
        let (partner, inside) = tokio::try_join!(
            Server::start(Kind::Prosody, outer, lab.directory()),
            Server::start(Kind::Prosody, inner, lab.directory()),
        )?;
        pod.readiness(200, &["ready"], &[]).await?;
        Ok(Self {
            partner,
            inside,
            pod,
            sidecar,
            given,
            _lab: lab,
        })
    }

    /// The keys of the sidecars that have a trunk.
    async fn keys(&self) -> Option<Vec<String>> {
        let status = self.pod.status(TOKEN).await.ok()?;
        let shown = status["gateways"][0]["sidecars"].as_array()?.iter();
        let keys = shown.map(|it| it["keySha256"].as_str().map(str::to_owned));
        keys.collect()
    }

    /// Waits until the one trunk is that of this certificate; meanwhile there is always one.
    async fn stands_by(&self, leaf: &Leaf) -> Result<()> {
        let key = leaf.pin();
        let (mut seen, mut longest) = (Instant::now(), Duration::ZERO);
        wait::until(
            "a trunk with the new certificate",
            wait::GENEROUS,
            async || {
                let keys = self.keys().await?;
                let now = Instant::now();
                if !keys.is_empty() {
                    longest = longest.max(now - seen);
                    seen = now;
                }
                (keys == [key.clone()]).then_some(())
            },
        )
        .await?;
        ensure!(longest <= MOST_AWAY, "no trunk was there for {longest:?}");
        Ok(())
    }

    /// The sidecar gets another certificate, and its trunk is opened anew with it.
    async fn renew(&mut self, authority: &Authority, trusted: &str) -> Result<()> {
        let leaf = certificate(authority, LIFE);
        sidecar_has(&mut self.given, &leaf, trusted)?;
        self.stands_by(&leaf).await
    }

    fn logs(&self) -> String {
        format!(
            "=== partner\n{}\n=== edge\n{}\n=== sidecar\n{}\n=== inside\n{}\n",
            self.partner.log(),
            self.pod.log(),
            self.sidecar.log(),
            self.inside.log()
        )
    }
}

/// A pod gets another intermediate, as its Secret changes.
fn edge_has(pod: &mut Pod, authority: &Authority, trusted: &str) -> Result<()> {
    let issuer = authority.intermediate();
    pod.secrets.change(&[
        ("issuer.crt", Some(issuer.certificate.as_bytes())),
        ("issuer.key", Some(issuer.key.as_bytes())),
        ("internal-ca.crt", Some(trusted.as_bytes())),
    ])
}

fn sidecar_has(given: &mut Volume, leaf: &Leaf, trusted: &str) -> Result<()> {
    given.change(&[
        ("tls.crt", Some(leaf.certificate.as_bytes())),
        ("tls.key", Some(leaf.key.as_bytes())),
        ("ca.crt", Some(trusted.as_bytes())),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b_05_b_10_nothing_is_lost_or_sent_twice_while_certificates_intermediate_and_ca_are_renewed()
 {
    let _turn = turn().await;
    let (old, new) = (Authority::new("Old CA"), Authority::new("New CA"));
    let (of_old, of_new) = (old.certificate(), new.certificate());
    let of_both = of_old.clone() + &of_new;
    let mut s = Renewed::start(&old).await.unwrap();
    let run = async {
        let (alice, bob) = (end(&s.inside, "alice"), end(&s.partner, "bob"));
        let traffic = BothWays::between(alice, bob).await?;
        edge_has(&mut s.pod, &old, &of_old)?;
        s.renew(&old, &of_old).await.context("the intermediate")?;
        // In three steps: both are trusted, the new one issues, the old one goes.
        edge_has(&mut s.pod, &old, &of_both)?;
        s.renew(&old, &of_both).await.context("both")?;
        edge_has(&mut s.pod, &new, &of_both)?;
        s.renew(&new, &of_both).await.context("the new CA issues")?;
        edge_has(&mut s.pod, &new, &of_new)?;
        s.renew(&new, &of_new).await.context("the old CA is gone")?;
        traffic.flows(1).await?;
        let accounts = traffic.finish().await?;
        for account in [&accounts.outbound, &accounts.inbound] {
            let is_whole = account.lost == 0 && account.conditions.is_empty();
            ensure!(is_whole && account.duplicates == 0, "{account}");
        }
        Ok::<_, anyhow::Error>(())
    };
    if let Err(error) = run.await {
        panic!("{error:#}\n{}", s.logs());
    }
}
