//! What a peer that opens a stream is answered.

mod authenticating;
mod established;
mod opening;

use super::{
    Line::{Add, Change, End, Lacks, Peer, Probe, Quiet, Sees, TimedOut, Tls, Verdict as Says},
    *,
};

const OPEN: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' \
    xmlns:stream='http://etherx.jabber.org/streams' from='partner.example' to='org.example' version='1.0'>";
const OPEN_WITHOUT_FROM: &str = "<stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' \
    xmlns:stream='http://etherx.jabber.org/streams' to='org.example' version='1.0'>";
const OPEN_OLD: &str = "<stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' \
    xmlns:stream='http://etherx.jabber.org/streams' from='partner.example' to='org.example'>";
const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const EXTERNAL: &str =
    "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>";
const RESULT: &str = "<db:result from='partner.example' to='org.example'>key</db:result>";
const MESSAGE: &str =
    "<message from='a@partner.example' to='alice@org.example'><body>x</body></message>";
const BIDI: &str = "<bidi xmlns='urn:xmpp:bidi'/>";
const OFFERS_EXTERNAL: &str = "<mechanism>EXTERNAL</mechanism>";
const OFFERS_DIALBACK: &str = "<dialback xmlns='urn:xmpp:features:dialback'><errors/></dialback>";

fn plain(methods: &[Method]) -> Talk {
    Talk::inbound(
        World::new(methods, &[PARTNER, "second.example"]),
        Shown::Plain,
    )
}

fn direct(methods: &[Method], names: &str) -> Talk {
    Talk::inbound(
        World::new(methods, &[PARTNER, "second.example"]),
        shows(names),
    )
}

/// A stream authenticated by EXTERNAL, its output up to there dropped.
fn external(methods: &[Method]) -> Talk {
    let mut talk = direct(methods, PARTNER);
    talk.hear(OPEN.as_bytes());
    talk.hear(EXTERNAL.as_bytes());
    talk.hear(OPEN.as_bytes());
    assert!(
        talk.take()
            .contains("[authenticated partner.example to org.example SaslOverTls]")
    );
    talk
}

/// A stream authenticated by dialback inside TLS.
fn dialed_back() -> Talk {
    let mut talk = direct(&[TlsDialback], "");
    talk.hear(OPEN.as_bytes());
    talk.hear(RESULT.as_bytes());
    talk.give(Input::Verdict {
        request: 1,
        verdict: KeyVerification::Valid,
    });
    assert!(
        talk.take()
            .contains("[authenticated partner.example to org.example TlsDialback]")
    );
    talk
}
