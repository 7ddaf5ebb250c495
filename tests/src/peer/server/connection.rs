//! One connection of a server: answers as the behaviour says, and does what the test tells.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use anyhow::{Context, Result, ensure};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};

use super::{Behaviour, Command, Encryption, Received, Seen, State, Verdict};
use crate::{
    peer::{ClientTls, Event, Open, Peer, ServerTls, ns},
    xml::Element,
};

/// Takes connections until it is killed. Nothing of them works any more when this is over.
pub(super) async fn serve(
    listener: TcpListener,
    state: Arc<State>,
    mut killed: oneshot::Receiver<()>,
) {
    // Ends all connections with the server.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let stream = tokio::select! {
            biased;
            _ = &mut killed => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => break,
            },
        };
        let number = state.count.fetch_add(1, Ordering::SeqCst) + 1;
        state.connections.lock().insert(number, Seen::default());
        let (tell, commands) = mpsc::unbounded_channel();
        state.commands.lock().insert(number, tell);
        let behaviour = state
            .behaviour
            .lock()
            .clone()
            .expect("a behaviour is set before the task starts");
        let mut connection = Connection {
            number,
            behaviour,
            state: Arc::clone(&state),
            stream_id: String::new(),
            authenticated: false,
            commands,
        };
        connections.spawn(async move {
            // An hour of silence is the edge's right; tests end earlier.
            let mut peer = Peer::over(stream).with_patience(std::time::Duration::from_secs(3600));
            let _ = connection.run(&mut peer).await;
            connection.note(&peer, |seen| seen.ended = true);
        });
        state.changed.notify_waiters();
    }
    drop(listener);
    connections.shutdown().await;
}

struct Connection {
    number: usize,
    behaviour: Behaviour,
    state: Arc<State>,
    stream_id: String,
    authenticated: bool,
    commands: mpsc::UnboundedReceiver<Command>,
}

impl Connection {
    fn note(&self, peer: &Peer, change: impl FnOnce(&mut Seen)) {
        if let Some(seen) = self.state.connections.lock().get_mut(&self.number) {
            change(seen);
            // A transcript may be long, and this is done for each element.
            peer.note_received(&mut seen.text, &mut seen.noted);
            seen.tls = peer.session().cloned();
        }
        self.state.changed.notify_waiters();
    }

    async fn run(&mut self, peer: &mut Peer) -> Result<()> {
        if peer.first_byte().await == Some(0x16) {
            self.handshake(peer).await?;
        }
        let mut handled = 0_u32;
        let mut acks = false;
        loop {
            let event = match self.event(peer).await? {
                Some(event) => event,
                None => return Ok(()),
            };
            self.note(peer, |_| {});
            let element = match event {
                Event::Open(header) => {
                    self.header(peer, &header).await?;
                    continue;
                }
                Event::Element(element) => element,
                Event::Close => {
                    peer.send_anyway("</stream:stream>").await;
                    let _ = peer.half_close().await;
                    return Ok(());
                }
                Event::Eof | Event::Broken(_) => return Ok(()),
            };
            match (element.name.as_str(), element.namespace.as_str()) {
                ("starttls", ns::TLS) => {
                    peer.send(format!("<proceed xmlns='{}'/>", ns::TLS)).await?;
                    self.handshake(peer).await?;
                }
                ("auth", ns::SASL) => self.auth(peer).await?,
                ("result", ns::DIALBACK) => self.result(peer, &element).await?,
                ("verify", ns::DIALBACK) => self.verify(peer, &element).await?,
                ("enable", ns::ACKS) => {
                    acks = true;
                    peer.send(format!("<enabled xmlns='{}'/>", ns::ACKS))
                        .await?;
                }
                ("r", ns::ACKS) if acks => {
                    peer.send(format!("<a xmlns='{}' h='{handled}'/>", ns::ACKS))
                        .await?;
                }
                ("message", _) if self.is_too_much(&element) => {
                    let error = ns::STREAM_ERRORS;
                    peer.send_anyway(format!(
                        "<stream:error><policy-violation xmlns='{error}'/></stream:error></stream:stream>"
                    ))
                    .await;
                    return Ok(());
                }
                ("message" | "presence" | "iq", _) => {
                    handled = handled.wrapping_add(1);
                    self.state.stanzas.lock().push(Received {
                        connection: self.number,
                        stanza: element,
                    });
                    self.state.changed.notify_waiters();
                }
                _ => {}
            }
        }
    }

