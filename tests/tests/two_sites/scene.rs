//! The organisation, its partner, and the sites between them.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context, Result};
use hickory_proto::rr::RecordType;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    client::Client,
    cluster::{
        ApiServer, ControllerManager, Namespace, Operator, ProcessPod, WITHOUT_NODES,
        pools::{SOON, create, secret, text, until},
    },
    edge::{Place, manifest},
    federation::everyone_may,
    lab::Lab,
    pki::{Leaf, Usage},
    primary::{EDITOR, Primary, SECRET, Software},
    servers::{Kind, S2S_PORT, Security, Server},
    wait,
};

pub const OWN: &str = "org.example";
pub const PARTNER: &str = "partner.example";
/// Namespace of the organisation in each cluster.
const NAMESPACE: &str = "chat";
pub const INSIDE_HOST: u8 = 30;
pub const PARTNER_HOST: u8 = 10;

/// What both sites share: addresses, the public CA, and the primary of the organisation's zone.
pub struct World {
    pub primary: Primary,
    pub lab: Lab,
}

impl World {
    pub async fn new() -> Result<Self> {
        let primary = Primary::start(Software::Bind, &[(OWN, "")]).await?;
        let lab = Lab::new().await?;
        lab.dns().delegate(OWN, primary.address());
        Ok(Self { primary, lab })
    }

    /// The partner's server. What it finds of the organisation is what the primary answers.
    pub async fn partner(&self, security: Security) -> Result<Server> {
        let spec = self.lab.spec(PARTNER, PARTNER_HOST, "bob", security);
        self.lab.publish(&spec);
        Server::start(Kind::Prosody, spec, self.lab.directory()).await
    }

    /// The organisation's server, with certificate and trust from the cluster.
    pub async fn inside(&self, cluster: &Cluster, resolvers: Vec<SocketAddr>) -> Result<Server> {
        let mut spec = self
            .lab
            .spec(OWN, INSIDE_HOST, "alice", Security::Certificates);
        spec.resolvers = resolvers;
        (spec.identity, spec.trust) = cluster.gateway().await?;
        Server::start(Kind::Prosody, spec, self.lab.directory()).await
    }

    /// Waits until `_xmpp-server` of the organisation leads to just these sites, in the order of
    /// their priorities.
    pub async fn leads_to(&self, sites: &[&str]) -> Result<()> {
        let name = format!("_xmpp-server._tcp.{OWN}");
        let mut last = Vec::new();
        let found = wait::until(&format!("{OWN} leads to {sites:?}"), SOON, async || {
            let records = self.primary.records(&name, RecordType::SRV).await.ok()?;
            last = records
                .iter()
                .filter_map(|record| Some(record.rsplit_once(' ')?.1.split_once('.')?.0.to_owned()))
                .collect();
            (last == sites).then_some(())
        })
        .await;
        found.with_context(|| format!("it leads to {last:?}"))
    }
}

/// A cluster with the organisation's objects and an operator.
pub struct Cluster {
    _operator: Operator,
    _controllers: ControllerManager,
    client: kube::Client,
    // Last, so that it outlives who uses it.
    server: ApiServer,
}

