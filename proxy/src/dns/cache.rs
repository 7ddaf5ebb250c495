//! What was answered, by name and type: bounded, and believed for a bounded time whatever a zone says.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::Message,
    rr::{Name, RData, Record, RecordType},
};
use moka::{Expiry, policy::EvictionPolicy, sync::Cache};

use super::DnsError;

/// Bytes of what is kept at most, as [`Weigh`] has them; past them what was longest unused goes. Whoever has a zone
/// says how long an answer is (64 KiB) and how many there are.
const MOST_BYTES: u64 = 4 * 1024 * 1024;
/// What an entry takes beside its value: the name, and the table's own.
const ENTRY_BYTES: u32 = 768;
/// No answer is believed longer than this, whatever its TTL.
const LONGEST: Duration = Duration::from_secs(3600);
/// Nor that there is none: records that were forgotten are added within minutes (RFC 2308 section 5
/// wants one to three hours at most).
const LONGEST_NEGATIVE: Duration = Duration::from_secs(300);
/// An answer is forgotten when it is this old, not before: who cannot be reached costs DNS a question in so long, not
/// one with each attempt.
pub(super) const LEAST_AGE: Duration = Duration::from_secs(5);

/// By name and type; safe to share. Bounded in bytes.
pub(super) struct DnsCache<V> {
    entries: Cache<(Name, RecordType), Entry<V>>,
    least_age: Duration,
}

/// Records beyond this many of one answer are left out.
pub(super) const MAX_RECORDS: usize = 32;

/// What counts of an answer: records of the type asked for, 32 at most; of SRV records those of the lowest
/// priorities, which are tried first (RFC 2782).
pub(super) fn counted(records: impl IntoIterator<Item = Record>, kind: RecordType) -> Vec<Record> {
    let records = records.into_iter();
    let mut counted: Vec<Record> = records.filter(|it| it.record_type() == kind).collect();
    counted.sort_by_key(|record| match &record.data {
        RData::SRV(srv) => srv.priority,
        _ => 0,
    });
    counted.truncate(MAX_RECORDS);
    // 4,000 of them may have come: their room goes too.
    counted.shrink_to_fit();
    counted
}

/// What a value takes in memory.
pub(super) trait Weigh {
    /// Bytes, its own and those on the heap.
    fn bytes(&self) -> usize;
}

#[derive(Clone)]
struct Entry<V> {
    value: V,
    came: Instant,
    until: Instant,
}

/// How long something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// Records: for their TTL.
    Records(Duration),
    /// That there are none: for what the zone says of that.
    Nothing(Duration),
}

struct ByEntry;

impl<V> Expiry<(Name, RecordType), Entry<V>> for ByEntry {
    fn expire_after_create(
        &self,
        _: &(Name, RecordType),
        entry: &Entry<V>,
        now: Instant,
    ) -> Option<Duration> {
        Some(entry.until.saturating_duration_since(now))
    }

    fn expire_after_update(
        &self,
        _: &(Name, RecordType),
        entry: &Entry<V>,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.until.saturating_duration_since(now))
    }
}

impl<V: Weigh + Clone + Send + Sync + 'static> Default for DnsCache<V> {
    fn default() -> Self {
        Self::forgetting_after(LEAST_AGE)
    }
}

impl<V: Weigh + Clone + Send + Sync + 'static> DnsCache<V> {
    /// With another age in place of [`LEAST_AGE`].
    pub(super) fn forgetting_after(least_age: Duration) -> Self {
        let weigh = |_: &_, entry: &Entry<V>| {
            let bytes = u32::try_from(entry.value.bytes()).unwrap_or(u32::MAX);
            bytes.saturating_add(ENTRY_BYTES)
        };
        Self {
            entries: Cache::builder()
                .weigher(weigh)
                .max_capacity(MOST_BYTES)
                .eviction_policy(EvictionPolicy::lru())
                .expire_after(ByEntry)
                .build(),
            least_age,
        }
    }

    pub(super) fn get(&self, name: &Name, kind: RecordType) -> Option<V> {
        let entry = self.entries.get(&(name.to_lowercase(), kind))?;
        Some(entry.value)
    }

    /// Keeps `value` for its time, at most an hour, five minutes where it is that there is nothing.
    pub(super) fn put(&self, name: &Name, kind: RecordType, value: V, holds: Holds) {
        let holds = holds.bounded();
        if !holds.is_zero() {
            let came = Instant::now();
            let entry = Entry {
                value,
                came,
                until: came + holds,
            };
            self.entries.insert((name.to_lowercase(), kind), entry);
        }
    }

    /// Believes what was kept no longer, or no longer than until it has its least age. Gives what it was.
    pub(super) fn forget(&self, name: &Name, kind: RecordType) -> Option<V> {
        let key = (name.to_lowercase(), kind);
        let mut entry = self.entries.get(&key)?;
        let value = entry.value.clone();
        let enough = entry.came + self.least_age;
        if enough <= Instant::now() {
            self.entries.invalidate(&key);
        } else if enough < entry.until {
            entry.until = enough;
            self.entries.insert(key, entry);
        }
        Some(value)
    }

    pub(super) fn forget_all(&self) {
        self.entries.invalidate_all();
    }

    /// Bytes that are kept.
    #[cfg(test)]
    pub(super) fn weight(&self) -> u64 {
        // It makes room in steps.
        for _ in 0..100 {
            self.entries.run_pending_tasks();
        }
        self.entries.weighted_size()
    }
}

