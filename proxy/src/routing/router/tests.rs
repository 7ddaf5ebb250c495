//! The router without sockets: what becomes of what cannot be delivered, what it costs, and who sets
//! streams up.

use std::collections::HashMap;

use super::*;
use crate::{
    config::fixture,
    routing::{
        acknowledgement::{AckTracker, StanzaFate},
        batch::BatchBuilder,
        budget::{MADE_UP_DIAL_EACH, MADE_UP_DIALS},
    },
};

/// Of a stream that has nothing unconfirmed.
const OPEN: Window = Window {
    is_empty: true,
    takes_errors: true,
};

fn domain(name: &str) -> DomainName {
    DomainName::parse(name).expect("valid")
}

fn pair(from: &str, to: &str) -> Pair {
    Pair {
        from: domain(from),
        to: domain(to),
    }
}

/// An organisation with a wildcard partner; stanzas wait for `seconds`.
fn router(seconds: u32) -> (Arc<Router>, DialRequests) {
    let config = fixture::active_config(|document| {
        document["settings"]["queueTimeoutSeconds"] = seconds.into();
    });
    let config = Arc::new(ArcSwap::from_pointee(config));
    Router::new(config, Arc::new(Metrics::new()), Arc::default())
}

/// Small messages of one read, with what is owed for them.
fn messages(ledger: &Arc<AckTracker>, first: u64, count: u64) -> Batch {
    let mut builder = BatchBuilder::default();
    for number in first..first + count {
        builder.add(number, 64, |out| {
            out.extend_from_slice(b"<message from='a@x.partner.example' to='b@org.example'/>");
        });
    }
    builder.take(Some(ledger), Instant::now()).expect("some")
}

#[test]
fn an_outage_makes_no_more_memory_than_the_queues_that_it_fails_had() {
    let (router, mut dials) = router(0);
    let mut held_by_replies = 0;
    let mut pairs = HashMap::new();
    for number in 0..40 {
        let pair = pair(&format!("x{number}.partner.example"), "org.example");
        let route = router.route(Side::Gateway, &pair);
        let ledger = Arc::new(AckTracker::new(Arc::default()));
        let mut first = 0;
        while route.held() < 100_000 {
            router.enqueue(&route, messages(&ledger, first, 100));
            first += 100;
        }
        pairs.insert(pair, (ledger, first));
    }
    let queued = router.held();
    router.expire();
    assert!(router.held() <= queued, "{} of {queued}", router.held());
    // The senders' streams take what is due, a portion at a time.
    for (pair, (ledger, count)) in &pairs {
        let (back, wake) = (
            router.route(Side::Partner, &pair.reversed()),
            Arc::default(),
        );
        assert!(router.attach(&back, &wake, 0).is_some());
        let mut answered = 0;
        while let Some(replies) = router.dequeue(&back, &wake, OPEN) {
            assert!(router.held() <= queued + 100_000, "{}", router.held());
            held_by_replies += replies.unsettled().len();
            answered += u64::from(replies.count());
            replies.settle();
        }
        assert_eq!((answered, ledger.settled()), (*count, *count));
        assert_eq!(back.held(), 0);
    }
    assert!(held_by_replies > 2 * queued, "errors are longer than these");
    assert_eq!(router.held(), 0);
    while let Ok(ticket) = dials.try_recv() {
        ticket.done();
    }
}

#[test]
fn errors_that_their_sender_does_not_take_are_dropped_and_custody_ends() {
    let (router, mut dials) = router(0);
    let pair = pair("x.partner.example", "org.example");
    let route = router.route(Side::Gateway, &pair);
    let ledger = Arc::new(AckTracker::new(Arc::default()));
    router.enqueue(&route, messages(&ledger, 0, 50));
    router.expire();
    let back = router.route(Side::Partner, &pair.reversed());
    assert_eq!((route.waiting(), back.waiting()), (0, 50));
    // Nobody takes them in time either.
    router.expire();
    assert_eq!(
        (back.waiting(), ledger.settled(), router.held()),
        (0, 50, 0)
    );
    // They are acknowledged, for nobody can do more; and known for what they are.
    assert_eq!(ledger.take_fate(), StanzaFate::Lost);
    while let Ok(ticket) = dials.try_recv() {
        ticket.done();
    }
}

