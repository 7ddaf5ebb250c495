//! What a sidecar costs, beside an edge that dials the server itself and beside a plain relay: they take turns.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::net::UdpSocket;

use crate::{
    RUNS,
    figures::median,
    load::Shape,
    paced::{Paced, paced, paced_relay},
    report::Table,
    rig::{Inside, Rig, Task},
    saturated::{Saturated, granted, saturated, saturated_relay},
};

/// The way inside with and without a sidecar, each with custody to the end.
const WAYS: [Inside; 2] = [Inside::Custody, Inside::Trunk];
/// Questions to the DNS view.
const QUESTIONS: usize = 2_000;

/// CPU of a stanza, time that the second hop adds, and what an idle sidecar holds.
pub async fn table() -> Result<()> {
    let (mut relays, mut edges) = (Vec::new(), WAYS.map(|_| Vec::new()));
    let (mut slow_relays, mut slow_edges) = (Vec::new(), WAYS.map(|_| Vec::new()));
    for _ in 0..RUNS {
        relays.push(saturated_relay(Shape::Message).await?);
        slow_relays.push(paced_relay().await?);
        for (at, inside) in WAYS.into_iter().enumerate() {
            edges[at].push(saturated(granted(inside)).await?);
            slow_edges[at].push(paced(inside).await?);
        }
    }
    let mut table = Table::new(
        "sidecar",
        1,
        &[
            "saturated; at 2,000 a second",
            "edge's CPU a stanza",
            "sidecar's CPU",
            "stanzas a second",
            "p50",
            "p99",
        ],
    );
    show(&mut table, "HAProxy", &relays, &slow_relays);
    for (at, inside) in WAYS.into_iter().enumerate() {
        show(
            &mut table,
            &format!("edge, inside {}", inside.name()),
            &edges[at],
            &slow_edges[at],
        );
    }
    table.end()?;
    idle().await
}

fn show(table: &mut Table, what: &str, fast: &[Saturated], slow: &[Paced]) {
    let of = |figure: fn(&Saturated) -> f64| median(fast.iter().map(figure));
    let paced = |figure: fn(&Paced) -> f64| median(slow.iter().map(figure));
    table.row(&[
        what.into(),
        format!("{:.3} µs", of(|run| run.cpu)),
        format!("{:.3} µs", of(|run| run.sidecar_cpu)),
        format!("{:.0}", of(|run| run.speed)),
        format!("{:.3} ms", paced(|run| run.p50)),
        format!("{:.3} ms", paced(|run| run.p99)),
    ]);
}

async fn idle() -> Result<()> {
    let rig = Rig::start(Task::of(Inside::Trunk)).await?;
    let sidecar = rig.sidecar.as_ref().context("a sidecar")?;
    let mut table = Table::new(
        "sidecar-idle",
        1,
        &["a sidecar", "figure", "goal", "beside"],
    );
    table.row(&[
        "memory while idle".into(),
        format!("{:.1} MiB", sidecar.resident() as f64 / 1_048_576.0),
        "20 MiB".into(),
        String::new(),
    ]);
    let cpu = sidecar.cpu();
    let (p50, p99) = view(&rig).await?;
    table.row(&[
        "its DNS view, p99 of one question after the other".into(),
        format!("{p99:.3} ms"),
        "0.2 ms".into(),
        format!(
            "p50 {p50:.3} ms, {:.1} µs CPU each",
            sidecar.cpu().saturating_sub(cpu).as_secs_f64() * 1e6 / QUESTIONS as f64
        ),
    ]);
    table.end()
}

/// Milliseconds until a question for a partner's SRV records is answered.
async fn view(rig: &Rig) -> Result<(f64, f64)> {
    let socket = UdpSocket::bind("127.77.0.5:0").await?;
    socket.connect(rig.view()).await?;
    let mut took = Vec::with_capacity(QUESTIONS);
    for number in 0..QUESTIONS {
        let id = u16::try_from(number)?;
        let asked = question(id, number);
        let began = Instant::now();
        socket.send(&asked).await?;
        let mut answer = [0; 1232];
        let read = socket.recv(&mut answer);
        let size = tokio::time::timeout(Duration::from_secs(5), read).await??;
        took.push(began.elapsed().as_secs_f64() * 1e3);
        ensure!(
            size > 12 && answer[..2] == id.to_be_bytes(),
            "another answer"
        );
        ensure!(
            answer[3] & 0x0f == 0 && answer[7] > 0,
            "no records: {:?}",
            &answer[..12]
        );
    }
    took.sort_unstable_by(f64::total_cmp);
    Ok((took[took.len() / 2], took[took.len() * 99 / 100]))
}

/// `_xmpp-server._tcp.p<number>.example SRV` (RFC 1035 section 4).
fn question(id: u16, number: usize) -> Vec<u8> {
    let mut packet = id.to_be_bytes().to_vec();
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    let partner = format!("p{number}");
    for label in ["_xmpp-server", "_tcp", &partner, "example"] {
        packet.push(u8::try_from(label.len()).unwrap_or(0));
        packet.extend(label.as_bytes());
    }
    packet.extend([0, 0, 33, 0, 1]);
    packet
}
