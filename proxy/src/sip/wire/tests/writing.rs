//! What is written, whatever is carried in it.

use proptest::prelude::*;

use super::*;

#[test]
fn an_answer_gives_back_what_makes_it_that_request_s() {
    let (_, headers) = message(&lines(TORTUOUS, "v=0\n"));
    let answer = SipWriter::answer(StatusCode::new(480).expect("a code"), &headers, "ours");
    let answer = answer.and_then(|it| it.field(HeaderName::Warning, "399 edge \"x\""));
    let text = String::from_utf8(answer.expect("a hop").finish()).expect("UTF-8");
    assert!(
        text.starts_with(
            "SIP/2.0 480 Temporarily Unavailable\r\nVia: SIP  /   2.0 /UDP 192.0.2.2;"
        )
    );
    assert_eq!(text.matches("\r\nVia: ").count(), 2);
    assert!(text.contains("tag    = 1918181833n\r\n") && !text.contains("ours"));
    assert!(text.ends_with("\r\nWarning: 399 edge \"x\"\r\nContent-Length: 0\r\n\r\n"));

    let (_, headers) = message(&lines(OPTIONS, ""));
    let answer = SipWriter::answer(StatusCode::OK, &headers, "ours").expect("a hop");
    let answer = response(&answer.finish()).expect("well-formed");
    assert_eq!(
        (answer.to.tag(), answer.branch.as_str()),
        (Some("ours"), "z9hG4bKkdjuw")
    );
    let nobody = SipHeaders::default();
    assert!(matches!(
        SipWriter::answer(StatusCode::OK, &nobody, "t"),
        Err(WriteFault::NoVia)
    ));
}

#[test]
fn sip_08_nobody_s_text_becomes_a_header_field() {
    let writer = || SipWriter::request(SipMethod::Message, "sip:a@b.example").expect("right");
    for text in ["a\r\nRoute: <sip:x>", "a\nb", "a\rb", "a\0b", "a\u{85}b"] {
        let found = writer().field(HeaderName::Subject, text);
        assert!(
            matches!(found, Err(WriteFault::ControlCharacter)),
            "{text:?}"
        );
        let uri = SipWriter::request(SipMethod::Message, text);
        assert!(uri.is_err(), "{text:?}");
        let quoted = quoted(text);
        assert!(
            writer().field(HeaderName::Warning, &quoted).is_ok(),
            "{quoted:?}"
        );
    }
    assert_eq!(quoted("a\"b\\c\r\nd"), r#""a\"b\\c  d""#);
    let long = "a".repeat(MAX_LINE_BYTES);
    assert!(matches!(
        writer().field(HeaderName::Subject, &long),
        Err(WriteFault::LineTooLong)
    ));
    let unknown = SipWriter::request(SipMethod::Unknown, "sip:a@b.example");
    assert!(matches!(unknown, Err(WriteFault::Method)));
    let body = vec![0; MAX_BODY_BYTES + 1];
    assert_eq!(
        writer().finish_with("text/plain", &body),
        Err(WriteFault::BodyTooLarge)
    );
}

proptest! {
    /// What is written is read as it was meant, whatever is carried in it.
    #[test]
    fn what_is_written_is_read(subject in r"\PC{0,80}", body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let writer = SipWriter::request(SipMethod::Message, "sip:a@b.example").expect("right");
        let writer = [
            (HeaderName::Via, "SIP/2.0/TLS edge.example;branch=z9hG4bKx;alias"),
            (HeaderName::MaxForwards, "70"),
            (HeaderName::From, "<sip:b@partner.example>;tag=f"),
            (HeaderName::To, "<sip:a@b.example>"),
            (HeaderName::CallId, "c"),
            (HeaderName::CSeq, "1 MESSAGE"),
            (HeaderName::Subject, subject.trim()),
        ].into_iter().try_fold(writer, |writer, (name, value)| writer.field(name, value)).expect("no controls");
        let bytes = writer.finish_with("text/plain;charset=UTF-8", &body).expect("small");
        let (found, error) = framed(&bytes);
        prop_assert_eq!(error, None);
        let [Framed::Message { start, headers, body: at }] = &found[..] else {
            panic!("{found:?}");
        };
        prop_assert_eq!(&bytes[at.clone()], &body[..]);
        prop_assert_eq!(headers.first(HeaderName::Subject), Some(subject.trim()));
        let StartLine::Request { method, uri } = start else {
            panic!("{start:?}");
        };
        prop_assert!(SipRequest::read(*method, uri.clone(), headers.clone()).is_ok());
    }
}
