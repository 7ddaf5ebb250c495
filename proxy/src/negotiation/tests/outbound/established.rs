//! A stream that stands: the reverse way, acks, verification alone, signs of life, changes.

use super::*;

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
            Sees(&["[failed org.example to second.example NotMultiplexable]"]),
            Peer("<enabled xmlns='urn:xmpp:sm:3'/>"),
            Sees(&[
                "[acks urn:xmpp:sm:3]",
                "[ready org.example to partner.example SaslOverTls]",
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
        let mut talk = verifying(&[SaslOverTls, TlsDialback], Shown::Plain);
        for bytes in [HEADER, TLS, PROCEED] {
            talk.hear(bytes.as_bytes());
        }
        talk.encrypt("");
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
        verifying(&[TlsDialback], Shown::Plain),
        &[
            Peer(HEADER),
            Peer(DIALBACK),
            Sees(&["[verified Unavailable(Policy)]", "[close TlsNotOffered]"]),
            Lacks(&["db:verify"]),
        ],
    );
    run(
        "plaintext is allowed",
        verifying(&[TcpDialback], Shown::Plain),
        &[Peer(HEADER), Peer(NOTHING), Sees(&[ASKED])],
    );
    run(
        "before 1.0",
        verifying(&[TcpDialback], Shown::Plain),
        &[Peer(HEADER_OLD), Sees(&[ASKED])],
    );
    run(
        "no answer",
        verifying(&[TlsDialback], shows("")),
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
        verifying(&[TlsDialback], shows("")),
        &[
            Peer(HEADER),
            Peer("</stream:stream>"),
            Sees(&["[verified Unavailable(Refused)]", "[close PeerClosed]"]),
            Lacks(&["[failed"]),
        ],
    );
    run(
        "it carries nothing",
        verifying(&[TlsDialback], shows(PARTNER)),
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
