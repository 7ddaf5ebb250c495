//! s3: a partner's domain in other letters than ASCII, to servers that compare texts.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use xmpp_edge_tests::{
    peer::{Behaviour, ClientTls, Command, Identity, PeerServer},
    pki::{Leaf, Usage},
    rig::{ALICE, OWN, Plan, Scene, Shared},
};

/// By test: the name in ASCII, and in letters.
const NAMES: [(&str, &str); 4] = [
    ("xn--bcher-kva.example", "bücher.example"),
    ("xn--mhlen-kva.example", "mühlen.example"),
    ("xn--kln-sna.example", "köln.example"),
    ("xn--strten-xxa.example", "störten.example"),
];

static RIG: Shared = Shared::new(Plan {
    partner: |test| json!({ "saslNegotiation": "Optional", "additionalDomains": [NAMES[usize::from(test) - 1].0] }),
    ..Plan::standard("fi", 4)
});

/// The partner's server under its international name alone.
async fn serves(
    s: &Scene,
    test: usize,
    hosts: &'static str,
    external: bool,
) -> Result<(PeerServer, Leaf)> {
    let (ascii, _) = NAMES[test - 1];
    let leaf = s.rig.lab.authority().issue(&[ascii], Usage::ServerAuth);
    let dns = s.rig.lab.dns();
    dns.xmpp_server(ascii, 0, 0, 5269, &s.target());
    let server = s
        .serve(Behaviour {
            hosts: Some(hosts),
            external,
            ..Behaviour::good(Identity::of(&leaf)?)
        })
        .await?;
    Ok((server, leaf))
}

/// A message in either form arrives in this one.
async fn arrives(s: &Scene, outside: &PeerServer, test: usize, host: &str) -> Result<()> {
    let (ascii, letters) = NAMES[test - 1];
    for said in [letters, ascii] {
        let mut inside = s.inside_to(said).await?;
        let id = s.fresh();
        inside
            .message(ALICE, &format!("rob@{said}"), &id, "hello")
            .await?;
        let got = outside.stanza_id(&id).await?;
        let to = format!("rob@{host}");
        ensure!(got.attribute("to") == Some(&to), "{got:?}");
    }
    Ok(())
}

#[test]
fn s3_letters_on_the_wire_and_ascii_for_dns_sni_and_certificates() {
    RIG.test(1, async |s| {
        let (ascii, letters) = NAMES[0];
        let (outside, leaf) = serves(s, 1, letters, true).await?;
        arrives(s, &outside, 1, letters).await?;
        let seen = outside.seen();
        ensure!(seen.len() == 1 && seen[0].method == "External", "{seen:#?}");
        let sni = seen[0].tls.as_ref().and_then(|tls| tls.sni.clone());
        ensure!(sni.as_deref() == Some(ascii), "SNI {sni:?}");
        // It calls by the same name, and is told so in the header.
        let mut peer = s.connect().await?;
        peer.open(letters, OWN).await?;
        peer.starttls(&ClientTls::new(Some(OWN), Some(Identity::of(&leaf)?)))
            .await?;
        peer.external(letters, OWN).await?;
        ensure!(
            !peer.received().contains("xn--"),
            "answered in another form: {}",
            peer.received()
        );
        let id = s.fresh();
        let rob = format!("rob@{letters}");
        peer.message(&rob, ALICE, &id, "hello").await?;
        let got = s.inside_gets(&id).await?;
        ensure!(got.attribute("from") == Some(&rob), "{got:?}");
        Ok(())
    });
}

/// Dialback on both sides: keys, answers and questions bear the name as it was said, byte by byte.
async fn dials_back(s: &Scene, test: usize, host: &'static str) -> Result<()> {
    let (outside, _) = serves(s, test, host, false).await?;
    let mut peer = s.connect().await?;
    peer.open(host, OWN).await?;
    peer.starttls(&ClientTls::new(Some(OWN), None)).await?;
    peer.open(host, OWN).await?;
    outside.made("key");
    let verdict = peer.dialback(host, OWN, "key").await?;
    ensure!(verdict == "valid", "{verdict}");
    let asked = outside.seen();
    ensure!(asked.iter().all(|seen| seen.to == host), "{asked:#?}");
    // The way back has the same form from the first stream on.
    arrives(s, &outside, test, host).await?;
    let seen = outside.seen();
    ensure!(seen.iter().all(|seen| seen.to == host), "{seen:#?}");
    let (from, to, ..) = seen
        .iter()
        .flat_map(|seen| &seen.keys)
        .next()
        .context("no key came")?;
    ensure!(
        (from.as_str(), to.as_str()) == (OWN, host),
        "{from} to {to}"
    );
    Ok(())
}

#[test]
fn s3_dialback_answers_in_letters_where_it_is_asked_in_letters() {
    RIG.test(2, async |s| dials_back(s, 2, NAMES[1].1).await);
}

#[test]
fn s3_dialback_answers_in_ascii_where_it_is_asked_in_ascii() {
    RIG.test(3, async |s| dials_back(s, 3, NAMES[2].0).await);
}

#[test]
fn s3_a_server_that_knows_the_ascii_form_alone_is_found_by_its_refusal_once() {
    RIG.test(4, async |s| {
        let (ascii, letters) = NAMES[3];
        let (outside, _) = serves(s, 4, ascii, true).await?;
        let mut inside = s.inside_to(ascii).await?;
        let id = s.fresh();
        inside
            .message(ALICE, &format!("rob@{ascii}"), &id, "hello")
            .await?;
        outside.stanza_id(&id).await?;
        let asked: Vec<_> = outside.seen().into_iter().map(|seen| seen.to).collect();
        ensure!(asked == [letters, ascii], "{asked:?}");
        arrives(s, &outside, 4, ascii).await?;
        // It is remembered.
        outside.tell_all(&Command::Drop);
        outside
            .until("the stream ends", |seen| seen.iter().all(|seen| seen.ended))
            .await?;
        arrives(s, &outside, 4, ascii).await?;
        let asked: Vec<_> = outside.seen().into_iter().map(|seen| seen.to).collect();
        ensure!(asked[2..].iter().all(|to| to == ascii), "{asked:?}");
        Ok(())
    });
}
