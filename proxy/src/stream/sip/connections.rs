//! All connections of a link with its server: the one that it opened, and those that the server did.

use std::{
    io,
    net::SocketAddr,
    task::{Context, Poll},
    time::Instant,
};

use super::{connection::LinkIo, links::AcceptedSlot};
use crate::{sip::transaction::LinkConnection, tls::Transport};

#[derive(Debug, Default)]
pub(super) struct LinkConnections {
    all: Vec<LinkIo>,
    next: u64,
}

impl LinkConnections {
    pub(super) fn add(
        &mut self,
        transport: Transport,
        address: Option<SocketAddr>,
        slot: Option<AcceptedSlot>,
        tag: &str,
        now: Instant,
    ) -> LinkConnection {
        let id = LinkConnection(self.next);
        self.next += 1;
        let io = LinkIo::new(id, transport, address, slot, tag, now);
        self.all.push(io);
        id
    }

    pub(super) fn get(&self, id: LinkConnection) -> Option<&LinkIo> {
        self.all.iter().find(|io| io.id == id)
    }

    pub(super) fn get_mut(&mut self, id: LinkConnection) -> Option<&mut LinkIo> {
        self.all.iter_mut().find(|io| io.id == id)
    }

    pub(super) fn remove(&mut self, id: LinkConnection) -> Option<LinkIo> {
        let at = self.all.iter().position(|io| io.id == id)?;
        Some(self.all.swap_remove(at))
    }

    pub(super) fn take_all(&mut self) -> Vec<LinkIo> {
        std::mem::take(&mut self.all)
    }

    pub(super) fn ids(&self) -> Vec<LinkConnection> {
        self.all.iter().map(|io| io.id).collect()
    }

    /// When one of them has something to do by itself.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let signs = self.all.iter().filter_map(|io| io.sip.next_deadline());
        signs.min()
    }

    /// Completes when something was written or read, or a connection failed. Each has its turn; `reads` says which of
    /// them are read.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        reads: impl Fn(LinkConnection) -> bool,
    ) -> Poll<Option<(LinkConnection, io::Error)>> {
        let mut moved = Poll::Pending;
        for io in &mut self.all {
            let reads = io.takes_more() && reads(io.id);
            match io.poll(cx, reads) {
                Poll::Ready(Ok(())) => moved = Poll::Ready(None),
                Poll::Ready(Err(error)) => return Poll::Ready(Some((io.id, error))),
                Poll::Pending => {}
            }
        }
        moved
    }
}
