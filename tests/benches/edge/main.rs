//! What the edge costs, beside what a plain TLS-terminating relay costs, in one run.
//!
//! `make bench` builds the release binaries and runs it. One stream from a partner comes in over
//! direct TLS with SASL EXTERNAL; the gateway inside is a sink that reads and counts. CPU is what the
//! kernel counted for all threads of the process. Nothing here asserts a time.

mod load;
mod process;
mod rig;
mod sidecar;
mod sink;

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::{
    load::{Sender, Shape},
    process::Process,
    rig::{Cores, Inside, Rig, Rules, Task},
};

/// Stanzas of a run with many streams.
const STANZAS: u64 = 1_000_000;
/// Stanzas before a saturated run.
const FIRST: u64 = 100;
/// Stanzas a second of the paced runs, and for how long.
const PACE: u32 = 2_000;
const PACED: Duration = Duration::from_secs(5);
/// Runs of each, which take turns with the relay's; medians are printed.
const RUNS: usize = 5;

fn main() -> Result<()> {
    // cargo bench hands `--bench` on; words choose what runs.
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|word| name.contains(word));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        println!("stanza: {} bytes", load::stanza(0, "").len());
        if wanted("saturated") {
            saturated_table().await?;
        }
        if wanted("shapes") {
            shapes().await?;
        }
        if wanted("cores") {
            cores().await?;
        }
        if wanted("paced") {
            paced_table().await?;
        }
        if wanted("streams") {
            streams().await?;
        }
        if wanted("pairs") {
            pairs().await?;
        }
        if wanted("sidecar") {
            sidecar::table().await?;
        }
        if wanted("scale") {
            scale().await?;
        }
        Ok(())
    })
}

/// The ways inside that are measured.
const WAYS: [Inside; 3] = [Inside::Plain, Inside::MutualTls, Inside::Custody];

/// A way inside with 100,000 granted users.
fn granted(inside: Inside) -> Task {
    Task {
        users: 100_000,
        ..Task::of(inside)
    }
}

/// One stream as fast as it goes, over each way inside and by each kind of rules: they and the relay take
/// turns. A goal is a ratio: of the first row to the relay, of the others to the first.
async fn saturated_table() -> Result<()> {
    let mut tasks: Vec<Task> = WAYS.map(granted).into();
    tasks.extend([Rules::Contacts, Rules::Audit].map(|rules| Task {
        rules,
        ..granted(Inside::Plain)
    }));
    let mut relay = Vec::new();
    let mut edge: Vec<_> = tasks.iter().map(|_| Vec::new()).collect();
    for _ in 0..RUNS {
        relay.push(saturated_relay(Shape::Message).await?);
        for (runs, task) in edge.iter_mut().zip(&tasks) {
            runs.push(saturated(*task).await?);
        }
    }
    println!(
        "| saturated, one stream in | CPU a stanza | beside the relay | beside the first | goal | stanzas a second |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    let first = &edge[0];
    row("plain relay", &relay, (&relay, first), "");
    for (at, (runs, task)) in edge.iter().zip(&tasks).enumerate() {
        let goal = if at == 0 {
            "2.2 of the relay"
        } else {
            "1.15 of the first"
        };
        let what = format!("edge, inside {}, {}", task.inside.name(), task.rules.name());
        row(&what, runs, (&relay, first), goal);
    }
    Ok(())
}

/// Other stanzas, as fast as they go.
async fn shapes() -> Result<()> {
    println!(
        "| saturated, inside plain | CPU a stanza | beside the relay | beside the relay | goal | stanzas a second |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for shape in Shape::ALL {
        let (mut relay, mut edge) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            relay.push(saturated_relay(shape).await?);
            edge.push(
                saturated(Task {
                    shape,
                    ..granted(Inside::Plain)
                })
                .await?,
            );
        }
        row(
            &format!("plain relay, {}", shape.name()),
            &relay,
            (&relay, &relay),
            "",
        );
        row(
            &format!("edge, {}", shape.name()),
            &edge,
            (&relay, &relay),
            "2.5 of the relay",
        );
    }
    Ok(())
}

