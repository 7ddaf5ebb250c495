use proptest::prelude::*;

use super::*;

fn jid_of(uri: &str) -> Result<String, AddressFault> {
    Ok(SipUri::parse(uri)?.bare_jid()?.to_string())
}

fn sip_of(jid: &str) -> Result<String, AddressFault> {
    sip_uri(&BareJid::parse(jid).expect("a JID"))
}

#[test]
fn sip_03_addresses_go_there_and_come_back_as_rfc_7247_has_them() {
    for (uri, jid) in [
        ("sip:f%C3%BC@sip.example", "f\u{fc}@sip.example"),
        ("sip:o'malley@sip.example", r"o\27malley@sip.example"),
        ("sip:m&m@xmpp.example", r"m\26m@xmpp.example"),
        ("sip:tsch%C3%BCss@xmpp.example", "tsch\u{fc}ss@xmpp.example"),
        (
            "sip:o'hara&co/x@org.example",
            r"o\27hara\26co\2fx@org.example",
        ),
        (
            "sip:d'artagnan@partner.example",
            r"d\27artagnan@partner.example",
        ),
        (
            "sip:%D1%82%D0%B5%D1%81%D1%82@partner.example",
            "тест@partner.example",
        ),
        ("sip:50%2541@partner.example", "50%41@partner.example"),
        (
            "sip:a%20b%22%3A%3C%3E%40@org.example",
            r"a\20b\22\3a\3c\3e\40@org.example",
        ),
        // A backslash is escaped where it would read as an escape, and there alone.
        ("sip:a%5C27@org.example", r"a\5c27@org.example"),
        (
            "sip:c%3A%5C5commas@org.example",
            r"c\3a\5c5commas@org.example",
        ),
        ("sip:a%5Cb@org.example", r"a\b@org.example"),
        ("sip:a%5C@org.example", r"a\@org.example"),
        (
            "sip:%23%5B%5D%5E%60%7B%7C%7D@org.example",
            "#[]^`{|}@org.example",
        ),
        ("sip:a=+$,;?b@org.example", "a=+$,;?b@org.example"),
    ] {
        assert_eq!(jid_of(uri).as_deref(), Ok(jid), "{uri}");
        assert_eq!(sip_of(jid).as_deref(), Ok(uri), "{jid}");
    }
}

#[test]
fn what_is_no_user_of_a_domain_is_refused() {
    use AddressFault as A;
    let uri = |fault| Err(A::Uri(fault));
    for (text, expected) in [
        ("sip:org.example", Err(A::NoUser)),
        ("sip:@org.example", Err(A::NoUser)),
        ("sip:alice:secret@org.example", Err(A::Password)),
        ("sip:%f@org.example", Err(A::Percent)),
        ("sip:%zz@org.example", Err(A::Percent)),
        ("sip:%ff@org.example", Err(A::NotUtf8)),
        ("sip:%C0%80@org.example", Err(A::NotUtf8)),
        ("sip:%20alice@org.example", Err(A::OuterSpace)),
        ("sip:alice%20@org.example", Err(A::OuterSpace)),
        ("tel:+1234", uri(UriFault::Scheme)),
        ("alice@org.example", uri(UriFault::Scheme)),
        ("sip:a@b@org.example", uri(UriFault::SecondAt)),
        ("sip:a b@org.example", uri(UriFault::Character)),
        ("sip:a@org.example\r\nTo: x", uri(UriFault::Character)),
        ("sip:\u{fc}@org.example", uri(UriFault::Character)),
        ("<sip:a@org.example>", uri(UriFault::Character)),
        ("sip:a@org.example?Route=x", uri(UriFault::HeaderFields)),
        ("sip:a@org.example;x=1;X=2", uri(UriFault::TwoParameters)),
        ("sip:a@", uri(UriFault::Host)),
        ("sip:a@:5060", uri(UriFault::Host)),
        ("sip:a@[::1", uri(UriFault::Host)),
        ("sip:a@org%2eexample", uri(UriFault::Host)),
        ("sip:a@org.example:", uri(UriFault::Port)),
        ("sip:a@org.example:65536", uri(UriFault::Port)),
        ("sip:a@org.example:5060:1", uri(UriFault::Port)),
    ] {
        assert_eq!(jid_of(text), expected.map(|()| String::new()), "{text}");
    }
    let many: String = (0..33).map(|at| format!(";p{at}")).collect();
    assert_eq!(
        SipUri::parse(&format!("sip:a@org.example{many}")),
        Err(UriFault::TooManyParameters)
    );
    for text in [
        "sip:%00@org.example",
        "sip:a%0d%0ab@org.example",
        "sip:a@192.0.2.1",
        "sip:a@192.0.2.1:5060",
        "sip:a@[2001:db8::1]",
        "sip:a@1.2.3",
        "sip:a@org..example",
        // Letters that a localpart may not have at all.
        "sip:%E2%85%A3@org.example",
    ] {
        assert!(
            matches!(jid_of(text), Err(A::Jid(_))),
            "{text}: {:?}",
            jid_of(text)
        );
    }
    let long = format!("sip:{}@org.example", "a".repeat(1_100));
    assert_eq!(jid_of(&long), Err(A::Jid(JidError::LocalTooLong)));
}

