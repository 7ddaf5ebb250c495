//! What the edge says on a stream that it opened.

use super::{
    Line::{Add, Change, End, Lacks, Peer, Probe, Quiet, Sees, TimedOut, Tls},
    *,
};

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' \
    xmlns:stream='http://etherx.jabber.org/streams' from='partner.example' to='org.example' id='peer1' version='1.0'>";
const HEADER_OLD: &str = "<stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' \
    xmlns:stream='http://etherx.jabber.org/streams' id='peer1'>";
const TLS: &str =
    "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:features>";
const TLS_REQUIRED: &str = "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>";
const PROCEED: &str = "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const NOTHING: &str = "<stream:features/>";
const EXTERNAL: &str = "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>EXTERNAL</mechanism>\
    </mechanisms></stream:features>";
const BOTH: &str = "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>EXTERNAL</mechanism>\
    </mechanisms><dialback xmlns='urn:xmpp:features:dialback'/><bidi xmlns='urn:xmpp:features:bidi'/></stream:features>";
const DIALBACK: &str =
    "<stream:features><dialback xmlns='urn:xmpp:features:dialback'/></stream:features>";
const DIALBACK_ERRORS: &str = "<stream:features><dialback xmlns='urn:xmpp:features:dialback'><errors/></dialback></stream:features>";
const SUCCESS: &str = "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>";
const SASL_FAILURE: &str =
    "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/><text>no</text></failure>";
const VALID: &str = "<db:result from='partner.example' to='org.example' type='valid'/>";

/// XEP-0185: receiving domain, sending domain, the peer's stream id.
fn key(to: &str, from: &str, id: &str) -> String {
    dialback::Secret::new(SECRET, None).key(to, from, id)
}

fn talk(methods: &[Method], link: Link) -> Talk {
    let world = World::new(
        methods,
        &[PARTNER, "second.example", "conference.partner.example"],
    );
    Talk::outbound(
        world,
        Purpose::Stanzas(pair("org.example", PARTNER)),
        link,
        false,
    )
}

fn plain(methods: &[Method]) -> Talk {
    talk(methods, Link::Plain)
}

fn direct(methods: &[Method], names: &str) -> Talk {
    talk(methods, Link::DirectTls(facts(names)))
}

fn established(methods: &[Method], names: &str, features: &str) -> Talk {
    let mut talk = direct(methods, names);
    talk.hear(HEADER.as_bytes());
    talk.hear(features.as_bytes());
    talk.hear(VALID.as_bytes());
    assert!(
        talk.take()
            .contains("[ready org.example to partner.example TlsDialback]")
    );
    talk
}

fn verifying(methods: &[Method], link: Link) -> Talk {
    let question = VerifyRequest {
        pair: pair(PARTNER, "org.example"),
        stream_id: "ours7".into(),
        key: "k&y".into(),
    };
    Talk::outbound(
        World::new(methods, &[PARTNER]),
        Purpose::Verify(question),
        link,
        false,
    )
}

