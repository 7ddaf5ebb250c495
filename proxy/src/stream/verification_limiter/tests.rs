//! The bounds without streams: who starves whom.

use super::*;

/// A network that nobody else of a test is in.
fn network(number: u8) -> IpAddr {
    [203, 0, number, 0].into()
}

fn asked_by(name: &str, asked_by: AskedBy, of: u8) -> VerificationSubject {
    let is_stranger = matches!(asked_by, AskedBy::StrangerListed | AskedBy::StrangerMadeUp);
    VerificationSubject {
        name: name.to_owned(),
        asked_by,
        network: is_stranger.then(|| network(of)),
        is_made_up: asked_by == AskedBy::StrangerMadeUp,
        a_minute: A_MINUTE,
    }
}

fn known(name: &str) -> VerificationSubject {
    asked_by(name, AskedBy::Known, 0)
}

fn begun(
    limiter: &Arc<KeyVerificationLimiter>,
    subject: &VerificationSubject,
    now: Instant,
) -> usize {
    let tries = 0..200;
    tries
        .filter(|_| limiter.enter(subject, now).is_some())
        .count()
}

#[test]
fn a_partner_object_is_asked_a_bounded_number_of_times_whatever_names_it_has() {
    let (limiter, now) = (Arc::new(KeyVerificationLimiter::default()), Instant::now());
    for kind in [AskedBy::Gateway, AskedBy::Known] {
        let subject = asked_by("agency", kind, 0);
        assert_eq!(begun(&limiter, &subject, now), A_MINUTE, "{kind:?}");
        assert_eq!(begun(&limiter, &subject, now), 0, "{kind:?}");
        assert_eq!(
            begun(&limiter, &subject, now + MINUTE),
            A_MINUTE,
            "{kind:?}"
        );
    }
    assert_eq!(begun(&limiter, &known("other"), now), A_MINUTE);
    // By strangers as often, from however many networks.
    for kind in [AskedBy::StrangerListed, AskedBy::StrangerMadeUp] {
        let all = (0..=9).map(|of| begun(&limiter, &asked_by("agency", kind, of), now));
        assert_eq!(all.sum::<usize>(), A_MINUTE, "{kind:?}");
    }
}

#[test]
fn s07_strangers_do_not_use_up_what_the_partner_itself_may_ask() {
    for kind in [AskedBy::StrangerListed, AskedBy::StrangerMadeUp] {
        let (limiter, now) = (Arc::new(KeyVerificationLimiter::default()), Instant::now());
        for of in 0..=9 {
            begun(&limiter, &asked_by("partner", kind, of), now);
        }
        assert_eq!(
            begun(&limiter, &known("partner"), now),
            A_MINUTE,
            "{kind:?}"
        );
    }
}

#[test]
fn s07_a_stranger_s_network_leaves_half_to_those_who_are_not_known_yet() {
    let (limiter, now) = (Arc::new(KeyVerificationLimiter::default()), Instant::now());
    let of = |number| asked_by("partner", AskedBy::StrangerListed, number);
    assert_eq!(begun(&limiter, &of(0), now), A_MINUTE / 2);
    assert_eq!(begun(&limiter, &of(1), now), A_MINUTE / 4);
    assert!(begun(&limiter, &of(2), now) >= A_MINUTE / 8);
    assert_eq!(begun(&limiter, &of(0), now), 0);
    // The minute is over for whatever was begun in it.
    assert_eq!(begun(&limiter, &of(0), now + MINUTE), A_MINUTE / 2);
    let usage = limiter
        .subjects
        .get(&("partner".to_owned(), AskedBy::StrangerListed));
    assert_eq!(
        usage
            .expect("it was asked for")
            .begun
            .lock()
            .of_network
            .len(),
        1
    );
}

#[test]
fn s07_made_up_names_use_up_nothing_of_listed_ones_and_ten_wildcards_nothing_of_an_eleventh() {
    let (limiter, now) = (Arc::new(KeyVerificationLimiter::default()), Instant::now());
    let made_up = |name: &str, of| asked_by(name, AskedBy::StrangerMadeUp, of);
    let mut all = 0;
    for number in 0..20 {
        for of in 0..=9 {
            all += begun(&limiter, &made_up(&format!("wild{number}"), of), now);
        }
    }
    let beyond = 10 * A_MINUTE_ALWAYS;
    assert!(
        (A_MINUTE_OF_MADE_UP..=A_MINUTE_OF_MADE_UP + beyond).contains(&all),
        "{all}"
    );
    assert_eq!(
        begun(&limiter, &made_up("eleventh", 7), now),
        A_MINUTE_ALWAYS
    );
    let listed = asked_by("wild0", AskedBy::StrangerListed, 7);
    assert_eq!(begun(&limiter, &listed, now), A_MINUTE / 2);
}