#[test]
fn sip_05_what_is_about_the_way_does_not_count_and_gr_is_the_resource() {
    for text in [
        "im:alice@org.example",
        "pres:alice@org.example",
        "SIP:Alice@ORG.EXAMPLE",
        "sip:alice@org.example:5061",
        "sip:alice@org.example.;transport=tcp;lr",
        "sips:alice@org.example",
    ] {
        assert_eq!(jid_of(text).as_deref(), Ok("alice@org.example"), "{text}");
    }
    for (text, resource) in [
        ("sip:a@org.example", Ok(None)),
        ("sip:a@org.example;gr", Ok(None)),
        ("sip:a@org.example;gr=", Ok(None)),
        ("sip:a@org.example;GR=phone", Ok(Some("phone"))),
        (
            "sip:a@org.example;gr=t%C3%A9l%20/1",
            Ok(Some("t\u{e9}l /1")),
        ),
        ("sip:a@org.example;gr=%", Err(AddressFault::Percent)),
        ("sip:a@org.example;gr=%ff", Err(AddressFault::NotUtf8)),
        (
            "sip:a@org.example;gr=a%0d",
            Err(AddressFault::Jid(JidError::ResourceSyntax('\r'))),
        ),
    ] {
        let found = SipUri::parse(text).expect(text).resource();
        assert_eq!(found, resource.map(|it| it.map(str::to_owned)), "{text}");
    }
    assert_eq!(
        SipUri::parse("sips:a@b.example").map(|it| it.scheme),
        Ok(Scheme::Sips)
    );
}

#[test]
fn sip_03_no_two_people_become_one() {
    // Wide letters that preparing makes narrow: together with what follows they would read as "&".
    for user in ["a%EF%BC%BC26", "a%5C%EF%BC%926", "a%5C2%EF%BC%96"] {
        let uri = format!("sip:{user}@org.example");
        let refused = matches!(
            jid_of(&uri),
            Err(AddressFault::Ambiguous | AddressFault::Jid(_))
        );
        assert!(refused, "{uri}: {:?}", jid_of(&uri));
    }
    // Two ways to write one localpart: one of them has no form.
    assert_eq!(sip_of(r"a\5cb@org.example"), Err(AddressFault::Ambiguous));
    assert!(sip_of(r"a\b@org.example").is_ok());
    assert_eq!(sip_of(r"\20a@org.example"), Err(AddressFault::OuterSpace));
    assert_eq!(sip_of("org.example"), Err(AddressFault::NoUser));
    assert_ne!(
        jid_of("sip:a%5C26b@org.example"),
        jid_of("sip:a&b@org.example")
    );
    assert_ne!(
        jid_of("sip:a%5C2Fb@org.example"),
        jid_of("sip:a/b@org.example")
    );
}

