mod bounds;
mod refused;
mod wish;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use xmpp_edge_crds::edge_config::{EndOfSubscription, SipDialect};
use xmpp_edge_crds::jid::BareJid;

use super::*;
use crate::sip::{
    code::StatusCode,
    compose::SentBy,
    ledger::{MAX_DIALOGS, SubscriptionLedger},
    pidf::{Availability, Note, Show, WatchedDevice},
    presence::SaidPresence,
    turns::TwoPeople,
    wire::{Framed, Framer, SipRequest, StartLine},
};

/// All subscriptions at a server, and time as the test says.
struct Bench {
    ledger: SubscriptionLedger,
    notifiers: Notifiers,
    start: Instant,
    /// Milliseconds.
    now: u64,
    at_end: EndOfSubscription,
    asked: Vec<NotifierOutput>,
}

fn jid(text: &str) -> BareJid {
    BareJid::parse(text).expect("a JID")
}

fn people() -> TwoPeople {
    TwoPeople {
        from: jid("u@org.example"),
        to: jid("r@partner.example"),
    }
}

fn subscribe(call: &str, to_tag: &str, cseq: u32) -> SipRequest {
    subscribe_from("10.0.0.1", call, to_tag, cseq)
}

/// Of a device at this host.
fn subscribe_from(host: &str, call: &str, to_tag: &str, cseq: u32) -> SipRequest {
    let text = format!(
        "SUBSCRIBE sip:r@partner.example SIP/2.0\r\nVia: SIP/2.0/TLS a;branch=z9hG4bKa\r\n\
         From: <sip:u@org.example>;tag={call}\r\nTo: <sip:r@partner.example>{to_tag}\r\n\
         Call-ID: {call}\r\nCSeq: {cseq} SUBSCRIBE\r\nContact: <sip:u@{host}>\r\n\
         Content-Length: 0\r\n\r\n"
    );
    match Framer::default().next(text.as_bytes()) {
        Ok(Some(Framed::Message {
            start: StartLine::Request { method, uri },
            headers,
            ..
        })) => SipRequest::read(method, uri, headers).expect("a request"),
        other => panic!("{other:?}"),
    }
}

fn wish(seconds: u32) -> SubscribeWish {
    SubscribeWish {
        seconds,
        event_id: None,
    }
}

fn device(resource: &str, show: Option<Show>) -> SaidPresence {
    said(
        resource,
        Availability::Available {
            show,
            notes: Vec::new(),
            priority: 0,
        },
    )
}

fn gone(resource: &str) -> SaidPresence {
    said(resource, Availability::Unavailable)
}

fn said(resource: &str, availability: Availability) -> SaidPresence {
    SaidPresence::Device(WatchedDevice {
        resource: resource.to_owned(),
        availability,
        since: Timestamp::UNIX_EPOCH,
    })
}

/// State, and devices of its document as `a+ b-`, of a NOTIFY.
fn words(bytes: &[u8]) -> String {
    let text = std::str::from_utf8(bytes).expect("UTF-8");
    let state = text
        .lines()
        .find_map(|line| line.strip_prefix("Subscription-State: "))
        .expect("a state");
    let mut words = state
        .split(";expires=")
        .next()
        .unwrap_or_default()
        .to_owned();
    for tuple in text.split("<tuple id='ID-").skip(1) {
        let id = tuple.split('\'').next().unwrap_or_default();
        let sign = if tuple.contains("open") { '+' } else { '-' };
        words += &format!(" {id}{sign}");
    }
    words
}

impl Bench {
    fn new() -> Self {
        Self {
            ledger: SubscriptionLedger::default(),
            notifiers: Notifiers::new(DocumentForm::new(2_000, SipDialect::Simple)),
            start: Instant::now(),
            now: 0,
            at_end: EndOfSubscription::Keep,
            asked: Vec::new(),
        }
    }

    /// One that R lets watch, on this call; nothing was heard, and all NOTIFYs were answered.
    fn active(call: &str) -> Self {
        let mut bench = Self::new();
        bench.subscribes(call);
        bench.all();
        bench.approves();
        bench.all();
        bench.asked.clear();
        bench
    }

