//! What a peer that opens a stream is answered.

use super::{
    Line::{Add, Change, End, Lacks, Peer, Probe, Quiet, Sees, TimedOut, Tls, Verdict as Says},
    *,
};

const OPEN: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' \
    xmlns:stream='http://etherx.jabber.org/streams' from='partner.example' to='org.example' version='1.0'>";
const OPEN_WITHOUT_FROM: &str = "<stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' \
    xmlns:stream='http://etherx.jabber.org/streams' to='org.example' version='1.0'>";
const OPEN_OLD: &str = "<stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' \
    xmlns:stream='http://etherx.jabber.org/streams' from='partner.example' to='org.example'>";
const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const EXTERNAL: &str =
    "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>";
const RESULT: &str = "<db:result from='partner.example' to='org.example'>key</db:result>";
const MESSAGE: &str =
    "<message from='a@partner.example' to='alice@org.example'><body>x</body></message>";
const BIDI: &str = "<bidi xmlns='urn:xmpp:bidi'/>";
const OFFERS_EXTERNAL: &str = "<mechanism>EXTERNAL</mechanism>";
const OFFERS_DIALBACK: &str = "<dialback xmlns='urn:xmpp:features:dialback'><errors/></dialback>";

fn plain(methods: &[Method]) -> Talk {
    Talk::inbound(
        World::new(methods, &[PARTNER, "second.example"]),
        Link::Plain,
    )
}

fn direct(methods: &[Method], names: &str) -> Talk {
    Talk::inbound(
        World::new(methods, &[PARTNER, "second.example"]),
        Link::DirectTls(facts(names)),
    )
}

/// A stream authenticated by EXTERNAL, its output up to there dropped.
fn external(methods: &[Method]) -> Talk {
    let mut talk = direct(methods, PARTNER);
    talk.hear(OPEN.as_bytes());
    talk.hear(EXTERNAL.as_bytes());
    talk.hear(OPEN.as_bytes());
    assert!(
        talk.take()
            .contains("[authenticated partner.example to org.example SaslOverTls]")
    );
    talk
}

/// A stream authenticated by dialback inside TLS.
fn dialed_back() -> Talk {
    let mut talk = direct(&[TlsDialback], "");
    talk.hear(OPEN.as_bytes());
    talk.hear(RESULT.as_bytes());
    talk.give(Input::Verdict {
        request: 1,
        verdict: Verdict::Valid,
    });
    assert!(
        talk.take()
            .contains("[authenticated partner.example to org.example TlsDialback]")
    );
    talk
}

/// P-05: header faults.
#[test]
fn a_bad_header_is_answered_by_our_header_then_the_error() {
    let header = |attributes: &str| {
        format!(
            "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' {attributes}>"
        )
    };
    for (attributes, condition) in [
        (
            "xmlns:x='urn:x' from='partner.example' to='nowhere.example' version='1.0'",
            "<host-unknown ",
        ),
        (
            "from='partner.example' version='1.0'",
            "<improper-addressing ",
        ),
        (
            "from='partner.example' to='not a domain' version='1.0'",
            "<improper-addressing ",
        ),
        (
            "from='partner.example' to='alice@org.example' version='1.0'",
            "<improper-addressing ",
        ),
        (
            "from='a b' to='org.example' version='1.0'",
            "<invalid-from ",
        ),
        (
            "from='stranger.example' to='org.example' version='1.0'",
            "<policy-violation ",
        ),
        ("to='nowhere.example' version='1.0'", "<host-unknown "),
        (
            "from='partner.example' to='org.example' version='one'",
            "<unsupported-version ",
        ),
        (
            "from='partner.example' to='org.example'",
            "<unsupported-version ",
        ),
    ] {
        for link in [Link::Plain, Link::DirectTls(facts(PARTNER))] {
            let mut talk = Talk::inbound(World::new(&[SaslOverTls], &[PARTNER]), link);
            talk.hear(header(attributes).as_bytes());
            let text = talk.take();
            let ours = text.find("<stream:stream ").expect(attributes);
            let error = text
                .find(condition)
                .unwrap_or_else(|| panic!("{attributes}: {text}"));
            assert!(
                ours < error && text.contains("</stream:stream>[close "),
                "{text}"
            );
            assert!(!text.contains("features"), "{text}");
        }
    }
    let client = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='org.example' version='1.0'>";
    run(
        "X-01",
        plain(&[SaslOverTls]),
        &[
            Peer(client),
            Sees(&[
                "<stream:stream ",
                "<invalid-namespace ",
                "[close ContentNamespace]",
            ]),
        ],
    );
}

