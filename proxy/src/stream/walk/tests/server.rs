//! A server that breaks over what a test has it break over, and takes everything else.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_rustls::TlsAcceptor;
use xmpp_edge_crds::domain::DomainName;

use crate::tls::{
    pki::{Authority, Issued, authority},
    provider,
};

/// How a stream is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Error,
    Close,
    HangUp,
}

/// What a server breaks over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    External,
    /// After `<success/>`, where the new stream should begin.
    ExternalTaken,
    Bidi,
    /// Bidi, once both know each other.
    BidiTaken,
    /// The first stanza on a bidirectional stream.
    BidiStanza,
    Acks,
}

/// What comes before an error that has no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    Header,
    Nothing,
    Declaration,
    OtherPrefix,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Quirks {
    pub breaks: Vec<(At, Ending)>,
    /// It refuses our certificate by an alert of TLS.
    pub refuses_certificate: bool,
    /// It hosts the A-label alone, and says so in this way.
    pub hosts_ascii: Option<Before>,
    pub acks: bool,
    /// Said before `<enabled/>`.
    pub before_enabled: String,
}

pub(super) struct Scripted {
    peer: DomainName,
    local: String,
    quirks: Quirks,
    tls: TlsAcceptor,
    pub connections: AtomicUsize,
    /// Ids of the messages that it took.
    pub taken: Mutex<Vec<String>>,
    changed: Notify,
}

const STREAMS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
const ETHERX: &str = "http://etherx.jabber.org/streams";

impl Scripted {
    /// Serves `peer` with that certificate, towards streams of `local`.
    pub(super) async fn open(
        peer: &DomainName,
        local: &str,
        certificate: &Issued,
        issuer: &Authority,
        quirks: Quirks,
    ) -> (Arc<Self>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
        let address = listener.local_addr().expect("it has one");
        let server = Arc::new(Self {
            peer: peer.clone(),
            local: local.to_owned(),
            tls: acceptor(certificate, issuer, quirks.refuses_certificate),
            quirks,
            connections: AtomicUsize::new(0),
            taken: Mutex::default(),
            changed: Notify::new(),
        });
        let serving = Arc::clone(&server);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                serving.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(Arc::clone(&serving).serve(socket));
            }
        });
        (server, address)
    }

    /// Until a message has come.
    pub(super) async fn has_taken(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.taken.lock().is_empty() {
                return;
            }
            changed.await;
        }
    }

    fn breaks(&self, at: At) -> Option<Ending> {
        let own = self.quirks.breaks.iter().find(|(own, _)| *own == at);
        own.map(|(_, ending)| *ending)
    }

    fn header(&self, id: &str) -> String {
        format!(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:stream='{ETHERX}' \
             xmlns:db='jabber:server:dialback' id='{id}' from='{}' to='{}' version='1.0'>",
            self.peer.to_unicode(),
            self.local,
        )
    }

    async fn serve(self: Arc<Self>, socket: TcpStream) -> Option<()> {
        let mut line = ServerLine::new(socket);
        let header = line.header().await?;
        if let Some(before) = self.quirks.hosts_ascii
            && !header.contains(&format!("to='{}'", self.peer.as_str()))
        {
            let error = format!("<host-unknown xmlns='{STREAMS}'/>");
            let said = match before {
                Before::Header => {
                    let header = self.header("plain");
                    format!("{header}<stream:error>{error}</stream:error></stream:stream>")
                }
                Before::Nothing => format!("<stream:error>{error}</stream:error>"),
                Before::Declaration => {
                    format!("<?xml version='1.0'?>\n<stream:error>{error}</stream:error>")
                }
                Before::OtherPrefix => {
                    format!("<?xml version='1.0'?><s:error xmlns:s='{ETHERX}'>{error}</s:error>")
                }
            };
            line.say(&said).await;
            return line.drain().await;
        }
        let starttls = format!("<starttls xmlns='{TLS}'><required/></starttls>");
        let header = self.header("plain");
        line.say(&format!(
            "{header}<stream:features>{starttls}</stream:features>"
        ))
        .await;
        line.first_of(&["<starttls "]).await?;
        line.upto("/>").await?;
        line.say(&format!("<proceed xmlns='{TLS}'/>")).await;
        match self.tls.accept(line.io).into_fallible().await {
            Ok(io) => self.secured(ServerLine::new(io)).await,
            // What it has not read would reset the connection before its alert is.
            Err((_, io)) => ServerLine::new(io).drain().await,
        }
    }

    async fn secured<I: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut line: ServerLine<I>,
    ) -> Option<()> {
        line.header().await?;
        let sm = match self.quirks.acks {
            true => "<sm xmlns='urn:xmpp:sm:3'/>",
            false => "",
        };
        let header = self.header("secured");
        line.say(&format!(
            "{header}<stream:features><mechanisms xmlns='{SASL}'><mechanism>EXTERNAL</mechanism></mechanisms>\
             <bidi xmlns='urn:xmpp:features:bidi'/><dialback xmlns='urn:xmpp:features:dialback'/>{sm}</stream:features>"
        ))
        .await;
        let mut bidi = false;
        loop {
            match line.first_of(&["<bidi ", "<auth ", "</db:result>"]).await? {
                0 => {
                    bidi = true;
                    if let Some(ending) = self.breaks(At::Bidi) {
                        return line.end(ending).await;
                    }
                }
                1 => {
                    if let Some(ending) = self.breaks(At::External) {
                        return line.end(ending).await;
                    }
                    line.upto("</auth>").await?;
                    line.say(&format!("<success xmlns='{SASL}'/>")).await;
                    line.header().await?;
                    if let Some(ending) = self.breaks(At::ExternalTaken) {
                        return line.end(ending).await;
                    }
                    let header = self.header("authenticated");
                    line.say(&format!("{header}<stream:features>{sm}</stream:features>"))
                        .await;
                    break;
                }
                _ => {
                    line.say(&format!(
                        "<db:result from='{}' to='{}' type='valid'/>",
                        self.peer.to_unicode(),
                        self.local
                    ))
                    .await;
                    break;
                }
            }
        }
        if bidi && let Some(ending) = self.breaks(At::BidiTaken) {
            return line.end(ending).await;
        }
        let mut handled = 0;
        loop {
            let found = line.first_of(&["<enable ", "<message ", "<iq ", "<r "]);
            match found.await? {
                0 => {
                    if let Some(ending) = self.breaks(At::Acks) {
                        return line.end(ending).await;
                    }
                    let before = &self.quirks.before_enabled;
                    line.say(&format!("{before}<enabled xmlns='urn:xmpp:sm:3'/>"))
                        .await;
                }
                1 => {
                    if bidi && let Some(ending) = self.breaks(At::BidiStanza) {
                        return line.end(ending).await;
                    }
                    let message = line.upto("</message>").await?;
                    let id = message
                        .split_once(" id='")
                        .and_then(|(_, rest)| rest.split_once('\''));
                    self.taken.lock().push(id.expect("it has one").0.to_owned());
                    self.changed.notify_waiters();
                    handled += 1;
                }
                2 => {
                    line.upto("</iq>").await?;
                    handled += 1;
                }
                _ => {
                    line.say(&format!("<a xmlns='urn:xmpp:sm:3' h='{handled}'/>"))
                        .await;
                }
            }
        }
    }
}

