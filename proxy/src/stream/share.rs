//! Sharing: a pair that needs a stream first asks one that stands (XEP-0220 section 2.6).
//!
//! Only towards partners, only on streams that the edge opened, and only among pairs of one partner
//! object. A further sender asks a stream to the same target; a further target one to the very server
//! that its own DNS prefers. Whether the pair may go there at all, the negotiation machine decides.
//! Who asks in vain dials, once: nothing is lost by asking but a little time.
//!
//! Inside nothing is shared: there each partner's domain proves itself by a leaf of its own.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use tokio::sync::oneshot;
use xmpp_edge_crds::verdict::Direction;

use super::{
    Command,
    context::StreamContext,
    pool::Turn,
    registry::StreamInfo,
    targets::{self, LookedUp},
};
use crate::{
    negotiation::{Fault, Pair, PeerRole, Side},
    routing::route::{ConnectNumber, Route},
    telemetry::log_limiter::limited,
    tls::TlsaSet,
};

/// What a pair that dials has found out already.
#[derive(Debug, Default)]
pub(super) struct Own {
    pub looked_up: Option<LookedUp>,
    /// Held until the stream stands or cannot be had.
    pub turn: Option<Turn>,
}

/// What became of asking one stream.
enum JoinOutcome {
    Carried,
    /// Not this stream, but maybe another.
    NotHere,
    /// The peer does not want it, or does not say.
    Declined,
    /// No time is left.
    TooLate,
}

/// Looks for a stream that takes the pair of `route`, whose dialling task has this number. `None`
/// where one carries it now; else the pair dials.
pub(super) async fn find(
    context: &Arc<StreamContext>,
    route: &Arc<Route>,
    number: ConnectNumber,
) -> Option<Own> {
    let mut own = Own::default();
    if route.side == Side::Gateway || context.stopping.is_cancelled() {
        return Some(own);
    }
    // Asking and waiting leave most of the time that a stanza may wait.
    let deadline = Instant::now() + context.router.queue_timeout() / 4;
    let mut asked = Vec::new();
    let mut waited = false;
    loop {
        if !route.is_dialling(number) {
            return None;
        }
        let config = context.config();
        let Some(partner) = config.partner(&route.pair.to) else {
            return Some(own);
        };
        if context.pool.has_declined(&route.pair) {
            return Some(own);
        }
        for entry in standing(context, &partner.name, &route.pair) {
            if asked.contains(&entry.id) {
                continue;
            }
            let Some(tlsa) = leads_there(context, route, &entry, &mut own.looked_up).await else {
                continue;
            };
            let stream = entry.id;
            asked.push(stream);
            match ask(entry, &route.pair, tlsa, deadline).await {
                JoinOutcome::Carried => return None,
                JoinOutcome::NotHere => {}
                JoinOutcome::Declined => {
                    context.pool.note_declined(&route.pair);
                    let config = context.config();
                    let partner = config.partner(&route.pair.to).map(|own| own.name.as_str());
                    limited!(
                        info,
                        context.log.lines("shared stream", partner, Direction::Outbound, "Declined"),
                        pair = %route.pair, stream,
                        "not taken on a shared stream: it gets its own"
                    );
                    return Some(own);
                }
                JoinOutcome::TooLate => return Some(own),
            }
        }
        let looked_up = look_up(context, route, &mut own.looked_up).await;
        let Ok(candidates) = looked_up else {
            return Some(own);
        };
        let server = (partner.name.clone(), candidates.preferred());
        match context.pool.take_turn(server) {
            Ok(turn) => {
                own.turn = Some(turn);
                return Some(own);
            }
            // Once: where the first stream cannot be shared, the others need not queue up.
            Err(over) if !waited => {
                waited = true;
                let _ = tokio::time::timeout_at(deadline.into(), over.cancelled()).await;
            }
            Err(_) => return Some(own),
        }
    }
}

/// Streams of ours to this partner that take further pairs; those to the same target first.
fn standing(context: &StreamContext, partner: &str, pair: &Pair) -> Vec<Arc<StreamInfo>> {
    let config = context.config();
    let mut standing: Vec<_> = context
        .streams
        .all()
        .into_iter()
        .filter(|entry| {
            entry.side == Side::Partner && entry.peer == PeerRole::Server && entry.is_open()
        })
        .filter_map(|entry| {
            let sends = entry.facts().sends;
            let is_theirs = sends.iter().all(|own| {
                let of = config.partner(&own.to);
                of.is_some_and(|of| of.name == partner)
            });
            let elsewhere = !sends.iter().any(|own| own.to == pair.to);
            is_theirs.then_some((elsewhere, entry.id, entry))
        })
        .collect();
    standing.sort_by_key(|(elsewhere, id, _)| (*elsewhere, *id));
    standing.into_iter().map(|(_, _, entry)| entry).collect()
}

/// Whether the pair's target is served at the other end of this stream, with the TLSA records that
/// count for it there.
async fn leads_there(
    context: &Arc<StreamContext>,
    route: &Route,
    entry: &StreamInfo,
    looked_up: &mut Option<LookedUp>,
) -> Option<Option<TlsaSet>> {
    let target = &route.pair.to;
    if entry.facts().sends.iter().any(|own| own.to == *target) {
        return Some(None);
    }
    let address: SocketAddr = entry.address?;
    let candidates = look_up(context, route, looked_up).await.as_mut().ok()?;
    let candidate = candidates.at(address).await?;
    Some(candidate.tlsa)
}

async fn look_up<'a>(
    context: &Arc<StreamContext>,
    route: &Route,
    looked_up: &'a mut Option<LookedUp>,
) -> &'a mut LookedUp {
    match looked_up {
        Some(known) => known,
        none => {
            let found =
                targets::look_up(context, &context.config(), route.side, &route.pair.to).await;
            none.insert(found)
        }
    }
}

/// Asks one stream to carry the pair; while it waits for the peer's word, the stream's other pairs
/// go on.
async fn ask(
    entry: Arc<StreamInfo>,
    pair: &Pair,
    tlsa: Option<TlsaSet>,
    deadline: Instant,
) -> JoinOutcome {
    let places = Arc::clone(&entry.asking);
    let Ok(Ok(_place)) = tokio::time::timeout_at(deadline.into(), places.acquire()).await else {
        return JoinOutcome::TooLate;
    };
    let (answer, answered) = oneshot::channel();
    let command = Command::Carry {
        pair: pair.clone(),
        tlsa,
        answer,
    };
    if !entry.handle.tell(command) {
        return JoinOutcome::NotHere;
    }
    drop(entry);
    match tokio::time::timeout_at(deadline.into(), answered).await {
        Ok(Ok(Ok(()))) => JoinOutcome::Carried,
        // The stream's end may well be the peer's way to refuse.
        Ok(Ok(Err(
            Fault::DialbackError { .. }
            | Fault::DialbackRejected
            | Fault::PeerError { .. }
            | Fault::PeerClosed,
        )))
        | Err(_) => JoinOutcome::Declined,
        // The machine did not ask, or the stream has ended for a reason of ours.
        Ok(Ok(Err(_)) | Err(_)) => JoinOutcome::NotHere,
    }
}
