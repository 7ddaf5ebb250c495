//! X: opening a stream, and XML that is not what RFC 6120 section 11 allows.

mod opening;
mod pieces;

use anyhow::{Result, ensure};
use serde_json::json;
use xmpp_edge_tests::{
    peer::{ClientTls, Command, Event, Identity, Open, PeerServer},
    rig::{ALICE, Moved, OWN, Plan, Scene, Shared},
};

static RIG: Shared = Shared::new(Plan {
    // look at streams that may go on without TLS, too.
    partner: |test| match test {
        24 => json!({ "tlsNegotiation": "Optional", "allowPlaintext": true }),
        _ => json!({}),
    },
    ..Plan::standard("x", 24)
});

/// Opens with this header, in plaintext, and expects this stream error after a header of the edge.
async fn header_refused(s: &Scene, open: &Open, condition: &str) -> Result<()> {
    let mut peer = s.connect().await?;
    peer.open_with(open).await?;
    peer.header().await?;
    peer.expect_stream_error(condition).await
}

/// Sends this on an authenticated stream and expects this stream error.
async fn refused(s: &Scene, bytes: impl AsRef<[u8]>, condition: &str) -> Result<()> {
    let mut peer = s.partner().await?;
    peer.send_anyway(bytes.as_ref()).await;
    let got = peer.stream_error().await?;
    let shown = String::from_utf8_lossy(bytes.as_ref());
    let shown: String = shown.chars().take(200).collect();
    ensure!(got == condition, "{got}, not {condition}, for {shown}");
    Ok(())
}

/// A message from the partner to alice around this content.
fn message(s: &Scene, attributes: &str, content: &str) -> String {
    format!(
        "<message from='{}' to='{ALICE}' type='chat' {attributes}>{content}</message>",
        s.user("rob")
    )
}

#[test]
fn x_07_a_dtd_is_restricted_xml_before_anything_is_expanded() {
    RIG.test(7, async |s| {
        let before = s.rig.edge.lock().await.resident_kib()?;
        let mut peer = s.connect().await?;
        let mut dtd = String::from("<?xml version='1.0'?><!DOCTYPE l [<!ENTITY l0 'lol'>");
        for level in 1..=10 {
            let below = format!("&l{};", level - 1).repeat(10);
            dtd += &format!("<!ENTITY l{level} '{below}'>");
        }
        peer.send_anyway(dtd + "]><stream:stream to='&l10;'>").await;
        peer.expect_stream_error("restricted-xml").await?;
        let grown = s
            .rig
            .edge
            .lock()
            .await
            .resident_kib()?
            .saturating_sub(before);
        // Others' streams come and go meanwhile; an expansion would take gigabytes.
        ensure!(grown < 32 * 1024, "{grown} KiB");
        s.unharmed(Moved::Connection("DocumentType")).await
    });
}

#[test]
fn x_08_what_xmpp_restricts_is_restricted_xml() {
    RIG.test(8, async |s| {
        let id = s.forbidden();
        for bad in [
            "<!-- c -->",
            "<?pi x?>",
            "<!DOCTYPE x>",
            "<!DOCTYPE x SYSTEM 'http://evil.example/x'>",
        ] {
            refused(s, bad, "restricted-xml").await?;
            if !bad.starts_with("<!D") {
                let inside = message(s, "", &format!("<body>{id}{bad}</body>"));
                refused(s, inside, "restricted-xml").await?;
            }
        }
        let mut open = Open::new(&s.domain, OWN);
        open.declaration = "<?xml version='1.0' standalone='no'?>".into();
        header_refused(s, &open, "restricted-xml").await?;
        for label in ["Comment", "ProcessingInstruction", "DocumentType"] {
            s.unharmed(Moved::Attempt(label)).await?;
        }
        s.unharmed(Moved::Connection("NotStandalone")).await
    });
}

#[test]
fn x_08_cdata_is_text() {
    RIG.test(8, async |s| {
        let mut peer = s.partner().await?;
        let id = s.fresh();
        let text = message(
            s,
            &format!("id='{id}'"),
            "<body><![CDATA[a <b> & c]]></body>",
        );
        peer.send(text).await?;
        let got = s.inside_gets(&id).await?;
        ensure!(got.child("body").unwrap().text == "a <b> & c", "{got:?}");
        Ok(())
    });
}