#[test]
fn the_best_usable_method_wins() {
    run(
        "EXTERNAL by STARTTLS",
        plain(&[SaslOverTls, TlsDialback, TcpDialback]),
        &[
            Sees(&[
                "<?xml version='1.0'?><stream:stream ",
                " from='org.example' to='partner.example' version='1.0'>",
            ]),
            Peer(HEADER),
            Quiet,
            Peer(TLS),
            Sees(&["<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"]),
            Peer(PROCEED),
            Sees(&["[tls partner.example]"]),
            Tls(PARTNER),
            Sees(&["<stream:stream "]),
            Peer(HEADER),
            Peer(BOTH),
            Sees(&[
                "<bidi xmlns='urn:xmpp:bidi'/>",
                "[step Certificate Ok]",
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>b3JnLmV4YW1wbGU=</auth>",
            ]),
            Lacks(&["db:result"]),
            Peer(SUCCESS),
            Sees(&["[restart]", "<stream:stream "]),
            Lacks(&["[ready"]),
            Peer(HEADER),
            Peer(NOTHING),
            Sees(&[
                "[authenticated partner.example to org.example SaslOverTls]",
                "[ready org.example to partner.example SaslOverTls]",
            ]),
        ],
    );
    run(
        "T-10",
        direct(&[SaslOverTls], PARTNER),
        &[Peer(HEADER), Peer(EXTERNAL), Sees(&["<auth "])],
    );
    run(
        "dialback where EXTERNAL is not offered",
        direct(&[SaslOverTls, TlsDialback], PARTNER),
        &[
            Peer(HEADER),
            Peer(DIALBACK),
            Sees(&["<db:result from='org.example' to='partner.example'>"]),
            Peer(VALID),
            Sees(&["[ready org.example to partner.example TlsDialback]"]),
        ],
    );
    run(
        "dialback where the certificate does not verify, without bidi",
        direct(&[SaslOverTls, TlsDialback], "other.example"),
        &[
            Peer(HEADER),
            Peer(BOTH),
            Sees(&["[step Certificate NameMismatch]", "<db:result "]),
            Lacks(&["<auth", "<bidi"]),
        ],
    );
    run(
        "plaintext where there is nothing else",
        plain(&[SaslOverTls, TlsDialback, TcpDialback]),
        &[
            Peer(HEADER),
            Peer(DIALBACK),
            Sees(&["<db:result "]),
            Peer(VALID),
            Sees(&["[ready org.example to partner.example TcpDialback]"]),
        ],
    );
    run(
        "N-17",
        plain(&[TcpDialback]),
        &[
            Peer(HEADER),
            Peer(
                "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><dialback xmlns='urn:xmpp:features:dialback'/></stream:features>",
            ),
            Sees(&["<db:result "]),
            Lacks(&["<starttls"]),
        ],
    );
    run(
        "before 1.0",
        plain(&[TcpDialback]),
        &[Peer(HEADER_OLD), Sees(&["<db:result "])],
    );
    run(
        "EXTERNAL is never sent in plaintext",
        plain(&[SaslOverTls, TlsDialback, TcpDialback]),
        &[
            Peer(HEADER),
            Peer(BOTH),
            Sees(&["<db:result "]),
            Lacks(&["<auth", "<bidi"]),
        ],
    );
}

#[test]
fn the_key_is_that_of_the_stream_after_tls() {
    let mut talk = plain(&[TlsDialback]);
    talk.hear(HEADER.as_bytes());
    talk.hear(TLS_REQUIRED.as_bytes());
    talk.hear(PROCEED.as_bytes());
    talk.give(Input::TlsEstablished(facts("")));
    talk.hear(HEADER.replace("peer1", "peer2").as_bytes());
    talk.take();
    talk.hear(DIALBACK.as_bytes());
    let expected = format!(
        "<db:result from='org.example' to='partner.example'>{}</db:result>",
        key(PARTNER, "org.example", "peer2")
    );
    assert!(talk.take().contains(&expected));
}

