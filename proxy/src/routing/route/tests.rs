//! The states of a route: what waits, what is answered, who dials.

use super::*;
use crate::routing::{budget::MemoryBudget, failure::FailureKind};
use proptest::prelude::*;
use xmpp_edge_crds::domain::DomainName;

/// Of a stream that has nothing unconfirmed.
const OPEN: Window = Window {
    is_empty: true,
    takes_errors: true,
};
const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));

fn route(budget: &MemoryBudget) -> Arc<Route> {
    let domain = |name| DomainName::parse(name).expect("valid");
    let pair = Pair {
        from: domain("org.example"),
        to: domain("partner.example"),
    };
    Arc::new(Route::new(pair, Side::Partner, owner(budget, false)))
}

fn owner(budget: &MemoryBudget, is_made_up: bool) -> RouteOwner {
    RouteOwner {
        share: budget.share(None),
        is_made_up,
    }
}

fn batch(text: &str, arrived: Instant) -> Queued {
    Queued::Stanzas(Batch::reply(text.as_bytes().to_vec(), None, arrived))
}

fn outage() -> Failure {
    Failure::new(FailureKind::Unreachable, "nobody there")
}

/// Queues one batch, and has it dialled for.
fn dialled(route: &Route, now: Instant) -> Dial {
    match route.enqueue(batch("<a/>", now), now) {
        EnqueueOutcome::Dial { dial, .. } => dial,
        other => panic!("it is tried, not {other:?}"),
    }
}

fn taken(route: &Route, wake: &Arc<Wake>) -> Batch {
    match route.dequeue(wake, OPEN) {
        Some(Queued::Stanzas(batch)) => batch,
        other => panic!("stanzas, not {other:?}"),
    }
}

#[test]
fn what_failed_is_remembered_for_ten_minutes_and_a_made_up_name_no_longer_than_its_pause() {
    let budget = MemoryBudget::default();
    for is_made_up in [false, true] {
        let (route, start) = (route(&budget), Instant::now());
        route.set_owner(owner(&budget, is_made_up));
        let dial = dialled(&route, start);
        route.failed(dial.number, &outage(), start, None, 0.0);
        route.keep_sweeping();
        let until = route.resting_until().expect("it failed");
        assert!(!route.is_idle(start), "{is_made_up}");
        assert_eq!(route.is_idle(until), is_made_up);
        assert!(route.is_idle(until + FORGIVEN));
    }
}

#[test]
fn what_is_older_expires_although_something_younger_was_put_before_it() {
    let (budget, wake) = (MemoryBudget::default(), Arc::default());
    let (route, start) = (route(&budget), Instant::now());
    assert!(route.attach(&wake, 0).is_some());
    for text in ["<a/>", "<b/>"] {
        route.enqueue(batch(text, start), start);
    }
    let later = start + Duration::from_secs(15);
    let mut sent = taken(&route, &wake);
    sent.arrived = later;
    assert!(route.detach(&wake, vec![sent]).is_some());
    let expired = route.expired(start + Duration::from_secs(21), Duration::from_secs(20));
    let [Queued::Stanzas(expired)] = &expired[..] else {
        panic!("one batch: {expired:?}");
    };
    assert_eq!(&expired.unsettled()[..], b"<b/>");
    assert_eq!(route.waiting(), 1);
}

#[test]
fn answers_do_not_grow_old_while_a_stream_takes_them_and_do_when_none_does() {
    let (budget, wake) = (MemoryBudget::default(), Arc::default());
    let (route, start) = (route(&budget), Instant::now());
    let (later, limit) = (start + Duration::from_secs(21), Duration::from_secs(20));
    assert!(route.attach(&wake, 0).is_some());
    route.enqueue(batch("<reply/>", start), start);
    let batch = Batch::reply(b"<stanza/>".to_vec(), None, start);
    let failure = outage();
    route.enqueue(Queued::Unanswered(Unanswered { batch, failure }), start);
    assert!(route.expired(later, limit).is_empty());
    let full = Window {
        takes_errors: false,
        ..OPEN
    };
    assert!(matches!(
        route.dequeue(&wake, full),
        Some(Queued::Stanzas(_))
    ));
    assert!(route.dequeue(&wake, full).is_none(), "errors wait for room");
    assert!(route.detach(&wake, Vec::new()).is_some());
    assert_eq!(route.expired(later, limit).len(), 1);
    assert_eq!(route.held(), 0);
}