#[test]
fn x_09_what_is_not_well_formed_ends_the_stream() {
    RIG.test(9, async |s| {
        let id = s.forbidden();
        for (bad, condition) in [
            ("<a></b>", "not-well-formed"),
            ("<a b='1' b='2'/>", "not-well-formed"),
            (
                "<a xmlns:p='urn:u' xmlns:q='urn:u' p:b='1' q:b='2'/>",
                "not-well-formed",
            ),
            ("<p:a/>", "bad-namespace-prefix"),
            ("<a p:b=''/>", "bad-namespace-prefix"),
            ("<a b='<'/>", "not-well-formed"),
            ("<a b=c/>", "not-well-formed"),
            ("<a b/>", "not-well-formed"),
            ("<a>]]></a>", "not-well-formed"),
            ("<a>&unknown;</a>", "restricted-xml"),
            ("<a>& </a>", "not-well-formed"),
            ("<a>&#x110000;</a>", "not-well-formed"),
        ] {
            let text = message(s, "", &format!("<body>{id}</body>{bad}"));
            refused(s, text, condition).await?;
        }
        for label in [
            "EndTag",
            "DuplicateAttribute",
            "UndeclaredPrefix",
            "LessThanInAttribute",
        ] {
            s.unharmed(Moved::Attempt(label)).await?;
        }
        Ok(())
    });
}

#[test]
fn x_10_a_tag_without_space_before_an_attribute_is_not_well_formed() {
    RIG.test(10, async |s| {
        let id = s.forbidden();
        let rob = s.user("rob");
        let twice = format!("<message from='{rob}'to='{ALICE}'><body>{id}</body></message>");
        refused(s, twice, "not-well-formed").await?;
        // A name may not hold '='; XML has no other way to read it.
        let glued = format!("<messageto='{ALICE}'><body>{id}</body></messageto='{ALICE}'>");
        refused(s, glued, "not-well-formed").await?;
        refused(s, format!("<message/x>{id}"), "not-well-formed").await?;
        s.unharmed(Moved::Attempt("MissingSpace")).await
    });
}

#[test]
fn x_11_bytes_that_are_not_text_are_never_forwarded() {
    RIG.test(11, async |s| {
        let id = s.forbidden();
        let bytes: [&[u8]; 8] = [
            b"\xff",
            b"\xc0\xbc",
            b"\xe0\x80\xbc",
            b"\xed\xa0\x80",
            b"\xf5\x80\x80\x80",
            b"\xc3",
            b"&#0;",
            b"\x00",
        ];
        for bad in bytes {
            let text = message(s, "", &format!("<body>{id}?</body>"));
            let (head, tail) = text.split_once('?').unwrap();
            refused(
                s,
                [head.as_bytes(), bad, tail.as_bytes()].concat(),
                "not-well-formed",
            )
            .await?;
        }
        s.unharmed(Moved::Attempt("NotUtf8")).await
    });
}

#[test]
fn x_12_another_encoding_is_unsupported_encoding() {
    RIG.test(12, async |s| {
        for encoding in ["latin1", "UTF-16", "utf-32"] {
            let mut open = Open::new(&s.domain, OWN);
            open.declaration = format!("<?xml version='1.0' encoding='{encoding}'?>");
            header_refused(s, &open, "unsupported-encoding").await?;
        }
        s.unharmed(Moved::Connection("Encoding")).await
    });
}

#[test]
fn x_12_utf_16_and_utf_32_are_unsupported_encoding_by_their_first_bytes() {
    RIG.test(12, async |s| {
        let text = Open::new(&s.domain, OWN).text();
        let words = || text.encode_utf16();
        let marked = || std::iter::once(0xfeff).chain(words());
        let wide = || text.chars().map(u32::from);
        for bytes in [
            marked().flat_map(u16::to_be_bytes).collect::<Vec<_>>(),
            marked().flat_map(u16::to_le_bytes).collect(),
            words().flat_map(u16::to_be_bytes).collect(),
            words().flat_map(u16::to_le_bytes).collect(),
            wide().flat_map(u32::to_be_bytes).collect(),
            wide().flat_map(u32::to_le_bytes).collect(),
        ] {
            let mut peer = s.connect().await?;
            peer.send_anyway(bytes).await;
            peer.expect_stream_error("unsupported-encoding").await?;
        }
        s.unharmed(Moved::Connection("Encoding")).await
    });
}

