#![allow(clippy::unwrap_used)]

mod characters;
mod limits;
mod patterns;

use super::*;
use crate::xml::{StanzaKind, ns};

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:server' \
    xmlns:stream='http://etherx.jabber.org/streams' xmlns:db='jabber:server:dialback' \
    to='org.example' from='partner.example' id='7' version='1.0' xml:lang='en'>";

/// What a stream with that content comes to: its elements as text, then the error if any.
fn outcome(stream: &[u8], limits: Limits) -> (Vec<String>, Option<XmlError>) {
    let mut scanner = Scanner::new(limits);
    let mut rest = stream;
    let mut elements = Vec::new();
    loop {
        match scanner.next(rest) {
            Ok(None) => return (elements, None),
            Err(error) => return (elements, Some(error)),
            Ok(Some(item)) => {
                match &item {
                    Item::Stanza(stanza) => {
                        elements.push(String::from_utf8_lossy(stanza.bytes()).into_owned())
                    }
                    Item::Other(other) => {
                        elements.push(String::from_utf8_lossy(other.bytes).into_owned())
                    }
                    Item::Close { .. } => elements.push("close".to_owned()),
                    Item::Whitespace { .. }
                    | Item::Header { .. }
                    | Item::Skipped { .. }
                    | Item::Faulty { .. }
                    | Item::Dropped { .. } => {}
                }
                rest = &rest[item.len()..];
            }
        }
    }
}

fn in_stream(content: &[u8]) -> (Vec<String>, Option<XmlError>) {
    outcome(&[HEADER.as_bytes(), content].concat(), Limits::default())
}

/// Each content is refused with that cause and condition, and nothing of it comes out.
#[track_caller]
fn refused(cases: &[(&[u8], XmlError, &str)]) {
    for (content, error, condition) in cases {
        let shown = String::from_utf8_lossy(content);
        assert_eq!(in_stream(content), (vec![], Some(*error)), "{shown}");
        assert_eq!(error.condition(), *condition, "{shown}");
    }
}

/// Each content is one element, and taken whole.
#[track_caller]
fn accepted(cases: &[&str]) {
    for content in cases {
        assert_eq!(
            in_stream(content.as_bytes()),
            (vec![(*content).to_owned()], None),
            "{content}"
        );
    }
}