/// T-05, T-06, E-16 and the rest: each cause has its name.
#[test]
fn what_cannot_be_had_safely_is_not_had() {
    run(
        "T-05",
        plain(&[SaslOverTls]),
        &[
            Peer(HEADER),
            Peer(DIALBACK),
            Sees(&[
                "<policy-violation ",
                "[failed org.example to partner.example TlsNotOffered]",
                "[close TlsNotOffered]",
            ]),
            Lacks(&["db:result"]),
        ],
    );
    run(
        "T-05 dialback",
        plain(&[TlsDialback]),
        &[
            Peer(HEADER),
            Peer(DIALBACK),
            Sees(&["[close TlsNotOffered]"]),
            Lacks(&["db:result"]),
        ],
    );
    run(
        "T-05 old",
        plain(&[TlsDialback]),
        &[
            Peer(HEADER_OLD),
            Sees(&["[close TlsNotOffered]"]),
            Lacks(&["db:result"]),
        ],
    );
    run(
        "T-06",
        plain(&[SaslOverTls, TlsDialback, TcpDialback]),
        &[
            Peer(HEADER),
            Peer(TLS),
            Peer("<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"),
            Sees(&["[close TlsRefused]"]),
            Lacks(&["db:result"]),
        ],
    );
    run(
        "a failed handshake does not lead to plaintext",
        plain(&[TlsDialback, TcpDialback]),
        &[
            Peer(HEADER),
            Peer(TLS),
            Peer(PROCEED),
            Sees(&["[tls"]),
            End(Fault::PeerClosed),
            Sees(&[
                "[failed org.example to partner.example PeerClosed]",
                "[close PeerClosed]",
            ]),
            Lacks(&["<"]),
        ],
    );
    run(
        "the peer requires TLS",
        plain(&[TcpDialback]),
        &[
            Peer(HEADER),
            Peer(TLS_REQUIRED),
            Sees(&["[close TlsRequiredByPeer]"]),
        ],
    );
    run(
        "E-16",
        direct(&[SaslOverTls], "other.example"),
        &[
            Peer(HEADER),
            Peer(BOTH),
            Sees(&[
                "<not-authorized ",
                "expected partner.example, found other.example",
                "[close NameMismatch]",
            ]),
            Lacks(&["<auth", "db:result"]),
        ],
    );
    run(
        "EXTERNAL missing",
        direct(&[SaslOverTls], PARTNER),
        &[
            Peer(HEADER),
            Peer(DIALBACK),
            Sees(&["[close ExternalNotOffered]"]),
        ],
    );
    run(
        "dialback missing",
        direct(&[TlsDialback], PARTNER),
        &[
            Peer(
                "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' id='x' version='1.0'>",
            ),
            Peer(EXTERNAL),
            Sees(&["[close NoUsableMethod]"]),
            Lacks(&["<auth"]),
        ],
    );
    run(
        "no id, no dialback",
        direct(&[TlsDialback], ""),
        &[
            Peer(
                "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' id='' version='1.0'>",
            ),
            Peer(DIALBACK),
            Sees(&["[close StreamIdMissing]"]),
        ],
    );
    run(
        "loop",
        plain(&[TcpDialback]),
        &[
            Peer(
                "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' id='id7' version='1.0'>",
            ),
            Sees(&["[step Policy Loop]", "[close Loop]"]),
        ],
    );
    let refused = Talk::outbound(
        World::new(&[SaslOverTls], &[]),
        Purpose::Stanzas(pair("org.example", PARTNER)),
        Link::Plain,
        false,
    );
    run(
        "refused before a byte",
        refused,
        &[
            Sees(&[
                "[failed org.example to partner.example PartnerNotAllowed]",
                "[close PartnerNotAllowed]",
            ]),
            Lacks(&["<"]),
        ],
    );
    run(
        "TLS NotSupported",
        direct(&[TcpDialback], PARTNER),
        &[Sees(&["[close TlsNotSupported]"]), Lacks(&["<"])],
    );
}

/// E-17.
#[test]
fn refused_external_falls_back_to_dialback_once() {
    run(
        "same stream",
        direct(&[SaslOverTls, TlsDialback], PARTNER),
        &[
            Peer(HEADER),
            Peer(BOTH),
            Sees(&["<auth "]),
            Peer(SASL_FAILURE),
            Sees(&["[step Sasl SaslRejected]", "<db:result "]),
            Lacks(&["<auth", "close"]),
            Peer(VALID),
            Sees(&["[ready org.example to partner.example TlsDialback]"]),
        ],
    );
    run(
        "the peer ends the stream",
        direct(&[SaslOverTls, TlsDialback], PARTNER),
        &[
            Peer(HEADER),
            Peer(BOTH),
            Peer(SASL_FAILURE),
            Peer("</stream:stream>"),
            Sees(&["[close SaslRejected]"]),
        ],
    );
    run(
        "by a stream error at once",
        direct(&[SaslOverTls, TlsDialback], PARTNER),
        &[
            Peer(HEADER),
            Peer(BOTH),
            Peer(
                "<stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
            ),
            Sees(&["[close SaslRejected]"]),
        ],
    );
    run(
        "dialback is not allowed",
        direct(&[SaslOverTls], PARTNER),
        &[
            Peer(HEADER),
            Peer(BOTH),
            Peer(SASL_FAILURE),
            Sees(&[
                "[failed org.example to partner.example SaslRejected]",
                "[close SaslRejected]",
            ]),
            Lacks(&["db:result"]),
        ],
    );
    run(
        "dialback is not offered",
        direct(&[SaslOverTls, TlsDialback], PARTNER),
        &[
            Peer(
                "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' id='x' version='1.0'>",
            ),
            Peer(EXTERNAL),
            Peer(SASL_FAILURE),
            Sees(&["[close SaslRejected]"]),
            Lacks(&["db:result"]),
        ],
    );
    let again = Talk::outbound(
        World::new(&[SaslOverTls, TlsDialback], &[PARTNER]),
        Purpose::Stanzas(pair("org.example", PARTNER)),
        Link::DirectTls(facts(PARTNER)),
        true,
    );
    run(
        "the next stream does not try again",
        again,
        &[
            Peer(HEADER),
            Peer(BOTH),
            Sees(&["<db:result "]),
            Lacks(&["<auth"]),
        ],
    );
    run(
        "a challenge",
        direct(&[SaslOverTls], PARTNER),
        &[
            Peer(HEADER),
            Peer(EXTERNAL),
            Peer("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"),
            Sees(&["<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"]),
            Peer(SUCCESS),
            Sees(&["[restart]"]),
        ],
    );
}

