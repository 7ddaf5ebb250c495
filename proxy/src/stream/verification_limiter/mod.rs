//! How many questions about dialback keys the edge asks at a time and within a minute.
//!
//! A stranger decides whom the edge asks. So the questions are counted by what he cannot multiply:
//! by partner object and in all, never by a name that he made up under a wildcard. What he causes has
//! bounds of its own: who is authenticated as the partner, or comes from where the partner authenticated
//! before, is counted apart from strangers; of these each network by itself; names that only a wildcard
//! matches apart from those that are listed; and gateways apart from all partners. Keys of a partner
//! that come at once wait for one another; only what would be too much within a minute, or would wait
//! with too many others, is refused.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
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

/// Verifications under way at a time for partners that are known, of one replica.
const RUNNING: usize = 64;
/// The same for strangers, and for gateways.
const RUNNING_APART: usize = 32;
/// Of them, for one subject. The first of each is beyond the number of all: who has none under way is not
/// kept waiting by who has many.
const RUNNING_OF_SUBJECT: usize = 8;
/// Verifications that wait or are under way at a time, of known partners, strangers and gateways each.
const WAITING: usize = 1024;
/// Of them, for one subject.
const WAITING_OF_SUBJECT: usize = 128;
/// Of these, beyond the number of all.
const WAITING_ALWAYS: usize = 8;
/// Begun within a minute for one subject: a peer that names a victim must not turn the edge
/// into an amplifier. More where there are more than 30 pairs of an own domain and a domain of the
/// partner's: each may come twice.
const A_MINUTE: usize = 60;
/// Whatever the number of such pairs.
const MOST_A_MINUTE: usize = 6_000;
/// Begun within a minute by strangers for all names under wildcards together.
const A_MINUTE_OF_MADE_UP: usize = 600;
/// Of one partner object's, these are begun all the same.
const A_MINUTE_ALWAYS: usize = 6;
/// So long a domain whose server could not be asked is not looked up again.
pub(super) const FAILED: Duration = Duration::from_secs(3);
/// Domains whose server could not be asked: beyond this many the oldest are forgotten.
const FAILED_REMEMBERED: u64 = 4096;
const MINUTE: Duration = Duration::from_secs(60);

/// Bounds the questions; each bound is by partner object or in all.
#[derive(Debug)]
pub struct KeyVerificationLimiter {
    known: VerificationPlaces,
    strangers: VerificationPlaces,
    gateways: VerificationPlaces,
    made_up: Mutex<LastMinute>,
    /// One that is not asked for a while counts nothing any more and goes: no verification takes that
    /// long.
    subjects: Cache<(String, AskedBy), Arc<SubjectUsage>>,
    failed: Cache<DomainName, Unavailable>,
    /// Domains whose server answered after a failure: nobody waits for that any more.
    reached: Cache<DomainName, ()>,
}

