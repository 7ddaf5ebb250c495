//! What a request has to say, and in which words.

use proptest::prelude::*;

use super::*;

#[test]
fn sip_43_a_request_that_is_not_right_is_answered_and_the_stream_goes_on() {
    use RequestFault as R;
    use ValueFault as V;
    let via = "Via: SIP/2.0/TLS host.example.com;branch=z9hG4bKkdjuw";
    let from = "From: <sip:caller@example.net>;tag=34525";
    let many = |count: usize| format!("{via}\n").repeat(count - 1) + via;
    for (line, instead, fault, code) in [
        (via, "X: y", R::Missing("Via"), 400),
        (from, "X: y", R::Missing("From"), 400),
        (from, &format!("{from}\n{from}"), R::Several("From"), 400),
        (";tag=34525", "", R::Missing("tag of From"), 400),
        (
            from,
            &format!("{from};tag=2"),
            R::Value("From", V::TwoParameters),
            400,
        ),
        (
            "tag=34525",
            r#"tag="x;y=\"><sip:other@example.net""#,
            R::Value("From", V::Parameter),
            400,
        ),
        (
            "To: <sip",
            "To: \"Mr. J. User <sip",
            R::Value("To", V::Unquoted),
            400,
        ),
        ("To: <sip", "To: < sip", R::Value("To", V::Character), 400),
        (
            "From: <",
            "From: Bell, Alexander <",
            R::Value("From", V::Character),
            400,
        ),
        (
            "From: <",
            "From: sip:x@example.org <",
            R::Value("From", V::Character),
            400,
        ),
        (
            "From: <sip:caller@example.net>",
            "From: sip:a@b.example?Route=x",
            R::Value("From", V::Character),
            400,
        ),
        (
            "From: <sip:caller@example.net>",
            "From: <sip:a@b.example",
            R::Value("From", V::Bracket),
            400,
        ),
        (
            "From: <sip:caller@example.net>",
            "From: <>",
            R::Value("From", V::Empty),
            400,
        ),
        (
            "Call-ID: dj0234sxdfl3",
            "Call-ID:",
            R::Value("Call-ID", V::Empty),
            400,
        ),
        (
            "Call-ID: dj0234sxdfl3",
            "Call-ID: a b",
            R::Value("Call-ID", V::Character),
            400,
        ),
        ("CSeq: 8 OPTIONS", "CSeq: 8 INVITE", R::MethodMismatch, 400),
        (
            "CSeq: 8 OPTIONS",
            "CSeq: 8",
            R::Value("CSeq", V::Character),
            400,
        ),
        (
            "CSeq: 8",
            "CSeq: 2147483648",
            R::Value("CSeq", V::Number),
            400,
        ),
        (
            "CSeq: 8",
            "CSeq: 36893488147419103232",
            R::Value("CSeq", V::Number),
            400,
        ),
        ("CSeq: 8", "CSeq: -8", R::Value("CSeq", V::Number), 400),
        (
            "Forwards: 70",
            "Forwards: 300",
            R::Value("Max-Forwards", V::Number),
            400,
        ),
        ("Forwards: 70", "Forwards: 0", R::NoForwardsLeft, 483),
        (
            via,
            "Via: SIP/2.0/UDP 192.0.2.15;;,;,,",
            R::Value("Via", V::Empty),
            400,
        ),
        (
            via,
            "Via: HTTP/1.1 proxy",
            R::Value("Via", V::Character),
            400,
        ),
        (
            via,
            "Via: SIP/2.0/TLS h;branch=z9hG4bK",
            R::Value("Via", V::Parameter),
            400,
        ),
        (via, &many(21), R::TooManyHops, 483),
        (
            via,
            &format!("{via}\nRecord-Route: <sip:a>{}", ",<sip:a>".repeat(20)),
            R::TooManyHops,
            483,
        ),
        (
            ";tag=34525",
            &(0..33).map(|at| format!(";p{at}")).collect::<String>(),
            R::Value("From", V::TooManyParameters),
            400,
        ),
    ] {
        let found = request(&options_with(line, instead));
        assert_eq!(found, Err(fault), "{instead}");
        assert_eq!(fault.code(), code, "{instead}");
        assert!(!fault.to_string().is_empty());
    }
    assert!(request(&options_with(via, &many(20))).is_ok());
}

#[test]
fn sip_20_what_a_request_asks_for_beyond_its_method_is_judged_after_it() {
    let understood = |line: &str| {
        let max = "Max-Forwards: 70";
        let request = request(&options_with(max, &format!("{max}\n{line}"))).expect(line);
        request.check_understood()
    };
    for (line, fault, code) in [
        ("Require: foo", RequestFault::Extension, 420),
        ("e: gzip", RequestFault::Encoded, 415),
    ] {
        assert_eq!(understood(line), Err(fault), "{line}");
        assert_eq!(fault.code(), code, "{line}");
    }
    for line in ["Require:", "Supported: foo", "Content-Encoding: Identity"] {
        assert_eq!(understood(line), Ok(()), "{line}");
    }
}

proptest! {
    /// Values of whatever kind are read or refused.
    #[test]
    fn values_are_read_or_refused(text in r#"[a-z<>@;=",\\ :/0-9.\t]{0,40}|\PC{0,40}"#) {
        if let Ok(read) = NameAddr::read(&text) {
            prop_assert!(!read.uri.is_empty() && !read.uri.contains(['<', '>', ' ']));
        }
        if let Ok(read) = Parameterised::read(&text) {
            prop_assert!(!read.value.is_empty() && read.value.is_ascii());
        }
        let _ = Via::read(&text);
        for part in split_list(&text, ',').unwrap_or_default() {
            prop_assert!(!part.is_empty() && text.contains(part));
        }
    }
}
