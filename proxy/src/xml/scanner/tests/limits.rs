//! Limits hold at their value, to the byte.

use super::*;

#[test]
fn limits_hold_at_their_value_and_not_beyond_x15_x16() {
    let limits = Limits {
        stanza_bytes: 5_000,
        depth: 8,
        attributes: 10,
        namespaces: 6,
        all_namespaces: 8,
        namespaces_in_force: 7,
        name_bytes: 20,
    };
    // From the smallest count to the one too many: what is made of the count, and the error.
    let nested = |n: usize| format!("{}{}", "<a>".repeat(n), "</a>".repeat(n));
    let attributes = |n: usize| {
        format!(
            "<a{}/>",
            (0..n).map(|i| format!(" b{i}=''")).collect::<String>()
        )
    };
    let spread = |n: usize| {
        format!(
            "<m>{}</m>",
            (0..n)
                .map(|i| format!("<a xmlns='u{i}'/>"))
                .collect::<String>()
        )
    };
    let declared = |n: usize| {
        let all: String = (0..n).map(|i| format!(" xmlns:p{i}='u'")).collect();
        format!("<a{all}/>")
    };
    let in_force = |n: usize| format!("{}{}", "<a xmlns='u'>".repeat(n), "</a>".repeat(n));
    let long = |n: usize| format!("<{}/>", "a".repeat(n));
    let long_attribute = |n: usize| format!("<a {}=''/>", "b".repeat(n));
    let long_namespace = |n: usize| format!("<a xmlns='{}'/>", "u".repeat(n));
    let text = |n: usize| format!("<a>{}</a>", "x".repeat(n - 7));
    let children = |n: usize| format!("<a>{}</a>", "<b/>".repeat(n)) + "<c/>";
    type Make<'a> = &'a dyn Fn(usize) -> String;
    let cases: [(Make<'_>, usize, XmlError); 10] = [
        (&nested, 8, XmlError::TooDeep),
        (&attributes, 10, XmlError::TooManyAttributes),
        (&declared, 6, XmlError::TooManyNamespaces),
        (&spread, 8, XmlError::TooManyNamespaces),
        (&in_force, 7, XmlError::TooManyNamespaces),
        (&long, 20, XmlError::NameTooLong),
        (&long_attribute, 20, XmlError::NameTooLong),
        (&long_namespace, 20, XmlError::NameTooLong),
        (&text, 5_000, XmlError::TooLarge),
        (&children, 1_248, XmlError::TooLarge),
    ];
    let small = header("<stream:stream xmlns:stream='http://etherx.jabber.org/streams'>").unwrap();
    assert_eq!(small.prefixes.len(), 1);
    for (make, most, error) in cases {
        let stream = |n| {
            format!(
                "<stream:stream xmlns:stream='http://etherx.jabber.org/streams'>{}",
                make(n)
            )
        };
        // The name of a stream's namespace is longer than what the table allows.
        let limits = if error == XmlError::NameTooLong {
            Limits {
                name_bytes: 40,
                ..limits
            }
        } else {
            Limits {
                name_bytes: 256,
                ..limits
            }
        };
        let most = if error == XmlError::NameTooLong {
            40
        } else {
            most
        };
        assert_eq!(
            outcome(stream(most).as_bytes(), limits).1,
            None,
            "{error} at {most}"
        );
        assert_eq!(
            outcome(stream(most + 1).as_bytes(), limits).1,
            Some(error),
            "{error} past {most}"
        );
        assert_eq!(error.condition(), "policy-violation");
    }
}

#[test]
fn what_is_too_large_is_refused_at_the_first_byte_too_many() {
    let mut scanner = Scanner::new(Limits::default());
    let len = scanner.next(HEADER.as_bytes()).unwrap().unwrap().len();
    assert_eq!(len, HEADER.len());
    scanner.set_stanza_bytes(100);
    let open = format!("<message id='{}", "x".repeat(200));
    assert!(scanner.next(&open.as_bytes()[..100]).unwrap().is_none());
    assert_eq!(
        scanner.next(&open.as_bytes()[..101]).unwrap_err(),
        XmlError::TooLarge
    );
    assert_eq!(
        scanner.next(b"<a/>").unwrap_err(),
        XmlError::TooLarge,
        "an error is final"
    );
}