impl Cluster {
    /// Starts one. `partner` is the partner's spec beside its domain; the Secrets `given` are there
    /// before the operator is.
    pub async fn start(world: &World, partner: Value, given: &[Secret]) -> Result<Self> {
        let server = ApiServer::start().await?;
        server.install_kinds().await?;
        let controllers = ControllerManager::start(&server, WITHOUT_NODES).await?;
        let namespace = Namespace::new(&server, NAMESPACE).await?;
        for secret in given {
            let secrets: Api<Secret> = namespace.api();
            secrets.create(&PostParams::default(), secret).await?;
        }
        let operator = Operator::start(&namespace, &[]).await?;
        secret(
            &namespace,
            "tsig",
            json!({"name": EDITOR, "secret": SECRET}),
        )
        .await?;
        let authority = world.lab.authority();
        let names = [OWN, "hq.org.example", "dr.org.example"];
        let edge = authority.issue(&names, Usage::ServerAndClientAuth);
        let pair = json!({"tls.crt": edge.certificate, "tls.key": edge.key});
        secret(&namespace, "edge", pair).await?;
        let roots = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "public-roots"}, "data": {"ca.crt": authority.certificate()}});
        namespace
            .api::<ConfigMap>()
            .patch(
                "public-roots",
                &PatchParams::apply("somebody"),
                &Patch::Apply(roots),
            )
            .await?;
        let mut spec = json!({"domain": PARTNER, "partnerType": "Federated"});
        let more = partner.as_object().unwrap().clone();
        spec.as_object_mut().unwrap().extend(more);
        create(
            &namespace,
            &manifest("XmppFederatedPartner", "partner", spec),
        )
        .await?;
        create(&namespace, &everyone_may()).await?;
        let client = namespace.client.clone();
        Ok(Self {
            _operator: operator,
            _controllers: controllers,
            client,
            server,
        })
    }

    pub fn namespace(&self) -> Namespace<'_> {
        Namespace {
            server: &self.server,
            name: NAMESPACE.to_owned(),
            client: self.client.clone(),
        }
    }

    /// A site: its pool, and what runs the pool's pod. It is at `hosts` of the lab, outside and
    /// inside; partners try the lower priority first.
    pub async fn site(
        &self,
        world: &World,
        name: &'static str,
        hosts: (u8, u8),
        priority: u16,
    ) -> Result<Site> {
        let server = SocketAddr::from((world.lab.ip(INSIDE_HOST), S2S_PORT));
        let gateway = json!({"domains": [OWN], "mode": "Direct", "address": server.to_string()});
        self.site_by(world, name, hosts, priority, gateway).await
    }

    /// As [`Self::site`], with this way inside.
    pub async fn site_by(
        &self,
        world: &World,
        name: &'static str,
        hosts: (u8, u8),
        priority: u16,
        gateway: Value,
    ) -> Result<Site> {
        let (lab, namespace) = (&world.lab, self.namespace());
        let spec = json!({
            "site": name, "domains": [OWN], "replicas": 1,
            "accessEdge": {"fqdn": format!("{name}.{OWN}"), "addresses": [lab.ip(hosts.0)]},
            "route": {"priority": priority},
            "listeners": {"dns": 53},
            "internalService": {"addresses": [lab.ip(hosts.1)]},
            "gateways": [gateway],
            "certificate": {"secretRef": {"name": "edge"}},
            "trust": {"caConfigMapRef": {"name": "public-roots", "key": "ca.crt"}},
            "dns": {"rfc2136": {"server": world.primary.address().to_string(), "ttlSeconds": 5,
                "tsigSecretRef": {"name": "tsig"}}},
        });
        create(&namespace, &manifest("EdgePool", name, spec)).await?;
        let mut place = Place::in_lab(lab, hosts.0, hosts.1);
        place.directory = lab.path(name);
        Ok(Site {
            name,
            pod: ProcessPod::run(&namespace, name, place)?,
        })
    }

    /// What the operator made for the server inside: its pair, and whom it trusts.
    async fn gateway(&self) -> Result<(Leaf, String)> {
        let namespace = self.namespace();
        let name = format!("xmpp-edge-gateway-{OWN}");
        let identity = until(&namespace, &name, |it: &Secret| {
            Some(Leaf {
                certificate: text(it, "tls.crt")?,
                key: text(it, "tls.key")?,
            })
        });
        let trust = until(&namespace, "xmpp-edge-internal-ca", |it: &ConfigMap| {
            it.data.as_ref()?.get("ca.crt").cloned()
        });
        tokio::try_join!(identity, trust)
    }

    /// What another cluster is to have alike, once it is made: internal CA and dialback secret, as
    /// somebody copies them who knows nothing of labels.
    pub async fn to_be_given(&self) -> Result<Vec<Secret>> {
        let mut copies = Vec::new();
        for name in ["xmpp-edge-internal-ca", "xmpp-edge-dialback"] {
            let namespace = self.namespace();
            let made = until(&namespace, name, |it: &Secret| it.data.clone()).await?;
            let copy = json!({"metadata": {"name": name}, "data": made});
            copies.push(serde_json::from_value(copy)?);
        }
        Ok(copies)
    }

    /// A Secret's text.
    pub async fn secret(&self, name: &str, key: &str) -> Result<String> {
        let api: Api<Secret> = self.namespace().api();
        let found = text(&api.get(name).await?, key);
        found.context("it has the key")
    }
}

/// One edge.
pub struct Site {
    pub name: &'static str,
    pub pod: ProcessPod,
}

impl Site {
    /// Its DNS view.
    pub fn view(&self) -> SocketAddr {
        SocketAddr::from((self.pod.place().internal_bind, 53))
    }

    /// Directions of the partner's streams there, in order, without doubles.
    pub async fn directions(&self) -> Result<Vec<String>> {
        let streams = self.pod.streams("Partner").await?;
        let directions = streams.iter().filter_map(|it| it["direction"].as_str());
        let mut directions: Vec<String> = directions.map(str::to_owned).collect();
        directions.sort();
        directions.dedup();
        Ok(directions)
    }
}

/// Sends until one arrives: what was under way when a site died may be answered with an error.
pub async fn gets_through(from: &Client, to: &Client) -> Result<()> {
    let what = format!("{} reaches {}", from.bare(), to.bare());
    wait::until(&what, wait::GENEROUS * 2, async || {
        let id = from.fresh_id();
        from.message(to.full(), &id, "are you there?").await.ok()?;
        let arrives = |stanza: &xmpp_edge_tests::xml::Element| {
            stanza.name == "message"
                && stanza.attribute("id") == Some(&id)
                && stanza.attribute("type") != Some("error")
        };
        let limit = std::time::Duration::from_secs(3);
        to.expect_within(&what, limit, arrives).await.ok().map(drop)
    })
    .await
}

/// What everyone logged, for a failed test.
pub fn logs(servers: &[&Server], sites: &[&Site]) -> String {
    let mut all = BTreeMap::new();
    for server in servers {
        all.insert(server.spec().domain.clone(), server.log());
    }
    for site in sites {
        all.insert(site.name.to_owned(), site.pod.log());
    }
    let parts = all.iter().map(|(name, log)| format!("=== {name}\n{log}\n"));
    parts.collect()
}
