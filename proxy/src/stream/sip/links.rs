//! The links of this replica, by their gateways, and what others may do with them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::{Notify, futures::Notified};
use xmpp_edge_crds::edge_config::Gateway;

use super::{
    accepted_slot::{AcceptedSlot, AcceptedSlots},
    connection::LinkIo,
    figures::{LinkFigures, ShownLink},
    inside_error::InsideError,
    link_numbers::LinkNumbers,
};
use crate::{
    routing::{
        batch::Batch,
        dial_ticket::DialTicket,
        failure::{Failure, FailureKind},
        route::Route,
    },
    sip::{transaction::LinkConnection, turns::TwoPeople},
    stream::handle::TaskHandle,
    telemetry::metrics::Metrics,
    tls::Transport,
};

/// All links.
#[derive(Debug, Default)]
pub struct SipLinks {
    links: Mutex<LiveLinks>,
    /// There is another link.
    news: Notify,
}

#[derive(Debug, Default)]
struct LiveLinks {
    /// By the names of their gateways.
    standing: BTreeMap<String, Arc<LinkHandle>>,
    /// Those that have something left to do.
    ending: Vec<Arc<LinkHandle>>,
}

/// How others reach a link.
#[derive(Debug)]
pub struct LinkHandle {
    /// What it was started for: with another one it is another link.
    pub(super) gateway: Gateway,
    pub(super) task: TaskHandle<LinkCommand>,
    server: Mutex<ServerReach>,
    pub(super) figures: Arc<LinkFigures>,
    pub(super) numbers: LinkNumbers,
    accepted: AcceptedSlots,
    before: Weak<LinkHandle>,
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
    /// As [`Self::End`]: this link has the gateway from here on, and what its server connected to.
    Replaced(Arc<LinkHandle>),
    /// A connection that the server opened, from the link that had it before.
    HandedOver(Box<LinkIo>),
    /// What the link that had this connection before answers there.
    Answer(LinkConnection, Vec<u8>),
    /// An error came for something that the link before may have in work.
    Errored(InsideError),
    /// Something that this link has to know came on a route that the link before still has.
    Stanza(Arc<Route>, Batch),
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

impl SipLinks {
    /// The link of the gateway of this name.
    #[must_use]
    pub fn of(&self, gateway: &str) -> Option<Arc<LinkHandle>> {
        self.links.lock().standing.get(gateway).cloned()
    }

    /// Completes when there is a link that was not there before.
    pub fn news(&self) -> Notified<'_> {
        self.news.notified()
    }

    /// Whether none is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let links = self.links.lock();
        links.standing.is_empty() && links.ending.is_empty()
    }

    /// All links end at once, whatever waits.
    pub fn end_all(&self) {
        let links = self.links.lock();
        for link in links.standing.values().chain(&links.ending) {
            link.task.tell(LinkCommand::End);
        }
    }

    /// Links of these gateways alone go on: those of others end, and those that are new are given back to be started. One
    /// whose gateway has other settings leaves to its successor what its server connected to.
    pub(super) fn follow(&self, wanted: &[Gateway]) -> Vec<Arc<LinkHandle>> {
        let mut links = self.links.lock();
        let mut over = BTreeMap::new();
        links.standing.retain(|name, link| {
            let stays = wanted
                .iter()
                .any(|own| own.effective_name() == name && *own == link.gateway);
            if stays {
                link.task.tell(LinkCommand::ConfigChanged);
            } else {
                over.insert(name.clone(), Arc::clone(link));
            }
            stays
        });
        let mut new = Vec::new();
        for gateway in wanted {
            let name = gateway.effective_name();
            if links.standing.contains_key(name) {
                continue;
            }
            let before = over.remove(name);
            let link = Arc::new(LinkHandle::new(gateway.clone(), before.as_ref()));
            links.standing.insert(name.to_owned(), Arc::clone(&link));
            if let Some(before) = before {
                before.task.tell(LinkCommand::Replaced(Arc::clone(&link)));
                links.ending.push(before);
            }
            new.push(link);
        }
        for link in over.into_values() {
            link.task.tell(LinkCommand::End);
            links.ending.push(link);
        }
        drop(links);
        self.news.notify_waiters();
        new
    }

    /// The link has ended.
    pub(super) fn leave(&self, link: &Arc<LinkHandle>) {
        let name = link.gateway.effective_name();
        let is_it = |own: &Arc<LinkHandle>| Arc::ptr_eq(own, link);
        let mut links = self.links.lock();
        links.ending.retain(|own| !is_it(own));
        if links.standing.get(name).is_some_and(is_it) {
            links.standing.remove(name);
        }
    }
}

impl LinkHandle {
    fn new(gateway: Gateway, before: Option<&Arc<Self>>) -> Self {
        let failure = Failure::new(
            FailureKind::Unreachable,
            "the SIP server was not dialled yet",
        );
        Self {
            gateway,
            task: TaskHandle::default(),
            server: Mutex::new(ServerReach::Away(failure)),
            figures: Arc::default(),
            numbers: before.map_or_else(LinkNumbers::default, |it| it.numbers.clone()),
            accepted: before.map_or_else(AcceptedSlots::default, |it| it.accepted.clone()),
            before: before.map_or_else(Weak::new, Arc::downgrade),
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
    pub(super) fn accept(&self) -> Option<AcceptedSlot> {
        self.accepted.take()
    }

    /// An error came for nothing that is in work here: it is late, unless the link that this one replaced waits for it.
    pub(super) fn errored(&self, metrics: &Metrics, error: InsideError) {
        let before = self.before.upgrade();
        if !before.is_some_and(|before| before.task.tell(LinkCommand::Errored(error))) {
            metrics.sip_late_error();
        }
    }
}