#[test]
fn our_header_has_all_its_attributes_and_a_fresh_id() {
    run(
        "header",
        plain(&[SaslOverTls]),
        &[
            Peer(OPEN),
            Sees(&[
                "<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' \
             xmlns:db='jabber:server:dialback' xml:lang='en' id='id1' from='org.example' to='partner.example' version='1.0'>",
            ]),
            Peer(STARTTLS),
            Tls(PARTNER),
            Peer(OPEN),
            Sees(&["[tls org.example]", " id='id2' "]),
            Peer(EXTERNAL),
            Peer(OPEN),
            Sees(&["<success ", "[restart]", " id='id3' "]),
        ],
    );
    run(
        "X-03: a later version is answered with 1.0",
        plain(&[SaslOverTls]),
        &[
            Peer(
                "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' from='partner.example' to='org.example' version='2.0'>",
            ),
            Sees(&["version='1.0'>", "<stream:features>"]),
        ],
    );
}

/// T-01, N-19, T-10, E-05, E-13, X-06: what is offered when.
#[test]
fn features_are_what_the_methods_allow() {
    const ONLY_TLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>";
    for methods in [
        &[SaslOverTls][..],
        &[TlsDialback],
        &[SaslOverTls, TlsDialback],
    ] {
        run(
            "T-01",
            plain(methods),
            &[
                Peer(OPEN),
                Sees(&["<stream:features>", ONLY_TLS]),
                Lacks(&["EXTERNAL", "dialback'>", "bidi"]),
            ],
        );
    }
    run(
        "TLS optional",
        plain(&[SaslOverTls, TlsDialback, TcpDialback]),
        &[
            Peer(OPEN),
            Sees(&[
                "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
                OFFERS_DIALBACK,
                "<max-bytes>262144</max-bytes>",
            ]),
            Lacks(&["EXTERNAL", "bidi", "required"]),
        ],
    );
    run(
        "N-19",
        plain(&[TcpDialback]),
        &[
            Peer(OPEN),
            Sees(&[OFFERS_DIALBACK]),
            Lacks(&["starttls"]),
            Peer(STARTTLS),
            Sees(&[
                "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>",
                "[close TlsNotSupported]",
            ]),
            Lacks(&["proceed", "[tls"]),
        ],
    );
    run(
        "T-10",
        direct(&[SaslOverTls, TlsDialback], PARTNER),
        &[
            Peer(OPEN),
            Sees(&[
                "[step Certificate Ok]",
                OFFERS_EXTERNAL,
                "urn:xmpp:features:bidi",
                OFFERS_DIALBACK,
            ]),
            Lacks(&["starttls"]),
        ],
    );
    run(
        "no dialback where it is not allowed",
        direct(&[SaslOverTls], PARTNER),
        &[
            Peer(OPEN),
            Sees(&[OFFERS_EXTERNAL]),
            Lacks(&["features:dialback"]),
        ],
    );
    for names in ["", "other.example"] {
        run(
            "E-05, E-13: dialback is left",
            direct(&[SaslOverTls, TlsDialback], names),
            &[
                Peer(OPEN),
                Sees(&["[step Certificate N", OFFERS_DIALBACK]),
                Lacks(&["EXTERNAL"]),
                Peer(EXTERNAL),
                Sees(&["<invalid-mechanism/>"]),
                Lacks(&["success"]),
            ],
        );
    }
    run(
        "E-05: nothing is left",
        direct(&[SaslOverTls], "other.example"),
        &[
            Peer(OPEN),
            Sees(&[
                "<stream:stream ",
                "<not-authorized ",
                "expected partner.example, found other.example",
                "[close NameMismatch]",
            ]),
            Lacks(&["features"]),
        ],
    );
    run(
        "X-06",
        direct(&[SaslOverTls, TlsDialback], PARTNER),
        &[
            Peer(OPEN_WITHOUT_FROM),
            Sees(&["<stream:features>"]),
            Lacks(&["EXTERNAL"]),
            Peer(
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>cGFydG5lci5leGFtcGxl</auth>",
            ),
            Sees(&["<invalid-mechanism/>"]),
        ],
    );
    run(
        "TLS NotSupported means never",
        direct(&[TcpDialback], PARTNER),
        &[
            Peer(OPEN),
            Sees(&["<policy-violation ", "[close TlsNotSupported]"]),
        ],
    );
}

