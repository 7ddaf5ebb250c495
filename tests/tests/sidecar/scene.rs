//! Edges in the DMZ; inside a real server with its sidecar, or several; and a partner's server.

use std::{collections::BTreeMap, fs, net::Ipv4Addr, path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    address::Block,
    edge::{Edge, Place, manifest, texts},
    federation::everyone_may,
    lab::Lab,
    network::Network,
    pki::Usage,
    servers::{Kind, S2S_PORT, Security, Server},
    sidecar::Sidecar,
    traffic::End,
    wait,
};

pub const OWN: &str = "org.example";
pub const PARTNER: &str = "partner.example";
const PARTNER_HOST: u8 = 10;
const DNS_HOST: u8 = 53;
/// Of the first edge; the next ones are two further each.
const EDGE_HOST: u8 = 20;
pub const INSIDE_HOST: u8 = 30;
const SIDECAR_HOST: u8 = 40;

/// Whether the server inside has the line that its sidecar's authority needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    Told,
    /// As packaged: a certificate that it does not trust is refused.
    Missing,
}

/// What a scene has.
#[derive(Clone, Debug)]
pub struct SidecarScenePlan {
    pub inside: Kind,
    pub trust: Trust,
    pub partner: Kind,
    /// Name and priority of each edge's pool.
    pub edges: Vec<(&'static str, u16)>,
    /// Servers inside of the one domain, each with its sidecar.
    pub servers: u8,
    /// How these serve the domain: `spec.gateways[].sidecar.server`.
    pub sidecar_server: &'static str,
    /// What the first server shows and trusts lets edges reach it without its sidecar, too.
    pub is_direct_too: bool,
    /// `spec.settings` of each pool.
    pub settings: Value,
}

impl Default for SidecarScenePlan {
    fn default() -> Self {
        Self {
            inside: Kind::Prosody,
            trust: Trust::Told,
            partner: Kind::Prosody,
            edges: vec![("edge", 10)],
            servers: 1,
            sidecar_server: "Single",
            is_direct_too: false,
            settings: json!({}),
        }
    }
}

/// Each host in a network of its own: the first edge's, and what is inside.
#[derive(Debug)]
pub struct SceneNetworks {
    pub dmz: Network,
    pub inside: Network,
}

/// Names of the wires where they end inside: to the first edge, and to everybody else.
pub const WIRE: &str = "dmz0";
const WAY_OUT: &str = "out0";

/// All of it.
pub struct SidecarScene {
    pub partner: Server,
    pub edges: Vec<Edge>,
    pub sidecars: Vec<Sidecar>,
    pub insides: Vec<Server>,
    pub networks: Option<SceneNetworks>,
    // Last, so that its directory and DNS outlive the processes.
    pub lab: Lab,
}

impl SidecarScene {
    /// The edges know no key yet, the sidecars run, and each server has read the authority of its own.
    pub async fn start(plan: &SidecarScenePlan) -> Result<Self> {
        let lab = Lab::new().await?;
        Self::within(lab, None, plan).await
    }

    /// As [`Self::start`]; then the keys are listed, the trunks stand, and nothing else leads inside.
    pub async fn connected(plan: &SidecarScenePlan) -> Result<Self> {
        let scene = Self::start(plan).await?;
        scene.connect().await?;
        Ok(scene)
    }

    /// As [`Self::connected`], where `world` is the network of the partner, the name server and all edges but
    /// the first.
    pub async fn apart(world: &Arc<Network>, plan: &SidecarScenePlan) -> Result<Self> {
        let networks = SceneNetworks::in_world(world, plan.edges.len())?;
        let lab = Lab::within(Block::apart()).await?;
        let scene = Self::within(lab, Some(networks), plan).await?;
        scene.connect().await?;
        Ok(scene)
    }