/// D-11 and what else the peer may answer.
#[test]
fn only_the_answer_to_what_was_asked_counts() {
    for ignored in [
        "<db:result from='second.example' to='org.example' type='valid'/>",
        "<db:result from='partner.example' to='org2.example' type='valid'/>",
        "<db:result from='partner.example' to='org.example'>their key</db:result>",
        "<db:result type='valid'/>",
        "<db:verify from='partner.example' to='org.example' id='peer1' type='valid'/>",
        "<db:verify from='partner.example' to='org.example' id='x'>k</db:verify>",
    ] {
        let mut talk = direct(&[TlsDialback], "");
        talk.hear(HEADER.as_bytes());
        talk.hear(DIALBACK.as_bytes());
        talk.take();
        talk.hear(ignored.as_bytes());
        assert_eq!(talk.take(), "", "{ignored}");
        talk.hear(VALID.as_bytes());
        assert!(talk.take().contains("[ready "), "{ignored}");
        talk.hear(VALID.as_bytes());
        assert_eq!(talk.take(), "", "an answer counts once");
    }
    run(
        "before asking",
        direct(&[TlsDialback], ""),
        &[Peer(HEADER), Sees(&["<stream:stream"]), Peer(VALID), Quiet],
    );
    run(
        "invalid",
        direct(&[TlsDialback], ""),
        &[
            Peer(HEADER),
            Peer(DIALBACK),
            Peer("<db:result from='partner.example' to='org.example' type='invalid'/>"),
            Sees(&[
                "[failed org.example to partner.example DialbackRejected]",
                "[close DialbackRejected]",
            ]),
        ],
    );
    run(
        "error",
        direct(&[TlsDialback], ""),
        &[
            Peer(HEADER),
            Peer(DIALBACK),
            Peer(
                "<db:result from='partner.example' to='org.example' type='error'><error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></db:result>",
            ),
            Sees(&["the error item-not-found", "[close DialbackError]"]),
        ],
    );
}