#[test]
fn what_the_edge_says_itself_has_no_more_room_than_others() {
    let (router, _dials) = router(20);
    let route = router.route(Side::Gateway, &pair("x.partner.example", "org.example"));
    let own = || Batch::reply(vec![b' '; 10_000], None, Instant::now());
    for _ in 0..1_000 {
        router.enqueue_own(&route, own());
    }
    assert!(router.held() < 1_048_576 + 20_000, "{}", router.held());
}

#[tokio::test]
async fn a_ticket_that_is_dropped_without_outcome_is_followed_by_another() {
    let (router, mut dials) = router(20);
    let route = router.route(Side::Partner, &pair("org.example", "x.partner.example"));
    let ledger = Arc::new(AckTracker::new(Arc::default()));
    router.enqueue(&route, messages(&ledger, 0, 1));
    let first = dials.recv().await.expect("one is asked for");
    // Asked for once, whatever comes.
    router.enqueue(&route, messages(&ledger, 1, 1));
    assert!(dials.try_recv().is_err());
    let task = tokio::spawn(async move {
        let _ticket = first;
        panic!("as no dialling task should");
    });
    assert!(task.await.is_err());
    let second = dials.recv().await.expect("the route was given back");
    assert!(second.is_wanted() && second.not_before.is_some());
    // Cancelled in the midst of it.
    let task = tokio::spawn(async move {
        let _ticket = second;
        std::future::pending::<()>().await;
    });
    task.abort();
    let third = dials.recv().await.expect("the route was given back");
    let wake = Arc::default();
    assert!(router.attach(&route, &wake, 0).is_some());
    assert!(!third.is_wanted());
    drop(third);
    assert!(dials.try_recv().is_err(), "a stream carries it");
    assert!(router.dequeue(&route, &wake, OPEN).is_some());
}

#[test]
fn a_stream_that_the_partner_opens_is_a_sign_for_every_own_domain_and_for_nobody_else() {
    let (router, mut dials) = router(20);
    let mut refused = Vec::new();
    for name in ["x.partner.example", "y.partner.example"] {
        let route = router.route(Side::Partner, &pair("org.example", name));
        let ledger = Arc::new(AckTracker::new(Arc::default()));
        let refusal = Failure::new(FailureKind::Refused, "no");
        for number in 0..2 {
            router.enqueue(&route, messages(&ledger, number, 1));
            let ticket = loop {
                // What fails is answered: for that a stream is needed too.
                let ticket = dials.try_recv().expect("it is tried");
                if Arc::ptr_eq(ticket.route(), &route) {
                    break ticket;
                }
                ticket.done();
            };
            assert!(router.failed(ticket, &refusal, false).0.is_none());
        }
        assert!(route.resting_until().is_some(), "refused twice");
        refused.push(route);
    }
    while let Ok(ticket) = dials.try_recv() {
        ticket.done();
    }
    router.sign_of(Side::Partner, &pair("x.partner.example", "org.example"));
    assert!(refused[0].resting_until().is_none());
    assert!(refused[1].resting_until().is_some());
}