#[test]
fn x_13_a_namespace_cannot_forge_a_name() {
    RIG.test(13, async |s| {
        let id = s.forbidden();
        let forged = |separator: &str| {
            format!(
                "<x xmlns='jabber:server{separator}message' from='{}' to='{ALICE}' id='{id}'/>",
                s.user("rob")
            )
        };
        for (separator, condition) in [
            ("&#10;", "bad-format"),
            ("&#12;", "not-well-formed"),
            (" ", "bad-format"),
            ("|", "unsupported-stanza-type"),
        ] {
            refused(s, forged(separator), condition).await?;
        }
        s.unharmed(Moved::Attempt("NamespaceName")).await
    });
}

#[test]
fn x_14_what_looks_like_a_second_stanza_stays_text() {
    RIG.test(14, async |s| {
        let mut peer = s.partner().await?;
        let inner = format!("</message><message from='admin@{OWN}' to='{ALICE}'>");
        let escaped = inner.replace('<', "&lt;").replace('>', "&gt;");
        for (content, quote) in [
            (format!("<body>{escaped}</body>"), ""),
            (format!("<body><![CDATA[{inner}]]></body>"), ""),
            (
                format!("<body x='{}'/>", escaped.replace('\'', "&apos;")),
                "x",
            ),
            (format!("<body x=\"{escaped}\"/>"), "x"),
            (
                format!("<body x=\"{}\"/>", escaped.replace("&gt;", ">")),
                "x",
            ),
        ] {
            let id = s.fresh();
            peer.send(message(s, &format!("id='{id}'"), &content))
                .await?;
            let got = s.inside_gets(&id).await?;
            let body = got.child("body").unwrap();
            let text = match quote {
                "" => body.text.as_str(),
                name => body.attribute(name).unwrap_or_default(),
            };
            ensure!(text == inner, "{content} arrived as {got:?}");
        }
        // One after the last, so that all have arrived.
        s.delivers_inwards(&mut peer).await?;
        let from_admin = s
            .rig
            .inside
            .stanzas()
            .iter()
            .any(|r| r.stanza.attribute("from") == Some("admin@org.example"));
        ensure!(!from_admin, "a stanza was smuggled");
        Ok(())
    });
}

/// The stanza is answered with this error, and the stream goes on: what follows on it arrives.
async fn answered(s: &Scene, outside: &PeerServer, content: &str, condition: &str) -> Result<()> {
    let mut peer = s.partner().await?;
    let id = s.fresh();
    peer.send(message(s, &format!("id='{id}'"), content))
        .await?;
    let error = outside.stanza_id(&id).await?;
    let got = error.error_condition();
    let shown: String = content.chars().take(200).collect();
    ensure!(
        got == Some(condition),
        "{error:?}, not {condition}, for {shown}"
    );
    s.delivers_inwards(&mut peer).await
}

#[test]
fn x_15_deep_nesting_is_policy_violation() {
    RIG.test(15, async |s| {
        let outside = s.outside().await?;
        let id = s.forbidden();
        let nested = |n: usize| format!("{}{}", "<a>".repeat(n), "</a>".repeat(n));
        let deep = format!("<body>{id}</body>{}", nested(10_000));
        answered(s, &outside, &deep, "policy-violation").await?;
        // As deep as allowed: the stanza itself counts.
        let mut peer = s.partner().await?;
        let id = s.fresh();
        let body = format!("<body>x</body>{}", nested(63));
        peer.send(message(s, &format!("id='{id}'"), &body)).await?;
        s.inside_gets(&id).await?;
        s.unharmed(Moved::Refused("TooDeep")).await
    });
}

#[test]
fn x_16_too_many_of_anything_is_policy_violation() {
    RIG.test(16, async |s| {
        let outside = s.outside().await?;
        let id = s.forbidden();
        let many = |f: fn(usize) -> String| (0..100_000).map(f).collect::<String>();
        for content in [
            format!("<body {}>{id}</body>", many(|n| format!("a{n}='' "))),
            format!(
                "<body {}>{id}</body>",
                many(|n| format!("xmlns:a{n}='urn:a' "))
            ),
            format!("<body>{id}</body>{}", many(|_| "<a/>".to_owned())),
            format!("<body>{id}</body><{}/>", "a".repeat(300)),
        ] {
            answered(s, &outside, &content, "policy-violation").await?;
        }
        for label in ["TooManyAttributes", "TooLarge", "NameTooLong"] {
            s.unharmed(Moved::Refused(label)).await?;
        }
        Ok(())
    });
}

#[test]
fn x_19_an_unknown_element_is_unsupported_stanza_type() {
    RIG.test(19, async |s| {
        let id = s.forbidden();
        let text = format!("<foo xmlns='jabber:server' to='{ALICE}'>{id}</foo>");
        refused(s, text, "unsupported-stanza-type").await?;
        s.unharmed(Moved::Attempt("UnexpectedElement")).await
    });
}

