//! Many streams at once, on one core and on two.

use anyhow::Result;

use crate::{
    RUNS,
    figures::{median, micros},
    load::Sender,
    report::Table,
    rig::{Cores, Inside, Rig, Task},
    saturated::granted,
};

/// Stanzas of a run, of all streams.
const STANZAS: u64 = 1_000_000;

/// As many streams of as many domains: what two cores carry beside one. Senders and sink run on the same
/// cores, so that speed says nothing: a stanza may not cost more CPU where two cores share the work.
pub async fn cores() -> Result<()> {
    let mut table = Table::new(
        "cores",
        2,
        &[
            "streams",
            "CPU a stanza, one core",
            "two cores",
            "throughput of two beside one",
            "goal",
        ],
    );
    for streams in [2, 64, 1_000] {
        let (mut one, mut two) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            one.push(many(streams, Cores::One).await?);
            two.push(many(streams, Cores::All).await?);
        }
        let ratio = median(two.iter().zip(&one).map(|(two, one)| 2.0 * one / two));
        let of = |runs: &[f64]| median(runs.iter().copied());
        table.row(&[
            streams.to_string(),
            format!("{:.3} µs", of(&one)),
            format!("{:.3} µs", of(&two)),
            format!("{ratio:.2}"),
            "1.9".into(),
        ]);
    }
    table.end()
}

/// CPU of a stanza, in microseconds.
async fn many(streams: u64, cores: Cores) -> Result<f64> {
    let task = Task {
        cores,
        // The sink proves but one domain by dialback.
        ..granted(Inside::MutualTls)
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
