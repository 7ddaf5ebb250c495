//! How a stream learns what its peer got: XEP-0198, a `db:verify` towards a gateway, or an XEP-0199 ping
//! to a peer that can do neither.
//!
//! A peer of which nothing is known is asked by ping from the first stanza on, and what was sent stays in
//! custody until the answer comes, as long as a stanza may wait; where none comes, written is delivered, and
//! that is remembered. A peer that reads nothing just then looks the same as one that answers no pings, so
//! silence is believed early only where its queue is nearly full. One whose answers came before and then do
//! not is taken for dead, once.

use std::time::{Duration, Instant};

use xmpp_edge_crds::domain::DomainName;

use super::{
    Machine, Stream,
    ack_ping::{self, Asker},
    egress::{Confirmation, ProbeKind},
    liveness,
    peer_memory::PingAnswers,
};
use crate::negotiation::{Fault, Input, Side};

/// How long the first answer to a ping of a peer may take where something waits for it: what comes behind a
/// stanza that goes alone, or the end of the stream.
const FIRST_ANSWER: Duration = Duration::from_secs(3);

/// Quarters of a queue from which on confirmation should come soon.
const ASKED_AT: u64 = 1;
/// Quarters of a queue that what nobody may ever confirm does not take.
const NEARLY_FULL: u64 = 3;

impl Stream {
    /// A pair may be sent here: how will the peer confirm?
    pub(super) fn choose_confirmation(&mut self) {
        if !matches!(self.sender.buffer.confirmation(), Confirmation::Written) {
            return;
        }
        let answers_verify = matches!(&self.machine, Machine::Outbound(machine)
            if self.side == Side::Gateway && machine.can_probe());
        if answers_verify {
            self.sender.buffer.probe_by(ProbeKind::Dialback);
        } else if let Some(route) = self.sender.routes.first()
            && self.may_ping(&route.pair.to)
        {
            let peer = &route.pair.to;
            self.pings = self.context.peers.pings(self.side, peer, Instant::now());
            if self.pings != PingAnswers::Never {
                self.sender.buffer.probe_by(ProbeKind::Ping);
            }
        }
    }

    /// Whether `confirmByPing` lets this peer be asked by pings.
    fn may_ping(&self, peer: &DomainName) -> bool {
        match self.side {
            Side::Partner => {
                let partner = self.config.partner(peer);
                partner.is_none_or(|partner| partner.confirm_by_ping)
            }
            Side::Gateway => {
                let gateway = self.config.gateway(peer);
                gateway.is_none_or(|gateway| gateway.config.confirm_by_ping)
            }
        }
    }

    /// Asks for confirmation of what is in custody, where it is time.
    pub(super) fn ask_for_confirmation(&mut self, now: Instant) {
        match self.sender.buffer.confirmation_mut() {
            Confirmation::Written => {}
            Confirmation::Acks { .. } => {
                let queue = self.config.document.settings.queue_bytes;
                let quarter = usize::try_from(queue / 4).unwrap_or(usize::MAX);
                let ends = self.intake.is_draining();
                self.sender.buffer.ask(ends, quarter, now);
            }
            Confirmation::Probe { last, by, .. } => {
                let by = *by;
                let soon =
                    last.is_some_and(|last| now.duration_since(last) < liveness::PROBE_PAUSE);
                if !soon || self.sender.buffer.sends_alone() || self.holds_of_its_queue(ASKED_AT) {
                    self.probe(now);
                }
                if by == ProbeKind::Ping
                    && self.pings == PingAnswers::Unknown
                    && self.holds_of_its_queue(NEARLY_FULL)
                {
                    // Nobody is slowed down for what may never come. The answer counts from when it does.
                    self.sender.buffer.confirm_by(Confirmation::Written);
                }
            }
        }
    }

    /// Asks by a probe, where none is under way.
    pub(super) fn probe(&mut self, now: Instant) {
        match self.sender.buffer.begin_probe(now) {
            None => {}
            Some((ProbeKind::Dialback, number)) => {
                self.input(Input::Probe { number });
                self.carry_out();
            }
            Some((ProbeKind::Ping, number)) => {
                let Some(route) = self.sender.routes.first() else {
                    return;
                };
                let asker = Asker {
                    process: self.context.peers.process,
                    stream: self.entry.id,
                    number,
                };
                let key = self.config.dialback.mac_key();
                let names =
                    self.context
                        .peers
                        .names(self.side, &route.pair.to, &route.pair.from, now);
                let ping = ack_ping::ping(&key, asker, &route.pair, names);
                self.sender.buffer.control(ping);
            }
        }
    }

    /// The peer has answered the ping of this number: what was sent before it has arrived.
    pub(super) fn ping_answered(&mut self, number: u64) {
        self.keepalive.answered();
        self.machine.note_proved();
        if self.pings != PingAnswers::Comes {
            self.note_ping(true);
        }
        if matches!(self.sender.buffer.confirmation(), Confirmation::Written) {
            self.sender.buffer.probe_by(ProbeKind::Ping);
        } else {
            self.sender.buffer.probe_answered(number);
        }
    }

    /// How long the question under way may still take.
    pub(super) fn answer_limit(&self) -> Duration {
        let limit = self.keepalive.question_timeout();
        match self.pings_unanswered() {
            // Nobody is kept from ending, or from what comes behind, by what may never come.
            Some(PingAnswers::Unknown)
                if self.intake.is_draining() || self.sender.buffer.sends_alone() =>
            {
                limit.min(FIRST_ANSWER)
            }
            _ => limit,
        }
    }

    /// A question was not answered in time: the peer is dead, or does not answer such questions.
    pub(super) fn unanswered(&mut self) {
        let Some(answers) = self.pings_unanswered() else {
            self.input(Input::End(Fault::Unresponsive));
            return;
        };
        self.note_ping(false);
        if answers == PingAnswers::Comes {
            self.input(Input::End(Fault::Unresponsive));
        } else {
            self.sender.buffer.confirm_by(Confirmation::Written);
            self.sender.buffer.settle_written();
        }
    }

    /// What is known of the peer, where the question under way is a ping.
    fn pings_unanswered(&self) -> Option<PingAnswers> {
        match self.sender.buffer.confirmation() {
            Confirmation::Probe {
                by: ProbeKind::Ping,
                asked: Some(_),
                ..
            } => Some(self.pings),
            _ => None,
        }
    }

    fn note_ping(&mut self, answered: bool) {
        if let Some(route) = self.sender.routes.first() {
            let (peer, now) = (&route.pair.to, Instant::now());
            let peers = &self.context.peers;
            peers.note_ping(&self.config, (self.side, peer), answered, now);
            self.pings = peers.pings(self.side, peer, now);
        }
    }

    /// Whether what waits for confirmation takes more than this many quarters of a queue.
    fn holds_of_its_queue(&self, quarters: u64) -> bool {
        let bytes = self.config.document.settings.queue_bytes / 4 * quarters;
        self.sender
            .holds_more_than(usize::try_from(bytes).unwrap_or(usize::MAX))
    }
}
