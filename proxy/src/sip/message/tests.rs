use jiff::{SignedDuration, Timestamp};
use xmpp_edge_crds::jid::BareJid;

use super::*;
use crate::{
    sip::wire::{Framed, Framer, SipHeaders},
    xml::{Element, Item, Limits, Scanner, StreamHeader},
};

const HEADER: &[u8] =
    b"<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";

/// As a stream reads it.
fn stanza(text: &[u8]) -> Element {
    let mut scanner = Scanner::new(Limits::default());
    let Ok(Some(Item::Header { header, .. })) = scanner.next(HEADER) else {
        panic!("a right header");
    };
    let header: &StreamHeader = &header;
    match scanner.next(text) {
        Ok(Some(Item::Stanza(stanza))) => Element::parse(stanza.bytes(), header).expect("checked"),
        other => panic!("{}: {other:?}", String::from_utf8_lossy(text)),
    }
}

fn outgoing(attributes: &str, content: &str) -> OutgoingMessage {
    let text = format!(
        "<message from='r@partner.example' to='u@org.example'{attributes}>{content}</message>"
    );
    OutgoingMessage::of_stanza(&stanza(text.as_bytes()), Some("en"))
}

fn page(attributes: &str, content: &str) -> PageMessage {
    match outgoing(attributes, content) {
        OutgoingMessage::Page(page) => page,
        other => panic!("{content}: {other:?}"),
    }
}

#[test]
fn sip_07_the_text_is_that_of_the_stanza_s_language() {
    let said = |attributes, content| {
        let page = page(attributes, content);
        (page.text, page.language.unwrap_or_default())
    };
    let text = |text: &str, language: &str| (text.to_owned(), language.to_owned());
    let three = "<body xml:lang='de'>Hallo</body><body>Salut</body><body xml:lang='it'>Ciao</body>";
    assert_eq!(
        said("", "<body>a &lt;b&gt; \u{1f600}\n</body>"),
        text("a <b> \u{1f600}\n", "en")
    );
    assert_eq!(said(" xml:lang='de'", three), text("Hallo", "de"));
    assert_eq!(said(" xml:lang='DE'", three), text("Hallo", "de"));
    assert_eq!(said(" xml:lang='fr'", three), text("Salut", "fr"));
    assert_eq!(said(" type='normal'", three), text("Salut", "en"));
    let foreign = "<body xml:lang='de'>Hallo</body><body xml:lang='it'>Ciao</body>";
    assert_eq!(
        said(" xml:lang='fr' type='chat'", foreign),
        text("Hallo", "de")
    );
    assert_eq!(said("", "<body xml:lang='no tag'>x</body>"), text("x", ""));
    assert_eq!(
        said("", "<body/><body xml:lang='de'>x</body>"),
        text("x", "de")
    );
    // Of another namespace it is something else.
    assert_eq!(
        outgoing("", "<body xmlns='urn:x'>x</body>"),
        OutgoingMessage::Untranslated(Untranslated::Content)
    );
}

#[test]
fn sip_07_a_subject_is_a_line_or_the_text() {
    let of = |content| {
        let page = page("", content);
        (page.subject.unwrap_or_default(), page.text)
    };
    let both = |subject: &str, text: &str| (subject.to_owned(), text.to_owned());
    assert_eq!(of("<subject>s</subject><body>b</body>"), both("s", "b"));
    assert_eq!(of("<subject>s</subject>"), both("", "s"));
    assert_eq!(of("<subject> </subject><body>b</body>"), both("", "b"));
    assert_eq!(
        of("<subject>a&#13;&#10;Route: x</subject><body>b</body>"),
        both("a  Route: x", "b")
    );
    let long = "\u{e9}".repeat(600);
    let found = of(&format!("<subject>{long}</subject><body>b</body>"));
    assert_eq!(found, both("", &format!("{long}\n\nb")), "nothing is cut");
}

#[test]
fn sip_12_a_state_is_one_of_two_and_what_says_nothing_is_counted() {
    let state = |name: &str| {
        outgoing(
            "",
            &format!("<{name} xmlns='http://jabber.org/protocol/chatstates'/>"),
        )
    };
    assert_eq!(
        state("composing"),
        OutgoingMessage::Typing(ChatState::Composing)
    );
    for name in ["paused", "active", "inactive", "gone"] {
        assert_eq!(
            state(name),
            OutgoingMessage::Typing(ChatState::NotComposing),
            "{name}"
        );
    }
    assert_eq!(
        state("frob"),
        OutgoingMessage::Untranslated(Untranslated::Content)
    );
    let marker = "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>";
    assert_eq!(
        outgoing("", marker),
        OutgoingMessage::Untranslated(Untranslated::Content)
    );
    for kind in ["headline", "groupchat"] {
        let found = outgoing(&format!(" type='{kind}'"), "<body>x</body>");
        assert_eq!(found, OutgoingMessage::Untranslated(Untranslated::Type));
    }
    assert_eq!(
        outgoing(" type='error'", "<body>x</body>"),
        OutgoingMessage::Error
    );
    // A text beside a state is the text alone.
    let both = "<body>x</body><active xmlns='http://jabber.org/protocol/chatstates'/>";
    assert_eq!(page("", both).text, "x");
}

