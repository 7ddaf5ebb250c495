//! All connections of a link with its server: the one that it opened, and those that the server did.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use super::{
    accepted_slot::AcceptedSlot, connection::LinkIo, figures::LinkFigures,
    link_numbers::LinkNumbers,
};
use crate::{sip::transaction::LinkConnection, tls::Transport};

#[derive(Debug)]
pub(super) struct LinkConnections {
    /// As they were opened.
    all: Vec<LinkIo>,
    numbers: LinkNumbers,
    figures: Arc<LinkFigures>,
}

impl LinkConnections {
    pub(super) fn new(figures: Arc<LinkFigures>, numbers: LinkNumbers) -> Self {
        Self {
            all: Vec::new(),
            numbers,
            figures,
        }
    }

    pub(super) fn add(
        &mut self,
        transport: Transport,
        address: Option<SocketAddr>,
        slot: Option<AcceptedSlot>,
        tag: &str,
        now: Instant,
    ) -> LinkConnection {
        let id = self.numbers.next();
        let io = LinkIo::new(id, transport, address, slot, tag, now);
        self.all.push(io);
        self.show();
        id
    }

    /// One that another link of the gateway had, as it stands.
    pub(super) fn adopt(&mut self, io: LinkIo) {
        self.all.push(io);
        self.show();
    }

    pub(super) fn get(&self, id: LinkConnection) -> Option<&LinkIo> {
        self.all.iter().find(|io| io.id == id)
    }

    pub(super) fn get_mut(&mut self, id: LinkConnection) -> Option<&mut LinkIo> {
        self.all.iter_mut().find(|io| io.id == id)
    }

    pub(super) fn remove(&mut self, id: LinkConnection) -> Option<LinkIo> {
        let at = self.all.iter().position(|io| io.id == id)?;
        let removed = self.all.remove(at);
        self.show();
        Some(removed)
    }

    pub(super) fn take_all(&mut self) -> Vec<LinkIo> {
        let all = std::mem::take(&mut self.all);
        self.show();
        all
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

    fn show(&self) {
        self.figures
            .show_connections(self.all.iter().map(|io| &io.shown));
    }
}
