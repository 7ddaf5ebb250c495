//! The receiving half without sockets.

use prometheus_client::encoding::text::encode;
use xmpp_edge_crds::negotiation::Method;

use super::*;
use crate::{
    config::fixture,
    negotiation::{Pair, acks::Namespace},
    routing::wake::Window,
    xml::{Item, Limits, Scanner, rewrite::StanzaStart},
};

const HEADER: &str = "<stream:stream xmlns='jabber:server' \
    xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";
const WINDOW: Window = Window {
    is_empty: true,
    takes_errors: true,
};

/// A receiver that a partner's pair was authenticated on, and no socket.
struct Lab {
    context: Arc<StreamContext>,
    config: Arc<ActiveConfig>,
    receiver: Receiver,
    _dials: crate::routing::dial_ticket::DialRequests,
}

impl Lab {
    fn new(settings: serde_json::Value) -> Self {
        let config = fixture::active_config(|document| document["settings"] = settings);
        let (context, dials) = StreamContext::alone(config);
        let config = context.config();
        let mut receiver = Receiver::new(Side::Partner);
        receiver.add(carried(&context, &config, "x.partner.example"));
        let acknowledger = Acknowledger::new(Namespace::Sm3, Arc::default());
        receiver.enable_acks(&context, acknowledger, Instant::now());
        Self {
            context,
            config,
            receiver,
            _dials: dials,
        }
    }

    /// What becomes of the only stanza in `xml`.
    fn take(&mut self, xml: &str) -> Taken {
        let mut scanner = Scanner::new(Limits::with_stanza_bytes(10_000));
        let len = match scanner.next(HEADER.as_bytes()) {
            Ok(Some(Item::Header { len, .. })) => len,
            other => panic!("{other:?}"),
        };
        assert_eq!(len, HEADER.len());
        let header = Arc::clone(scanner.header().expect("it came"));
        scanner.skip_faulty();
        let mut bytes = xml.as_bytes();
        let now = Instant::now();
        loop {
            match scanner.next(bytes).expect("right").expect("whole") {
                Item::Stanza(stanza) => {
                    let (context, config) = (&self.context, &self.config);
                    let expected = bytes.len();
                    let taken = self
                        .receiver
                        .stanza(context, config, &header, &stanza, expected, now);
                    let start = (StanzaStart::of(&stanza), None);
                    return match taken {
                        Taken::Stray if self.receiver.out_of_place(context, config, start, now) => {
                            Taken::Yes
                        }
                        taken => taken,
                    };
                }
                Item::Faulty { stanza, .. } => {
                    let (context, config) = (&self.context, &self.config);
                    let start = (StanzaStart::of_faulty(&stanza), Some(stanza.error));
                    let is_taken = self.receiver.faulty(context, config, &stanza, now)
                        || self.receiver.out_of_place(context, config, start, now);
                    return match is_taken {
                        true => Taken::Yes,
                        false => Taken::Stray,
                    };
                }
                item => bytes = &bytes[item.len()..],
            }
        }
    }

    /// All that waits for `side`, settled, pair by pair.
    fn deliver(&mut self, side: Side) -> String {
        self.receiver.flush(&self.context, Instant::now());
        let mut text = String::new();
        for carried in &self.receiver.carried {
            let route = Arc::clone(match side {
                Side::Gateway => &carried.route,
                Side::Partner => &carried.back,
            });
            let (router, wake) = (&self.context.router, Arc::default());
            assert!(router.attach(&route, &wake, 0).is_some());
            while let Some(batch) = router.dequeue(&route, &wake, WINDOW) {
                text += std::str::from_utf8(&batch.unsettled()).expect("UTF-8");
                batch.settle();
            }
            router.detach(&route, &wake, Vec::new());
        }
        text
    }

    fn ack(&mut self) -> String {
        self.receiver.ack_requested();
        let ack = self.receiver.ack(false).expect("asked for");
        String::from_utf8(ack).expect("ASCII")
    }
}

