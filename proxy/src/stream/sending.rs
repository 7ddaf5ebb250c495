//! What a stream does between two looks at its socket: takes out of the queues what the socket will soon take, asks for
//! confirmation, and acknowledges what was settled.

use std::time::Instant;

use super::{
    Stream,
    egress::{Confirmation, ProbeKind},
};
use crate::negotiation::{Fault, Input};

impl Stream {
    /// Everything taken in was settled and acknowledged, everything to be sent was confirmed.
    pub(super) fn is_done(&self) -> bool {
        self.sender.is_done(self.handle.waker()) && self.receiver.is_done()
    }

    /// Takes out of the queues what the socket will soon take, asks for confirmation, acknowledges.
    pub(super) fn fill(&mut self) {
        let now = Instant::now();
        if let Some(ack) = self.receiver.ack(self.intake.is_draining()) {
            self.sender.buffer.control(ack);
        }
        if !self.state.is_established() {
            return;
        }
        if self.sender.buffer.is_empty() {
            self.keepalive.wrote(now);
        }
        let context = &self.context;
        let dequeued = self.sender.fill(
            &context.router,
            self.handle.waker(),
            &mut self.throttle,
            &context.metrics,
            now,
        );
        if dequeued.stanzas > 0 {
            self.entry.sent(dequeued.stanzas, dequeued.bytes);
            self.keepalive.stanza_crossed(now);
        }
        if self.sender.buffer.in_custody() > 0 {
            self.ask_for_confirmation(now);
        }
        let by_ping = matches!(
            self.sender.buffer.confirmation(),
            Confirmation::Probe {
                by: ProbeKind::Ping,
                ..
            }
        );
        self.entry
            .set_answered_elsewhere(by_ping && self.sender.buffer.in_custody() > 0);
        if self.intake.is_draining() && self.is_done() {
            let stops = self.context.stopping.is_cancelled();
            let fault = if stops { Fault::Shutdown } else { Fault::Done };
            self.input(Input::End(fault));
            self.carry_out();
        }
    }
}
