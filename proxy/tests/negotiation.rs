//! Replays the fuzzers' corpora of negotiation and dialback, on the stable toolchain.

#[path = "../../tests/fuzz/oracles/dialback.rs"]
mod dialback;
#[path = "../../tests/fuzz/oracles/negotiation.rs"]
mod negotiation;

use std::{fs, path::Path};

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fuzz/corpus")
        .join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is checked in") {
        let input = fs::read(entry.expect("readable").path()).expect("readable");
        check(&input);
        // Whatever holds for the whole holds for every beginning of it.
        for end in 0..input.len() {
            check(&input[..end]);
        }
        inputs += 1;
    }
    assert!(inputs >= 8, "{inputs} inputs in {}", folder.display());
}

#[test]
fn negotiation_keeps_its_promises_on_the_corpus() {
    replay("negotiation", negotiation::check);
}

#[test]
fn dialback_keeps_its_promises_on_the_corpus() {
    replay("dialback", dialback::check);
}

/// What peers say, right and wrong, and what the world does, for random conversations.
const PHRASES: &[&str] = &[
    "<stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' xmlns:stream='http://etherx.jabber.org/streams' from='partner.example' to='org.example' id='peer' version='1.0'>",
    "<stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' xmlns:stream='http://etherx.jabber.org/streams' from='second.example' to='org.example' id='peer' version='1.0'>",
    "<stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' xmlns:stream='http://etherx.jabber.org/streams' to='org.example' id='peer'>",
    "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:features>",
    "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>EXTERNAL</mechanism></mechanisms><dialback xmlns='urn:xmpp:features:dialback'><errors/></dialback><bidi xmlns='urn:xmpp:features:bidi'/></stream:features>",
    "<stream:features><sm xmlns='urn:xmpp:sm:3'/><dialback xmlns='urn:xmpp:features:dialback'><errors/></dialback></stream:features>",
    "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
    "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
    "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>",
    "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
    "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>",
    "<bidi xmlns='urn:xmpp:bidi'/>",
    "<db:result from='partner.example' to='org.example'>key</db:result>",
    "<db:result from='second.example' to='org.example'>key</db:result>",
    "<db:result from='partner.example' to='org.example' type='valid'/>",
    "<db:result from='second.example' to='org.example' type='valid'/>",
    "<db:result from='partner.example' to='org.example' type='error'/>",
    "<db:verify from='partner.example' to='org.example' id='id'>key</db:verify>",
    "<db:verify from='partner.example' to='org.example' id='id' type='valid'/>",
    "<enable xmlns='urn:xmpp:sm:3'/>",
    "<enabled xmlns='urn:xmpp:sm:3'/>",
    "<r xmlns='urn:xmpp:sm:3'/>",
    "<message from='a@partner.example' to='b@org.example'/>",
    "</stream:stream>",
    "\u{1}",
    "\u{2}",
    "\u{3}",
    "\u{4}",
    "\u{5}",
    "\u{6}",
    "\u{7}",
    "\u{b}",
    "\u{c}",
    "\u{e}",
];

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]
    #[test]
    fn random_conversations_keep_the_promises(
        settings: u8,
        // A conversation begins with a header, or it ends at once.
        phrases in proptest::collection::vec(0..PHRASES.len(), 0..24),
    ) {
        let mut input = vec![settings];
        input.extend_from_slice(PHRASES[0].as_bytes());
        for phrase in phrases {
            input.extend_from_slice(PHRASES[phrase].as_bytes());
            // The machine waits for a handshake and a header more often than chance would bring them.
            if PHRASES[phrase].starts_with("<proceed") || PHRASES[phrase].starts_with("<starttls") {
                input.push(1);
                input.extend_from_slice(PHRASES[0].as_bytes());
            } else if PHRASES[phrase].starts_with("<success") || PHRASES[phrase].starts_with("<auth") {
                input.extend_from_slice(PHRASES[0].as_bytes());
            }
        }
        negotiation::check(&input);
    }
}
