use super::*;

fn read(content_type: &str, body: &str) -> Result<MessageBody, BodyFault> {
    read_bytes(content_type, body.as_bytes())
}

fn read_bytes(content_type: &str, body: &[u8]) -> Result<MessageBody, BodyFault> {
    let jid = |text| BareJid::parse(text).expect("a JID");
    let (from, to) = (jid("alice@org.example"), jid("bob@partner.example"));
    let parties = RequestParties {
        from: &from,
        to: &to,
    };
    MessageBody::read(Some(content_type), body, parties)
}

fn text(text: &str) -> Result<MessageBody, BodyFault> {
    Ok(MessageBody::Text(text.to_owned()))
}

fn active(refresh: u32) -> Result<MessageBody, BodyFault> {
    Ok(MessageBody::Typing(Typing::Active { refresh }))
}

#[test]
fn sip_15_text_is_read_in_the_charsets_that_are_carried() {
    for (content_type, body, expected) in [
        (
            "text/plain",
            "Gr\u{fc}\u{df}e <&>".as_bytes(),
            text("Gr\u{fc}\u{df}e <&>"),
        ),
        (
            "text/plain;charset=UTF-8",
            "\u{1f600}".as_bytes(),
            text("\u{1f600}"),
        ),
        ("Text/Plain ; Charset=\"utf-8\"", b"a", text("a")),
        ("text/plain;charset=us-ascii;format=flowed", b"a", text("a")),
        (
            "text/plain;charset=ISO-8859-1",
            b"Gr\xfc\xdfe",
            text("Gr\u{fc}\u{df}e"),
        ),
        (
            "text/plain;charset=us-ascii",
            b"\xfc",
            Err(BodyFault::Charset),
        ),
        ("text/plain", b"\xfc", Err(BodyFault::Charset)),
        (
            "text/plain;charset=koi8-r",
            b"a",
            Err(BodyFault::Unsupported),
        ),
        ("text/html", b"<p>a</p>", Err(BodyFault::Unsupported)),
        (
            "application/octet-stream",
            b"a",
            Err(BodyFault::Unsupported),
        ),
        ("text", b"a", Err(BodyFault::Unsupported)),
        ("", b"a", Err(BodyFault::Type(ValueFault::Empty))),
        (
            "text/plain;charset=\"",
            b"a",
            Err(BodyFault::Type(ValueFault::Unquoted)),
        ),
        ("text/html", b"", Ok(MessageBody::Nothing)),
        ("text/plain;charset=utf-8", b"", Ok(MessageBody::Nothing)),
    ] {
        assert_eq!(read_bytes(content_type, body), expected, "{content_type}");
    }
    assert_eq!(BodyFault::Unsupported.code(), 415);
    assert_eq!(BodyFault::OtherParties.code(), 403);
    assert_eq!(BodyFault::Charset.code(), 400);
}

#[test]
fn sip_18_what_xml_cannot_carry_is_replaced_and_line_ends_are_xml_s() {
    let body = "a\u{8}b\rc\u{fffe}d\r\ne\nf\tg\r";
    assert_eq!(
        read("text/plain", body),
        text("a\u{fffd}b\u{fffd}c\u{fffd}d\ne\nf\tg\u{fffd}")
    );
}

#[test]
fn sip_13_typing_is_active_or_idle_whatever_it_is_called() {
    const TYPE: &str = "application/im-iscomposing+xml";
    let document = |inner: &str| {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <isComposing xmlns=\"urn:ietf:params:xml:ns:im-iscomposing\" \
             xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
             xsi:schemaLocation=\"urn:ietf:params:xml:ns:im-composing iscomposing.xsd\">{inner}</isComposing>"
        )
    };
    let idle = || Ok(MessageBody::Typing(Typing::Idle));
    for (inner, expected) in [
        // RFC 3994 section 5.
        (
            "<state>active</state><contenttype>text/plain</contenttype><refresh>90</refresh>",
            active(90),
        ),
        (
            "<state>idle</state><lastactive>2003-01-27T10:43:00Z</lastactive>\
             <contenttype>audio</contenttype>",
            idle(),
        ),
        ("<state>active</state>", active(120)),
        (
            "<state> active\n</state><refresh> 60 </refresh>",
            active(60),
        ),
        ("<state>active</state><refresh>0</refresh>", active(120)),
        ("<state>active</state><refresh>-5</refresh>", active(120)),
        (
            "<state>active</state><refresh>4294967296</refresh>",
            active(3_600),
        ),
        ("<state>foo</state><refresh>60</refresh>", idle()),
        ("<state/>", idle()),
        (
            "<state>active</state><x xmlns='urn:x'><state>idle</state></x>",
            active(120),
        ),
        ("<refresh>60</refresh>", Err(BodyFault::Typing)),
        (
            "<state xmlns='urn:x'>active</state>",
            Err(BodyFault::Typing),
        ),
        ("<state>&x;</state>", Err(BodyFault::Typing)),
    ] {
        assert_eq!(read(TYPE, &document(inner)), expected, "{inner}");
    }
    for text in ["<isComposing/>", "<!DOCTYPE a><a/>", "active"] {
        assert_eq!(read(TYPE, text), Err(BodyFault::Typing), "{text}");
    }
    assert_eq!(
        read(TYPE, &document(&"<x/>".repeat(64))),
        Err(BodyFault::Typing)
    );
}

