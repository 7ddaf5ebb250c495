#![allow(clippy::unwrap_used)]

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
                        elements.push(String::from_utf8_lossy(stanza.bytes).into_owned())
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
        (bare.prefix.as_str(), bare.to.as_deref(), bare.version),
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
            "<s:features xmlns:s='http://etherx.jabber.org/streams'>",
            XmlError::NotAStream,
        ),
        (
            "<s:stream xmlns:s='http://etherx.jabber.org/streams'/>",
            XmlError::NotAStream,
        ),
        ("<stream:stream>", XmlError::UndeclaredPrefix),
        ("hello", XmlError::TextBetweenStanzas),
        ("</stream:stream>", XmlError::EndTag),
        ("\u{16}\u{3}\u{1}", XmlError::ForbiddenCharacter),
    ] {
        assert_eq!(header(text), Err(error), "{text}");
    }
    assert_eq!(XmlError::StreamNamespace.condition(), "invalid-namespace");
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
fn bytes_that_are_no_xml_characters_are_refused_x11() {
    for bad in [
        &b"\xff"[..],
        b"\x80",
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xf0\x80\x80\x80",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xc3(",
        b"\xe6\xbc(",
        b"\xf0\x9d\x84(",
    ] {
        for (before, after) in [
            ("<message><body>", "</body></message>"),
            ("<message id='", "'/>"),
            ("<a><![CDATA[", "]]></a>"),
        ] {
            let content = [before.as_bytes(), bad, after.as_bytes()].concat();
            assert_eq!(
                in_stream(&content),
                (vec![], Some(XmlError::NotUtf8)),
                "{bad:x?}"
            );
        }
    }
    for bad in [
        "\0",
        "\u{1}",
        "\u{b}",
        "\u{1f}",
        "\u{fffe}",
        "\u{ffff}",
        "&#0;",
        "&#x0;",
        "&#xB;",
        "&#xD800;",
        "&#xFFFE;",
        "&#x110000;",
    ] {
        for (before, after) in [
            ("<message><body>", "</body></message>"),
            ("<message id='", "'/>"),
        ] {
            let content = format!("{before}{bad}{after}");
            assert_eq!(
                in_stream(content.as_bytes()),
                (vec![], Some(XmlError::ForbiddenCharacter)),
                "{bad:?}"
            );
        }
    }
    assert_eq!(XmlError::NotUtf8.condition(), "not-well-formed");
    accepted(&["<message><body>é漢𝄞\u{7f}\u{85}\u{fffd}\u{10ffff}\t\r\n</body></message>"]);
}

#[test]
fn other_encodings_are_refused_x12() {
    for stream in [
        &b"\xff\xfe<\0s\0"[..],
        b"\xfe\xff\0<\0s",
        b"<\0?\0x\0m\0l\0",
        b"\0<\0?",
        b"<?xml version='1.0' encoding='utf-16'?>",
        b"<?xml version='1.0' encoding='latin1'?>",
    ] {
        let (elements, error) = outcome(stream, Limits::default());
        assert!(elements.is_empty());
        let error = error.unwrap();
        assert_eq!(
            error.condition(),
            "unsupported-encoding",
            "{stream:x?}: {error}"
        );
    }
}

