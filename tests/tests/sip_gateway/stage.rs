//! An edge whose server inside speaks SIP, and partners.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, SocketAddrV4},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    edge::{Edge, Place, manifest, texts},
    lab::Lab,
    peer::{Behaviour, Identity, Login, Peer, PeerServer},
    pki::{Leaf, Usage},
    servers::S2S_PORT,
    sip::{SIP_PORT, SIPS_PORT, SipParty, SipServer, request},
    wait,
};

/// The own domain, whose server speaks SIP.
pub const OWN: &str = "org.example";
/// The partner's domain.
pub const PARTNER: &str = "partner.example";
const FQDN: &str = "edge.example";

const EDGE_HOST: u8 = 20;
const EDGE_INTERNAL_HOST: u8 = 21;
const SIP_HOST: u8 = 30;
const PARTNER_HOST: u8 = 50;

/// What a stage may have that is not as usual.
#[derive(Clone, Debug)]
pub struct StagePlan {
    /// `sip` of the gateway.
    pub sip: Value,
    /// `address` of the gateway, in place of where [`Stage::sip_address`] is.
    pub address: Option<&'static str>,
    /// Further gateways, each with a domain of its own.
    pub others: Vec<Value>,
    /// `trust` of the gateway.
    pub trust: Value,
    /// `spec.settings` of the pool.
    pub settings: Value,
    /// `spec` of the partner.
    pub partner: Value,
    /// `spec.listeners` of the pool.
    pub listeners: Value,
}

impl Default for StagePlan {
    fn default() -> Self {
        Self {
            sip: json!({}),
            address: None,
            others: Vec::new(),
            trust: Value::Null,
            settings: json!({}),
            partner: json!({ "domain": PARTNER, "partnerType": "Federated" }),
            listeners: json!({}),
        }
    }
}

/// An edge, and where the others are.
pub struct Stage {
    pub edge: Edge,
    partner_identity: Leaf,
    // Last, so that its directory and DNS outlive the processes.
    pub lab: Lab,
}

impl Stage {
    /// The edge runs; its SIP server does not yet.
    pub async fn start(plan: StagePlan) -> Result<Self> {
        let lab = Lab::new().await?;
        let place = Place::in_lab(&lab, EDGE_HOST, EDGE_INTERNAL_HOST);
        lab.dns().host(FQDN, place.bind);
        lab.dns().xmpp_server(OWN, 0, 0, S2S_PORT, FQDN);
        let target = format!("xmpp.{PARTNER}");
        lab.dns().host(&target, lab.ip(PARTNER_HOST));
        lab.dns().xmpp_server(PARTNER, 0, 0, S2S_PORT, &target);
        let further = plan
            .others
            .iter()
            .filter_map(|it| it["domains"][0].as_str());
        let domains: Vec<&str> = [OWN].into_iter().chain(further).collect();
        let names = [&[FQDN], &*domains].concat();
        let identity = lab.authority().issue(&names, Usage::ServerAndClientAuth);
        let own = texts(
            "Secret",
            "edge-certificate",
            &BTreeMap::from([("tls.crt", identity.certificate), ("tls.key", identity.key)]),
        );
        let roots = BTreeMap::from([("ca.crt", lab.authority().certificate())]);
        let mut pool = json!({
            "site": "here",
            "domains": domains,
            "accessEdge": { "fqdn": FQDN },
            "gateways": [{
                "domains": [OWN],
                "mode": "Sip",
                "address": plan.address.map_or_else(
                    || format!("{}:{SIPS_PORT}", lab.ip(SIP_HOST)),
                    str::to_owned,
                ),
                "sip": plan.sip,
            }],
            "certificate": { "secretRef": { "name": "edge-certificate" } },
            "trust": { "caConfigMapRef": { "name": "roots", "key": "ca.crt" } },
            "settings": plan.settings,
            "listeners": plan.listeners,
        });
        if !plan.trust.is_null() {
            pool["gateways"][0]["trust"] = plan.trust;
        }
        for mut other in plan.others {
            // Addresses of the lab are known by their host part alone.
            if let Some(host) = other["host"].take().as_u64() {
                let host = u8::try_from(host)?;
                let port = if other["mode"] == "Sip" {
                    SIPS_PORT
                } else {
                    S2S_PORT
                };
                other["address"] = json!(format!("{}:{port}", lab.ip(host)));
            }
            if let Some(other) = other.as_object_mut() {
                other.remove("host");
            }
            if let Some(gateways) = pool["gateways"].as_array_mut() {
                gateways.push(other);
            }
        }
        let access = json!({
            "scope": "Global", "enableFederationAccess": true,
            "enableXmppAccess": true, "enablePublicCloudAccess": true,
        });
        let nothing = json!({
            "scope": "User", "users": ["bob@org.example"], "enableFederationAccess": false,
            "enableXmppAccess": false, "enablePublicCloudAccess": false,
        });
        let manifests = [
            own,
            texts("ConfigMap", "roots", &roots),
            manifest("EdgePool", "edge", pool),
            manifest("XmppFederatedPartner", "partner", plan.partner),
            manifest("ExternalAccessPolicy", "everybody", access),
            manifest("ExternalAccessPolicy", "nothing-for-bob", nothing),
        ];
        let edge = Edge::start(place, &manifests).await?;
        let partner_identity = lab.authority().issue(&[PARTNER], Usage::ServerAuth);
        Ok(Self {
            edge,
            partner_identity,
            lab,
        })
    }

