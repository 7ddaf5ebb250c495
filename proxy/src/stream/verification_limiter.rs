//! How many questions about dialback keys the edge asks at a time and within a minute.
//!
//! A stranger decides whom the edge asks. So the questions are counted by what he cannot multiply:
//! by partner object and in all, never by a name that he made up under a wildcard. Keys of a partner
//! that come at once wait for one another; only what would be too much within a minute, or would wait
//! with too many others, is refused.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use xmpp_edge_crds::domain::{DomainName, DomainPattern};

use crate::{
    config::ActiveConfig,
    negotiation::{Side, Unavailable},
};

/// Verifications under way at a time, of one replica.
const RUNNING: usize = 64;
/// Of them, for one partner object.
const RUNNING_OF_PARTNER: usize = 8;
/// Verifications that wait or are under way at a time, of one replica.
const WAITING: usize = 1024;
/// Of them, for one partner object.
const WAITING_OF_PARTNER: usize = 128;
/// Begun within a minute for one partner object: a peer that names a victim must not turn the edge
/// into an amplifier. More where there are more than 30 pairs of an own domain and a domain of the
/// partner's: each may come twice.
const A_MINUTE: usize = 60;
/// Whatever the number of such pairs.
const MOST_A_MINUTE: usize = 6_000;
/// Begun within a minute for all names under wildcards together.
const A_MINUTE_OF_STRANGERS: usize = 600;
/// So long a domain whose server could not be asked is not looked up again.
pub(super) const FAILED: Duration = Duration::from_secs(3);
/// Domains whose server could not be asked: beyond this many the oldest are forgotten.
const FAILED_REMEMBERED: u64 = 4096;
const MINUTE: Duration = Duration::from_secs(60);

/// Bounds the questions; each bound is by partner object or in all.
#[derive(Debug)]
pub struct KeyVerificationLimiter {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    strangers: Mutex<LastMinute>,
    /// By the partner object's name. One that is not asked for a while counts nothing any more and
    /// goes: no verification takes that long.
    partners: Cache<String, Arc<PartnerUsage>>,
    failed: Cache<DomainName, Unavailable>,
}

/// What one partner object, or one gateway's domain, has under way.
#[derive(Debug)]
struct PartnerUsage {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    begun: Mutex<LastMinute>,
}

/// When the last ones were begun, at most as many as may be within a minute.
#[derive(Debug, Default)]
struct LastMinute {
    begun: VecDeque<Instant>,
}

impl LastMinute {
    /// Whether one more may begin; counts it where it may. O(1) amortised.
    fn begin(&mut self, most: usize, now: Instant) -> bool {
        while let Some(first) = self.begun.front()
            && now.duration_since(*first) >= MINUTE
        {
            self.begun.pop_front();
        }
        let room = self.begun.len() < most;
        if room {
            self.begun.push_back(now);
        }
        room
    }
}

/// The right to ask whenever it is one's turn; dropping it gives its places in the queue back.
#[derive(Debug)]
pub(super) struct QueuedVerification {
    limiter: Arc<KeyVerificationLimiter>,
    partner: Arc<PartnerUsage>,
    _places: [OwnedSemaphorePermit; 2],
}

/// A verification under way; dropping it lets the next one begin.
#[derive(Debug)]
pub(super) struct RunningVerification {
    _places: [OwnedSemaphorePermit; 2],
}

/// Who is asked for: what one bound counts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct VerificationSubject {
    /// The partner object's name.
    partner: String,
    /// The domain is one of endlessly many that the object covers.
    is_made_up: bool,
    a_minute: usize,
}

impl VerificationSubject {
    pub(super) fn of(config: &ActiveConfig, side: Side, domain: &DomainName) -> Self {
        let own = config.document.domains.len();
        match (side, config.partner(domain)) {
            (Side::Partner, Some(partner)) => Self {
                partner: partner.name.clone(),
                is_made_up: !partner.domains.iter().any(
                    |pattern| matches!(pattern, DomainPattern::Exact(exact) if exact == domain),
                ),
                a_minute: (2 * own * partner.domains.len()).clamp(A_MINUTE, MOST_A_MINUTE),
            },
            // An own domain's gateway: as many as are configured, each of which is asked by itself
            // (a colon is in no object's name).
            (Side::Gateway, _) | (Side::Partner, None) => Self {
                partner: format!("gateway:{domain}"),
                is_made_up: false,
                a_minute: (2 * config.document.partners.len()).clamp(A_MINUTE, MOST_A_MINUTE),
            },
        }
    }

    /// Whether a server that cannot be reached is tried again while the peer waits: not for names that a
    /// stranger made up, which cost a constant.
    pub(super) fn is_retried(&self) -> bool {
        !self.is_made_up
    }
}

impl Default for KeyVerificationLimiter {
    fn default() -> Self {
        Self {
            running: Arc::new(Semaphore::new(RUNNING)),
            waiting: Arc::new(Semaphore::new(WAITING)),
            strangers: Mutex::default(),
            partners: Cache::builder().time_to_idle(2 * MINUTE).build(),
            failed: Cache::builder()
                .time_to_live(FAILED)
                .max_capacity(FAILED_REMEMBERED)
                .build(),
        }
    }
}

