//! in whatever pieces bytes come, and with what white space between.

use anyhow::ensure;
use xmpp_edge_tests::{
    peer::{ClientTls, Event, Identity, Open},
    rig::{Moved, OWN},
};

use super::{RIG, message};

#[test]
fn x_17_bytes_may_come_one_by_one() {
    RIG.test(17, async |s| {
        let mut peer = s.connect().await?;
        peer.send_slowly(Open::new(&s.domain, OWN).text()).await?;
        peer.header().await?;
        peer.features().await?;
        let identity = Identity::of(&s.identity)?;
        let tls = ClientTls::new(Some(OWN), Some(identity));
        peer.starttls(&tls).await?;
        peer.external(&s.domain, OWN).await?;
        let id = s.fresh();
        let body = "für 東京 😀 &amp; &#x41;";
        let text = message(s, &format!("id='{id}'"), &format!("<body>{body}</body>"));
        peer.send_slowly(&text).await?;
        let got = s.inside_gets(&id).await?;
        ensure!(
            got.child("body").unwrap().text == "für 東京 😀 & A",
            "{got:?}"
        );
        peer.send_slowly("</stream:stream>").await?;
        ensure!(peer.next().await? == Event::Close);
        peer.ended().await?;
        Ok(())
    });
}

#[test]
fn x_17_a_stanza_cut_anywhere_arrives_whole() {
    RIG.test(17, async |s| {
        let mut peer = s.partner().await?;
        let body = "für 東京 😀 &lt;/message> <![CDATA[]]]]>&#x41;";
        let whole = message(s, "id='?'", &format!("<body>{body}</body>"));
        let mut ids = Vec::new();
        for cut in 1..whole.len() {
            let id = format!("{:08}-{cut:04}", s.fresh());
            let stanza = whole.replace('?', &id);
            let (head, tail) = stanza.as_bytes().split_at(cut);
            peer.send(head).await?;
            peer.send(tail).await?;
            ids.push(id);
        }
        for id in ids {
            let got = s.inside_gets(&id).await?;
            let text = &got.child("body").unwrap().text;
            ensure!(text == "für 東京 😀 </message> ]]A", "{id}: {got:?}");
        }
        Ok(())
    });
}

#[test]
fn x_17_what_is_refused_at_once_is_refused_byte_by_byte() {
    RIG.test(17, async |s| {
        let id = s.forbidden();
        for (bad, condition) in [
            ("<!-- c -->", "restricted-xml"),
            ("<?pi x?>", "restricted-xml"),
            ("<a></b>", "not-well-formed"),
            ("<a b='1'c='2'/>", "not-well-formed"),
            ("<p:a/>", "bad-namespace-prefix"),
            ("&#0;", "not-well-formed"),
            ("&unknown;", "restricted-xml"),
        ] {
            let mut peer = s.partner().await?;
            for byte in message(s, "", &format!("<body>{id}{bad}</body>")).bytes() {
                peer.send_anyway([byte]).await;
            }
            peer.expect_stream_error(condition).await?;
        }
        s.unharmed(Moved::Attempt("MissingSpace")).await
    });
}

#[test]
fn x_18_white_space_is_no_stanza() {
    RIG.test(18, async |s| {
        let mut peer = s.partner().await?;
        for _ in 0..2_000 {
            peer.send(" ").await?;
        }
        peer.send("\n\t ".repeat(10_000)).await?;
        s.delivers_inwards(&mut peer).await?;
        let counted = s.grown("stanzas_total", &[]).await?;
        ensure!(
            (counted - 1.0).abs() < 0.1,
            "{counted} stanzas were counted"
        );
        Ok(())
    });
}