/// peers older than 1.0.
#[test]
fn a_peer_without_version_gets_dialback_or_nothing() {
    run(
        "plaintext",
        plain(&[TcpDialback]),
        &[
            Peer(OPEN_OLD),
            Sees(&["<stream:stream "]),
            Lacks(&["version='1.0'>", "features"]),
            Peer(RESULT),
            Sees(&["[verify 1 partner.example to org.example id1 key]"]),
        ],
    );
    run(
        "inside TLS",
        direct(&[TlsDialback], ""),
        &[Peer(OPEN_OLD), Peer(RESULT), Sees(&["[verify 1 "])],
    );
    run(
        "TLS is missing",
        plain(&[SaslOverTls, TlsDialback]),
        &[
            Peer(OPEN_OLD),
            Sees(&["<unsupported-version ", "[close UnsupportedVersion]"]),
        ],
    );
}

/// T-02, D-06, D-13: before authentication nothing passes.
#[test]
fn what_comes_before_its_time_is_refused() {
    for early in [
        MESSAGE,
        EXTERNAL,
        "<foo xmlns='jabber:server'/>",
        "<foo xmlns='urn:x'/>",
    ] {
        run(
            "T-02",
            plain(&[SaslOverTls]),
            &[
                Peer(OPEN),
                Peer(early),
                Sees(&[
                    "<policy-violation ",
                    "TLS is required",
                    "[close TlsRequired]",
                ]),
            ],
        );
    }
    run(
        "T-02, D-06",
        plain(&[SaslOverTls, TlsDialback]),
        &[
            Peer(OPEN),
            Peer(RESULT),
            Sees(&[
                "<db:result from='org.example' to='partner.example' type='error'>",
                "<policy-violation ",
                "</stream:stream>",
                "[close TlsRequired]",
            ]),
            Lacks(&["[verify"]),
        ],
    );
    run(
        "a question needs TLS too",
        plain(&[TlsDialback]),
        &[
            Peer(OPEN),
            Peer("<db:verify from='partner.example' to='org.example' id='x'>k</db:verify>"),
            Sees(&[
                "<db:verify from='org.example' to='partner.example' id='x' type='error'>",
                "<policy-violation ",
                "[close TlsRequired]",
            ]),
        ],
    );
    run(
        "D-13",
        direct(&[TlsDialback], ""),
        &[
            Peer(OPEN),
            Peer(RESULT),
            Peer(MESSAGE),
            Sees(&["[verify 1", "<not-authorized ", "[close NotAuthorized]"]),
        ],
    );
    run(
        "a verdict after the end",
        direct(&[TlsDialback], ""),
        &[
            Peer(OPEN),
            Peer(RESULT),
            Peer(MESSAGE),
            Sees(&["[close NotAuthorized]"]),
            Says(1, Verdict::Valid),
            Quiet,
        ],
    );
}

/// T-03, T-07, T-08.
#[test]
fn nothing_from_before_tls_counts_after_it() {
    run(
        "T-03",
        plain(&[SaslOverTls, TlsDialback, TcpDialback]),
        &[
            Peer(OPEN),
            Peer(
                "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><db:result from='partner.example' to='org.example'>injected</db:result>",
            ),
            Sees(&["<proceed ", "[tls org.example]"]),
            Lacks(&["verify"]),
            Tls(PARTNER),
            Quiet,
            Peer(OPEN),
            Sees(&[" id='id2' ", OFFERS_EXTERNAL]),
            Lacks(&["starttls"]),
            Peer(STARTTLS),
            Sees(&["<unsupported-stanza-type ", "[close UnexpectedElement]"]),
        ],
    );
    run(
        "plaintext dialback then TLS",
        plain(&[TlsDialback, TcpDialback]),
        &[
            Peer(OPEN),
            Peer(RESULT),
            Peer(STARTTLS),
            Sees(&["[verify 1", "[close UnexpectedElement]"]),
        ],
    );
    run(
        "the handshake fails",
        plain(&[SaslOverTls]),
        &[
            Peer(OPEN),
            Peer(STARTTLS),
            Sees(&["<proceed "]),
            TimedOut,
            Sees(&["[close EstablishmentTimeout]"]),
            Lacks(&["<"]),
        ],
    );
}

