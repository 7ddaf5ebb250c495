//! Where messages end, and what ends a stream.

use proptest::prelude::*;

use super::*;

#[test]
fn sip_43_what_cannot_be_framed_ends_the_stream_with_an_answer_where_there_is_an_asker() {
    use FrameFault as F;
    let length = "Content-Length: 0";
    for (line, instead, fault, code) in [
        (length, "X: y", F::NoLength, 400),
        (length, "Content-Length: 13\nl: 5", F::SeveralLengths, 400),
        (
            length,
            "Content-Length: 5\nContent-Length: 5",
            F::SeveralLengths,
            400,
        ),
        (length, "Content-Length: -999", F::Length, 400),
        (length, "Content-Length: +5", F::Length, 400),
        (length, "Content-Length: five", F::Length, 400),
        (length, "Content-Length: 0x5", F::Length, 400),
        (length, "Content-Length:", F::Length, 400),
        (
            length,
            "Content-Length: 18446744073709551616",
            F::BodyTooLarge,
            413,
        ),
        (length, "Content-Length: 262145", F::BodyTooLarge, 413),
        (
            "sip:user@example.com SIP",
            " sip:user@example.com SIP",
            F::StartLine,
            400,
        ),
        (
            "sip:user@example.com SIP",
            "sip:user@example.com; lr SIP",
            F::StartLine,
            400,
        ),
        ("com SIP/2.0\n", "com SIP/2.0  \n", F::StartLine, 400),
        ("com SIP/2.0\n", "com SIP/7.0\n", F::Version, 505),
    ] {
        let error = framed(&options_with(line, instead)).1.expect(instead);
        assert_eq!(
            (error.fault, error.fault.code()),
            (fault, code),
            "{instead}"
        );
        let headers = error.headers.expect("who asked");
        let answer = SipWriter::answer(StatusCode::OK, &headers, "t").expect("a hop");
        assert!(framed(&answer.finish()).1.is_none(), "{instead}");
    }
    for (line, instead, fault) in [
        ("Call-ID: dj", "Call-ID dj", F::HeaderLine),
        ("Call-ID: dj", "Call ID: dj", F::HeaderLine),
        ("Call-ID: dj", ": dj", F::HeaderLine),
        (
            "OPTIONS sip:user@example.com SIP/2.0\n",
            "OPTIONS sip:user@example.com SIP/2.0\n folded: x\n",
            F::HeaderLine,
        ),
        ("Call-ID: dj", "Call-ID: d\rVia: j", F::BareLineEnd),
        ("OPTIONS sip", "GET / HTTP/1.1\nX: sip", F::NotSip),
        ("OPTIONS sip", "NOTHING\nX: sip", F::NotSip),
    ] {
        let error = framed(&options_with(line, instead)).1.expect(instead);
        assert_eq!((error.fault, error.headers), (fault, None), "{instead}");
    }
    assert_eq!(
        fault(&options_with("Call-ID: dj", "Call-ID: \u{1}dj")),
        None,
        "as quoted pairs"
    );
    let not_utf8 = OPTIONS.replace("user", "us\u{0}er").into_bytes();
    let not_utf8: Vec<u8> = not_utf8
        .into_iter()
        .map(|it| if it == 0 { 0xff } else { it })
        .collect();
    assert_eq!(
        fault(&[&not_utf8[..], b"\r\n\r\n"].concat()),
        Some(F::NotUtf8)
    );
    // What other protocols begin with.
    for bytes in [
        &b"<?xml version='1.0'?>"[..],
        b"\x16\x03\x01",
        b" ",
        b"\rA",
        b"\n",
        b"\0",
    ] {
        assert_eq!(fault(bytes), Some(F::NotSip), "{bytes:?}");
    }
}

