#![allow(clippy::unwrap_used)]

use super::*;
use crate::xml::{Item, Limits, Scanner};

const RUSSIAN: &str = "<stream:stream xmlns='jabber:server' xmlns:s='jabber:server' xmlns:x='urn:x' \
    xmlns:stream='http://etherx.jabber.org/streams' xml:lang='ru'>";
const ENGLISH: &str = "<stream:stream xmlns='jabber:server' xmlns:s='jabber:server' xmlns:x='urn:x' \
    xmlns:stream='http://etherx.jabber.org/streams' xml:lang='en'>";

/// What the function makes of one stanza in a stream with that header.
fn made(
    header: &str,
    stanza: &str,
    change: impl FnOnce(&Stanza<'_>, &StreamHeader, &mut Vec<u8>),
) -> String {
    let mut scanner = Scanner::new(Limits::default());
    let Some(Item::Header { header, .. }) = scanner.next(header.as_bytes()).unwrap() else {
        panic!("a header");
    };
    let Some(Item::Stanza(stanza)) = scanner.next(stanza.as_bytes()).unwrap() else {
        panic!("a stanza: {stanza}");
    };
    let mut out = b"before".to_vec();
    change(&stanza, &header, &mut out);
    String::from_utf8(out)
        .unwrap()
        .strip_prefix("before")
        .unwrap()
        .to_owned()
}

fn relayed(header: &str, stanza: &str) -> String {
    made(header, stanza, |stanza, header, out| {
        relay(stanza, header, out).unwrap()
    })
}

fn stripped(header: &str, stanza: &str) -> String {
    made(header, stanza, |stanza, header, out| {
        shaped(Shape::WithoutStatus, stanza, header, out).unwrap()
    })
}

#[test]
fn a_plain_stanza_is_relayed_byte_by_byte() {
    for stanza in [
        "<message to='a' from=\"b\" ><body>hi &amp; &#65;</body></message >",
        "<presence xmlns='jabber:server'/>",
        "<iq xmlns:p='urn:p'><p:q p:a='>'/></iq>",
    ] {
        assert_eq!(relayed(ENGLISH, stanza), stanza);
    }
}

#[test]
fn the_language_of_the_stream_goes_with_the_stanza() {
    for (stanza, expected) in [
        ("<message to='a'/>", "<message xml:lang='ru' to='a'/>"),
        ("<message/>", "<message xml:lang='ru'/>"),
        (
            "<message\n>a</message>",
            "<message xml:lang='ru'\n>a</message>",
        ),
        ("<message xml:lang='de'/>", "<message xml:lang='de'/>"),
        ("<message xml:lang=''/>", "<message xml:lang=''/>"),
    ] {
        assert_eq!(relayed(RUSSIAN, stanza), expected);
    }
    let unsaid = RUSSIAN.replace(" xml:lang='ru'", "");
    assert_eq!(relayed(&unsaid, "<message/>"), "<message/>");
    // s10: what is no language tag is no language.
    for odd in ["'&apos;/&gt;&lt;'", "'en_US'", "'en-US-#u-fw-mon'", "''"] {
        let hostile = RUSSIAN.replace("'ru'", odd);
        assert_eq!(relayed(&hostile, "<message/>"), "<message/>");
    }
}

#[test]
fn s10_a_language_that_is_none_is_left_out_of_the_stanza() {
    for (header, stanza, expected) in [
        (
            ENGLISH,
            "<message to='a' xml:lang='en_US' id='1'><body>x</body></message>",
            "<message to='a' id='1'><body>x</body></message>",
        ),
        (
            ENGLISH,
            "<message xml:lang = \"en-a-b-ccc\"/>",
            "<message/>",
        ),
        (
            ENGLISH,
            "<iq id='xml:lang=' xml:lang='en&#95;US'/>",
            "<iq id='xml:lang='/>",
        ),
        // Then it is in the stream's.
        (
            RUSSIAN,
            "<presence xml:lang='-' to='a'/>",
            "<presence xml:lang='ru' to='a'/>",
        ),
        (
            ENGLISH,
            "<s:message xml:lang='en_US' to='a'/>",
            "<message to='a'/>",
        ),
        // What it says is the stanza's content, and none of its servers'.
        (
            ENGLISH,
            "<message><body xml:lang='en_US'>x</body></message>",
            "<message><body xml:lang='en_US'>x</body></message>",
        ),
    ] {
        assert_eq!(relayed(header, stanza), expected, "{stanza}");
    }
    let status = "<presence xml:lang='en_US'><status>x</status><show>xa</show></presence>";
    assert_eq!(
        stripped(ENGLISH, status),
        "<presence><show>xa</show></presence>"
    );
}

#[test]
fn prefixes_of_the_header_are_declared_in_the_stanza() {
    assert_eq!(
        relayed(ENGLISH, "<message><x:a/><s:b/></message>"),
        "<message xmlns:s='jabber:server' xmlns:x='urn:x'><x:a/><s:b/></message>"
    );
    assert_eq!(
        relayed(ENGLISH, "<message x:a='1'/>"),
        "<message xmlns:x='urn:x' x:a='1'/>"
    );
    let own = "<message xmlns:x='urn:own'><x:a/></message>";
    assert_eq!(
        relayed(ENGLISH, own),
        own,
        "a declaration of its own is not doubled"
    );
}

#[test]
fn a_prefixed_stanza_is_written_anew() {
    assert_eq!(
        relayed(
            ENGLISH,
            "<s:message to='a'><s:body>&lt;</s:body><x:a x:b='1'/><c xmlns=''/></s:message>"
        ),
        "<message xmlns:n0='urn:x' to='a'><body>&lt;</body><n0:a n0:b='1'/><c xmlns=''/></message>"
    );
    assert_eq!(
        relayed(
            RUSSIAN,
            "<p:presence xmlns:p='jabber:server' xmlns='urn:d'><a/></p:presence>"
        ),
        "<presence xml:lang='ru'><a xmlns='urn:d'/></presence>"
    );
}

#[test]
fn what_is_written_anew_stays_in_proportion() {
    let name = "u".repeat(250);
    let stanza = format!(
        "<s:message xmlns:u='{name}'>{}</s:message>",
        "<u:a/>".repeat(10_000)
    );
    let written = relayed(ENGLISH, &stanza);
    assert!(
        written.len() < 2 * stanza.len(),
        "{} of {}",
        written.len(),
        stanza.len()
    );
}

#[test]
fn cdata_becomes_text_x14() {
    assert_eq!(
        relayed(
            ENGLISH,
            "<message><body>a<![CDATA[</message><message>&amp;]]>b<![CDATA[]]>]]<![CDATA[>]]></body></message>"
        ),
        "<message><body>a&lt;/message&gt;&lt;message&gt;&amp;amp;b]]&gt;</body></message>"
    );
}

#[test]
fn notes_are_stripped_however_they_are_written() {
    for note in [
        "<status>away</status>",
        "<status/>",
        "<status xml:lang='de'>weg</status><status>away</status>",
        "<status xmlns='jabber:server'>away</status>",
        "<s:status>away</s:status>",
        "<q:status xmlns:q='jabber:server'>away</q:status>",
        "<q:status xmlns:q='jabber&#58;server'>away</q:status>",
        "<status xmlns='jabber:client'>away</status>",
        "<status xmlns=''>away</status>",
        "<status><![CDATA[</status>]]><status>in</status></status>",
    ] {
        let presence = stripped(
            ENGLISH,
            &format!("<presence to='a'><show>xa</show>{note}<c xmlns='urn:c'/></presence>"),
        );
        let declared = if note.starts_with("<s:") {
            " xmlns:s='jabber:server'"
        } else {
            ""
        };
        assert_eq!(
            presence,
            format!("<presence{declared} to='a'><show>xa</show><c xmlns='urn:c'/></presence>"),
            "{note}"
        );
        let anew = stripped(
            ENGLISH,
            &format!("<s:presence xmlns='jabber:server'>{note}<show>xa</show></s:presence>"),
        );
        assert_eq!(anew, "<presence><show>xa</show></presence>", "{note}");
    }
    let other = "<presence><status xmlns='urn:s'/><a xmlns='urn:a'><status/></a></presence>";
    assert_eq!(stripped(ENGLISH, other), other, "what is no note stays");
    assert_eq!(
        stripped(RUSSIAN, "<presence/>"),
        "<presence xml:lang='ru'/>"
    );
}

#[test]
fn an_error_answers_the_stanza_and_escapes_everything() {
    let reply = Reply {
        error_type: "cancel",
        condition: "not-allowed",
        text: Some("no: <you> & \u{1}"),
        reason: Some("Access'Policy\""),
    };
    let answer = made(
        ENGLISH,
        "<iq type='get' from='a@b/&apos;&lt;' to='c' id='&quot;&amp;'><q/></iq>",
        |stanza, _, out| {
            error_reply(stanza, reply, out);
        },
    );
    assert_eq!(
        answer,
        "<iq from='c' to='a@b/&apos;&lt;' id='&quot;&amp;' type='error'><error type='cancel'>\
         <not-allowed xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
         <text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>no: &lt;you&gt; &amp; \u{fffd}</text>\
         <policy xmlns='urn:xmpp-edge:errors:0' reason='Access&apos;Policy&quot;'/></error></iq>"
    );
    let bare = Reply {
        error_type: "cancel",
        condition: "service-unavailable",
        text: None,
        reason: None,
    };
    let answer = made(ENGLISH, "<message/>", |stanza, _, out| {
        error_reply(stanza, bare, out)
    });
    assert_eq!(
        answer,
        "<message type='error'><error type='cancel'>\
         <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
    );
}

#[test]
fn s3_an_error_says_each_domain_in_one_spelling() {
    let reply = Reply {
        error_type: "cancel",
        condition: "service-unavailable",
        text: None,
        reason: None,
    };
    for (said, written) in [
        ("alice@org\u{3002}example/r", "alice@org.example/r"),
        ("alice@Org.Example.", "alice@org.example"),
        ("alice@xn--bcher-kva.example", "alice@xn--bcher-kva.example"),
        ("a@b@c", "a@b@c"),
    ] {
        let stanza = format!("<message from='{said}' to='{said}'/>");
        let answer = made(ENGLISH, &stanza, |stanza, _, out| {
            error_reply(stanza, reply, out)
        });
        let start = format!("<message from='{written}' to='{written}' type='error'>");
        assert!(answer.starts_with(&start), "{said}: {answer}");
    }
}

#[test]
fn presence_of_ours_is_escaped() {
    let mut out = Vec::new();
    presence("a@b/'", "c@d/<", Some("unavailable"), &mut out);
    presence("a@b", "c@d", Some("probe"), &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "<presence from='a@b/&apos;' to='c@d/&lt;' type='unavailable'/><presence from='a@b' to='c@d' type='probe'/>"
    );
}

/// S-05: what was judged is what is written, wherever the address stands in the start tag.
#[test]
fn an_address_judged_in_another_form_is_written_in_that_form() {
    let readdressed = |header: &str, stanza: &str| {
        made(header, stanza, |stanza, header, out| {
            let mut anew = stanza.clone();
            anew.form.readdressed = true;
            anew.from = Some("a@b.example/it's".into());
            anew.to = Some("c@d.example".into());
            assert!(!stands_as_is(&anew, header));
            relay(&anew, header, out).unwrap();
        })
    };
    for (stanza, expected) in [
        (
            "<message from='A' to=\"C\" id='from=&apos;x'><to from='y'/></message>",
            "<message from='a@b.example/it&apos;s' to='c@d.example' id='from=&apos;x'><to from='y'/></message>",
        ),
        (
            "<iq\n to = 'C'\ttype='get' xmlns:from='urn:f' from:to='1' from='A'/>",
            "<iq to='c@d.example'\ttype='get' xmlns:from='urn:f' from:to='1' from='a@b.example/it&apos;s'/>",
        ),
        (
            "<presence from='A' to='>' ><status>x</status></presence >",
            "<presence from='a@b.example/it&apos;s' to='c@d.example' ><status>x</status></presence >",
        ),
        (
            "<s:message from='A' to='C'><s:body>x</s:body></s:message>",
            "<message from='a@b.example/it&apos;s' to='c@d.example'><body>x</body></message>",
        ),
    ] {
        assert_eq!(readdressed(ENGLISH, stanza), expected);
    }
    assert_eq!(
        readdressed(RUSSIAN, "<message from='A' to='C'><x:a/></message>"),
        "<message xml:lang='ru' xmlns:x='urn:x' from='a@b.example/it&apos;s' to='c@d.example'><x:a/></message>"
    );
}

#[test]
fn what_is_bare_has_no_content_and_an_error_alone_nothing_else() {
    let shape = |shape: Shape, stanza: &str| {
        made(RUSSIAN, stanza, |stanza, header, out| {
            shaped(shape, stanza, header, out).unwrap()
        })
    };
    assert_eq!(
        shape(
            Shape::Bare,
            "<presence x:y='1' to='b' from='a' type='unavailable' id='1'>text<status>x</status></presence>"
        ),
        "<presence from='a' to='b' type='unavailable'/>"
    );
    const CONDITIONS: &str = "xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'";
    for (error, left) in [
        (
            format!("<s:error type='wait' by='c'><gone {CONDITIONS}>xmpp:x</gone><x:y/></s:error>"),
            format!("<error type='wait'><gone {CONDITIONS}/></error>"),
        ),
        (
            format!(
                "<error><text {CONDITIONS} xml:lang='de'>nein<x:y>!</x:y></text>\
                 <forbidden {CONDITIONS}/><gone {CONDITIONS}/></error><error type='auth'/>"
            ),
            format!(
                "<error type='cancel'><forbidden {CONDITIONS}/>\
                 <text {CONDITIONS} xml:lang='de'>nein</text></error>"
            ),
        ),
        (
            format!("<error type='none'><x:y/><text {CONDITIONS}>нет</text></error>"),
            format!(
                "<error type='cancel'><undefined-condition {CONDITIONS}/>\
                 <text {CONDITIONS} xml:lang='ru'>нет</text></error>"
            ),
        ),
    ] {
        assert_eq!(
            shape(
                Shape::ErrorAlone,
                &format!("<message to='b' type='error' id='1'>t<body>x</body>{error}</message>")
            ),
            format!("<message to='b' id='1' type='error'>{left}</message>")
        );
    }
    assert_eq!(
        shape(Shape::ErrorAlone, "<iq type='error'><x:y/></iq>"),
        "<iq type='error'/>"
    );
}

#[test]
fn s_12_what_crosses_past_the_rules_carries_nothing_whatever_its_length() {
    let long = "ü".repeat(20_000);
    let shape = |shape: Shape, stanza: &str| {
        made(RUSSIAN, stanza, |stanza, header, out| {
            shaped(shape, stanza, header, out).unwrap()
        })
    };
    let bare = shape(
        Shape::Bare,
        &format!("<presence type='unavailable' from='a@b/r' to='c@d/r' id='{long}'/>"),
    );
    assert_eq!(
        bare,
        "<presence from='a@b/r' to='c@d/r' type='unavailable'/>"
    );
    let error = shape(
        Shape::ErrorAlone,
        &format!(
            "<iq type='error' from='a@b/r' to='c@d/r' id='{long}'><error type='{long}' by='{long}'>\
             <text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='x-{}'>{long}</text>\
             <x:a>{long}</x:a></error></iq>",
            "a-".repeat(10_000) + "a",
        ),
    );
    assert!(
        error.len() < ERROR_ID + 2 * ERROR_TEXT + 400,
        "{}",
        error.len()
    );
    assert!(error.contains("<undefined-condition"), "{error}");
}
