//! A pod with volumes that a test fills, and a server inside.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde_json::Value;
use xmpp_edge_tests::{
    edge::{INTERNAL_PORT, Place},
    lab::Lab,
    peer::{Behaviour, Identity, Login, Peer, PeerServer},
    pki::{Authority, Leaf, Usage},
    pod::{Document, Pod},
    servers::S2S_PORT,
    wait,
};

use crate::{ALICE, BOB, IN_FORCE, OWN, PARTNER, TOKEN};

pub struct Scene {
    pub pod: Pod,
    pub inside: PeerServer,
    pub document: Document,
    pub internal: Authority,
    pub partner: Leaf,
    // Last, so that its directory and DNS outlive the process.
    pub lab: Lab,
}

impl Scene {
    /// A pod with nothing in its volumes, and a server inside.
    pub async fn start() -> Result<Self> {
        Self::start_as("text").await
    }

    async fn start_as(log_format: &'static str) -> Result<Self> {
        let lab = Lab::new().await?;
        let internal = Authority::new("Internal CA");
        let gateway = SocketAddr::from((lab.ip(30), S2S_PORT));
        let identity = internal.issue(&[OWN], Usage::ServerAndClientAuth);
        let inside = PeerServer::listen(gateway, Behaviour::good(Identity::of(&identity)?)).await?;
        let document = Document {
            own: OWN.to_owned(),
            gateway,
            partner: PARTNER.to_owned(),
            roots: lab.authority().certificate(),
            partner_type: "Federated",
            suspended: false,
            contacts: "Embedded",
        };
        Ok(Self {
            pod: Pod::start(Place {
                log_format,
                ..Place::in_lab(&lab, 20, 21)
            })
            .await?,
            partner: lab.authority().issue(&[PARTNER], Usage::ServerAuth),
            inside,
            document,
            internal,
            lab,
        })
    }

    pub fn certificate(&self) -> Leaf {
        self.lab
            .authority()
            .issue(&[OWN, "edge.example"], Usage::ServerAndClientAuth)
    }

    /// Everything that a pod needs, in one swap, but for the configuration.
    pub fn equip(&mut self) -> Result<()> {
        let certificate = self.certificate();
        let issuer = self.internal.intermediate();
        let ca = self.internal.certificate();
        self.pod.secrets.change(&[
            ("tls.crt", Some(certificate.certificate.as_bytes())),
            ("tls.key", Some(certificate.key.as_bytes())),
            ("issuer.crt", Some(issuer.certificate.as_bytes())),
            ("issuer.key", Some(issuer.key.as_bytes())),
            ("internal-ca.crt", Some(ca.as_bytes())),
            ("dialback-secret", Some(b"a secret of more than sixteen")),
            ("admin-token", Some(TOKEN.as_bytes())),
        ])
    }

    /// Equipped, with generation 1 in force.
    pub async fn started() -> Result<Self> {
        Self::logging("text").await
    }

    /// As [`Self::started`], with its log in this form.
    pub async fn logging(log_format: &'static str) -> Result<Self> {
        let mut s = Self::start_as(log_format).await?;
        s.equip()?;
        s.pod.configure(&s.document.generation(1))?;
        s.pod.readiness(200, &["ready"], &["waiting"]).await?;
        Ok(s)
    }

    pub async fn partner_stream(&self) -> Result<Peer> {
        let login = Login::External(&self.partner);
        Peer::login(self.pod.public(S2S_PORT), PARTNER, OWN, &login).await
    }

    /// A message of ours to the partner, whom no DNS names.
    pub async fn fails_to_reach_the_partner(&self) -> Result<()> {
        let identity = self.internal.issue(&[OWN], Usage::ServerAndClientAuth);
        let internal = SocketAddr::from((self.pod.admin().ip(), INTERNAL_PORT));
        let mut inside = Peer::login(internal, OWN, PARTNER, &Login::External(&identity)).await?;
        inside.message(ALICE, BOB, "fails", "hello").await
    }

    /// A message from the partner arrives inside, over a new stream.
    pub async fn delivers(&self, id: &str) -> Result<()> {
        let mut peer = self.partner_stream().await?;
        peer.message(BOB, ALICE, id, "hello").await?;
        self.inside.stanza_id(id).await?;
        peer.send("</stream:stream>").await
    }

    pub async fn status(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let found = wait::until(what, IN_FORCE, || async {
            self.pod.status(TOKEN).await.ok().filter(|now| wanted(now))
        })
        .await;
        match found {
            Ok(status) => Ok(status),
            Err(error) => Err(error).context(format!(
                "{:?}\n{}",
                self.pod.status(TOKEN).await,
                self.pod.log()
            )),
        }
    }

    pub async fn generation(&self, generation: u64) -> Result<Value> {
        self.status(&format!("generation {generation}"), |status| {
            status["config"]["generation"] == generation
        })
        .await
    }

    pub async fn rejected_total(&self) -> Result<f64> {
        let (_, text) = self.pod.get("/metrics").await?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("xmpp_edge_config_rejected_total "));
        Ok(line.context("no such metric")?.parse()?)
    }
}
