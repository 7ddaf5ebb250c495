//! What streams, pairs and a large configuration take, while nothing is sent.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::{
    figures::{micros, per_second},
    handshake,
    load::{Sender, Shape},
    report::Table,
    rig::{Inside, Relay, Rig, Task},
    saturated::granted,
};

/// New authenticated streams: CPU of each; then memory of each while idle.
pub async fn streams() -> Result<()> {
    const COUNT: u64 = 2_000;
    let rig = Rig::start(Task::of(Inside::Plain)).await?;
    let mut first = Sender::connect(&rig.partner, false).await?;
    first.send(1).await?;
    rig.sink.await_stanzas(1).await?;
    let (cpu, memory, began) = (rig.edge.cpu(), rig.edge.resident(), Instant::now());
    let mut open = Vec::new();
    for _ in 0..COUNT {
        open.push(Sender::connect(&rig.partner, false).await?);
    }
    let (spent, took) = (rig.edge.cpu().saturating_sub(cpu), began.elapsed());
    let mut table = Table::new("streams", 1, &["streams", "figure", "goal", "beside"]);
    table.row(&[
        "CPU of a new authenticated stream (direct TLS, EXTERNAL)".into(),
        format!("{:.3} ms", micros(spent, COUNT) / 1e3),
        "0.5 ms".into(),
        format!(
            "{:.0} a second one after the other",
            per_second(COUNT, took)
        ),
    ]);
    table.row(&[
        "of that, a handshake of this TLS alone, our side in memory".into(),
        format!(
            "{:.3} ms",
            micros(handshake::own_side(&rig.partner, COUNT)?, COUNT) / 1e3
        ),
        String::new(),
        String::new(),
    ]);
    table.row(&[
        "CPU of a connection through HAProxy (mutual TLS, no stream)".into(),
        format!("{:.3} ms", relayed(COUNT).await?),
        String::new(),
        String::new(),
    ]);
    // Busy streams give their buffers back after a while of silence.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let grown = rig.edge.resident().saturating_sub(memory);
    table.row(&[
        "memory of an idle stream".into(),
        format!("{:.1} KiB", grown as f64 / 1024.0 / COUNT as f64),
        "9 KiB".into(),
        String::new(),
    ]);
    drop(open);
    table.end()
}

/// Milliseconds that HAProxy takes for each of so many connections.
async fn relayed(count: u64) -> Result<f64> {
    let relay = Relay::start(Shape::Message).await?;
    let mut open = vec![Sender::raw(&relay.partner).await?];
    let before = relay.process.cpu();
    for _ in 0..count {
        open.push(Sender::raw(&relay.partner).await?);
    }
    let spent = relay.process.cpu().saturating_sub(before);
    Ok(micros(spent, count) / 1e3)
}

/// Partner domains of which each has a stream in and, for it, the edge one inside: memory of both
/// while idle, with what the edge keeps for the pair: its queues and its leaf of the internal CA.
pub async fn pairs() -> Result<()> {
    const COUNT: u64 = 500;
    let rig = Rig::start(Task::of(Inside::MutualTls)).await?;
    let domain = |n: u64| format!("p{n}.pairs.example");
    let mut open = Vec::new();
    // What the first ones bring is needed once.
    let mut memory = 0;
    for n in 0..COUNT + 10 {
        if n == 10 {
            rig.sink.await_streams(n).await?;
            memory = rig.edge.resident();
        }
        let mut sender = Sender::connect_as(&rig.partner, &domain(n), false).await?;
        sender.greet(&domain(n)).await?;
        open.push(sender);
    }
    rig.sink.await_streams(COUNT + 10).await?;
    // Silence itself is what is measured after, and the sink answers no ping: what it was sent is given up on
    // for want of an answer after 20 s.
    tokio::time::sleep(Duration::from_secs(25)).await;
    let grown = rig.edge.resident().saturating_sub(memory);
    let mut table = Table::new("pairs", 1, &["pairs", "figure", "goal"]);
    table.row(&[
        "memory of an idle pair: a stream in and one inside with mutual TLS".into(),
        format!("{:.1} KiB", grown as f64 / 1024.0 / COUNT as f64),
        "18 KiB".into(),
    ]);
    drop(open);
    table.end()
}

/// A large configuration: in force how soon, at which size.
pub async fn scale() -> Result<()> {
    let began = Instant::now();
    let rig = Rig::start(Task {
        partners: 10_000,
        ..granted(Inside::Plain)
    })
    .await?;
    let mut table = Table::new(
        "scale",
        1,
        &["10,000 partners, 100,000 granted users", "figure", "beside"],
    );
    table.row(&[
        "ready after the start".into(),
        format!("{:.2} s", began.elapsed().as_secs_f64()),
        format!(
            "{} KiB of JSON, {:.1} MiB resident",
            rig.config_bytes / 1024,
            rig.edge.resident() as f64 / 1_048_576.0
        ),
    ]);
    let (cpu, began) = (rig.edge.cpu(), Instant::now());
    rig.next_generation().await?;
    table.row(&[
        "one edit in force (files are looked at once a second)".into(),
        format!("{:.2} s", began.elapsed().as_secs_f64()),
        format!(
            "{:.2} s CPU",
            (rig.edge.cpu().saturating_sub(cpu)).as_secs_f64()
        ),
    ]);
    let (edit, longest) = edit_alive(&rig).await?;
    table.row(&[
        "one edit in force, 5,000 streams alive; goal 0.5 s".into(),
        format!("{edit:.2} s"),
        format!("{longest:.1} ms waited a stanza at most of a stream that sends all the while; goal 10 ms"),
    ]);
    table.end()
}

/// Seconds until an edit is in force while many streams stand, and the milliseconds that a stanza of one of them
/// waited at most meanwhile.
async fn edit_alive(rig: &Rig) -> Result<(f64, f64)> {
    const STREAMS: usize = 5_000;
    const PACE: u32 = 1_000;
    const PACED: Duration = Duration::from_secs(4);
    let mut open = Vec::new();
    for number in 0..STREAMS {
        let domain = format!("p{number}.pairs.example");
        open.push(Sender::connect_from(&rig.partner, number, &domain, false).await?);
    }
    let mut sender = Sender::connect(&rig.partner, false).await?;
    sender.send(1).await?;
    rig.sink.await_stanzas(1).await?;
    rig.sink.take_latencies();
    let sending = tokio::spawn(async move { sender.send_paced(PACE, PACED).await });
    let began = Instant::now();
    rig.next_generation().await?;
    let edit = began.elapsed().as_secs_f64();
    let sent = sending.await??;
    rig.sink.await_stanzas(1 + sent).await?;
    let longest = rig.sink.take_latencies().into_iter().max().unwrap_or(0);
    Ok((edit, longest as f64 / 1e6))
}
