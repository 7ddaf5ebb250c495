//! Either end of a trunk as a test plays it: what it says is the test's, once both know each other.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_rustls::TlsStream;

use super::pki::{EDGE, Pki, Shown};
use crate::peers::GENEROUS;

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:server' \
    xmlns:stream='http://etherx.jabber.org/streams' version='1.0'";
/// What every test's trunk is told that is a pod of pool `hq`.
pub const ENABLED: &str = concat!(
    "<enabled xmlns='urn:xmpp-edge:trunk:0' pool='hq' pod='hq-0' version='",
    env!("CARGO_PKG_VERSION"),
    "' queue='1048576' priority='10' weight='100' replicas='1' active='true'/>"
);
pub const ENABLE: &str = concat!(
    "<enable xmlns='urn:xmpp-edge:trunk:0' instance='prosody-0' version='",
    env!("CARGO_PKG_VERSION"),
    "' queue='1048576' claim='2026-11-28T10:00:00Z' server='up'/>"
);

/// What a program says of itself that is so many minor versions newer than this one.
pub fn of_newer(said: &str, minors: u32) -> String {
    let own = env!("CARGO_PKG_VERSION");
    let minor: u32 = env!("CARGO_PKG_VERSION_MINOR").parse().expect("a number");
    let newer = format!("{}.{}.7", env!("CARGO_PKG_VERSION_MAJOR"), minor + minors);
    said.replace(own, &newer)
}

/// One end.
pub struct End {
    writer: WriteHalf<TlsStream<TcpStream>>,
    heard: Arc<Heard>,
    reading: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Heard {
    text: Mutex<String>,
    changed: Notify,
    ended: std::sync::atomic::AtomicBool,
}

impl Heard {
    async fn read(self: Arc<Self>, mut reader: ReadHalf<TlsStream<TcpStream>>) {
        let mut buf = vec![0; 65_536];
        while let Ok(count @ 1..) = reader.read(&mut buf).await {
            let text = String::from_utf8_lossy(&buf[..count]);
            self.text.lock().push_str(&text);
            self.changed.notify_waiters();
        }
        self.ended.store(true, std::sync::atomic::Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    async fn until(&self, what: &str, mut holds: impl FnMut(&str, bool) -> bool) {
        let came = tokio::time::timeout(GENEROUS, async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let ended = self.ended.load(std::sync::atomic::Ordering::SeqCst);
                if holds(&self.text.lock(), ended) {
                    return true;
                }
                if ended {
                    return false;
                }
                changed.await;
            }
        })
        .await;
        assert!(
            came == Ok(true),
            "{what} did not come, but: {}",
            self.text.lock()
        );
    }
}

impl End {
    fn new(stream: TlsStream<TcpStream>) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let heard = Arc::new(Heard::default());
        let reading = tokio::spawn(Arc::clone(&heard).read(reader));
        Self {
            writer,
            heard,
            reading,
        }
    }

    /// A sidecar of `from` that dials an edge and shows this.
    pub async fn sidecar(edge: SocketAddr, pki: &Pki, shown: &Shown, from: &str) -> Self {
        let mut end = Self::dial(edge, pki, shown).await;
        assert!(end.opens(from).await, "{}", end.heard());
        end
    }

    /// Asks for a trunk as `from`; whether the edge takes the certificate for it.
    pub async fn opens(&mut self, from: &str) -> bool {
        let header = format!("{HEADER} from='{from}' to='{EDGE}'>");
        self.say(&header).await;
        let holds = |heard: &str, ended| ended || heard.contains("EXTERNAL");
        self.heard.until("an answer", holds).await;
        if !self.heard().contains("EXTERNAL") {
            return false;
        }
        self.say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>")
            .await;
        self.hears("<success").await;
        self.say(&header).await;
        self.hears("<trunk xmlns='urn:xmpp-edge:trunk:0'/>").await;
        true
    }