/// Places of all subjects that are asked for by the same kind.
#[derive(Debug)]
struct VerificationPlaces {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// What one subject has under way.
#[derive(Debug)]
struct SubjectUsage {
    running: Arc<Semaphore>,
    /// The one place that others cannot take.
    first: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    waiting_always: Arc<Semaphore>,
    begun: Mutex<LastMinute>,
    tried_again: Mutex<LastMinute>,
}

/// What was begun last, at most as many as may be within a minute.
#[derive(Debug, Default)]
struct LastMinute {
    begun: VecDeque<(Instant, Option<IpAddr>)>,
    of_network: HashMap<IpAddr, usize>,
}

impl LastMinute {
    /// Whether one more may begin; counts it where it may. A network has as many at most as it leaves to
    /// others: half of all where it is alone, and there is something for the next. O(1) amortised.
    fn begin(&mut self, most: usize, network: Option<IpAddr>, now: Instant) -> bool {
        while let Some((first, of)) = self.begun.front()
            && now.saturating_duration_since(*first) >= MINUTE
        {
            if let Some(of) = of
                && let Some(own) = self.of_network.get_mut(of)
            {
                *own -= 1;
                if *own == 0 {
                    self.of_network.remove(of);
                }
            }
            self.begun.pop_front();
        }
        let own = network.and_then(|network| self.of_network.get(&network));
        let room = self.begun.len() + own.copied().unwrap_or_default() < most;
        if room {
            self.begun.push_back((now, network));
            if let Some(network) = network {
                *self.of_network.entry(network).or_default() += 1;
            }
        }
        room
    }
}

/// The right to ask whenever it is one's turn; dropping it gives its places in the queue back.
#[derive(Debug)]
pub(super) struct QueuedVerification {
    limiter: Arc<KeyVerificationLimiter>,
    usage: Arc<SubjectUsage>,
    asked_by: AskedBy,
    _places: [OwnedSemaphorePermit; 2],
}

/// A verification under way; dropping it lets the next one begin.
#[derive(Debug)]
pub(super) struct RunningVerification {
    _places: [OwnedSemaphorePermit; 2],
}

/// Who wants a key verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyAsker {
    /// The partner whose key it is: by another pair of the stream, or from an address from which it
    /// authenticated before. Or a server inside.
    Known,
    /// Anybody, from this network.
    Stranger(IpAddr),
}

/// What is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum AskedBy {
    Gateway,
    Known,
    /// A stranger, about a domain that is listed.
    StrangerListed,
    /// A stranger, about one of endlessly many.
    StrangerMadeUp,
}

/// Who is asked for: what one bound counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VerificationSubject {
    /// The partner object's name, or a gateway's domain.
    name: String,
    asked_by: AskedBy,
    /// A stranger's.
    network: Option<IpAddr>,
    /// The domain is one of endlessly many that the object covers.
    is_made_up: bool,
    a_minute: usize,
}

