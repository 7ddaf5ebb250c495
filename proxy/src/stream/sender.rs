//! The sending half of a stream: the routes it takes from, in turns, and what is written and not
//! confirmed. Knows no socket.

use std::{sync::Arc, time::Instant};

use super::{egress::SendBuffer, throttle::Throttle};
use crate::{
    routing::{route::Route, router::Router, wake::Wake},
    telemetry::metrics::Metrics,
};

/// One in so many batches is timed.
const SAMPLE: u32 = 16;
/// Every server takes stanzas of so many bytes (RFC 6120 section 13.12).
const LEAST_LIMIT: u64 = 10_000;

#[derive(Debug, Default)]
pub struct Sender {
    pub buffer: SendBuffer,
    /// Pairs that the edge may send here, by their slots.
    pub routes: Vec<Arc<Route>>,
    /// The largest stanza in bytes that the peer takes: as it announced it (XEP-0478).
    announced_limit: Option<u64>,
    /// The same, where that was found out.
    learned_limit: Option<u64>,
    /// Batches sent, to time one in [`SAMPLE`].
    sampled: u32,
    /// How often a route was asked for something.
    #[cfg(test)]
    looks: usize,
}

/// What left the queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dequeued {
    pub stanzas: u64,
    pub bytes: u64,
}

impl Sender {
    /// Another pair may be sent here, to a peer that takes no more than `limit` bytes where that is
    /// known. `false` where another stream carries it.
    pub fn attach(
        &mut self,
        router: &Router,
        wake: &Arc<Wake>,
        route: Arc<Route>,
        limit: Option<u64>,
    ) -> bool {
        let next = self.routes.len();
        let slot = router.attach(&route, wake, next);
        if slot == Some(next) {
            self.learned_limit = self.learned_limit.into_iter().chain(limit).min();
            self.routes.push(route);
        }
        slot.is_some()
    }

    /// The peer has announced its largest stanza. Less than any server may ask for (RFC 6120 section 13.12)
    /// is believed of none: every stanza would come back.
    pub fn announced(&mut self, bytes: Option<u64>) {
        self.announced_limit = bytes.map(|bytes| bytes.max(LEAST_LIMIT));
    }

    /// The largest stanza that the peer takes, as it announced it, or as it was found out.
    #[must_use]
    pub fn largest(&self) -> Option<u64> {
        let announced = self.announced_limit.into_iter();
        announced.chain(self.learned_limit).min()
    }

    /// Takes out of the queues what the socket will soon take. In turns: a pair that always has more
    /// must not keep the others waiting.
    pub fn fill(
        &mut self,
        router: &Arc<Router>,
        wake: &Arc<Wake>,
        throttle: &mut Throttle,
        metrics: &Metrics,
        now: Instant,
    ) -> Dequeued {
        let mut dequeued = Dequeued::default();
        while self.buffer.takes_more() && throttle.may_send() {
            let window = self.buffer.window();
            let Some(slot) = wake.next(window) else { break };
            let Some(route) = self.routes.get(slot) else {
                continue;
            };
            #[cfg(test)]
            {
                self.looks += 1;
            }
            let Some(batch) = router.dequeue(route, wake, window) else {
                continue;
            };
            for batch in router.within_limit(route, batch, self.largest()) {
                let (count, bytes) = (u64::from(batch.count()), batch.unsettled().len() as u64);
                dequeued.stanzas += count;
                dequeued.bytes += bytes;
                self.sampled = self.sampled.wrapping_add(1);
                if self.sampled.is_multiple_of(SAMPLE) {
                    let took = now.duration_since(batch.arrived);
                    metrics.forward_seconds.observe(took.as_secs_f64());
                }
                throttle.sends(count, bytes, now);
                self.buffer.send(route, batch, now);
            }
        }
        dequeued
    }

    /// Nothing waits, nothing is unwritten, all is confirmed.
    #[must_use]
    pub fn is_done(&self, wake: &Wake) -> bool {
        self.buffer.is_empty() && self.buffer.in_custody() == 0 && wake.is_idle()
    }

    /// Whether more than `bytes` of any pair wait, or wait for confirmation.
    #[must_use]
    pub fn holds_more_than(&self, bytes: usize) -> bool {
        self.routes.iter().any(|route| route.held() > bytes)
    }

    /// Gives back memory that only busy streams need.
    pub fn release(&mut self, wake: &Wake) {
        wake.release();
        self.routes.shrink_to_fit();
        self.buffer.release();
    }
}

#[cfg(test)]
mod tests {
    use arc_swap::ArcSwap;
    use xmpp_edge_crds::domain::DomainName;

    use super::*;
    use crate::{
        config::fixture,
        negotiation::{Pair, Side},
        routing::{
            batch::{Batch, BatchBuilder},
            dial_ticket::DialRequests,
            failure::{Failure, FailureKind},
        },
        stream::{egress::ProbeKind, throttle::RateLimits},
    };