    fn is_too_much(&self, message: &Element) -> bool {
        let body = message.child("body").map_or(0, |body| body.text.len());
        self.behaviour.ends_over.is_some_and(|most| body > most)
    }

    /// The next event, while doing what the test tells; `None` to drop the connection.
    async fn event(&mut self, peer: &mut Peer) -> Result<Option<Event>> {
        let mut frozen = false;
        loop {
            let command = tokio::select! {
                event = peer.next(), if !frozen => return event.map(Some),
                command = self.commands.recv() => command,
            };
            match command {
                Some(Command::Send(text)) => peer.send(text).await?,
                Some(Command::HalfClose) => peer.half_close().await?,
                Some(Command::Freeze) => {
                    frozen = true;
                    self.note(peer, |seen| seen.frozen = true);
                }
                Some(Command::Thaw) => {
                    frozen = false;
                    self.note(peer, |seen| seen.frozen = false);
                }
                Some(Command::Drop) | None => return Ok(None),
            }
        }
    }

    async fn handshake(&self, peer: &mut Peer) -> Result<()> {
        let identity = self
            .behaviour
            .identity
            .clone()
            .context("TLS without an identity")?;
        peer.tls_server(&ServerTls {
            alpn: vec![b"xmpp-server".to_vec()],
            clients_of: self.behaviour.clients_of.clone(),
            ..ServerTls::new(identity)
        })
        .await
    }

    async fn header(&mut self, peer: &mut Peer, header: &Element) -> Result<()> {
        let of = |name| header.attribute(name).unwrap_or_default().to_owned();
        let (from, to) = (of("from"), of("to"));
        self.stream_id = format!("peer-{}-{}", self.number, peer.received().len());
        self.note(peer, |seen| {
            seen.from.clone_from(&from);
            seen.to.clone_from(&to);
        });
        let mut open = Open::new(&to, &from);
        open.id = Some(self.stream_id.clone());
        if self.behaviour.hosts.is_some_and(|own| own != to) {
            let error = ns::STREAM_ERRORS;
            peer.send(
                open.text()
                    + &format!("<stream:error><host-unknown xmlns='{error}'/></stream:error></stream:stream>"),
            )
            .await?;
            anyhow::bail!("a stream for {to}");
        }
        peer.send(open.text() + &self.features(peer)).await
    }

    fn features(&self, peer: &Peer) -> String {
        let behaviour = &self.behaviour;
        let mut features = String::from("<stream:features>");
        let secured = peer.session();
        if secured.is_none() && behaviour.identity.is_some() {
            match behaviour.encryption {
                Encryption::Never => {}
                Encryption::Offered => features += &format!("<starttls xmlns='{}'/>", ns::TLS),
                Encryption::Required => {
                    features += &format!("<starttls xmlns='{}'><required/></starttls>", ns::TLS);
                }
            }
        }
        let open = secured.is_some() || behaviour.encryption != Encryption::Required;
        if open {
            let shown = secured.is_some_and(|tls| !tls.certificates.is_empty());
            if behaviour.external && shown && !self.authenticated {
                features += &format!(
                    "<mechanisms xmlns='{}'><mechanism>EXTERNAL</mechanism></mechanisms>",
                    ns::SASL
                );
            }
            if behaviour.dialback {
                let errors = if behaviour.errors { "<errors/>" } else { "" };
                features += &format!(
                    "<dialback xmlns='{}'>{errors}</dialback>",
                    ns::DIALBACK_FEATURE
                );
            }
            if behaviour.bidi && !self.authenticated {
                features += &format!("<bidi xmlns='{}'/>", ns::BIDI_FEATURE);
            }
            if behaviour.acks {
                features += &format!("<sm xmlns='{}'/>", ns::ACKS);
            }
            let told = [
                ("max-bytes", behaviour.max_bytes),
                ("idle-seconds", behaviour.idle_seconds),
            ];
            let limits: String = told
                .into_iter()
                .filter_map(|(name, limit)| Some(format!("<{name}>{}</{name}>", limit?)))
                .collect();
            if !limits.is_empty() {
                features += &format!("<limits xmlns='{}'>{limits}</limits>", ns::LIMITS);
            }
        }
        features + "</stream:features>"
    }

