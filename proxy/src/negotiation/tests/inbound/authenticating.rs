//! EXTERNAL and dialback keys: who proves what, pair by pair.

use super::*;

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

/// S-13: a stranger's names are looked up and dialled; what came of it is told to those alone who have
/// proved something.
#[test]
fn how_an_authoritative_server_failed_is_told_to_who_is_authenticated_alone() {
    let failures: [(_, &'static [&'static str]); 5] = [
        (Unavailable::NotFound, &["<remote-server-not-found "]),
        (
            Unavailable::ConnectionFailed,
            &["<remote-connection-failed "],
        ),
        (Unavailable::TimedOut, &["<remote-server-timeout "]),
        (Unavailable::Refused, &["<remote-connection-failed "]),
        (Unavailable::Policy, &["<policy-violation "]),
    ];
    for (why, condition) in failures {
        let mut stranger = direct(&[TlsDialback], "");
        stranger.hear(OPEN.as_bytes());
        stranger.hear(RESULT.as_bytes());
        stranger.take();
        run(
            &format!("{why:?} to a stranger"),
            stranger,
            &[
                Says(1, KeyVerification::Unavailable(why)),
                Sees(&[
                    "<db:result from='org.example' to='partner.example' type='error'><error type='wait'><remote-connection-failed ",
                ]),
            ],
        );
        run(
            &format!("{why:?} to a partner"),
            dialed_back(),
            &[
                Peer("<db:result from='second.example' to='org.example'>k</db:result>"),
                Says(2, KeyVerification::Unavailable(why)),
                Sees(condition),
            ],
        );
    }
}

/// D-02 to D-06, D-12, D-24: the receiving server.
#[test]
fn a_key_is_judged_by_the_authoritative_server_alone() {
    let table: &[(&str, KeyVerification, &[&str], &[&str])] = &[
        (
            "D-02",
            KeyVerification::Valid,
            &[
                "<db:result from='org.example' to='partner.example' type='valid'/>",
                "[authenticated partner.example to org.example TlsDialback]",
            ],
            &["close"],
        ),
        (
            "D-03",
            KeyVerification::Invalid,
            &[
                "<db:result from='org.example' to='partner.example' type='invalid'/>",
                "</stream:stream>",
                "[close DialbackFailed]",
            ],
            &["[authenticated"],
        ),
        (
            "D-04 connection",
            KeyVerification::Unavailable(Unavailable::ConnectionFailed),
            &["type='error'><error type='wait'><remote-connection-failed "],
            &["close", "[authenticated"],
        ),
        (
            "D-04 no address: a stranger does not learn it",
            KeyVerification::Unavailable(Unavailable::NotFound),
            &["type='error'><error type='wait'><remote-connection-failed "],
            &["close", "[authenticated"],
        ),
        (
            "D-04 timeout: nor this",
            KeyVerification::Unavailable(Unavailable::TimedOut),
            &["type='error'><error type='wait'><remote-connection-failed "],
            &["close", "[authenticated"],
        ),
        (
            "D-21",
            KeyVerification::Unavailable(Unavailable::Busy),
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
                Says(1, KeyVerification::Valid),
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
            Says(1, KeyVerification::Unavailable(Unavailable::TimedOut)),
            Sees(&["<remote-connection-failed "]),
            Peer(RESULT),
            Sees(&["[verify 2 "]),
            Says(2, KeyVerification::Valid),
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
        &[
            Peer(RESULT),
            Sees(&["type='valid'"]),
            Lacks(&["[verify", "[authenticated"]),
            Says(1, KeyVerification::Invalid),
            Quiet,
        ],
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
            Says(2, KeyVerification::Invalid),
            Sees(&["type='invalid'"]),
            Lacks(&["close"]),
            Peer("<db:result from='second.example' to='org.example'>k3</db:result>"),
            Sees(&["[verify 3"]),
            Says(3, KeyVerification::Valid),
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
            Says(2, KeyVerification::Valid),
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
    for (lists, most) in [(false, MAX_PENDING), (true, MAX_PAIRS)] {
        let mut world = World::new(&[TlsDialback], &names);
        world.lists = lists;
        let mut talk = Talk::inbound(world, shows(""));
        talk.hear(OPEN.as_bytes());
        for domain in &domains {
            let result = format!("<db:result from='{domain}' to='org.example'>k</db:result>");
            talk.hear(result.as_bytes());
        }
        let text = talk.take();
        assert_eq!(text.matches("[verify ").count(), most, "D-20");
        let refused = text.matches("<resource-constraint ").count();
        assert_eq!(refused, 1000 - most, "D-20");
        assert!(!text.contains("[close"), "D-20");
    }
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