    /// A sender of so many pairs, attached.
    fn sender(pairs: usize) -> (Sender, Arc<Router>, Arc<Wake>, DialRequests) {
        let config = Arc::new(ArcSwap::from_pointee(fixture::active_config(|_| ())));
        let (router, dials) = Router::new(config, Arc::new(Metrics::new()), Arc::default());
        let (mut sender, wake) = (Sender::default(), Arc::default());
        for number in 0..pairs {
            let domain = |name: &str| DomainName::parse(name).expect("valid");
            let pair = Pair {
                from: domain("org.example"),
                to: domain(&format!("x{number}.partner.example")),
            };
            let route = router.route(Side::Partner, &pair);
            assert!(sender.attach(&router, &wake, route, None));
        }
        (sender, router, wake, dials)
    }

    /// One stanza of `bytes` whose sender is `name`.
    fn enqueue(router: &Arc<Router>, route: &Arc<Route>, name: char, bytes: usize) {
        let mut builder = BatchBuilder::default();
        builder.add(0, bytes, |out| out.resize(bytes, name as u8));
        router.enqueue(route, builder.take(None, Instant::now()).expect("some"));
    }

    /// Writes all that the buffer shows; the first byte of each piece.
    fn written(sender: &mut Sender) -> String {
        let mut first = String::new();
        while !sender.buffer.is_empty() {
            first.push(char::from(sender.buffer.front()[0]));
            sender.buffer.wrote(sender.buffer.front().len());
        }
        sender.buffer.flushed();
        first
    }

    #[test]
    fn a_pair_that_always_has_more_keeps_no_other_waiting() {
        let (mut sender, router, wake, _dials) = sender(3);
        let routes = sender.routes.clone();
        // More than is taken out of the queues at a time.
        for _ in 0..40 {
            enqueue(&router, &routes[0], 'a', 30_000);
        }
        enqueue(&router, &routes[1], 'b', 100);
        enqueue(&router, &routes[2], 'c', 100);
        let metrics = Metrics::new();
        let dequeued = sender.fill(
            &router,
            &wake,
            &mut Throttle::default(),
            &metrics,
            Instant::now(),
        );
        assert!(dequeued.stanzas < 42, "{dequeued:?}");
        let order = written(&mut sender);
        let at = |name| order.find(name).unwrap_or(usize::MAX);
        assert!(at('b') < 3 && at('c') < 3, "{order}");
        assert!(!sender.is_done(&wake), "{} wait", routes[0].waiting());
        while routes[0].waiting() > 0 {
            sender.fill(
                &router,
                &wake,
                &mut Throttle::default(),
                &metrics,
                Instant::now(),
            );
            written(&mut sender);
        }
        assert!(sender.is_done(&wake));
        assert_eq!(router.held(), 0);
    }

    #[test]
    fn what_is_too_large_for_the_peer_is_not_sent_and_its_neighbours_are() {
        let (mut sender, router, wake, _dials) = sender(1);
        let route = Arc::clone(&sender.routes[0]);
        assert!(sender.attach(&router, &wake, Arc::clone(&route), Some(50_000)));
        assert_eq!(sender.largest(), None, "the pair was there before");
        sender.announced(Some(20_000));
        let mut builder = BatchBuilder::default();
        for (number, size) in [(0, 100), (1, 20_001), (2, 20_000)] {
            builder.add(number, size, |out| {
                out.extend_from_slice(b"<message from='a@org.example' to='b@x0.partner.example'>");
                out.resize(out.len() + size - 66, b'x');
                out.extend_from_slice(b"</message>");
            });
        }
        router.enqueue(&route, builder.take(None, Instant::now()).expect("some"));
        let metrics = Metrics::new();
        let mut throttle = Throttle::default();
        let dequeued = sender.fill(&router, &wake, &mut throttle, &metrics, Instant::now());
        assert_eq!((dequeued.stanzas, dequeued.bytes), (2, 20_100));
    }

    #[test]
    fn no_peer_is_believed_to_take_less_than_every_server_must() {
        let mut sender = Sender::default();
        for (told, believed) in [(0, 10_000), (500, 10_000), (10_001, 10_001)] {
            sender.announced(Some(told));
            assert_eq!(sender.largest(), Some(believed), "{told}");
        }
        sender.announced(None);
        assert_eq!(sender.largest(), None);
    }

