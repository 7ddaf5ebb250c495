//! What is sent, what is received, and whose turn it is.

use std::time::Duration;

use super::{
    ack_schedule::AckSchedule,
    fault::TrunkFault,
    nonza::{OpenedPair, PairCount, TrunkAck},
    receiving::ReceivedPairs,
    sending::{PairWindow, TrunkBuffer},
    turns::TrunkTurns,
    *,
};
use crate::{
    negotiation::Side,
    routing::{
        acknowledgement::{AckToken, MovedPairs},
        route::Route,
        wake::Window,
    },
};

/// The sending half of a trunk whose peer takes so many bytes of a pair.
fn buffer_of(window: u64) -> TrunkBuffer {
    let mut buffer = TrunkBuffer::default();
    buffer.set_window(window);
    buffer
}

/// A trunk's sending half with one pair on which `count` stanzas were written.
fn written(count: u64) -> (TrunkBuffer, Arc<Route>, Arc<AckTracker>) {
    let (router, _dials) = router();
    let route = router.route(Side::Partner, &pair(0));
    let mut buffer = buffer_of(1 << 20);
    let ledger = Arc::new(AckTracker::new(Arc::default()));
    let now = Instant::now();
    let batch = batch(0, 0, count, Some(&ledger));
    assert!(buffer.send(&route, batch, now).is_none());
    while !buffer.is_empty() {
        buffer.wrote(buffer.front().len());
    }
    (buffer, route, ledger)
}

fn count(number: u32, h: u32) -> TrunkAck {
    TrunkAck {
        answers: None,
        counts: vec![PairCount {
            number: PairNumber(number),
            h,
        }],
    }
}

#[test]
fn a_count_beyond_what_was_written_or_of_no_pair_ends_the_trunk() {
    let now = Instant::now();
    let (mut buffer, _, ledger) = written(3);
    assert_eq!(buffer.acked(&count(0, 2), now), Ok(()));
    assert_eq!((ledger.settled(), buffer.custody().stanzas), (2, 1));
    for (number, h, expected) in [
        (
            0,
            4,
            TrunkFault::HandledCountTooHigh {
                number: PairNumber(0),
                acknowledged: 4,
                sent: 3,
            },
        ),
        (
            0,
            1,
            TrunkFault::HandledCountTooHigh {
                number: PairNumber(0),
                acknowledged: 1,
                sent: 3,
            },
        ),
        (1, 0, TrunkFault::UnknownPair(PairNumber(1))),
    ] {
        assert_eq!(buffer.acked(&count(number, h), now), Err(expected));
    }
    assert_eq!(buffer.acked(&count(0, 3), now), Ok(()));
    assert_eq!(buffer.custody(), Default::default());
}

/// B-18: the numbers of idle pairs are given back, and so is the memory.
#[test]
fn a_pair_that_is_idle_ends_and_comes_again_under_another_number() {
    let now = Instant::now();
    let (mut buffer, route, _) = written(1);
    let idle = PairIdle::default();
    let after = idle.after;
    let later = now + after + Duration::from_secs(1);
    assert!(
        buffer.end_idle(idle, later).is_empty(),
        "a stanza is unacknowledged"
    );
    buffer.acked(&count(0, 1), now).expect("right");
    assert!(buffer.end_idle(idle, now + after / 2).is_empty());
    let ended = buffer.end_idle(idle, later);
    assert!(ended.len() == 1 && Arc::ptr_eq(&ended[0], &route));
    assert_eq!(
        buffer.front(),
        b"<end xmlns='urn:xmpp-edge:trunk:0' i='0'/>"
    );
    buffer.wrote(buffer.front().len());
    assert_eq!(buffer.pairs(), 0);
    assert!(buffer.send(&route, batch(0, 1, 1, None), later).is_none());
    let front = String::from_utf8_lossy(buffer.front()).into_owned();
    assert!(front.contains("i='1'"), "{front}");
}

/// B-18: whoever writes to ten thousand names uses up no numbers of others for long.
#[test]
fn while_many_pairs_are_open_those_that_are_idle_end_sooner() {
    let (router, _dials) = router();
    let (now, idle) = (Instant::now(), PairIdle::default());
    let mut buffer = buffer_of(1 << 20);
    for number in 0..=MOST_PAIRS / 2 {
        let route = router.route(Side::Partner, &pair(number));
        assert!(
            buffer
                .send(&route, batch(number, 0, 1, None), now)
                .is_none()
        );
    }
    while !buffer.is_empty() {
        buffer.wrote(buffer.front().len());
    }
    let soon = now + idle.look;
    assert!(
        buffer.end_idle(idle, soon).is_empty(),
        "they are unacknowledged"
    );
    for number in 0..MOST_PAIRS / 2 {
        buffer.acked(&count(number as u32, 1), now).expect("right");
    }
    assert_eq!(buffer.end_idle(idle, soon).len(), MOST_PAIRS / 2);
    buffer
        .acked(&count(MOST_PAIRS as u32 / 2, 1), now)
        .expect("right");
    assert!(buffer.end_idle(idle, soon).is_empty(), "few are open again");
}