///
#[test]
fn the_domains_of_a_stream_do_not_change_when_it_restarts() {
    const OTHER_FROM: &str = "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' from='second.example' to='org.example' version='1.0'>";
    const OTHER_TO: &str = "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' from='partner.example' to='org2.example' version='1.0'>";
    const TO_NOBODY: &str = "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' from='partner.example' to='nowhere.example' version='1.0'>";
    for (open, sees) in [
        (OTHER_FROM, &["<invalid-from ", "[close FromChanged]"]),
        (OTHER_TO, &["<not-authorized ", "[close ToChanged]"]),
        (TO_NOBODY, &["<host-unknown ", "[close HostUnknown]"]),
    ] {
        run(
            "after TLS",
            plain(&[SaslOverTls]),
            &[
                Peer(OPEN),
                Peer(STARTTLS),
                Tls("partner.example,second.example"),
                Peer(open),
                Sees(sees),
                Lacks(&["EXTERNAL"]),
            ],
        );
        run(
            "after SASL",
            direct(&[SaslOverTls], "partner.example,second.example"),
            &[
                Peer(OPEN),
                Peer(EXTERNAL),
                Peer(open),
                Sees(sees),
                Lacks(&["[authenticated"]),
            ],
        );
    }
    run(
        "'from' may come with TLS",
        plain(&[SaslOverTls, TcpDialback]),
        &[
            Peer(OPEN_WITHOUT_FROM),
            Peer(STARTTLS),
            Tls(PARTNER),
            Peer(OPEN),
            Sees(&[OFFERS_EXTERNAL]),
        ],
    );
    run(
        "and left out it stays",
        direct(&[SaslOverTls], PARTNER),
        &[
            Peer(OPEN),
            Peer(EXTERNAL),
            Peer(OPEN_WITHOUT_FROM),
            Sees(&["[authenticated partner.example to org.example SaslOverTls]"]),
        ],
    );
    run(
        "a header inside a stream",
        external(&[SaslOverTls]),
        &[Peer(OPEN), Sees(&["[close "])],
    );
}

/// E-01, E-15, N-20.
#[test]
fn external_authenticates_the_stream_s_pair() {
    run(
        "E-01",
        direct(&[SaslOverTls, TlsDialback], PARTNER),
        &[
            Peer(OPEN),
            Peer(EXTERNAL),
            Sees(&[
                "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
                "[restart]",
            ]),
            Lacks(&["[authenticated"]),
            Peer(OPEN),
            Sees(&[
                "<stream:features>",
                OFFERS_DIALBACK,
                "<sm xmlns='urn:xmpp:sm:3'/>",
                "<max-bytes>262144</max-bytes><idle-seconds>600</idle-seconds>",
                "[authenticated partner.example to org.example SaslOverTls]",
            ]),
            Lacks(&["mechanisms", "bidi", "starttls"]),
        ],
    );
    let abort = "<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>";
    let wrong = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGEAYg==</auth>";
    run(
        "E-15",
        direct(&[SaslOverTls], PARTNER),
        &[
            Peer(OPEN),
            Peer(abort),
            Sees(&["<aborted/>"]),
            Lacks(&["close"]),
            Peer(wrong),
            Sees(&["<invalid-mechanism/>"]),
            Lacks(&["close"]),
            Peer(wrong),
            Sees(&[
                "<invalid-mechanism/>",
                "<policy-violation ",
                "[close TooManySaslFailures]",
            ]),
        ],
    );
    run(
        "a failure can be made good",
        direct(&[SaslOverTls], PARTNER),
        &[
            Peer(OPEN),
            Peer(wrong),
            Peer(EXTERNAL),
            Sees(&["<invalid-mechanism/>", "<success "]),
        ],
    );
    run(
        "once is enough",
        external(&[SaslOverTls]),
        &[Peer(EXTERNAL), Sees(&["[close UnexpectedElement]"])],
    );
}

