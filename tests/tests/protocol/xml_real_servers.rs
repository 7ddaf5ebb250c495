//! X-14 with real servers inside: what looks like a second stanza to one parser and like text to
//! another never becomes one.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use xmpp_edge_tests::{
    federation::{Federation, Method, OWN, PARTNER, Plan},
    peer::{Login, Peer},
    pki::Usage,
    servers::{Kind, S2S_PORT},
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
    let federation = Federation::start(Plan {
        partner: Kind::Prosody,
        partner_method: Method::External,
        inside,
        inside_method: Method::External,
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