/// B-18.
#[test]
fn one_pair_more_than_ten_thousand_has_no_number_and_no_place() {
    let (router, _dials) = router();
    let now = Instant::now();
    let mut buffer = buffer_of(1 << 20);
    let mut received = ReceivedPairs::new(Arc::default());
    for number in 0..MOST_PAIRS {
        let route = router.route(Side::Partner, &pair(number));
        assert!(
            buffer
                .send(&route, batch(number, 0, 1, None), now)
                .is_none()
        );
        let opened = OpenedPair {
            number: PairNumber(number as u32),
            pair: pair(number),
        };
        received.open(opened, ()).expect("a place");
    }
    let more = pair(MOST_PAIRS);
    assert_eq!(buffer.window(&more), PairWindow::NoNumber);
    let route = router.route(Side::Partner, &more);
    let refused = buffer.send(&route, batch(MOST_PAIRS, 0, 1, None), now);
    assert_eq!(refused.expect("given back").sendings, 0);
    let opened = OpenedPair {
        number: PairNumber(MOST_PAIRS as u32),
        pair: more,
    };
    assert_eq!(received.open(opened, ()), Err(TrunkFault::TooManyPairs));
    received.end(PairNumber(7)).expect("nothing was sent");
    assert_eq!(
        (received.len(), buffer.pairs()),
        (MOST_PAIRS - 1, MOST_PAIRS)
    );
}

#[test]
fn a_pair_whose_peer_s_queue_is_full_waits_and_others_do_not() {
    let (router, _dials) = router();
    let now = Instant::now();
    let mut buffer = buffer_of(200);
    let route = router.route(Side::Partner, &pair(0));
    assert_eq!(buffer.window(&route.pair), PairWindow::Open(200));
    assert!(buffer.send(&route, batch(0, 0, 5, None), now).is_none());
    assert_eq!(buffer.window(&route.pair), PairWindow::Full);
    assert_eq!(buffer.window(&pair(1)), PairWindow::Open(200));
    while !buffer.is_empty() {
        buffer.wrote(buffer.front().len());
    }
    assert!(!buffer.leave(&route.pair), "it may not move");
    buffer.acked(&count(0, 3), now).expect("right");
    assert!(matches!(
        buffer.window(&route.pair),
        PairWindow::Open(1..200)
    ));
    buffer.acked(&count(0, 5), now).expect("right");
    assert!(buffer.leave(&route.pair));
}

#[test]
fn what_the_peer_opens_and_ends_has_to_fit() {
    let opened = |number, to| OpenedPair {
        number: PairNumber(number),
        pair: pair(to),
    };
    let mut received = ReceivedPairs::new(Arc::default());
    received.open(opened(1, 1), ()).expect("new");
    let again = received.open(opened(1, 2), ());
    assert_eq!(again, Err(TrunkFault::NumberInUse(PairNumber(1))));
    let twice = received.open(opened(2, 1), ());
    let expected = TrunkFault::PairInUse {
        new: PairNumber(2),
        old: PairNumber(1),
    };
    assert_eq!(twice, Err(expected));
    assert_eq!(received.receive(PairNumber(1)), Some(0));
    let early = received.end(PairNumber(1));
    assert_eq!(early, Err(TrunkFault::EndedTooEarly(PairNumber(1))));
    let unknown = received.end(PairNumber(9));
    assert_eq!(unknown, Err(TrunkFault::UnknownPair(PairNumber(9))));
    assert_eq!(
        received.number("org.example", "x1.example"),
        Some(PairNumber(1))
    );
    assert_eq!(received.number("x1.example", "org.example"), None);
}

