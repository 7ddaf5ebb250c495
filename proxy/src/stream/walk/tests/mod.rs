//! Servers that break over what the edge asks for: whatever fallback the configuration allows is tried in
//! one walk, and what waits is delivered once where any way works.

#![allow(clippy::unwrap_used)]

mod server;

use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::json;
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use self::server::{At, Before, Ending, Quirks, Scripted};
use super::*;
use crate::{
    config::{PemPair, fixture},
    negotiation::Pair,
    routing::{batch::BatchBuilder, dial_ticket::DialRequests, route::Route},
    stream::targets,
    tls::pki::{Subject, authority, issue},
};

/// What a loaded machine may need for one walk.
const GENEROUS: Duration = Duration::from_secs(40);

/// How long a server's negotiation takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    Quick,
    /// Longer than others wait to start beside it: it is the only target, so all have been tried by then.
    Slow,
}

/// The edge between a server that breaks and one message for it.
struct Scene {
    side: Side,
    context: Arc<StreamContext>,
    dials: DialRequests,
    route: Arc<Route>,
    server: Arc<Scripted>,
    pace: Pace,
}

impl Scene {
    async fn new(side: Side, dialback: bool, pace: Pace, quirks: Quirks) -> Self {
        let name = |text: &str| DomainName::parse(text).unwrap();
        let (own, partner) = (name("org.example"), name("bücher.example"));
        let (from, to) = match side {
            Side::Partner => (own, partner),
            Side::Gateway => (partner, own),
        };
        let root = authority("root");
        let certificate = issue(
            &root,
            &Subject {
                names: &[to.as_str()],
                ..Subject::default()
            },
        );
        let local = from.to_unicode().into_owned();
        let (server, address) = Scripted::open(&to, &local, &certificate, &root, quirks).await;
        let mut methods = vec!["SaslOverTls"];
        if dialback {
            methods.push("TlsDialback");
        }
        let negotiation = json!({"tls": "Required", "sasl": "Optional", "dialback": dialback});
        let document = json!({
            "version": {"major": 1, "minor": 0}, "generation": 1,
            "namespace": "default", "pool": "edge", "site": "a", "fqdn": "edge.org.example",
            "domains": ["org.example"], "namespaceDomains": ["org.example"],
            "listeners": {"s2s": 5269, "directTls": 0, "internal": 23456, "admin": 0, "dns": 0},
            "gateways": [{
                "domains": ["org.example"], "mode": "Direct", "address": address.to_string(),
                "negotiation": negotiation, "methods": methods,
            }],
            "partners": [{
                "name": "partner", "domains": [partner_name()], "partnerType": "Federated",
                "negotiation": negotiation, "methods": methods, "enableKeepAlive": true,
                "connectionLimit": 20, "proxyFqdn": address.to_string(),
            }],
            "trustCa": root.pem(),
            "access": {
                "policies": [{
                    "name": "all", "scope": "Global", "enableFederationAccess": true,
                    "enableXmppAccess": true, "enablePublicCloudAccess": true, "mode": "Enforce",
                }],
                "homeSites": {"org.example": "a"},
            },
            "settings": {}, "contacts": "Embedded",
        });
        let ours = issue(
            &root,
            &Subject {
                names: &["org.example"],
                ..Subject::default()
            },
        );
        let config = fixture::with_secrets(document, |materials| {
            materials.internal_ca = root.pem();
            materials.certificate = Some(PemPair {
                chain: ours.pem.clone(),
                key: Zeroizing::new(ours.key_pem.clone()),
            });
            materials.issuer = Some(PemPair {
                chain: root.pem(),
                key: Zeroizing::new(root.key().serialize_pem()),
            });
        });
        let (context, dials) = StreamContext::alone(config);
        let route = context.router.route(side, &Pair { from, to });
        let mut builder = BatchBuilder::default();
        let message = format!(
            "<message from='a@{}' to='b@{}' type='chat' id='m'><body>hello</body></message>",
            route.pair.from, route.pair.to
        );
        builder.add(0, message.len(), |out| {
            out.extend_from_slice(message.as_bytes())
        });
        let batch = builder.take(None, Instant::now()).unwrap();
        context.router.enqueue(&route, batch);
        Self {
            side,
            context,
            dials,
            route,
            server,
            pace,
        }
    }

