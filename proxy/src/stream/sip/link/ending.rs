//! How connections end, and how the link does.

use std::{io, time::Instant};

use super::SipLink;
use crate::{
    routing::failure::Failure,
    sip::{connection::ConnectionEnd, transaction::LinkConnection},
    stream::sip::{connection::of_end, presence::LinkPresence},
    telemetry::log_limiter::limited,
};

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

    pub(super) fn finish(mut self) {
        let now = Instant::now();
        self.handle.lost(of_end("the link ends"));
        self.handle.task.close();
        self.hand_back(&self.dialled.ids(), now);
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
        let ended = self.sessions.take_written();
        let first = self.dialled.first();
        if let Some(io) = first.and_then(|id| self.connections.get_mut(id)) {
            ended.iter().for_each(|bytes| io.write(bytes));
        }
        self.write_answers();
        for io in self.connections.take_all() {
            self.context.tasks.spawn(io.farewell());
        }
        self.context.sip.leave(&self.handle);
    }
}
