//! The whole scene: a partner's server, the edge, and the organisation's server inside, wired by
//! one method on each side.

use std::{collections::BTreeMap, fmt};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    edge::{Edge, Place, manifest, texts},
    lab::Lab,
    pki::Usage,
    servers::{Acknowledge, Kind, S2S_PORT, Security, Server, Spec},
    wait,
};

/// The organisation's domain.
pub const OWN: &str = "org.example";
/// The partner's domain.
pub const PARTNER: &str = "partner.example";
/// Name of the partner's object.
pub const PARTNER_NAME: &str = "partner";
/// The edge's name in DNS.
pub const FQDN: &str = "edge.example";

const PARTNER_HOST: u8 = 10;
const EDGE_HOST: u8 = 20;
const EDGE_INTERNAL_HOST: u8 = 21;
const INSIDE_HOST: u8 = 30;

/// How the edge and one neighbour authenticate each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// STARTTLS and SASL EXTERNAL.
    External,
    /// As [`Self::External`], over direct TLS by `_xmpps-server`. Partner's side only.
    DirectTls,
    /// As [`Self::External`], one stream for both directions (XEP-0288). Prosody only.
    Bidi,
    /// STARTTLS, certificates that nobody trusts, dialback.
    TlsDialback,
    /// No TLS.
    TcpDialback,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Method {
    /// How a server has to be configured for it.
    pub fn security(self) -> Security {
        match self {
            Self::External | Self::DirectTls | Self::Bidi => Security::Certificates,
            Self::TlsDialback => Security::TlsDialback,
            Self::TcpDialback => Security::TcpDialback,
        }
    }

    /// `method` of `/status`.
    pub fn in_status(self) -> &'static str {
        match self {
            Self::External | Self::DirectTls | Self::Bidi => "SaslOverTls",
            Self::TlsDialback => "TlsDialback",
            Self::TcpDialback => "TcpDialback",
        }
    }

    /// Fields of a partner's `spec`, or of a gateway's `negotiation`, that allow it alone.
    fn negotiation(self) -> Value {
        match self {
            Self::External | Self::DirectTls | Self::Bidi => json!({}),
            Self::TlsDialback => json!({ "saslNegotiation": "NotSupported" }),
            Self::TcpDialback => {
                json!({ "tlsNegotiation": "NotSupported", "saslNegotiation": "NotSupported" })
            }
        }
    }
}

/// A domain: as DNS, certificates and manifests have it, and as its server hosts it.
#[derive(Clone, Copy, Debug)]
pub struct Hosted {
    pub name: &'static str,
    pub hosted: &'static str,
}

impl Hosted {
    /// In ASCII everywhere.
    pub const fn plain(name: &'static str) -> Self {
        Self { name, hosted: name }
    }
}

/// What to build.
#[derive(Clone, Copy, Debug)]
pub struct FederationPlan {
    pub partner: Kind,
    pub partner_method: Method,
    pub inside: Kind,
    pub inside_method: Method,
    /// What the server inside can say of what it read.
    pub inside_acknowledge: Acknowledge,
    /// The servers log every stanza, where they can.
    pub trace: bool,
}

/// A running scene: `bob@partner.example` – partner – edge – inside – `alice@org.example`.
pub struct Federation {
    pub partner: Server,
    pub inside: Server,
    pub edge: Edge,
    pub plan: FederationPlan,
    // Last, so that its directory and DNS outlive the processes.
    pub lab: Lab,
}

impl Federation {
    /// Starts everything; returns when all are ready.
    ///
    /// # Errors
    /// The first part that does not get ready, with its log.
    pub async fn start(plan: FederationPlan) -> Result<Self> {
        Self::start_with(plan, &json!({})).await
    }

    /// As [`Self::start`], with these `spec.settings` of the pool.
    ///
    /// # Errors
    /// As there.
    pub async fn start_with(plan: FederationPlan, settings: &Value) -> Result<Self> {
        let domains = (Hosted::plain(OWN), Hosted::plain(PARTNER));
        Self::start_as(plan, settings, domains).await
    }