#[test]
fn sip_06_an_address_is_whole_or_refused() {
    let most = format!("{}@org.example", "\u{444}".repeat(511));
    let uri = sip_of(&most).expect("within its bounds");
    assert_eq!(uri.len(), "sip:@org.example".len() + 511 * 6);
    assert_eq!(jid_of(&uri), Ok(most));
    // Each character is escaped: three bytes of one.
    let user = "'".repeat(342);
    assert_eq!(
        jid_of(&format!("sip:{user}@org.example")),
        Err(AddressFault::Jid(JidError::LocalTooLong))
    );
    assert!(jid_of(&format!("sip:{}@org.example", &user[1..])).is_ok());
}

#[test]
fn a_device_is_addressed_by_what_reads_as_it_again() {
    let jid = BareJid::parse(r"d\27artagnan@partner.example").expect("a JID");
    for resource in ["qux", "t\u{e9}l /1;=?@", "a%41"] {
        let uri = device_uri(&jid, resource).expect("a user");
        let read = SipUri::parse(&uri).expect("a URI");
        assert_eq!(
            read.resource().as_ref().map(Option::as_deref),
            Ok(Some(resource))
        );
        assert_eq!(read.bare_jid().as_ref(), Ok(&jid));
    }
    assert_eq!(
        device_uri(&jid, "qux").as_deref(),
        Ok("sip:d'artagnan@partner.example;gr=qux")
    );
    assert_eq!(
        pres_uri(&jid).as_deref(),
        Ok("pres:d'artagnan@partner.example")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// What SIP calls somebody comes back the same, but for case and width.
    #[test]
    fn a_sip_user_comes_back(user in r#"[a-z0-9\\%&'/:<>@" 2567cfACF.;=\PC]{1,24}"#) {
        let mut uri = "sip:".to_owned();
        percent_encode(&user, is_user_char, &mut uri);
        uri.push_str("@org.example");
        if let Ok(jid) = SipUri::parse(&uri).map_err(AddressFault::from).and_then(|it| it.bare_jid()) {
            let back = sip_uri(&jid).expect("it came from there");
            let again = SipUri::parse(&back).expect("a URI").bare_jid();
            prop_assert_eq!(again.as_ref(), Ok(&jid));
            if user.is_ascii() {
                let user = back.strip_prefix("sip:").and_then(|it| it.split('@').next()).expect("written so");
                let decoded = percent_decode(user).expect("written so");
                prop_assert_eq!(String::from_utf8(decoded).expect("UTF-8"), uri_user(&uri).to_ascii_lowercase());
            }
        }
    }

    /// Whoever XMPP knows and SIP can address comes back as they are.
    #[test]
    fn a_jid_comes_back(local in r#"[a-z0-9\\%2567cf.;=\PC]{1,24}"#) {
        if let Ok(jid) = BareJid::parse(&format!("{local}@partner.example"))
            && let Ok(uri) = sip_uri(&jid)
        {
            prop_assert!(uri.bytes().all(|byte| matches!(byte, b'!'..=b'~')));
            let back = SipUri::parse(&uri).map_err(AddressFault::from).and_then(|it| it.bare_jid());
            prop_assert_eq!(back, Ok(jid));
        }
    }

    #[test]
    fn whatever_stands_there_is_read_or_refused(text in r"\PC{0,60}|sip:[ -~]{0,60}") {
        if let Ok(uri) = SipUri::parse(&text) {
            let _ = uri.resource();
            if let Ok(jid) = uri.bare_jid() {
                prop_assert!(sip_uri(&jid).is_ok(), "{:?}", jid);
            }
        }
    }
}

fn uri_user(uri: &str) -> String {
    let user = SipUri::parse(uri).expect("a URI").user.expect("a user");
    String::from_utf8(percent_decode(&user).expect("encoded")).expect("UTF-8")
}