#[test]
fn namespace_names_cannot_be_forged_x13() {
    for bad in [
        "jabber:server\n",
        "jabber:server&#10;",
        "jabber:server&#x9;",
        "jabber:server ",
        "a&#32;b",
        "a\u{85}b",
        "a\u{a0}b",
    ] {
        let content = format!("<message xmlns='{bad}'/>");
        assert_eq!(
            in_stream(content.as_bytes()),
            (vec![], Some(XmlError::NamespaceName)),
            "{bad:?}"
        );
    }
    // A separator that is a character like any other stays one: the element is no stanza.
    for opaque in [
        "jabber:server|message",
        "jabber:server}message",
        "jabber:servers",
    ] {
        let stream = format!("{HEADER}<message xmlns='{opaque}'/>");
        let mut scanner = Scanner::new(Limits::default());
        let len = scanner.next(stream.as_bytes()).unwrap().unwrap().len();
        match scanner.next(&stream.as_bytes()[len..]) {
            Ok(Some(Item::Other(other))) => {
                assert_eq!((other.namespace, other.name), (opaque, "message"))
            }
            other => panic!("{other:?}"),
        }
    }
    refused(&[
        (
            b"<a xmlns:p=''/>",
            XmlError::ReservedPrefix,
            "bad-namespace-prefix",
        ),
        (
            b"<a xmlns:xml='urn:x'/>",
            XmlError::ReservedPrefix,
            "bad-namespace-prefix",
        ),
        (
            b"<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>",
            XmlError::ReservedPrefix,
            "bad-namespace-prefix",
        ),
        (
            b"<a xmlns='http://www.w3.org/2000/xmlns/'/>",
            XmlError::ReservedPrefix,
            "bad-namespace-prefix",
        ),
        (
            b"<a xmlns:xmlns='urn:x'/>",
            XmlError::ReservedPrefix,
            "bad-namespace-prefix",
        ),
        (
            b"<xmlns:a/>",
            XmlError::ReservedPrefix,
            "bad-namespace-prefix",
        ),
    ]);
    accepted(&[
        "<a xmlns:xml='http://www.w3.org/XML/1998/namespace' xml:lang='de'/>",
        "<message><a xmlns=''/></message>",
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
fn limits_hold_at_their_value_and_not_beyond_x15_x16() {
    let limits = Limits {
        stanza_bytes: 5_000,
        depth: 8,
        attributes: 10,
        namespaces: 6,
        all_namespaces: 8,
        namespaces_in_force: 7,
        name_bytes: 20,
    };
    // From the smallest count to the one too many: what is made of the count, and the error.
    let nested = |n: usize| format!("{}{}", "<a>".repeat(n), "</a>".repeat(n));
    let attributes = |n: usize| {
        format!(
            "<a{}/>",
            (0..n).map(|i| format!(" b{i}=''")).collect::<String>()
        )
    };
    let spread = |n: usize| {
        format!(
            "<m>{}</m>",
            (0..n)
                .map(|i| format!("<a xmlns='u{i}'/>"))
                .collect::<String>()
        )
    };
    let declared = |n: usize| {
        let all: String = (0..n).map(|i| format!(" xmlns:p{i}='u'")).collect();
        format!("<a{all}/>")
    };
    let in_force = |n: usize| format!("{}{}", "<a xmlns='u'>".repeat(n), "</a>".repeat(n));
    let long = |n: usize| format!("<{}/>", "a".repeat(n));
    let long_attribute = |n: usize| format!("<a {}=''/>", "b".repeat(n));
    let long_namespace = |n: usize| format!("<a xmlns='{}'/>", "u".repeat(n));
    let text = |n: usize| format!("<a>{}</a>", "x".repeat(n - 7));
    let children = |n: usize| format!("<a>{}</a>", "<b/>".repeat(n)) + "<c/>";
    type Make<'a> = &'a dyn Fn(usize) -> String;
    let cases: [(Make<'_>, usize, XmlError); 10] = [
        (&nested, 8, XmlError::TooDeep),
        (&attributes, 10, XmlError::TooManyAttributes),
        (&declared, 6, XmlError::TooManyNamespaces),
        (&spread, 8, XmlError::TooManyNamespaces),
        (&in_force, 7, XmlError::TooManyNamespaces),
        (&long, 20, XmlError::NameTooLong),
        (&long_attribute, 20, XmlError::NameTooLong),
        (&long_namespace, 20, XmlError::NameTooLong),
        (&text, 5_000, XmlError::TooLarge),
        (&children, 1_248, XmlError::TooLarge),
    ];
    let small = header("<stream:stream xmlns:stream='http://etherx.jabber.org/streams'>").unwrap();
    assert_eq!(small.prefixes.len(), 1);
    for (make, most, error) in cases {
        let stream = |n| {
            format!(
                "<stream:stream xmlns:stream='http://etherx.jabber.org/streams'>{}",
                make(n)
            )
        };
        // The name of a stream's namespace is longer than what the table allows.
        let limits = if error == XmlError::NameTooLong {
            Limits {
                name_bytes: 40,
                ..limits
            }
        } else {
            Limits {
                name_bytes: 256,
                ..limits
            }
        };
        let most = if error == XmlError::NameTooLong {
            40
        } else {
            most
        };
        assert_eq!(
            outcome(stream(most).as_bytes(), limits).1,
            None,
            "{error} at {most}"
        );
        assert_eq!(
            outcome(stream(most + 1).as_bytes(), limits).1,
            Some(error),
            "{error} past {most}"
        );
        assert_eq!(error.condition(), "policy-violation");
    }
}

#[test]
fn what_is_too_large_is_refused_at_the_first_byte_too_many() {
    let mut scanner = Scanner::new(Limits::default());
    let len = scanner.next(HEADER.as_bytes()).unwrap().unwrap().len();
    assert_eq!(len, HEADER.len());
    scanner.set_stanza_bytes(100);
    let open = format!("<message id='{}", "x".repeat(200));
    assert!(scanner.next(&open.as_bytes()[..100]).unwrap().is_none());
    assert_eq!(
        scanner.next(&open.as_bytes()[..101]).unwrap_err(),
        XmlError::TooLarge
    );
    assert_eq!(
        scanner.next(b"<a/>").unwrap_err(),
        XmlError::TooLarge,
        "an error is final"
    );
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
    assert!(stanza.bytes[..stanza.start_tag].ends_with(b"xml:lang='de'>"));
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
    assert!(size_of::<Scanner>() <= 320, "{}", size_of::<Scanner>());
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
