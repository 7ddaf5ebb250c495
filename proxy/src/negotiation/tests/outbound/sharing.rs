//! Further pairs on a stream that stands.

use super::*;

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
        "before stanzas flow",
        direct(&[TlsDialback], ""),
        &[
            Peer(HEADER),
            Add("org.example", "second.example"),
            Sees(&["[failed org.example to second.example NotMultiplexable]"]),
            Peer(DIALBACK_ERRORS),
            Sees(&["to='partner.example'>"]),
            Peer(VALID),
            Sees(&["[ready org.example to partner.example TlsDialback]"]),
            Lacks(&["second.example"]),
        ],
    );
    run(
        "after the end",
        direct(&[TlsDialback], ""),
        &[
            TimedOut,
            Sees(&[
                "<connection-timeout ",
                "[failed org.example to partner.example EstablishmentTimeout]",
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