#[test]
fn x_20_of_a_foreign_namespace_an_element_ends_the_stream_and_a_stanza_costs_itself() {
    RIG.test(20, async |s| {
        let (outside, forbidden, rob) = (s.outside().await?, s.forbidden(), s.user("rob"));
        let text = format!("<foo xmlns='urn:x' from='{rob}' to='{ALICE}'>{forbidden}</foo>");
        refused(s, text, "unsupported-stanza-type").await?;
        // What is named as a stanza is one, whatever its namespace: it costs itself.
        let mut peer = s.partner().await?;
        for namespace in ["urn:x", "jabber:client", ""] {
            let id = s.fresh();
            let text = format!(
                "<message xmlns='{namespace}' from='{rob}' to='{ALICE}' type='chat' id='{id}'>\
                 <body>{forbidden}</body></message>"
            );
            peer.send(text).await?;
            let error = outside.stanza_id(&id).await?;
            ensure!(error.error_condition() == Some("bad-request"), "{error:?}");
        }
        s.delivers_inwards(&mut peer).await?;
        s.unharmed(Moved::Refused("StanzaNamespace")).await?;
        s.unharmed(Moved::Attempt("UnexpectedElement")).await
    });
}

#[test]
fn x_21_a_restarted_stream_keeps_its_domains() {
    RIG.test(21, async |s| {
        let other = "good.example";
        for (from, to, condition) in [
            (other, OWN, "invalid-from"),
            (&s.domain, "second.example", "not-authorized"),
        ] {
            // After TLS.
            let mut peer = s.connect().await?;
            peer.open(&s.domain, OWN).await?;
            let identity = Some(Identity::of(&s.identity)?);
            let tls = ClientTls::new(Some(OWN), identity);
            peer.starttls(&tls).await?;
            peer.open_with(&Open::new(from, to)).await?;
            peer.header().await?;
            peer.expect_stream_error(condition).await?;
            // After SASL.
            let (mut peer, _) = s.secured(Some(&s.identity)).await?;
            ensure!(peer.auth("EXTERNAL", "=").await?.name == "success");
            peer.open_with(&Open::new(from, to)).await?;
            peer.header().await?;
            peer.expect_stream_error(condition).await?;
            // Inside an open stream.
            refused(s, Open::new(from, to).text(), "restricted-xml").await?;
            let mut header = Open::new(from, to);
            header.declaration.clear();
            // Not closed: it is refused by its start tag.
            refused(s, header.text(), "unsupported-stanza-type").await?;
            let id = s.forbidden();
            let more = message(s, "", &format!("<body>{id}</body>"));
            refused(s, header.text() + &more, "unsupported-stanza-type").await?;
        }
        for label in ["FromChanged", "ToChanged", "SecondHeader"] {
            s.unharmed(Moved::Attempt(label)).await?;
        }
        Ok(())
    });
}

#[test]
fn x_22_the_end_of_a_stream_is_answered_and_the_connection_closed() {
    RIG.test(22, async |s| {
        let mut peer = s.partner().await?;
        s.delivers_inwards(&mut peer).await?;
        peer.send("</stream:stream>").await?;
        ensure!(peer.next().await? == Event::Close);
        // After close_notify; without it this were Event::Broken.
        ensure!(peer.next().await? == Event::Eof);
        Ok(())
    });
}

#[test]
fn x_23_nothing_is_lost_when_the_partner_half_closes() {
    RIG.test(23, async |s| {
        let outside = s.outside().await?;
        let mut inside = s.inside().await?;
        s.delivers_outwards(&mut inside, &outside).await?;
        let connection = outside
            .stanzas()
            .first()
            .map(|received| received.connection)
            .unwrap();
        outside.freeze(connection).await?;
        let ids: Vec<_> = (0..100).map(|_| s.fresh()).collect();
        for id in &ids {
            inside.message(ALICE, &s.user("rob"), id, "hello").await?;
        }
        outside.tell(connection, Command::HalfClose);
        outside.tell(connection, Command::Thaw);
        for id in &ids {
            let delivered = outside.stanza_id(id);
            let bounced = s.rig.inside.stanza_id(id);
            tokio::select! {
                got = delivered => { got?; }
                got = bounced => { ensure!(got?.error_condition().is_some()); }
            }
        }
        Ok(())
    });
}