#[test]
fn sip_11_a_receipt_is_asked_for_by_what_has_an_id() {
    let asks = "<body>x</body><request xmlns='urn:xmpp:receipts'/>";
    assert_eq!(page(" id='a'", asks).receipt, Receipt::Asked);
    assert_eq!(page("", asks).receipt, Receipt::NotAsked);
    assert_eq!(page(" id='a'", "<body>x</body>").receipt, Receipt::NotAsked);
}

#[test]
fn sip_17_what_was_kept_says_when_it_was_sent() {
    let sent = |stamp: &str| {
        page(
            "",
            &format!("<body>x</body><delay xmlns='urn:xmpp:delay' stamp='{stamp}'/>"),
        )
        .sent
    };
    let expected: Timestamp = "2002-09-10T23:08:25Z".parse().expect("a time");
    assert_eq!(sent("2002-09-10T23:08:25Z"), Some(expected));
    assert_eq!(sent("yesterday"), None);
}

fn headers(fields: &str) -> SipHeaders {
    let text = format!("MESSAGE sip:u@org.example SIP/2.0\r\n{fields}Content-Length: 0\r\n\r\n");
    match Framer::default().next(text.as_bytes()) {
        Ok(Some(Framed::Message { headers, .. })) => headers,
        other => panic!("{fields}: {other:?}"),
    }
}

fn incoming(fields: &str, text: &str) -> String {
    let (from, to) = (jid("o'hara@org.example"), jid("r@partner.example"));
    let said = IncomingText::new(text.to_owned(), &headers(fields));
    let now = "2026-11-30T12:00:00Z".parse().expect("a time");
    let written = text_stanza(addresses(&from, &to), &said, now).to_bytes();
    let read = stanza(&written);
    assert_eq!(
        read.child("jabber:server", "body")
            .map(Element::text)
            .as_deref(),
        Some(text)
    );
    String::from_utf8(written).expect("UTF-8")
}

fn jid(text: &str) -> BareJid {
    BareJid::parse(&text.replace('\'', r"\27")).expect("a JID")
}

fn addresses<'a>(from: &'a BareJid, to: &'a BareJid) -> StanzaAddresses<'a> {
    StanzaAddresses {
        from,
        to,
        resource: None,
        id: "i1",
    }
}

#[test]
fn sip_02_a_text_is_a_chat_that_asks_for_typing() {
    assert_eq!(
        incoming("", "a <b> & 'c'"),
        r"<message from='o\27hara@org.example' to='r@partner.example' type='chat' id='i1'><body>a &lt;b&gt; &amp; 'c'</body><active xmlns='http://jabber.org/protocol/chatstates'/></message>"
    );
    let text = incoming("Content-Language: de, en\r\nSubject: a\u{8} <b>\r\n", "x");
    assert!(
        text.contains(" xml:lang='de'") && text.contains("<subject>a\u{fffd} &lt;b&gt;</subject>"),
        "{text}"
    );
    let text = incoming("Content-Language: \"de\r\nSubject:\r\n", "x");
    assert!(
        !text.contains("xml:lang") && !text.contains("subject"),
        "{text}"
    );
}

#[test]
fn sip_16_a_text_that_is_late_says_so() {
    let late = incoming("Date: Mon, 30 Nov 2026 11:00:00 GMT\r\n", "x");
    assert!(
        late.contains(
            "<delay xmlns='urn:xmpp:delay' from='org.example' stamp='2026-11-30T11:00:00Z'/>"
        ),
        "{late}"
    );
    for date in [
        "Mon, 30 Nov 2026 11:59:30 GMT",
        "Mon, 30 Nov 2026 12:30:00 GMT",
        "Mon, 30 Nov 2026 11:00:00 EST",
        "Mon, 30 Nov 2026 11:00:00 +0000",
        "x GMT",
        "",
    ] {
        let text = incoming(&format!("Date: {date}\r\n"), "x");
        assert!(!text.contains("delay"), "{date}");
    }
    // As far as a clock goes.
    let ends = IncomingText {
        sent: Some(Timestamp::MIN),
        ..IncomingText::new("x".to_owned(), &SipHeaders::default())
    };
    let (from, to) = (jid("a@org.example"), jid("r@partner.example"));
    let stanza = text_stanza(addresses(&from, &to), &ends, Timestamp::MAX);
    assert!(stanza.child("urn:xmpp:delay", "delay").is_some());
    assert!(Timestamp::MAX.duration_since(Timestamp::MIN) > SignedDuration::ZERO);
}

#[test]
fn sip_13_typing_and_receipts_are_chats_without_a_text() {
    let (from, to) = (jid("u@org.example"), jid("r@partner.example"));
    let to_device = StanzaAddresses {
        resource: Some("a 'b'"),
        ..addresses(&from, &to)
    };
    let text = |element: Element| String::from_utf8(element.to_bytes()).expect("UTF-8");
    let composing = text(typing_stanza(to_device, ChatState::Composing));
    assert!(
        composing.contains("to='r@partner.example/a &apos;b&apos;'"),
        "{composing}"
    );
    assert!(composing.contains("<composing xmlns='http://jabber.org/protocol/chatstates'/>"));
    let paused = text(typing_stanza(to_device, ChatState::NotComposing));
    assert!(paused.contains("<paused ") && paused.contains("type='chat'"));
    let told = text(received(to_device, "<x>"));
    assert!(
        told.contains("<received xmlns='urn:xmpp:receipts' id='&lt;x&gt;'/>"),
        "{told}"
    );
}