/// D-19 and XEP-0220 section 2.6.
#[test]
fn further_pairs_need_errors_and_their_own_terms() {
    run(
        "D-19",
        established(&[TlsDialback], "", DIALBACK),
        &[
            Add("org.example", "second.example"),
            Sees(&["[failed org.example to second.example NotMultiplexable]"]),
            Lacks(&["<", "close"]),
        ],
    );
    let second = "<db:result from='second.example' to='org.example' type='valid'/>";
    run(
        "target",
        established(&[TlsDialback], "", DIALBACK_ERRORS),
        &[
            Add("org.example", "second.example"),
            Sees(&["<db:result from='org.example' to='second.example'>"]),
            Add("org.example", "second.example"),
            Quiet,
            Peer(second),
            Sees(&["[ready org.example to second.example TlsDialback]"]),
            Add("org.example", "second.example"),
            Sees(&["[ready org.example to second.example TlsDialback]"]),
        ],
    );
    run(
        "its failure is its own",
        established(&[TlsDialback], "", DIALBACK_ERRORS),
        &[
            Add("org.example", "second.example"),
            Peer("<db:result from='second.example' to='org.example' type='error'/>"),
            Sees(&["[failed org.example to second.example DialbackError]"]),
            Lacks(&["close"]),
            Add("org.example", "stranger.example"),
            Sees(&["[failed org.example to stranger.example PartnerNotAllowed]"]),
            Lacks(&["<"]),
        ],
    );
    run(
        "it dies with the stream",
        established(&[TlsDialback], "", DIALBACK_ERRORS),
        &[
            Add("org.example", "second.example"),
            Peer("</stream:stream>"),
            Sees(&[
                "[failed org.example to second.example PeerClosed]",
                "[close PeerClosed]",
            ]),
        ],
    );
    let external_then = |names| {
        let mut talk = direct(&[SaslOverTls], names);
        for bytes in [HEADER, EXTERNAL, SUCCESS, HEADER, DIALBACK_ERRORS] {
            talk.hear(bytes.as_bytes());
        }
        assert!(
            talk.take()
                .contains("[ready org.example to partner.example SaslOverTls]")
        );
        talk
    };
    run(
        "covered by the certificate",
        external_then("partner.example,second.example"),
        &[
            Add("org.example", "second.example"),
            Sees(&["<db:result "]),
            Peer(second),
            Sees(&["[ready org.example to second.example SaslOverTls]"]),
        ],
    );
    run(
        "not covered",
        external_then(PARTNER),
        &[
            Add("org.example", "second.example"),
            Sees(&["[failed org.example to second.example NotMultiplexable]"]),
            Lacks(&["<"]),
        ],
    );
    run(
        "wanted early",
        direct(&[TlsDialback], ""),
        &[
            Peer(HEADER),
            Add("org.example", "second.example"),
            Peer(DIALBACK_ERRORS),
            Sees(&["to='partner.example'>"]),
            Lacks(&["to='second.example'>"]),
            Peer(VALID),
            Sees(&[
                "[ready org.example to partner.example TlsDialback]",
                "<db:result from='org.example' to='second.example'>",
            ]),
        ],
    );
    run(
        "wanted early, in vain",
        direct(&[TlsDialback], ""),
        &[
            Add("org.example", "second.example"),
            TimedOut,
            Sees(&[
                "<connection-timeout ",
                "[failed org.example to partner.example EstablishmentTimeout]",
                "[failed org.example to second.example EstablishmentTimeout]",
                "[close",
            ]),
            Add("org.example", "second.example"),
            Sees(&["[failed org.example to second.example PeerClosed]"]),
        ],
    );
}

/// A stream of its own must not be worth more than a shared one (behaviour section 1).
#[test]
fn a_further_pair_stands_on_the_best_method_that_it_could_have() {
    let both: &[Method] = &[SaslOverTls, TlsDialback];
    let second = "<db:result from='second.example' to='org.example' type='valid'/>";
    let by_external = |names| {
        let mut talk = direct(both, names);
        for bytes in [HEADER, EXTERNAL, SUCCESS, HEADER, DIALBACK_ERRORS] {
            talk.hear(bytes.as_bytes());
        }
        assert!(talk.take().contains(" SaslOverTls]"));
        talk
    };
    run(
        "the certificate covers it",
        by_external("partner.example,second.example"),
        &[
            Add("org.example", "second.example"),
            Peer(second),
            Sees(&["[ready org.example to second.example SaslOverTls]"]),
        ],
    );
    run(
        "its own may be another certificate",
        by_external(PARTNER),
        &[
            Add("org.example", "second.example"),
            Sees(&["[failed org.example to second.example NotMultiplexable]"]),
            Lacks(&["<"]),
        ],
    );
    run(
        "a further sender finds the same certificate",
        by_external(PARTNER),
        &[
            Add("org2.example", PARTNER),
            Sees(&["<db:result from='org2.example' to='partner.example'>"]),
            Peer("<db:result from='partner.example' to='org2.example' type='valid'/>"),
            Sees(&["[ready org2.example to partner.example SaslOverTls]"]),
        ],
    );
    // EXTERNAL was no way for the first target; it may be one for the second.
    let offers = "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
        <mechanism>EXTERNAL</mechanism></mechanisms>\
        <dialback xmlns='urn:xmpp:features:dialback'><errors/></dialback></stream:features>";
    run(
        "EXTERNAL is left untried for it",
        established(both, "second.example", offers),
        &[
            Add("org.example", "second.example"),
            Sees(&["[failed org.example to second.example NotMultiplexable]"]),
            Add("org2.example", PARTNER),
            Sees(&["<db:result from='org2.example' to='partner.example'>"]),
        ],
    );
}

