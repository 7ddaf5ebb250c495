//! What is no XML character, no encoding of ours and no namespace name.

use super::*;

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
