//! One stream as fast as it goes.

use std::time::Instant;

use anyhow::Result;

use crate::{
    RUNS,
    figures::{bounds, median, micros, per_second},
    load::{Sender, Shape},
    process::Process,
    report::Table,
    rig::{Inside, Relay, Rig, Rules, Task},
};

/// Stanzas before a run: they set the stream inside up.
const FIRST: u64 = 100;
const HEAD: [&str; 6] = [
    "saturated, one stream in",
    "CPU a stanza",
    "beside the relay",
    "beside the first of the edge",
    "goal",
    "stanzas a second",
];

/// The ways inside that are measured.
pub const WAYS: [Inside; 3] = [Inside::Plain, Inside::MutualTls, Inside::Custody];

/// A way inside with 100,000 granted users.
pub fn granted(inside: Inside) -> Task {
    Task {
        users: 100_000,
        ..Task::of(inside)
    }
}

/// One stream as fast as it goes, over each way inside and by each kind of rules: they and the relay take
/// turns. A goal is a ratio: of the first row to the relay, of the others to the first.
pub async fn saturated_table() -> Result<()> {
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
    let mut table = Table::new("saturated", 2, &HEAD);
    let first = &edge[0];
    row(
        &mut table,
        "HAProxy, ends TLS and passes bytes on",
        &relay,
        (&relay, first),
        "",
    );
    for (at, (runs, task)) in edge.iter().zip(&tasks).enumerate() {
        let goal = if at == 0 {
            "2.2 of the relay"
        } else {
            "1.15 of the first"
        };
        let what = format!("edge, inside {}, {}", task.inside.name(), task.rules.name());
        row(&mut table, &what, runs, (&relay, first), goal);
    }
    table.end()
}

/// Other stanzas, as fast as they go.
pub async fn shapes() -> Result<()> {
    let mut table = Table::new("shapes", 2, &HEAD);
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
        let sides = (&*relay, &*relay);
        let name = shape.name();
        row(&mut table, &format!("HAProxy, {name}"), &relay, sides, "");
        let goal = "2.5 of the relay";
        row(&mut table, &format!("edge, {name}"), &edge, sides, goal);
    }
    table.end()
}

fn row(
    table: &mut Table,
    what: &str,
    runs: &[Saturated],
    (relay, first): (&[Saturated], &[Saturated]),
    goal: &str,
) {
    let beside = |others: &[Saturated]| {
        let pairs = runs.iter().zip(others);
        format!(
            "{:.2}",
            median(pairs.map(|(run, other)| run.cpu / other.cpu))
        )
    };
    let (least, most) = bounds(runs.iter().map(|run| run.cpu));
    let cpu = median(runs.iter().map(|run| run.cpu));
    table.row(&[
        what.into(),
        format!("{cpu:.3} µs ({least:.3} to {most:.3})"),
        beside(relay),
        beside(first),
        goal.into(),
        format!("{:.0}", median(runs.iter().map(|run| run.speed))),
    ]);
}

pub struct Saturated {
    /// Microseconds a stanza.
    pub cpu: f64,
    /// The same of the sidecar, where there is one.
    pub sidecar_cpu: f64,
    /// Stanzas a second.
    pub speed: f64,
}

pub async fn saturated(task: Task) -> Result<Saturated> {
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

pub async fn saturated_relay(shape: Shape) -> Result<Saturated> {
    let stanzas = shape.count();
    let relay = Relay::start(shape).await?;
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
