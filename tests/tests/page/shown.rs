//! What the page shows and what can be done with it.

use anyhow::{Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use xmpp_edge_tests::{
    peer::PeerServer,
    rig::{ALICE, BOB, OWN, Scene},
};

use super::{RIG, ensure_no_complaints, open, page, row_says};

/// A message of ours leads to a stream with the scene's partner.
async fn connect(s: &Scene) -> Result<PeerServer> {
    let outside = s.outside().await?;
    let mut inside = s.inside().await?;
    let id = s.fresh();
    inside.message(ALICE, &s.user("rob"), &id, "hello").await?;
    outside.stanza_id(&id).await?;
    Ok(outside)
}

#[test]
fn a_partner_fails_with_step_address_and_remedy_and_connects_while_one_looks_on() {
    RIG.test(1, async |s| {
        let mut inside = s.inside().await?;
        let mut browser = page(s, &format!("#filter={}", s.domain)).await?;
        row_says(&mut browser, s, "Idle").await?;
        // Nothing listens there.
        inside
            .message(ALICE, &s.user("rob"), &s.fresh(), "hello")
            .await?;
        let text = row_says(&mut browser, s, "Failing").await?;
        ensure!(text.contains("tcp: TcpRefused"), "{text}");
        browser
            .evaluate("document.querySelector('button.name').click()")
            .await?;
        let details = "document.querySelector('tr.details')?.innerText";
        let text = browser.until(details).await?.to_string();
        for part in [
            "TcpRefused",
            &s.address().to_string(),
            "What to do: nothing listens there",
        ] {
            ensure!(text.contains(part), "{part} is missing: {text}");
        }
        let _outside = connect(s).await?;
        let text = row_says(&mut browser, s, "Connected").await?;
        ensure!(text.contains("SaslOverTls, TLSv1.3"), "{text}");
        ensure_no_complaints(&browser.complaints())
    });
}

#[test]
fn a_view_is_typed_sorted_and_opened_by_the_keyboard_and_handed_on_by_its_address() {
    RIG.test(2, async |s| {
        let mut browser = page(s, "").await?;
        browser
            .evaluate("document.getElementById('filter').focus()")
            .await?;
        browser.type_text("quiet-0042").await?;
        let one = "document.querySelectorAll('#partners-body tr').length === 1";
        browser.until(one).await?;
        // The states, the table, its headings, then the partner.
        for _ in 0..12 {
            browser.press("Tab").await?;
            let at = "document.activeElement.className === 'name'";
            if browser.evaluate(at).await? == true {
                break;
            }
        }
        browser.press("Enter").await?;
        browser
            .until("document.querySelector('tr.details')")
            .await?;
        browser
            .until("document.activeElement.getAttribute('aria-expanded') === 'true'")
            .await?;
        browser
            .evaluate("document.querySelector('[data-sort=name]').click()")
            .await?;
        browser
            .until(
                "document.querySelector('th[aria-sort=ascending]').innerText.startsWith('Partner')",
            )
            .await?;
        let hash = browser.evaluate("location.hash").await?;
        let hash = hash.as_str().unwrap();
        ensure!(
            hash.contains("filter=quiet-0042") && hash.contains("sort=name"),
            "{hash}"
        );
        browser.open("about:blank").await?;
        open(&mut browser, s, hash).await?;
        browser.until(one.replace("1", "2").as_str()).await?;
        browser
            .until("document.querySelector('tr.details')")
            .await?;
        browser
            .evaluate("document.querySelector('[data-sort=name]').click()")
            .await?;
        browser
            .until("document.querySelector('th[aria-sort=descending]')")
            .await?;
        ensure_no_complaints(&browser.complaints())
    });
}

#[test]
fn the_pool_its_servers_certificates_rates_and_refusals_are_there() {
    RIG.test(3, async |s| {
        s.rig.serves_the_good_partner().await?;
        let mut inside = s.inside().await?;
        inside
            .message(BOB, &s.user("rob"), &s.fresh(), "hello")
            .await?;
        let mut browser = page(s, "").await?;
        browser
            .until("document.getElementById('refusals').innerText.includes('AccessPolicy')")
            .await?;
        let text = browser.text().await?;
        for part in [
            "EdgePool default/edge",
            "Ready; live",
            "of the edge, for partners",
            "of the internal issuer",
            "_xmpp-server._tcp.org.example.",
            "DnsPublished",
            "days left",
            "org.example: reachable",
            "Stanzas outbound",
            "ExternalAccessPolicy",
        ] {
            ensure!(text.contains(part), "{part:?} is missing: {text}");
        }
        browser
            .until("document.querySelectorAll('svg.plot polyline').length === 5")
            .await?;
        ensure_no_complaints(&browser.complaints())
    });
}

#[test]
fn explain_says_by_which_rule_a_message_passes_or_not() {
    RIG.test(4, async |s| {
        let mut browser = page(s, "").await?;
        for (from, to, words, rule) in [
            (ALICE.to_owned(), s.user("rob"), "passes", "Partner"),
            (BOB.to_owned(), s.user("rob"), "refused: AccessPolicy", "Access"),
            ("a@b@c".to_owned(), s.user("rob"), "no address", ""),
        ] {
            let fill = format!(
                "document.getElementById('from').value = {from:?}; document.getElementById('to').value = {to:?}; \
                 document.getElementById('explain-form').requestSubmit()"
            );
            browser.evaluate(&fill).await?;
            let shown = "document.getElementById('explained').innerText";
            browser
                .until(&format!("{shown}.includes({words:?}) && {shown}.includes({rule:?})"))
                .await?;
        }
        ensure_no_complaints(&browser.complaints())
    });
}

#[test]
fn probe_walks_to_a_partner_now_and_to_nobody_else() {
    RIG.test(20, async |s| {
        let outside = s.outside().await?;
        let hash = format!("#filter={}&open=default/{}", s.domain, s.name);
        let mut browser = page(s, &hash).await?;
        browser
            .until("document.querySelector('button.probe')")
            .await?;
        browser
            .evaluate("document.querySelector('button.probe').click()")
            .await?;
        let shown = "document.getElementById('probed').innerText";
        browser
            .until(&format!(
                "{shown}.includes('SaslOverTls') && {shown}.includes({:?})",
                s.address().to_string()
            ))
            .await?;
        drop(outside);
        for (domain, words) in [
            ("nobody.example", "is of no partner"),
            (OWN, "is an own domain"),
            ("a b", "is no domain"),
        ] {
            let ask = format!(
                "document.getElementById('probe-domain').value = {domain:?}; document.getElementById('probe-form').requestSubmit()"
            );
            browser.evaluate(&ask).await?;
            browser
                .until(&format!("{shown}.includes({words:?})"))
                .await?;
        }
        ensure_no_complaints(&browser.complaints())?;
        // Nobody elsewhere has it done, by a form or by a picture.
        let admin = s.rig.edge.lock().await.place().internal_bind;
        for (line, header, code) in [
            ("POST", "Origin: https://evil.example\r\n", "403"),
            ("POST", "Origin: null\r\n", "403"),
            ("GET", "", "405"),
        ] {
            let mut stream = TcpStream::connect((admin, 9090)).await?;
            let asked = format!(
                "{line} /probe?domain={} HTTP/1.1\r\nHost: {admin}:9090\r\n{header}Content-Length: 0\r\nConnection: close\r\n\r\n",
                s.domain
            );
            stream.write_all(asked.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            ensure!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{answer}");
        }
        Ok(())
    });
}

#[test]
fn records_are_shown_beside_what_dns_answers() {
    RIG.test(19, async |s| {
        let mut browser = page(s, "").await?;
        let rows = "[...document.querySelectorAll('#pools tr')].map((row) => row.innerText)\
            .filter((text) => text.includes('_xmpp-server._tcp.'))";
        // Nobody publishes the records of this edge.
        browser
            .until(&format!(
                "{rows}.length > 0 && {rows}.every((text) => /no such record|nothing:|others:|this record/.test(text))"
            ))
            .await?;
        ensure_no_complaints(&browser.complaints())
    });
}
