//! The status page of an edge in a real browser: what it shows, what can be done with it, and that nobody
//! who writes to the edge writes on it.

#![allow(clippy::unwrap_used)]

mod accessible;
mod causes;
mod hostile;
mod many;
mod shown;
mod silent;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    browser::Browser,
    edge::manifest,
    lab::Lab,
    rig::{Plan, Scene, Shared},
};

/// Partners that nobody talks to.
const QUIET: usize = 1_000;

static RIG: Shared = Shared::new(Plan {
    objects: quiet,
    partner: causes::partner,
    ..Plan::standard("page", 20)
});

fn quiet(_: &Lab) -> Vec<Value> {
    let one = |number: usize| {
        let spec = json!({"domain": format!("q{number:04}.example"), "partnerType": "Federated"});
        manifest("XmppFederatedPartner", &format!("quiet-{number:04}"), spec)
    };
    (0..QUIET).map(one).collect()
}

/// A browser at the edge's page, once it shows the partners. `hash` says how.
async fn page(s: &Scene, hash: &str) -> Result<Browser> {
    let mut browser = Browser::start().await?;
    open(&mut browser, s, hash).await?;
    Ok(browser)
}

async fn open(browser: &mut Browser, s: &Scene, hash: &str) -> Result<()> {
    let address = s.rig.edge.lock().await.place().internal_bind;
    browser
        .open(&format!("http://{address}:9090/{hash}"))
        .await?;
    browser
        .until("document.querySelector('#count').textContent")
        .await?;
    Ok(())
}

/// An expression for the row of the scene's partner, where it is shown.
fn row(s: &Scene) -> String {
    format!(
        "[...document.querySelectorAll('#partners-body tr')].find((one) => one.innerText.includes({:?}))",
        s.domain
    )
}

/// What the row of the scene's partner says once it says this.
async fn row_says(browser: &mut Browser, s: &Scene, wanted: &str) -> Result<String> {
    let row = row(s);
    let found = format!("({row})?.innerText.includes({wanted:?}) && ({row}).innerText");
    let text = browser.until(&found).await?;
    Ok(text.as_str().context("a text")?.to_owned())
}

fn ensure_no_complaints(complaints: &[String]) -> Result<()> {
    ensure!(
        complaints.is_empty(),
        "the browser complains: {complaints:?}"
    );
    Ok(())
}