/// A pair to `org.example`.
fn carried(context: &StreamContext, config: &ActiveConfig, from: &str) -> Carried {
    let domain = |name| DomainName::parse(name).expect("valid");
    let pair = Pair {
        from: domain(from),
        to: domain("org.example"),
    };
    let (router, metrics) = (&context.router, &context.metrics);
    Carried::new(
        router,
        metrics,
        config,
        Side::Partner,
        pair,
        Method::TcpDialback,
    )
}

fn message(from: &str, content: &str) -> String {
    format!("<message from='a@{from}/r' to='b@org.example' id='1'>{content}</message>")
}

#[test]
fn a_stanza_is_acknowledged_once_it_is_delivered_and_not_before() {
    let mut lab = Lab::new(serde_json::json!({}));
    assert!(matches!(
        lab.take(&message("x.partner.example", "")),
        Taken::Yes
    ));
    assert_eq!(lab.ack(), "<a xmlns='urn:xmpp:sm:3' h='0'/>");
    assert!(!lab.receiver.is_done());
    let text = lab.deliver(Side::Gateway);
    assert!(text.contains("a@x.partner.example/r"), "{text}");
    assert_eq!(lab.ack(), "<a xmlns='urn:xmpp:sm:3' h='1'/>");
    assert!(lab.receiver.is_done());
}

#[test]
fn a_pair_that_was_not_authenticated_here_is_not_carried() {
    let mut lab = Lab::new(serde_json::json!({}));
    for xml in [
        message("y.partner.example", ""),
        message("y.partner.example", &"x".repeat(20_000)),
        message("y.partner.example", "").replace(" to='b@org.example'", ""),
        message("y.partner.example", "").replace("<message", "<message xmlns='jabber:client'"),
    ] {
        assert!(matches!(lab.take(&xml), Taken::Stray), "{xml}");
    }
    assert_eq!(lab.deliver(Side::Gateway), "");
    assert!(lab.receiver.is_done(), "none of them counts");
}

/// Issue: a stanza whose addresses or namespace break a rule costs itself.
#[test]
fn a_fault_of_address_or_namespace_is_answered_by_the_domain_that_was_talked_to() {
    let right = message("x.partner.example", "hello");
    let large = message("x.partner.example", &"x".repeat(20_000));
    let to = "to='b@org.example'";
    let elsewhere = "to='b@elsewhere.example'";
    for (xml, condition) in [
        (right.replace(to, ""), "jid-malformed"),
        (right.replace(to, "to=''"), "jid-malformed"),
        (right.replace(to, "to='b@org..example'"), "jid-malformed"),
        (right.replace(to, "to='b@'"), "jid-malformed"),
        (right.replace(to, elsewhere), "service-unavailable"),
        (large.replace(to, ""), "policy-violation"),
        (large.replace(to, "to='b@org..example'"), "policy-violation"),
        (large.replace(to, elsewhere), "policy-violation"),
        (
            right.replace("<message", "<message xmlns='jabber:client'"),
            "bad-request",
        ),
        (
            right.replace("<message", "<message xmlns=''"),
            "bad-request",
        ),
        (
            large.replace("<message", "<message xmlns='jabber:client'"),
            "bad-request",
        ),
    ] {
        let mut lab = Lab::new(serde_json::json!({}));
        assert!(matches!(lab.take(&xml), Taken::Yes), "{xml}");
        assert!(matches!(lab.take(&right), Taken::Yes), "the next");
        let answer = lab.deliver(Side::Partner);
        assert!(answer.contains(condition), "{condition}: {answer}");
        assert_eq!(answer.matches("type='error'").count(), 1, "{answer}");
        let addressed =
            answer.contains("from='org.example'") || answer.contains("from='b@org.example'");
        assert!(
            addressed && answer.contains("to='a@x.partner.example/r'"),
            "{answer}"
        );
        let passed = lab.deliver(Side::Gateway);
        assert_eq!(passed.matches("<message").count(), 1, "{passed}");
        assert_eq!(lab.ack(), "<a xmlns='urn:xmpp:sm:3' h='2'/>");
    }
}