/// D-02 to D-06, D-12, D-24: the receiving server.
#[test]
fn a_key_is_judged_by_the_authoritative_server_alone() {
    let table: &[(&str, Verdict, &[&str], &[&str])] = &[
        (
            "D-02",
            Verdict::Valid,
            &[
                "<db:result from='org.example' to='partner.example' type='valid'/>",
                "[authenticated partner.example to org.example TlsDialback]",
            ],
            &["close"],
        ),
        (
            "D-03",
            Verdict::Invalid,
            &[
                "<db:result from='org.example' to='partner.example' type='invalid'/>",
                "</stream:stream>",
                "[close DialbackFailed]",
            ],
            &["[authenticated"],
        ),
        (
            "D-04 connection",
            Verdict::Unavailable(Unavailable::ConnectionFailed),
            &["type='error'><error type='wait'><remote-connection-failed "],
            &["close", "[authenticated"],
        ),
        (
            "D-04 no address",
            Verdict::Unavailable(Unavailable::NotFound),
            &["<remote-server-not-found "],
            &["close", "[authenticated"],
        ),
        (
            "D-04 timeout",
            Verdict::Unavailable(Unavailable::TimedOut),
            &["<remote-server-timeout "],
            &["close", "[authenticated"],
        ),
        (
            "D-21",
            Verdict::Unavailable(Unavailable::Busy),
            &["<resource-constraint "],
            &["close", "[authenticated"],
        ),
    ];
    for (name, verdict, sees, lacks) in table {
        let mut talk = direct(&[TlsDialback], "");
        talk.hear(OPEN.as_bytes());
        talk.hear(RESULT.as_bytes());
        assert!(
            talk.take()
                .contains("[verify 1 partner.example to org.example id1 key]"),
            "{name}"
        );
        run(
            name,
            talk,
            &[
                Says(1, verdict.clone()),
                Sees(sees),
                Lacks(lacks),
                Says(1, Verdict::Valid),
                Quiet,
            ],
        );
    }
    run(
        "D-04: the stream can be used again",
        direct(&[TlsDialback], ""),
        &[
            Peer(OPEN),
            Peer(RESULT),
            Says(1, Verdict::Unavailable(Unavailable::TimedOut)),
            Sees(&["<remote-server-timeout "]),
            Peer(RESULT),
            Sees(&["[verify 2 "]),
            Says(2, Verdict::Valid),
            Sees(&["[authenticated"]),
        ],
    );
    run(
        "D-12 while pending",
        direct(&[TlsDialback], ""),
        &[
            Peer(OPEN),
            Peer(RESULT),
            Sees(&["[verify 1"]),
            Peer(RESULT),
            Quiet,
        ],
    );
    run(
        "D-12 when authenticated",
        dialed_back(),
        &[Peer(RESULT), Quiet, Says(1, Verdict::Invalid), Quiet],
    );
    run(
        "D-24",
        direct(&[SaslOverTls], PARTNER),
        &[
            Peer(OPEN),
            Peer(RESULT),
            Sees(&["type='error'", "<policy-violation "]),
            Lacks(&["[verify", "close"]),
        ],
    );
    run(
        "an empty key",
        direct(&[TlsDialback], ""),
        &[
            Peer(OPEN),
            Peer("<db:result from='partner.example' to='org.example'/>"),
            Sees(&["<bad-request "]),
            Lacks(&["[verify"]),
        ],
    );
    run(
        "the partner is suspended meanwhile",
        direct(&[TlsDialback], ""),
        &[
            Peer(OPEN),
            Peer(RESULT),
            Sees(&["[verify 1"]),
            Change(|world| world.peers.retain(|(peer, _)| *peer != domain(PARTNER))),
            Sees(&["<policy-violation ", "[close PartnerNotAllowed]"]),
        ],
    );
}

/// D-05, D-17, D-18, D-20, D-23: more pairs.
#[test]
fn further_pairs_are_judged_each_by_its_own() {
    run(
        "D-05",
        dialed_back(),
        &[
            Peer("<db:result from='partner.example' to='nowhere.example'>k</db:result>"),
            Sees(&[
                "<db:result from='nowhere.example' to='partner.example' type='error'>",
                "<item-not-found ",
            ]),
            Lacks(&["close", "[verify"]),
        ],
    );
    run(
        "P-05 on a live stream",
        dialed_back(),
        &[
            Peer("<db:result from='stranger.example' to='org.example'>k</db:result>"),
            Sees(&["<policy-violation ", "[step Policy PartnerNotAllowed]"]),
            Lacks(&["close", "[verify"]),
        ],
    );
    run(
        "D-17",
        dialed_back(),
        &[
            Peer("<db:result from='second.example' to='org.example'>k2</db:result>"),
            Sees(&["[verify 2 second.example to org.example id1 k2]"]),
            Says(2, Verdict::Invalid),
            Sees(&["type='invalid'"]),
            Lacks(&["close"]),
            Peer("<db:result from='second.example' to='org.example'>k3</db:result>"),
            Sees(&["[verify 3"]),
            Says(3, Verdict::Valid),
            Sees(&[
                "type='valid'",
                "[authenticated second.example to org.example TlsDialback]",
            ]),
        ],
    );
    run(
        "D-18, D-23: target, and another prefix",
        dialed_back(),
        &[
            Peer(
                "<x:result xmlns:x='jabber:server:dialback' from='partner.example' to='org2.example'>k</x:result>",
            ),
            Sees(&["[verify 2"]),
            Says(2, Verdict::Valid),
            Sees(&[
                "<db:result from='org2.example' to='partner.example' type='valid'/>",
                "[authenticated partner.example to org2.example TlsDialback]",
            ]),
        ],
    );
    let domains: Vec<String> = (0..1000)
        .map(|number| format!("p{number}.example"))
        .collect();
    let names: Vec<&str> = domains
        .iter()
        .map(String::as_str)
        .chain([PARTNER])
        .collect();
    let mut talk = Talk::inbound(
        World::new(&[TlsDialback], &names),
        Link::DirectTls(facts("")),
    );
    talk.hear(OPEN.as_bytes());
    for domain in &domains {
        talk.hear(format!("<db:result from='{domain}' to='org.example'>k</db:result>").as_bytes());
    }
    let text = talk.take();
    assert_eq!(text.matches("[verify ").count(), MAX_PENDING, "D-20");
    assert_eq!(
        text.matches("<resource-constraint ").count(),
        1000 - MAX_PENDING,
        "D-20"
    );
    assert!(!text.contains("[close"), "D-20");
}