#[test]
fn typing_is_written_so_that_it_is_read_the_same() {
    for typing in [
        Typing::started(),
        Typing::Idle,
        Typing::Active { refresh: 3_600 },
    ] {
        assert_eq!(Typing::read(typing.to_document().as_bytes()), Ok(typing));
    }
    assert!(
        Typing::started()
            .to_document()
            .contains("<refresh>60</refresh>")
    );
}

#[test]
fn sip_15_a_wrapper_says_nothing_else_than_its_request() {
    let cpim = |head: &str, inner: &str| read("message/cpim", &format!("{head}\r\n{inner}"));
    let plain = "Content-type: text/plain; charset=utf-8\r\nContent-ID: <1@x>\r\n\r\nHi";
    let right = "From: MR SANDERS <im:alice@org.example>\r\n\
                 To: \"B, \\\"O\\\" <B>\" <sip:Bob@Partner.example;transport=tcp>\r\n\
                 DateTime: 2000-12-13T13:40:00-08:00\r\n\
                 Subject:;lang=fr Objet\r\n\
                 NS: MyFeatures <mid:MessageFeatures@id.foo.com>\r\n\
                 MyFeatures.From: <im:mallory@evil.example>\r\n";
    assert_eq!(cpim(right, plain), text("Hi"));
    assert_eq!(
        cpim("From:;lang=en <im:alice@org.example>\r\n", plain),
        text("Hi")
    );
    // Without one, it is nobody else's.
    assert_eq!(cpim("", plain), text("Hi"));
    assert_eq!(cpim(right, "\r\nHi"), text("Hi"));
    for other in [
        "From: <im:mallory@org.example>\r\n",
        "From: <im:alice@evil.example>\r\n",
        "From: <tel:+1>\r\n",
        "To: <im:bob@partner.example>\r\nTo: <im:carol@partner.example>\r\n",
        "From: <im:alice@org.example>\r\nFrom: <im:mallory@org.example>\r\n",
    ] {
        assert_eq!(cpim(other, plain), Err(BodyFault::OtherParties), "{other}");
    }
    for (head, inner, fault) in [
        (
            "Require: MyFeatures.Vital\r\n",
            plain,
            BodyFault::Unsupported,
        ),
        (
            right,
            "Content-Type: text/html\r\n\r\nHi",
            BodyFault::Unsupported,
        ),
        (
            right,
            "Content-Type: message/cpim\r\n\r\n\r\n\r\nHi",
            BodyFault::Unsupported,
        ),
        (
            right,
            "Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\nSGk=",
            BodyFault::Unsupported,
        ),
        (right, "Content-Type: text/plain\r\nHi", BodyFault::Wrapper),
        ("From: <im:alice@org.example\r\n", plain, BodyFault::Wrapper),
        ("From\r\n", plain, BodyFault::Wrapper),
        (
            "From: <im:alice@org.example>\rX: y\r\n",
            plain,
            BodyFault::Wrapper,
        ),
    ] {
        assert_eq!(cpim(head, inner), Err(fault), "{head}{inner}");
    }
    let typing = format!(
        "Content-Type: application/im-iscomposing+xml\r\n\r\n{}",
        Typing::started().to_document()
    );
    assert_eq!(cpim(right, &typing), active(60));
    let many: String = (0..40).map(|n| format!("X-{n}: y\r\n")).collect();
    assert_eq!(cpim(&many, plain), Err(BodyFault::Wrapper));
}

#[test]
fn sip_15_of_alternatives_the_text_is_taken() {
    let multipart = |body: &str| read("multipart/alternative;boundary=\"b 1\"", body);
    let html = "Content-Type: text/html\r\n\r\n<p>Hi</p>";
    let plain = "Content-Type: text/plain;charset=utf-8\r\n\r\nHi\r\n--b 12";
    let whole = format!("preamble\r\n--b 1\r\n{html}\r\n--b 1 \r\n{plain}\r\n--b 1--\r\nepilogue");
    assert_eq!(multipart(&whole), text("Hi\n--b 12"));
    assert_eq!(multipart("--b 1\r\n\r\nHi\r\n--b 1--"), text("Hi"));
    assert_eq!(
        multipart("--b 1\r\n\r\n\r\n--b 1--"),
        Ok(MessageBody::Nothing)
    );
    for (body, fault) in [
        (format!("--b 1\r\n{html}\r\n--b 1--"), BodyFault::Unsupported),
        // Not ended: what is cut off is not taken for whole.
        (format!("--b 1\r\n{plain}\r\n"), BodyFault::Wrapper),
        ("Hi".to_owned(), BodyFault::Wrapper),
        ("--b 1--".to_owned(), BodyFault::Unsupported),
        (
            "--b 1\r\nContent-Type: multipart/alternative;boundary=c\r\n\r\n--c\r\n\r\nHi\r\n--c--\r\n--b 1--"
                .to_owned(),
            BodyFault::Unsupported,
        ),
        (
            format!("{}--b 1--", "--b 1\r\n\r\na\r\n".repeat(17)),
            BodyFault::Wrapper,
        ),
    ] {
        assert_eq!(multipart(&body), Err(fault), "{body}");
    }
    assert_eq!(
        read("multipart/alternative", "--\r\n"),
        Err(BodyFault::Wrapper)
    );
    assert_eq!(
        read("multipart/mixed;boundary=b", "--b\r\n"),
        Err(BodyFault::Unsupported)
    );
}
