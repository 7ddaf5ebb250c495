//! One test's part of a rig: a partner's domain, ways to open streams with it, and what the metrics
//! say of it.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result, ensure};

use super::{ALICE, FIRST_PARTNER_HOST, OWN, Rig};
use crate::{
    peer::{Behaviour, ClientTls, Features, Identity, Login, Peer, PeerServer},
    pki::{Leaf, Usage},
    servers::S2S_PORT,
    wait,
};

/// One test's part of a rig.
pub struct Scene {
    pub rig: Arc<Rig>,
    number: u8,
    /// The partner's domain, this test's alone.
    pub domain: String,
    /// The partner's object.
    pub name: String,
    /// A certificate for the domain as public CAs issue them.
    pub identity: Leaf,
    before: String,
    /// Length of the edge's log when the test began.
    logged: usize,
}

impl Scene {
    pub(super) async fn new(rig: Arc<Rig>, number: u8) -> Result<Self> {
        let domain = rig.plan.domain(number);
        let identity = rig.lab.authority().issue(&[&domain], Usage::ServerAuth);
        let before = rig.metrics().await?;
        let logged = rig.edge.lock().await.log().len();
        Ok(Self {
            logged,
            number,
            name: rig.plan.name(number),
            domain,
            identity,
            before,
            rig,
        })
    }

    /// `local@domain` of the partner.
    pub fn user(&self, local: &str) -> String {
        format!("{local}@{}", self.domain)
    }

    /// A text that no other test uses.
    pub fn fresh(&self) -> String {
        format!("{}-{}", self.name, self.rig.fresh())
    }

    /// A text for what must not get through: [`Self::unharmed`] looks for it.
    pub fn forbidden(&self) -> String {
        format!("forbidden-{}", self.name)
    }

    /// Where the partner's server is, by DNS.
    pub fn address(&self) -> SocketAddr {
        let host = FIRST_PARTNER_HOST - 1 + self.number;
        SocketAddr::from((self.rig.lab.ip(host), S2S_PORT))
    }

