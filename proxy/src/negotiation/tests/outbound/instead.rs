//! What a peer says instead of a stream.

use super::*;

#[test]
fn an_error_behind_a_header_without_version_is_heard() {
    run(
        "an error",
        plain(&[SaslOverTls]),
        &[
            Peer(HEADER_OLD),
            Sees(&["</stream:stream>", "[last word]"]),
            Peer(
                "<stream:error><host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>",
            ),
            Sees(&[
                "[step Policy PeerError]",
                "[failed org.example to partner.example PeerError]",
                "[close PeerError]",
            ]),
            Lacks(&["<"]),
        ],
    );
    for (name, says) in [
        ("another element", "<stream:features/>"),
        ("another header", HEADER_OLD),
        (
            "a stanza",
            "<message from='a@partner.example' to='b@org.example'/>",
        ),
        ("nothing well-formed", "hello"),
    ] {
        run(
            name,
            plain(&[SaslOverTls]),
            &[
                Peer(HEADER_OLD),
                Peer(says),
                Sees(&["[last word]", "[close TlsNotOffered]"]),
            ],
        );
    }
    run(
        "silence",
        plain(&[SaslOverTls]),
        &[
            Peer(HEADER_OLD),
            Change(|_| ()),
            Add("org2.example", PARTNER),
            TimedOut,
            Sees(&[
                "[last word]",
                "[failed org2.example to partner.example NotMultiplexable]",
                "[close TlsNotOffered]",
            ]),
        ],
    );
}

#[test]
fn s14_what_a_peer_says_before_a_header_is_heard() {
    run(
        "an error and nothing else",
        plain(&[SaslOverTls]),
        &[
            Peer(
                "<stream:error><host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
            ),
            Sees(&["[step Policy PeerError]", "[close PeerError]"]),
            Lacks(&["<stream:error"]),
        ],
    );
    run(
        "without prefix",
        plain(&[SaslOverTls]),
        &[
            Peer(
                "<error xmlns='http://etherx.jabber.org/streams'><host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></error>",
            ),
            Sees(&["[close PeerError]"]),
        ],
    );
    run(
        "behind a declaration, under another prefix",
        plain(&[SaslOverTls]),
        &[
            Peer(
                "<?xml version='1.0'?><s:error xmlns:s='http://etherx.jabber.org/streams'>\
                 <host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></s:error>",
            ),
            Sees(&["[close PeerError]"]),
        ],
    );
    run(
        "in the namespace of its condition",
        plain(&[SaslOverTls]),
        &[
            Peer("<error xmlns='urn:ietf:params:xml:ns:xmpp-streams'><invalid-namespace/></error>"),
            Sees(&["[step Policy PeerError]", "[close PeerError]"]),
        ],
    );
    run(
        "in the namespace of its condition, behind a header",
        plain(&[SaslOverTls]),
        &[
            Peer(HEADER),
            Peer("<error xmlns='urn:ietf:params:xml:ns:xmpp-streams'><invalid-namespace/></error>"),
            Sees(&["[close PeerError]"]),
        ],
    );
    run(
        "the end and nothing else",
        plain(&[SaslOverTls]),
        &[Peer("</stream:stream>"), Sees(&["[close PeerClosed]"])],
    );
    run(
        "features without a header after SASL, behind a declaration",
        direct(&[SaslOverTls, TlsDialback], PARTNER),
        &[
            Peer(HEADER),
            Peer(EXTERNAL),
            Peer(SUCCESS),
            Peer("<?xml version='1.0'?><stream:features/>"),
            Sees(&["[close SaslRejected]"]),
        ],
    );
    run(
        "features without a header after SASL: the other method may work",
        direct(&[SaslOverTls, TlsDialback], PARTNER),
        &[
            Peer(HEADER),
            Peer(EXTERNAL),
            Peer(SUCCESS),
            Peer(NOTHING),
            Sees(&["[close SaslRejected]"]),
        ],
    );
    run(
        "there is no other",
        direct(&[SaslOverTls], PARTNER),
        &[
            Peer(HEADER),
            Peer(EXTERNAL),
            Peer(SUCCESS),
            Peer(NOTHING),
            Sees(&["[close UnexpectedElement]"]),
        ],
    );
}
