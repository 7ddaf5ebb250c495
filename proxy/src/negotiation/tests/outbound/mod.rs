//! What the edge says on a stream that it opened.

mod authenticating;
mod blame;
mod established;
mod instead;
mod sharing;

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

fn talk(methods: &[Method], link: Shown) -> Talk {
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
    talk(methods, Shown::Plain)
}

fn direct(methods: &[Method], names: &str) -> Talk {
    talk(methods, shows(names))
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

fn verifying(methods: &[Method], link: Shown) -> Talk {
    let question = VerifyRequest {
        pair: pair(PARTNER, "org.example"),
        stream_id: "ours7".into(),
        key: "k&y".into(),
        names: WireNames::default(),
    };
    Talk::outbound(
        World::new(methods, &[PARTNER]),
        Purpose::Verify(question),
        link,
        false,
    )
}