    /// Another port of the same address.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address().ip(), port)
    }

    /// Replaces the partner's SRV records, `_xmpp-server` and `_xmpps-server`, by none.
    pub fn unpublish(&self) {
        let dns = self.rig.lab.dns();
        dns.remove(&format!("_xmpp-server._tcp.{}", self.domain));
        dns.remove(&format!("_xmpps-server._tcp.{}", self.domain));
    }

    /// The name in the partner's SRV record; its address is [`Self::address`].
    pub fn target(&self) -> String {
        format!("xmpp.{}", self.domain)
    }

    /// Starts the partner's server.
    ///
    /// # Errors
    /// When its address is taken.
    pub async fn serve(&self, behaviour: Behaviour) -> Result<PeerServer> {
        PeerServer::listen(self.address(), behaviour).await
    }

    /// The partner's server with its certificate: EXTERNAL, dialback, acks.
    ///
    /// # Errors
    /// As [`Self::serve`].
    pub async fn outside(&self) -> Result<PeerServer> {
        self.serve(self.good_behaviour()?).await
    }

    /// How [`Self::outside`] behaves.
    ///
    /// # Errors
    /// Never, where the scene's certificate is one.
    pub fn good_behaviour(&self) -> Result<Behaviour> {
        Ok(Behaviour::good(Identity::of(&self.identity)?))
    }

    /// A connection to the public listener, nothing sent.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn connect(&self) -> Result<Peer> {
        Peer::connect(self.rig.public()).await
    }

    /// A connection of the partner after STARTTLS with `leaf`, the new stream open.
    ///
    /// # Errors
    /// The first step that fails.
    pub async fn secured(&self, leaf: Option<&Leaf>) -> Result<(Peer, Features)> {
        let mut peer = self.connect().await?;
        peer.open(&self.domain, OWN).await?;
        let identity = leaf.map(Identity::of).transpose()?;
        peer.starttls(&ClientTls::new(Some(OWN), identity)).await?;
        let features = peer.open(&self.domain, OWN).await?;
        Ok((peer, features))
    }

    /// A stream from the partner to [`OWN`], authenticated by EXTERNAL.
    ///
    /// # Errors
    /// The first step that fails.
    pub async fn partner(&self) -> Result<Peer> {
        self.partner_by(&Login::External(&self.identity)).await
    }

    /// A stream from the partner to [`OWN`].
    ///
    /// # Errors
    /// The first step that fails.
    pub async fn partner_by(&self, login: &Login<'_>) -> Result<Peer> {
        let address = match login {
            Login::Direct(_) => self.rig.direct(),
            _ => self.rig.public(),
        };
        Peer::login(address, &self.domain, OWN, login).await
    }

    /// A stream from the server of [`OWN`] towards the partner, authenticated by EXTERNAL.
    ///
    /// # Errors
    /// The first step that fails.
    pub async fn inside(&self) -> Result<Peer> {
        self.inside_to(&self.domain).await
    }

    /// As [`Self::inside`], towards any domain.
    ///
    /// # Errors
    /// The first step that fails.
    pub async fn inside_to(&self, domain: &str) -> Result<Peer> {
        let login = Login::External(self.rig.own_identity());
        Peer::login(self.rig.internal(), OWN, domain, &login).await
    }

    /// A chat message from the partner to alice arrives inside.
    ///
    /// # Errors
    /// When it does not.
    pub async fn delivers_inwards(&self, peer: &mut Peer) -> Result<()> {
        let id = self.fresh();
        peer.message(&self.user("rob"), ALICE, &id, "hello").await?;
        let got = self.rig.inside.stanza_id(&id).await?;
        ensure!(
            got.attribute("from") == Some(&self.user("rob")),
            "arrived as {got:?}"
        );
        Ok(())
    }

    /// A chat message from alice to the partner arrives at its server.
    ///
    /// # Errors
    /// When it does not.
    pub async fn delivers_outwards(&self, inside: &mut Peer, outside: &PeerServer) -> Result<()> {
        let id = self.fresh();
        inside
            .message(ALICE, &self.user("rob"), &id, "hello")
            .await?;
        outside.stanza_id(&id).await?;
        Ok(())
    }

    /// The stanza that the edge sends inside as from the partner, with this id.
    ///
    /// # Errors
    /// When it does not come in time.
    pub async fn inside_gets(&self, id: &str) -> Result<crate::xml::Element> {
        self.rig.inside.stanza_id(id).await
    }

    /// The number of the connection by which the stanzas of `rob` reach the server inside.
    ///
    /// # Errors
    /// When none has come.
    pub fn stream_inside(&self) -> Result<usize> {
        let rob = self.user("rob");
        let stanzas = self.rig.inside.stanzas();
        let mut newest = stanzas.iter().rev();
        let last = newest.find(|r| r.stanza.attribute("from") == Some(&rob));
        Ok(last.context("no stream inside")?.connection)
    }

    /// By how much a metric of this partner grew since the test began: all series of
    /// `xmpp_edge_<name>` with all of `labels` and this partner's label.
    ///
    /// # Errors
    /// When `/metrics` does not answer.
    pub async fn grown(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let partner = format!("partner=\"{}\"", self.name);
        let labels: Vec<_> = labels.iter().copied().chain([partner.as_str()]).collect();
        let now = self.rig.metrics().await?;
        Ok(sum(&now, name, &labels) - sum(&self.before, name, &labels))
    }

    /// Waits until a metric of this partner has grown.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn moved(&self, name: &str, labels: &[&str]) -> Result<()> {
        let partner = format!("partner=\"{}\"", self.name);
        let labels: Vec<_> = labels.iter().copied().chain([partner.as_str()]).collect();
        self.moved_anywhere(name, &labels).await
    }

    /// As [`Self::moved`], whoever the partner is.
    ///
    /// # Errors
    /// As there.
    pub async fn moved_anywhere(&self, name: &str, labels: &[&str]) -> Result<()> {
        let what = format!("{name}{labels:?} moves");
        let moved = wait::until(&what, std::time::Duration::from_secs(10), || async {
            let now = self.rig.metrics().await.ok()?;
            (sum(&now, name, labels) > sum(&self.before, name, labels)).then_some(())
        })
        .await;
        if moved.is_err() {
            let now = self.rig.metrics().await?;
            let lines: Vec<_> = now
                .lines()
                .filter(|l| l.contains(&self.name) || l.contains("refused") || l.contains("other"))
                .filter(|l| !l.contains("_bucket"))
                .collect();
            anyhow::bail!("{what}: it did not; there is\n{}", lines.join("\n"));
        }
        Ok(())
    }

    /// After an attack: nothing forbidden reached either leg, the good partner is served, and
    /// the metric that tells this kind of refusal moved.
    ///
    /// # Errors
    /// The first that does not hold.
    pub async fn unharmed(&self, moved: Moved<'_>) -> Result<()> {
        self.rig
            .serves_the_good_partner()
            .await
            .context("the good partner is not served")?;
        let forbidden = self.forbidden();
        for (leg, server) in [
            ("inside", &self.rig.inside),
            ("the second server inside", &self.rig.second),
            ("the good partner", &self.rig.good),
        ] {
            ensure!(
                !server.transcript().contains(&forbidden),
                "{forbidden} reached {leg}"
            );
        }
        match moved {
            Moved::Attempt(outcome) => {
                let label = format!("outcome=\"{outcome}\"");
                self.moved("attempts_total", &[&label]).await
            }
            Moved::Stranger(outcome) => {
                let label = format!("outcome=\"{outcome}\"");
                self.moved_anywhere("attempts_total", &[&label, "partner=\"other\""])
                    .await
            }
            Moved::Refused(reason) => {
                let label = format!("reason=\"{reason}\"");
                self.moved("stanzas_refused_total", &[&label]).await
            }
            Moved::Bounced(condition) => {
                let label = format!("condition=\"{condition}\"");
                self.moved("stanzas_bounced_total", &[&label]).await
            }
            Moved::Logged(text) => {
                let log = self.rig.edge.lock().await.log();
                ensure!(
                    log[self.logged..].contains(text),
                    "the log does not say {text}"
                );
                Ok(())
            }
            Moved::Connection(reason) => {
                let label = format!("reason=\"{reason}\"");
                self.moved_anywhere("connections_refused_total", &[&label])
                    .await
            }
        }
    }
}

/// Which metric tells what was refused.
#[derive(Clone, Copy, Debug)]
pub enum Moved<'a> {
    /// `attempts_total` of this partner, with this outcome.
    Attempt(&'a str),
    /// `attempts_total` of nobody's partner, with this outcome.
    Stranger(&'a str),
    /// `stanzas_refused_total` of this partner.
    Refused(&'a str),
    /// `stanzas_bounced_total` of this partner.
    Bounced(&'a str),
    /// `connections_refused_total`.
    Connection(&'a str),
    /// No metric but a line of the log since the test began: for streams of servers inside.
    Logged(&'a str),
}

fn sum(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    let name = format!("xmpp_edge_{name}");
    metrics
        .lines()
        .filter_map(|line| {
            let (series, value) = line.strip_prefix(&name)?.rsplit_once(' ')?;
            let here = series.is_empty() || series.starts_with('{');
            (here && labels.iter().all(|label| series.contains(label)))
                .then(|| value.parse::<f64>().ok())?
        })
        .sum()
}
