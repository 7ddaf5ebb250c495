//! Two hosts: an edge in the DMZ, and inside a real server with its sidecar; and a partner's server.

use std::{collections::BTreeMap, fs};

use anyhow::Result;
use serde_json::{Value, json};
use xmpp_edge_tests::{
    edge::{Edge, Place, manifest, texts},
    federation::everyone_may,
    lab::Lab,
    pki::Usage,
    servers::{Kind, S2S_PORT, Security, Server},
    sidecar::Sidecar,
    wait,
};

pub const OWN: &str = "org.example";
const PARTNER: &str = "partner.example";
const FQDN: &str = "edge.example";
const PARTNER_HOST: u8 = 10;
const EDGE_HOST: u8 = 20;
const EDGE_INTERNAL_HOST: u8 = 21;
pub const INSIDE_HOST: u8 = 30;
const SIDECAR_HOST: u8 = 40;

/// Whether the server inside has the line that its sidecar's authority needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    Told,
    /// As packaged: a certificate that it does not trust is refused.
    Missing,
}

/// All of it.
pub struct TwoHosts {
    pub partner: Server,
    pub edge: Edge,
    pub sidecar: Sidecar,
    pub inside: Server,
    // Last, so that its directory and DNS outlive the processes.
    pub lab: Lab,
}

impl TwoHosts {
    /// The edge knows no key yet, the sidecar runs, and the server has read its authority.
    pub async fn start() -> Result<Self> {
        Self::start_with(Trust::Told).await
    }

    /// As [`Self::start`].
    pub async fn start_with(trust: Trust) -> Result<Self> {
        let lab = Lab::new().await?;
        let mut outer = lab.spec(PARTNER, PARTNER_HOST, "bob", Security::Certificates);
        outer.trace = true;
        lab.publish(&outer);
        let place = Place::in_lab(&lab, EDGE_HOST, EDGE_INTERNAL_HOST);
        lab.dns().host(FQDN, place.bind);
        lab.dns().xmpp_server(OWN, 0, 0, S2S_PORT, FQDN);
        let (edge, partner) = tokio::try_join!(
            async { Edge::start(place, &manifests(&lab)).await },
            Server::start(Kind::Prosody, outer, lab.directory()),
        )?;
        let mut sidecar = Sidecar::in_lab(&lab, SIDECAR_HOST)?;
        sidecar.copy_from(&edge, OWN)?;
        sidecar.start().await?;
        let authority = authority_of(&sidecar).await?;
        let security = match trust {
            Trust::Told => Security::TlsDialback,
            Trust::Missing => Security::Certificates,
        };
        let mut inner = lab.spec(OWN, INSIDE_HOST, "alice", security);
        inner.trace = true;
        inner.resolver = lab.ip(SIDECAR_HOST);
        if trust == Trust::Told {
            inner.trust = authority;
        }
        let inside = Server::start(Kind::Prosody, inner, lab.directory()).await?;
        Ok(Self {
            partner,
            edge,
            sidecar,
            inside,
            lab,
        })
    }

    /// As [`Self::start`]; then the key is listed, the trunk stands, and nothing else leads inside.
    pub async fn connected() -> Result<Self> {
        let scene = Self::start().await?;
        scene.list_key()?;
        let stands = async || (scene.trunks().await.ok()? == 1).then_some(());
        wait::until("the trunk stands", wait::GENEROUS, stands).await?;
        scene.switch().await?;
        Ok(scene)
    }

    /// The server inside gets the line, and is started again.
    pub async fn trust_sidecar(&mut self) -> Result<()> {
        let authority = authority_of(&self.sidecar).await?;
        let inside = &mut self.inside;
        inside.trusts(authority, Security::TlsDialback).await
    }

    /// Changes the document that the sidecar was given.
    pub fn rewrite<T>(&self, change: impl FnOnce(&mut Value) -> T) -> Result<T> {
        let path = self.sidecar.path("given/sidecar.json");
        let mut document = serde_json::from_slice(&fs::read(&path)?)?;
        let told = change(&mut document);
        fs::write(&path, document.to_string())?;
        Ok(told)
    }

    /// The line that the sidecar asks for.
    pub fn list_key(&self) -> Result<()> {
        let key = self.sidecar.key()?;
        let keys = json!([{ "name": "prosody", "spkiSha256": key }]);
        self.edit(|gateway| gateway["sidecar"]["keys"] = keys)
    }

    pub fn unlist_key(&self) -> Result<()> {
        self.edit(|gateway| gateway["sidecar"]["keys"] = json!([]))
    }

    /// From now on nothing but the trunk leads inside; returns once that is in force.
    pub async fn switch(&self) -> Result<()> {
        self.edit(|gateway| {
            gateway["mode"] = json!("Sidecar");
            gateway.as_object_mut().map(|it| it.remove("address"));
        })?;
        wait::until("the mode is in force", wait::GENEROUS, async || {
            let status = self.edge.status().await.ok()?;
            (status["gateways"][0]["mode"] == "Sidecar").then_some(())
        })
        .await
    }

    /// How many trunks stand at the edge.
    pub async fn trunks(&self) -> Result<usize> {
        let status = self.edge.status().await?;
        let streams = status["streams"].as_array().into_iter().flatten();
        Ok(streams.filter(|it| it["trunk"] == true).count())
    }

    fn edit(&self, change: impl FnOnce(&mut Value)) -> Result<()> {
        self.edge.edit("EdgePool", "edge", |pool| {
            change(&mut pool["spec"]["gateways"][0]);
        })
    }

    pub fn logs(&self) -> String {
        format!(
            "=== partner\n{}\n=== edge\n{}\n=== sidecar\n{}\n=== inside\n{}",
            self.partner.log(),
            self.edge.log(),
            self.sidecar.log(),
            self.inside.log(),
        )
    }
}

/// PEM of the authority that a sidecar has made for its server.
async fn authority_of(sidecar: &Sidecar) -> Result<String> {
    let ca = sidecar.path("state/public/ca.crt");
    wait::until("its authority is there", wait::GENEROUS, async || {
        fs::read_to_string(&ca).ok()
    })
    .await
}

fn manifests(lab: &Lab) -> Vec<Value> {
    let certificate = lab
        .authority()
        .issue(&[OWN, FQDN], Usage::ServerAndClientAuth);
    let server = format!("{}:{S2S_PORT}", lab.ip(INSIDE_HOST));
    vec![
        texts(
            "ConfigMap",
            "public-roots",
            &BTreeMap::from([("ca.crt", lab.authority().certificate())]),
        ),
        texts(
            "Secret",
            "edge-certificate",
            &BTreeMap::from([
                ("tls.crt", certificate.certificate),
                ("tls.key", certificate.key),
            ]),
        ),
        manifest(
            "EdgePool",
            "edge",
            json!({
                "site": "here",
                "domains": [OWN],
                "accessEdge": { "fqdn": FQDN },
                "gateways": [{
                    "domains": [OWN],
                    // Prepared: sidecars may connect, and are not used yet.
                    "mode": "Direct",
                    "address": server,
                    "sidecar": { "serverAddress": server },
                }],
                "certificate": { "secretRef": { "name": "edge-certificate" } },
                "trust": { "caConfigMapRef": { "name": "public-roots", "key": "ca.crt" } },
            }),
        ),
        manifest(
            "XmppFederatedPartner",
            "partner",
            json!({ "domain": PARTNER, "partnerType": "Federated" }),
        ),
        everyone_may(),
    ]
}
