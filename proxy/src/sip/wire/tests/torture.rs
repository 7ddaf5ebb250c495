//! What RFC 4475 has of messages.

use super::*;

#[test]
fn rfc_4475_a_tortuous_request_is_read_as_it_is_meant() {
    let found = request(&lines(TORTUOUS, "v=0\n")).expect("well-formed");
    assert_eq!(found.method, SipMethod::Invite);
    assert_eq!(found.to.uri, "sip:vivekg@chair-dnrc.example.com");
    assert_eq!(found.to.tag(), Some("1918181833n"));
    assert_eq!(found.from.uri, "sip:jdrosen@example.com");
    assert_eq!(found.from.tag(), Some("98asjd8"));
    assert_eq!(
        (found.cseq, found.call_id.as_str()),
        (9, "wsinv.ndaksdj@192.0.2.1")
    );
    let branches: Vec<_> = found.vias.iter().map(|via| via.branch.as_deref()).collect();
    assert_eq!(
        branches,
        [
            Some("390skdjuw"),
            Some("z9hG4bK9ikj8"),
            Some("z9hG4bK30239")
        ]
    );
    assert_eq!(found.headers.first(HeaderName::Subject), Some(""));
    let contact = NameAddr::read(found.headers.first(HeaderName::Contact).expect("one"));
    let contact = contact.expect("well-formed");
    assert_eq!(contact.parameters.get("NewParam"), Some("newvalue"));
    assert_eq!(contact.parameters.get("secondparam"), Some(""));
}

#[test]
fn rfc_4475_what_is_well_formed_is_taken() {
    let method = "!interesting-Method0123456789_*+`.%indeed'~";
    let wide = format!(
        "{method} sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com SIP/2.0
Via: SIP/2.0/TCP host1.example.com;branch=z9hG4bK-.!%66*_+`'~
To: \"BEL:\\\u{7} NUL:\\\u{0} DEL:\\\u{7f}\" <sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*@example.com>
From: token1~` token2'+_ token3*%!.- <sip:mundane@example.com>;fromParam''~+*_!.-%=\"работающий\";tag=_token~1'+`*%!-.
Call-ID: intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}}{{
CSeq: 139122385 {method}
Max-Forwards: 255
extensionHeader-!.%*+_`'~:\u{feff}大停電
Content-Length: 0"
    );
    let found = request(&lines(&wide, "")).expect("intmeth");
    assert_eq!(
        (found.method, found.from.tag()),
        (SipMethod::Unknown, Some("_token~1'+`*%!-."))
    );
    assert_eq!(
        found.from.parameters.get("fromParam''~+*_!.-%"),
        Some("работающий")
    );

    let unescaped = options_with(
        "From: <sip:caller@example.net>;tag=34525",
        "f: sip:null-%00-null@example.com;tag=1",
    );
    assert_eq!(
        request(&unescaped).map(|it| it.from.uri),
        Ok("sip:null-%00-null@example.com".to_owned())
    );
    let no_space = options_with("From: <", "From: caller<");
    assert_eq!(
        request(&no_space).map(|it| it.from.uri),
        Ok("sip:caller@example.net".to_owned())
    );
    let method = OPTIONS.replace("OPTIONS", "RE%47IST%45R");
    assert_eq!(
        request(&lines(&method, "")).map(|it| it.method),
        Ok(SipMethod::Unknown)
    );
    for transport in ["UDP", "SCTP", "TLS", "UNKNOWN", "TCP"] {
        assert!(
            request(&options_with("/TLS", &format!("/{transport}"))).is_ok(),
            "{transport}"
        );
    }
    let schemes = options_with("To: <sip:user@example.com>", "To: isbn:2983792873");
    assert!(
        request(&schemes).is_ok(),
        "a scheme is the address's to judge"
    );
    let again = [
        lines(OPTIONS, ""),
        lines(TORTUOUS, "v=0\n"),
        lines(OPTIONS, ""),
    ]
    .concat();
    assert_eq!(framed(&again).0.len(), 3);
}

#[test]
fn rfc_4475_answers_are_told_by_their_code_whatever_they_say() {
    let ok = "SIP/2.0 200 = 2**3 * 5**2 но сто девяносто девять
Via: SIP/2.0/UDP 192.0.2.198;branch=z9hG4bK1324923
Call-ID: unreason.1234ksdfak3j2erwedfsASdf
CSeq: 35 MESSAGE
From: sip:user@example.com;tag=11141343
To: sip:user@example.edu;tag=2229
Content-Length: 0";
    let found = response(&lines(ok, "")).expect("well-formed");
    assert_eq!(
        (found.code, found.method),
        (StatusCode::OK, SipMethod::Message)
    );
    assert_eq!(
        (found.branch.as_str(), found.to.tag()),
        ("z9hG4bK1324923", Some("2229"))
    );
    for line in ["SIP/2.0 100 ", "SIP/2.0 100", "sip/2.0 100 x"] {
        let bytes = lines(&ok.replace(ok.lines().next().expect("one"), line), "");
        assert_eq!(
            response(&bytes).map(|it| it.code),
            Ok(StatusCode::TRYING),
            "{line}"
        );
    }
    for (line, instead, fault) in [
        (
            "Via: ",
            "Via: SIP/2.0/UDP 255.255.255.255;branch=z9hG4bK1saber23\nVia: ",
            ResponseFault::Several("Via"),
        ),
        (
            ";branch=z9hG4bK1324923",
            "",
            ResponseFault::Missing("branch of Via"),
        ),
        (
            "CSeq: 35",
            "CSeq: 9292394834772304023312",
            ResponseFault::Value("CSeq", ValueFault::Number),
        ),
        ("Call-ID", "X", ResponseFault::Missing("Call-ID")),
        (
            "To: sip",
            "To: \"sip",
            ResponseFault::Value("To", ValueFault::Unquoted),
        ),
    ] {
        assert_eq!(
            response(&lines(&ok.replace(line, instead), "")),
            Err(fault),
            "{instead}"
        );
    }
    // It is never answered, whatever is wrong with it.
    let big = lines(&ok.replace("200", "4294967301"), "");
    assert_eq!(
        framed(&big).1,
        Some(FrameError {
            fault: FrameFault::StartLine,
            headers: None
        })
    );
}