    async fn within(
        lab: Lab,
        networks: Option<SceneNetworks>,
        plan: &SidecarScenePlan,
    ) -> Result<Self> {
        let mut outer = lab.spec(PARTNER, PARTNER_HOST, "bob", Security::Certificates);
        outer.trace = true;
        lab.publish(&outer);
        let partner = Server::start(plan.partner, outer, lab.directory());
        let edges = async {
            let mut edges = Vec::new();
            for (at, (pool, priority)) in plan.edges.iter().enumerate() {
                let place = Place::in_lab(&lab, edge_host(at), edge_host(at) + 1);
                let fqdn = format!("{pool}.edge.example");
                lab.dns().host(&fqdn, place.bind);
                lab.dns().xmpp_server(OWN, *priority, 0, S2S_PORT, &fqdn);
                let manifests = manifests(
                    &lab,
                    (pool, *priority),
                    &fqdn,
                    prepared(&lab, plan.sidecar_server),
                    &plan.settings,
                );
                let network = networks.as_ref().filter(|_| at == 0).map(|it| &it.dmz);
                edges.push(there(network, Edge::start(place, &manifests)).await?);
            }
            Ok(edges)
        };
        let (edges, partner) = tokio::try_join!(edges, partner)?;
        let mut scene = Self {
            partner,
            edges,
            sidecars: Vec::new(),
            insides: Vec::new(),
            networks,
            lab,
        };
        for number in 0..plan.servers {
            scene.inside(plan, number).await?;
        }
        Ok(scene)
    }

    /// One more server inside, with its sidecar.
    async fn inside(&mut self, plan: &SidecarScenePlan, number: u8) -> Result<()> {
        let lab = &self.lab;
        let address = match &self.networks {
            None => lab.ip(SIDECAR_HOST + number),
            Some(_) => Ipv4Addr::LOCALHOST,
        };
        let mut sidecar = Sidecar::at(lab, address, &format!("prosody-{number}"))?;
        sidecar.copy_from(self.edges[0].place(), OWN)?;
        for edge in &self.edges[1..] {
            sidecar.dials_also(edge.place(), OWN)?;
        }
        let ip = lab.ip(INSIDE_HOST + number);
        sidecar.server = Some((ip, S2S_PORT).into());
        let network = self.networks.as_ref().map(|it| &it.inside);
        there(network, sidecar.start()).await?;
        let authority = authority_of(&sidecar).await?;
        let security = match plan.trust {
            Trust::Told => Security::TlsDialback,
            Trust::Missing => Security::Certificates,
        };
        let mut inner = lab.spec(OWN, INSIDE_HOST + number, "alice", security);
        inner.resolver = address;
        match plan.inside {
            // As packaged it trusts nobody of ours: dialback is what is left.
            Kind::Ejabberd | Kind::Ejabberd24 => {}
            Kind::Prosody | Kind::Prosody13 => {
                inner.trace = true;
                if plan.trust == Trust::Told {
                    inner.trust = authority;
                }
            }
        }
        if plan.is_direct_too {
            inner.identity = self.edges[0].gateway_identity(OWN)?;
            inner.trust += &self.edges[0].internal_ca()?;
        }
        let folder = lab.path(&format!("inside-{number}"));
        let server = there(network, Server::start(plan.inside, inner, &folder)).await?;
        self.sidecars.push(sidecar);
        self.insides.push(server);
        Ok(())
    }

    async fn connect(&self) -> Result<()> {
        self.list_keys()?;
        self.all_trunks().await?;
        self.switch().await
    }

    /// The first server inside gets the line, and is started again.
    pub async fn trust_sidecar(&mut self) -> Result<()> {
        let authority = authority_of(&self.sidecars[0]).await?;
        let inside = &mut self.insides[0];
        inside.trusts(authority, Security::TlsDialback).await
    }

    /// Changes the document that the first sidecar was given.
    pub fn rewrite<T>(&self, change: impl FnOnce(&mut Value) -> T) -> Result<T> {
        let path = self.sidecars[0].path("given/sidecar.json");
        let mut document = serde_json::from_slice(&fs::read(&path)?)?;
        let told = change(&mut document);
        fs::write(&path, document.to_string())?;
        Ok(told)
    }

