//! Streams end in order: all of them when the process ends, and one after the other when the pool's
//! records are withdrawn. What is queued for a stream goes out first; what it took in is settled.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    negotiation::Fault,
    stream::{Command, context::StreamContext},
    trunk::nonza::ServerState,
};

/// Of each part of the drain after what is queued: `Settings::longest_drain_seconds` counts three.
const STEP: Duration = Duration::from_secs(5);

/// What is on its way to a sidecar when it says that it ends is there after this.
const ON_ITS_WAY: Duration = Duration::from_millis(100);

/// Pairs move from one edge pod to another as what was sent of them is acknowledged: those that have not by then
/// stay.
const MOVES: Duration = Duration::from_secs(2);

/// What answers to pings may take: one that goes out every second, and comes back.
const ANSWERS: Duration = Duration::from_secs(3);

/// A sidecar takes nothing more of what comes in, and what it took is confirmed by its server while streams stand
/// in both directions: a server answers a question on a stream of its own. One that is away confirms nothing.
async fn settle_at_sidecar(context: &Arc<StreamContext>) {
    let is_away = matches!(context.trunks.own_server(), ServerState::Down { .. });
    context.trunks.own_end();
    if is_away {
        return;
    }
    let deadline = Instant::now() + STEP;
    tokio::time::sleep(ON_ITS_WAY).await;
    while context.trunks.owed_stanzas() > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What goes out takes other edge pods, where sidecars have any, before the ways to partners end here.
async fn move_away_from_edge(context: &Arc<StreamContext>) {
    context.trunks.own_withdrawal();
    let deadline = Instant::now() + MOVES;
    while context.trunks.received_pairs() > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A server that answers pings does so on a stream of its own: those stand until it has, or what was sent to it
/// would be confirmed by nobody.
async fn hear_answers(context: &Arc<StreamContext>) {
    let deadline = Instant::now() + ANSWERS;
    while context.streams.wait_for_answers() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// No new streams; what is queued goes out; then the streams end.
pub(super) async fn everything(context: &Arc<StreamContext>) {
    let deadline = Instant::now() + context.router.queue_timeout() + STEP;
    if context.config().edge_dials.is_some() {
        settle_at_sidecar(context).await;
    } else {
        move_away_from_edge(context).await;
    }
    context.stopping.cancel();
    hear_answers(context).await;
    context.router.stop();
    context.streams.tell_all(|| Command::Drain);
    while !(context.streams.is_empty() && context.sip.is_empty()) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    context.streams.tell_all(|| Command::End(Fault::Shutdown));
    context.sip.end_all();
    context.tasks.close();
    if tokio::time::timeout(STEP, context.tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            streams = context.streams.all().len(),
            "streams were cut at the end"
        );
    }
}

/// Without acknowledgements (XEP-0198) what is on its way when a stream ends is lost: such a stream
/// ends only when nothing came or went for so long.
const QUIET: Duration = Duration::from_secs(2);

/// A pool whose records are withdrawn gives up its streams, each once its peer can know of another
/// pool. Who comes all the same is served, for as long.
#[derive(Default)]
pub(super) struct Withdrawn {
    since: Option<Instant>,
}

/// Says so once: who reads the log sees why streams end.
fn begins(now: Instant, after: Duration) -> Instant {
    tracing::info!(
        after_seconds = after.as_secs(),
        "the pool's records are withdrawn (spec.route.enabled: false, or no way inside while another pool has one): streams end in order once the records have run out"
    );
    now
}

impl Withdrawn {
    /// To be called about once a second.
    pub(super) fn tick(&mut self, context: &StreamContext, now: Instant) {
        let Some(after) = context.config().document.drain_after_seconds else {
            self.since = None;
            return;
        };
        let after = Duration::from_secs(after.into());
        let since = *self.since.get_or_insert_with(|| begins(now, after));
        let over = |from: Instant| now.saturating_duration_since(from) >= after;
        if !over(since) {
            return;
        }
        // Sidecars use a withdrawn pool last, and know it.
        let streams = context.streams.all().into_iter();
        for entry in streams.filter(|entry| !entry.is_trunk()) {
            let loses_nothing = entry.is_acknowledged() || entry.quiet(now) >= QUIET;
            if over(entry.opened) && loses_nothing {
                entry.handle.tell(Command::Drain);
            }
        }
    }
}
