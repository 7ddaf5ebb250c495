//! One connection with a SIP server, with its socket.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use xmpp_edge_crds::verdict::Direction;

use super::{accepted_slot::AcceptedSlot, figures::ShownConnection};
use crate::{
    config::ActiveConfig,
    routing::failure::{Failure, FailureKind},
    sip::{connection::SipConnection, transaction::LinkConnection},
    stream::scratch::SCRATCH,
    tls::Transport,
};

/// While so much waits to be written, nothing more is asked, and nothing is read that would be answered.
const AHEAD: usize = 256 * 1024;
/// How long what is left to write and the end of TLS may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// A connection, what came and what has to go.
#[derive(Debug)]
pub(super) struct LinkIo {
    pub(super) id: LinkConnection,
    pub(super) address: Option<SocketAddr>,
    pub(super) shown: ShownConnection,
    pub(super) sip: SipConnection,
    /// When something came last.
    pub(super) heard: Instant,
    transport: Transport,
    out: BytesMut,
    /// Held to the end, where the server opened it.
    _slot: Option<AcceptedSlot>,
}

impl LinkIo {
    pub(super) fn new(
        id: LinkConnection,
        transport: Transport,
        address: Option<SocketAddr>,
        slot: Option<AcceptedSlot>,
        tag: &str,
        now: Instant,
    ) -> Self {
        let direction = match slot {
            None => Direction::Inbound,
            Some(_) => Direction::Outbound,
        };
        Self {
            id,
            address,
            shown: ShownConnection::new(direction, address, &transport),
            sip: SipConnection::new(tag, now),
            heard: now,
            transport,
            out: BytesMut::new(),
            _slot: slot,
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Whether what its server showed is that of the gateway of this name.
    pub(super) fn shows(&self, config: &ActiveConfig, gateway: &str) -> bool {
        let shown = config.sip_server(self.transport.peer_chain());
        shown.is_some_and(|own| own.config.effective_name() == gateway)
    }

    /// Whether its server takes what is written.
    pub(super) fn takes_more(&self) -> bool {
        self.out.len() < AHEAD
    }

    /// Writes what there is and, where `reads`, reads what there is. Ready when something moved.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, reads: bool) -> Poll<io::Result<()>> {
        let mut progress = false;
        while !self.out.is_empty() {
            match Pin::new(&mut self.transport).poll_write(cx, &self.out) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => self.out.advance(count),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
            progress = true;
        }
        if let Poll::Ready(Err(error)) = Pin::new(&mut self.transport).poll_flush(cx) {
            return Poll::Ready(Err(error));
        }
        if reads && self.sip.room() > 0 {
            match self.poll_read(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Ok(_)) => progress = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        if progress {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let room = self.sip.room().min(scratch.len());
            let mut buf = ReadBuf::new(&mut scratch[..room]);
            match Pin::new(&mut self.transport).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) => {
                    let now = Instant::now();
                    if !buf.filled().is_empty() {
                        self.heard = now;
                        self.sip.push(buf.filled(), now);
                    }
                    Poll::Ready(Ok(buf.filled().len()))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            }
        })
    }

    /// What is left is written, then the connection is closed; for at most [`GOODBYE`].
    pub(super) async fn farewell(mut self) {
        let goodbye = async {
            self.transport.write_all(&self.out).await?;
            self.transport.shutdown().await
        };
        // Nobody is left to be told.
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }
}

/// Why what needs the connection has to wait or to be answered.
pub(super) fn of_end(cause: &str) -> Failure {
    let before = "the connection with the SIP server ended: ";
    Failure::quoting(FailureKind::Unreachable, before, cause, "")
}