    /// The lines that the sidecars ask for.
    pub fn list_keys(&self) -> Result<()> {
        let mut keys = Vec::new();
        for sidecar in &self.sidecars {
            keys.push(json!({ "name": sidecar.instance(), "spkiSha256": sidecar.key()? }));
        }
        self.edit(|gateway| gateway["sidecar"]["keys"] = json!(keys))
    }

    pub fn unlist_keys(&self) -> Result<()> {
        self.edit(|gateway| gateway["sidecar"]["keys"] = json!([]))
    }

    /// From now on nothing but trunks lead inside; returns once that is in force.
    pub async fn switch(&self) -> Result<()> {
        self.edit(|gateway| {
            gateway["mode"] = json!("Sidecar");
            gateway.as_object_mut().map(|it| it.remove("address"));
        })?;
        self.in_force("Sidecar").await
    }

    /// From now on edges dial the first server themselves; returns once that is in force.
    pub async fn switch_back(&self) -> Result<()> {
        let address = direct_address(&self.lab);
        self.edit(|gateway| {
            gateway["mode"] = json!("Direct");
            gateway["address"] = json!(address);
        })?;
        self.in_force("Direct").await
    }

    async fn in_force(&self, mode: &str) -> Result<()> {
        for edge in &self.edges {
            wait::until("the mode is in force", wait::GENEROUS, async || {
                let status = edge.status().await.ok()?;
                (status["gateways"][0]["mode"] == mode).then_some(())
            })
            .await?;
        }
        Ok(())
    }

    /// How many trunks stand at an edge.
    pub async fn trunks(&self, edge: usize) -> Result<usize> {
        let status = self.edges[edge].status().await?;
        let streams = status["streams"].as_array().into_iter().flatten();
        Ok(streams.filter(|it| it["trunk"] == true).count())
    }

    /// Until each sidecar has a trunk to each edge.
    pub async fn all_trunks(&self) -> Result<()> {
        for edge in 0..self.edges.len() {
            wait::until("all trunks stand", wait::GENEROUS, async || {
                (self.trunks(edge).await.ok()? == self.sidecars.len()).then_some(())
            })
            .await?;
        }
        Ok(())
    }

    /// What an edge says of its gateway's sidecars.
    pub async fn shown_sidecars(&self, edge: usize) -> Result<Vec<Value>> {
        let status = self.edges[edge].status().await?;
        let sidecars = status["gateways"][0]["sidecars"].as_array();
        Ok(sidecars.context("no sidecars in /status")?.clone())
    }

    fn edit(&self, change: impl Fn(&mut Value)) -> Result<()> {
        for edge in &self.edges {
            edge.edit("EdgePool", &pool_of(edge), |pool| {
                change(&mut pool["spec"]["gateways"][0]);
            })?;
        }
        Ok(())
    }

    /// The own user, at the server of this number.
    pub fn alice(&self, server: usize) -> End {
        end(&self.insides[server], "alice")
    }

    /// The partner's user.
    pub fn bob(&self) -> End {
        end(&self.partner, "bob")
    }

