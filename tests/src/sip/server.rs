//! A scripted SIP server beside the edge: it takes the connections that the edge opens, and opens its own.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Notify,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Reply, SipParty};
use crate::{
    peer::{ClientTls, Identity, ServerTls, Session},
    wait,
};

/// The server; it stops with the value, connections included.
pub struct SipServer {
    state: Arc<ServerState>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct ServerState {
    parties: Mutex<Vec<Arc<SipParty>>>,
    reply: Mutex<Option<Reply>>,
    /// Names of the certificate that the edge showed last.
    shown: Mutex<Vec<String>>,
    changed: Notify,
}

impl Drop for SipServer {
    fn drop(&mut self) {
        self.task.abort();
        self.state.parties.lock().clear();
    }
}

impl SipServer {
    /// Listens by TLS, and shows this identity.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn listen(address: SocketAddr, identity: Identity) -> Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listen on {address}"))?;
        let acceptor = TlsAcceptor::from(Arc::new(ServerTls::new(identity).config()?));
        Ok(Self::serve(listener, Some(acceptor)))
    }

    /// Listens by TCP.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn listen_plain(address: SocketAddr) -> Result<Self> {
        Ok(Self::serve(TcpListener::bind(address).await?, None))
    }

    fn serve(listener: TcpListener, acceptor: Option<TlsAcceptor>) -> Self {
        let state = Arc::new(ServerState::default());
        let own = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if stream.set_nodelay(true).is_err() {
                    continue;
                }
                let party = match &acceptor {
                    None => SipParty::over(stream),
                    Some(acceptor) => match acceptor.accept(stream).await {
                        Ok(stream) => {
                            *own.shown.lock() = names(stream.get_ref().1.peer_certificates());
                            SipParty::over(stream)
                        }
                        Err(_) => continue,
                    },
                };
                if let Some(reply) = own.reply.lock().clone() {
                    party.reply(reply);
                }
                own.parties.lock().push(Arc::new(party));
                own.changed.notify_waiters();
            }
        });
        Self { state, task }
    }

    /// How requests are answered from here on, on all connections.
    pub fn reply(&self, reply: Reply) {
        for party in self.state.parties.lock().iter() {
            party.reply(reply.clone());
        }
        *self.state.reply.lock() = Some(reply);
    }

    /// The newest connection that the edge opened and that stands.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn party(&self) -> Result<Arc<SipParty>> {
        wait::until(
            "the edge dials the SIP server",
            wait::GENEROUS,
            async || {
                let parties = self.state.parties.lock();
                parties.iter().rev().find(|it| !it.is_ended()).cloned()
            },
        )
        .await
    }

    /// All connections that the edge opened and that stand, the oldest first.
    pub fn parties(&self) -> Vec<Arc<SipParty>> {
        let parties = self.state.parties.lock();
        parties
            .iter()
            .filter(|it| !it.is_ended())
            .cloned()
            .collect()
    }

    /// Closes this connection that the edge opened, without a word.
    pub fn cut_one(&self, party: Arc<SipParty>) {
        self.state
            .parties
            .lock()
            .retain(|it| !Arc::ptr_eq(it, &party));
    }

    /// Closes all connections that the edge opened, without a word.
    pub fn cut(&self) {
        self.state.parties.lock().clear();
    }

    /// The dNSNames of the certificate that the edge showed on its newest connection.
    pub fn shown(&self) -> Vec<String> {
        self.state.shown.lock().clone()
    }

    /// How many connections the edge has opened.
    pub fn connections(&self) -> usize {
        self.state.parties.lock().len()
    }
}

impl SipParty {
    /// A connection to `address` by TLS, with this identity where there is one.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn dial(address: SocketAddr, identity: Option<Identity>) -> Result<Self> {
        let (party, _) = Self::dial_asking(address, identity, None).await?;
        Ok(party)
    }

    /// As [`Self::dial`], asking for a name by SNI; and the dNSNames of the certificate that was shown.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn dial_asking(
        address: SocketAddr,
        identity: Option<Identity>,
        name: Option<&str>,
    ) -> Result<(Self, Vec<String>)> {
        let (config, name) = ClientTls::new(name, identity).config()?;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, stream).await?;
        let shown = names(stream.get_ref().1.peer_certificates());
        Ok((Self::over(stream), shown))
    }

    /// A connection to `address` from this address of ours, without TLS.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn dial_plain(address: SocketAddr, from: IpAddr) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(from, 0))?;
        Ok(Self::over(socket.connect(address).await?))
    }
}

/// None where no certificate was shown.
fn names(chain: Option<&[CertificateDer<'static>]>) -> Vec<String> {
    let session = Session {
        certificates: chain.unwrap_or_default().to_vec(),
        ..Session::default()
    };
    session.names().unwrap_or_default()
}