#[test]
fn what_is_asked_again_takes_nothing_from_keys_that_come() {
    let (limiter, now) = (Arc::new(KeyVerificationLimiter::default()), Instant::now());
    let subject = known("partner");
    let queued = limiter.enter(&subject, now).expect("there is room");
    let again = (0..2000).filter(|_| queued.again(&subject, now)).count();
    assert_eq!(again, A_MINUTE);
    assert_eq!(begun(&limiter, &subject, now), A_MINUTE - 1);
}

#[test]
fn a_server_that_cannot_be_asked_is_tried_again_once_however_many_wait_for_it() {
    let limiter = KeyVerificationLimiter::default();
    let domain = DomainName::parse("partner.example").expect("valid");
    let silent = Unavailable::TimedOut;
    let claimed = || {
        (0..10)
            .filter(|_| limiter.may_try_again(&domain, silent))
            .count()
    };
    assert_eq!(claimed(), 1);
    limiter.note_failure(domain.clone(), silent);
    assert_eq!(claimed(), 0);
    assert_eq!(limiter.failure(&domain), Some(silent));
    // It is back: nobody waits for anybody.
    limiter.note_answer(&domain);
    assert_eq!((claimed(), limiter.failure(&domain)), (10, None));
    limiter.note_failure(domain.clone(), silent);
    assert_eq!(claimed(), 0);
}

#[tokio::test]
async fn s15_what_comes_at_once_waits_for_its_turn_and_a_place_comes_back() {
    let (limiter, now) = (Arc::new(KeyVerificationLimiter::default()), Instant::now());
    let subject = known("partner");
    let mut waiting = Vec::new();
    for _ in 0..20 {
        waiting.push(limiter.enter(&subject, now).expect("it waits"));
    }
    let mut running = Vec::new();
    for _ in 0..RUNNING_OF_SUBJECT {
        running.push(waiting.remove(0).turn().await);
    }
    let queued = waiting.remove(0);
    let mut next = Box::pin(queued.turn());
    assert!(futures::poll!(&mut next).is_pending(), "8 at a time");
    running.pop();
    assert!(futures::poll!(&mut next).is_ready());
    drop((next, running));
    drop((waiting, queued));
    assert_eq!(limiter.known.running.available_permits(), RUNNING);
    assert_eq!(limiter.known.waiting.available_permits(), WAITING);
}

#[tokio::test]
async fn partners_that_cannot_be_reached_hold_no_place_of_others_nor_of_gateways() {
    let (limiter, now) = (Arc::new(KeyVerificationLimiter::default()), Instant::now());
    let mut queued = Vec::new();
    let mut running = Vec::new();
    for kind in [AskedBy::Known, AskedBy::StrangerListed] {
        for number in 0..20 {
            let mut subject = asked_by(&format!("away{number}"), kind, 0);
            subject.a_minute = usize::MAX;
            for _ in 0..2 * WAITING {
                queued.extend(limiter.enter(&subject, now));
            }
        }
    }
    for own in &queued {
        // A task that is never done within its turn is told to wait.
        tokio::task::yield_now().await;
        if let Some(place) = futures::FutureExt::now_or_never(own.turn()) {
            running.push(place);
        }
    }
    // Each has its first, and all of them together what there is.
    assert_eq!(running.len(), RUNNING + 20 + RUNNING_APART + 20);
    for subject in [
        known("other"),
        asked_by("other", AskedBy::StrangerListed, 1),
        asked_by("away0", AskedBy::StrangerMadeUp, 1),
        asked_by("org.example", AskedBy::Gateway, 0),
    ] {
        tokio::task::yield_now().await;
        let own = limiter.enter(&subject, now).expect("room for another");
        let place = futures::FutureExt::now_or_never(own.turn());
        assert!(place.is_some(), "{subject:?}");
    }
}