/// D-08, D-09, D-14, D-25, D-26: the authoritative server, and what was never asked.
#[test]
fn keys_are_told_from_what_was_never_made_and_answers_from_what_was_never_asked() {
    for unsolicited in [
        "<db:result from='partner.example' to='org.example' type='valid'/>",
        "<db:verify from='partner.example' to='org.example' id='id1' type='valid'/>",
        "<db:result from='partner.example' to='org.example' type='invalid'/>",
        "<db:verify from='partner.example' to='org.example' type='error'/>",
    ] {
        let mut talk = direct(&[TlsDialback], "");
        talk.hear(OPEN.as_bytes());
        talk.take();
        talk.hear(unsolicited.as_bytes());
        assert_eq!(talk.take(), "", "D-08, D-09");
    }
    let key = dialback::Secret::new(SECRET, None).key(PARTNER, "org.example", "D60000229F");
    let ask = |from: &str, to: &str, id: &str, key: &str| {
        let mut talk = direct(&[SaslOverTls, TlsDialback], "");
        talk.hear(OPEN.as_bytes());
        talk.take();
        talk.hear(format!("<db:verify from='{from}' to='{to}' {id}>{key}</db:verify>").as_bytes());
        talk.take()
    };
    let good = "id='D60000229F'";
    for (from, to, id, key, expected) in [
        (
            PARTNER,
            "org.example",
            good,
            key.as_str(),
            "<db:verify from='org.example' to='partner.example' id='D60000229F' type='valid'/>",
        ),
        (
            PARTNER,
            "org.example",
            good,
            "0",
            "id='D60000229F' type='invalid'/>",
        ),
        (
            PARTNER,
            "org.example",
            "id='other'",
            key.as_str(),
            "type='invalid'/>",
        ),
        (
            PARTNER,
            "org2.example",
            good,
            key.as_str(),
            "type='invalid'/>",
        ),
        (
            "second.example",
            "org.example",
            good,
            key.as_str(),
            "type='invalid'/>",
        ),
        (
            PARTNER,
            "nowhere.example",
            good,
            key.as_str(),
            "<item-not-found ",
        ),
        (
            "stranger.example",
            "org.example",
            good,
            key.as_str(),
            "<policy-violation ",
        ),
        (PARTNER, "org.example", "", key.as_str(), "<bad-request "),
        (
            PARTNER,
            "org.example",
            "id=''",
            key.as_str(),
            "<bad-request ",
        ),
        (
            "partner.example org.example",
            "org.example",
            good,
            key.as_str(),
            "<improper-addressing ",
        ),
    ] {
        let text = ask(from, to, id, key);
        assert!(text.contains(expected), "{from} {to} {id}: {text}");
    }
}

