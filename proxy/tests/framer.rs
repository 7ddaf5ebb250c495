//! The framer's promises over the corpus of its fuzzer, and over streams made at random.

#![allow(clippy::unwrap_used)]

#[path = "../../tests/fuzz/oracles/framer.rs"]
mod framer;

use proptest::prelude::*;

#[test]
fn the_corpus_of_the_fuzzer_holds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus/framer");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        framer::check(&std::fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files >= 10, "the corpus is where it belongs");
}

/// Pieces that mean something to a lexer, right and wrong.
const PIECES: &[&str] = &[
    "<message",
    "<s:message",
    "<presence",
    "<iq",
    "</message>",
    "</s:message>",
    "</presence>",
    "</iq>",
    "<body",
    "</body>",
    "<status",
    "</status>",
    "<x:a",
    "</x:a>",
    ">",
    "/>",
    " ",
    "\n",
    "\t",
    "\r\n",
    " to='a@b.example'",
    " from=\"c@d\"",
    " type='chat'",
    " id='<'",
    " id='1'",
    " xml:lang='de'",
    " xmlns='jabber:server'",
    " xmlns=''",
    " xmlns='jabber:client'",
    " xmlns:p='urn:p'",
    " xmlns:q='urn:p'",
    " p:a='1'",
    " q:a='2'",
    " x:a='3'",
    "<p:b",
    "</p:b>",
    " xmlns:p=''",
    " xmlns:xml='urn:x'",
    "&amp;",
    "&#65;",
    "&#x0;",
    "&#xfffe;",
    "&nbsp;",
    "&lt",
    "]]>",
    "]]",
    "<![CDATA[",
    "]]>",
    "<!--",
    "-->",
    "<?pi?>",
    "<!DOCTYPE a>",
    "text",
    "é",
    "漢",
    "𝄞",
    "\u{feff}",
    "\u{fffe}",
    "\u{1}",
    "'",
    "\"",
    "=",
    "/",
    "<",
    "</stream:stream>",
    " xmlns:n='a&amp;b'",
    "<n:c",
    " a='&#10; \t'",
    "xmlns",
    // Faults of one stanza, in its start tag too.
    " é='1'",
    "<é",
    "<message é='1'",
    "<s:iq xmlns:w='a b' from='a@b'",
    " xmlns:w='a b'",
    " nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn='1'",
];

/// Elements that are right, nested, with every feature that may need rewriting.
fn element(name: &'static str) -> impl Strategy<Value = String> {
    let attribute = prop::sample::select(vec![
        "",
        " to='a@b.example'",
        " xml:lang='de'",
        " x:a='&quot;'",
        " xmlns:p='urn:p' p:a='1'",
        " type='a&#9;\tb\n'",
    ]);
    let leaf = prop::sample::select(vec![
        "",
        "text",
        "&lt;&#13;\r\n",
        "<![CDATA[<a>]] ]>&amp;]]>",
        "<x:a/>",
        "<status>away</status>",
        "<s:status/>",
        "<status xmlns=''/>",
        "<status xmlns='jabber:client'/>",
        "<a xmlns='urn:a'><b/><c xmlns=''/></a>",
        "<q:a xmlns:q='urn:q' q:b='1'/>",
        "é漢𝄞",
        "<db:result/>",
        "<p xmlns='urn:a&amp;b' a=\"'\"/>",
    ]);
    (attribute, prop::collection::vec(leaf, 0..8)).prop_map(move |(attribute, leaves)| {
        format!("<{name}{attribute}>{}</{name}>", leaves.concat())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_in_any_order_hold(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..24)) {
        framer::check(pieces.concat().as_bytes());
    }

    #[test]
    fn right_stanzas_are_taken_and_hold(
        stanzas in prop::collection::vec(
            prop_oneof![element("message"), element("s:presence"), element("iq"), element("s:message")], 1..4)
    ) {
        let content = stanzas.concat();
        let stream = format!("{}{content}", framer::HEADER);
        let (kept, error, _) = framer::scan(stream.as_bytes(), 7, Default::default());
        prop_assert_eq!(error, None);
        prop_assert_eq!(kept.len(), stanzas.len() + 1);
        framer::check(content.as_bytes());
    }

    #[test]
    fn changed_bytes_hold(stanza in element("message"), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = stanza.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        framer::check(&bytes);
    }
}
