//! A stream that stands: what belongs on it, the reverse way, acks, its end.

use super::*;

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

#[test]
fn s4_bidi_is_taken_in_the_namespace_of_its_feature_too() {
    run(
        "EXTERNAL",
        direct(&[SaslOverTls], PARTNER),
        &[
            Peer(OPEN),
            Peer("<bidi xmlns='urn:xmpp:features:bidi'/>"),
            Sees(&["[bidi]"]),
            Peer(EXTERNAL),
            Sees(&["<success"]),
        ],
    );
}

#[test]
fn a_stranger_limits_nothing_and_whoever_is_authenticated_does() {
    const LIMITS: &str = "<limits xmlns='urn:xmpp:stream-limits:0'>\
        <idle-seconds>18446744073709551615</idle-seconds></limits>";
    let heeded = &["[limits None Some(18446744073709551615)]"];
    run(
        "before TLS",
        plain(&[SaslOverTls, TcpDialback]),
        &[
            Peer(OPEN),
            Sees(&["<stream:features>"]),
            Peer(LIMITS),
            Quiet,
        ],
    );
    run(
        "before authentication",
        direct(&[SaslOverTls], PARTNER),
        &[
            Peer(OPEN),
            Sees(&["<stream:features>"]),
            Peer(LIMITS),
            Quiet,
        ],
    );
    run(
        "after",
        external(&[SaslOverTls]),
        &[Peer(LIMITS), Sees(heeded)],
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
            Says(1, KeyVerification::Valid),
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
            Says(1, KeyVerification::Valid),
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
            Says(1, KeyVerification::Valid),
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
            Says(1, KeyVerification::Valid),
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
        "the peer's error in the namespace of its condition",
        external(&[SaslOverTls]),
        &[
            Peer("<error xmlns='urn:ietf:params:xml:ns:xmpp-streams'><conflict/></error>"),
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

/// XEP-0220 section 2.1.1.
#[test]
fn a_key_for_a_pair_that_the_stream_carries_is_valid_at_once_and_grants_nothing() {
    for (name, talk) in [
        ("by dialback", dialed_back()),
        ("by EXTERNAL", external(&[SaslOverTls, TlsDialback])),
    ] {
        run(
            name,
            talk,
            &[
                Peer(RESULT),
                Sees(&["<db:result ", "type='valid'"]),
                Lacks(&["[verify", "[authenticated", "[step"]),
                Peer("<db:result from='second.example' to='org.example'>key</db:result>"),
                Sees(&["[verify "]),
            ],
        );
    }
    run(
        "while it is being verified, the answer is one",
        direct(&[TlsDialback], ""),
        &[
            Peer(OPEN),
            Peer(RESULT),
            Sees(&["[verify 1 "]),
            Peer(RESULT),
            Quiet,
            Says(1, KeyVerification::Valid),
            Sees(&["type='valid'", "[authenticated "]),
        ],
    );
}

/// S-01: names that nobody vouches for cost a stream at most ten answers.
#[test]
fn s_01_refused_keys_end_a_stream_on_which_nobody_is() {
    let key = |number: usize| {
        format!("<db:result from='n{number}.nobody.example' to='org.example'>k</db:result>")
    };
    for link in [direct(&[SaslOverTls], PARTNER), direct(&[TlsDialback], "")] {
        let mut talk = link;
        talk.hear(OPEN_WITHOUT_FROM.as_bytes());
        for number in 1..usize::from(MAX_REFUSED_KEYS) {
            talk.hear(key(number).as_bytes());
        }
        let text = talk.take();
        assert!(
            text.contains("policy-violation") && !text.contains("[close"),
            "{text}"
        );
        talk.hear(key(10).as_bytes());
        let text = talk.take();
        assert!(text.contains("[close TooManyRefusedKeys]"), "{text}");
    }
    // Questions about keys of ours count too.
    let mut talk = direct(&[TlsDialback], "");
    talk.hear(OPEN.as_bytes());
    talk.hear(
        "<db:verify from='nobody.example' to='org.example' id='1'>k</db:verify>"
            .repeat(10)
            .as_bytes(),
    );
    assert!(talk.take().contains("[close TooManyRefusedKeys]"));
    // Whoever is authenticated has his answers, each of them.
    let mut talk = dialed_back();
    for number in 0..20 {
        talk.hear(key(number).as_bytes());
    }
    let text = talk.take();
    assert!(
        !text.contains("[close") && text.matches("<db:result").count() == 20,
        "{text}"
    );
}

/// What a peer says is kept short: it goes into logs, status and errors.
#[test]
fn a_peer_s_text_is_cut_where_it_is_read() {
    let mut talk = external(&[SaslOverTls]);
    let long = "\u{e9}".repeat(2_000);
    talk.hear(
        format!(
            "<stream:error><reset xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
             <text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>{long}</text></stream:error>"
        )
        .as_bytes(),
    );
    let told = talk.outputs.iter().find_map(|output| match output {
        Output::Close(Fault::PeerError { text, .. }) => Some(text.chars().count()),
        _ => None,
    });
    assert_eq!(told, Some(300));
}
