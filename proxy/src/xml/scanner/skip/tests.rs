#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::xml::{Item, Limits, Scanner};

const HEADER: &str = "<stream:stream xmlns='jabber:server' \
    xmlns:stream='http://etherx.jabber.org/streams' xmlns:s='jabber:server' version='1.0'>";

const LIMITS: Limits = Limits {
    stanza_bytes: 2_000,
    ..Limits::with_stanza_bytes(2_000)
};

/// What a stream with that content comes to, its bytes in pieces of that size: ids of good stanzas,
/// ids and faults of others, other elements by name, and the error that ended it. No more is ever kept
/// than the limit.
fn outcome(content: &str, piece: usize) -> (Vec<String>, Option<XmlError>) {
    let mut scanner = Scanner::new(LIMITS);
    let len = scanner.next(HEADER.as_bytes()).unwrap().unwrap().len();
    assert_eq!(len, HEADER.len());
    scanner.skip_faulty();
    let bytes = content.as_bytes();
    let (mut taken, mut come) = (0, 0);
    let mut seen = Vec::new();
    loop {
        match scanner.next(&bytes[taken..come]) {
            Ok(None) if come == bytes.len() => return (seen, None),
            Ok(None) => {
                assert!(
                    come - taken <= LIMITS.stanza_bytes,
                    "kept: {}",
                    come - taken
                );
                come = bytes.len().min(come + piece);
            }
            Err(error) => return (seen, Some(error)),
            Ok(Some(item)) => {
                match &item {
                    Item::Stanza(stanza) => seen.push(stanza.id.as_deref().unwrap().to_owned()),
                    Item::Faulty { stanza, .. } => seen.push(format!(
                        "{:?} {} {}",
                        stanza.error,
                        stanza.id.as_deref().unwrap_or("-"),
                        stanza.from.as_deref().unwrap_or("-"),
                    )),
                    Item::Dropped { error, .. } => seen.push(format!("{error:?} dropped")),
                    Item::Other(other) => seen.push(other.name.to_owned()),
                    _ => {}
                }
                taken += item.len();
            }
        }
    }
}

/// Contents of a message that break a rule of ours, and which.
fn faults() -> Vec<(String, XmlError)> {
    let many =
        |count: usize, make: &dyn Fn(usize) -> String| (0..count).map(make).collect::<String>();
    vec![
        (
            format!("<body>{}</body>", "x".repeat(3_000)),
            XmlError::TooLarge,
        ),
        (
            format!("<body a='{}'/>", "x".repeat(3_000)),
            XmlError::TooLarge,
        ),
        (
            format!("<body a='{}>'/>", "/>".repeat(1_500)),
            XmlError::TooLarge,
        ),
        (many(800, &|_| "<a/>".to_owned()), XmlError::TooLarge),
        (
            format!("<![CDATA[{}]]>", "</message>]] >".repeat(300)),
            XmlError::TooLarge,
        ),
        (format!("<a>{}</a>", "&lt;".repeat(700)), XmlError::TooLarge),
        (format!("<a{}>x</a>", " ".repeat(2_500)), XmlError::TooLarge),
        (
            format!("{}<![CDATA[<b>]]>{}", "<a>".repeat(70), "</a >".repeat(70)),
            XmlError::TooDeep,
        ),
        (
            format!("<a {}>x<b/></a>", many(65, &|n| format!(" a{n}=''"))),
            XmlError::TooManyAttributes,
        ),
        (
            format!(
                "<a {}/>",
                many(60, &|n| format!(" xmlns:a{n}='urn:a'")).replace("urn:a", "u")
            ) + &format!("<a {}/>", many(65, &|n| format!(" b{n}='>'"))),
            XmlError::TooManyAttributes,
        ),
        (
            format!("<a><{}>x</{0}></a>", "b".repeat(300)),
            XmlError::NameTooLong,
        ),
        (
            format!("<a {}='/>'/>", "b".repeat(300)),
            XmlError::NameTooLong,
        ),
        (
            format!("<a xmlns='{}'><b/></a>", "u".repeat(300)),
            XmlError::NameTooLong,
        ),
        (
            "<a xmlns='urn:a b'><b xmlns='urn:c'/></a>".to_owned(),
            XmlError::NamespaceName,
        ),
        (
            "<a xmlns='urn:a&#9;b'/>".to_owned(),
            XmlError::NamespaceName,
        ),
        ("<größe><b/></größe>".to_owned(), XmlError::ExoticName),
        ("<é/>".to_owned(), XmlError::ExoticName),
        ("<a é='1'/>".to_owned(), XmlError::ExoticName),
    ]
}

fn message(id: &str, content: &str) -> String {
    format!("<message from='a@b.example/r' to='c@d.example' id='{id}'>{content}</message>")
}

