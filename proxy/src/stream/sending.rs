//! The sending half of a stream: takes out of the queues what the socket will soon take, asks for
//! confirmation, and acknowledges what was settled.

use std::time::Instant;

use super::{Phase, Stream};
use crate::negotiation::{Fault, Input};

/// One in so many batches is timed.
const SAMPLE: u32 = 16;

impl Stream {
    /// Everything taken in was settled and acknowledged, everything to be sent was confirmed.
    pub(super) fn is_done(&self) -> bool {
        self.egress.is_empty()
            && self.egress.in_custody() == 0
            && self.outgoing.iter().all(|route| route.waiting() == 0)
            && (self.acks.is_none() || self.settled == self.relay.received)
    }

    /// Takes out of the queues what the socket will soon take, asks for confirmation, acknowledges.
    pub(super) fn fill(&mut self) {
        let now = Instant::now();
        self.acknowledge();
        if !matches!(self.phase, Phase::Established) {
            return;
        }
        if self.egress.is_empty() {
            self.keepalive.wrote(now);
        }
        // In turns: a pair that always has more must not keep the others waiting.
        let mut without = 0;
        while without < self.outgoing.len() && self.egress.takes_more() && self.throttle.may_send()
        {
            self.turn = (self.turn + 1) % self.outgoing.len();
            let route = &self.outgoing[self.turn];
            let window = self.egress.window();
            let dequeued = self
                .context
                .router
                .dequeue(route, self.handle.waker(), window);
            let Some(batch) = dequeued else {
                without += 1;
                continue;
            };
            without = 0;
            for batch in self
                .context
                .router
                .within_limit(route, batch, self.largest())
            {
                let (count, bytes) = (u64::from(batch.count()), batch.unsettled().len() as u64);
                self.entry.sent(count, bytes);
                self.sampled = self.sampled.wrapping_add(1);
                if self.sampled.is_multiple_of(SAMPLE) {
                    let took = now.duration_since(batch.arrived);
                    self.context
                        .metrics
                        .forward_seconds
                        .observe(took.as_secs_f64());
                }
                self.throttle.sends(count, bytes, now);
                self.keepalive.stanza_crossed(now);
                self.egress.send(route, batch, now);
            }
        }
        if self.egress.in_custody() > 0 {
            self.ask_for_confirmation(now);
        }
        if self.keepalive.draining && self.is_done() {
            let stops = self.context.stopping.is_cancelled();
            let fault = if stops { Fault::Shutdown } else { Fault::Done };
            self.input(Input::End(fault));
            self.carry_out();
        }
    }

    /// One `<a/>` for all that was settled since the last one.
    fn acknowledge(&mut self) {
        let (Some(acks), Some(ledger)) = (&mut self.acks, &self.relay.ledger) else {
            return;
        };
        let settled = ledger.settled();
        let news = settled - self.settled;
        if news > 0 {
            self.settled = settled;
            // Stanzas of one stream: far below 2³² between two looks.
            acks.settle(u32::try_from(news).unwrap_or(u32::MAX));
        }
        let wanted = self.ack_wanted && (acks.has_news() || self.keepalive.ack_now());
        // Before the end it is told unasked: what is not, the peer sends again.
        if wanted || (self.keepalive.draining && acks.has_news()) {
            let mut out = Vec::new();
            acks.write_ack(&mut out);
            self.egress.control(out);
            self.keepalive.acked();
            self.ack_wanted = settled < self.relay.received;
        }
    }
}
