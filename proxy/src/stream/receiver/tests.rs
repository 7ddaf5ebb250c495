//! The receiving half without sockets.

use std::net::Ipv4Addr;

use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::negotiation::Method;

use super::*;
use crate::{
    config::fixture,
    contacts::Contacts,
    dns::{Dialer, Resolver},
    negotiation::{Pair, acks::Namespace},
    routing::wake::Window,
    telemetry::config_status::Telemetry,
    xml::{Item, Limits, Scanner},
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
        let resolver = Resolver::at((Ipv4Addr::LOCALHOST, 9).into()).expect("an address");
        let dialer = Dialer::new(resolver.clone(), Arc::new(|_, _| true));
        let (context, dials) = StreamContext::new(
            config,
            resolver,
            dialer,
            Arc::new(Contacts::in_memory()),
            None,
            CancellationToken::new(),
            &Telemetry::default(),
        );
        let config = context.config();
        let domain = |name| DomainName::parse(name).expect("valid");
        let pair = Pair {
            from: domain("x.partner.example"),
            to: domain("org.example"),
        };
        let mut receiver = Receiver::new(Side::Partner);
        receiver.add(Carried::new(
            &context.router,
            &context.metrics,
            &config,
            Side::Partner,
            pair,
            Method::TcpDialback,
        ));
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
                    return self.receiver.stanza(
                        &self.context,
                        &self.config,
                        &header,
                        &stanza,
                        bytes.len(),
                        now,
                    );
                }
                Item::Faulty { stanza, .. } => {
                    let (context, config) = (&self.context, &self.config);
                    return match self.receiver.faulty(context, config, &stanza, now) {
                        true => Taken::Yes,
                        false => Taken::Stray,
                    };
                }
                item => bytes = &bytes[item.len()..],
            }
        }
    }

    /// All that waits for `side`, settled.
    fn deliver(&mut self, side: Side) -> String {
        self.receiver.flush(&self.context, Instant::now());
        let carried = &self.receiver.carried[0];
        let route = Arc::clone(match side {
            Side::Gateway => &carried.route,
            Side::Partner => &carried.back,
        });
        let (router, wake) = (&self.context.router, Arc::default());
        assert!(router.attach(&route, &wake, 0).is_some());
        let mut text = String::new();
        while let Some(batch) = router.dequeue(&route, &wake, WINDOW) {
            text += std::str::from_utf8(&batch.unsettled()).expect("UTF-8");
            batch.settle();
        }
        router.detach(&route, &wake, Vec::new());
        text
    }

    fn ack(&mut self) -> String {
        self.receiver.ack_requested();
        let ack = self.receiver.ack(false).expect("asked for");
        String::from_utf8(ack).expect("ASCII")
    }
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
        message("x.partner.example", "").replace("b@org", "b@other"),
        "<message to='b@org.example'/>".to_owned(),
    ] {
        assert!(matches!(lab.take(&xml), Taken::Stray), "{xml}");
    }
    assert_eq!(lab.deliver(Side::Gateway), "");
    assert!(lab.receiver.is_done(), "none of them counts");
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