#[test]
fn a_stanza_that_does_not_say_whom_to_answer_is_dropped_counted_and_handled() {
    let right = message("x.partner.example", "hello");
    let from = "from='a@x.partner.example/r'";
    assert!(right.contains(from), "{right}");
    for xml in [
        right.replace(from, ""),
        right.replace(from, "from=''"),
        right.replace(from, "from='a@x..partner.example'"),
        right.replace(from, "").replace("to='b@org.example'", ""),
        right
            .replace(from, "from='a@[::1]'")
            .replace("hello", &"x".repeat(20_000)),
    ] {
        let mut lab = Lab::new(serde_json::json!({}));
        assert!(matches!(lab.take(&xml), Taken::Yes), "{xml}");
        assert_eq!(lab.deliver(Side::Partner) + &lab.deliver(Side::Gateway), "");
        assert_eq!(lab.ack(), "<a xmlns='urn:xmpp:sm:3' h='1'/>");
        let mut metrics = String::new();
        encode(&mut metrics, lab.context.metrics.registry()).expect("a string takes it");
        let counted = metrics.lines().any(|line| {
            line.contains("refused") && line.contains("JidMalformed") && line.ends_with(" 1")
        });
        assert!(counted, "{metrics}");
    }
}

#[test]
fn while_the_queue_is_full_nothing_is_taken_and_nothing_is_lost() {
    let mut lab = Lab::new(serde_json::json!({"queueBytes": 1_000}));
    let stanza = message("x.partner.example", &"x".repeat(300));
    let mut taken = 0;
    while matches!(lab.take(&stanza), Taken::Yes) {
        taken += 1;
        assert!(taken < 10, "the queue has room for 1,000 bytes");
    }
    assert!(matches!(lab.take(&stanza), Taken::Full(_)));
    let text = lab.deliver(Side::Gateway);
    assert_eq!(text.matches("<message").count(), taken);
    assert!(matches!(lab.take(&stanza), Taken::Yes));
    lab.deliver(Side::Gateway);
    let acked = format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", taken + 1);
    assert_eq!(lab.ack(), acked);
}

#[test]
fn a_stanza_over_a_limit_is_answered_once_and_acknowledged_with_its_answer() {
    let mut lab = Lab::new(serde_json::json!({}));
    let long = message("x.partner.example", &"x".repeat(20_000));
    assert!(matches!(lab.take(&long), Taken::Yes));
    assert_eq!(lab.ack(), "<a xmlns='urn:xmpp:sm:3' h='0'/>");
    let answer = lab.deliver(Side::Partner);
    assert_eq!(answer.matches("type='error'").count(), 1, "{answer}");
    assert_eq!(lab.deliver(Side::Gateway), "");
    assert_eq!(lab.ack(), "<a xmlns='urn:xmpp:sm:3' h='1'/>");
}

/// Addresses of people that are told from each other by what is easily mixed up, and which of them are
/// longer than what is remembered.
fn addresses(domain: &str) -> Vec<String> {
    let locals = ["a", "A", "ab", "b", "a\\40b", "ä", "Ä", "o"];
    let resources = ["", "/r", "/R", "/r2", "/a@x.partner.example", "/r/s", "/ü"];
    let domains = [domain.to_owned(), domain.to_uppercase()];
    let mut all = Vec::new();
    for local in locals {
        for resource in resources {
            for domain in &domains {
                all.push(format!("{local}@{domain}{resource}"));
            }
        }
    }
    all.push(domain.to_owned());
    all.push(format!("{}@{domain}/r", "l".repeat(200)));
    all.push(format!("a@{domain}/{}", "r".repeat(500)));
    all
}