    pub fn logs(&self) -> String {
        let mut logs = format!("=== partner\n{}\n", self.partner.log());
        for edge in &self.edges {
            logs += &format!("=== edge\n{}\n", edge.log());
        }
        for (sidecar, server) in self.sidecars.iter().zip(&self.insides) {
            logs += &format!("=== sidecar\n{}\n", sidecar.log());
            logs += &format!("=== inside\n{}\n", server.log());
        }
        logs
    }
}

/// PEM of the authority that a sidecar has made for its server.
pub async fn authority_of(sidecar: &Sidecar) -> Result<String> {
    let ca = sidecar.path("state/public/ca.crt");
    wait::until("its authority is there", wait::GENEROUS, async || {
        fs::read_to_string(&ca).ok()
    })
    .await
}

/// Runs a future in a network, where there is one.
pub async fn there<F: Future>(network: Option<&Network>, future: F) -> F::Output {
    match network {
        None => future.await,
        Some(network) => network.within(future).await,
    }
}

impl SceneNetworks {
    /// Wires between the three; the firewall inside lets out and nothing in from the first edge's host. `world` has
    /// the addresses of all others.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn in_world(world: &Network, edges: usize) -> Result<Self> {
        let block = Block::apart();
        let own = block.host(1);
        let (dmz, inside) = (Network::new("")?, Network::new("")?);
        let (public, internal) = (block.host(EDGE_HOST), block.host(EDGE_HOST + 1));
        let (server, sidecar) = (block.host(INSIDE_HOST), block.host(SIDECAR_HOST));
        let outside = [own, block.host(PARTNER_HOST), block.host(DNS_HOST)];
        let others: Vec<_> = (1..edges)
            .flat_map(|at| [edge_host(at), edge_host(at) + 1])
            .map(|host| block.host(host))
            .collect();
        for address in outside.into_iter().chain(others.iter().copied()) {
            world.address(address)?;
        }
        for address in [public, internal] {
            dmz.address(address)?;
        }
        for address in [server, sidecar] {
            inside.address(address)?;
        }
        world.wire("edge0", &dmz, "world0")?;
        world.wire("inside0", &inside, WAY_OUT)?;
        dmz.wire("inside0", &inside, WIRE)?;
        for address in [public, internal] {
            world.way(address, "edge0", own)?;
            inside.way(address, WIRE, sidecar)?;
        }
        for address in [server, sidecar] {
            world.way(address, "inside0", own)?;
            dmz.way(address, "inside0", internal)?;
        }
        for address in outside {
            dmz.way(address, "world0", public)?;
        }
        for address in outside.into_iter().chain(others) {
            inside.way(address, WAY_OUT, sidecar)?;
        }
        inside.forbid_opening(WIRE)?;
        Ok(Self { dmz, inside })
    }
}

fn edge_host(at: usize) -> u8 {
    EDGE_HOST + 2 * u8::try_from(at).expect("a few edges")
}

/// A user of a server.
pub fn end(server: &Server, user: &str) -> End {
    End {
        server: server.c2s(),
        jid: format!("{user}@{}", server.spec().domain),
    }
}

/// The name of an edge's pool: its one manifest of the kind.
fn pool_of(edge: &Edge) -> String {
    let folder: PathBuf = edge.place().directory.join("manifests");
    let names = fs::read_dir(folder).expect("manifests").flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let pools = names.filter_map(|name| {
        let rest = name.strip_prefix("EdgePool-")?;
        Some(rest.strip_suffix(".yaml")?.to_owned())
    });
    pools.last().expect("it has a pool")
}

/// A gateway of mode `Direct` to which sidecars may connect; they are not used yet.
fn prepared(lab: &Lab, sidecar_server: &str) -> Value {
    let server = direct_address(lab);
    json!({
        "domains": [OWN],
        "mode": "Direct",
        "address": server,
        "sidecar": { "serverAddress": server, "server": sidecar_server },
    })
}

/// Where the first server inside listens.
fn direct_address(lab: &Lab) -> String {
    format!("{}:{S2S_PORT}", lab.ip(INSIDE_HOST))
}

/// One pool with this gateway, one partner of type Federated, and a policy that lets everyone talk to it.
pub fn manifests(
    lab: &Lab,
    (pool, priority): (&str, u16),
    fqdn: &str,
    gateway: Value,
    settings: &Value,
) -> Vec<Value> {
    let certificate = lab
        .authority()
        .issue(&[OWN, fqdn], Usage::ServerAndClientAuth);
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
            pool,
            json!({
                "site": "here",
                "domains": [OWN],
                "accessEdge": { "fqdn": fqdn },
                "route": { "priority": priority },
                "gateways": [gateway],
                "certificate": { "secretRef": { "name": "edge-certificate" } },
                "trust": { "caConfigMapRef": { "name": "public-roots", "key": "ca.crt" } },
                "settings": settings,
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