impl Weigh for Vec<u8> {
    fn bytes(&self) -> usize {
        self.capacity()
    }
}

impl Weigh for [Record] {
    fn bytes(&self) -> usize {
        let of = |record: &Record| {
            // What a name has on the heap where it is long.
            let heap = match &record.data {
                RData::A(_) | RData::AAAA(_) => 0,
                RData::SRV(srv) => srv.target.len(),
                RData::TLSA(tlsa) => tlsa.cert_data.len(),
                // No other kind is kept as records; its length is not known.
                _ => 4096,
            };
            size_of::<Record>() + record.name.len() + heap
        };
        self.iter().map(of).sum()
    }
}

impl Weigh for Result<Arc<[Record]>, DnsError> {
    fn bytes(&self) -> usize {
        match self {
            Ok(records) => records.bytes(),
            Err(_) => 512,
        }
    }
}

impl Holds {
    /// By the least TTL of an answer, or of what proves that there is none.
    pub(super) fn of(message: &Message) -> Self {
        let is_nothing = message.answers.is_empty();
        let records = if is_nothing {
            &message.authorities
        } else {
            &message.answers
        };
        let seconds = records.iter().map(|record| match &record.data {
            RData::SOA(soa) => record.ttl.min(soa.minimum),
            _ => record.ttl,
        });
        let least = Duration::from_secs(seconds.min().unwrap_or_default().into());
        if is_nothing {
            Self::Nothing(least)
        } else {
            Self::Records(least)
        }
    }

    /// What holds only as long as both.
    pub(super) fn and(self, other: Self) -> Self {
        let least = self.bounded().min(other.bounded());
        match (self, other) {
            (Self::Records(_), Self::Records(_)) => Self::Records(least),
            _ => Self::Nothing(least),
        }
    }

    fn bounded(self) -> Duration {
        match self {
            Self::Records(time) => time.min(LONGEST),
            Self::Nothing(time) => time.min(LONGEST_NEGATIVE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_records_those_that_are_tried_first_count() {
        use hickory_proto::rr::rdata::{A, SRV};
        let record = |data| Record::from_rdata(name("x"), 60, data);
        let srv = |priority| record(RData::SRV(SRV::new(priority, 0, 1, name("y"))));
        let mut records: Vec<_> = (0..100).rev().map(srv).collect();
        records.push(record(RData::A(A([192, 0, 2, 1].into()))));
        let priorities: Vec<_> = counted(records.clone(), RecordType::SRV)
            .iter()
            .map(|record| match &record.data {
                RData::SRV(srv) => srv.priority,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(priorities, (0..32).collect::<Vec<_>>());
        assert_eq!(counted(records, RecordType::A).len(), 1);
    }

    fn name(text: &str) -> Name {
        Name::from_ascii(text).expect("a name")
    }

    fn kept(bytes: usize) -> Vec<u8> {
        vec![0; bytes]
    }

    const MINUTE: Holds = Holds::Records(Duration::from_secs(60));

    #[test]
    fn what_has_no_time_to_live_is_not_kept() {
        let cache = DnsCache::forgetting_after(Duration::ZERO);
        let (a, srv) = (RecordType::A, RecordType::SRV);
        cache.put(&name("x"), a, kept(1), Holds::Records(Duration::ZERO));
        assert_eq!(cache.get(&name("x"), a), None);
        cache.put(&name("x"), a, kept(1), MINUTE);
        assert_eq!(cache.get(&name("X"), a), Some(kept(1)));
        assert_eq!(cache.get(&name("x"), srv), None);
        assert_eq!(cache.forget(&name("X"), a), Some(kept(1)));
        assert_eq!(cache.get(&name("x"), a), None);
    }

    /// Whoever has a zone makes answers as long and as many as it likes.
    #[test]
    fn what_is_kept_is_bounded_in_bytes_whatever_zones_say() {
        let cache = DnsCache::default();
        for number in 0..200 {
            let owner = name(&format!("host{number}.stranger.example"));
            cache.put(&owner, RecordType::A, kept(65_535), MINUTE);
        }
        let weight = cache.weight();
        assert!((65_535..=MOST_BYTES).contains(&weight), "{weight}");
        for number in 0..20_000 {
            let owner = name(&format!("small{number}.stranger.example"));
            cache.put(&owner, RecordType::A, kept(0), MINUTE);
        }
        assert!(cache.weight() <= MOST_BYTES);
    }

    #[test]
    fn an_answer_is_not_asked_anew_before_its_least_age_and_not_believed_longer_either() {
        let least = Duration::from_millis(300);
        let cache = DnsCache::forgetting_after(least);
        let (a, x) = (RecordType::A, name("x"));
        let begun = Instant::now();
        cache.put(&x, a, kept(1), MINUTE);
        while cache.get(&x, a).is_some() {
            // However often that is wished.
            cache.forget(&x, a);
            assert!(begun.elapsed() < Duration::from_secs(30));
            std::thread::yield_now();
        }
        assert!(begun.elapsed() >= least);
    }

    #[test]
    fn s13_nothing_is_believed_for_long() {
        let day = Duration::from_secs(86_400);
        assert_eq!(Holds::Records(day).bounded(), LONGEST);
        assert_eq!(Holds::Nothing(day).bounded(), LONGEST_NEGATIVE);
        let both = Holds::Records(day).and(Holds::Nothing(day));
        assert_eq!(both.bounded(), LONGEST_NEGATIVE);
        let short = Duration::from_secs(7);
        assert_eq!(Holds::Nothing(short).bounded(), short);
    }
}