    /// As [`Self::start_with`], with other domains of the organisation and of the partner.
    ///
    /// # Errors
    /// As there.
    pub async fn start_as(
        plan: FederationPlan,
        settings: &Value,
        (own, partner): (Hosted, Hosted),
    ) -> Result<Self> {
        let lab = Lab::new().await?;
        let mut outer = lab.spec(
            partner.name,
            PARTNER_HOST,
            "bob",
            plan.partner_method.security(),
        );
        outer.direct_tls = plan.partner_method == Method::DirectTls;
        outer.trace = plan.trace;
        outer.bidi = plan.partner_method == Method::Bidi;
        lab.publish(&outer);
        outer.domain = partner.hosted.to_owned();
        let place = Place::in_lab(&lab, EDGE_HOST, EDGE_INTERNAL_HOST);
        lab.dns().host(FQDN, place.bind);
        if plan.partner_method == Method::DirectTls {
            lab.dns().xmpps_server(own.name, 0, 0, 5270, FQDN);
        } else {
            lab.dns().xmpp_server(own.name, 0, 0, S2S_PORT, FQDN);
        }
        let manifests = manifests(&lab, plan, settings, (own.name, partner.name));
        let (edge, partner) = tokio::try_join!(
            Edge::start(place.clone(), &manifests),
            Server::start(plan.partner, outer, lab.directory()),
        )?;
        let inner = inside_spec(&lab, &edge, plan, &place, own)?;
        let inside = Server::start(plan.inside, inner, lab.directory()).await?;
        Ok(Self {
            partner,
            inside,
            edge,
            plan,
            lab,
        })
    }

    /// Checks that `/status` shows the plan's methods in use on both sides, and nothing else.
    ///
    /// # Errors
    /// What it shows instead.
    pub async fn shows_methods(&self) -> Result<()> {
        for (side, method) in [
            ("Partner", self.plan.partner_method),
            ("Gateway", self.plan.inside_method),
        ] {
            let what = format!("{side} streams by {method}");
            wait::until(&what, wait::GENEROUS, || async {
                let streams = self.edge.streams(side).await.ok()?;
                let right = streams.iter().all(|s| s["method"] == method.in_status())
                    && (method != Method::Bidi
                        || streams.iter().any(|s| s["bidirectional"] == true));
                (!streams.is_empty() && right).then_some(())
            })
            .await
            .context(format!("{:#}", self.edge.status().await?))?;
        }
        Ok(())
    }

    /// Logs of all three, for a failed test.
    pub fn logs(&self) -> String {
        format!(
            "=== partner\n{}\n=== edge\n{}\n=== inside\n{}\n=== DNS\n{:?}",
            self.partner.log(),
            self.edge.log(),
            self.inside.log(),
            self.lab.dns().asked()
        )
    }
}

/// The organisation's server: certificate and trust from the edge's internal PKI, the edge's DNS
/// view as resolver.
fn inside_spec(
    lab: &Lab,
    edge: &Edge,
    plan: FederationPlan,
    place: &Place,
    own: Hosted,
) -> Result<Spec> {
    let security = plan.inside_method.security();
    let mut spec = lab.spec(own.name, INSIDE_HOST, "alice", security);
    ensure!(
        plan.inside_method != Method::DirectTls,
        "the edge dials a gateway's address with STARTTLS"
    );
    spec.users.push("carol".into());
    spec.trace = plan.trace;
    spec.resolver = place.internal_bind;
    spec.bidi = plan.inside_method == Method::Bidi;
    spec.acknowledge = plan.inside_acknowledge;
    spec.trust = edge.internal_ca()?;
    if security == Security::Certificates {
        spec.identity = edge.gateway_identity(own.name)?;
    }
    spec.domain = own.hosted.to_owned();
    Ok(spec)
}

/// One pool, one partner of type Federated, and a policy that lets everyone talk to it.
fn manifests(
    lab: &Lab,
    plan: FederationPlan,
    settings: &Value,
    (own, peer): (&str, &str),
) -> Vec<Value> {
    let certificate = lab
        .authority()
        .issue(&[own, FQDN], Usage::ServerAndClientAuth);
    let mut partner = json!({
        "domain": peer,
        "partnerType": "Federated",
        "allowPlaintext": plan.partner_method == Method::TcpDialback,
    });
    merge(&mut partner, plan.partner_method.negotiation());
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
                "domains": [own],
                "accessEdge": { "fqdn": FQDN },
                "listeners": { "dns": 53 },
                "gateways": [{
                    "domains": [own],
                    "mode": "Direct",
                    "address": format!("{}:{S2S_PORT}", lab.ip(INSIDE_HOST)),
                    "negotiation": plan.inside_method.negotiation(),
                }],
                "certificate": { "secretRef": { "name": "edge-certificate" } },
                "trust": { "caConfigMapRef": { "name": "public-roots", "key": "ca.crt" } },
                "settings": settings,
            }),
        ),
        manifest("XmppFederatedPartner", PARTNER_NAME, partner),
        everyone_may(),
    ]
}

/// The global policy that opens everything.
pub fn everyone_may() -> Value {
    manifest(
        "ExternalAccessPolicy",
        "everyone",
        json!({
            "scope": "Global",
            "enableFederationAccess": true,
            "enableXmppAccess": true,
            "enablePublicCloudAccess": true,
        }),
    )
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}
