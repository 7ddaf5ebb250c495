//! Who watches, and what they are told.

use super::*;

#[test]
fn sip_27_who_subscribes_hears_nothing_before_the_agent_says_yes_and_then_once() {
    let mut bench = Bench::new();
    assert_eq!(bench.subscribes(), NOTHING);
    assert_eq!(bench.asks().as_deref(), Some("new 1800"));
    assert_eq!(bench.asks(), None, "once");
    bench.answers(200);
    assert_eq!(bench.notifies("pending", NotifiedPresence::None), NOTHING);
    assert_eq!(bench.subscribes(), NOTHING);
    assert_eq!(bench.probes(None), NOTHING);
    assert_eq!(bench.watchers.counts(), (1, 0));
    let first = bench.notifies("active", document("a:there b:away c:gone"));
    assert_eq!(
        first,
        ["approved", "subscribed", "a:there", "b:away", "c:gone"]
    );
    assert_eq!(bench.watchers.counts(), (1, 1));
    assert_eq!(
        bench.notifies("active", document("a:there b:away c:gone")),
        NOTHING
    );
    assert_eq!(bench.subscribes(), ["subscribed", "a:there", "b:away"]);
}

#[test]
fn sip_50_a_probe_is_answered_from_what_is_known() {
    let mut bench = Bench::new();
    assert_eq!(bench.probes(None), NOTHING);
    assert_eq!(bench.asks().as_deref(), Some("new 1800"));
    assert_eq!(
        bench.notifies("active", document("a:there b:dnd")),
        ["approved", "a:there", "b:dnd"],
        "no subscribed: nobody asked"
    );
    assert_eq!(bench.probes(None), ["a:there", "b:dnd"]);
    assert_eq!(bench.probes(Some("b")), ["b:dnd"]);
    assert_eq!(bench.probes(Some("x")), ["x:gone"], "of that one alone");
    assert_eq!(
        bench.notifies("active", document("a:gone")),
        ["b:gone", "a:gone"]
    );
    assert_eq!(bench.probes(None), ["unavailable"]);
    assert_eq!(bench.probes(Some("x")), ["unavailable"], "of all");
    assert_eq!(bench.asks(), None, "no request for a probe");
}

#[test]
fn sip_32_each_document_is_the_whole_state() {
    let mut bench = Bench::active("a:there b:there c:there");
    assert_eq!(
        bench.notifies("active", document("a:gone c:there")),
        ["b:gone", "a:gone"]
    );
    assert_eq!(
        bench.notifies("active", document("d:chat c:there")),
        ["d:chat"]
    );
    assert_eq!(
        bench.notifies("active", NotifiedPresence::Unreadable),
        NOTHING
    );
    let mut gone = bench.notifies("active", NotifiedPresence::None);
    gone.sort();
    assert_eq!(gone, ["c:gone", "d:gone"]);
}

#[test]
fn sip_28_who_is_blocked_politely_sees_nobody_and_who_is_rejected_is_told() {
    let mut bench = Bench::active("a:there");
    assert_eq!(bench.notifies("active", NotifiedPresence::None), ["a:gone"]);
    assert_eq!(bench.notifies("active", document("a:there")), ["a:there"]);
    assert_eq!(
        bench.notifies("pending", NotifiedPresence::None),
        ["a:gone"]
    );
    for reason in ["rejected", "noresource"] {
        let mut bench = Bench::active("a:there");
        let value = format!("terminated;reason={reason}");
        assert_eq!(
            bench.notifies(&value, NotifiedPresence::None),
            ["a:gone", "unsubscribed", "forget"],
            "{reason}"
        );
        assert!(bench.is_forgotten(), "{reason}");
    }
}

#[test]
fn sip_29_the_first_notify_makes_the_dialog_before_the_answer_or_after() {
    let mut bench = Bench::new();
    bench.subscribes();
    bench.asks();
    assert_eq!(
        bench.notifies("active", document("a:there")),
        ["approved", "subscribed", "a:there"]
    );
    assert_eq!(bench.takes("fork"), Err(DialogFault::Other));
    assert_eq!(bench.answers_with(200, Some(600), None), NOTHING);
    assert_eq!(bench.next(), Some(300));
    bench.call = Some(CallKey {
        call_id: "unknown".into(),
        tag: "x".into(),
    });
    assert_eq!(bench.takes("agent"), Err(DialogFault::Other));
}

#[test]
fn sip_31_it_is_refreshed_at_half_of_what_was_granted_whatever_is_notified() {
    let mut bench = Bench::new();
    bench.subscribes();
    bench.asks();
    bench.answers_with(200, Some(60), None);
    for second in [0, 10, 20] {
        bench.now = second;
        let value = format!("active;expires={}", 60 - second);
        bench.notifies(&value, document("a:there"));
        assert_eq!(bench.next(), Some(30), "at {second}");
    }
    bench.now = 30;
    assert_eq!(bench.asks().as_deref(), Some("in 1800"));
    bench.answers_with(200, Some(60), None);
    assert_eq!(bench.next(), Some(60));
    // The agent may say that less is left.
    bench.notifies("active;expires=10", document("a:there"));
    assert_eq!(bench.next(), Some(35));
}

#[test]
fn sip_50_who_unsubscribes_is_told_at_the_answer() {
    let mut bench = Bench::active("a:there");
    assert_eq!(bench.unsubscribes(), ["a:gone"]);
    assert_eq!(bench.asks().as_deref(), Some("in 0"));
    let last = "terminated;reason=timeout";
    assert_eq!(bench.notifies(last, document("a:there")), NOTHING);
    assert_eq!(bench.answers(200), ["unsubscribed", "forget"]);
    assert!(bench.is_forgotten());
    // Who watches nobody is told so too, and so is whom the agent does not answer.
    assert_eq!(bench.unsubscribes(), ["unsubscribed"]);
    let mut bench = Bench::active("a:there");
    bench.unsubscribes();
    bench.asks();
    assert_eq!(
        bench.ends(AskOutcome::Unanswered),
        ["unsubscribed", "forget"]
    );
    let mut bench = Bench::active("a:there");
    bench.unsubscribes();
    assert_eq!(bench.waits(60), ["unsubscribed", "forget"]);
    assert!(bench.is_forgotten());
    // Before the agent said anything.
    let mut bench = Bench::new();
    bench.subscribes();
    bench.asks();
    assert_eq!(bench.unsubscribes(), ["unsubscribed", "forget"]);
    assert_eq!(bench.takes("agent"), Err(DialogFault::Other));
}

#[test]
fn who_asks_again_while_it_ends_watches_anew() {
    let mut bench = Bench::active("a:there");
    bench.unsubscribes();
    bench.asks();
    assert_eq!(bench.subscribes(), NOTHING);
    assert_eq!(bench.answers(200), NOTHING);
    assert_eq!(bench.asks().as_deref(), Some("new 1800"));
    assert_eq!(
        bench.notifies("active", document("a:there")),
        ["approved", "subscribed", "a:there"]
    );
}

#[test]
fn sip_45_whom_policy_takes_away_ends_without_a_word_of_it_to_the_partner() {
    let mut bench = Bench::active("a:there");
    let allowed = bench.step(|watchers, step| watchers.follow_policy(step, |_| true));
    assert_eq!(allowed, NOTHING);
    let forbidden = bench.step(|watchers, step| watchers.follow_policy(step, |_| false));
    assert_eq!(forbidden, ["a:gone"]);
    assert_eq!(bench.asks().as_deref(), Some("in 0"));
    assert_eq!(bench.answers(200), ["forget"]);
    assert!(bench.is_forgotten());
}