/// All users may federate but the one who is `closed`; `o` only by mode Audit.
fn config(closed: &str) -> ActiveConfig {
    let users =
        |local: &str| serde_json::json!({"User": {"users": [format!("{local}@org.example")]}});
    let policy = |name: &str, scope: serde_json::Value, enabled: bool, mode: &str| {
        serde_json::json!({
            "name": name, "scope": scope, "enableFederationAccess": enabled,
            "enableXmppAccess": enabled, "enablePublicCloudAccess": enabled, "mode": mode,
        })
    };
    fixture::active_config(|document| {
        document["access"]["policies"] = serde_json::json!([
            policy("closed", users(closed), false, "Enforce"),
            policy("audited", users("o"), false, "Audit"),
            policy("all", serde_json::json!("Global"), true, "Enforce"),
        ]);
    })
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Whoever writes to whom how often, and whatever changes in between: what becomes of a stanza is what
    /// becomes of it where nobody is remembered.
    #[test]
    fn remembering_people_changes_nothing_of_what_becomes_of_their_stanzas(
        written in proptest::collection::vec(
            (0..230_usize, 0..115_usize, 1..4_usize, proptest::bool::weighted(0.1)), 1..40,
        ),
    ) {
        let mut senders = addresses("x.partner.example");
        senders.extend(addresses("y.partner.example"));
        let users = addresses("org.example");
        let (mut lab, mut plain) = (Lab::new(serde_json::json!({})), Lab::new(serde_json::json!({})));
        for lab in [&mut lab, &mut plain] {
            let another = carried(&lab.context, &lab.config, "y.partner.example");
            lab.receiver.add(another);
        }
        let configs = [Arc::new(config("b")), Arc::new(config("ab"))];
        let mut now = 0;
        for (from, to, times, changes) in written {
            if changes {
                now = 1 - now;
            }
            for lab in [&mut lab, &mut plain] {
                lab.config = Arc::clone(&configs[now]);
                if changes {
                    lab.receiver.relabel(&lab.context, &lab.config);
                }
            }
            let (from, to) = (&senders[from % senders.len()], &users[to % users.len()]);
            let stanza = format!("<message from='{from}' to='{to}' id='1'><body>x</body></message>");
            for _ in 0..times {
                plain.receiver.release();
                let taken = (lab.take(&stanza), plain.take(&stanza));
                proptest::prop_assert_eq!(format!("{:?}", taken.0), format!("{:?}", taken.1));
                for side in [Side::Gateway, Side::Partner] {
                    let got = (lab.deliver(side), plain.deliver(side));
                    proptest::prop_assert_eq!(got.0, got.1, "{}", stanza);
                }
            }
        }
    }
}

#[test]
fn who_is_remembered_is_judged_by_the_policy_in_force() {
    let mut lab = Lab::new(serde_json::json!({}));
    let stanza = message("x.partner.example", "<body>x</body>");
    for (closed, passes) in [("ab", true), ("b", false), ("ab", true)] {
        lab.config = Arc::new(config(closed));
        // The first before the stream has heard of the new one.
        for _ in 0..4 {
            assert!(matches!(lab.take(&stanza), Taken::Yes));
            let (there, back) = (lab.deliver(Side::Gateway), lab.deliver(Side::Partner));
            assert_eq!(
                (there.is_empty(), back.is_empty()),
                (!passes, passes),
                "{closed}"
            );
            lab.receiver.relabel(&lab.context, &lab.config);
        }
    }
}

#[test]
fn strangers_fill_no_memory_and_an_idle_stream_remembers_nobody() {
    let mut lab = Lab::new(serde_json::json!({}));
    let remembered = |lab: &Lab| lab.receiver.people.bytes();
    for number in 0..1_000 {
        let stanza = format!(
            "<message from='a{number}@x.partner.example/r' to='b@org.example'><body>x</body></message>"
        );
        lab.take(&stanza);
        lab.take(&stanza);
        lab.deliver(Side::Gateway);
    }
    assert!(
        (1..=4_096).contains(&remembered(&lab)),
        "{}",
        remembered(&lab)
    );
    lab.receiver.release();
    assert_eq!(remembered(&lab), 0);
}