/// XEP-0220 section 2.6.1: nothing needs to be announced for it; what a refusal may cost is bounded.
#[test]
fn a_further_sender_needs_no_errors_where_acks_save_the_others() {
    let acks = "<stream:features><dialback xmlns='urn:xmpp:features:dialback'/>\
        <sm xmlns='urn:xmpp:sm:3'/></stream:features>";
    let mut talk = direct(&[TlsDialback], "");
    for bytes in [HEADER, acks, VALID, "<enabled xmlns='urn:xmpp:sm:3'/>"] {
        talk.hear(bytes.as_bytes());
    }
    assert!(talk.take().contains("[ready "));
    run(
        "with acks",
        talk,
        &[
            Add("org.example", "second.example"),
            Sees(&["[failed org.example to second.example NotMultiplexable]"]),
            Add("org2.example", PARTNER),
            Sees(&["<db:result from='org2.example' to='partner.example'>"]),
            Peer("<db:result from='partner.example' to='org2.example' type='valid'/>"),
            Sees(&["[ready org2.example to partner.example TlsDialback]"]),
        ],
    );
    run(
        "without",
        established(&[TlsDialback], "", DIALBACK),
        &[
            Add("org2.example", PARTNER),
            Sees(&["[failed org2.example to partner.example NotMultiplexable]"]),
            Lacks(&["<", "close"]),
        ],
    );
}

#[test]
fn a_further_pair_that_became_forbidden_while_it_was_asked_for_is_not_carried() {
    run(
        "forbidden meanwhile",
        established(&[TlsDialback], "", DIALBACK_ERRORS),
        &[
            Add("org.example", "second.example"),
            Sees(&["<db:result "]),
            Change(|world| world.peers.retain(|(peer, _)| peer.as_str() == PARTNER)),
            Quiet,
            Peer("<db:result from='second.example' to='org.example' type='valid'/>"),
            Sees(&["[failed org.example to second.example PartnerNotAllowed]"]),
            Lacks(&["ready", "close"]),
        ],
    );
    run(
        "forbidden later",
        established(&[TlsDialback], "", DIALBACK_ERRORS),
        &[
            Add("org.example", "second.example"),
            Peer("<db:result from='second.example' to='org.example' type='valid'/>"),
            Sees(&["[ready "]),
            Change(|world| world.peers.retain(|(peer, _)| peer.as_str() == PARTNER)),
            Sees(&["<policy-violation ", "[close PartnerNotAllowed]"]),
        ],
    );
}

///
#[test]
fn bidi_is_taken_only_from_whom_the_certificate_proves() {
    run(
        "dialback with a proven certificate",
        established(
            &[TlsDialback],
            PARTNER,
            "<stream:features><dialback xmlns='urn:xmpp:features:dialback'><errors/></dialback><bidi xmlns='urn:xmpp:features:bidi'/></stream:features>",
        ),
        &[
            Add("org.example", "second.example"),
            Peer("<db:result from='second.example' to='org.example' type='valid'/>"),
            Sees(&["[ready org.example to second.example TlsDialback]"]),
            Lacks(&["[authenticated"]),
            Peer("<message from='x@second.example' to='alice@org.example'/>"),
            Sees(&["<invalid-from ", "[close StanzaFrom]"]),
        ],
    );
    run(
        "no bidi, no stanzas",
        established(&[TlsDialback], PARTNER, DIALBACK),
        &[
            Peer("<message from='x@partner.example' to='alice@org.example'/>"),
            Sees(&["<not-authorized ", "[close NotAuthorized]"]),
        ],
    );
    let mut talk = direct(&[SaslOverTls], PARTNER);
    talk.world.bidi = false;
    run(
        "not where the terms forbid it",
        talk,
        &[
            Peer(HEADER),
            Peer(BOTH),
            Sees(&["<auth "]),
            Lacks(&["<bidi"]),
        ],
    );
}