    /// One walk, for who asked for it.
    async fn walk(&self, ticket: &DialTicket) -> Result<Box<Stream>, Failure> {
        let config = self.context.config();
        let purpose = Purpose::Stanzas(self.route.pair.clone());
        let found = targets::look_up(&self.context, &config, self.side, &self.route.pair.to);
        let candidates = found.await.map_err(|(failure, _)| failure)?;
        let deadline = Instant::now() + GENEROUS;
        let mut walk = Walk::new(
            &self.context,
            &config,
            self.side,
            &purpose,
            Some(ticket),
            deadline,
        );
        walk.beside = match self.pace {
            Pace::Quick => GENEROUS,
            Pace::Slow => Duration::ZERO,
        };
        let over = tokio::time::timeout(GENEROUS, walk.over(candidates)).await;
        over.expect("a walk ends")
    }

    async fn asked(&mut self) -> DialTicket {
        self.dials.recv().await.expect("something waits")
    }

    /// Walks as often as the engine would, each time in vain but for the stream that carries the message;
    /// says how often.
    async fn delivers(&mut self) -> usize {
        let server = Arc::clone(&self.server);
        let mut walks = 0;
        let all = async {
            loop {
                let ticket = tokio::select! {
                    ticket = self.dials.recv() => ticket.expect("something waits"),
                    () = server.has_taken() => return,
                };
                walks += 1;
                let stream = self.walk(&ticket).await.expect("one walk finds the way");
                ticket.done();
                self.context.tasks.spawn(stream.run());
            }
        };
        tokio::time::timeout(GENEROUS, all)
            .await
            .expect("it is delivered");
        assert_eq!(*self.server.taken.lock(), ["m"], "it is delivered once");
        assert_eq!(self.answers(), 0, "nobody is told of an error");
        walks
    }

    /// Stanzas that wait the other way.
    fn answers(&self) -> u64 {
        let back = self.route.pair.reversed();
        self.context
            .router
            .route(self.side.opposite(), &back)
            .waiting()
    }

    fn may_have(&self, what: Dispensable) -> bool {
        let peer = &self.route.pair.to;
        !self.context.given_up.contains(peer, what, Instant::now())
    }
}

fn partner_name() -> String {
    DomainName::parse("bücher.example").unwrap().to_string()
}

fn breaks(at: At, ending: Ending) -> Quirks {
    Quirks {
        breaks: vec![(at, ending)],
        ..Quirks::default()
    }
}

const ENDINGS: [Ending; 3] = [Ending::Error, Ending::Close, Ending::HangUp];
const PACES: [Pace; 2] = [Pace::Quick, Pace::Slow];

/// A lone target has a second try however long its first took: by dialback (E-17), without bidi (s4), by
/// its other name (s3), without our certificate.
#[tokio::test]
async fn s4_a_lone_target_that_negotiates_slowly_has_its_second_try_in_the_same_walk() {
    let mut cases: Vec<Quirks> = [At::External, At::ExternalTaken, At::Bidi, At::Acks]
        .into_iter()
        .flat_map(|at| ENDINGS.map(|ending| breaks(at, ending)))
        .collect();
    cases.push(Quirks {
        hosts_ascii: Some(Before::Header),
        ..Quirks::default()
    });
    cases.push(Quirks {
        refuses_certificate: true,
        ..Quirks::default()
    });
    for pace in PACES {
        for quirks in &cases {
            let mut quirks = quirks.clone();
            quirks.acks = true;
            let shown = format!("{pace:?} {quirks:?}");
            let mut scene = Scene::new(Side::Partner, true, pace, quirks).await;
            assert_eq!(scene.delivers().await, 1, "{shown}");
        }
    }
}

/// E1 of a gateway: it takes dialback, and does not trust whom we show.
#[tokio::test]
async fn a_gateway_that_refuses_our_certificate_is_tried_without_one_where_it_has_dialback() {
    let quirks = || Quirks {
        refuses_certificate: true,
        ..Quirks::default()
    };
    let mut scene = Scene::new(Side::Gateway, true, Pace::Quick, quirks()).await;
    assert_eq!(scene.delivers().await, 1);
    let mut scene = Scene::new(Side::Gateway, false, Pace::Quick, quirks()).await;
    let ticket = scene.asked().await;
    let failure = scene
        .walk(&ticket)
        .await
        .expect_err("there is no other way");
    assert_eq!(failure.kind, FailureKind::Refused);
    ticket.done();
}

