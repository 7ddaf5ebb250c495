//! What ends, fails, is away, and how it goes on.

use super::*;

#[test]
fn sip_28_each_code_to_the_first_subscribe_has_its_end() {
    for code in [403, 603, 404, 410, 416, 484, 485, 604, 606] {
        let mut bench = Bench::new();
        bench.subscribes();
        bench.asks();
        assert_eq!(bench.answers(code), ["unsubscribed", "forget"], "{code}");
        assert!(bench.is_forgotten(), "{code}");
    }
    let mut bench = Bench::new();
    bench.subscribes();
    bench.asks();
    assert_eq!(
        bench.answers(489),
        ["refused 489", "unsubscribed", "forget"]
    );
    for (code, said, next) in [
        (405, &["refused 405"][..], 3_600),
        (406, &["refused 406"], 3_600),
        (501, &["refused 501"], 3_600),
        (401, &["demanded 401"], 1),
        (500, &[], 1),
        (480, &[], 1),
        (481, &[], 0),
    ] {
        let mut bench = Bench::new();
        bench.subscribes();
        bench.asks();
        assert_eq!(bench.answers(code), said, "{code}");
        assert_eq!(bench.next(), Some(next), "{code}");
        bench.now = next;
        assert_eq!(bench.asks().as_deref(), Some("new 1800"), "{code}");
    }
}

#[test]
fn a_404_for_who_was_let_watch_is_for_a_while_and_takes_nobody_off_a_roster() {
    for code in [404, 410, 416, 484, 485, 604] {
        let mut bench = Bench::active("a:there");
        bench.now = 900;
        bench.asks();
        assert_eq!(bench.answers(code), NOTHING, "{code}");
        assert_eq!(bench.asks().as_deref(), Some("new 1800"), "{code}");
        assert_eq!(bench.answers(code), ["a:gone"], "{code}");
        // R's server may ask for it meanwhile.
        assert_eq!(bench.subscribes(), NOTHING, "{code}");
        for next in [901, 903] {
            assert_eq!(bench.next(), Some(next), "{code}");
            bench.now = next;
            assert_eq!(bench.asks().as_deref(), Some("new 1800"), "{code}");
            assert_eq!(bench.answers(code), NOTHING, "{code}");
        }
        bench.now = 907;
        bench.asks();
        bench.answers(200);
        let back = bench.notifies("active", document("a:there"));
        assert_eq!(back, ["approved", "subscribed", "a:there"], "{code}");
    }
    // Who watched before a restart may see what was true then.
    let mut bench = Bench::new();
    bench.probes(None);
    bench.asks();
    assert_eq!(bench.answers(404), ["unavailable"]);
    bench.now = 1;
    bench.asks();
    assert_eq!(bench.answers(404), NOTHING);
    bench.now = 3;
    bench.asks();
    assert_eq!(bench.answers(403), ["unsubscribed", "forget"]);
}

#[test]
fn a_time_that_is_too_brief_is_asked_for_anew() {
    let mut bench = Bench::new();
    bench.subscribes();
    bench.asks();
    assert_eq!(bench.answers_with(423, None, Some(3_600)), NOTHING);
    assert_eq!(bench.asks().as_deref(), Some("new 3600"));
    // One that is no longer than what was asked for is a failure like others.
    bench.answers_with(423, None, Some(60));
    assert_eq!(bench.next(), Some(1));
}

#[test]
fn a_subscribe_without_a_notify_within_32_s_is_told_and_begun_anew_ever_more_seldom() {
    let mut bench = Bench::new();
    bench.subscribes();
    let mut waited = Vec::new();
    for _ in 0..8 {
        assert_eq!(bench.asks().as_deref(), Some("new 1800"));
        bench.answers(200);
        let end = bench.now + 32;
        assert_eq!(bench.waits(end - 1), NOTHING);
        assert_eq!(bench.next(), None);
        assert_eq!(bench.waits(end), ["no notify"]);
        let next = bench.next().expect("it goes on");
        waited.push(next - bench.now);
        bench.now = next;
    }
    assert_eq!(waited, [1, 2, 4, 8, 16, 32, 3_600, 3_600]);
    bench.asks();
    bench.answers(200);
    let first = bench.notifies("active", document("a:there"));
    assert_eq!(first, ["approved", "subscribed", "a:there"]);
    // Nothing was granted.
    let mut bench = Bench::new();
    bench.subscribes();
    bench.asks();
    assert_eq!(bench.waits(32), NOTHING);
    assert_eq!(bench.next(), Some(33));
}

#[test]
fn sip_30_what_ended_is_taken_up_as_its_reason_says() {
    for (reason, said, next) in [
        ("deactivated", &[][..], 0),
        ("timeout", &[], 0),
        ("x", &[], 0),
        ("x;retry-after=5", &["a:gone"], 5),
        ("giveup;retry-after=5", &["a:gone"], 5),
        ("probation;retry-after=7", &["a:gone"], 7),
        ("giveup", &["a:gone"], 60),
    ] {
        let mut bench = Bench::active("a:there");
        let value = format!("terminated;reason={reason}");
        let got = bench.notifies(&value, NotifiedPresence::None);
        assert_eq!(got, said, "{reason}");
        assert_eq!(bench.next(), Some(next), "{reason}");
        bench.now = next;
        assert_eq!(bench.asks().as_deref(), Some("new 1800"), "{reason}");
        // What is known stayed, and says nothing again.
        let said = if said.is_empty() {
            &["approved"][..]
        } else {
            &["approved", "a:there"]
        };
        assert_eq!(
            bench.notifies("active", document("a:there")),
            said,
            "{reason}"
        );
    }
}