///
#[test]
fn stanzas_wait_until_acks_are_agreed_on() {
    let after = |features: &str| {
        let mut talk = direct(&[SaslOverTls], PARTNER);
        for bytes in [HEADER, EXTERNAL, SUCCESS, HEADER, features] {
            talk.hear(bytes.as_bytes());
        }
        talk
    };
    let both = "<stream:features><sm xmlns='urn:xmpp:sm:2'/><sm xmlns='urn:xmpp:sm:3'/><limits xmlns='urn:xmpp:stream-limits:0'>\
        <max-bytes>20000</max-bytes><idle-seconds>60</idle-seconds></limits></stream:features>";
    run(
        "sm:3 first",
        after(both),
        &[
            Sees(&[
                "[limits Some(20000) Some(60)]",
                "<enable xmlns='urn:xmpp:sm:3'/>",
            ]),
            Lacks(&["[ready"]),
            Add("org.example", "second.example"),
            Quiet,
            Peer("<enabled xmlns='urn:xmpp:sm:3'/>"),
            Sees(&[
                "[acks urn:xmpp:sm:3]",
                "[ready org.example to partner.example SaslOverTls]",
                "[failed org.example to second.example",
            ]),
            Peer("<r xmlns='urn:xmpp:sm:3'/><a xmlns='urn:xmpp:sm:3' h='4294967295'/>"),
            Sees(&["[ack wanted]", "[acked 4294967295]"]),
        ],
    );
    let mut talk = direct(&[SaslOverTls], PARTNER);
    for bytes in [HEADER, BOTH, SUCCESS, HEADER, both] {
        talk.hear(bytes.as_bytes());
    }
    run(
        "the peer's own stanzas do not wait",
        talk,
        &[
            Sees(&[
                "[authenticated partner.example to org.example SaslOverTls]",
                "<enable ",
            ]),
            Lacks(&["[ready"]),
            Peer("<enabled xmlns='urn:xmpp:sm:3'/>"),
            Sees(&["[acks ", "[ready "]),
            Lacks(&["[authenticated"]),
            Change(|world| world.distrust = true),
            Sees(&["[close UnknownIssuer]"]),
        ],
    );
    run(
        "sm:2 alone, refused",
        after("<stream:features><sm xmlns='urn:xmpp:sm:2'/></stream:features>"),
        &[
            Sees(&["<enable xmlns='urn:xmpp:sm:2'/>"]),
            Peer(
                "<failed xmlns='urn:xmpp:sm:2'><unexpected-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>",
            ),
            Sees(&["[ready "]),
            Lacks(&["[acks"]),
        ],
    );
}