impl VerificationSubject {
    pub(super) fn of(
        config: &ActiveConfig,
        side: Side,
        domain: &DomainName,
        asker: KeyAsker,
    ) -> Self {
        let own = config.document.domains.len();
        match (side, config.partner(domain)) {
            (Side::Partner, Some(partner)) => {
                let is_made_up = !partner.domains.iter().any(
                    |pattern| matches!(pattern, DomainPattern::Exact(exact) if exact == domain),
                );
                let (asked_by, network) = match asker {
                    KeyAsker::Known => (AskedBy::Known, None),
                    KeyAsker::Stranger(network) if is_made_up => {
                        (AskedBy::StrangerMadeUp, Some(network))
                    }
                    KeyAsker::Stranger(network) => (AskedBy::StrangerListed, Some(network)),
                };
                Self {
                    name: partner.name.clone(),
                    asked_by,
                    network,
                    is_made_up,
                    a_minute: (2 * own * partner.domains.len()).clamp(A_MINUTE, MOST_A_MINUTE),
                }
            }
            // An own domain's gateway: as many as are configured, each of which is asked by itself.
            (Side::Gateway, _) | (Side::Partner, None) => Self {
                name: domain.as_str().to_owned(),
                asked_by: AskedBy::Gateway,
                network: None,
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

impl VerificationPlaces {
    fn new(running: usize) -> Self {
        Self {
            running: Arc::new(Semaphore::new(running)),
            waiting: Arc::new(Semaphore::new(WAITING)),
        }
    }
}

impl Default for SubjectUsage {
    fn default() -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self {
            running: places(RUNNING_OF_SUBJECT),
            first: places(1),
            waiting: places(WAITING_OF_SUBJECT),
            waiting_always: places(WAITING_ALWAYS),
            begun: Mutex::default(),
            tried_again: Mutex::default(),
        }
    }
}

impl Default for KeyVerificationLimiter {
    fn default() -> Self {
        Self {
            known: VerificationPlaces::new(RUNNING),
            strangers: VerificationPlaces::new(RUNNING_APART),
            gateways: VerificationPlaces::new(RUNNING_APART),
            made_up: Mutex::default(),
            subjects: Cache::builder().time_to_idle(2 * MINUTE).build(),
            failed: Cache::builder()
                .time_to_live(FAILED)
                .max_capacity(FAILED_REMEMBERED)
                .build(),
            reached: Cache::builder()
                .time_to_live(MINUTE)
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
        self.reached.invalidate(&domain);
        self.failed.insert(domain, failure);
    }

    /// The server of this domain has answered.
    pub(super) fn note_answer(&self, domain: &DomainName) {
        if self.failed.contains_key(domain) {
            self.failed.invalidate(domain);
            self.reached.insert(domain.clone(), ());
        }
    }

    /// Whether a server that could not be asked for `failure` is tried again now: once in [`FAILED`],
    /// however many wait for it, until it has answered.
    pub(super) fn may_try_again(&self, domain: &DomainName, failure: Unavailable) -> bool {
        self.reached.contains_key(domain)
            || self
                .failed
                .entry_by_ref(domain)
                .or_insert(failure)
                .is_fresh()
    }

    /// A place in the queue, or why there is none.
    pub(super) fn enter(
        self: &Arc<Self>,
        subject: &VerificationSubject,
        now: Instant,
    ) -> Option<QueuedVerification> {
        let key = (subject.name.clone(), subject.asked_by);
        let usage = self.subjects.get_with(key, Arc::default);
        let own = Arc::clone(&usage.waiting).try_acquire_owned().ok()?;
        let shared = &self.places(subject.asked_by).waiting;
        let always = Arc::clone(&usage.waiting_always).try_acquire_owned();
        let place = always
            .or_else(|_| Arc::clone(shared).try_acquire_owned())
            .ok()?;
        let queued = QueuedVerification {
            limiter: Arc::clone(self),
            usage,
            asked_by: subject.asked_by,
            _places: [own, place],
        };
        queued.begin(subject, now).then_some(queued)
    }

    fn places(&self, asked_by: AskedBy) -> &VerificationPlaces {
        match asked_by {
            AskedBy::Gateway => &self.gateways,
            AskedBy::Known => &self.known,
            AskedBy::StrangerListed | AskedBy::StrangerMadeUp => &self.strangers,
        }
    }
}

impl QueuedVerification {
    /// Whether the question may begin within this minute; counts it where it may.
    fn begin(&self, subject: &VerificationSubject, now: Instant) -> bool {
        let mut begun = self.usage.begun.lock();
        if !begun.begin(subject.a_minute, subject.network, now) {
            return false;
        }
        let own = begun.begun.len();
        drop(begun);
        subject.asked_by != AskedBy::StrangerMadeUp
            || self
                .limiter
                .made_up
                .lock()
                .begin(A_MINUTE_OF_MADE_UP, None, now)
            || own <= A_MINUTE_ALWAYS
    }

    /// Whether the question may be asked once more within this minute. What is asked again takes nothing
    /// from keys that come.
    pub(super) fn again(&self, subject: &VerificationSubject, now: Instant) -> bool {
        let mut again = self.usage.tried_again.lock();
        again.begin(subject.a_minute, None, now)
    }

    /// Waits until it is this one's turn; in order, within the subject.
    pub(super) async fn turn(&self) -> RunningVerification {
        let never = "the semaphore is never closed";
        let own = Arc::clone(&self.usage.running).acquire_owned();
        let own = own.await.expect(never);
        let shared = &self.limiter.places(self.asked_by).running;
        let place = tokio::select! {
            biased;
            first = Arc::clone(&self.usage.first).acquire_owned() => first,
            shared = Arc::clone(shared).acquire_owned() => shared,
        };
        RunningVerification {
            _places: [own, place.expect(never)],
        }
    }
}

#[cfg(test)]
mod tests;
