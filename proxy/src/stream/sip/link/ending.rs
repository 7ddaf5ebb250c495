//! How connections end, and how the link does.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use xmpp_edge_crds::edge_config::{Gateway, SipTransport};

use super::SipLink;
use crate::{
    routing::{batch::Batch, failure::Failure, route::Route},
    sip::{connection::ConnectionEnd, transaction::LinkConnection},
    stream::sip::{
        connection::{LinkIo, of_end},
        intake::{IntakeMode, StanzaReceivers},
        links::{LinkCommand, LinkHandle},
        phase::LinkPhase,
        presence::LinkPresence,
        sessions::LinkSessions,
        watching_partners::PartnersWatching,
    },
    telemetry::log_limiter::limited,
};

/// What is asked of the server may take so long to its end where the link is replaced by another one.
pub(super) const ENDING: Duration = Duration::from_secs(5);

impl SipLink {
    pub(super) fn ended(&mut self, id: LinkConnection, end: ConnectionEnd, now: Instant) {
        if let ConnectionEnd::Frame(fault) = end {
            self.context.metrics.connection_refused(fault.label());
            if self.dialled.has(id) {
                self.note("NotSip", end.to_string(), self.address_of(id));
            }
        }
        self.lose(id, of_end(&end.to_string()), now);
    }

    pub(super) fn connection_failed(&mut self, id: LinkConnection, error: &io::Error) {
        self.lose(id, of_end(&error.to_string()), Instant::now());
    }

    /// The connection is over. What was asked on it goes on the next one.
    pub(super) fn lose(&mut self, id: LinkConnection, failure: Failure, now: Instant) {
        let Some(io) = self.connections.remove(id) else {
            return;
        };
        limited!(
            info,
            self.context.log.lines_of("SIP", "ConnectionEnded"),
            gateway = self.settings.name(), address = ?io.address, cause = &*failure.text,
            "a connection with the SIP server ended"
        );
        self.context.tasks.spawn(io.farewell());
        self.answering.connection_lost(id);
        let was_first = self.dialled.first() == Some(id);
        if !self.dialled.remove(id) {
            return;
        }
        self.dialled.lost(now);
        self.is_away(failure, now);
        let moment = Self::moment(&self.context, &self.config, &self.settings, now);
        if was_first {
            // Whoever misses them says so once more, or finds no session.
            self.sessions.take_written();
            self.presence
                .connection_lost(&moment, &mut self.outward, id);
        }
        if !self.dialled.is_reached() {
            return self.hand_back(&[id], now);
        }
        self.asking.go_on(&moment, id);
        if was_first {
            self.presence.partners.server_back(now);
        }
    }

    pub(super) fn hand_back(&mut self, ids: &[LinkConnection], now: Instant) {
        let moment = Self::moment(&self.context, &self.config, &self.settings, now);
        let (router, wake) = (&self.context.router, self.handle.task.waker());
        // One of them has nothing: what waits for the server is asked as soon as it is reached.
        let returned = self.asking.hand_back(&moment, ids);
        for (route, batches) in returned.into_iter().chain(self.intake.hand_back()) {
            router.detach(&route, wake, batches);
        }
        // Those that are detached already have nothing more to give.
        for route in self.routes.end() {
            router.detach(&route, wake, Vec::new());
        }
        wake.forget_routes();
    }

    /// What was opened because much waited is closed once it does not, and nothing is in work there.
    pub(super) fn leave_idle_connections(&mut self) {
        for id in self.dialled.dispensable(self.asking.waiting()) {
            if self.asking.load(id) == 0
                && !self.answering.owes_on(id)
                && let Some(io) = self.connections.remove(id)
            {
                self.dialled.remove(id);
                self.answering.connection_lost(id);
                self.context.tasks.spawn(io.farewell());
            }
        }
    }

    /// Nothing more is taken; `within` so long what is in work ends.
    pub(super) fn begin_end(&mut self, within: Duration) {
        let now = Instant::now();
        self.answering.end();
        self.presence.users.end(now);
        self.phase.end_by(now + within);
    }

    /// Another link has the gateway: what the server connected to is its own from here on, with all that comes there,
    /// as far as it is the server by the settings that are in force. What is in work here is answered there.
    pub(super) fn replaced(&mut self, successor: Arc<LinkHandle>, now: Instant) {
        self.config = self.context.config();
        self.outward.config_changed();
        for id in self.connections.ids() {
            let is_its = |io: &LinkIo| self.stays_server(io, &successor);
            if !self.dialled.has(id)
                && self.connections.get(id).is_some_and(is_its)
                && let Some(io) = self.connections.remove(id)
            {
                successor.task.tell(LinkCommand::HandedOver(Box::new(io)));
            }
        }
        self.successor = Some(successor);
        // Before the other one has anything to tell of them.
        let moment = Self::moment(&self.context, &self.config, &self.settings, now);
        let LinkPresence {
            partners, ledger, ..
        } = &mut self.presence;
        partners.withdraw(&moment, &mut self.outward, ledger);
        *partners = PartnersWatching::new(self.settings.sip.presence_expires_seconds);
        self.presence.users.end(now);
        self.phase.end_by(now + ENDING);
    }