#[test]
fn a_stanza_over_a_limit_costs_itself_alone() {
    for (content, error) in faults() {
        let stream = [
            message("1", "<body>a</body>"),
            message("bad", &content),
            " <r xmlns='urn:xmpp:sm:3'/>".to_owned(),
            message("2", ""),
        ]
        .concat();
        let bad = format!("{error:?} bad a@b.example/r");
        for piece in [1, 7, 64, 100_000] {
            assert_eq!(
                outcome(&stream, piece),
                (vec!["1".into(), bad.clone(), "r".into(), "2".into()], None),
                "in pieces of {piece}: {content:.200}"
            );
        }
    }
}

/// What may not be on a stream at all ends it in a stanza that is skipped too.
#[test]
fn what_no_stream_may_hold_ends_it_while_skipping_too() {
    let deep = "<a>".repeat(70);
    for (content, error) in [
        ("<!-- x -->", XmlError::Comment),
        ("<?x?>", XmlError::ProcessingInstruction),
        ("<!DOCTYPE x>", XmlError::DocumentType),
        ("< a/>", XmlError::Markup),
        ("</a</a>", XmlError::EndTag),
    ] {
        let stream = message("bad", &format!("{deep}{content}"));
        assert_eq!(outcome(&stream, 5), (vec![], Some(error)), "{content}");
    }
}

/// Start tags that are at fault themselves, each with the fault and with what is said of the stanza.
fn faulty_starts() -> Vec<(String, String)> {
    let many = |name: &str| {
        (0..70)
            .map(|n| format!(" {name}{n}='>'"))
            .collect::<String>()
    };
    let to = "to='c@d.example' id='bad'";
    let from = "from='a@b.example/r'";
    let long = "n".repeat(300);
    let spaces = " ".repeat(2_500);
    vec![
        (
            format!("<message{}{spaces}{from} {to}>x<a/></message>", many("a")),
            "TooManyAttributes bad a@b.example/r".to_owned(),
        ),
        (
            format!("<message {from} {to}{}/>", many("xmlns:a")),
            "TooManyAttributes bad a@b.example/r".to_owned(),
        ),
        (
            format!("<message {long}='' {from} {to} />"),
            "NameTooLong bad a@b.example/r".to_owned(),
        ),
        (
            format!("<message xmlns:a='{long}' {from} {to}><a:b/></message>"),
            "NameTooLong bad a@b.example/r".to_owned(),
        ),
        (
            format!("<iq {from} {to} type='get' xmlns:a='u v'><a:b/></iq>"),
            "NamespaceName bad a@b.example/r".to_owned(),
        ),
        (
            format!("<message é='1' {from} {to}/>"),
            "ExoticName bad a@b.example/r".to_owned(),
        ),
        (
            format!("<message more='{}' {from} {to}/>", "x>".repeat(1_500)),
            "TooLarge bad a@b.example/r".to_owned(),
        ),
        // Values are read as elsewhere, and either namespace declaration makes a stanza.
        (
            format!(
                "<message xmlns='jabber&#58;server' é='' from=\"&#97;@b.example/r\" {to}></message>"
            ),
            "ExoticName bad a@b.example/r".to_owned(),
        ),
        (
            format!("<s:presence {from} {to}{}><a/></s:presence>", many("a")),
            "TooManyAttributes bad a@b.example/r".to_owned(),
        ),
        (
            format!("<é:iq xmlns:é = 'jabber:server' {from} {to}><a/></é:iq>"),
            "ExoticName bad a@b.example/r".to_owned(),
        ),
        // In another namespace it is a stanza all the same, and at fault.
        (
            format!("<message xmlns='jabber:client' {from} {to}><a/></message>"),
            "StanzaNamespace bad a@b.example/r".to_owned(),
        ),
        (
            format!("<presence xmlns='' {from} {to}/>"),
            "StanzaNamespace bad a@b.example/r".to_owned(),
        ),
        (
            format!(
                "<s:iq xmlns:s='urn:x' {from} {to}><a>{}</a></s:iq>",
                "x".repeat(9_000)
            ),
            "StanzaNamespace bad a@b.example/r".to_owned(),
        ),
        (
            format!("<message xmlns='urn:a' {from} {to}{}/>", many("a")),
            "TooManyAttributes bad a@b.example/r".to_owned(),
        ),
        (
            format!("<message xmlns='jabber:server ' {from} {to}/>"),
            "NamespaceName bad a@b.example/r".to_owned(),
        ),
        // What cannot be kept is cut or left out.
        (
            format!("<message id='{}' {from} to='c'/>", "i".repeat(2_500)),
            "TooLarge - a@b.example/r".to_owned(),
        ),
        (
            format!("<message from='{}' {to}/>", "x".repeat(9_000)),
            format!("TooLarge bad {}", "x".repeat(3_071)),
        ),
        (
            format!("<message from='{}' {to}/>", "é".repeat(30_000)),
            format!("TooLarge bad {}", "é".repeat(1_535)),
        ),
        // Nobody knows what that prefix means.
        (
            format!(
                "<{}:message {from} {to}>x<a/></{0}:message>",
                "p".repeat(2_000)
            ),
            "NameTooLong dropped".to_owned(),
        ),
    ]
}

