//! Two pods of one domain are replaced one after the other at 500 messages a second, real servers on
//! both sides: each ends in order, the other takes over, and nothing is lost.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use xmpp_edge_tests::{
    dns::NameServer,
    edge::{INTERNAL_PORT, Place},
    lab::Lab,
    pki::{Authority, Usage},
    pod::{Document, Pod},
    servers::{Kind, S2S_PORT, Security, Server},
    traffic::{Account, End, RATE, Traffic},
};

const OWN: &str = "org.example";
const PARTNER: &str = "partner.example";
const COUNT: u32 = 5000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Inbound,
    Outbound,
}

struct Scene {
    pods: [Pod; 2],
    partner: Server,
    inside: Server,
    // Last, so that their directory and DNS outlive the processes.
    _view: NameServer,
    _lab: Lab,
}

impl Scene {
    async fn start() -> Result<Self> {
        let lab = Lab::new().await?;
        let internal = Authority::new("Internal CA");
        let outer = lab.spec(PARTNER, 10, "bob", Security::Certificates);
        lab.publish(&outer);
        let mut inner = lab.spec(OWN, 30, "alice", Security::Certificates);
        inner.trust = internal.certificate();
        inner.identity = internal.issue(&[OWN], Usage::ServerAndClientAuth);
        // What both pods' views would answer, and go on answering while one is away.
        let view = NameServer::start(lab.ip(54)).await?;
        inner.resolver = lab.ip(54);
        let document = Document {
            own: OWN.to_owned(),
            gateway: SocketAddr::from((lab.ip(30), S2S_PORT)),
            partner: PARTNER.to_owned(),
            roots: lab.authority().certificate(),
            partner_type: "Federated",
            suspended: false,
            contacts: "Embedded",
        };
        let mut pods = Vec::new();
        for (name, public, private, priority) in [("a", 20, 21, 10), ("b", 22, 23, 20)] {
            let (outside, within) = (
                format!("{name}.edge.example"),
                format!("{name}.inside.example"),
            );
            lab.dns().host(&outside, lab.ip(public));
            lab.dns().xmpp_server(OWN, priority, 0, S2S_PORT, &outside);
            view.host(&within, lab.ip(private));
            view.xmpp_server(PARTNER, priority, 0, INTERNAL_PORT, &within);
            let mut pod = Pod::start(Place::in_lab(&lab, public, private)).await?;
            let edge = lab
                .authority()
                .issue(&[OWN, "edge.example"], Usage::ServerAndClientAuth);
            let issuer = internal.intermediate();
            pod.secrets.change(&[
                ("tls.crt", Some(edge.certificate.as_bytes())),
                ("tls.key", Some(edge.key.as_bytes())),
                ("issuer.crt", Some(issuer.certificate.as_bytes())),
                ("issuer.key", Some(issuer.key.as_bytes())),
                ("internal-ca.crt", Some(internal.certificate().as_bytes())),
                ("dialback-secret", Some(b"a secret of more than sixteen")),
            ])?;
            pod.configure(&document.generation(1))?;
            pod.readiness(200, &["ready"], &[]).await?;
            pods.push(pod);
        }
        let (partner, inside) = tokio::try_join!(
            Server::start(Kind::Prosody, outer, lab.directory()),
            Server::start(Kind::Prosody, inner, lab.directory()),
        )?;
        let Ok(pods) = <[Pod; 2]>::try_from(pods) else {
            unreachable!("two were started");
        };
        Ok(Self {
            pods,
            partner,
            inside,
            _view: view,
            _lab: lab,
        })
    }

    /// Messages one way while pod a, then pod b is replaced.
    async fn roll(&mut self, direction: Direction) -> Result<Account> {
        let end = |server: &Server, user: &str| End {
            server: server.c2s(),
            jid: format!("{user}@{}", server.spec().domain),
        };
        let (alice, bob) = (end(&self.inside, "alice"), end(&self.partner, "bob"));
        let (from, to) = match direction {
            Direction::Outbound => (alice, bob),
            Direction::Inbound => (bob, alice),
        };
        let traffic = Traffic::start(from, to, COUNT, RATE).await?;
        for (number, pod) in self.pods.iter_mut().enumerate() {
            traffic.arrived(1000 + number * 1500).await?;
            pod.stop().await?;
            pod.launch().await?;
            pod.readiness(200, &["ready"], &[]).await?;
        }
        traffic.finish().await
    }
}

async fn rolls(direction: Direction) -> Result<()> {
    let mut s = Scene::start().await?;
    let account = s.roll(direction).await?;
    let logs = || {
        format!(
            "{account:?}\n{}\n{}\n{}\n{}",
            s.partner.log(),
            s.pods[0].log(),
            s.pods[1].log(),
            s.inside.log()
        )
    };
    ensure!(account.lost == 0 && account.bounced == 0, logs());
    ensure!(account.delivered == COUNT as usize, logs());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_inbound_is_lost_while_pods_are_replaced() {
    rolls(Direction::Inbound).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_outbound_is_lost_while_pods_are_replaced() {
    rolls(Direction::Outbound).await.unwrap();
}