#[test]
fn a_route_that_failed_is_forgotten_once_its_failures_are_long_past() {
    let budget = MemoryBudget::default();
    let (route, start) = (route(&budget), Instant::now());
    let refusal = Failure::new(FailureKind::Forbidden, "no");
    for _ in 0..2 {
        let dial = dialled(&route, start);
        let after = route.failed(dial.number, &refusal, start, PATIENCE, 0.0);
        assert!(matches!(after, AfterFailure::BackOff { failed, .. } if failed.len() == 1));
    }
    route.keep_sweeping();
    let until = route.resting_until().expect("after the second failure");
    assert!(!route.is_idle(until), "its backoff counts still");
    assert!(route.is_idle(until + FORGIVEN));
    assert_eq!(budget.held(), 0);
}

#[test]
fn a_task_that_was_overtaken_ends_nothing_that_the_newer_one_set_out_to_do() {
    let (budget, wake) = (MemoryBudget::default(), Arc::default());
    let (route, start) = (route(&budget), Instant::now());
    let old = dialled(&route, start).number;
    // The peer opens a stream both ways meanwhile, and it dies.
    assert!(route.attach(&wake, 0).is_some());
    let new = route.detach(&wake, Vec::new()).expect("one waits").number;
    let after = route.failed(old, &outage(), start, None, 0.0);
    assert!(matches!(after, AfterFailure::Overtaken));
    assert!(!route.is_dialling(old) && route.is_dialling(new));
    assert!(route.stop_dialling_if_empty(old), "it has nothing to do");
    assert_eq!(route.waiting(), 1);
    let after = route.failed(new, &outage(), start, None, 0.0);
    assert!(matches!(after, AfterFailure::BackOff { failed, .. } if failed.len() == 1));
}

#[test]
fn what_waits_is_tried_again_at_short_intervals_while_the_outage_is_short() {
    let budget = MemoryBudget::default();
    let (route, start) = (route(&budget), Instant::now());
    let dial = dialled(&route, start);
    let (mut now, mut tries) = (start, 0);
    loop {
        match route.failed(dial.number, &outage(), now, PATIENCE, 0.0) {
            AfterFailure::Retry(pause) => {
                assert!(pause <= Duration::from_secs(2));
                now += pause;
                tries += 1;
            }
            AfterFailure::BackOff { failed, until } => {
                assert!(now - start >= Duration::from_secs(20), "{:?}", now - start);
                assert_eq!(failed.len(), 1);
                // What comes now is answered at once.
                let refused = route.enqueue(batch("<b/>", now), now);
                assert!(matches!(refused, EnqueueOutcome::Refused { .. }));
                assert!(until > now);
                break;
            }
            AfterFailure::Overtaken => panic!("nobody else dials"),
        }
    }
    assert!(tries > 10, "{tries}");
}

#[test]
fn a_sign_of_the_peer_ends_the_pause_and_the_failures() {
    let budget = MemoryBudget::default();
    let (route, start) = (route(&budget), Instant::now());
    let dial = dialled(&route, start);
    route.failed(dial.number, &outage(), start, PATIENCE, 0.0);
    let later = start + Duration::from_secs(30);
    route.failed(dial.number, &outage(), later, PATIENCE, 0.0);
    let refused = route.enqueue(batch("<b/>", later), later);
    assert!(matches!(refused, EnqueueOutcome::Refused { .. }));
    route.signed();
    let dial = dialled(&route, later);
    assert_eq!(dial.not_before, None);
    let after = route.failed(dial.number, &outage(), later, PATIENCE, 0.0);
    assert!(matches!(after, AfterFailure::Retry(_)), "a new outage");
}

#[test]
fn a_server_inside_is_waited_for_and_what_refuses_is_not() {
    let budget = MemoryBudget::default();
    let (mut inside, start) = (route(&budget), Instant::now());
    Arc::get_mut(&mut inside).expect("nobody else has it").side = Side::Gateway;
    let dial = dialled(&inside, start);
    for minutes in 0..10 {
        let now = start + Duration::from_secs(60 * minutes);
        let after = inside.failed(dial.number, &outage(), now, PATIENCE, 0.0);
        assert!(matches!(after, AfterFailure::Retry(_)));
    }
    let partner = route(&budget);
    let dial = dialled(&partner, start);
    let refusal = Failure::new(FailureKind::NotFound, "no such name");
    let after = partner.failed(dial.number, &refusal, start, PATIENCE, 0.0);
    assert!(matches!(after, AfterFailure::BackOff { failed, .. } if failed.len() == 1));
}