    #[test]
    fn over_its_rate_nothing_leaves_the_queues() {
        let (mut sender, router, wake, _dials) = sender(1);
        let route = Arc::clone(&sender.routes[0]);
        for _ in 0..5 {
            enqueue(&router, &route, 'a', 100);
        }
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let limits = RateLimits {
            stanzas: Some(1),
            bytes: None,
        };
        throttle.apply(limits, now);
        let metrics = Metrics::new();
        while throttle.may_send() {
            sender.fill(&router, &wake, &mut throttle, &metrics, now);
            if route.waiting() == 0 {
                enqueue(&router, &route, 'a', 100);
            }
        }
        enqueue(&router, &route, 'a', 100);
        let waiting = route.waiting();
        let dequeued = sender.fill(&router, &wake, &mut throttle, &metrics, now);
        assert_eq!((dequeued, route.waiting()), (Dequeued::default(), waiting));
    }

    #[test]
    fn ten_thousand_idle_routes_of_one_stream_cost_nothing() {
        const PAIRS: usize = 10_000;
        let (mut sender, router, wake, _dials) = sender(PAIRS);
        let (metrics, now) = (Metrics::new(), Instant::now());
        let mut throttle = Throttle::default();
        let mut fill = |sender: &mut Sender| {
            sender.looks = 0;
            let dequeued = sender.fill(&router, &wake, &mut throttle, &metrics, now);
            (dequeued.stanzas, sender.looks)
        };
        assert_eq!(fill(&mut sender), (0, 0), "nothing has come");
        for slot in [9_999, 0, 5_000] {
            enqueue(&router, &sender.routes[slot].clone(), 'a', 100);
        }
        assert_eq!(fill(&mut sender), (3, 3));
        assert_eq!(fill(&mut sender), (0, 0), "nothing is left");
        // What one of them has more of is asked for there alone.
        let busy = sender.routes[7_000].clone();
        (0..5).for_each(|_| enqueue(&router, &busy, 'a', 100));
        assert_eq!(fill(&mut sender), (5, 5));
        written(&mut sender);
        assert!(sender.is_done(&wake));
    }

    #[test]
    fn what_came_before_the_stream_and_what_comes_back_to_it_has_its_turn() {
        let (mut sender, router, wake, _dials) = sender(1);
        let route = Arc::clone(&sender.routes[0]);
        let (metrics, now) = (Metrics::new(), Instant::now());
        let mut throttle = Throttle::default();
        let late = router.route(Side::Gateway, &route.pair);
        enqueue(&router, &late, 'b', 100);
        assert!(sender.attach(&router, &wake, late, None));
        let mut fill = |sender: &mut Sender| {
            sender.fill(&router, &wake, &mut throttle, &metrics, now);
            written(sender)
        };
        assert_eq!(fill(&mut sender), "b");
        // A stream that carried the route before hands back what it had not got confirmed.
        let batch = Batch::reply(b"again".to_vec(), None, now);
        router.detach(&route, &Arc::default(), vec![batch]);
        assert_eq!(fill(&mut sender), "a");
    }

    #[test]
    fn errors_that_wait_for_room_are_not_looked_at_and_stanzas_behind_them_go() {
        let (mut sender, router, wake, _dials) = sender(3);
        let routes = sender.routes.clone();
        let (metrics, now) = (Metrics::new(), Instant::now());
        let mut throttle = Throttle::default();
        let stanza = b"<message from='a@x.example' to='b@org.example'><body/></message>";
        let failure = Failure::new(FailureKind::Unreachable, "nobody there");
        // More errors than may be unconfirmed, in two routes.
        for route in &routes[..2] {
            let failed = router.route(Side::Gateway, &route.pair.reversed());
            for _ in 0..2_000 {
                let mut builder = BatchBuilder::default();
                builder.add(0, stanza.len(), |out| out.extend_from_slice(stanza));
                let batch = builder.take(None, now).expect("one");
                router.bounce(&failed, batch, &failure);
            }
        }
        sender.buffer.probe_by(ProbeKind::Ping);
        let mut fill = |sender: &mut Sender| {
            sender.looks = 0;
            sender.fill(&router, &wake, &mut throttle, &metrics, now);
            (written(sender), sender.looks)
        };
        while sender.buffer.window().takes_errors {
            fill(&mut sender);
        }
        fill(&mut sender);
        assert!(routes[0].waiting() > 0 && routes[1].waiting() > 0);
        assert_eq!(fill(&mut sender), (String::new(), 0));
        enqueue(&router, &routes[0], 's', 100);
        enqueue(&router, &routes[2], 't', 100);
        let (order, looks) = fill(&mut sender);
        assert_eq!(order, "st");
        assert!(looks <= 3, "{looks} looks for two stanzas");
        assert!(!sender.is_done(&wake), "errors wait");
        // Confirmed, they make room for those that wait.
        for number in 1.. {
            sender.buffer.begin_probe(now);
            sender.buffer.probe_answered(number);
            fill(&mut sender);
            if sender.is_done(&wake) {
                break;
            }
        }
        assert_eq!((routes[0].waiting(), routes[1].waiting()), (0, 0));
    }
}