    async fn auth(&mut self, peer: &mut Peer) -> Result<()> {
        let condition = match self.behaviour.external_verdict {
            Verdict::Valid => {
                peer.restart();
                self.authenticated = true;
                self.note(peer, |seen| seen.method = "External");
                return peer.send(format!("<success xmlns='{}'/>", ns::SASL)).await;
            }
            Verdict::Invalid => "not-authorized",
            Verdict::Error(condition) => condition,
            Verdict::Never => return Ok(()),
            Verdict::Close => anyhow::bail!("told to close"),
        };
        peer.send(format!(
            "<failure xmlns='{}'><{condition}/></failure>",
            ns::SASL
        ))
        .await
    }

    async fn result(&mut self, peer: &mut Peer, element: &Element) -> Result<()> {
        if element.attribute("type").is_some() {
            return Ok(());
        }
        let of = |name| element.attribute(name).unwrap_or_default().to_owned();
        let (from, to, key) = (of("from"), of("to"), element.text.clone());
        let id = self.stream_id.clone();
        self.note(peer, |seen| {
            seen.keys
                .push((from.clone(), to.clone(), id.clone(), key.clone()));
        });
        let verdict = match (&self.behaviour.result, self.behaviour.authority) {
            (Some(verdict), _) => verdict.clone(),
            (None, Some(authority)) => ask(authority, &from, &to, &id, &key)
                .await
                .unwrap_or(Verdict::Error("remote-connection-failed")),
            (None, None) => Verdict::Never,
        };
        if verdict == Verdict::Valid {
            self.note(peer, |seen| seen.method = "Dialback");
        }
        answer(peer, "result", &to, &from, None, &verdict).await
    }

    async fn verify(&mut self, peer: &mut Peer, element: &Element) -> Result<()> {
        let of = |name| element.attribute(name).unwrap_or_default().to_owned();
        self.note(peer, |seen| seen.asked += 1);
        let verdict = match &self.behaviour.verify {
            Some(verdict) => verdict.clone(),
            None if self.state.keys.lock().contains(&element.text) => Verdict::Valid,
            None => Verdict::Invalid,
        };
        let id = of("id");
        answer(peer, "verify", &of("to"), &of("from"), Some(&id), &verdict).await
    }
}

/// Answers a dialback request.
async fn answer(
    peer: &mut Peer,
    name: &str,
    from: &str,
    to: &str,
    id: Option<&str>,
    verdict: &Verdict,
) -> Result<()> {
    let id = id.map(|id| format!(" id='{id}'")).unwrap_or_default();
    let start = format!("<db:{name} from='{from}' to='{to}'{id}");
    match verdict {
        Verdict::Valid => peer.send(start + " type='valid'/>").await,
        Verdict::Invalid => peer.send(start + " type='invalid'/>").await,
        Verdict::Error(condition) => {
            let error = ns::STANZA_ERRORS;
            peer.send(format!(
                "{start} type='error'><error type='cancel'><{condition} xmlns='{error}'/></error></db:{name}>"
            ))
            .await
        }
        Verdict::Never => Ok(()),
        Verdict::Close => anyhow::bail!("told to close"),
    }
}

/// As receiving server, asks the authoritative server of `from` at `authority`.
async fn ask(authority: SocketAddr, from: &str, to: &str, id: &str, key: &str) -> Result<Verdict> {
    let mut peer = Peer::connect(authority).await?;
    let features = peer.open(to, from).await?;
    if features.starttls().is_some() {
        let tls = ClientTls::new(Some(from), None);
        peer.starttls(&tls).await?;
        peer.open(to, from).await?;
    }
    let verdict = peer.db_verify(to, from, id, key).await?;
    ensure!(
        verdict == "valid" || verdict == "invalid",
        "the authoritative server says {verdict}"
    );
    Ok(if verdict == "valid" {
        Verdict::Valid
    } else {
        Verdict::Invalid
    })
}
