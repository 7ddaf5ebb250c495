//! What a stream is said to have died over.

use super::*;

const UNSUPPORTED: &str = "<stream:error><unsupported-stanza-type xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";

#[test]
fn s4_a_stream_that_dies_over_bidi_is_blamed_on_it() {
    for (name, says) in [
        ("by an error", UNSUPPORTED),
        ("without a word", "</stream:stream>"),
    ] {
        run(
            name,
            direct(&[SaslOverTls], PARTNER),
            &[
                Peer(HEADER),
                Peer(BOTH),
                Sees(&["<bidi ", "<auth "]),
                Peer(says),
                Sees(&["[close BidiRejected]"]),
            ],
        );
    }
    for (name, says) in [
        ("once it stands", UNSUPPORTED),
        ("once it stands, without a word", "</stream:stream>"),
    ] {
        run(
            name,
            direct(&[SaslOverTls], PARTNER),
            &[
                Peer(HEADER),
                Peer(BOTH),
                Peer(SUCCESS),
                Peer(HEADER),
                Peer(NOTHING),
                Sees(&["[ready "]),
                Peer(says),
                Sees(&["[close BidiRejected]"]),
            ],
        );
    }
    run(
        "not once stanzas were taken",
        direct(&[SaslOverTls], PARTNER),
        &[
            Peer(HEADER),
            Peer(BOTH),
            Peer(SUCCESS),
            Peer(HEADER),
            Peer(ACKS),
            Peer("<enabled xmlns='urn:xmpp:sm:3'/><a xmlns='urn:xmpp:sm:3' h='0'/>"),
            Peer("<a xmlns='urn:xmpp:sm:3' h='1'/>"),
            Sees(&["[ready ", "[acked 1]"]),
            Peer(UNSUPPORTED),
            Sees(&["[close PeerError]"]),
        ],
    );
    run(
        "nor for what says nothing of it",
        direct(&[SaslOverTls], PARTNER),
        &[
            Peer(HEADER),
            Peer(BOTH),
            Peer(SUCCESS),
            Peer(HEADER),
            Peer(NOTHING),
            Peer(
                "<stream:error><system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
            ),
            Sees(&["[close PeerError]"]),
        ],
    );
    run(
        "by silence",
        direct(&[SaslOverTls, TlsDialback], PARTNER),
        &[
            Peer(HEADER),
            Peer(BOTH),
            TimedOut,
            Sees(&["[close BidiRejected]"]),
        ],
    );
    run(
        "announced in the other namespace",
        direct(&[SaslOverTls], PARTNER),
        &[
            Peer(HEADER),
            Peer(
                "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>EXTERNAL</mechanism></mechanisms>\
                 <bidi xmlns='urn:xmpp:bidi'/></stream:features>",
            ),
            Sees(&["<bidi xmlns='urn:xmpp:bidi'/>"]),
        ],
    );
    let mut out = Vec::new();
    let world = World {
        shown: PARTNER.to_owned(),
        ..World::new(&[SaslOverTls], &[PARTNER])
    };
    let start = OutboundStart {
        side: Side::Partner,
        purpose: Purpose::Stanzas(pair("org.example", PARTNER)),
        link: Link::Tls,
        skip_sasl: false,
        skip_bidi: true,
        skip_acks: false,
        names: WireNames::default(),
    };
    let mut machine = Outbound::start(start, &world, &mut out);
    let header = StreamHeader {
        version: Some("1.0".into()),
        id: Some("peer1".to_owned()),
        ..header_of_server()
    };
    machine.step(Input::Header(&header), &world, &mut out);
    machine.step(Input::Element(&element(BOTH)), &world, &mut out);
    let text: String = out.iter().map(render).collect();
    assert!(text.contains("<auth ") && !text.contains("bidi"), "{text}");
}

const ACKS: &str = "<stream:features><sm xmlns='urn:xmpp:sm:3'/></stream:features>";

#[test]
fn a_stream_that_dies_over_acks_is_blamed_on_them() {
    for says in [UNSUPPORTED, "</stream:stream>"] {
        run(
            "over <enable/>",
            direct(&[SaslOverTls], PARTNER),
            &[
                Peer(HEADER),
                Peer(EXTERNAL),
                Peer(SUCCESS),
                Peer(HEADER),
                Peer(ACKS),
                Sees(&["<enable "]),
                Peer(says),
                Sees(&["[close AcksRejected]"]),
            ],
        );
    }
}

#[test]
fn a_peer_that_says_nothing_after_enable_is_blamed_for_acks() {
    for (name, features) in [("with bidi", BOTH), ("without bidi", EXTERNAL)] {
        run(
            name,
            direct(&[SaslOverTls], PARTNER),
            &[
                Peer(HEADER),
                Peer(features),
                Peer(SUCCESS),
                Peer(HEADER),
                Peer(ACKS),
                Sees(&["<enable "]),
                TimedOut,
                Sees(&["[step Policy AcksRejected]", "[close AcksRejected]"]),
            ],
        );
    }
}

#[test]
fn acks_are_not_asked_of_a_peer_towards_which_they_were_given_up() {
    run(
        "asked for by the features, not by the terms",
        direct(&[SaslOverTls], PARTNER),
        &[
            Change(|world| world.acks = false),
            Peer(HEADER),
            Peer(EXTERNAL),
            Peer(SUCCESS),
            Peer(HEADER),
            Peer(ACKS),
            Sees(&["[ready "]),
            Lacks(&["<enable "]),
        ],
    );
}

/// E-17.
#[test]
fn a_stream_that_dies_after_external_was_taken_is_blamed_on_it_where_dialback_is_left() {
    const OVER_IT: &[&str] = &["[close SaslRejected]"];
    const NO_OTHER: &[&str] = &["[close PeerClosed]"];
    for (methods, expected) in [
        (&[SaslOverTls, TlsDialback][..], OVER_IT),
        (&[SaslOverTls][..], NO_OTHER),
    ] {
        run(
            "where the new stream should begin",
            direct(methods, PARTNER),
            &[
                Peer(HEADER),
                Peer(EXTERNAL),
                Peer(SUCCESS),
                Peer("</stream:stream>"),
                Sees(expected),
            ],
        );
        run(
            "before its features",
            direct(methods, PARTNER),
            &[
                Peer(HEADER),
                Peer(EXTERNAL),
                Peer(SUCCESS),
                Peer(HEADER),
                Peer("</stream:stream>"),
                Sees(expected),
            ],
        );
    }
}