fn row(what: &str, runs: &[Saturated], (relay, first): (&[Saturated], &[Saturated]), goal: &str) {
    let beside = |others: &[Saturated]| {
        let ratios = runs
            .iter()
            .zip(others)
            .map(|(run, other)| run.cpu / other.cpu);
        median(ratios)
    };
    let (least, most) = bounds(runs.iter().map(|run| run.cpu));
    println!(
        "| {what} | {:.3} µs ({least:.3} to {most:.3}) | {:.2} | {:.2} | {goal} | {:.0} |",
        median(runs.iter().map(|run| run.cpu)),
        beside(relay),
        beside(first),
        median(runs.iter().map(|run| run.speed)),
    );
}

/// As many streams of as many domains: what two cores carry beside one. Senders and sink run on the same
/// cores, so that speed says nothing: a stanza may not cost more CPU where two cores share the work.
async fn cores() -> Result<()> {
    println!(
        "| streams | CPU a stanza, one core | two cores | throughput of two beside one | goal |"
    );
    println!("| --- | --- | --- | --- | --- |");
    for streams in [2, 64, 1_000] {
        let (mut one, mut two) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            one.push(many(streams, Cores::One).await?);
            two.push(many(streams, Cores::All).await?);
        }
        let ratio = median(two.iter().zip(&one).map(|(two, one)| 2.0 * one / two));
        let of = |runs: &[f64]| median(runs.iter().copied());
        println!(
            "| {streams} | {:.3} µs | {:.3} µs | {ratio:.2} | 1.9 |",
            of(&one),
            of(&two)
        );
    }
    Ok(())
}

/// CPU of a stanza, in microseconds.
async fn many(streams: u64, cores: Cores) -> Result<f64> {
    let task = Task {
        cores,
        ..granted(Inside::Plain)
    };
    let rig = Rig::start(task).await?;
    let mut senders = Vec::new();
    for n in 0..streams {
        let domain = format!("p{n:04}.pairs.example");
        let mut sender = Sender::connect_as(&rig.partner, &domain, false).await?;
        sender.send_from(&domain, 1).await?;
        senders.push((sender, domain));
    }
    rig.sink.await_stanzas(streams).await?;
    let each = STANZAS / streams;
    let before = rig.edge.cpu();
    let sending: Vec<_> = senders
        .into_iter()
        .map(|(mut sender, domain)| {
            tokio::spawn(async move { sender.send_from(&domain, each).await.map(|()| sender) })
        })
        .collect();
    let mut open = Vec::new();
    for task in sending {
        open.push(task.await??);
    }
    rig.sink.await_stanzas(streams * (each + 1)).await?;
    let spent = rig.edge.cpu().saturating_sub(before);
    drop(open);
    Ok(micros(spent, streams * each))
}

struct Saturated {
    /// Microseconds a stanza.
    cpu: f64,
    /// The same of the sidecar, where there is one.
    sidecar_cpu: f64,
    /// Stanzas a second.
    speed: f64,
}

async fn saturated(task: Task) -> Result<Saturated> {
    let (shape, stanzas) = (task.shape, task.shape.count());
    let rig = Rig::start(task).await?;
    let mut sender = Sender::connect(&rig.partner, task.inside.has_custody()).await?;
    // The stream inside is set up by the first stanza; that is not measured.
    sender.send_shape(shape, FIRST).await?;
    rig.sink.await_stanzas(FIRST).await?;
    let (cpu, began) = (rig.edge.cpu(), Instant::now());
    let of_sidecar = || rig.sidecar.as_ref().map(Process::cpu).unwrap_or_default();
    let before = of_sidecar();
    sender.send_shape(shape, stanzas).await?;
    rig.sink.await_stanzas(FIRST + stanzas).await?;
    Ok(Saturated {
        cpu: micros(rig.edge.cpu().saturating_sub(cpu), stanzas),
        sidecar_cpu: micros(of_sidecar().saturating_sub(before), stanzas),
        speed: per_second(stanzas, began.elapsed()),
    })
}

