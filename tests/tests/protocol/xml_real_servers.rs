//! X-14 with real servers inside: what looks like a second stanza to one parser and like text to
//! another never becomes one.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use xmpp_edge_tests::{
    federation::{Federation, FederationPlan, Method, OWN, PARTNER},
    peer::{Login, Peer},
    pki::Usage,
    servers::{Acknowledge, Kind, S2S_PORT},
};

const SMUGGLED: &str = "admin@org.example";

/// Contents whose `<body/>` must read [`text`], in forms that parsers have disagreed about.
fn contents() -> Vec<String> {
    let text = text();
    let escaped = text.replace('<', "&lt;").replace('>', "&gt;");
    let numeric: String = text
        .chars()
        .map(|c| format!("&#x{:x};", u32::from(c)))
        .collect();
    let pieces: String = text.chars().map(|c| format!("<![CDATA[{c}]]>")).collect();
    let in_double = escaped.clone();
    let in_single = escaped.replace('\'', "&apos;");
    vec![
        format!("<body>{escaped}</body>"),
        format!("<body>{}</body>", text.replace('<', "&lt;")),
        format!("<body>{numeric}</body>"),
        format!("<body><![CDATA[{text}]]></body>"),
        format!("<body>{pieces}</body>"),
        format!(
            "<body><![CDATA[</message]]>{}</body>",
            &escaped["&lt;/message".len()..]
        ),
        format!("<x xmlns='urn:x' a='{in_single}' b=\"{in_double}\"/><body>{escaped}</body>"),
        format!("<x xmlns='urn:x' a='/>' b=\"'>\"/><body>{escaped}</body>"),
        format!("<message xmlns='urn:x' from='{SMUGGLED}'/><body>{escaped}</body>"),
        format!("<s:message xmlns:s='jabber:server' from='{SMUGGLED}'/><body>{escaped}</body>"),
    ]
}

fn text() -> String {
    format!("</message><message from='{SMUGGLED}' to='alice@{OWN}'><body>smuggled")
}

async fn nothing_is_smuggled(inside: Kind) -> Result<()> {
    let federation = Federation::start(FederationPlan {
        partner: Kind::Prosody,
        partner_method: Method::External,
        inside,
        inside_method: Method::External,
        inside_acknowledge: Acknowledge::Resending,
        trace: false,
    })
    .await?;
    let outcome = send_all(&federation).await;
    outcome.with_context(|| federation.logs())
}

async fn send_all(federation: &Federation) -> Result<()> {
    let alice = federation.inside.login("alice").await?;
    let leaf = federation
        .lab
        .authority()
        .issue(&[PARTNER], Usage::ServerAndClientAuth);
    let public = SocketAddr::from((federation.edge.place().bind, S2S_PORT));
    let mut peer = Peer::login(public, PARTNER, OWN, &Login::External(&leaf)).await?;
    let bob = format!("bob@{PARTNER}/scripted");
    let to = alice.full();
    for (number, content) in contents().into_iter().enumerate() {
        let start = format!("<message from='{bob}' to='{to}' id='m{number}' type='chat'>");
        peer.send(format!("{start}{content}</message>")).await?;
    }
    peer.message(&bob, to, "last", "end").await?;
    for (number, content) in contents().iter().enumerate() {
        let got = alice
            .expect("the next message", |e| e.name == "message")
            .await?;
        let right = got.attribute("id") == Some(&format!("m{number}"))
            && got.attribute("from") == Some(&bob)
            && got.child("body").is_some_and(|body| body.text == text());
        ensure!(right, "{content} arrived as {got:?}");
    }
    let last = alice
        .expect("the last message", |e| e.name == "message")
        .await?;
    ensure!(last.attribute("id") == Some("last"), "{last:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x_14_nothing_is_smuggled_into_prosody() {
    nothing_is_smuggled(Kind::Prosody).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x_14_nothing_is_smuggled_into_ejabberd() {
    nothing_is_smuggled(Kind::Ejabberd).await.unwrap();
}

/// Every address is respelled in ways that the edge takes for the same domain and that others may
/// not: a full stop of ideographic, wide or half-wide form, upper case, one at the end.
async fn spelled_anew(inside: Kind) -> Result<()> {
    let federation = Federation::start(FederationPlan {
        partner: Kind::Prosody,
        partner_method: Method::External,
        inside,
        inside_method: Method::External,
        inside_acknowledge: Acknowledge::Resending,
        trace: false,
    })
    .await?;
    let outcome = send_spellings(&federation).await;
    outcome.with_context(|| federation.logs())
}

async fn send_spellings(federation: &Federation) -> Result<()> {
    let alice = federation.inside.login("alice").await?;
    let leaf = federation
        .lab
        .authority()
        .issue(&[PARTNER], Usage::ServerAndClientAuth);
    let public = SocketAddr::from((federation.edge.place().bind, S2S_PORT));
    let mut peer = Peer::login(public, PARTNER, OWN, &Login::External(&leaf)).await?;
    let bob = |domain: &str| format!("bob@{domain}/scripted");
    let resource = alice.full().split_once('/').context("a full JID")?.1;
    let spellings = |domain: &str| {
        vec![
            domain.replace('.', "\u{3002}"),
            domain.replace('.', "&#xff0e;"),
            domain.replace('.', "\u{ff61}"),
            domain.to_uppercase(),
            format!("{domain}."),
        ]
    };
    let cases = spellings(PARTNER)
        .into_iter()
        .map(|from| (from, OWN.to_owned()))
        .chain(
            spellings(OWN)
                .into_iter()
                .map(|to| (PARTNER.to_owned(), to)),
        );
    for (number, (from, to)) in cases.enumerate() {
        for (id, to) in [
            (format!("s{number}"), format!("alice@{to}/{resource}")),
            (format!("nobody{number}"), format!("nobody@{to}")),
        ] {
            let from = bob(&from);
            peer.send(format!(
                "<message from='{from}' to=\"{to}\" id='{id}' type='chat'><body>{id}</body></message>"
            ))
            .await?;
        }
        let after = format!("after{number}");
        peer.message(&bob(PARTNER), alice.full(), &after, "x")
            .await?;
        for id in [format!("s{number}"), after] {
            let got = alice
                .expect(&format!("message {id}, {from} to {to}"), |e| {
                    e.name == "message" && e.attribute("id") == Some(&id)
                })
                .await?;
            ensure!(got.attribute("from") == Some(&bob(PARTNER)), "{got:?}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_05_every_spelling_of_a_domain_reaches_prosody_as_the_one_that_was_judged() {
    spelled_anew(Kind::Prosody).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_05_every_spelling_of_a_domain_reaches_ejabberd_as_the_one_that_was_judged() {
    spelled_anew(Kind::Ejabberd).await.unwrap();
}