#[test]
fn an_agent_that_ends_each_subscription_at_once_is_not_asked_all_the_time() {
    let mut bench = Bench::active("a:there");
    bench.notifies("terminated;reason=deactivated", NotifiedPresence::None);
    assert_eq!(bench.asks().as_deref(), Some("new 1800"));
    bench.notifies("terminated;reason=deactivated", NotifiedPresence::None);
    assert_eq!(bench.next(), Some(30));
    let mut bench = Bench::active("a:there");
    let mut waited = Vec::new();
    for _ in 0..8 {
        bench.notifies("terminated;reason=giveup", NotifiedPresence::None);
        let next = bench.next().expect("it goes on");
        waited.push(next - bench.now);
        bench.now = next;
        bench.asks();
    }
    assert_eq!(waited, [60, 120, 240, 480, 960, 1_920, 3_600, 3_600]);
}

#[test]
fn what_does_not_change_any_more_stays_and_is_not_asked_for() {
    let mut bench = Bench::active("a:there");
    let end = "terminated;reason=invariant";
    assert_eq!(bench.notifies(end, document("a:away")), ["a:away"]);
    assert_eq!((bench.next(), bench.watchers.next_alarm()), (None, None));
    assert_eq!(bench.probes(None), ["a:away"]);
    assert_eq!(bench.subscribes(), ["subscribed", "a:away"]);
    assert_eq!(bench.unsubscribes(), ["a:gone", "unsubscribed", "forget"]);
    assert!(bench.is_forgotten());
}

#[test]
fn a_refresh_that_fails_keeps_the_dialog_or_opens_another() {
    for code in [
        404, 405, 410, 416, 480, 481, 482, 483, 484, 485, 489, 501, 604,
    ] {
        let mut bench = Bench::active("a:there");
        bench.now = 900;
        assert_eq!(bench.asks().as_deref(), Some("in 1800"), "{code}");
        let said = bench.answers(code);
        assert!(
            said.iter().all(|it| it.starts_with("refused")),
            "{code}: {said:?}"
        );
        assert_eq!(bench.asks().as_deref(), Some("new 1800"), "{code}");
    }
    let mut bench = Bench::active("a:there");
    bench.now = 900;
    bench.asks();
    assert_eq!(bench.answers(403), ["a:gone", "unsubscribed", "forget"]);
    let mut bench = Bench::active("a:there");
    bench.now = 900;
    bench.asks();
    let mut waited = Vec::new();
    for _ in 0..8 {
        assert_eq!(bench.answers(500), NOTHING);
        let next = bench.next().expect("it goes on");
        waited.push(next - bench.now);
        bench.now = next;
        assert_eq!(bench.asks().as_deref(), Some("in 1800"));
    }
    assert_eq!(waited, [1, 2, 4, 8, 16, 32, 60, 60]);
    // 60 s after the first failure nothing of it is true any more; it is, once there is an answer.
    assert_eq!(bench.waits(bench.now), ["a:gone"]);
    bench.answers(200);
    assert_eq!(bench.notifies("active", document("a:there")), ["a:there"]);
    // Nothing that is granted any more: another dialog.
    bench.now += 1_800;
    bench.waits(bench.now);
    assert_eq!(bench.asks().as_deref(), Some("new 1800"));
}

#[test]
fn sip_41_a_server_that_is_away_for_60_s_has_no_presence_and_is_asked_again_when_it_is_back() {
    let mut bench = Bench::active("a:there");
    bench.watchers.server_away(bench.moment().now);
    assert_eq!(bench.waits(59), NOTHING);
    assert_eq!(bench.waits(60), ["a:gone"]);
    bench.now = 100;
    bench.watchers.server_back(bench.moment().now);
    assert_eq!(bench.asks().as_deref(), Some("in 1800"));
    assert_eq!(bench.answers(481), NOTHING);
    assert_eq!(bench.asks().as_deref(), Some("new 1800"));
    assert_eq!(
        bench.notifies("active", document("a:there")),
        ["approved", "a:there"]
    );
}

#[test]
fn what_was_in_flight_goes_again_on_the_next_connection() {
    let mut bench = Bench::new();
    bench.subscribes();
    bench.asks();
    assert_eq!(bench.ends(AskOutcome::Lost), NOTHING);
    assert_eq!(bench.asks().as_deref(), Some("new 1800"));
    bench.answers(200);
    bench.notifies("active", document("a:there"));
    bench.now = 900;
    bench.asks();
    bench.ends(AskOutcome::Lost);
    assert_eq!(bench.asks().as_deref(), Some("in 1800"));
}