fn header(text: &str) -> Result<StreamHeader, XmlError> {
    let mut scanner = Scanner::new(Limits::default());
    match scanner.next(text.as_bytes())? {
        Some(Item::Header { len, header }) => {
            assert_eq!(len, text.len());
            Ok(StreamHeader::clone(&header))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stream_is_whitespace_header_elements_and_close() {
    let content = "<message to='x@org.example' id='1' type='chat'><body>hi</body></message> \n\
        <db:result/></stream:stream >";
    let (elements, error) = in_stream(content.as_bytes());
    assert_eq!(error, None);
    assert_eq!(
        elements,
        [
            "<message to='x@org.example' id='1' type='chat'><body>hi</body></message>",
            "<db:result/>",
            "close"
        ]
    );
}

#[test]
fn the_header_says_all_that_negotiation_needs() {
    let found = header(HEADER).unwrap();
    assert_eq!(found.to.as_deref(), Some("org.example"));
    assert_eq!(found.from.as_deref(), Some("partner.example"));
    assert_eq!(found.id.as_deref(), Some("7"));
    assert_eq!(found.version.as_deref(), Some("1.0"));
    assert_eq!(found.lang.as_deref(), Some("en"));
    assert_eq!(found.content_namespace.as_deref(), Some(ns::SERVER));
    assert_eq!(found.prefix, "stream");
    assert!(found.declares_dialback());
    assert_eq!(found.namespace_of("db"), Some(ns::DIALBACK));

    let client = header(&HEADER.replace("jabber:server'", "jabber:client'")).unwrap();
    assert_eq!(
        client.content_namespace.as_deref(),
        Some(ns::CLIENT),
        "the machine judges it, X-01"
    );
    let bare = header("<stream xmlns='http://etherx.jabber.org/streams' to='a&amp;b'>").unwrap();
    assert_eq!(
        (&*bare.prefix, bare.to.as_deref(), bare.version),
        ("", Some("a&b"), None)
    );
}

#[test]
fn a_header_that_is_none_is_refused_x02() {
    for (text, error) in [
        (
            "<stream:stream xmlns:stream='urn:x:streams'>",
            XmlError::StreamNamespace,
        ),
        ("<stream xmlns='jabber:server'>", XmlError::StreamNamespace),
        (
            "<s:other xmlns:s='http://etherx.jabber.org/streams'>",
            XmlError::NotAStream,
        ),
        (
            "<s:stream xmlns:s='http://etherx.jabber.org/streams'/>",
            XmlError::NotAStream,
        ),
        ("<stream:stream>", XmlError::UndeclaredPrefix),
        ("</stream>", XmlError::EndTag),
    ] {
        assert_eq!(header(text), Err(error), "{text}");
    }
    assert_eq!(XmlError::StreamNamespace.condition(), "invalid-namespace");
}

#[test]
fn s27_what_is_no_xmpp_on_a_plain_port_is_told_as_what_it_is() {
    for (text, error, condition) in [
        (
            "HTTP/1.1 400 Bad Request\r\n",
            XmlError::NotXmpp,
            "bad-format",
        ),
        (
            "\r\n220 mail.example ESMTP\r\n",
            XmlError::NotXmpp,
            "bad-format",
        ),
        (
            "\u{15}\u{3}\u{3}\0\u{2}\u{2}\n",
            XmlError::TlsRecord,
            "not-well-formed",
        ),
        ("\u{16}\u{3}\u{1}", XmlError::TlsRecord, "not-well-formed"),
        (
            "\u{17}\u{3}\u{3}",
            XmlError::ForbiddenCharacter,
            "not-well-formed",
        ),
    ] {
        assert_eq!(begins(text).1, Some(error), "{text:?}");
        assert_eq!(error.condition(), condition);
    }
    // Within a stream they are what they always are.
    for (text, error) in [
        (&b"hello"[..], XmlError::TextBetweenStanzas),
        (b"\x16\x03\x01", XmlError::ForbiddenCharacter),
    ] {
        assert_eq!(in_stream(text).1, Some(error), "{text:?}");
    }
}

#[test]
fn an_entity_bomb_is_refused_at_its_declaration_x07() {
    let bomb = "<!DOCTYPE lolz [<!ENTITY lol 'lol'><!ENTITY lol2 '&lol;&lol;'>]>";
    let before = outcome(bomb.as_bytes(), Limits::default());
    assert_eq!(before, (vec![], Some(XmlError::DocumentType)));
    let after = outcome(
        format!("<?xml version='1.0'?>{bomb}").as_bytes(),
        Limits::default(),
    );
    assert_eq!(after, (vec![], Some(XmlError::DocumentType)));
    assert_eq!(XmlError::DocumentType.condition(), "restricted-xml");
}

#[test]
fn restricted_xml_is_refused_x08() {
    refused(&[
        (b"<!-- a -->", XmlError::Comment, "restricted-xml"),
        (
            b"<message><!-- a --></message>",
            XmlError::Comment,
            "restricted-xml",
        ),
        (
            b"<?php ?>",
            XmlError::ProcessingInstruction,
            "restricted-xml",
        ),
        (
            b"<message><?a b?></message>",
            XmlError::ProcessingInstruction,
            "restricted-xml",
        ),
        (
            b"<?xml version='1.0'?>",
            XmlError::ProcessingInstruction,
            "restricted-xml",
        ),
        (
            b"<message><!DOCTYPE a></message>",
            XmlError::DocumentType,
            "restricted-xml",
        ),
        (
            b"<message><!ENTITY a 'b'></message>",
            XmlError::DocumentType,
            "restricted-xml",
        ),
        (
            b"<message>&external;</message>",
            XmlError::EntityReference,
            "restricted-xml",
        ),
        (b"<![CDATA[a]]>", XmlError::TextBetweenStanzas, "bad-format"),
    ]);
    accepted(&["<message><body><![CDATA[a < b && ]] ]> c]]></body></message>"]);
    let declaration = |text: &str| header(&HEADER.replace("<?xml version='1.0'?>", text));
    assert_eq!(
        declaration("<?xml version='1.0' standalone='no'?>"),
        Err(XmlError::NotStandalone)
    );
    assert!(
        declaration("<?xml version = \"1.0\" encoding='utf-8' standalone='yes' ?>\r\n").is_ok()
    );
    assert!(declaration("").is_ok());
    for broken in [
        "<?xml?>",
        "<?xml encoding='utf-8'?>",
        "<?xml version='1.0'encoding='utf-8'?>",
        "<?xml version=1?>",
    ] {
        assert!(declaration(broken).is_err(), "{broken}");
    }
    assert_eq!(declaration("<?xml version='1.1'?>"), Err(XmlError::Version));
}

#[test]
fn what_is_not_well_formed_is_refused_x09() {
    refused(&[
        (b"<a></b>", XmlError::EndTag, "not-well-formed"),
        (b"<message></messages>", XmlError::EndTag, "not-well-formed"),
        (
            b"<message><a></message></a>",
            XmlError::EndTag,
            "not-well-formed",
        ),
        (b"</message>", XmlError::EndTag, "not-well-formed"),
        (
            b"<a b='1' b='2'/>",
            XmlError::DuplicateAttribute,
            "not-well-formed",
        ),
        (
            b"<a xmlns:x='u' xmlns:y='u' x:b='1' y:b='2'/>",
            XmlError::DuplicateAttribute,
            "not-well-formed",
        ),
        (
            b"<a xmlns:x='u&amp;' xmlns:y='u&#38;' x:b='1' y:b='2'/>",
            XmlError::DuplicateAttribute,
            "not-well-formed",
        ),
        (
            b"<p:message/>",
            XmlError::UndeclaredPrefix,
            "bad-namespace-prefix",
        ),
        (
            b"<message p:a='1'/>",
            XmlError::UndeclaredPrefix,
            "bad-namespace-prefix",
        ),
        (
            b"<message><a xmlns:p='u'/><p:b/></message>",
            XmlError::UndeclaredPrefix,
            "bad-namespace-prefix",
        ),
        (
            b"<a b='<'/>",
            XmlError::LessThanInAttribute,
            "not-well-formed",
        ),
        (
            b"<a>&unknown;</a>",
            XmlError::EntityReference,
            "restricted-xml",
        ),
        (b"<a>& </a>", XmlError::Reference, "not-well-formed"),
        (b"<a>&;</a>", XmlError::Reference, "not-well-formed"),
        (b"<a>&#;</a>", XmlError::Reference, "not-well-formed"),
        (b"<a>&#xg;</a>", XmlError::Reference, "not-well-formed"),
        (b"<a>]]></a>", XmlError::SectionEndInText, "not-well-formed"),
        (b"<a b=c/>", XmlError::Markup, "not-well-formed"),
        (b"<a b/>", XmlError::Markup, "not-well-formed"),
        (b"< a/>", XmlError::Markup, "not-well-formed"),
        (b"<a:b:c/>", XmlError::Markup, "not-well-formed"),
        (b"<:a/>", XmlError::Markup, "not-well-formed"),
        (b"<a:/>", XmlError::Markup, "not-well-formed"),
        (b"<a></ a>", XmlError::EndTag, "not-well-formed"),
        (b"<a></a b='1'>", XmlError::EndTag, "not-well-formed"),
        ("<é/>".as_bytes(), XmlError::ExoticName, "restricted-xml"),
        (b"text", XmlError::TextBetweenStanzas, "bad-format"),
        (b"&#32;", XmlError::TextBetweenStanzas, "bad-format"),
    ]);
    let (elements, error) = in_stream(b"</stream:stream> <message/>");
    assert_eq!(
        (elements, error),
        (vec!["close".to_owned()], Some(XmlError::AfterEnd))
    );
    accepted(&[
        "<a b='>'/>",
        "<a>]] ]></a>".replace("]] ]>", "]] ]").as_str(),
        "<a  b = \"'\"\n/>",
        "<a>&#x10FFFF;&lt;</a >",
    ]);
}

#[test]
fn a_header_inside_a_stream_is_refused_before_its_end_x21() {
    refused(&[
        (
            b"<stream:stream from='evil.example'>",
            XmlError::SecondHeader,
            "unsupported-stanza-type",
        ),
        (
            b"<stream xmlns='http://etherx.jabber.org/streams'/>",
            XmlError::SecondHeader,
            "unsupported-stanza-type",
        ),
    ]);
    accepted(&["<message><x xmlns='urn:x'><stream/></x></message>"]);
}

#[test]
fn attributes_need_white_space_before_them_x10() {
    refused(&[
        (b"<messageto='a'>", XmlError::Markup, "not-well-formed"),
        (
            b"<message to='a'from='b'/>",
            XmlError::MissingSpace,
            "not-well-formed",
        ),
        (b"<message/x>", XmlError::Markup, "not-well-formed"),
        (b"<message / >", XmlError::Markup, "not-well-formed"),
    ]);
}

#[test]
fn no_text_ends_a_stanza_early_x14() {
    let forged = "</message><message from='admin@org.example'>";
    let escaped = forged.replace('<', "&lt;");
    accepted(&[
        &format!(
            "<message><body>{}</body></message>",
            escaped.replace('>', "&gt;")
        ),
        &format!("<message><body>{escaped}</body></message>"),
        &format!("<message><body><![CDATA[{forged}]]></body></message>"),
        &format!("<message id=\"{escaped}\"><body/></message>"),
        &format!(
            "<message id='{}'><body/></message>",
            escaped.replace('\'', "&apos;")
        ),
        "<message id='/>'><body a=\"'/>\"/></message>",
    ]);
}

#[test]
fn a_stanza_says_what_policy_asks() {
    let stream = format!(
        "{HEADER}<message from=\"a&amp;b@c\" to='d\t@e' type='chat' id='&#49;' xml:lang='de'>text\
         <body>x</body><db:a/><s:b xmlns:s='jabber:server'/><c xmlns='urn:c'><d/></c><e xmlns=''/>\
         <f xmlns='u&amp;v'/></message>"
    );
    let mut scanner = Scanner::new(Limits::default());
    let len = scanner.next(stream.as_bytes()).unwrap().unwrap().len();
    let Some(Item::Stanza(stanza)) = scanner.next(&stream.as_bytes()[len..]).unwrap() else {
        panic!("a stanza");
    };
    assert_eq!(stanza.kind, StanzaKind::Message);
    assert_eq!(stanza.from.as_deref(), Some("a&b@c"));
    assert_eq!(stanza.to.as_deref(), Some("d @e"));
    assert_eq!(stanza.type_.as_deref(), Some("chat"));
    assert_eq!(stanza.id.as_deref(), Some("1"));
    assert!(stanza.bytes()[..stanza.start_tag].ends_with(b"xml:lang='de'>"));
    assert!(stanza.form.has_lang && !stanza.form.prefixed);
    assert_eq!(
        stanza.form.header_prefixes, 0b10,
        "db is the second prefix of the header"
    );
    let children: Vec<_> = stanza
        .children()
        .map(|(name, namespace, bytes)| (name, namespace, bytes.len()))
        .collect();
    assert_eq!(
        children,
        [
            ("body", ns::SERVER, 14),
            ("a", ns::DIALBACK, 7),
            ("b", ns::SERVER, 30),
            ("c", "urn:c", 25),
            ("e", "", 13),
            ("f", "u&v", 20),
        ]
    );
}

/// All that comes of it, whole and byte by byte.
#[track_caller]
fn begins(stream: &str) -> (Vec<String>, Option<XmlError>) {
    let whole = outcome(stream.as_bytes(), Limits::default());
    let mut scanner = Scanner::new(Limits::default());
    let (mut taken, mut elements, mut error) = (0, Vec::new(), None);
    for come in 1..=stream.len() {
        while error.is_none() && taken < come {
            match scanner.next(&stream.as_bytes()[taken..come]) {
                Ok(None) => break,
                Ok(Some(item)) => {
                    match &item {
                        Item::Other(other) => {
                            elements.push(String::from_utf8_lossy(other.bytes).into_owned());
                        }
                        Item::Close { .. } => elements.push("close".to_owned()),
                        _ => {}
                    }
                    taken += item.len();
                }
                Err(cause) => error = Some(cause),
            }
        }
    }
    assert_eq!((elements, error), whole, "byte by byte: {stream}");
    whole
}

#[test]
fn s14_what_a_peer_says_instead_of_a_header_may_follow_a_declaration_and_have_any_prefix() {
    for element in [
        "<stream:error><a/></stream:error>",
        "<stream:features/>",
        "<s:error xmlns:s='http://etherx.jabber.org/streams'><a/></s:error>",
        "<s:features xmlns:s='http://etherx.jabber.org/streams'/>",
        "<error xmlns='http://etherx.jabber.org/streams'><a/></error>",
        "<stream:error xmlns:stream='http://etherx.jabber.org/streams'/>",
        "<error xmlns='urn:ietf:params:xml:ns:xmpp-streams'><a/></error>",
    ] {
        for before in ["", "<?xml version='1.0'?>", "<?xml version='1.0'?>\n "] {
            let expected = (vec![element.to_owned()], None);
            assert_eq!(begins(&format!("{before}{element}")), expected, "{before}");
        }
    }
    for end in [
        "</stream:stream>",
        "<?xml version='1.0'?></stream:stream>",
        "<?xml version='1.0'?>\n</stream:stream >",
    ] {
        assert_eq!(begins(end), (vec!["close".to_owned()], None), "{end}");
    }
    for (stream, error) in [
        (
            "<stream:error xmlns:stream='urn:x'/>",
            XmlError::StreamNamespace,
        ),
        ("<s:error/>", XmlError::UndeclaredPrefix),
        ("<error/>", XmlError::StreamNamespace),
        (
            "<features xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>",
            XmlError::StreamNamespace,
        ),
        ("</s:stream>", XmlError::EndTag),
        (
            "<?xml version='1.0'?><?xml version='1.0'?><stream:error/>",
            XmlError::ProcessingInstruction,
        ),
    ] {
        assert_eq!(begins(stream), (vec![], Some(error)), "{stream}");
    }
}

#[test]
fn a_restart_forgets_the_stream() {
    let mut scanner = Scanner::new(Limits::default());
    scanner.next(HEADER.as_bytes()).unwrap().unwrap();
    assert!(scanner.next(b"<message").unwrap().is_none());
    assert!(scanner.in_element());
    scanner.restart();
    assert!(!scanner.in_element() && scanner.header().is_none());
    assert!(matches!(
        scanner.next(HEADER.as_bytes()),
        Ok(Some(Item::Header { .. }))
    ));
}

#[test]
fn an_idle_scanner_is_small() {
    let mut scanner = Scanner::new(Limits::default());
    let stanza = format!(
        "<message>{}</message>",
        "<a b='1' xmlns:c='urn:c'/>".repeat(50)
    );
    scanner.next(HEADER.as_bytes()).unwrap().unwrap();
    scanner.next(stanza.as_bytes()).unwrap().unwrap();
    scanner.release();
    assert!(size_of::<Scanner>() <= 328, "{}", size_of::<Scanner>());
    assert_eq!(
        scanner.attributes.capacity() + scanner.open.capacity() + scanner.children.capacity(),
        0
    );
    assert!(
        scanner.next(stanza.as_bytes()).unwrap().is_some(),
        "and goes on as before"
    );
}

/// Work is counted, not time: each call may look only at what is new and the few bytes of a token.
#[test]
fn bytes_one_at_a_time_cost_as_much_as_all_at_once() {
    let inside = "x".repeat(100_000);
    for stanza in [
        format!("<message id='{inside}'/>"),
        format!("<message>{inside}</message>"),
        format!("<message><![CDATA[{inside}]]></message>"),
        format!("<message>{}</message>", "<a/>".repeat(25_000)),
        format!("<message{}/>", " ".repeat(100_000)),
    ] {
        let mut scanner = Scanner::new(Limits::default());
        scanner.next(HEADER.as_bytes()).unwrap().unwrap();
        for end in 1..stanza.len() {
            assert!(scanner.next(&stanza.as_bytes()[..end]).unwrap().is_none());
            assert!(end - scanner.at <= 16, "{} left at {end}", end - scanner.at);
        }
        assert!(matches!(
            scanner.next(stanza.as_bytes()),
            Ok(Some(Item::Stanza(_)))
        ));
    }
}
