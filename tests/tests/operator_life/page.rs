//! The page of the operator in a real browser: partners of whole namespaces, in each pool.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use xmpp_edge_tests::{
    browser::Browser,
    cluster::{FakePod, Operator},
};

use super::{
    SERVER,
    stage::{create, delete, partner, pool, until_says},
};

/// Where the operator says that its page is.
fn page_of(operator: &mut Operator) -> Result<SocketAddr> {
    let log = operator.process().log();
    let mut lines = log
        .lines()
        .filter(|line| line.contains("the status page is there"));
    let line = lines.next().context("it says where its page is")?;
    let address = line.split("address=").nth(1).context("the address")?;
    Ok(address.trim().parse()?)
}

#[test]
fn the_operator_s_page_shows_every_partner_in_every_pool_and_follows_them() {
    SERVER.test(async |namespace| {
        let object = partner("contoso", json!({"domain": "contoso.example"}));
        create(namespace, &[pool(namespace), object.clone()]).await?;
        let mut operator = Operator::start(namespace, &["--page-listen=127.0.0.1:0"]).await?;
        let pod = FakePod::start(namespace, "hq", 1000).await?;
        until_says(namespace, &object, &[("Ready", "True, Ready")]).await?;
        let mut browser = Browser::start().await?;
        let page = page_of(&mut operator)?;
        browser.open(&format!("http://{page}/")).await?;
        let row = |name: &str| {
            format!(
                "[...document.querySelectorAll('#partners-body tr')].find((one) => one.innerText.includes({name:?}))?.innerText"
            )
        };
        browser.until(&format!("{}?.includes('Idle')", row("contoso"))).await?;
        let said = browser.until(&format!("document.getElementById('pools').innerText.includes('{}/hq')", namespace.name)).await?;
        ensure!(said == true);
        let late = partner("late", json!({"domain": "late.example", "suspended": true}));
        create(namespace, std::slice::from_ref(&late)).await?;
        browser.until(&format!("{}?.includes('Suspended')", row("late"))).await?;
        // What stands in the document in force, and what a pod sees.
        let domain = format!("{}.example", namespace.name);
        let asks = format!(
            "document.getElementById('from').value = 'alice@{domain}'; document.getElementById('to').value = 'bob@contoso.example'; \
             document.getElementById('explain-form').requestSubmit()"
        );
        browser.evaluate(&asks).await?;
        browser.until("document.getElementById('explained').innerText.includes('refused: AccessPolicy')").await?;
        browser.evaluate(&format!("{}; document.querySelectorAll('button.name')[0].click()", "document.getElementById('filter').value = ''")).await?;
        browser.until("document.querySelector('button.probe')").await?;
        browser.evaluate("document.querySelector('button.probe').click()").await?;
        let probed = "document.getElementById('probed').innerText";
        browser.until(&format!("{probed}.includes('SaslOverTls') && {probed}.includes('a pod looked')")).await?;
        // Ten seconds after each other: this replica leads, and counts what its pods count.
        browser.until("document.querySelectorAll('svg.plot polyline').length === 5").await?;
        // What pods refused, with what to do about it.
        let refused = json!({"partner": "contoso", "direction": "Inbound", "reason": "Contact",
            "count": 17, "lastTime": "2026-01-01T00:00:00Z"});
        pod.say("refusals", json!([refused]));
        let refusals = "document.getElementById('refusals').innerText";
        let line = format!("{refusals}.includes('{}/contoso') && {refusals}.includes('17') && {refusals}.includes('Contact')", namespace.name);
        browser.until(&line).await?;
        delete(namespace, &object).await?;
        browser.until(&format!("!{}", row("contoso"))).await?;
        ensure!(browser.complaints().is_empty(), "{:?}", browser.complaints());

        // A page elsewhere that has its own name lead here is not answered.
        let mut stream = TcpStream::connect(page).await?;
        let asked = "GET /page/events HTTP/1.1\r\nHost: rebound.example\r\nConnection: close\r\n\r\n";
        stream.write_all(asked.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        ensure!(answer.starts_with("HTTP/1.1 421"), "{answer}");
        // One who follows does not hold up the end.
        ensure!(operator.stop().await? == Some(0));
        drop(pod);
        Ok(())
    });
}
