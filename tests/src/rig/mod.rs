//! One edge that serves many scripted tests: own domains, scripted servers inside, a partner object
//! for each test, and a well-behaved partner that must never notice what the tests do.
//!
//! A [`Shared`] rig starts with the first test that needs it and ends with the last; each test works
//! as a [`Scene`] with a partner's domain of its own, so that its metrics and attempts are its own.

mod manifests;
mod plan;
mod scene;
mod shared;

pub use crate::runtime::alone;
pub use plan::Plan;
pub use scene::{Moved, Scene};
pub use shared::Shared;

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::Result;
use tokio::sync::Mutex;

use crate::{
    edge::{Edge, INTERNAL_PORT, Place},
    lab::Lab,
    peer::{Behaviour, Identity, Login, Peer, PeerServer},
    pki::{Leaf, Usage},
    servers::{DIRECT_TLS_PORT, S2S_PORT},
};
use manifests::{manifests, publish};

/// The organisation's domains; the second has a gateway of its own.
pub const OWN: &str = "org.example";
pub const SECOND: &str = "second.example";
/// An own domain whose server inside does not run, until a test starts one at [`Rig::down`].
pub const DOWN: &str = "down.example";
/// Allowed to talk to everyone.
pub const ALICE: &str = "alice@org.example";
/// Has a policy that allows nothing.
pub const BOB: &str = "bob@org.example";
/// In no partner object.
pub const EVIL: &str = "evil.example";
/// The partner that always behaves.
pub const GOOD: &str = "good.example";

const FQDN: &str = "edge.example";
const EDGE_HOST: u8 = 20;
const EDGE_INTERNAL_HOST: u8 = 21;
const INSIDE_HOST: u8 = 30;
const SECOND_HOST: u8 = 31;
const DOWN_HOST: u8 = 32;
const GOOD_HOST: u8 = 50;
const EVIL_HOST: u8 = 51;
/// Host part of the first test's partner.
const FIRST_PARTNER_HOST: u8 = 60;

/// The running rig.
pub struct Rig {
    pub plan: Plan,
    /// Locked by those who restart it or edit its manifests.
    pub edge: Mutex<Edge>,
    /// The scripted server of [`OWN`].
    pub inside: PeerServer,
    /// The scripted server of [`SECOND`].
    pub second: PeerServer,
    /// The scripted server of [`GOOD`].
    pub good: PeerServer,
    good_identity: Leaf,
    own_identity: Leaf,
    place: Place,
    number: AtomicU64,
    // Last, so that its directory and DNS outlive the processes.
    pub lab: Lab,
}

impl Rig {
    /// Starts edge, servers inside and the good partner.
    ///
    /// # Errors
    /// The first part that does not get ready.
    pub async fn start(plan: Plan) -> Result<Self> {
        let lab = Lab::new().await?;
        let place = Place::in_lab(&lab, EDGE_HOST, EDGE_INTERNAL_HOST);
        lab.dns().host(FQDN, place.bind);
        for domain in [OWN, SECOND, DOWN] {
            lab.dns().xmpp_server(domain, 0, 0, S2S_PORT, FQDN);
        }
        publish(&lab, GOOD, GOOD_HOST);
        publish(&lab, EVIL, EVIL_HOST);
        for test in 1..=plan.tests {
            publish(&lab, &plan.domain(test), FIRST_PARTNER_HOST - 1 + test);
        }
        let edge = Edge::start(place.clone(), &manifests(&lab, &plan)).await?;
        let own_identity = edge.gateway_identity(OWN)?;
        let second_identity = edge.gateway_identity(SECOND)?;
        let good_identity = lab.authority().issue(&[GOOD], Usage::ServerAuth);
        let server = async |host: u8, leaf: &Leaf| {
            let at = SocketAddr::from((lab.ip(host), S2S_PORT));
            PeerServer::listen(at, Behaviour::good(Identity::of(leaf)?)).await
        };
        Ok(Self {
            inside: server(INSIDE_HOST, &own_identity).await?,
            second: server(SECOND_HOST, &second_identity).await?,
            good: server(GOOD_HOST, &good_identity).await?,
            plan,
            edge: Mutex::new(edge),
            good_identity,
            own_identity,
            place,
            number: AtomicU64::new(0),
            lab,
        })
    }

    /// A text that nobody else uses.
    pub fn fresh(&self) -> String {
        format!("n{}", self.number.fetch_add(1, Ordering::Relaxed))
    }

    /// The public STARTTLS listener.
    pub fn public(&self) -> SocketAddr {
        SocketAddr::from((self.place.bind, S2S_PORT))
    }

    /// The public direct TLS listener.
    pub fn direct(&self) -> SocketAddr {
        SocketAddr::from((self.place.bind, DIRECT_TLS_PORT))
    }

    /// The internal listener.
    pub fn internal(&self) -> SocketAddr {
        SocketAddr::from((self.place.internal_bind, INTERNAL_PORT))
    }

    /// Starts the server of [`DOWN`].
    ///
    /// # Errors
    /// When it runs already.
    pub async fn down(&self) -> Result<PeerServer> {
        let identity = self.edge.lock().await.gateway_identity(DOWN)?;
        let at = SocketAddr::from((self.lab.ip(DOWN_HOST), S2S_PORT));
        PeerServer::listen(at, Behaviour::good(Identity::of(&identity)?)).await
    }

    /// The certificate that the edge keeps for the server of [`OWN`].
    pub fn own_identity(&self) -> &Leaf {
        &self.own_identity
    }

    /// `/metrics` as text.
    ///
    /// # Errors
    /// When the admin port does not answer.
    pub async fn metrics(&self) -> Result<String> {
        Ok(self.edge.lock().await.get("/metrics").await?.1)
    }

    /// A message each way with the good partner, over a new stream inwards.
    ///
    /// # Errors
    /// When one does not arrive.
    pub async fn serves_the_good_partner(&self) -> Result<()> {
        let login = Login::External(&self.good_identity);
        let mut peer = Peer::login(self.public(), GOOD, OWN, &login).await?;
        let id = self.fresh();
        let friend = format!("friend@{GOOD}");
        peer.message(&friend, ALICE, &id, "hello").await?;
        self.inside.stanza_id(&id).await?;
        peer.send("</stream:stream>").await?;
        let login = Login::External(&self.own_identity);
        let mut inside = Peer::login(self.internal(), OWN, GOOD, &login).await?;
        let id = self.fresh();
        inside.message(ALICE, &friend, &id, "hello").await?;
        self.good.stanza_id(&id).await?;
        inside.send("</stream:stream>").await
    }
}
