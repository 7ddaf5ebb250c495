//! X: what hostile XML may cost the edge, on edges that do nothing else meanwhile.

#![allow(clippy::unwrap_used)]

use std::fs;

use anyhow::{Context, Result, ensure};
use xmpp_edge_tests::{
    peer::Open,
    rig::{ALICE, Moved, OWN, Plan, Scene, Shared},
};

static BOMBED: Shared = Shared::new(Plan::standard("xb", 1));
static FLOODED: Shared = Shared::new(Plan::standard("xf", 1));

/// Processor time that the edge has used, in milliseconds: other than time on the wall it does not
/// depend on how busy the machine is.
async fn processor(s: &Scene) -> Result<u64> {
    let pid = s.rig.edge.lock().await.pid().context("it runs")?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("fields after the name")?;
    let ticks: u64 = fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap_or_default())
        .sum();
    // Linux tells user space in hundredths of a second (USER_HZ).
    Ok(ticks * 10)
}

/// An internal DTD whose entities expand to 10¹⁰ words, and a header that uses them.
fn bomb(s: &Scene) -> String {
    let mut dtd = String::from("<?xml version='1.0'?><!DOCTYPE l [<!ENTITY l0 'lol'>");
    for level in 1..=10 {
        let below = format!("&l{};", level - 1).repeat(10);
        dtd += &format!("<!ENTITY l{level} '{below}'>");
    }
    let mut open = Open::new(&s.domain, OWN);
    open.declaration = dtd + "]>";
    open.more = " xml:lang='&l10;'".to_owned();
    open.text()
}

#[test]
fn x_07_entities_cost_no_memory() {
    BOMBED.test(1, async |s| {
        let throw = async |times: usize| -> Result<u64> {
            for _ in 0..times {
                let mut peer = s.connect().await?;
                peer.send_anyway(bomb(s)).await;
                peer.expect_stream_error("restricted-xml").await?;
            }
            s.rig.edge.lock().await.resident_kib()
        };
        // The first ones pay for what the process keeps.
        let before = throw(50).await?;
        let after = throw(200).await?;
        ensure!(after < before + 1024, "from {before} to {after} KiB");
        s.unharmed(Moved::Connection("DocumentType")).await
    });
}

#[test]
fn x_16_many_attributes_or_namespaces_cost_no_time() {
    FLOODED.test(1, async |s| {
        let id = s.forbidden();
        let many = |f: fn(usize) -> String| (0..100_000).map(f).collect::<String>();
        let attributes = many(|n| format!(" a{n}=''"));
        let prefixes = many(|n| format!(" xmlns:a{n}='urn:a'"));
        let scattered = many(|n| format!("<a xmlns='urn:{n}'/>"));
        for (flood, outcome) in [
            (
                format!("<body{attributes}>{id}</body>"),
                "TooManyAttributes",
            ),
            // Declarations are attributes, too.
            (format!("<body{prefixes}>{id}</body>"), "TooManyAttributes"),
            (format!("{scattered}<body>{id}</body>"), "TooManyNamespaces"),
        ] {
            let mut peer = s.partner().await?;
            let before = processor(s).await?;
            peer.send(message(s, &flood)).await?;
            // It is skipped, and what follows on the stream arrives.
            s.delivers_inwards(&mut peer).await?;
            let took = processor(s).await? - before;
            ensure!(took < 1000, "{outcome}: {took} ms of processor time");
            s.unharmed(Moved::Refused(outcome)).await?;
        }
        many_children_cost_as_few_do(s).await
    });
}

/// The same bytes in stanzas with 60,000 children and in stanzas with 600: where the cost of a child
/// grew with their number, the former would take a hundred times as long.
async fn many_children_cost_as_few_do(s: &Scene) -> Result<()> {
    let mut peer = s.partner().await?;
    let mut spent = Vec::new();
    for (stanzas, children) in [(10, 60_000), (1_000, 600)] {
        let text = message(s, &"<a/>".repeat(children));
        let before = processor(s).await?;
        for _ in 0..stanzas {
            peer.send(&text).await?;
        }
        s.delivers_inwards(&mut peer).await?;
        spent.push(processor(s).await? - before);
    }
    let (many, few) = (spent[0], spent[1]);
    ensure!(many < 4 * few + 200, "{many} ms for many, {few} for few");
    Ok(())
}

fn message(s: &Scene, content: &str) -> String {
    let rob = s.user("rob");
    format!("<message from='{rob}' to='{ALICE}' type='chat'><body>x</body>{content}</message>")
}
