//! What the queues of a link's routes gave: whom each stanza is for on this side.
//!
//! Errors are taken whether or not the server can be dialled: they answer what it asks on its own connections, which
//! may stand while its address, its port or its certificate keeps the edge from opening one. So is presence that changes
//! no more than the edge's own memory: what it said must not be forgotten because nobody could be told at the time. All
//! else waits here for the server, as long as stanzas may wait, and is charged to its queue.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use xmpp_edge_crds::{jid::BareJid, verdict::Direction};

use super::{
    answering::Answering,
    asking::Asking,
    inquiries,
    inside_error::InsideError,
    link_settings::LinkMoment,
    linked_stanza::StanzaReader,
    links::{LinkCommand, LinkHandle},
    outgoing::malformed_address,
    outward::Outward,
    presence::LinkPresence,
};
use crate::{
    routing::{
        batch::Batch,
        failure::Failure,
        route::Route,
        route_slots::RouteSlots,
        router::forbidden,
        wake::{Wake, Window},
    },
    sip::turns::TwoPeople,
    xml::{
        Element,
        stanza::{Stanza, StanzaKind},
    },
};

/// A link takes whatever waits: what it cannot send yet stays charged to its queue.
const EVERYTHING: Window = Window {
    is_empty: true,
    takes_errors: true,
};
/// Between two looks at what waits for the server.
const LOOK: Duration = Duration::from_millis(500);

/// Reads what the queues gave.
#[derive(Debug)]
pub(super) struct StanzaIntake {
    reader: StanzaReader,
    /// What waits for the server, one stanza each, in the order in which they came.
    waiting: VecDeque<WaitingForServer>,
    /// How much presence of whose waits: what follows it does not overtake it.
    asked: HashMap<TwoPeople, usize>,
    look: Option<Instant>,
}

#[derive(Debug)]
struct WaitingForServer {
    route: Arc<Route>,
    batch: Batch,
    /// Of presence: whose.
    people: Option<TwoPeople>,
}

/// Whether requests can go to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IntakeMode {
    /// Each stanza is for whoever it is for.
    All,
    /// Those that are for the server wait.
    Away,
    /// Those that are for the server have waited in vain.
    Expired,
}

/// A stanza that is for the server, which is not there.
struct ForServer {
    batch: Batch,
    people: Option<TwoPeople>,
}

/// Who takes what a queue gave.
pub(super) struct StanzaReceivers<'a> {
    pub(super) asking: &'a mut Asking,
    pub(super) answering: &'a mut Answering,
    pub(super) presence: &'a mut LinkPresence,
    pub(super) outward: &'a mut Outward,
    pub(super) handle: &'a LinkHandle,
    /// Who has the gateway in place of this link: presence and errors are what it has to know. Messages go in order with
    /// those that are in work here.
    pub(super) successor: Option<&'a Arc<LinkHandle>>,
}

impl Default for StanzaIntake {
    fn default() -> Self {
        Self {
            reader: StanzaReader::new(u32::MAX as usize),
            waiting: VecDeque::new(),
            asked: HashMap::new(),
            look: None,
        }
    }
}

impl StanzaIntake {
    /// What a route gave.
    pub(super) fn take(
        &mut self,
        moment: &LinkMoment<'_>,
        route: &Arc<Route>,
        batch: Batch,
        mode: IntakeMode,
        receivers: &mut StanzaReceivers<'_>,
    ) {
        let single = if batch.count() == 1 {
            vec![batch]
        } else {
            route.split(batch)
        };
        for batch in single {
            if let Some(left) = self.take_one(moment, route, batch, mode, receivers) {
                self.wait(moment, route, left);
            }
        }
    }