    /// As far as TLS.
    pub async fn dial(edge: SocketAddr, pki: &Pki, shown: &Shown) -> Self {
        let name = ServerName::try_from(EDGE).expect("a name");
        let stream = tokio::time::timeout(GENEROUS, async {
            loop {
                if let Ok(stream) = TcpStream::connect(edge).await {
                    return stream;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let stream = stream.await.expect("the edge listens");
        let stream = shown.connector(pki).connect(name, stream).await;
        Self::new(TlsStream::Client(stream.expect("TLS")))
    }

    /// As [`Self::sidecar`], and both have said what they are.
    pub async fn standing_sidecar(edge: SocketAddr, pki: &Pki, shown: &Shown, from: &str) -> Self {
        let mut end = Self::sidecar(edge, pki, shown, from).await;
        end.say(ENABLE).await;
        end.hears("<enabled ").await;
        end
    }

    pub async fn say(&mut self, text: &str) {
        // The other end may be gone: what it said decides.
        let _ = self.writer.write_all(text.as_bytes()).await;
        let _ = self.writer.flush().await;
    }

    pub async fn hears(&self, text: &str) {
        self.hears_times(text, 1).await;
    }

    pub async fn hears_times(&self, text: &str, times: usize) {
        let holds = |heard: &str, _| heard.matches(text).count() >= times;
        self.heard.until(text, holds).await;
    }

    /// Gives a sign of life each time that one is asked for, for ever.
    pub async fn stays_alive(&mut self) {
        for number in 1.. {
            self.hears(&format!("<r xmlns='urn:xmpp-edge:trunk:0' n='{number}'/>"))
                .await;
            self.say(&format!("<a xmlns='urn:xmpp-edge:trunk:0' n='{number}'/>"))
                .await;
        }
    }

    /// Until the other end has closed the connection.
    pub async fn ends(&self) {
        self.heard.until("the end", |_, ended| ended).await;
    }

    pub fn heard(&self) -> String {
        self.heard.text.lock().clone()
    }

    pub fn heard_times(&self, text: &str) -> usize {
        self.heard.text.lock().matches(text).count()
    }

    /// Ids of the messages that came, in their order.
    pub fn ids(&self) -> Vec<String> {
        let heard = self.heard();
        let starts = heard.split("<message ").skip(1);
        let ids = starts.filter_map(|rest| {
            let tag = &rest[..rest.find('>')?];
            let at = tag.find(" id='")? + 5;
            Some(tag[at..at + tag[at..].find('\'')?].to_owned())
        });
        ids.collect()
    }

    /// The number that the other end gave the pair to this domain.
    pub fn number(&self, to: &str) -> u32 {
        let heard = self.heard();
        let at = heard
            .rfind(&format!(" to='{to}'/>"))
            .expect("it was opened");
        let start = heard[..at].rfind("<pair ").expect("a pair");
        let tag = &heard[start..at];
        let number = tag.find(" i='").expect("a number") + 4;
        let rest = &tag[number..];
        rest[..rest.find('\'').expect("its end")]
            .parse()
            .expect("a number")
    }

    /// Cuts the connection without a word.
    pub fn cut(self) {
        self.reading.abort();
    }
}

/// An edge pod that a test plays.
pub struct ScriptedEdge {
    listener: TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
    pub address: SocketAddr,
}

impl ScriptedEdge {
    pub async fn open(address: SocketAddr, pki: &Pki) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free address");
        Self {
            listener,
            acceptor: pki.edge().acceptor(pki),
            address,
        }
    }

    /// The next trunk, once the sidecar has said what it is.
    pub async fn next(&self) -> End {
        let mut end = self
            .next_with("<trunk xmlns='urn:xmpp-edge:trunk:0'/>")
            .await;
        end.hears("<enable ").await;
        end.say(ENABLED).await;
        end
    }

    /// The next stream, whose features after EXTERNAL are these.
    pub async fn next_with(&self, features: &str) -> End {
        let accepted = tokio::time::timeout(GENEROUS, self.listener.accept()).await;
        let (stream, _) = accepted.expect("somebody comes").expect("a connection");
        let stream = self.acceptor.accept(stream).await.expect("TLS");
        let mut end = End::new(TlsStream::Server(stream));
        let header = format!("{HEADER} from='{EDGE}' to='org.example' id='");
        end.hears("<stream:stream").await;
        end.say(&format!(
            "{header}1'><stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
             <mechanism>EXTERNAL</mechanism></mechanisms></stream:features>"
        ))
        .await;
        end.hears("<auth ").await;
        end.say("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
            .await;
        end.hears_times("<stream:stream", 2).await;
        end.say(&format!(
            "{header}2'><stream:features>{features}</stream:features>"
        ))
        .await;
        end
    }
}
