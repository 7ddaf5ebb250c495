//! The queue of one pair: bounded, in order, carried by at most one stream at a time.

mod outcome;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    backoff::Backoff,
    batch::Batch,
    budget::{Charge, PartnerShare, QueueAccount, RouteOwner},
    carrier::Carrier,
    failure::Failure,
    unanswered::Unanswered,
    wake::{RouteSlot, Wake, Window},
};
use crate::negotiation::{Pair, Side};
pub use outcome::{AfterFailure, ConnectNumber, Dial, EnqueueOutcome, Queued};

/// So long after the pause that followed a failure, the failures are forgotten with the route.
const FORGIVEN: Duration = Duration::from_secs(600);
/// Between a stream that the peer ended over what it was sent, and the next: a peer that ends each of
/// them must not be dialled as fast as it can end them.
const AFTER_BLAME: Duration = Duration::from_millis(200);

/// So many streams in a row may end without a word over a stanza that went alone, none of them having confirmed
/// anything: then it is the server, and no stanza.
const IN_VAIN: u8 = 4;

/// One direction between two domains, and what waits to go there.
#[derive(Debug)]
pub struct Route {
    pub pair: Pair,
    /// Who the next hop is.
    pub side: Side,
    state: Mutex<LockedRoute>,
    account: Arc<QueueAccount>,
    /// Who sets a stream up has reason to look: the peer may be back, or another stream carries it.
    news: Notify,
}

#[derive(Debug)]
struct LockedRoute {
    waiting: VecDeque<Batch>,
    /// Errors to be made for senders whom this queue leads to.
    unanswered: VecDeque<Unanswered>,
    carrier: RouteState,
    backoff: Backoff,
    last_failure: Option<Failure>,
    /// Whether the sweeper knows of this route.
    swept: bool,
    /// Of the task that was started last to set a stream up.
    dial: ConnectNumber,
    /// A server was reached, and the negotiation with it goes on.
    negotiating: bool,
    /// Streams in a row that ended without a word over a stanza that went alone.
    in_vain: u8,
    owner: RouteOwner,
}

/// Who takes what waits.
#[derive(Debug)]
enum RouteState {
    Idle,
    /// The task of this number is setting a stream up.
    Connecting(ConnectNumber),
    Connected(Carrier),
    /// Failed before: nothing is tried until then.
    BackingOff {
        until: Instant,
        /// What comes meanwhile waits for the next try; else it is answered at once.
        waits: bool,
        failure: Failure,
    },
}

impl Route {
    #[must_use]
    pub fn new(pair: Pair, side: Side, owner: RouteOwner) -> Self {
        Self {
            pair,
            side,
            state: Mutex::new(LockedRoute {
                waiting: VecDeque::new(),
                unanswered: VecDeque::new(),
                carrier: RouteState::Idle,
                backoff: Backoff::default(),
                last_failure: None,
                swept: false,
                dial: ConnectNumber::default(),
                negotiating: false,
                in_vain: 0,
                owner,
            }),
            account: Arc::default(),
            news: Notify::new(),
        }
    }