#[test]
fn a_fault_in_the_start_tag_of_a_stanza_costs_that_stanza_alone() {
    for (stanza, said) in faulty_starts() {
        let stream = [message("1", "a"), stanza.clone(), message("2", "")].concat();
        for piece in [1, 7, 64, 100_000] {
            assert_eq!(
                outcome(&stream, piece),
                (vec!["1".into(), said.clone(), "2".into()], None),
                "in pieces of {piece}: {stanza:.200}"
            );
        }
    }
}

/// What is no stanza is negotiation, and what breaks XML ends the stream in a start tag too.
#[test]
fn in_a_start_tag_what_is_no_stanza_ends_the_stream() {
    let attributes: String = (0..70).map(|n| format!(" a{n}=''")).collect();
    let long = "x".repeat(3_000);
    for (stream, error) in [
        (format!("<a xmlns='urn:a'>{long}"), XmlError::TooLarge),
        (format!("<a{attributes}/>"), XmlError::TooManyAttributes),
        (format!("<{long}/>"), XmlError::NameTooLong),
        ("<é/>".to_owned(), XmlError::ExoticName),
        (
            format!("<message{attributes} from='a' from='b'/>"),
            XmlError::DuplicateAttribute,
        ),
        (
            format!("<message{attributes} xmlns='urn:a' xmlns='urn:b'/>"),
            XmlError::DuplicateAttribute,
        ),
        (
            format!("<message{attributes} id='<'/>"),
            XmlError::LessThanInAttribute,
        ),
        (format!("<message{attributes} id=x/>"), XmlError::Markup),
        (
            format!("<u:message{attributes}/>"),
            XmlError::UndeclaredPrefix,
        ),
    ] {
        for piece in [1, 9, 100_000] {
            assert_eq!(
                outcome(&stream, piece),
                (vec![], Some(error)),
                "{stream:.90}"
            );
        }
    }
}

#[test]
fn a_start_tag_without_end_ends_the_stream_and_costs_no_memory() {
    let mut scanner = Scanner::new(LIMITS);
    scanner.next(HEADER.as_bytes()).unwrap();
    scanner.skip_faulty();
    let mut piece = b"<message from='".to_vec();
    let error = loop {
        match scanner.next(&piece) {
            Ok(Some(item)) => {
                let len = item.len();
                piece.drain(..len);
            }
            Ok(None) if piece.len() > LIMITS.stanza_bytes => panic!("kept: {}", piece.len()),
            Ok(None) => piece = vec![b'x'; 1 << 20],
            Err(error) => break error,
        }
    };
    assert_eq!(error, XmlError::TooLarge);
}

#[test]
fn a_stanza_without_end_ends_the_stream() {
    let mut scanner = Scanner::new(LIMITS);
    scanner.next(HEADER.as_bytes()).unwrap();
    scanner.skip_faulty();
    let start = message("1", "").replace("</message>", "");
    let mut piece = format!("{start}{}", "x".repeat(100_000)).into_bytes();
    let mut skipped = 0;
    let error = loop {
        match scanner.next(&piece) {
            Ok(Some(item)) => {
                skipped += item.len();
                piece.drain(..item.len());
            }
            Ok(None) => piece = vec![b'x'; 1 << 20],
            Err(error) => break error,
        }
    };
    assert_eq!(error, XmlError::TooLarge);
    assert!(
        skipped <= MOST_SKIPPED + LIMITS.stanza_bytes + 100_000,
        "{skipped}"
    );
}

proptest! {
    /// Good and bad in any order, cut anywhere: every good one comes out, every bad one once.
    #[test]
    fn each_of_any_sequence_comes_out_once(
        which in proptest::collection::vec(proptest::option::of(0..32_usize), 1..12),
        piece in 1..3_000_usize,
    ) {
        let (faults, starts) = (faults(), faulty_starts());
        let (mut stream, mut expected) = (String::new(), Vec::new());
        for (number, fault) in which.into_iter().enumerate() {
            let id = format!("n{number}");
            match fault {
                None => {
                    stream += &message(&id, "<body>b</body>");
                    expected.push(id);
                }
                Some(fault) if fault >= faults.len() => {
                    let (start, said) = &starts[fault - faults.len()];
                    stream += start;
                    expected.push(said.clone());
                }
                Some(fault) => {
                    stream += &message(&id, &faults[fault].0);
                    expected.push(format!("{:?} {id} a@b.example/r", faults[fault].1));
                }
            }
        }
        prop_assert_eq!(outcome(&stream, piece), (expected, None));
    }
}