/// With `refuses`, one that trusts nobody who shows a certificate.
fn acceptor(certificate: &Issued, issuer: &Authority, refuses: bool) -> TlsAcceptor {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = if refuses {
        let mut roots = RootCertStore::empty();
        roots
            .add(authority("others").der().clone())
            .expect("an authority");
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(provider()))
                .allow_unauthenticated()
                .build()
                .expect("a verifier");
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes()).expect("a key");
    let chain = vec![certificate.der.clone(), issuer.der().clone()];
    let config = builder.with_single_cert(chain, key).expect("a pair");
    TlsAcceptor::from(Arc::new(config))
}

/// A connection, and what has come on it and was not looked at.
struct ServerLine<I> {
    io: I,
    unread: String,
}

impl<I: AsyncRead + AsyncWrite + Unpin> ServerLine<I> {
    fn new(io: I) -> Self {
        Self {
            io,
            unread: String::new(),
        }
    }

    async fn header(&mut self) -> Option<String> {
        self.first_of(&["<stream:stream "]).await?;
        self.upto(">").await
    }

    /// Which of these comes first, with nothing left before its end.
    async fn first_of(&mut self, wanted: &[&str]) -> Option<usize> {
        loop {
            let found = wanted
                .iter()
                .enumerate()
                .filter_map(|(number, text)| Some((self.unread.find(text)?, number, text.len())))
                .min();
            if let Some((at, number, len)) = found {
                self.unread.drain(..at + len);
                return Some(number);
            }
            self.read().await?;
        }
    }

    /// All up to `text`, which is taken too.
    async fn upto(&mut self, text: &str) -> Option<String> {
        loop {
            if let Some(at) = self.unread.find(text) {
                let found = self.unread.drain(..at + text.len()).collect();
                return Some(found);
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Option<()> {
        let mut buf = vec![0; 4_096];
        let count = self.io.read(&mut buf).await.ok()?;
        self.unread
            .push_str(&String::from_utf8_lossy(&buf[..count]));
        (count > 0).then_some(())
    }

    /// The other end may be gone.
    async fn say(&mut self, text: &str) {
        let _ = self.io.write_all(text.as_bytes()).await;
        let _ = self.io.flush().await;
    }

    async fn end(mut self, ending: Ending) -> Option<()> {
        match ending {
            Ending::Error => {
                let error = format!("<unsupported-stanza-type xmlns='{STREAMS}'/>");
                self.say(&format!(
                    "<stream:error>{error}</stream:error></stream:stream>"
                ))
                .await;
            }
            Ending::Close => self.say("</stream:stream>").await,
            Ending::HangUp => return None,
        }
        self.drain().await
    }

    /// Reads until the other end is gone, so that it reads what was said.
    async fn drain(mut self) -> Option<()> {
        loop {
            self.read().await?;
            self.unread.clear();
        }
    }
}
