//! A server that is there no more, to a browser whose connection still looks well: frozen, behind a NAT that forgot
//! it, or the other way round, a laptop that slept.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use xmpp_edge_tests::{browser::Browser, wait};

/// What the page waits for, and what it waits for here: so long that no machine holds up keep-alives for it.
const SILENCE: (&str, &str) = ("const SILENCE = 45000;", "const SILENCE = 5000;");
/// Between two keep-alives.
const TICK: Duration = Duration::from_millis(100);
/// Keep-alives after which a page to which none came would have waited for twice its time.
const KEPT: usize = 100;

/// Keeps each text that the page tells of its connection: one that is there for a moment alone is not missed.
const RECORDER: &str = "
const live = document.getElementById('live');
window.told = [live.textContent];
new MutationObserver(() => window.told.push(live.textContent)).observe(live, { childList: true, characterData: true, subtree: true });
";

/// The first connection that follows the page gets one update and nothing more; those after it are well.
#[derive(Default)]
struct StallingServer {
    followed: AtomicUsize,
    /// Keep-alives that were sent.
    kept: AtomicUsize,
}

impl StallingServer {
    async fn answer(&self, socket: TcpStream) -> Result<()> {
        let mut socket = BufReader::new(socket);
        let mut request = String::new();
        socket.read_line(&mut request).await?;
        loop {
            let mut line = String::new();
            if socket.read_line(&mut line).await? == 0 || line == "\r\n" {
                break;
            }
        }
        let path = request.split(' ').nth(1).context("a request")?;
        if path == "/page/events" {
            return self.follow(&mut socket).await;
        }
        let name = match path {
            "/" => "index.html",
            path => path.strip_prefix("/page/").context("a file")?,
        };
        let assets = concat!(env!("CARGO_MANIFEST_DIR"), "/../page/assets");
        let mut content = std::fs::read_to_string(Path::new(assets).join(name))?;
        if name == "board.js" {
            ensure!(content.contains(SILENCE.0), "the page waits in another way");
            content = content.replace(SILENCE.0, SILENCE.1) + RECORDER;
        }
        let kind = match name.rsplit('.').next() {
            Some("js") => "text/javascript",
            Some("css") => "text/css",
            Some("svg") => "image/svg+xml",
            _ => "text/html",
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            content.len()
        );
        socket.write_all(head.as_bytes()).await?;
        socket.write_all(content.as_bytes()).await?;
        Ok(socket.shutdown().await?)
    }

    async fn follow(&self, socket: &mut BufReader<TcpStream>) -> Result<()> {
        let number = self.followed.fetch_add(1, Ordering::SeqCst);
        let update = format!(
            r#"{{"whole":true,"records":[["head","",{{"title":"edge","version":"{number}","ready":true,"notes":[],"explains":false,"probes":false,"refusals":false}}]]}}"#
        );
        let head =
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
        socket
            .write_all(format!("{head}data:{update}\n\n").as_bytes())
            .await?;
        socket.flush().await?;
        if number > 0 {
            // As often as the real one, for the time that this test has.
            let mut tick = tokio::time::interval(TICK);
            while socket.write_all(b":\n\n").await.is_ok() && socket.flush().await.is_ok() {
                tick.tick().await;
                self.kept.fetch_add(1, Ordering::SeqCst);
            }
            return Ok(());
        }
        // Until the browser goes.
        let mut line = String::new();
        while socket.read_line(&mut line).await? > 0 {}
        Ok(())
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_any_more_is_told_and_asked_again() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = Arc::new(StallingServer::default());
    let serving = Arc::clone(&server);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let server = Arc::clone(&serving);
            tokio::spawn(async move { server.answer(socket).await });
        }
    });
    let mut browser = Browser::start().await?;
    browser.open(&format!("http://{address}/")).await?;
    let told = |text: &str| format!("window.told.some((one) => one.includes({text:?}))");
    browser.until(&told("Ready; live; version 1")).await?;
    // The second is alive, and stays for longer than the first had.
    let kept = async || (server.kept.load(Ordering::SeqCst) > KEPT).then_some(());
    wait::until("it is kept alive", wait::GENEROUS, kept).await?;
    let told = browser.evaluate("window.told").await?;
    let told: Vec<String> = serde_json::from_value(told)?;
    let expected = [
        "Connecting",
        "Ready; live; version 0",
        "nothing came for 5 s",
        "Ready; live; version 1",
    ];
    let is_expected = told.len() == expected.len()
        && told
            .iter()
            .zip(expected)
            .all(|(one, part)| one.contains(part));
    ensure!(is_expected, "{told:#?}");
    Ok(())
}