#[tokio::test]
async fn s4_a_peer_that_breaks_over_bidi_once_it_knows_us_is_remembered_and_gets_what_waits_without()
 {
    for acks in [false, true] {
        for at in [At::BidiTaken, At::BidiStanza] {
            for ending in ENDINGS {
                let quirks = Quirks {
                    acks,
                    ..breaks(at, ending)
                };
                let shown = format!("{quirks:?}");
                let mut scene = Scene::new(Side::Partner, true, Pace::Quick, quirks).await;
                let walks = scene.delivers().await;
                assert!(walks <= 2, "{walks} walks: {shown}");
                assert!(!scene.may_have(Dispensable::Bidi), "{shown}");
            }
        }
    }
}

#[tokio::test]
async fn s4_a_peer_that_says_nothing_more_after_bidi_is_remembered() {
    let fault = |condition, text| Fault::BidiRejected { condition, text };
    is_remembered_where_no_time_is_left(Dispensable::Bidi, fault).await;
}

#[tokio::test]
async fn a_peer_that_says_nothing_after_enable_is_remembered() {
    let fault = |condition, text| Fault::AcksRejected { condition, text };
    is_remembered_where_no_time_is_left(Dispensable::Acks, fault).await;
}

async fn is_remembered_where_no_time_is_left(
    what: Dispensable,
    fault: fn(String, String) -> Fault,
) {
    let scene = Scene::new(Side::Partner, true, Pace::Quick, Quirks::default()).await;
    let config = scene.context.config();
    let purpose = Purpose::Stanzas(scene.route.pair.clone());
    let deadline = Instant::now();
    let mut walk = Walk::new(
        &scene.context,
        &config,
        Side::Partner,
        &purpose,
        None,
        deadline,
    );
    let fault = fault("no answer".to_owned(), String::new());
    assert!(scene.may_have(what));
    assert!(!walk.changes_manner(walk.manner, &fault));
    assert!(!scene.may_have(what));
}

#[tokio::test]
async fn a_peer_that_ends_the_stream_over_enable_is_remembered_for_having_no_acks() {
    for ending in ENDINGS {
        let quirks = Quirks {
            acks: true,
            ..breaks(At::Acks, ending)
        };
        let shown = format!("{quirks:?}");
        let mut scene = Scene::new(Side::Partner, true, Pace::Quick, quirks).await;
        assert_eq!(scene.delivers().await, 1, "{shown}");
        assert!(!scene.may_have(Dispensable::Acks), "{shown}");
    }
}

/// Both begin in the best manner; that one of them changed it must not cost the other its second try.
#[tokio::test]
async fn of_two_servers_that_are_tried_beside_each_other_each_has_its_second_try() {
    let scene = Scene::new(Side::Partner, true, Pace::Quick, Quirks::default()).await;
    let config = scene.context.config();
    let purpose = Purpose::Stanzas(scene.route.pair.clone());
    let deadline = Instant::now() + GENEROUS;
    let mut walk = Walk::new(
        &scene.context,
        &config,
        Side::Partner,
        &purpose,
        None,
        deadline,
    );
    let (condition, text) = (|word: &str| word.to_owned(), String::new);
    let began = walk.manner;
    for fault in [
        Fault::SaslRejected {
            condition: condition("not-authorized"),
            text: text(),
            ended: true,
        },
        Fault::BidiRejected {
            condition: condition("bad-format"),
            text: text(),
        },
        Fault::AcksRejected {
            condition: condition("bad-format"),
            text: text(),
        },
        Fault::PeerError {
            condition: condition("host-unknown"),
            text: text(),
        },
        Fault::TlsFailed {
            label: "TlsAlert",
            text: text(),
        },
    ] {
        for _ in 0..2 {
            assert!(walk.changes_manner(began, &fault), "{fault:?}");
        }
        assert!(!walk.changes_manner(walk.manner, &fault), "{fault:?}");
    }
    assert_eq!(walk.manner.proof, OwnProof::DialbackWithoutCertificate);
}

