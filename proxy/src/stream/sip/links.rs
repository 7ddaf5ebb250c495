//! The links of this replica, by their gateways, and what others may do with them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::{Notify, futures::Notified};
use xmpp_edge_crds::edge_config::Gateway;

use super::figures::{LinkFigures, ShownLink};
use crate::{
    routing::{
        dial_ticket::DialTicket,
        failure::{Failure, FailureKind},
    },
    sip::turns::TwoPeople,
    stream::handle::TaskHandle,
    tls::Transport,
};

/// Connections that one SIP server may have towards the edge. Kamailio opens one for each of its processes that sends.
const MOST_ACCEPTED: usize = 64;

/// All links.
#[derive(Debug, Default)]
pub struct SipLinks {
    links: Mutex<BTreeMap<String, Arc<LinkHandle>>>,
    /// There is another link.
    news: Notify,
}

/// How others reach a link.
#[derive(Debug)]
pub struct LinkHandle {
    /// What it was started for: with another one it is another link.
    pub(super) gateway: Gateway,
    pub(super) task: TaskHandle<LinkCommand>,
    server: Mutex<ServerReach>,
    pub(super) figures: Arc<LinkFigures>,
    accepted: AtomicUsize,
    /// Whoever came last in its name was somebody else.
    is_unknown: AtomicBool,
    sessions: AtomicUsize,
}

/// What others tell a link.
#[derive(Debug)]
pub(super) enum LinkCommand {
    /// Carry this route; dropped, the ticket gives the route back.
    Carry(DialTicket),
    /// The server connected to the edge, and has shown that it is the server.
    Accepted {
        transport: Box<Transport>,
        address: SocketAddr,
        slot: AcceptedSlot,
    },
    /// What the link dialled for came of it.
    Dialled(DialReport),
    ConfigChanged,
    /// Who watches users of its domains, as the contacts know it: each with whom they watch.
    Watched(Vec<TwoPeople>),
    /// End in order, within the time of a closing handshake.
    End,
}

/// What came of dialling once.
#[derive(Debug)]
pub(super) struct DialReport {
    pub(super) outcome: Result<Dialled, Failure>,
    /// Servers that took a connection and said nothing.
    pub(super) silent: Vec<SocketAddr>,
}

/// A connection that the edge opened, and whose server has proved itself.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) transport: Box<Transport>,
    pub(super) address: Option<SocketAddr>,
}

/// Whether requests can go to the server.
#[derive(Clone, Debug)]
enum ServerReach {
    Reached,
    Away(Failure),
}

/// A place among the connections that the server opened; dropped, it is free.
#[derive(Debug)]
pub(super) struct AcceptedSlot(Arc<LinkHandle>);

impl SipLinks {
    /// The link of the gateway of this name.
    #[must_use]
    pub fn of(&self, gateway: &str) -> Option<Arc<LinkHandle>> {
        self.links.lock().get(gateway).cloned()
    }

    /// Completes when there is a link that was not there before.
    pub fn news(&self) -> Notified<'_> {
        self.news.notified()
    }

    /// Whether none is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.links.lock().is_empty()
    }

    /// All links end at once, whatever waits.
    pub fn end_all(&self) {
        for link in self.links.lock().values() {
            link.task.tell(LinkCommand::End);
        }
    }

    /// Links of these gateways alone go on: those of others end, and those that are new are given back to be started.
    pub(super) fn follow(&self, wanted: &[Gateway]) -> Vec<Arc<LinkHandle>> {
        let mut links = self.links.lock();
        links.retain(|name, link| {
            let stays = wanted
                .iter()
                .any(|own| own.effective_name() == name && *own == link.gateway);
            if stays {
                link.task.tell(LinkCommand::ConfigChanged);
            } else {
                link.task.tell(LinkCommand::End);
            }
            stays
        });
        let mut new = Vec::new();
        for gateway in wanted {
            let name = gateway.effective_name();
            if links.contains_key(name) {
                continue;
            }
            let link = Arc::new(LinkHandle::new(gateway.clone()));
            links.insert(name.to_owned(), Arc::clone(&link));
            new.push(link);
        }
        drop(links);
        self.news.notify_waiters();
        new
    }

    /// The link has ended.
    pub(super) fn leave(&self, link: &Arc<LinkHandle>) {
        let name = link.gateway.effective_name();
        let mut links = self.links.lock();
        if links.get(name).is_some_and(|own| Arc::ptr_eq(own, link)) {
            links.remove(name);
        }
    }
}

impl LinkHandle {
    fn new(gateway: Gateway) -> Self {
        let failure = Failure::new(
            FailureKind::Unreachable,
            "the SIP server was not dialled yet",
        );
        Self {
            gateway,
            task: TaskHandle::default(),
            server: Mutex::new(ServerReach::Away(failure)),
            figures: Arc::default(),
            accepted: AtomicUsize::new(0),
            is_unknown: AtomicBool::new(false),
            sessions: AtomicUsize::new(0),
        }
    }

    /// The link carries this route, whether or not its server is reached.
    pub(super) fn carry(&self, ticket: DialTicket) {
        // Where the link has just ended, the ticket is dropped and gives its route back.
        self.task.tell(LinkCommand::Carry(ticket));
    }

    /// Why requests cannot go to the server; `None`: they can.
    pub(super) fn away(&self) -> Option<Failure> {
        match &*self.server.lock() {
            ServerReach::Reached => None,
            ServerReach::Away(failure) => Some(failure.clone()),
        }
    }

    /// The link reaches its server.
    pub(super) fn reached(&self) {
        *self.server.lock() = ServerReach::Reached;
    }

    /// The server is away, for this reason.
    pub(super) fn lost(&self, failure: Failure) {
        *self.server.lock() = ServerReach::Away(failure);
    }

    /// What there is of it now.
    #[must_use]
    pub fn shown(&self) -> ShownLink {
        ShownLink {
            sessions: self.sessions(),
            ..self.figures.shown()
        }
    }

    /// Whether requests can go to the server.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        matches!(*self.server.lock(), ServerReach::Reached)
    }

    /// Somebody else came; whether that is news.
    pub(super) fn is_unknown_first(&self) -> bool {
        !self.is_unknown.swap(true, Ordering::Relaxed)
    }

    /// The server itself came; whether that is news.
    pub(super) fn known_again(&self) -> bool {
        self.is_unknown.swap(false, Ordering::Relaxed)
    }

    /// Sessions of messages with the server: of dialect `Lync` alone.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    pub(super) fn set_sessions(&self, sessions: usize) {
        self.sessions.store(sessions, Ordering::Relaxed);
    }

    /// A place for one more connection of the server's; `None` where it has too many.
    pub(super) fn accept(self: &Arc<Self>) -> Option<AcceptedSlot> {
        let before = self.accepted.fetch_add(1, Ordering::Relaxed);
        let slot = AcceptedSlot(Arc::clone(self));
        (before < MOST_ACCEPTED).then_some(slot)
    }
}

impl Drop for AcceptedSlot {
    fn drop(&mut self) {
        self.0.accepted.fetch_sub(1, Ordering::Relaxed);
    }
}
