//! Headers, features and TLS: what comes before anyone is authenticated.

use super::*;

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
        for link in [Shown::Plain, shows(PARTNER)] {
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
            Says(1, KeyVerification::Valid),
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
