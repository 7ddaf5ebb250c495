//! Patterns change nothing but what a stanza costs.

use proptest::prelude::*;

use super::*;

/// All that comes of a stream whose bytes come in pieces of that size. Where the first byte of a stanza comes
/// alone, no pattern fits.
fn items(stream: &[u8], piece: usize, limits: Limits) -> (Vec<String>, Option<XmlError>) {
    let mut scanner = Scanner::new(limits);
    let mut kept = Vec::new();
    let (mut taken, mut come) = (0, 0);
    loop {
        match scanner.next(&stream[taken..come]) {
            Ok(Some(mut item)) => {
                if let Item::Stanza(stanza) = &mut item {
                    stanza.pattern = None;
                }
                kept.push(format!("{item:?}"));
                taken += item.len();
                // Else the next stanza is there whole.
                if piece == 1 {
                    come = taken;
                }
            }
            Ok(None) if come == stream.len() => return (kept, None),
            Ok(None) => come = stream.len().min(come + piece),
            Err(error) => return (kept, Some(error)),
        }
    }
}

/// Forms that are near each other; `$` stands for a value or text.
const FORMS: [&str; 10] = [
    "<message from='$' to='$' id='$' type='chat'><body>$</body></message>",
    "<message from='$' to='$' id='$' type='groupchat'><body>$</body></message>",
    "<message to='$' from='$' type='chat'><body>$</body><active xmlns='http://jabber.org/protocol/chatstates'/></message>",
    "<message from=\"$\" to='$' id='$' type='chat' >$<body>$</body>$</message>",
    "<message from='$' to='$' xml:lang='$'><x:y xmlns:x='urn:y' a='$'>$<z b='$'>$</z></x:y></message>",
    "<message from='$' to='$'><db:x a='$'/><y xmlns='' c='$'>$</y></message>",
    "<presence from='$' to='$'/>",
    "<presence from='$' to='$'><show>$</show><c xmlns='urn:caps' hash='$' ver='$'/></presence>",
    "<iq from='$' to='$' id='$' type='get'><query xmlns='urn:q' node='$'/></iq>",
    "<iq from='$' to='$' id='$' type='$'><![CDATA[$]]></iq>",
];

fn stanza() -> impl Strategy<Value = String> {
    let plain = prop::sample::select(vec![
        "",
        "a",
        "alice@partner.example/r",
        "1",
        " ",
        ">",
        "a>b",
        "sixteen bytes ..",
        "en",
        "de-CH",
        "en_US",
        "x=\u{22}1\u{22}/",
    ]);
    let odd = prop::sample::select(vec![
        "&amp;",
        "&lt;body>",
        "ü",
        "日本",
        "\t",
        "\n",
        "]",
        "]]",
        "&#x41;",
        "b]c",
        "\u{1f600}",
        "message' x='1",
        "</body><body>",
        "<a/>",
        "<",
        "&",
        "&x;",
        "]]>",
        "\u{1}",
        "\u{fffe}",
        "'",
        "\u{22}",
    ]);
    let piece = prop_oneof![30 => plain, 1 => odd];
    (
        prop::sample::select(FORMS.to_vec()),
        prop::collection::vec(piece, 10),
    )
        .prop_map(|(form, pieces)| {
            let mut out = String::new();
            for (index, part) in form.split('$').enumerate() {
                if index > 0 {
                    out += pieces[index - 1];
                }
                out += part;
            }
            out
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_stanza_comes_to_the_same_whether_a_pattern_fits_or_not(
        stanzas in prop::collection::vec((stanza(), 1..4_usize), 1..30),
        piece in prop::sample::select(vec![7_usize, 100, 1_000, 100_000]),
        stanza_bytes in prop::sample::select(vec![150_usize, 10_000]),
    ) {
        let mut stream = HEADER.to_owned();
        for (stanza, times) in stanzas {
            stream += &stanza.repeat(times);
        }
        let limits = Limits::with_stanza_bytes(stanza_bytes.max(HEADER.len()));
        let plain = items(stream.as_bytes(), 1, limits);
        prop_assert_eq!(items(stream.as_bytes(), piece, limits), plain);
    }
}

/// How many of a hundred stanzas of these forms, in turns, are found by a pattern.
fn found_by_pattern(forms: &[&str]) -> usize {
    let mut scanner = Scanner::new(Limits::default());
    let taken = scanner.next(HEADER.as_bytes()).unwrap().unwrap().len();
    assert_eq!(taken, HEADER.len());
    let mut found = 0;
    for number in 0..100 {
        let stanza = forms[number % forms.len()].replace('$', &number.to_string());
        found += usize::from(scanner.by_pattern(stanza.as_bytes()).is_some());
        let len = scanner.next(stanza.as_bytes()).unwrap().unwrap().len();
        assert_eq!(len, stanza.len());
    }
    found
}

#[test]
fn most_stanzas_of_few_forms_are_found_by_patterns() {
    // Of the last three no pattern is made of one.
    for (forms, least) in [
        (&FORMS[..1], 80),
        (&FORMS[..2], 80),
        (&FORMS[6..9], 80),
        (&FORMS[5..8], 40),
    ] {
        let found = found_by_pattern(forms);
        assert!(found > least, "{found} of {forms:?}");
    }
}

#[test]
fn s10_stanzas_of_any_language_fit_a_pattern_and_those_of_none_do_not() {
    let mut scanner = Scanner::new(Limits::default());
    scanner.next(HEADER.as_bytes()).unwrap().unwrap();
    let mut found = [0; 2];
    for number in 0..100 {
        let tags = ["en", "de-CH", "x-klingon", "", "en_US", "a"];
        let (at, is_ill) = (number % tags.len(), number % tags.len() > 3);
        let stanza = format!(
            "<message from='a@b' xml:lang='{}'><body xml:lang='?'>{number}</body></message>",
            tags[at]
        );
        found[usize::from(is_ill)] += usize::from(scanner.by_pattern(stanza.as_bytes()).is_some());
        let Some(Item::Stanza(stanza)) = scanner.next(stanza.as_bytes()).unwrap() else {
            panic!("a stanza");
        };
        assert_eq!(
            (stanza.form.has_lang, stanza.form.ill_lang),
            (!is_ill, is_ill)
        );
    }
    assert!(found[0] > 40 && found[1] == 0, "{found:?}");
}

#[test]
fn whoever_repeats_nothing_costs_no_more_memory_than_a_few_patterns() {
    let mut scanner = Scanner::new(Limits::default());
    let taken = scanner.next(HEADER.as_bytes()).unwrap().unwrap().len();
    assert_eq!(taken, HEADER.len());
    for number in 0..5_000 {
        let stanza = format!("<message from='a@b'><x{number} a{number}='1'/></message>");
        let len = scanner.next(stanza.as_bytes()).unwrap().unwrap().len();
        assert_eq!(len, stanza.len());
    }
    let bytes = scanner.patterns.as_ref().unwrap().bytes();
    assert!(bytes <= 8_192, "{bytes}");
    scanner.release();
    assert!(scanner.patterns.is_none());
}
