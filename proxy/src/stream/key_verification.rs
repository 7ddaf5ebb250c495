//! Asking a domain's authoritative server about a dialback key (XEP-0220 section 2.1.2), on a
//! stream of its own that does nothing else.
//!
//! How many are asked is bounded (`verification_limiter`). Nor does a stranger, who decides whom the edge
//! asks, learn what it found there: whoever has proved nothing hears of every failure the same, after the
//! same time (`strangers`).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Command, connect, handle::StreamHandle, strangers::MARGIN,
    verification_limiter::VerificationSubject,
};
use crate::{
    negotiation::{KeyVerification, Purpose, Side, Unavailable, VerifyRequest},
    net::unauthenticated::SlotRank,
    stream::context::StreamContext,
};

/// How long the authoritative server may take, all in, and what waits for its turn. For a stranger at
/// most half of `streamEstablishmentTimeoutSeconds`: he is told before his stream ends.
const LIMIT: Duration = Duration::from_secs(30);
/// Asks, in a task of its own; the stream behind `handle` gets the verdict in any case. While the
/// question is under way, the stream's `slot` among the unauthenticated is not taken away.
pub fn start(
    context: &Arc<StreamContext>,
    side: Side,
    question: VerifyRequest,
    request: u32,
    handle: Arc<StreamHandle>,
    slot: Option<SlotRank>,
) {
    let domain = question.pair.from.clone();
    let config = context.config();
    let limiter = &context.key_verifications;
    let limit = match (side, &slot) {
        (Side::Partner, Some(_)) => {
            let seconds = config
                .document
                .settings
                .stream_establishment_timeout_seconds;
            LIMIT.min(Duration::from_secs(u64::from(seconds)) / 2)
        }
        _ => LIMIT,
    };
    let due = Instant::now() + limit;
    let deadline = tokio::time::Instant::from_std(due - MARGIN);
    let entered = match limiter.failure(&domain) {
        Some(failure) => Err(failure),
        None => {
            let subject = VerificationSubject::of(&config, side, &domain);
            let entered = limiter.enter(&subject, Instant::now());
            entered.ok_or(Unavailable::Busy)
        }
    };
    let waiting = match entered {
        Ok(waiting) => waiting,
        Err(unavailable) => {
            let verdict = KeyVerification::Unavailable(unavailable);
            handle.tell(Command::Verdict {
                request,
                verdict,
                due,
            });
            return;
        }
    };
    let context = Arc::clone(context);
    context.clone().tasks.spawn(async move {
        let verdict = match tokio::time::timeout_at(deadline, waiting.turn()).await {
            // Its server was not asked: that says nothing of it.
            Err(_) => KeyVerification::Unavailable(Unavailable::Busy),
            // Who asked has gone while it waited: nobody needs the answer.
            Ok(_) if handle.is_closed() => return,
            Ok(_running) => {
                let _held = slot.map(|slot| slot.hold());
                let asked = connect::ask(&context, side, Purpose::Verify(question));
                let verdict = tokio::time::timeout_at(deadline, asked)
                    .await
                    .unwrap_or(KeyVerification::Unavailable(Unavailable::TimedOut));
                if let KeyVerification::Unavailable(
                    failure @ (Unavailable::NotFound
                    | Unavailable::ConnectionFailed
                    | Unavailable::TimedOut),
                ) = verdict
                {
                    context.key_verifications.note_failure(domain, failure);
                }
                verdict
            }
        };
        handle.tell(Command::Verdict {
            request,
            verdict,
            due,
        });
    });
}