/// D-09, D-10: verify-only streams.
#[test]
fn a_verify_only_stream_takes_the_answer_to_its_question_alone() {
    const ASKED: &str =
        "<db:verify from='org.example' to='partner.example' id='ours7'>k&amp;y</db:verify>";
    for (answer, expected) in [
        ("type='valid'", "[verified Valid]"),
        ("type='invalid'", "[verified Invalid]"),
        ("type='error'", "[verified Unavailable(Refused)]"),
    ] {
        let mut talk = verifying(&[SaslOverTls, TlsDialback], Link::Plain);
        for bytes in [HEADER, TLS, PROCEED] {
            talk.hear(bytes.as_bytes());
        }
        talk.give(Input::TlsEstablished(facts("")));
        for bytes in [HEADER, BOTH] {
            talk.hear(bytes.as_bytes());
        }
        let text = talk.take();
        assert!(
            text.ends_with(ASKED) && !text.contains("<auth") && !text.contains("<bidi"),
            "{text}"
        );
        for wrong in [
            "<db:verify from='second.example' to='org.example' id='ours7' type='valid'/>",
            "<db:verify from='partner.example' to='org2.example' id='ours7' type='valid'/>",
            "<db:verify from='partner.example' to='org.example' id='other' type='valid'/>",
            "<db:verify from='partner.example' to='org.example' type='valid'/>",
            "<db:result from='partner.example' to='org.example' type='valid'/>",
            "<db:verify from='partner.example' to='org.example' id='ours7'>k</db:verify>",
        ] {
            talk.hear(wrong.as_bytes());
            assert_eq!(talk.take(), "", "D-10: {wrong}");
        }
        talk.hear(
            format!("<db:verify from='partner.example' to='org.example' id='ours7' {answer}/>")
                .as_bytes(),
        );
        assert_eq!(talk.take(), format!("{expected}</stream:stream>[close Ok]"));
    }
    run(
        "TLS is needed",
        verifying(&[TlsDialback], Link::Plain),
        &[
            Peer(HEADER),
            Peer(DIALBACK),
            Sees(&["[verified Unavailable(Policy)]", "[close TlsNotOffered]"]),
            Lacks(&["db:verify"]),
        ],
    );
    run(
        "plaintext is allowed",
        verifying(&[TcpDialback], Link::Plain),
        &[Peer(HEADER), Peer(NOTHING), Sees(&[ASKED])],
    );
    run(
        "before 1.0",
        verifying(&[TcpDialback], Link::Plain),
        &[Peer(HEADER_OLD), Sees(&[ASKED])],
    );
    run(
        "no answer",
        verifying(&[TlsDialback], Link::DirectTls(facts(""))),
        &[
            Peer(HEADER),
            Peer(DIALBACK),
            TimedOut,
            Sees(&[
                "[verified Unavailable(TimedOut)]",
                "[close EstablishmentTimeout]",
            ]),
        ],
    );
    run(
        "hung up",
        verifying(&[TlsDialback], Link::DirectTls(facts(""))),
        &[
            Peer(HEADER),
            Peer("</stream:stream>"),
            Sees(&["[verified Unavailable(Refused)]", "[close PeerClosed]"]),
            Lacks(&["[failed"]),
        ],
    );
    run(
        "it carries nothing",
        verifying(&[TlsDialback], Link::DirectTls(facts(PARTNER))),
        &[
            Peer(HEADER),
            Peer(DIALBACK),
            Peer("<message from='x@partner.example' to='alice@org.example'/>"),
            Sees(&["<not-authorized ", "[verified Unavailable(Refused)]"]),
            Lacks(&["[ready", "[authenticated"]),
        ],
    );
}

#[test]
fn a_probe_asks_for_a_sign_of_life_and_knows_its_answer() {
    run(
        "answered",
        established(&[TlsDialback], "", DIALBACK_ERRORS),
        &[
            Probe(4),
            Sees(&[
                "<db:verify from='org.example' to='partner.example' id='xmpp-edge-probe-4'>0</db:verify>",
            ]),
            Peer(
                "<db:verify from='partner.example' to='org.example' id='xmpp-edge-probe-5' type='invalid'/>",
            ),
            Quiet,
            Peer(
                "<db:verify from='second.example' to='org.example' id='xmpp-edge-probe-4' type='invalid'/>",
            ),
            Quiet,
            Peer(
                "<db:verify from='partner.example' to='org.example' id='xmpp-edge-probe-4' type='invalid'/>",
            ),
            Sees(&["[probe 4]"]),
        ],
    );
    run(
        "not where errors would end the stream",
        established(&[TlsDialback], "", DIALBACK),
        &[Probe(1), Quiet],
    );
}

#[test]
fn a_change_of_the_realm_closes_what_is_forbidden() {
    run(
        "the partner goes",
        established(&[TlsDialback], "", DIALBACK),
        &[
            Change(|world| world.peers.clear()),
            Sees(&["<policy-violation ", "[close PartnerNotAllowed]"]),
        ],
    );
    run(
        "while setting up",
        plain(&[TlsDialback]),
        &[
            Change(|world| world.peers.clear()),
            Sees(&[
                "[failed org.example to partner.example PartnerNotAllowed]",
                "[close PartnerNotAllowed]",
            ]),
        ],
    );
    run(
        "features are met with the terms of now",
        plain(&[TlsDialback, TcpDialback]),
        &[
            Peer(HEADER),
            Change(|world| world.peers[0].1 = MethodSet::try_from(vec![TlsDialback]).unwrap()),
            Peer(DIALBACK),
            Sees(&["[close TlsNotOffered]"]),
        ],
    );
    run(
        "nothing changed",
        established(&[TlsDialback], "", DIALBACK),
        &[Change(|_| {}), Quiet],
    );
}