    /// As [`Self::start`], by TCP.
    pub async fn start_by_tcp() -> Result<Self> {
        Self::start(StagePlan {
            sip: json!({ "transport": "Tcp", "allowPlaintext": true }),
            listeners: json!({ "sipTcp": SIP_PORT }),
            ..StagePlan::default()
        })
        .await
    }

    /// Where the SIP server is to be.
    pub fn sip_address(&self) -> SocketAddr {
        self.sip_server_at(SIPS_PORT).into()
    }

    /// The SIP server's host, another port.
    pub fn sip_server_at(&self, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.lab.ip(SIP_HOST), port)
    }

    /// Where the edge listens for partners.
    pub fn edge_xmpp(&self) -> SocketAddr {
        SocketAddr::from((self.lab.ip(EDGE_HOST), S2S_PORT))
    }

    /// Where the edge listens for SIP servers.
    pub fn edge_sip(&self) -> SocketAddr {
        SocketAddr::from((self.lab.ip(EDGE_INTERNAL_HOST), SIPS_PORT))
    }

    /// Where the edge listens for those that have no TLS.
    pub fn edge_sip_tcp(&self) -> SocketAddr {
        SocketAddr::from((self.lab.ip(EDGE_INTERNAL_HOST), SIP_PORT))
    }

    /// The certificate that the edge keeps for the SIP server.
    pub fn sip_identity(&self) -> Result<Leaf> {
        self.edge.gateway_identity(OWN)
    }

    /// A scripted SIP server; the edge reaches it.
    pub async fn sip_server(&self) -> Result<SipServer> {
        let identity = Identity::of(&self.sip_identity()?)?;
        let server = SipServer::listen(self.sip_address(), identity).await?;
        self.reaches_server().await?;
        Ok(server)
    }

    /// Waits until the edge reaches its SIP server.
    pub async fn reaches_server(&self) -> Result<()> {
        let what = "the edge reaches the SIP server";
        let reached = wait::until(what, wait::GENEROUS, async || {
            let status = self.edge.status().await.ok()?;
            (status["gateways"][0]["reachable"] == json!(true)).then_some(())
        });
        let reached = reached.await;
        reached.with_context(|| self.edge.log())
    }

    /// Waits until the edge knows that it does not reach its SIP server, for want of this step.
    pub async fn misses_server(&self, step: &str) -> Result<()> {
        wait::until(
            "the edge misses the SIP server",
            wait::GENEROUS,
            async || {
                let status = self.edge.status().await.ok()?;
                let gateway = &status["gateways"][0];
                // What the server's own connections came to stands behind.
                let mut steps = gateway["lastAttempt"].as_array()?.iter();
                let last = steps.rfind(|step| step["direction"] == "inbound")?;
                (gateway["reachable"] == json!(false) && last["step"] == json!(step)).then_some(())
            },
        )
        .await
    }

    /// A connection to the edge by which the SIP server sends.
    pub async fn dial_edge(&self) -> Result<SipParty> {
        let identity = Identity::of(&self.sip_identity()?)?;
        SipParty::dial(self.edge_sip(), Some(identity)).await
    }

    /// The partner's scripted server: EXTERNAL, acknowledgements.
    pub async fn outside(&self) -> Result<PeerServer> {
        self.outside_as(|_| ()).await
    }

    /// As [`Self::outside`], behaving otherwise.
    pub async fn outside_as(&self, change: impl FnOnce(&mut Behaviour)) -> Result<PeerServer> {
        let mut behaviour = Behaviour::good(Identity::of(&self.partner_identity)?);
        change(&mut behaviour);
        let at = SocketAddr::from((self.lab.ip(PARTNER_HOST), S2S_PORT));
        PeerServer::listen(at, behaviour).await
    }

    /// A stream from the partner to the edge.
    pub async fn partner(&self) -> Result<Peer> {
        self.partner_to(OWN).await
    }

    /// As [`Self::partner`], to another own domain.
    pub async fn partner_to(&self, domain: &str) -> Result<Peer> {
        let login = Login::External(&self.partner_identity);
        Peer::login(self.edge_xmpp(), PARTNER, domain, &login).await
    }
}

/// A MESSAGE of alice's to a user of the partner.
pub fn message(to: &str, unique: &str, body: &str) -> String {
    typed_message(to, unique, "text/plain", body)
}

/// As [`message`], of another media type.
pub fn typed_message(to: &str, unique: &str, media_type: &str, body: &str) -> String {
    let more = format!("Content-Type: {media_type}\r\n");
    request("MESSAGE", "sip:alice@org.example", to, unique, &more, body)
}
