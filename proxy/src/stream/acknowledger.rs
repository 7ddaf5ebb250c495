//! What a receiving stream owes its peer in XEP-0198: an `<a/>` for the stanzas that were settled, once
//! it asked. When one is settled is [`AckTracker`]'s to say.

use std::sync::Arc;

use crate::{
    negotiation::acks::{Acks, Namespace},
    routing::{acknowledgement::AckTracker, wake::Wake},
};

/// Acknowledges towards the peer of one stream, from the moment on when it enabled XEP-0198.
#[derive(Debug)]
pub struct Acknowledger {
    acks: Acks,
    tracker: Arc<AckTracker>,
    /// Of what the tracker settled, how much `acks` knows.
    settled: u64,
    request: Request,
}

/// What the peer's last `<r/>` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Answered,
    /// An answer, whatever it says (XEP-0198 section 4).
    Unanswered,
    /// Answered, but not with all that had come: the rest is told as it is settled.
    Incomplete,
}

impl Acknowledger {
    /// `wake` is told as stanzas are settled.
    #[must_use]
    pub fn new(namespace: Namespace, wake: Arc<Wake>) -> Self {
        Self {
            acks: Acks::new(namespace),
            tracker: Arc::new(AckTracker::new(wake)),
            settled: 0,
            request: Request::Answered,
        }
    }

    /// Who is told that a stanza needs nothing more.
    #[must_use]
    pub fn tracker(&self) -> &Arc<AckTracker> {
        &self.tracker
    }

    /// An `<r/>` came.
    pub fn requested(&mut self) {
        self.request = Request::Unanswered;
    }

    /// One `<a/>` for all that was settled since the last one, where one is due; `received` stanzas have
    /// come in all. `unasked`: the stream ends soon, and what is not told the peer sends again.
    pub fn ack(&mut self, received: u64, unasked: bool) -> Option<Vec<u8>> {
        let settled = self.tracker.settled();
        let news = settled - self.settled;
        if news > 0 {
            self.settled = settled;
            // Stanzas of one stream: far below 2³² between two looks.
            self.acks.settle(u32::try_from(news).unwrap_or(u32::MAX));
        }
        let due = match self.request {
            Request::Unanswered => true,
            Request::Incomplete => self.acks.has_news(),
            Request::Answered => unasked && self.acks.has_news(),
        };
        due.then(|| {
            let mut out = Vec::new();
            self.acks.write_ack(&mut out);
            self.request = if settled < received {
                Request::Incomplete
            } else {
                Request::Answered
            };
            out
        })
    }

    /// Whether each of the `received` stanzas is settled or given back, and what can be acknowledged is
    /// counted.
    #[must_use]
    pub fn is_done(&self, received: u64) -> bool {
        self.settled == received
            || self.tracker.done() == received && self.settled == self.tracker.settled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::acknowledgement::AckToken;

    fn settle(acknowledger: &Acknowledger, first: u64, count: u32) {
        AckToken {
            ledger: Arc::clone(acknowledger.tracker()),
            first,
            count,
        }
        .settle();
    }

    fn text(ack: Option<Vec<u8>>) -> Option<String> {
        ack.map(|ack| String::from_utf8(ack).expect("ASCII"))
    }

    fn h(count: u32) -> Option<String> {
        Some(format!("<a xmlns='urn:xmpp:sm:3' h='{count}'/>"))
    }

    #[test]
    fn a_request_is_answered_at_once_and_completed_as_stanzas_are_settled() {
        let mut own = Acknowledger::new(Namespace::Sm3, Arc::default());
        settle(&own, 0, 1);
        assert_eq!(text(own.ack(3, false)), None, "nobody has asked");
        own.requested();
        assert_eq!(text(own.ack(3, false)), h(1));
        assert_eq!(text(own.ack(3, false)), None, "nothing is new");
        settle(&own, 2, 1);
        assert_eq!(text(own.ack(3, false)), None, "there is a gap");
        settle(&own, 1, 1);
        assert_eq!(text(own.ack(3, false)), h(3));
        assert!(own.is_done(3));
        settle(&own, 3, 1);
        assert_eq!(text(own.ack(4, false)), None, "the request was completed");
    }

    #[test]
    fn an_answer_without_news_is_an_answer() {
        let mut own = Acknowledger::new(Namespace::Sm3, Arc::default());
        own.requested();
        assert_eq!(text(own.ack(5, false)), h(0));
    }

    #[test]
    fn before_the_end_what_was_settled_is_told_unasked_once() {
        let mut own = Acknowledger::new(Namespace::Sm3, Arc::default());
        settle(&own, 0, 2);
        assert_eq!(text(own.ack(2, true)), h(2));
        assert_eq!(text(own.ack(2, true)), None);
    }
}