async fn saturated_relay(shape: Shape) -> Result<Saturated> {
    let stanzas = shape.count();
    let relay = rig::Relay::start(shape).await?;
    let mut sender = Sender::raw(&relay.partner).await?;
    sender.send_shape(shape, FIRST).await?;
    relay.sink.await_stanzas(FIRST).await?;
    let (cpu, began) = (relay.process.cpu(), Instant::now());
    sender.send_shape(shape, stanzas).await?;
    relay.sink.await_stanzas(FIRST + stanzas).await?;
    Ok(Saturated {
        cpu: micros(relay.process.cpu().saturating_sub(cpu), stanzas),
        sidecar_cpu: 0.0,
        speed: per_second(stanzas, began.elapsed()),
    })
}

/// One stream at a moderate pace: CPU and latency; the relay and each way inside take turns.
async fn paced_table() -> Result<()> {
    let mut relay = Vec::new();
    let mut edge = WAYS.map(|_| Vec::new());
    for _ in 0..RUNS {
        relay.push(paced_relay().await?);
        for (runs, inside) in edge.iter_mut().zip(WAYS) {
            runs.push(paced(inside).await?);
        }
    }
    let show = |what: &str, runs: &[Paced]| {
        let of = |figure: fn(&Paced) -> f64| median(runs.iter().map(figure));
        println!(
            "| {what} | {:.2} µs | {:.3} ms | {:.3} ms |",
            of(|run| run.cpu),
            of(|run| run.p50),
            of(|run| run.p99)
        );
    };
    println!("| {PACE} stanzas a second | CPU a stanza | p50 | p99 |");
    println!("| --- | --- | --- | --- |");
    show("plain relay", &relay);
    for (runs, inside) in edge.iter().zip(WAYS) {
        show(&format!("edge, inside {}", inside.name()), runs);
    }
    Ok(())
}

struct Paced {
    /// Microseconds a stanza.
    cpu: f64,
    /// Milliseconds from writing to arriving.
    p50: f64,
    p99: f64,
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

async fn paced(inside: Inside) -> Result<Paced> {
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

async fn paced_relay() -> Result<Paced> {
    let relay = rig::Relay::start(Shape::Message).await?;
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

/// New authenticated streams: CPU of each; then memory of each while idle.
async fn streams() -> Result<()> {
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
    println!(
        "new streams: {:.3} ms CPU each, {:.0} streams/s one after the other",
        micros(spent, COUNT) / 1e3,
        per_second(COUNT, took)
    );
    // Busy streams give their buffers back after a while of silence.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let grown = rig.edge.resident().saturating_sub(memory);
    println!(
        "idle streams: {:.1} KiB each",
        grown as f64 / 1024.0 / COUNT as f64
    );
    drop(open);
    Ok(())
}

/// Partner domains of which each has a stream in and, for it, the edge one inside: memory of both
/// while idle, with what the edge keeps for the pair: its queues and its leaf of the internal CA.
async fn pairs() -> Result<()> {
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
    // Silence itself is what is measured after: see above.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let grown = rig.edge.resident().saturating_sub(memory);
    println!(
        "idle pairs, a stream in and one inside with mutual TLS: {:.1} KiB each",
        grown as f64 / 1024.0 / COUNT as f64
    );
    drop(open);
    Ok(())
}

/// A large configuration: in force how soon, at which size.
async fn scale() -> Result<()> {
    let began = Instant::now();
    let rig = Rig::start(Task {
        partners: 10_000,
        ..granted(Inside::Plain)
    })
    .await?;
    println!(
        "10,000 partners, 100,000 granted users: {} KiB of JSON, ready {:.2} s after the start, {:.1} MiB resident",
        rig.config_bytes / 1024,
        began.elapsed().as_secs_f64(),
        rig.edge.resident() as f64 / 1048576.0
    );
    let (cpu, began) = (rig.edge.cpu(), Instant::now());
    rig.next_generation().await?;
    println!(
        "one edit of it: in force {:.2} s after it was written, {:.2} s CPU",
        began.elapsed().as_secs_f64(),
        (rig.edge.cpu().saturating_sub(cpu)).as_secs_f64()
    );
    Ok(())
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

fn bounds(figures: impl Iterator<Item = f64>) -> (f64, f64) {
    figures.fold((f64::INFINITY, 0.0), |(least, most), figure| {
        (figure.min(least), figure.max(most))
    })
}

fn micros(cpu: Duration, count: u64) -> f64 {
    cpu.as_secs_f64() * 1e6 / count as f64
}

fn per_second(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}
