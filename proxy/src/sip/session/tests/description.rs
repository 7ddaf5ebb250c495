use super::*;

fn read(text: &str) -> Result<SessionDescription, DescriptionFault> {
    SessionDescription::read(text.as_bytes())
}

#[test]
fn messages_are_found_among_media_and_how_they_are_read_is_known() {
    let composing = Some(TypingForm::Composing);
    let activity = Some(TypingForm::Activity);
    for (media, expected) in [
        ("m=message 5060 sip null\r\n", activity),
        ("m=x-ms-message 5060 sip sip:a@b\r\n", activity),
        (
            "m=message 5060 sip null\r\na=accept-types:text/plain application/IM-iscomposing+xml\r\n",
            composing,
        ),
        ("m=message 5060 sip null\r\na=accept-types:*\r\n", composing),
        ("a=accept-types:*\r\nm=message 5060 sip null\r\n", composing),
        (
            "m=audio 1 RTP/AVP 0\r\na=accept-types:*\r\nm=message 1/2 SIP x\r\n",
            activity,
        ),
        ("m=message 0 sip null\r\n", None),
        ("m=message 7654 TCP/MSRP *\r\n", None),
        ("m=audio 49170 RTP/AVP 0\r\n", None),
        ("", None),
    ] {
        let found = read(&format!("v=0\r\no=- 0 0 IN IP4 h\r\n{media}")).expect("a description");
        assert_eq!(found.messages(), expected, "{media}");
    }
    let bare_lines = read("v=0\nm=message 5060 sip null\n").expect("a description");
    assert_eq!(bare_lines.messages(), activity);
}

#[test]
fn an_answer_takes_messages_once_and_refuses_all_else() {
    let offered = read(
        "v=0\r\nm=audio 49170 RTP/AVP 0 8\r\nm=x-ms-message 5060 sip null\r\nm=message 5060 sip null\r\n",
    )
    .expect("a description");
    assert_eq!(
        offered
            .answer("hq.example", "sip:rob@partner.example")
            .as_deref(),
        Some(
            "v=0\r\no=- 0 0 IN IP4 hq.example\r\ns=session\r\nc=IN IP4 hq.example\r\nt=0 0\r\n\
             m=audio 0 RTP/AVP 0 8\r\n\
             m=x-ms-message 5060 sip sip:rob@partner.example\r\n\
             a=accept-types:text/plain multipart/alternative application/im-iscomposing+xml\r\n\
             m=message 0 sip null\r\n"
        )
    );
    let calls = read("v=0\r\nm=audio 49170 RTP/AVP 0\r\n").expect("a description");
    assert_eq!(calls.answer("hq.example", "sip:rob@partner.example"), None);
}

#[test]
fn what_is_offered_is_read_the_same() {
    let ours = read(&offer("hq.example")).expect("a description");
    assert_eq!(ours.messages(), Some(TypingForm::Composing));
}

#[test]
fn sip_43_what_is_no_description_is_refused_in_its_bounds() {
    let media = "m=audio 1 RTP/AVP 0\r\n";
    for (text, expected) in [
        (String::new(), DescriptionFault::Version),
        ("v=1\r\n".to_owned(), DescriptionFault::Version),
        (
            format!("v=0\r\na={}\r\n", "x".repeat(16 * 1024)),
            DescriptionFault::TooLarge,
        ),
        (
            format!("v=0\r\n{}", media.repeat(17)),
            DescriptionFault::TooManyMedia,
        ),
        ("v=0\r\nmessage\r\n".to_owned(), DescriptionFault::Line),
        ("v=0\r\nmm=x\r\n".to_owned(), DescriptionFault::Line),
        ("v=0\r\ns=\u{0}\r\n".to_owned(), DescriptionFault::Line),
        (
            "v=0\r\nm=message 65536 sip null\r\n".to_owned(),
            DescriptionFault::Media,
        ),
        (
            "v=0\r\nm=message +1 sip null\r\n".to_owned(),
            DescriptionFault::Media,
        ),
        (
            "v=0\r\nm=message 1 sip\r\n".to_owned(),
            DescriptionFault::Media,
        ),
        (
            "v=0\r\nm=message  1 sip null\r\n".to_owned(),
            DescriptionFault::Media,
        ),
    ] {
        assert_eq!(read(&text), Err(expected), "{text:.40}");
    }
    assert_eq!(
        SessionDescription::read(b"v=0\r\ns=\xff\r\n"),
        Err(DescriptionFault::NotUtf8)
    );
    assert!(read(&format!("v=0\r\n{}", media.repeat(16))).is_ok());
}
