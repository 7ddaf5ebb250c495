//! One stream at a moderate pace.

use std::time::Duration;

use anyhow::Result;

use crate::{
    RUNS,
    figures::{median, micros},
    load::{Sender, Shape},
    report::Table,
    rig::{Cores, Inside, Relay, Rig, Task},
    saturated::WAYS,
    sink::Sink,
};

/// Stanzas a second, and for how long.
const PACE: u32 = 2_000;
const PACED: Duration = Duration::from_secs(5);
/// Stanzas a second of a quiet stream.
const QUIET_PACE: u32 = 50;

/// One stream at a moderate pace: CPU and latency; the relay and each way inside take turns.
pub async fn paced_table() -> Result<()> {
    let mut relay = Vec::new();
    let mut edge = WAYS.map(|_| Vec::new());
    for _ in 0..RUNS {
        relay.push(paced_relay().await?);
        for (runs, inside) in edge.iter_mut().zip(WAYS) {
            runs.push(paced(inside).await?);
        }
    }
    let mut table = Table::new(
        "paced",
        3,
        &[
            "2,000 stanzas a second",
            "CPU a stanza",
            "p50",
            "p99",
            "goal",
        ],
    );
    let mut show = |what: &str, runs: &[Paced], goal: &str| {
        let of = |figure: fn(&Paced) -> f64| median(runs.iter().map(figure));
        table.row(&[
            what.into(),
            format!("{:.2} µs", of(|run| run.cpu)),
            format!("{:.3} ms", of(|run| run.p50)),
            format!("{:.3} ms", of(|run| run.p99)),
            goal.into(),
        ]);
    };
    show("HAProxy", &relay, "");
    for (runs, inside) in edge.iter().zip(WAYS) {
        let goal = match inside {
            Inside::Custody => "1.3 times the CPU of mutual TLS alone, 0.3 ms more at p99",
            _ => "",
        };
        show(&format!("edge, inside {}", inside.name()), runs, goal);
    }
    table.end()
}

pub struct Paced {
    /// Microseconds a stanza.
    pub cpu: f64,
    /// Milliseconds from writing to arriving.
    pub p50: f64,
    pub p99: f64,
}

impl Paced {
    fn new(cpu: Duration, count: u64, mut latencies: Vec<u64>) -> Self {
        latencies.sort_unstable();
        let at = |share: usize| {
            let at = latencies.get(latencies.len() * share / 100).copied();
            at.unwrap_or(0) as f64 / 1e6
        };
        Self {
            cpu: micros(cpu, count),
            p50: at(50),
            p99: at(99),
        }
    }
}

pub async fn paced(inside: Inside) -> Result<Paced> {
    let rig = Rig::start(Task::of(inside)).await?;
    let mut sender = Sender::connect(&rig.partner, inside.has_custody()).await?;
    sender.send(100).await?;
    rig.sink.await_stanzas(100).await?;
    rig.sink.take_latencies();
    let cpu = rig.edge.cpu();
    let count = sender.send_paced(PACE, PACED).await?;
    rig.sink.await_stanzas(100 + count).await?;
    let cpu = rig.edge.cpu().saturating_sub(cpu);
    Ok(Paced::new(cpu, count, rig.sink.take_latencies()))
}

pub async fn paced_relay() -> Result<Paced> {
    let relay = Relay::start(Shape::Message).await?;
    let mut sender = Sender::raw(&relay.partner).await?;
    sender.send(100).await?;
    relay.sink.await_stanzas(100).await?;
    relay.sink.take_latencies();
    let cpu = relay.process.cpu();
    let count = sender.send_paced(PACE, PACED).await?;
    relay.sink.await_stanzas(100 + count).await?;
    let cpu = relay.process.cpu().saturating_sub(cpu);
    Ok(Paced::new(cpu, count, relay.sink.take_latencies()))
}

/// A quiet stream beside a saturated one on the same core: what the first one waits. The relay and the edge
/// take turns: who sends and who counts share the cores with them, and wait for those too.
pub async fn quiet_table() -> Result<()> {
    let (mut relay, mut edge) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        relay.push(quiet_relay().await?);
        edge.push(quiet().await?);
    }
    let mut table = Table::new(
        "quiet",
        2,
        &[
            "50 stanzas a second beside a saturated stream, one core",
            "p50",
            "p99",
            "beside the relay",
            "goal",
        ],
    );
    let of = |runs: &[Paced], figure: fn(&Paced) -> f64| median(runs.iter().map(figure));
    let relayed = of(&relay, |run| run.p99);
    for (what, runs, goal) in [("HAProxy", &relay, ""), ("edge", &edge, "1 ms at p99")] {
        let (p50, p99) = (of(runs, |run| run.p50), of(runs, |run| run.p99));
        table.row(&[
            what.into(),
            format!("{p50:.3} ms"),
            format!("{p99:.3} ms"),
            format!("{:.2}", p99 / relayed),
            goal.into(),
        ]);
    }
    table.end()
}

const BUSY_DOMAIN: &str = "p0000.pairs.example";

async fn quiet() -> Result<Paced> {
    let rig = Rig::start(Task {
        cores: Cores::One,
        // The sink proves but one domain by dialback.
        ..Task::of(Inside::MutualTls)
    })
    .await?;
    let quiet = Sender::connect(&rig.partner, false).await?;
    let busy = Sender::connect_as(&rig.partner, BUSY_DOMAIN, false).await?;
    beside_busy(quiet, busy, &rig.sink).await
}

async fn quiet_relay() -> Result<Paced> {
    let relay = Relay::start_on(Cores::One, Shape::Message).await?;
    let quiet = Sender::raw(&relay.partner).await?;
    let busy = Sender::raw(&relay.partner).await?;
    beside_busy(quiet, busy, &relay.sink).await
}

async fn beside_busy(mut quiet: Sender, mut busy: Sender, sink: &Sink) -> Result<Paced> {
    quiet.send(1).await?;
    sink.await_stanzas(1).await?;
    busy.send_from(BUSY_DOMAIN, 1).await?;
    sink.await_stanzas(2).await?;
    sink.take_latencies();
    let flood =
        tokio::spawn(async move { while busy.send_from(BUSY_DOMAIN, 10_000).await.is_ok() {} });
    quiet.send_paced(QUIET_PACE, PACED).await?;
    flood.abort();
    Ok(Paced::new(Duration::ZERO, 1, sink.take_latencies()))
}