    fn at(&self) -> Instant {
        self.start + Duration::from_millis(self.now)
    }

    fn step<T>(&mut self, act: impl FnOnce(&mut Notifiers, &mut NotifierStep<'_>) -> T) -> T {
        let mut events = Vec::new();
        let now = self.at();
        let outcome = act(
            &mut self.notifiers,
            &mut NotifierStep {
                ledger: &mut self.ledger,
                now,
                events: &mut events,
            },
        );
        self.asked.extend(events.iter().map(|event| event.output));
        outcome
    }

    fn opens(&mut self, call: &str, seconds: u32) -> Result<NotifierNumber, NotifierRefusal> {
        let share = self.ledger.share(Some("partner"));
        let request = subscribe(call, "", 1);
        self.step(|notifiers, step| {
            notifiers.open(step, &people(), &request, &wish(seconds), share, "ours")
        })
    }

    fn subscribes(&mut self, call: &str) {
        let number = self.opens(call, 600).expect("room");
        let now = self.at();
        self.notifiers.grant(number, 600, "asked", now);
    }

    fn fetches(&mut self, call: &str) {
        let number = self.opens(call, 0).expect("room");
        self.step(|notifiers, step| notifiers.fetch(step, number));
    }

    fn refreshes(&mut self, call: &str, cseq: u32, seconds: u32) -> Option<u32> {
        let at_end = self.at_end;
        let request = subscribe(call, ";tag=ours", cseq);
        self.step(|notifiers, step| notifiers.refresh(step, &request, &wish(seconds), at_end))
            .ok()
    }

    fn approves(&mut self) {
        self.step(|notifiers, step| notifiers.subscribed(step, &people()));
    }

    fn hears(&mut self, said: SaidPresence) -> bool {
        self.step(|notifiers, step| notifiers.heard(step, &people(), said))
    }

    fn waits(&mut self, milliseconds: u64) {
        self.now += milliseconds;
        let at_end = self.at_end;
        self.step(|notifiers, step| notifiers.on_time(step, at_end));
    }

    /// The NOTIFY that goes now.
    fn notify(&mut self) -> Option<(NotifierNumber, String)> {
        let by = SentBy {
            sent_by: "SIP/2.0/TLS hq.example:5061",
            branch: "z9hG4bKx",
        };
        let now = self.at();
        let written =
            self.notifiers
                .notify(&mut self.ledger, "<sip:hq.example>", by, now, |_| true)?;
        let (ticket, bytes) = written.expect("written");
        Some((ticket.number(), words(&bytes)))
    }

    fn answers(&mut self, number: NotifierNumber, code: u16) {
        self.refuses(number, code, None);
    }

    /// Answers it, with Retry-After.
    fn refuses(&mut self, number: NotifierNumber, code: u16, retry_after: Option<Duration>) {
        let code = StatusCode::new(code).expect("a code");
        let outcome = NotifyOutcome::Answered { code, retry_after };
        let now = self.at();
        self.notifiers
            .notified(&mut self.ledger, number, outcome, now);
    }

    /// All that go now, each answered by 200.
    fn all(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        while let Some((number, words)) = self.notify() {
            self.answers(number, 200);
            said.push(words);
        }
        said
    }

    fn is_forgotten(&self) -> bool {
        self.notifiers.counts() == (0, 0)
            && self.ledger.total().dialogs == 0
            && self.ledger.total().presence_bytes == 0
            && self.notifiers.next_end().is_none()
            && self.notifiers.next_notify(|_| true).is_none()
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn sip_49_it_is_pending_until_it_is_approved_and_presence_is_asked_for_then_alone() {
    let mut bench = Bench::new();
    bench.subscribes("a");
    assert_eq!(bench.all(), ["pending"]);
    assert_eq!(bench.refreshes("a", 2, 600), Some(600));
    assert_eq!(bench.all(), ["pending"]);
    bench.fetches("once");
    assert_eq!(bench.all(), ["terminated;reason=timeout"]);
    assert!(bench.asked.is_empty(), "no probe while it is pending");
    bench.approves();
    assert_eq!(bench.all(), ["active"]);
    assert_eq!(bench.asked, [NotifierOutput::Probe]);
    assert_eq!(bench.notifiers.counts(), (1, 1));
    bench.waits(5_000);
    assert!(bench.hears(device("x", Some(Show::Away))));
    assert_eq!(bench.all(), ["active x+"]);
    bench.approves();
    assert_eq!(bench.asked.len(), 1, "an automatic one says nothing new");
    assert_eq!(bench.all(), NOTHING);
}

#[test]
fn what_was_heard_while_it_was_pending_is_told_with_the_approval() {
    let mut bench = Bench::new();
    bench.subscribes("a");
    bench.all();
    assert!(bench.hears(device("x", None)));
    assert_eq!(bench.all(), NOTHING);
    bench.approves();
    assert_eq!(bench.all(), ["active x+"]);
}

#[test]
fn one_notify_is_in_flight_and_one_goes_in_5_s_and_the_newest_state_wins() {
    let mut bench = Bench::active("a");
    for show in [None, Some(Show::Away), Some(Show::DoNotDisturb)] {
        bench.hears(device("x", show));
    }
    bench.waits(4_999);
    assert_eq!(bench.all(), NOTHING);
    bench.waits(1);
    let (number, said) = bench.notify().expect("one");
    assert_eq!(said, "active x+");
    bench.hears(device("y", None));
    bench.waits(10_000);
    assert_eq!(bench.notify(), None, "one is in flight");
    bench.answers(number, 200);
    assert_eq!(bench.all(), ["active x+ y+"]);
    // What answers a SUBSCRIBE waits for nothing but its turn.
    bench.refreshes("a", 2, 600);
    assert_eq!(bench.all(), ["active x+ y+"]);
}

#[test]
fn sip_33_who_went_is_closed_once_for_each_who_watches() {
    let mut bench = Bench::active("a");
    bench.subscribes("b");
    bench.hears(device("x", None));
    bench.hears(device("y", None));
    bench.waits(5_000);
    assert_eq!(bench.all(), ["active x+ y+", "active x+ y+"]);
    bench.hears(gone("x"));
    bench.waits(5_000);
    assert_eq!(bench.all(), ["active y+ x-", "active y+ x-"]);
    bench.refreshes("a", 2, 600);
    assert_eq!(bench.all(), ["active y+"]);
    bench.hears(SaidPresence::NoDevice);
    bench.waits(5_000);
    assert_eq!(bench.all(), ["active y-", "active y-"]);
    bench.refreshes("b", 2, 600);
    assert_eq!(bench.all(), ["active none-"]);
}

#[test]
fn sip_36_what_r_says_no_to_ends_as_it_was_said() {
    let mut bench = Bench::active("a");
    bench.hears(device("x", None));
    let now = bench.at();
    bench.notifiers.ended(&people(), NotifyEnd::Rejected, now);
    assert_eq!(bench.all(), ["terminated;reason=rejected"]);
    assert!(bench.is_forgotten());
    assert!(!bench.hears(device("x", None)), "nobody watches");
    for (code, said) in [
        (404, "terminated;reason=noresource"),
        (403, "terminated;reason=rejected"),
        (504, "terminated;reason=giveup;retry-after=60"),
    ] {
        let mut bench = Bench::new();
        bench.subscribes("a");
        bench.all();
        let (code, now) = (StatusCode::new(code).expect("a code"), bench.at());
        bench.notifiers.failed(&people(), "another", code, now);
        assert_eq!(bench.all(), NOTHING, "not of what was asked");
        bench.notifiers.failed(&people(), "asked", code, now);
        assert_eq!(bench.all(), [said]);
        assert!(bench.is_forgotten());
    }
}

#[test]
fn who_is_rejected_may_ask_again_at_once() {
    let mut bench = Bench::active("a");
    let now = bench.at();
    bench.notifiers.ended(&people(), NotifyEnd::Rejected, now);
    bench.subscribes("b");
    let mut said = bench.all();
    said.sort();
    assert_eq!(said, ["pending", "terminated;reason=rejected"]);
    assert_eq!(bench.notifiers.counts(), (1, 0));
    bench.approves();
    assert_eq!(bench.all(), ["active"]);
}

#[test]
fn sip_37_who_ends_it_is_told_closed_and_r_hears_what_is_configured() {
    for (at_end, asked) in [
        (EndOfSubscription::Keep, &[][..]),
        (
            EndOfSubscription::Unsubscribe,
            &[NotifierOutput::Unsubscribe],
        ),
    ] {
        let mut bench = Bench::active("a");
        bench.at_end = at_end;
        bench.subscribes("b");
        bench.hears(device("x", None));
        bench.all();
        bench.asked.clear();
        assert_eq!(bench.refreshes("a", 2, 0), Some(0));
        assert_eq!(bench.all(), ["terminated;reason=timeout none-"]);
        assert!(bench.asked.is_empty(), "another device watches");
        assert_eq!(bench.refreshes("a", 3, 600), None, "it is over");
        // Time is over for the other.
        bench.waits(600_000);
        assert_eq!(bench.all(), ["terminated;reason=timeout none-"]);
        assert_eq!(bench.asked, asked);
        assert!(bench.is_forgotten());
    }
}

#[test]
fn a_refresh_where_nothing_was_heard_is_empty_and_asks() {
    let mut bench = Bench::active("a");
    assert_eq!(bench.refreshes("a", 2, 600), Some(600));
    assert_eq!(bench.all(), ["active"]);
    assert_eq!(bench.asked, [NotifierOutput::Probe]);
    assert_eq!(bench.refreshes("a", 2, 600), None, "it came before");
    assert_eq!(bench.refreshes("unknown", 2, 600), None);
}

#[test]
fn sip_38_a_fetch_is_one_notify_with_what_is_known_or_comes_within_2_s() {
    let mut bench = Bench::new();
    bench.fetches("a");
    assert_eq!(bench.all(), NOTHING);
    assert_eq!(bench.asked, [NotifierOutput::Probe]);
    bench.hears(device("x", None));
    assert_eq!(bench.all(), ["terminated;reason=timeout x+"]);
    assert!(bench.is_forgotten());
    bench.fetches("b");
    bench.waits(1_999);
    assert_eq!(bench.all(), NOTHING);
    bench.waits(1);
    assert_eq!(bench.all(), ["terminated;reason=timeout"]);
    assert!(bench.is_forgotten());
    let mut bench = Bench::active("a");
    bench.hears(device("x", None));
    bench.fetches("b");
    assert_eq!(bench.all(), ["terminated;reason=timeout x+"]);
    assert!(bench.asked.is_empty());
}

#[test]
fn sip_35_who_does_not_answer_a_notify_is_gone_and_others_go_on() {
    for code in [
        404, 405, 410, 416, 480, 481, 482, 483, 484, 485, 489, 501, 604,
    ] {
        let mut bench = Bench::active("a");
        bench.subscribes("b");
        let (number, _) = bench.notify().expect("one");
        bench.answers(number, code);
        assert_eq!(bench.notifiers.counts(), (1, 1), "{code}");
    }
    let mut bench = Bench::active("a");
    bench.subscribes("b");
    let (number, _) = bench.notify().expect("one");
    let now = bench.at();
    bench
        .notifiers
        .notified(&mut bench.ledger, number, NotifyOutcome::Unanswered, now);
    assert_eq!(bench.notifiers.counts(), (1, 1));
    bench.waits(5_000);
    bench.hears(device("x", None));
    assert_eq!(bench.all(), ["active x+"]);
    // A failure that passes ends nothing; what was in flight on a connection goes on the next.
    bench.refreshes("a", 2, 600);
    let (number, _) = bench.notify().expect("one");
    bench.answers(number, 500);
    assert_eq!(bench.notifiers.counts(), (1, 1));
    bench.refreshes("a", 3, 600);
    let (number, first) = bench.notify().expect("one");
    let now = bench.at();
    bench
        .notifiers
        .notified(&mut bench.ledger, number, NotifyOutcome::Lost, now);
    assert_eq!(bench.all(), [first]);
}

#[test]
fn sip_45_policy_and_the_end_of_the_edge_end_it() {
    let mut bench = Bench::active("a");
    let now = bench.at();
    bench.notifiers.follow_policy(now, |_| true);
    assert_eq!(bench.all(), NOTHING);
    bench.notifiers.follow_policy(now, |_| false);
    assert_eq!(bench.all(), ["terminated;reason=rejected"]);
    assert!(bench.is_forgotten());
    let mut bench = Bench::active("a");
    let now = bench.at();
    bench.notifiers.end_all(now);
    assert_eq!(bench.all(), ["terminated;reason=deactivated"]);
    assert!(bench.is_forgotten());
}

#[test]
fn sip_43_subscriptions_and_devices_are_bounded() {
    let mut bench = Bench::active("a");
    for number in 0..20 {
        let kept = bench.hears(device(&format!("d{number}"), None));
        assert_eq!(kept, number < 10, "{number}");
    }
    assert!(bench.hears(gone("d0")));
    assert!(bench.hears(device("d11", None)), "who went makes room");
    assert_eq!(bench.opens("a", 600), Err(NotifierRefusal::Merged));
    let full = crate::sip::ledger::HeldSubscriptions {
        dialogs: MAX_DIALOGS / 4 - 1,
        ..Default::default()
    };
    let share = bench.ledger.share(Some("partner"));
    assert!(bench.ledger.change(&share, Default::default(), full));
    assert_eq!(bench.opens("b", 600), Err(NotifierRefusal::Full));
}

#[test]
fn sip_43_a_document_is_no_longer_than_the_server_reads() {
    let mut bench = Bench::active("a");
    for number in 0..10 {
        let mut device = device(&format!("d{number}"), None);
        if let SaidPresence::Device(device) = &mut device
            && let Availability::Available { notes, .. } = &mut device.availability
        {
            notes.push(Note {
                language: None,
                text: "<".repeat(1_000),
            });
        }
        bench.hears(device);
        bench.waits(5_000);
        let (number, words) = bench.notify().expect("one");
        bench.answers(number, 200);
        assert!(words.starts_with("active d"), "{words}");
    }
    let by = SentBy {
        sent_by: "SIP/2.0/TLS hq.example:5061",
        branch: "z9hG4bKx",
    };
    bench.refreshes("a", 2, 600);
    let now = bench.at();
    let written = bench
        .notifiers
        .notify(&mut bench.ledger, "<sip:hq.example>", by, now, |_| true);
    let (_, bytes) = written.expect("one").expect("written");
    let text = String::from_utf8(bytes).expect("UTF-8");
    let (_, body) = text.split_once("\r\n\r\n").expect("a body");
    assert!(body.len() <= 2_000 && body.contains("<tuple"), "{body}");
}

#[test]
fn what_is_discarded_leaves_nothing() {
    let mut bench = Bench::new();
    let number = bench.opens("a", 600).expect("room");
    bench.notifiers.discard(&mut bench.ledger, number);
    assert!(bench.is_forgotten());
    assert_eq!(bench.all(), NOTHING);
}

#[test]
fn a_notify_says_event_state_contact_and_what_is_known() {
    let mut bench = Bench::new();
    let share = bench.ledger.share(None);
    let asks = SubscribeWish {
        seconds: 600,
        event_id: Some("a1".into()),
    };
    let request = subscribe("c", "", 1);
    let number = bench
        .step(|notifiers, step| notifiers.open(step, &people(), &request, &asks, share, "ours"))
        .expect("room");
    let now = bench.at();
    bench.notifiers.grant(number, 600, "asked", now);
    bench.approves();
    bench.hears(device("x", None));
    let by = SentBy {
        sent_by: "SIP/2.0/TLS hq.example:5061",
        branch: "z9hG4bKx",
    };
    let written = bench
        .notifiers
        .notify(&mut bench.ledger, "<sip:hq.example>", by, now, |_| true);
    let (_, bytes) = written.expect("one").expect("written");
    let text = String::from_utf8(bytes).expect("UTF-8");
    for part in [
        "NOTIFY sip:u@10.0.0.1 SIP/2.0\r\n",
        "From: <sip:r@partner.example>;tag=ours\r\n",
        "To: <sip:u@org.example>;tag=c\r\n",
        "Event: presence;id=a1\r\n",
        "Subscription-State: active;expires=600\r\n",
        "Contact: <sip:hq.example>\r\n",
        "Content-Type: application/pidf+xml\r\n",
        "entity='pres:r@partner.example'",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
