//! Asking a domain's authoritative server about a dialback key (XEP-0220 section 2.1.2), on a
//! stream of its own that does nothing else. A listed domain's server that cannot be reached is tried again
//! for as long as the peer waits: an outage of seconds is no reason to refuse what it queued.
//!
//! How many are asked is bounded (`verification_limiter`). Nor does a stranger, who decides whom the edge
//! asks, learn what it found there: whoever has proved nothing hears of every failure the same, after the
//! same time (`strangers`).

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use xmpp_edge_crds::domain::DomainName;

use super::{
    Command, Stream, connect,
    handle::StreamHandle,
    strangers::MARGIN,
    verification_limiter::{FAILED, KeyAsker, QueuedVerification, VerificationSubject},
};
use crate::{
    negotiation::{KeyVerification, Purpose, Side, Unavailable, VerifyRequest},
    net::unauthenticated::{SlotRank, network_of},
    stream::context::StreamContext,
};

/// How long the authoritative server may take, all in, and what waits for its turn. For a stranger at
/// most half of `streamEstablishmentTimeoutSeconds`: he is told before his stream ends.
const LIMIT: Duration = Duration::from_secs(30);

/// Asks, in a task of its own; the stream behind `handle` gets the verdict in any case. While the
/// question is under way, the stream's `slot` among the unauthenticated is not taken away.
pub(super) fn start(
    context: &Arc<StreamContext>,
    (side, asker): (Side, KeyAsker),
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
    let subject = VerificationSubject::of(&config, side, &domain, asker);
    let entered = match limiter.failure(&domain) {
        Some(failure) if !subject.is_retried() => Err(failure),
        before => limiter
            .enter(&subject, Instant::now())
            .map(|queued| (queued, before))
            .ok_or(Unavailable::Busy),
    };
    let (queued, before) = match entered {
        Ok(entered) => entered,
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
        // Where nothing comes of it in time: of a server that was not asked that says nothing.
        let mut verdict = KeyVerification::Unavailable(before.unwrap_or(Unavailable::Busy));
        let asking = async {
            let questions = KeyQuestions {
                context: &context,
                side,
                question,
                handle: &handle,
                slot,
            };
            if let Some(failure) = before
                && !questions.pause(failure).await
            {
                return;
            }
            questions.ask(&queued, &subject, &mut verdict).await;
        };
        // What was found by then is the verdict.
        let in_time = tokio::time::timeout_at(deadline, asking).await.is_ok();
        let silent = Unavailable::TimedOut;
        if !in_time && verdict == KeyVerification::Unavailable(silent) {
            // Asked, and silent until now: others need not find that out at once.
            context.key_verifications.note_failure(domain, silent);
        }
        handle.tell(Command::Verdict {
            request,
            verdict,
            due,
        });
    });
}

/// What is asked, for whom.
struct KeyQuestions<'c> {
    context: &'c Arc<StreamContext>,
    side: Side,
    question: VerifyRequest,
    handle: &'c StreamHandle,
    slot: Option<SlotRank>,
}

impl KeyQuestions<'_> {
    /// Asks until the server has answered, or may not be asked again; `verdict` is always what is known.
    async fn ask(
        &self,
        queued: &QueuedVerification,
        subject: &VerificationSubject,
        verdict: &mut KeyVerification,
    ) {
        loop {
            let running = queued.turn().await;
            // Who asked has gone while it waited: nobody needs the answer.
            if self.handle.is_closed() {
                return;
            }
            *verdict = KeyVerification::Unavailable(Unavailable::TimedOut);
            let held = self.slot.as_ref().map(SlotRank::hold);
            let purpose = Purpose::Verify(self.question.clone());
            *verdict = connect::ask(self.context, self.side, purpose).await;
            drop((running, held));
            let limiter = &self.context.key_verifications;
            let KeyVerification::Unavailable(
                failure @ (Unavailable::NotFound
                | Unavailable::ConnectionFailed
                | Unavailable::TimedOut),
            ) = *verdict
            else {
                limiter.note_answer(&self.question.pair.from);
                return;
            };
            limiter.note_failure(self.question.pair.from.clone(), failure);
            // That there is no such name is not waited for, unless the peer waits all the same.
            let may_pass = failure != Unavailable::NotFound || self.slot.is_some();
            if !subject.is_retried() || !may_pass || self.handle.is_closed() {
                return;
            }
            if !self.pause(failure).await || !queued.again(subject, Instant::now()) {
                return;
            }
        }
    }

    /// Waits until the server may be tried again; `false`: nobody waits for the answer any more.
    async fn pause(&self, failure: Unavailable) -> bool {
        let limiter = &self.context.key_verifications;
        while !self.handle.is_closed() {
            tokio::time::sleep(FAILED).await;
            if limiter.may_try_again(&self.question.pair.from, failure) {
                return true;
            }
        }
        false
    }
}

impl Stream {
    /// Who it is that wants a key of this domain verified.
    pub(super) fn asker(&self, domain: &DomainName) -> KeyAsker {
        if self.side == Side::Gateway {
            return KeyAsker::Known;
        }
        let address = self.entry.address;
        let address = address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |own| own.ip());
        let stranger = KeyAsker::Stranger(network_of(address));
        let Some(partner) = self.config.partner_index(domain) else {
            return stranger;
        };
        let is_authenticated = self.receiver.carried.iter().any(|own| {
            !own.errors_only && self.config.partner_index(&own.pair.from) == Some(partner)
        });
        let name = &self.config.document.partners[partner.as_usize()].name;
        if is_authenticated || self.context.unauthenticated.is_known(address, name) {
            KeyAsker::Known
        } else {
            stranger
        }
    }
}