/// P-01 to P-03, X-19, X-20, T-21.
#[test]
fn what_does_not_belong_on_an_authenticated_stream_ends_it() {
    for (bytes, sees) in [
        (
            "<message from='x@evil.example' to='alice@org.example'/>",
            "<invalid-from ",
        ),
        (
            "<message from='x@sub.partner.example' to='alice@org.example'/>",
            "<invalid-from ",
        ),
        ("<message to='alice@org.example'/>", "<improper-addressing "),
        (
            "<message from='@partner.example' to='alice@org.example'/>",
            "<improper-addressing ",
        ),
        (
            "<message from='a@partner.example'/>",
            "<improper-addressing ",
        ),
        (
            "<message from='a@partner.example' to='x@org2.example'/>",
            "<host-unknown ",
        ),
        ("<foo xmlns='jabber:server'/>", "<unsupported-stanza-type "),
        ("<foo xmlns='urn:x'/>", "<unsupported-stanza-type "),
        (
            "<a xmlns='urn:xmpp:sm:3' h='1'/>",
            "<unsupported-stanza-type ",
        ),
    ] {
        let mut talk = external(&[SaslOverTls]);
        talk.hear(bytes.as_bytes());
        let text = talk.take();
        assert!(
            text.contains(sees) && text.contains("[close "),
            "{bytes}: {text}"
        );
    }
    run(
        "T-21",
        external(&[SaslOverTls]),
        &[
            Peer(
                "<compress xmlns='http://jabber.org/protocol/compress'><method>zlib</method></compress>",
            ),
            Sees(&["<failure xmlns='http://jabber.org/protocol/compress'>"]),
            Lacks(&["close"]),
        ],
    );
}

///
#[test]
fn the_reverse_way_opens_only_with_the_peer_s_own_authentication() {
    run(
        "EXTERNAL",
        direct(&[SaslOverTls], PARTNER),
        &[
            Peer(OPEN),
            Peer(BIDI),
            Sees(&["[bidi]"]),
            Lacks(&["[ready"]),
            Peer(EXTERNAL),
            Sees(&["<success"]),
            Lacks(&["[ready"]),
            Peer(OPEN),
            Sees(&[
                "[authenticated partner.example to org.example SaslOverTls]",
                "[ready org.example to partner.example SaslOverTls]",
            ]),
            Add("org.example", "partner.example"),
            Quiet,
            Add("org2.example", "partner.example"),
            Sees(&["[failed org2.example to partner.example NotMultiplexable]"]),
        ],
    );
    run(
        "dialback",
        direct(&[TlsDialback], ""),
        &[
            Peer(OPEN),
            Peer(BIDI),
            Peer(RESULT),
            Sees(&["[bidi]", "[verify 1"]),
            Says(1, Verdict::Valid),
            Sees(&[
                "[authenticated",
                "[ready org.example to partner.example TlsDialback]",
            ]),
        ],
    );
    run("too late", external(&[SaslOverTls]), &[Peer(BIDI), Quiet]);
    run(
        "not offered in plaintext",
        plain(&[TcpDialback]),
        &[
            Peer(OPEN),
            Peer(BIDI),
            Peer(RESULT),
            Says(1, Verdict::Valid),
            Sees(&["[authenticated"]),
            Lacks(&["[bidi]", "[ready"]),
        ],
    );
    run(
        "asked for before TLS, not after",
        plain(&[TlsDialback, TcpDialback]),
        &[
            Peer(OPEN),
            Peer(BIDI),
            Peer(STARTTLS),
            Tls(PARTNER),
            Peer(OPEN),
            Peer(RESULT),
            Says(1, Verdict::Valid),
            Sees(&["[authenticated"]),
            Lacks(&["[ready"]),
        ],
    );
    run(
        "R-19",
        external(&[SaslOverTls]),
        &[
            Add("org.example", "partner.example"),
            Sees(&["[failed org.example to partner.example NotMultiplexable]"]),
        ],
    );
}

///
#[test]
fn acks_are_enabled_once_and_only_after_authentication() {
    run(
        "sm:3",
        external(&[SaslOverTls]),
        &[
            Peer("<enable xmlns='urn:xmpp:sm:3' resume='true'/>"),
            Sees(&["<enabled xmlns='urn:xmpp:sm:3'/>", "[acks urn:xmpp:sm:3]"]),
            Lacks(&["resume"]),
            Peer("<r xmlns='urn:xmpp:sm:3'/><a xmlns='urn:xmpp:sm:3' h='7'/>"),
            Sees(&["[ack wanted]", "[acked 7]"]),
            Peer("<enable xmlns='urn:xmpp:sm:3'/>"),
            Sees(&["<failed xmlns='urn:xmpp:sm:3'><unexpected-request "]),
            Lacks(&["[acks", "close"]),
            Peer("<a xmlns='urn:xmpp:sm:3' h='no'/>"),
            Sees(&["[close UnexpectedElement]"]),
        ],
    );
    run(
        "sm:2",
        external(&[SaslOverTls]),
        &[
            Peer("<enable xmlns='urn:xmpp:sm:2'/>"),
            Sees(&["<enabled xmlns='urn:xmpp:sm:2'/>", "[acks urn:xmpp:sm:2]"]),
        ],
    );
    run(
        "early",
        direct(&[SaslOverTls], PARTNER),
        &[
            Peer(OPEN),
            Peer("<enable xmlns='urn:xmpp:sm:3'/>"),
            Sees(&["<failed ", "<unexpected-request "]),
            Lacks(&["[acks"]),
        ],
    );
    run(
        "no resumption",
        external(&[SaslOverTls]),
        &[
            Peer("<resume xmlns='urn:xmpp:sm:3' h='1' previd='x'/>"),
            Sees(&["<failed ", "<item-not-found "]),
            Lacks(&["close"]),
        ],
    );
}

