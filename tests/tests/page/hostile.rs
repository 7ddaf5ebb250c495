//! What peers write stays text, and who reads nothing holds up nobody.

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use xmpp_edge_tests::{
    edge::manifest,
    rig::{ALICE, Scene},
};

use super::{RIG, ensure_no_complaints, page, row_says};

const MARKUP: &str = "<script>window.written = 1</script><img src=x onerror='window.written = 2'>";

/// A server that ends every stream with this text.
pub(super) struct Ending {
    _serving: JoinSet<()>,
}

impl Ending {
    pub(super) async fn listen(s: &Scene, text: &str) -> Result<Self> {
        let listener = TcpListener::bind(s.address()).await?;
        let answer = format!(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:server' \
             xmlns:stream='http://etherx.jabber.org/streams' version='1.0' id='1'>\
             <stream:error><host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
             <text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>{text}</text></stream:error></stream:stream>"
        );
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut header = [0; 4096];
                let _ = stream.read(&mut header).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Ok(Self { _serving: serving })
    }
}

#[test]
fn markup_and_steering_characters_of_a_peer_are_shown_as_text() {
    RIG.test(5, async |s| {
        let escaped = MARKUP.replace('<', "&lt;").replace('>', "&gt;");
        let _server = Ending::listen(s, &format!("{escaped}\u{202e}desrever")).await?;
        let mut inside = s.inside().await?;
        inside.message(ALICE, &s.user("rob"), &s.fresh(), "hello").await?;
        let hash = format!("#filter={}", s.domain);
        let mut browser = page(s, &hash).await?;
        row_says(&mut browser, s, "Failing").await?;
        browser.evaluate("document.querySelector('button.name').click()").await?;
        let text = browser
            .until("document.querySelector('tr.details')?.innerText")
            .await?;
        let text = text.as_str().unwrap();
        ensure!(text.contains("<script>window.written = 1</script>"), "{text}");
        ensure!(text.contains("\\u{202e}") && !text.contains('\u{202e}'), "{text:?}");
        ensure!(browser.evaluate("window.written === undefined").await? == true);
        let markup = "document.querySelectorAll('script').length + document.querySelectorAll('main img').length";
        ensure!(browser.evaluate(markup).await? == 1);
        ensure_no_complaints(&browser.complaints())
    });
}

/// Whatever a server might let through, the page makes no markup of it.
#[test]
fn the_page_itself_makes_no_markup_of_text_and_the_browser_forbids_it() {
    RIG.test(6, async |s| {
        let mut browser = page(s, "").await?;
        let made = "import('/page/dom.js').then((dom) => \
            dom.element('p', {}, ['<b>bold</b>\\u202e\\u0007', dom.foreign('<i>')]).outerHTML)";
        let made = browser.evaluate(made).await?;
        ensure!(
            made == "<p>&lt;b&gt;bold&lt;/b&gt;\\u{202e}\\u{7}<bdi class=\"mono\">&lt;i&gt;</bdi></p>",
            "{made}"
        );
        ensure_no_complaints(&browser.complaints())?;
        // A fault of ours would not help a peer.
        let forbidden = "(() => { try { document.body.innerHTML = '<b>x</b>'; return 'taken'; } \
            catch (error) { return error.name; } })()";
        let said = browser.evaluate(forbidden).await?;
        ensure!(said == "TypeError", "{said}");
        Ok(())
    });
}

async fn follow(s: &Scene) -> Result<TcpStream> {
    let address = s.rig.edge.lock().await.place().internal_bind;
    let mut stream = TcpStream::connect((address, 9090)).await?;
    let asked = "GET /page/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(asked.as_bytes()).await?;
    Ok(stream)
}

async fn first_line(stream: &mut TcpStream) -> Result<String> {
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn of_many_who_follow_and_read_nothing_sixteen_have_a_place_and_the_edge_goes_on() {
    RIG.test(7, async |s| {
        let mut followers = Vec::new();
        // Browsers of other tests may have places, too, and leave them.
        let refused = loop {
            let mut stream = follow(s).await?;
            match first_line(&mut stream).await?.as_str() {
                "HTTP/1.1 200" => followers.push(stream),
                other => break other.to_owned(),
            }
            ensure!(followers.len() <= 16, "more than sixteen have a place");
        };
        ensure!(refused == "HTTP/1.1 503", "{refused}");
        s.rig.serves_the_good_partner().await?;
        let edge = s.rig.edge.lock().await;
        ensure!(edge.get("/readyz").await?.0 == 200);
        // An edit goes through while nobody reads.
        edge.apply(&manifest(
            "XmppFederatedPartner",
            "quiet-0007",
            json!({"domain": "q0007.example", "partnerType": "Federated", "suspended": true}),
        ))?;
        drop(edge);
        drop(followers);
        Ok(())
    });
}