#[test]
fn sip_43_a_head_is_bounded_before_it_is_whole() {
    use FrameFault as F;
    let with = |more: &str| options_with("Max-Forwards: 70", &format!("Max-Forwards: 70\n{more}"));
    let field = |bytes: usize| format!("X: {}", "a".repeat(bytes - 3));
    assert_eq!(fault(&with(&field(MAX_LINE_BYTES))), None);
    assert_eq!(
        fault(&with(&field(MAX_LINE_BYTES + 1))),
        Some(F::LineTooLong)
    );
    let folded = format!(
        "{}\n {}",
        field(MAX_LINE_BYTES / 2),
        field(MAX_LINE_BYTES / 2)
    );
    assert_eq!(fault(&with(&folded)), Some(F::LineTooLong));
    let lines_in = OPTIONS.lines().count();
    let short = |count: usize| vec!["X: y"; count].join("\n");
    assert_eq!(fault(&with(&short(MAX_HEAD_LINES - lines_in))), None);
    assert_eq!(
        fault(&with(&short(MAX_HEAD_LINES - lines_in + 1))),
        Some(F::TooManyLines)
    );
    let folds = format!("X: y{}", "\n z".repeat(MAX_HEAD_LINES));
    assert_eq!(fault(&with(&folds)), Some(F::TooManyLines));
    let large = vec![field(4_000); 5].join("\n");
    assert_eq!(fault(&with(&large)), Some(F::HeadTooLarge));
    let endless = vec![b'a'; MAX_HEAD_BYTES];
    assert_eq!(fault(&endless), Some(F::HeadTooLarge));
    assert_eq!(fault(&endless[1..]), None);
}

#[test]
fn signs_of_life_stand_between_messages_and_nowhere_else() {
    let message = lines(OPTIONS, "");
    let kinds = |bytes: &[u8]| {
        let (found, error) = framed(bytes);
        assert_eq!(error, None);
        let kinds = found.iter().map(|it| match it {
            Framed::Pong => 'o',
            Framed::Ping => 'i',
            Framed::Message { .. } => 'm',
        });
        kinds.collect::<String>()
    };
    assert_eq!(kinds(b"\r\n"), "o");
    assert_eq!(kinds(b"\r\n\r\n"), "oi");
    assert_eq!(kinds(b"\r\n\r\n\r\n\r\n\r"), "oioi");
    let all = [
        &b"\r\n"[..],
        &message,
        b"\r\n",
        &message,
        b"\r\n\r\n",
        &message,
    ]
    .concat();
    assert_eq!(kinds(&all), "omomoim", "a message is between two halves");
}

#[test]
fn a_body_is_what_its_length_says_whatever_it_looks_like() {
    let head = OPTIONS.replace("Length: 0", "Length: 9");
    let bytes = lines(&head, "\r\n\0\r\n\r\n\r\nOPTIONS");
    let mut framer = Framer::default();
    let Ok(Some(Framed::Message { body, .. })) = framer.next(&bytes) else {
        panic!("not framed");
    };
    assert_eq!(&bytes[body.clone()], b"\r\n\0\r\n\r\n\r\n");
    assert_eq!(&bytes[body.end..], b"OPTIONS");
    let largest = OPTIONS.replace("Length: 0", "Length: 262144");
    assert_eq!(fault(&lines(&largest, "")), None);
}

proptest! {
    /// How a stream is cut on its way changes nothing of what is found in it.
    #[test]
    fn cuts_change_nothing(cuts in proptest::collection::vec(1_usize..40, 1..60), noise in "[\r\nA: a]{0,12}") {
        let head = OPTIONS.replace("Length: 0", "Length: 3");
        let stream = [b"\r\n".to_vec(), lines(&head, "\r\n!"), b"\r\n\r\n".to_vec(), lines(OPTIONS, ""), noise.into_bytes()].concat();
        let expected = framed(&stream);
        let mut framer = Framer::default();
        let mut found = Vec::new();
        let mut error = None;
        let (mut taken, mut shown) = (0, 0);
        let mut cuts = cuts.into_iter().cycle();
        while error.is_none() {
            match framer.next(&stream[taken..shown]) {
                Ok(Some(next)) => {
                    taken += next.len();
                    found.push(next);
                }
                Ok(None) if shown == stream.len() => break,
                Ok(None) => shown = (shown + cuts.next().expect("cycles")).min(stream.len()),
                Err(fault) => error = Some(fault),
            }
        }
        prop_assert_eq!((found, error), expected);
    }
}
