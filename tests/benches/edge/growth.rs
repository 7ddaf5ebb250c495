//! How cost grows with what there is: partners, users, streams, pairs of one stream. Flat is what is wanted of the
//! cost of a stanza.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::{
    figures::{median, micros},
    load::Sender,
    plot::{self, Panel},
    report::Table,
    rig::{Inside, Rig, Task},
};

/// Stanzas of a run.
const STANZAS: u64 = 300_000;
/// Runs of each size: medians are shown.
const RUNS: usize = 3;
/// Busy streams give back what they need after a while of silence.
const SILENCE: Duration = Duration::from_secs(4);

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    Partners,
    Users,
    /// Idle ones beside the one that brings stanzas.
    Streams,
    /// Of a trunk; each has a stream of its own towards its partner and one towards the server.
    Pairs,
}

impl Axis {
    const ALL: [Self; 4] = [Self::Partners, Self::Users, Self::Streams, Self::Pairs];

    fn name(self) -> &'static str {
        match self {
            Self::Partners => "partners",
            Self::Users => "granted users",
            Self::Streams => "streams",
            Self::Pairs => "pairs of one trunk",
        }
    }

    fn sizes(self) -> &'static [usize] {
        match self {
            Self::Partners => &[10, 100, 1_000, 10_000],
            Self::Users => &[10, 1_000, 100_000, 1_000_000],
            Self::Streams => &[1, 100, 10_000, 50_000],
            Self::Pairs => &[1, 100, 1_000, 10_000],
        }
    }

    fn task(self, size: usize) -> Task {
        let inside = match self {
            Self::Pairs => Inside::Trunk,
            Self::Partners | Self::Users | Self::Streams => Inside::Plain,
        };
        let task = Task::of(inside);
        match self {
            Self::Partners => Task {
                partners: size,
                ..task
            },
            Self::Users => Task {
                // The one who receives is among them.
                users: size.max(100),
                ..task
            },
            Self::Streams | Self::Pairs => task,
        }
    }
}

struct Grown {
    /// Microseconds of a stanza.
    cpu: f64,
    /// Bytes.
    resident: u64,
    /// Seconds until the first configuration is in force.
    ready: f64,
    /// Seconds until an edit is.
    edit: f64,
}

/// One table and one plot of all.
pub async fn growth() -> Result<()> {
    let head = [
        "what there is",
        "CPU a stanza",
        "resident",
        "ready after the start",
        "an edit in force",
    ];
    let mut table = Table::new("growth", 1, &head);
    let mut panels = Vec::new();
    for axis in Axis::ALL {
        let mut points = Vec::new();
        for &size in axis.sizes() {
            let grown = grown(axis, size).await?;
            table.row(&[
                format!("{size} {}", axis.name()),
                format!("{:.3} µs", grown.cpu),
                format!("{:.1} MiB", grown.resident as f64 / 1_048_576.0),
                format!("{:.2} s", grown.ready),
                format!("{:.2} s", grown.edit),
            ]);
            points.push((size as f64, grown.cpu));
        }
        panels.push(Panel {
            title: axis.name(),
            points,
        });
    }
    table.end()?;
    plot::write("growth.svg", "CPU of a stanza, µs", &panels)
}

async fn grown(axis: Axis, size: usize) -> Result<Grown> {
    let began = Instant::now();
    let rig = Rig::start(axis.task(size)).await?;
    let ready = began.elapsed().as_secs_f64();
    let custody = axis == Axis::Pairs;
    let mut open = Vec::new();
    let mut sender = Sender::connect(&rig.partner, custody).await?;
    sender.send(100).await?;
    rig.sink.await_stanzas(100).await?;
    let mut arrived = 100;
    for number in 1..match axis {
        Axis::Partners | Axis::Users => 0,
        Axis::Streams | Axis::Pairs => size,
    } {
        let domain = format!("p{number}.pairs.example");
        let mut other = Sender::connect_from(&rig.partner, number, &domain, custody).await?;
        if axis == Axis::Pairs {
            other.greet(&domain).await?;
            arrived += 1;
            // Not all handshakes of three processes at once.
            rig.sink.await_stanzas(arrived).await?;
        }
        open.push(other);
    }
    // Silence itself is what is measured after: see [`SILENCE`].
    tokio::time::sleep(SILENCE).await;
    let resident = rig.edge.resident();
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        let cpu = rig.edge.cpu();
        sender.send(STANZAS).await?;
        arrived += STANZAS;
        rig.sink.await_stanzas(arrived).await?;
        runs.push(micros(rig.edge.cpu().saturating_sub(cpu), STANZAS));
    }
    let began = Instant::now();
    rig.next_generation().await?;
    Ok(Grown {
        cpu: median(runs.into_iter()),
        resident,
        ready,
        edit: began.elapsed().as_secs_f64(),
    })
}