    /// Whatever the routes have. What waited for the server goes first once it is reached.
    pub(super) fn take_all(
        &mut self,
        moment: &LinkMoment<'_>,
        routes: &RouteSlots,
        wake: &Arc<Wake>,
        mode: IntakeMode,
        receivers: &mut StanzaReceivers<'_>,
    ) {
        if mode == IntakeMode::All {
            self.take_waiting(moment, receivers);
        }
        while let Some(slot) = wake.next(EVERYTHING) {
            let Some(route) = routes.at(slot) else {
                continue;
            };
            let router = &moment.context.router;
            if let Some(batch) = router.dequeue(route, wake, EVERYTHING) {
                self.take(moment, route, batch, mode, receivers);
            }
        }
    }

    fn take_waiting(&mut self, moment: &LinkMoment<'_>, receivers: &mut StanzaReceivers<'_>) {
        for WaitingForServer { route, batch, .. } in self.take_out() {
            let left = self.take_one(moment, &route, batch, IntakeMode::All, receivers);
            debug_assert!(left.is_none(), "the server is there");
        }
    }

    /// What waited for the server too long is answered, with `away`: why it is not reached. What waited behind it and
    /// needs no server is taken. Where the edge ends nothing waits for it.
    pub(super) fn expire(
        &mut self,
        moment: &LinkMoment<'_>,
        away: &Failure,
        receivers: &mut StanzaReceivers<'_>,
    ) {
        let router = &moment.context.router;
        if moment.context.stopping.is_cancelled() {
            for WaitingForServer { route, batch, .. } in self.take_out() {
                router.bounce(&route, batch, away);
            }
            return;
        }
        if self.look.is_none_or(|look| moment.now < look) {
            return;
        }
        let limit = router.queue_timeout();
        for own in self.take_out() {
            let waited = moment.now.saturating_duration_since(own.batch.arrived);
            if waited < limit {
                self.push(moment, own);
                continue;
            }
            let WaitingForServer { route, batch, .. } = own;
            let left = self.take_one(moment, &route, batch, IntakeMode::Expired, receivers);
            if let Some(ForServer { batch, .. }) = left {
                let failure = Failure::waited(limit, &route.pair.to, &away.text);
                router.bounce(&route, batch, &failure);
            }
        }
    }

    /// What waits for the server from partners that may not talk any more is answered.
    pub(super) fn withdraw_forbidden(&mut self, moment: &LinkMoment<'_>) {
        for own in self.take_out() {
            match forbidden(moment.config, &own.route) {
                Some(failure) => {
                    let router = &moment.context.router;
                    router.bounce(&own.route, own.batch, &failure);
                }
                None => self.push(moment, own),
            }
        }
    }