#[test]
fn a_stanza_waits_longer_while_a_server_that_was_reached_negotiates() {
    let budget = MemoryBudget::default();
    let (route, start) = (route(&budget), Instant::now());
    let dial = dialled(&route, start);
    route.negotiates(dial.number, true);
    let (limit, at) = (Duration::from_secs(20), |s| start + Duration::from_secs(s));
    assert!(route.expired(at(22), limit).is_empty());
    route.negotiates(dial.number, false);
    assert_eq!(route.expired(at(22), limit).len(), 1);
}

#[test]
fn a_task_that_is_gone_without_a_word_is_followed_by_another_after_a_pause() {
    let budget = MemoryBudget::default();
    let (route, start) = (route(&budget), Instant::now());
    let dial = dialled(&route, start);
    let next = route.abandoned(dial.number, start).expect("one waits");
    assert!(next.not_before.is_some_and(|until| until > start));
    assert!(route.is_dialling(next.number) && !route.is_dialling(dial.number));
    assert_eq!(route.abandoned(dial.number, start), None);
}

/// What happens to one of a stream's routes, or what the stream does.
#[derive(Clone, Copy, Debug)]
enum Event {
    Stanza,
    Suspect,
    Errors,
    /// Another stream hands back what it had not got confirmed.
    HandedBack,
    Expires,
    Forbidden,
    Look(Window),
}

fn event() -> impl Strategy<Value = Event> {
    let window = |is_empty, takes_errors| {
        Event::Look(Window {
            is_empty,
            takes_errors,
        })
    };
    prop_oneof![
        Just(Event::Stanza),
        Just(Event::Suspect),
        Just(Event::Errors),
        Just(Event::HandedBack),
        Just(Event::Expires),
        Just(Event::Forbidden),
        (any::<bool>(), any::<bool>()).prop_map(move |(empty, errors)| window(empty, errors)),
    ]
}

proptest! {
    #[test]
    fn whatever_waits_in_a_route_its_stream_comes_to_it(
        before in prop::collection::vec(event(), 0..4),
        events in prop::collection::vec((0..3_usize, event()), 0..60),
    ) {
        let (budget, wake) = (MemoryBudget::default(), Arc::default());
        let routes = [route(&budget), route(&budget), route(&budget)];
        let now = Instant::now();
        // Each event puts a route on one list more at most, and so does its stream's coming.
        let listed = (before.len() + events.len() + routes.len()) as u64;
        for event in before {
            happens(&routes, 0, event, &wake, now);
        }
        for (slot, route) in routes.iter().enumerate() {
            prop_assert_eq!(route.attach(&wake, slot), Some(slot));
        }
        for (slot, event) in events {
            happens(&routes, slot, event, &wake, now);
        }
        let waiting = |routes: &[Arc<Route>]| routes.iter().map(|it| it.waiting()).sum::<u64>();
        let mut looks = waiting(&routes) + listed;
        while let Some(slot) = wake.next(OPEN) {
            routes[slot].dequeue(&wake, OPEN);
            prop_assert!(looks > 0, "it looks again and again");
            looks -= 1;
        }
        prop_assert_eq!(waiting(&routes), 0);
        prop_assert!(wake.is_idle());
    }
}

fn happens(routes: &[Arc<Route>], slot: usize, event: Event, wake: &Arc<Wake>, now: Instant) {
    let route = &routes[slot];
    let stanza = || Batch::reply(b"<a/>".to_vec(), None, now);
    let suspect = || {
        let mut batch = stanza();
        batch.is_suspect = true;
        batch
    };
    match event {
        Event::Stanza => drop(route.enqueue(Queued::Stanzas(stanza()), now)),
        Event::Suspect => drop(route.enqueue(Queued::Stanzas(suspect()), now)),
        Event::Errors => {
            let (batch, failure) = (stanza(), outage());
            route.enqueue(Queued::Unanswered(Unanswered { batch, failure }), now);
        }
        Event::HandedBack => drop(route.detach(&Arc::default(), vec![suspect(), stanza()])),
        Event::Expires => {
            route.expired(now + Duration::from_secs(60), Duration::from_secs(20));
        }
        Event::Forbidden => {
            route.drain();
        }
        Event::Look(window) => {
            if let Some(slot) = wake.next(window) {
                routes[slot].dequeue(wake, window);
            }
        }
    }
}