    /// Puts something at the end. Bounds are the caller's:
    /// see [`Self::held`].
    pub fn enqueue(&self, queued: Queued, now: Instant) -> EnqueueOutcome {
        let state = &mut *self.state.lock();
        let first = !state.swept;
        let outcome = match &mut state.carrier {
            RouteState::Connected(carrier) => {
                carrier.has_more();
                EnqueueOutcome::Queued { first }
            }
            RouteState::Connecting(_) => EnqueueOutcome::Queued { first },
            RouteState::BackingOff {
                until,
                waits: false,
                failure,
            } if now < *until => {
                return EnqueueOutcome::Refused {
                    queued,
                    failure: failure.clone(),
                    until: *until,
                };
            }
            RouteState::BackingOff { .. } | RouteState::Idle if !state.owner.may_dial(now) => {
                return EnqueueOutcome::Crowded { queued };
            }
            RouteState::BackingOff { until, .. } => {
                let not_before = Some(*until).filter(|until| now < *until);
                let dial = state.start_dialling(not_before);
                EnqueueOutcome::Dial { first, dial }
            }
            RouteState::Idle => {
                let dial = state.start_dialling(None);
                EnqueueOutcome::Dial { first, dial }
            }
        };
        state.swept = true;
        match queued {
            Queued::Stanzas(mut batch) => {
                batch.charge(|bytes| Charge::new(&self.account, &state.owner.share, bytes));
                state.waiting.push_back(batch);
            }
            Queued::Unanswered(mut unanswered) => {
                let batch = &mut unanswered.batch;
                batch.charge(|bytes| Charge::new(&self.account, &state.owner.share, bytes));
                state.unanswered.push_back(unanswered);
            }
        }
        outcome
    }

    /// Memory held, in bytes: what waits, what was sent but not acknowledged, and what is to be
    /// answered here.
    #[must_use]
    pub fn held(&self) -> usize {
        self.account.held()
    }

    /// What the partner object of this route holds in all.
    #[must_use]
    pub fn share(&self) -> Arc<PartnerShare> {
        Arc::clone(&self.state.lock().owner.share)
    }

    /// The configuration changed: what is queued from here on counts there.
    pub fn set_owner(&self, owner: RouteOwner) {
        self.state.lock().owner = owner;
    }

