#![allow(clippy::unwrap_used)]

use super::*;
use crate::xml::{StreamHeader, ns};

fn header() -> StreamHeader {
    StreamHeader {
        content_namespace: Some(ns::SERVER.into()),
        prefix: "stream".into(),
        prefixes: vec![
            ("stream".into(), ns::STREAM.into()),
            ("db".into(), ns::DIALBACK.into()),
        ],
        ..StreamHeader::default()
    }
}

fn parsed(text: &str) -> Result<Element, ElementError> {
    Element::parse(text.as_bytes(), &header())
}

#[test]
fn negotiation_reads_names_attributes_and_text() {
    let features = parsed(
        "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>\
         <mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>EXTERNAL</mechanism></mechanisms></stream:features>",
    )
    .unwrap();
    assert!(features.is(ns::STREAM, "features"));
    let starttls = features
        .child("urn:ietf:params:xml:ns:xmpp-tls", "starttls")
        .unwrap();
    assert!(
        starttls
            .child("urn:ietf:params:xml:ns:xmpp-tls", "required")
            .is_some()
    );
    let mechanisms = features
        .child("urn:ietf:params:xml:ns:xmpp-sasl", "mechanisms")
        .unwrap();
    assert_eq!(mechanisms.children().next().unwrap().text(), "EXTERNAL");

    let key = parsed("<db:result from='a&amp;b' to=\"c\" a:b='1' xmlns:a='urn:a'>00&#102;<![CDATA[f]]>\r\n</db:result>").unwrap();
    assert!(key.is(ns::DIALBACK, "result"));
    assert_eq!(key.attribute("from"), Some("a&b"));
    assert_eq!(
        key.attribute("b"),
        None,
        "an attribute of a namespace is another"
    );
    assert_eq!(key.text(), "00ff\n");
    assert_eq!(key.content.len(), 1);
}

#[test]
fn what_is_not_one_element_is_an_error() {
    for text in [
        "",
        "text",
        "<a/><b/>",
        "<a>",
        "</a>",
        "<!-- a --><a/>",
        "<p:a/>",
        "<a p:b='1'/>",
        "<a/>text",
    ] {
        assert!(parsed(text).is_err(), "{text}");
    }
    assert_eq!(
        Element::parse(b"<a>\xff</a>", &header()),
        Err(ElementError::NotUtf8)
    );
}

#[test]
fn what_is_written_reads_the_same() {
    for text in [
        "<a/>",
        "<db:verify from='a' to='b' id='1'>00</db:verify>",
        "<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
        "<a xmlns=''><b xmlns='urn:b'>&lt;&amp;&gt;<c xmlns=''/></b></a>",
        "<a xmlns:p='urn:p' p:b='&quot;&apos;&#9;&#10;&#13;' xml:lang='de'><p:c/></a>",
        "<a xmlns:p='jabber:server' p:b='1' b='2'><p:c/></a>",
        "<a><b xmlns='urn:b'/><b xmlns='urn:b'/><b xmlns='urn:b'/><b xmlns='urn:b'/><b xmlns='urn:b'/></a>",
        "<a>&#13;\n</a>",
    ] {
        let element = parsed(text).unwrap();
        let written = String::from_utf8(element.to_bytes()).unwrap();
        assert_eq!(parsed(&written).unwrap(), element, "{text} as {written}");
    }
}

#[test]
fn elements_are_written_as_peers_expect_them() {
    let result = Element::new(ns::DIALBACK, "result")
        .with_attribute("from", "a'b")
        .with_text("0<f");
    assert_eq!(
        result.to_bytes(),
        b"<db:result from='a&apos;b'>0&lt;f</db:result>"
    );
    let features = Element::new(ns::STREAM, "features").with_child(
        Element::new("urn:ietf:params:xml:ns:xmpp-tls", "starttls")
            .with_child(Element::new("urn:ietf:params:xml:ns:xmpp-tls", "required")),
    );
    assert_eq!(
        features.to_bytes(),
        b"<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>"
    );
}