#[test]
fn s01_made_up_names_are_dialled_so_many_at_a_time_and_listed_ones_all() {
    let config = fixture::active_config(|document| {
        document["partners"][0]["domains"] =
            serde_json::json!(["*.partner.example", "listed.example"]);
    });
    let config = Arc::new(ArcSwap::from_pointee(config));
    let (router, mut dials) = Router::new(config, Arc::new(Metrics::new()), Arc::default());
    let (most, begun) = (MADE_UP_DIALS as usize, Instant::now());
    let ledger = Arc::new(AckTracker::new(Arc::default()));
    let mut refused = 0;
    for number in 0..2 * most {
        let pair = pair("org.example", &format!("x{number}.partner.example"));
        let route = router.route(Side::Partner, &pair);
        router.enqueue(&route, messages(&ledger, number as u64, 1));
        if route.waiting() == 0 {
            // The sender is answered at once.
            let back = router.route(Side::Gateway, &pair.reversed());
            assert_eq!(back.waiting(), 1, "{number}");
            let wake = Arc::default();
            assert!(router.attach(&back, &wake, 0).is_some());
            let answer = router.dequeue(&back, &wake, OPEN).expect("an error");
            let text = String::from_utf8(answer.unsettled().to_vec()).expect("UTF-8");
            assert!(text.contains("<resource-constraint"), "{text}");
            answer.settle();
            refused += 1;
        }
    }
    let gone_by = begun.elapsed().div_duration_f64(MADE_UP_DIAL_EACH).ceil() as usize;
    let listed = router.route(Side::Partner, &pair("org.example", "listed.example"));
    router.enqueue(&listed, messages(&ledger, 0, 1));
    assert_eq!(
        listed.waiting(),
        1,
        "a listed name is never refused for that"
    );
    let mut outwards = 0;
    while let Ok(ticket) = dials.try_recv() {
        outwards += usize::from(ticket.route().side == Side::Partner);
        ticket.done();
    }
    assert!(
        (most..=most + gone_by).contains(&(outwards - 1)),
        "{outwards}"
    );
    assert_eq!(refused + outwards - 1, 2 * most);
}

#[test]
fn what_waited_for_a_partner_that_is_forbidden_is_answered_however_often_it_is_looked_for() {
    let config = fixture::active_config(|_| ());
    let config = Arc::new(ArcSwap::from_pointee(config));
    let (router, mut dials) = Router::new(
        Arc::clone(&config),
        Arc::new(Metrics::new()),
        Arc::default(),
    );
    let ledger = Arc::new(AckTracker::new(Arc::default()));
    // The routes are looked at in the order of a hash: both orders, by so many pairs.
    let pairs: Vec<_> = (0..20)
        .map(|number| pair("org.example", &format!("x{number}.partner.example")))
        .collect();
    let routes = |side: Side| {
        let towards = |pair: &Pair| match side {
            Side::Partner => router.route(side, pair),
            Side::Gateway => router.route(side, &pair.reversed()),
        };
        pairs.iter().map(towards).collect::<Vec<_>>()
    };
    let (outwards, inwards) = (routes(Side::Partner), routes(Side::Gateway));
    for (number, (out, inside)) in outwards.iter().zip(&inwards).enumerate() {
        router.enqueue(out, messages(&ledger, number as u64, 1));
        // From the partner itself, and still on its way to our users.
        let mut forwarded = BatchBuilder::default();
        forwarded.add(0, 64, |bytes| {
            bytes.extend_from_slice(b"<presence type='unavailable'/>");
        });
        router.enqueue(inside, forwarded.take(None, Instant::now()).expect("some"));
    }
    config.store(Arc::new(fixture::active_config(|document| {
        document["partners"][0]["suspended"] = true.into();
    })));
    for _ in 0..3 {
        router.withdraw_forbidden();
    }
    for (out, inside) in outwards.iter().zip(&inwards) {
        assert_eq!((out.waiting(), inside.waiting()), (0, 1));
        let wake = Arc::default();
        assert!(router.attach(inside, &wake, 0).is_some());
        let answer = router.dequeue(inside, &wake, OPEN).expect("an error");
        let text = String::from_utf8(answer.unsettled().to_vec()).expect("UTF-8");
        assert!(text.contains("type='error'"), "{text}");
        answer.settle();
    }
    assert_eq!(ledger.settled(), 20);
    while let Ok(ticket) = dials.try_recv() {
        ticket.done();
    }
}