#[test]
fn acks_of_many_pairs_go_together_within_ten_milliseconds() {
    let start = Instant::now();
    let moved = Arc::new(MovedPairs::new(Arc::default()));
    let mut received = ReceivedPairs::new(moved);
    let mut schedule = AckSchedule::default();
    let settle = |received: &mut ReceivedPairs<()>, number: u32| {
        let number = PairNumber(number);
        let first = received.receive(number).expect("open");
        let pair = received.get(number).expect("open");
        AckToken {
            ledger: Arc::clone(pair.tracker()),
            first,
            count: 1,
        }
        .settle();
    };
    for number in 0..1_500 {
        let opened = OpenedPair {
            number: PairNumber(number),
            pair: pair(number as usize),
        };
        received.open(opened, ()).expect("new");
        settle(&mut received, number);
        schedule.moved(start + Duration::from_millis(1));
    }
    assert_eq!(schedule.ack(&mut received, start, false), None);
    let due = schedule.deadline(start).expect("one");
    assert_eq!(due, start + Duration::from_millis(11));
    let first = schedule.ack(&mut received, due, false).expect("due");
    assert_eq!((first.answers, first.counts.len()), (None, 1_000));
    let rest = schedule.ack(&mut received, due, false).expect("due");
    assert_eq!(rest.counts.len(), 500);
    assert_eq!(
        (schedule.deadline(due), received.unacknowledged()),
        (None, 0)
    );
    schedule.asked(4);
    let answer = schedule.ack(&mut received, due, false);
    let expected = TrunkAck {
        answers: Some(4),
        counts: Vec::new(),
    };
    assert_eq!(answer, Some(expected), "at once, whatever it says");
    settle(&mut received, 3);
    schedule.moved(due);
    let last = schedule.ack(&mut received, due, true);
    assert_eq!(last, Some(count(3, 2)), "before the end");
}

/// B-13, B-18: what is idle costs nothing, and a pair whose peer's queue is full keeps no other waiting.
#[test]
fn pairs_have_turns_and_one_that_is_full_waits_for_its_own_ack() {
    let (router, _dials) = router();
    let wake = Arc::default();
    let now = Instant::now();
    let mut turns = TrunkTurns::default();
    let mut buffer = buffer_of(250);
    let routes: Vec<_> = (0..1_000)
        .map(|number| router.route(Side::Partner, &pair(number)))
        .collect();
    for route in &routes {
        assert!(turns.attach(&router, &wake, Arc::clone(route)));
    }
    for turn in 0..9 {
        router.enqueue(&routes[7], batch(7, turn * 5, 5, None));
    }
    router.enqueue(&routes[8], batch(8, 0, 1, None));
    turns.fill(&router, &wake, &mut buffer, None, now, |_| ());
    assert_eq!(
        (buffer.pairs(), routes[7].waiting(), routes[8].waiting()),
        (2, 40, 0)
    );
    assert!(wake.is_idle(), "it is the trunk that holds it");
    while !buffer.is_empty() {
        buffer.wrote(buffer.front().len());
    }
    let numbers = [7, 8].map(|number| buffer.window(&pair(number)));
    assert!(matches!(numbers, [PairWindow::Full, PairWindow::Open(_)]));
    buffer.acked(&count(0, 5), now).expect("right");
    turns.fill(&router, &wake, &mut buffer, None, now, |_| ());
    assert_eq!(routes[7].waiting(), 35);
    turns.leave(&router, &wake, &routes[9].pair);
    let other = Arc::default();
    let mut elsewhere = TrunkTurns::default();
    assert!(elsewhere.attach(&router, &other, Arc::clone(&routes[9])));
    assert!(
        !elsewhere.attach(&router, &other, Arc::clone(&routes[10])),
        "it is carried"
    );
    assert_eq!(
        (turns.routes().count(), elsewhere.routes().count()),
        (999, 1)
    );
}

/// B-18.
#[test]
fn what_finds_no_number_is_answered_with_resource_constraint() {
    let (router, _dials) = router();
    let wake = Arc::default();
    let now = Instant::now();
    let mut turns = TrunkTurns::default();
    let mut buffer = buffer_of(1 << 20);
    let ledger = Arc::new(AckTracker::new(Arc::default()));
    for number in 0..=MOST_PAIRS {
        let route = router.route(Side::Partner, &pair(number));
        assert!(turns.attach(&router, &wake, Arc::clone(&route)));
        let ledger = (number == MOST_PAIRS).then_some(&ledger);
        router.enqueue(&route, batch(number, 0, 1, ledger));
    }
    while !wake.is_idle() {
        turns.fill(&router, &wake, &mut buffer, None, now, |_| ());
        while !buffer.is_empty() {
            buffer.wrote(buffer.front().len());
        }
    }
    assert_eq!(buffer.pairs(), MOST_PAIRS);
    let back = router.route(Side::Gateway, &pair(MOST_PAIRS).reversed());
    let gateway = Arc::default();
    router
        .attach(&back, &gateway, 0)
        .expect("nobody carries it");
    let window = Window {
        is_empty: true,
        takes_errors: true,
    };
    let answer = router.dequeue(&back, &gateway, window).expect("an answer");
    let text = String::from_utf8_lossy(&answer.unsettled()).into_owned();
    assert!(text.contains("<resource-constraint"), "{text}");
    assert!(text.contains("10000 pairs"), "{text}");
    answer.settle();
    assert_eq!(ledger.settled(), 1);
}
