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

/// Where the start tag of the stanza itself is at fault nobody knows whom to answer, and what is no
/// stanza is negotiation.
#[test]
fn without_a_start_tag_there_is_nothing_to_answer() {
    for stream in [
        format!("<message {}>", "a='' ".repeat(3_000)),
        format!("<a xmlns='urn:a'>{}", "x".repeat(3_000)),
        format!("<message from='{}'/>", "x".repeat(3_000)),
    ] {
        let (seen, error) = outcome(&stream, 9);
        assert!(
            seen.is_empty()
                && error
                    .is_some_and(|error| error.is_limit() || error == XmlError::DuplicateAttribute)
        );
    }
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
        which in proptest::collection::vec(proptest::option::of(0..18_usize), 1..12),
        piece in 1..3_000_usize,
    ) {
        let faults = faults();
        let (mut stream, mut expected) = (String::new(), Vec::new());
        for (number, fault) in which.into_iter().enumerate() {
            let id = format!("n{number}");
            match fault {
                None => {
                    stream += &message(&id, "<body>b</body>");
                    expected.push(id);
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