    /// Stanzas that wait to be sent, and those whose senders wait for an answer.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        let state = self.state.lock();
        let answers = state.unanswered.iter().map(|own| own.batch.count());
        let stanzas = state.waiting.iter().map(Batch::count);
        stanzas.chain(answers).map(u64::from).sum()
    }

    /// Completes when memory was released, or at once if it was since the last call.
    pub async fn room(&self) {
        self.account.room().await;
    }

    /// A batch in custody becomes one batch a stanza, each of them held.
    #[must_use]
    pub fn split(&self, batch: Batch) -> Vec<Batch> {
        let share = self.share();
        let mut parts: Vec<_> = batch.split().collect();
        for part in &mut parts {
            part.charge(|bytes| Charge::new(&self.account, &share, bytes));
        }
        parts
    }

    /// The next for the stream that carries this route, when its turn has come ([`Wake::next`]): the
    /// oldest that the window takes. Where more waits, the route is listed again.
    pub fn dequeue(&self, wake: &Arc<Wake>, window: Window) -> Option<Queued> {
        let state = &mut *self.state.lock();
        let carrier = match &mut state.carrier {
            RouteState::Connected(carrier) if carrier.is(wake) => carrier,
            _ => return None,
        };
        carrier.looked();
        if !window.is_empty && state.waiting.front().is_some_and(|next| next.is_suspect) {
            carrier.hold_until_empty();
            return None;
        }
        let unanswered = state.unanswered.front();
        let is_older = match (
            state.waiting.front(),
            unanswered.filter(|_| window.takes_errors),
        ) {
            (Some(stanzas), Some(unanswered)) => unanswered.batch.arrived < stanzas.arrived,
            (_, None) => false,
            (None, Some(_)) => true,
        };
        let next = if is_older {
            state.unanswered.pop_front().map(Queued::Unanswered)
        } else {
            state.waiting.pop_front().map(Queued::Stanzas)
        };
        let more_waits = !state.waiting.is_empty() || !state.unanswered.is_empty();
        match next {
            Some(_) if more_waits => carrier.list(),
            None if more_waits => carrier.hold_errors(),
            _ => {}
        }
        next
    }

    /// The errors of a portion go out; the rest of what is to be answered comes next.
    pub(super) fn charge_portion(&self, replies: &mut Batch, rest: Option<Unanswered>) {
        let mut state = self.state.lock();
        replies.charge(|bytes| Charge::new(&self.account, &state.owner.share, bytes));
        if let Some(rest) = rest {
            state.unanswered.push_front(rest);
            if let RouteState::Connected(carrier) = &mut state.carrier {
                carrier.list();
            }
        }
    }

    /// A stream is ready for this pair and calls it `slot`. Says what the stream calls it from here on:
    /// one that carries it already goes on with the name that it gave first. `None` where another
    /// stream carries it.
    pub fn attach(&self, wake: &Arc<Wake>, slot: RouteSlot) -> Option<RouteSlot> {
        let mut state = self.state.lock();
        let slot = match &state.carrier {
            RouteState::Connected(own) if own.is(wake) => own.slot(),
            RouteState::Connected(_) => return None,
            _ => {
                let mut carrier = Carrier::new(wake, slot);
                if !state.is_empty() {
                    carrier.list();
                }
                state.carrier = RouteState::Connected(carrier);
                slot
            }
        };
        state.backoff.succeeded();
        state.last_failure = None;
        drop(state);
        wake.wake();
        self.news.notify_waiters();
        Some(slot)
    }

    /// The stream has ended: what it had not got acknowledged goes first, in order. Where
    /// something waits, the caller has the next stream set up.
    pub fn detach(&self, wake: &Arc<Wake>, unacknowledged: Vec<Batch>) -> Option<Dial> {
        let is_suspect = unacknowledged.iter().any(|batch| batch.is_suspect);
        let not_before = is_suspect.then(|| Instant::now() + AFTER_BLAME);
        let mut state = self.state.lock();
        for batch in unacknowledged.into_iter().rev() {
            state.waiting.push_front(batch);
        }
        let is_empty = state.is_empty();
        match &mut state.carrier {
            RouteState::Connected(own) if own.is(wake) => state.carrier = RouteState::Idle,
            RouteState::Connected(other) if !is_empty => other.has_more(),
            _ => {}
        }
        let is_idle = matches!(state.carrier, RouteState::Idle);
        (is_idle && !is_empty).then(|| state.start_dialling(not_before))
    }

    /// A stream ended without a word over a stanza that went alone; `found`: it had confirmed others. Where
    /// that happens time and again and nothing is found, what still waits to go alone goes together, for the
    /// last time.
    pub fn searched(&self, found: bool) {
        let mut state = self.state.lock();
        state.in_vain = if found { 0 } else { state.in_vain + 1 };
        if state.in_vain >= IN_VAIN {
            state.in_vain = 0;
            for batch in &mut state.waiting {
                batch.is_suspect = false;
            }
        }
    }

    /// Whether the task of this number still has something to do.
    #[must_use]
    pub fn is_dialling(&self, number: ConnectNumber) -> bool {
        self.state.lock().is_dialling(number)
    }

    /// Completes once the task of this number is overtaken: another stream carries the pair.
    pub async fn overtaken(&self, number: ConnectNumber) {
        loop {
            let mut news = std::pin::pin!(self.news.notified());
            news.as_mut().enable();
            if !self.is_dialling(number) {
                return;
            }
            news.await;
        }
    }

    /// Completes when there is a sign that the next hop is back.
    pub async fn sign(&self) {
        self.news.notified().await;
    }

    /// A sign that the next hop is back: what waits is tried at once, and a pause is over.
    pub fn signed(&self) {
        let mut state = self.state.lock();
        if matches!(state.carrier, RouteState::BackingOff { .. }) {
            state.carrier = RouteState::Idle;
        }
        state.backoff.succeeded();
        drop(state);
        self.news.notify_waiters();
    }

    /// Whether the task of this number has reached a server that it negotiates with.
    pub fn negotiates(&self, number: ConnectNumber, negotiating: bool) {
        let mut state = self.state.lock();
        if state.is_dialling(number) {
            state.negotiating = negotiating;
        }
    }

    /// One target failed; others may be left.
    pub fn note_failure(&self, failure: &Failure) {
        self.state.lock().last_failure = Some(failure.clone());
    }

    /// Why no stream could be set up last, since one stood.
    #[must_use]
    pub fn last_failure(&self) -> Option<Failure> {
        self.state.lock().last_failure.clone()
    }

    /// The task of this number reaches nothing for now. What waits goes on waiting while the next hop
    /// has been away for less than `patience` (`queueTimeoutSeconds`); a server inside is waited for
    /// however long it is away, and what refuses is not waited for. `None`: nothing is waited for.
    pub fn failed(
        &self,
        number: ConnectNumber,
        failure: &Failure,
        now: Instant,
        patience: Option<Duration>,
        jitter: f64,
    ) -> AfterFailure {
        let mut state = self.state.lock();
        if !state.is_dialling(number) {
            return AfterFailure::Overtaken;
        }
        state.negotiating = false;
        state.backoff.failed(now);
        state.last_failure = Some(failure.clone());
        let waits = patience.is_some_and(|patience| {
            failure.kind.is_outage()
                && (self.side == Side::Gateway || state.backoff.failing_for(now) < patience)
        });
        if waits {
            let pause = state.backoff.short_pause(jitter);
            if !state.is_empty() {
                return AfterFailure::Retry(pause);
            }
            let until = now + pause;
            state.carrier = RouteState::BackingOff {
                until,
                waits,
                failure: failure.clone(),
            };
            return AfterFailure::BackOff {
                failed: Vec::new(),
                until,
            };
        }
        let pause = if failure.kind.is_outage() {
            state.backoff.long_pause(now, jitter)
        } else {
            state.backoff.pause_after_refusal(jitter)
        };
        let until = now + pause;
        state.carrier = if pause.is_zero() {
            RouteState::Idle
        } else {
            RouteState::BackingOff {
                until,
                waits,
                failure: failure.clone(),
            }
        };
        AfterFailure::BackOff {
            failed: state.take_all(),
            until,
        }
    }

    /// The task of this number is gone without a word. Where something waits, another is to take its
    /// place, after a pause.
    pub fn abandoned(&self, number: ConnectNumber, now: Instant) -> Option<Dial> {
        let mut state = self.state.lock();
        if !state.is_dialling(number) {
            return None;
        }
        state.backoff.failed(now);
        let pause = state.backoff.short_pause(0.0);
        state.carrier = RouteState::Idle;
        (!state.is_empty()).then(|| state.start_dialling(Some(now + pause)))
    }

    /// The task of this number ends without stream although nothing failed: nobody waits any more.
    /// `false` where something has come in the meantime, so that it goes on.
    pub fn stop_dialling_if_empty(&self, number: ConnectNumber) -> bool {
        let mut state = self.state.lock();
        if !state.is_dialling(number) {
            return true;
        }
        if state.is_empty() {
            state.carrier = RouteState::Idle;
            return true;
        }
        false
    }

    /// What has waited longer than `limit`, in order; twice that while a server was reached and the
    /// negotiation goes on. Looks behind the front: what came back from a dead stream stands before
    /// what is older. Answers do not grow old while a stream takes them, however slowly: whoever they
    /// are for is not read meanwhile.
    pub fn expired(&self, now: Instant, limit: Duration) -> Vec<Queued> {
        let mut state = self.state.lock();
        let limit = match state.carrier {
            RouteState::Connecting(_) if state.negotiating => 2 * limit,
            _ => limit,
        };
        let is_taken = matches!(state.carrier, RouteState::Connected(_));
        let is_old = |batch: &Batch| now.saturating_duration_since(batch.arrived) >= limit;
        let is_over = |batch: &Batch| is_old(batch) && !(is_taken && batch.is_reply);
        let mut expired = Vec::new();
        if state.waiting.iter().any(is_over) {
            let (old, waiting): (VecDeque<_>, VecDeque<_>) =
                state.waiting.drain(..).partition(is_over);
            state.waiting = waiting;
            expired.extend(old.into_iter().map(Queued::Stanzas));
        }
        while !is_taken && let Some(own) = state.unanswered.pop_front_if(|own| is_old(&own.batch)) {
            expired.push(Queued::Unanswered(own));
        }
        expired
    }

    /// Everything that waits, taken out: the pair has become forbidden.
    pub fn drain(&self) -> Vec<Queued> {
        self.state.lock().take_all()
    }

    /// Stanzas that wait and whose senders have them until they are acknowledged, taken out.
    pub fn take_owed(&self) -> Vec<Batch> {
        let mut state = self.state.lock();
        let waiting = std::mem::take(&mut state.waiting);
        let (owed, others): (VecDeque<_>, VecDeque<_>) = waiting
            .into_iter()
            .partition(|batch| batch.is_owed() && !batch.is_reply);
        state.waiting = others;
        owed.into()
    }

    /// What may not go to this pair any more, once its partner is forbidden. What the edge itself says, to our
    /// own users in any case, stays: to the partner it goes out before the stream that carries the route ends.
    pub fn take_forbidden(&self) -> Vec<Queued> {
        let mut state = self.state.lock();
        let own_goes_out =
            self.side == Side::Gateway || matches!(state.carrier, RouteState::Connected(_));
        if !own_goes_out {
            return state.take_all();
        }
        let waiting = std::mem::take(&mut state.waiting).into_iter();
        let (own, forwarded): (_, Vec<_>) = waiting.partition(|batch| batch.is_reply);
        state.waiting = own.into();
        forwarded.into_iter().map(Queued::Stanzas).collect()
    }

    /// Marks the route for the sweeper; `true` where it was not marked.
    pub fn mark_swept(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().swept, true)
    }

    /// Whether the sweeper must keep looking; `false` takes the mark off.
    pub fn keep_sweeping(&self) -> bool {
        let mut state = self.state.lock();
        state.swept = !state.is_empty();
        state.swept
    }

    /// Nothing waits, nothing is held, no stream, and failures are long past: it can be forgotten.
    #[must_use]
    pub fn is_idle(&self, now: Instant) -> bool {
        let state = self.state.lock();
        let rests = match &state.carrier {
            RouteState::Idle => true,
            // Endlessly many names are remembered no longer than their pause.
            RouteState::BackingOff { until, .. } if state.owner.is_made_up => now >= *until,
            RouteState::BackingOff { until, .. } => now >= *until + FORGIVEN,
            RouteState::Connecting(_) | RouteState::Connected(_) => false,
        };
        self.held() == 0 && !state.swept && rests
    }

    /// Whether this very stream carries it.
    #[must_use]
    pub fn is_carried_by(&self, wake: &Arc<Wake>) -> bool {
        matches!(&self.state.lock().carrier, RouteState::Connected(own) if own.is(wake))
    }

    /// When the next try may be, where it rests.
    #[must_use]
    pub fn resting_until(&self) -> Option<Instant> {
        match &self.state.lock().carrier {
            RouteState::BackingOff { until, .. } => Some(*until),
            _ => None,
        }
    }
}

impl LockedRoute {
    fn start_dialling(&mut self, not_before: Option<Instant>) -> Dial {
        self.backoff.begins(not_before.unwrap_or_else(Instant::now));
        self.dial = ConnectNumber(self.dial.0 + 1);
        self.carrier = RouteState::Connecting(self.dial);
        self.negotiating = false;
        Dial {
            number: self.dial,
            not_before,
        }
    }

    fn is_dialling(&self, number: ConnectNumber) -> bool {
        matches!(self.carrier, RouteState::Connecting(own) if own == number)
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.unanswered.is_empty()
    }

    fn take_all(&mut self) -> Vec<Queued> {
        let stanzas = self.waiting.drain(..).map(Queued::Stanzas);
        let unanswered = self.unanswered.drain(..).map(Queued::Unanswered);
        stanzas.chain(unanswered).collect()
    }
}

#[cfg(test)]
mod tests;