    /// When [`Self::expire`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.look
    }

    /// The link is over: each route with what waited for the server, in order.
    pub(super) fn hand_back(&mut self) -> Vec<(Arc<Route>, Vec<Batch>)> {
        let mut routes = HashMap::new();
        let mut returned: Vec<(Arc<Route>, Vec<Batch>)> = Vec::new();
        for WaitingForServer { route, batch, .. } in self.take_out() {
            let at = *routes.entry(route.pair.clone()).or_insert(returned.len());
            match returned.get_mut(at) {
                Some((_, batches)) => batches.push(batch),
                None => returned.push((route, vec![batch])),
            }
        }
        returned
    }

    fn wait(&mut self, moment: &LinkMoment<'_>, route: &Arc<Route>, left: ForServer) {
        let ForServer { mut batch, people } = left;
        // As it waits, and as it is counted.
        let beside = people.as_ref().map_or(0, TwoPeople::bytes);
        batch.charge_beside(size_of::<WaitingForServer>() + 2 * beside);
        let route = Arc::clone(route);
        let waiting = WaitingForServer {
            route,
            batch,
            people,
        };
        self.push(moment, waiting);
    }

    fn push(&mut self, moment: &LinkMoment<'_>, waiting: WaitingForServer) {
        if let Some(people) = &waiting.people {
            *self.asked.entry(people.clone()).or_default() += 1;
        }
        self.look.get_or_insert(moment.now + LOOK);
        self.waiting.push_back(waiting);
    }

    fn take_out(&mut self) -> VecDeque<WaitingForServer> {
        self.look = None;
        self.asked.clear();
        std::mem::take(&mut self.waiting)
    }

    /// What is for the server, where that is not there, comes back.
    fn take_one(
        &mut self,
        moment: &LinkMoment<'_>,
        route: &Arc<Route>,
        batch: Batch,
        mode: IntakeMode,
        receivers: &mut StanzaReceivers<'_>,
    ) -> Option<ForServer> {
        let StanzaReceivers {
            asking,
            answering,
            presence,
            outward,
            handle,
            successor,
        } = receivers;
        let bytes = batch.unsettled();
        let Some((stanza, header)) = self.reader.stanza(&bytes) else {
            debug_assert!(false, "a queued stanza is one stanza");
            self.reader = StanzaReader::new(u32::MAX as usize);
            batch.settle();
            return None;
        };
        let is_message =
            stanza.kind == StanzaKind::Message && stanza.type_.as_deref() != Some("error");
        if let Some(successor) = successor
            && !is_message
        {
            let command = LinkCommand::Stanza(Arc::clone(route), batch);
            successor.task.tell(command);
            return None;
        }
        if mode != IntakeMode::All {
            let people = people_of(&stanza);
            let follows = mode == IntakeMode::Away
                && people
                    .as_ref()
                    .is_some_and(|it| self.asked.contains_key(it));
            if is_for_server(&stanza) || follows {
                return Some(ForServer { batch, people });
            }
        }
        let router = &moment.context.router;
        let metrics = &moment.context.metrics;
        match (stanza.kind, stanza.type_.as_deref()) {
            (StanzaKind::Message, Some("error")) => {
                let error = Element::parse(stanza.bytes(), header).ok();
                if let Some(error) = error.as_ref().and_then(InsideError::of)
                    && !answering.error_came(moment, &error)
                {
                    handle.errored(metrics, error);
                }
                batch.settle();
            }
            (StanzaKind::Message, _) => {
                let address = |text: &Option<std::borrow::Cow<'_, str>>| {
                    BareJid::of_full(text.as_deref().unwrap_or_default()).ok()
                };
                match (address(&stanza.from), address(&stanza.to)) {
                    (Some(from), Some(to)) => {
                        let people = TwoPeople { from, to };
                        asking.push(moment, people, Arc::clone(route), batch);
                    }
                    _ => router.bounce(route, batch, &malformed_address()),
                }
            }
            (StanzaKind::Iq, Some("get" | "set")) => {
                let answer = inquiries::answer_to(&stanza);
                inquiries::send(moment, route, batch, answer);
            }
            (StanzaKind::Iq, _) => {
                metrics.sip_untranslated(Direction::Inbound, "Iq");
                batch.settle();
            }
            (StanzaKind::Presence, Some("error")) => {
                let error = Element::parse(stanza.bytes(), header).ok();
                if let Some(error) = error.as_ref().and_then(InsideError::of)
                    && !answering.error_came(moment, &error)
                {
                    presence.users.failed(moment, &error);
                }
                batch.settle();
            }
            (StanzaKind::Presence, _) => match presence.take(moment, outward, &stanza, header) {
                Ok(()) => batch.settle(),
                Err(failure) => router.bounce(route, batch, &failure),
            },
        }
        None
    }
}

/// Whether it is the server's to take, or at least to be there. An error answers what the server asked; presence that
/// asks nothing is what the edge knows.
fn is_for_server(stanza: &Stanza<'_>) -> bool {
    match (stanza.kind, stanza.type_.as_deref()) {
        (_, Some("error")) => false,
        (StanzaKind::Presence, type_) => matches!(type_, Some("subscribe" | "probe")),
        _ => true,
    }
}

/// Of presence but errors: whose.
fn people_of(stanza: &Stanza<'_>) -> Option<TwoPeople> {
    if stanza.kind != StanzaKind::Presence || stanza.type_.as_deref() == Some("error") {
        return None;
    }
    Some(TwoPeople {
        from: BareJid::of_full(stanza.from.as_deref()?).ok()?,
        to: BareJid::of_full(stanza.to.as_deref()?).ok()?,
    })
}