/// On a stream of ours the peer is authenticated before its acks are agreed on: its stanzas have the limits
/// of one that is, and a faulty one costs itself.
#[tokio::test]
async fn what_a_peer_sends_before_its_acks_are_agreed_on_has_the_limits_of_an_authenticated_one() {
    let stanza = |id: &str, more: &str, body: &str| {
        format!(
            "<message from='b@bücher.example/x' to='a@org.example' type='chat' id='{id}'{more}>\
             <body>{body}</body></message>"
        )
    };
    let attributes: String = (0..65).map(|number| format!(" a{number}=''")).collect();
    let quirks = Quirks {
        acks: true,
        before_enabled: stanza("large", "", &"x".repeat(11_000))
            + &stanza("faulty", &attributes, "")
            + &stanza("small", "", "hello"),
        ..Quirks::default()
    };
    let mut scene = Scene::new(Side::Partner, true, Pace::Quick, quirks).await;
    let ticket = scene.asked().await;
    let stream = scene.walk(&ticket).await.expect("it stands");
    assert_eq!(scene.answers(), 2, "both good ones came");
    drop(stream);
    ticket.done();
    assert_eq!(
        scene
            .server
            .connections
            .load(std::sync::atomic::Ordering::SeqCst),
        1
    );
}

fn ending() -> impl Strategy<Value = Ending> {
    prop::sample::select(ENDINGS.to_vec())
}

fn quirks() -> impl Strategy<Value = Quirks> {
    let external = prop_oneof![Just(At::External), Just(At::ExternalTaken)];
    let bidi = prop_oneof![Just(At::Bidi), Just(At::BidiTaken), Just(At::BidiStanza)];
    let before = prop_oneof![
        Just(Before::Header),
        Just(Before::Nothing),
        Just(Before::Declaration),
        Just(Before::OtherPrefix),
    ];
    (
        prop::option::of((external, ending())),
        prop::option::of((bidi, ending())),
        prop::option::of((Just(At::Acks), ending())),
        prop::option::of(before),
        prop::bool::weighted(0.2),
        any::<bool>(),
    )
        .prop_map(
            |(external, bidi, acks, hosts_ascii, refuses_certificate, has_acks)| Quirks {
                breaks: [external, bidi, acks].into_iter().flatten().collect(),
                refuses_certificate,
                hosts_ascii,
                acks: has_acks,
                before_enabled: String::new(),
            },
        )
}

/// A server that breaks at any steps, quick or slow: every fallback that the configuration allows is tried,
/// in one walk, and what waits is delivered once where any way works.
#[test]
fn whatever_a_server_breaks_over_the_way_that_works_is_found_in_one_walk() {
    let runtime = Runtime::new().unwrap();
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 40,
        max_shrink_iters: 32,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let sides = prop::sample::select(vec![Side::Partner, Side::Gateway]);
    let paces = prop::sample::select(PACES.to_vec());
    let cases = (quirks(), sides, paces, any::<bool>());
    let outcome = runner.run(&cases, |(quirks, side, pace, dialback)| {
        runtime.block_on(holds(quirks, side, pace, dialback));
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

async fn holds(mut quirks: Quirks, side: Side, pace: Pace, dialback: bool) {
    if side == Side::Gateway {
        // The name of ours has one form.
        quirks.hosts_ascii = None;
    }
    let over = |at| quirks.breaks.iter().any(|(own, _)| *own == at);
    let needs_dialback =
        over(At::External) || over(At::ExternalTaken) || quirks.refuses_certificate;
    let stood = over(At::BidiTaken) || over(At::BidiStanza);
    let mut scene = Scene::new(side, dialback, pace, quirks).await;
    if needs_dialback && !dialback {
        let ticket = scene.asked().await;
        assert!(scene.walk(&ticket).await.is_err(), "there is no way");
        ticket.done();
        return;
    }
    // Over bidi it may break once the stream stands: that takes another walk.
    let walks = scene.delivers().await;
    assert!(walks <= 1 + usize::from(stood), "{walks} walks");
}
