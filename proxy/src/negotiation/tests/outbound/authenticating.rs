//! Which method is taken, and what is done when it fails.

use super::*;

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
    talk.encrypt("");
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
            Sees(&["<policy-violation ", "</stream:stream>", "[last word]"]),
            Lacks(&["db:result", "[close"]),
            Peer("</stream:stream>"),
            Sees(&["[close TlsNotOffered]"]),
            Lacks(&["<"]),
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
        Shown::Plain,
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

#[test]
fn what_was_told_before_tls_or_authentication_limits_nothing_after() {
    run(
        "limits",
        plain(&[SaslOverTls]),
        &[
            Peer(HEADER),
            Peer(
                "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>\
                 <limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>10000</max-bytes></limits></stream:features>",
            ),
            Peer(PROCEED),
            Sees(&["[limits Some(10000) None]"]),
            Tls(PARTNER),
            Peer(HEADER),
            Peer(EXTERNAL),
            Sees(&["[limits None None]", "<auth "]),
        ],
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
        shows(PARTNER),
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