#[test]
fn a_pair_that_becomes_forbidden_closes_its_stream() {
    fn without_external(world: &mut World) {
        for (_, methods) in &mut world.peers {
            *methods = MethodSet::try_from(vec![TlsDialback]).unwrap();
        }
    }
    run(
        "the partner goes",
        external(&[SaslOverTls]),
        &[
            Change(|world| world.peers.clear()),
            Sees(&["<policy-violation ", "[close PartnerNotAllowed]"]),
        ],
    );
    run(
        "the method goes",
        external(&[SaslOverTls]),
        &[Change(without_external), Sees(&["[close NoUsableMethod]"])],
    );
    run(
        "the trust goes",
        external(&[SaslOverTls]),
        &[
            Change(|world| world.distrust = true),
            Sees(&["<not-authorized ", "[close UnknownIssuer]"]),
        ],
    );
    run(
        "P-08",
        plain(&[TcpDialback]),
        &[
            Peer(OPEN),
            Peer(RESULT),
            Says(1, Verdict::Valid),
            Sees(&["[authenticated"]),
            Change(without_external),
            Sees(&["<policy-violation ", "[close TlsRequired]"]),
        ],
    );
    run(
        "nothing changed",
        external(&[SaslOverTls]),
        &[Change(|_| {}), Quiet],
    );
    run(
        "an offer is withdrawn",
        direct(&[SaslOverTls], PARTNER),
        &[
            Peer(OPEN),
            Change(without_external),
            Peer(EXTERNAL),
            Sees(&["<invalid-mechanism/>"]),
            Lacks(&["success"]),
        ],
    );
    run(
        "between success and header",
        direct(&[SaslOverTls], PARTNER),
        &[
            Peer(OPEN),
            Peer(EXTERNAL),
            Change(without_external),
            Peer(OPEN),
            Sees(&["[close "]),
            Lacks(&["[authenticated"]),
        ],
    );
}

#[test]
fn ends_are_in_full_in_every_state() {
    run(
        "X-22",
        external(&[SaslOverTls]),
        &[
            Peer("</stream:stream>"),
            Sees(&["</stream:stream>[close PeerClosed]"]),
            Lacks(&["error"]),
        ],
    );
    run(
        "shutdown",
        external(&[SaslOverTls]),
        &[
            End(Fault::Shutdown),
            Sees(&["<system-shutdown ", "</stream:stream>", "[close Shutdown]"]),
        ],
    );
    run(
        "silence",
        plain(&[SaslOverTls]),
        &[
            TimedOut,
            Sees(&[
                "<stream:stream ",
                "<connection-timeout ",
                "</stream:stream>",
            ]),
        ],
    );
    run(
        "bad XML first",
        plain(&[SaslOverTls]),
        &[
            Peer("<!DOCTYPE x>"),
            Sees(&["<stream:stream ", "<restricted-xml ", "</stream:stream>"]),
        ],
    );
    run(
        "order",
        external(&[SaslOverTls]),
        &[
            End(Fault::Done),
            Sees(&["</stream:stream>[close Ok]"]),
            Lacks(&["error"]),
            Peer(MESSAGE),
            Quiet,
        ],
    );
    run(
        "the peer's error",
        external(&[SaslOverTls]),
        &[
            Peer(
                "<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
            ),
            Sees(&["</stream:stream>[close PeerError]"]),
        ],
    );
    run(
        "probes are not for inbound streams",
        external(&[SaslOverTls]),
        &[Probe(1), Quiet],
    );
    run(
        "acks beyond what was sent",
        external(&[SaslOverTls]),
        &[
            End(Fault::HandledCountTooHigh {
                acknowledged: 9,
                sent: 1,
            }),
            Sees(&[
                "<undefined-condition ",
                "<handled-count-too-high xmlns='urn:xmpp:sm:3' h='9' send-count='1'/></stream:error>",
            ]),
        ],
    );
}