impl KeyVerificationLimiter {
    /// Why the server of this domain could not be asked a moment ago.
    pub(super) fn failure(&self, domain: &DomainName) -> Option<Unavailable> {
        self.failed.get(domain)
    }

    /// The server of this domain could not be asked.
    pub(super) fn note_failure(&self, domain: DomainName, failure: Unavailable) {
        self.failed.insert(domain, failure);
    }

    /// A place in the queue, or why there is none.
    pub(super) fn enter(
        self: &Arc<Self>,
        subject: &VerificationSubject,
        now: Instant,
    ) -> Option<QueuedVerification> {
        let partner = self.partners.get_with_by_ref(&subject.partner, || {
            Arc::new(PartnerUsage {
                running: Arc::new(Semaphore::new(RUNNING_OF_PARTNER)),
                waiting: Arc::new(Semaphore::new(WAITING_OF_PARTNER)),
                begun: Mutex::default(),
            })
        });
        let own = Arc::clone(&partner.waiting).try_acquire_owned().ok()?;
        let shared = Arc::clone(&self.waiting).try_acquire_owned().ok()?;
        let queued = QueuedVerification {
            limiter: Arc::clone(self),
            partner,
            _places: [own, shared],
        };
        queued.again(subject, now).then_some(queued)
    }
}

impl QueuedVerification {
    /// Whether one more may begin for `subject` within this minute; counts it where it may.
    pub(super) fn again(&self, subject: &VerificationSubject, now: Instant) -> bool {
        let strangers = &self.limiter.strangers;
        self.partner.begun.lock().begin(subject.a_minute, now)
            && (!subject.is_made_up || strangers.lock().begin(A_MINUTE_OF_STRANGERS, now))
    }

    /// Waits until it is this one's turn; in order, within the partner object.
    pub(super) async fn turn(&self) -> RunningVerification {
        let never = "the semaphore is never closed";
        let own = Arc::clone(&self.partner.running).acquire_owned();
        let own = own.await.expect(never);
        let shared = Arc::clone(&self.limiter.running).acquire_owned();
        let shared = shared.await.expect(never);
        RunningVerification {
            _places: [own, shared],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(partner: &str, is_made_up: bool) -> VerificationSubject {
        VerificationSubject {
            partner: partner.to_owned(),
            is_made_up,
            a_minute: A_MINUTE,
        }
    }

    fn begun(
        limiter: &Arc<KeyVerificationLimiter>,
        subject: &VerificationSubject,
        now: Instant,
    ) -> usize {
        let tries = 0..2000;
        tries
            .filter(|_| limiter.enter(subject, now).is_some())
            .count()
    }

    #[test]
    fn a_partner_object_is_asked_a_bounded_number_of_times_whatever_names_it_has() {
        let (limiter, now) = (Arc::new(KeyVerificationLimiter::default()), Instant::now());
        assert_eq!(begun(&limiter, &subject("agency", true), now), A_MINUTE);
        assert_eq!(begun(&limiter, &subject("agency", false), now), 0);
        assert_eq!(begun(&limiter, &subject("other", false), now), A_MINUTE);
        let later = now + MINUTE;
        assert_eq!(begun(&limiter, &subject("agency", true), later), A_MINUTE);
    }

    #[test]
    fn all_names_under_wildcards_share_one_bound_and_listed_names_do_not() {
        let (limiter, now) = (Arc::new(KeyVerificationLimiter::default()), Instant::now());
        let strangers: usize = (0..20)
            .map(|number| begun(&limiter, &subject(&format!("wild{number}"), true), now))
            .sum();
        assert_eq!(strangers, A_MINUTE_OF_STRANGERS);
        assert_eq!(begun(&limiter, &subject("listed", false), now), A_MINUTE);
    }

    #[tokio::test]
    async fn s15_what_comes_at_once_waits_for_its_turn_and_a_place_comes_back() {
        let (limiter, now) = (Arc::new(KeyVerificationLimiter::default()), Instant::now());
        let subject = subject("partner", false);
        let mut waiting = Vec::new();
        for _ in 0..20 {
            waiting.push(limiter.enter(&subject, now).expect("it waits"));
        }
        let mut running = Vec::new();
        for _ in 0..RUNNING_OF_PARTNER {
            running.push(waiting.remove(0).turn().await);
        }
        let queued = waiting.remove(0);
        let mut next = Box::pin(queued.turn());
        assert!(futures::poll!(&mut next).is_pending(), "8 at a time");
        running.pop();
        assert!(futures::poll!(&mut next).is_ready());
        drop((next, running));
        drop((waiting, queued));
        assert_eq!(limiter.running.available_permits(), RUNNING);
        assert_eq!(limiter.waiting.available_permits(), WAITING);
    }

    #[tokio::test]
    async fn one_partner_does_not_hold_every_place() {
        let (limiter, now) = (Arc::new(KeyVerificationLimiter::default()), Instant::now());
        let mut subject = subject("greedy", false);
        subject.a_minute = usize::MAX;
        let waiting: Vec<_> = (0..2 * WAITING)
            .filter_map(|_| limiter.enter(&subject, now))
            .collect();
        assert_eq!(waiting.len(), WAITING_OF_PARTNER);
        let other = limiter.enter(
            &VerificationSubject {
                partner: "other".to_owned(),
                ..subject
            },
            now,
        );
        other.expect("room for another").turn().await;
    }
}