    /// What came on a route of the link that this one replaced.
    pub(super) fn passed_on(&mut self, route: &Arc<Route>, batch: Batch, now: Instant) {
        let moment = Self::moment(&self.context, &self.config, &self.settings, now);
        let receivers = &mut StanzaReceivers {
            asking: &mut self.asking,
            answering: &mut self.answering,
            presence: &mut self.presence,
            outward: &mut self.outward,
            handle: &self.handle,
            successor: self.successor.as_ref(),
        };
        let mode = match self.dialled.first() {
            Some(_) => IntakeMode::All,
            None => IntakeMode::Away,
        };
        self.intake.take(&moment, route, batch, mode, receivers);
    }

    fn stays_server(&self, io: &LinkIo, successor: &LinkHandle) -> bool {
        let (old, new) = (&self.handle.gateway, &successor.gateway);
        let transport = |gateway: &Gateway| gateway.sip.as_ref().map(|sip| sip.transport);
        match transport(new) {
            Some(SipTransport::Tls) => io.shows(&self.config, new.effective_name()),
            // It is known by its address.
            Some(SipTransport::Tcp) => {
                transport(old) == transport(new) && old.address == new.address
            }
            None => false,
        }
    }

    /// Whether all is done. Where another link has the gateway, what is asked ends before what is answered.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        self.leave_answered();
        if self.successor.is_some() && self.context.stopping.is_cancelled() {
            // What was given back to it is answered, too.
            self.answering.end();
        }
        let until = match self.phase {
            LinkPhase::Open => return false,
            LinkPhase::Answering(until) => return self.answering.is_idle() || now >= until,
            LinkPhase::Ending(until) => until,
        };
        let asks_nothing = self.asking.is_idle()
            && (self.presence.users.counts().0 == 0 || !self.dialled.is_reached())
            // What waits for a server that is not reached waits for the next link, too.
            && (!self.dialled.is_reached() || self.routes.routes().all(|own| own.held() == 0));
        if self.successor.is_some() {
            if asks_nothing || now >= until {
                self.stop_asking(now);
                // By then each stanza is settled or answered.
                let queued = self.context.router.queue_timeout();
                self.phase = LinkPhase::Answering(now + queued + ENDING);
                self.leave_answered();
            }
            return !self.phase.asks() && self.answering.is_idle();
        }
        // While streams end, what they took in may still come here.
        let is_needed = self.context.stopping.is_cancelled() && !self.context.streams.is_empty();
        asks_nothing && self.answering.is_idle() && !is_needed || now >= until
    }

    /// Of a link that was replaced: connections that are of no use any more, once what came there is answered.
    fn leave_answered(&mut self) {
        if self.successor.is_none() {
            return;
        }
        for id in self.connections.ids() {
            if !self.dialled.has(id)
                && !self.answering.owes_on(id)
                && let Some(io) = self.connections.remove(id)
            {
                self.context.tasks.spawn(io.farewell());
            }
        }
    }

    /// What was asked and has no answer goes on with the next link; what was told is taken back.
    fn stop_asking(&mut self, now: Instant) {
        let ids = self.dialled.ids();
        self.handle.lost(of_end("the link ends"));
        self.hand_back(&ids, now);
        let moment = Self::moment(&self.context, &self.config, &self.settings, now);
        if !self.context.stopping.is_cancelled() {
            // Another link, or none: what this one told of its users nobody would take back.
            let LinkPresence {
                partners, ledger, ..
            } = &mut self.presence;
            partners.withdraw(&moment, &mut self.outward, ledger);
        }
        self.presence.report_end(&moment);
        self.sessions.end(&moment);
        self.sessions.report(&moment);
        if let Some(first) = self.dialled.first() {
            self.write_of_sessions(first);
        }
        let (sip, figures) = (&self.settings.sip, Arc::clone(&self.handle.figures));
        self.presence = LinkPresence::new(sip, &self.tag, figures);
        self.sessions = LinkSessions::new(sip.dialect, &self.tag);
        ids.into_iter().for_each(|id| {
            self.dialled.remove(id);
        });
    }

    pub(super) fn finish(mut self) {
        let now = Instant::now();
        self.stop_asking(now);
        let failure = of_end("the link ends");
        while let Some(command) = self.handle.task.told() {
            if let LinkCommand::Stanza(route, batch) = command {
                self.context.router.bounce(&route, batch, &failure);
            }
        }
        self.handle.task.close();
        self.write_answers();
        for io in self.connections.take_all() {
            self.context.tasks.spawn(io.farewell());
        }
        self.context.sip.leave(&self.handle);
    }
}
