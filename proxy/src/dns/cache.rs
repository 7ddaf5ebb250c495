//! What was answered, by name and type: bounded, and believed for a bounded time whatever a zone says.

use std::time::{Duration, Instant};

use hickory_proto::{
    op::Message,
    rr::{Name, RData, RecordType},
};
use moka::{Expiry, policy::EvictionPolicy, sync::Cache};

/// Entries at most; past them the one longest unused goes.
const MOST: u64 = 4096;
/// No answer is believed longer than this, whatever its TTL.
const LONGEST: Duration = Duration::from_secs(3600);
/// Nor that there is none: records that were forgotten are added within minutes (RFC 2308 section 5
/// wants one to three hours at most).
const LONGEST_NEGATIVE: Duration = Duration::from_secs(300);

/// By name and type; safe to share.
pub(super) struct DnsCache<V> {
    entries: Cache<(Name, RecordType), Entry<V>>,
}

#[derive(Clone)]
struct Entry<V> {
    value: V,
    holds: Duration,
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
        _: Instant,
    ) -> Option<Duration> {
        Some(entry.holds)
    }

    fn expire_after_update(
        &self,
        _: &(Name, RecordType),
        entry: &Entry<V>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.holds)
    }
}

impl<V: Clone + Send + Sync + 'static> Default for DnsCache<V> {
    fn default() -> Self {
        Self {
            entries: Cache::builder()
                .max_capacity(MOST)
                .eviction_policy(EvictionPolicy::lru())
                .expire_after(ByEntry)
                .build(),
        }
    }
}

impl<V: Clone + Send + Sync + 'static> DnsCache<V> {
    pub(super) fn get(&self, name: &Name, kind: RecordType) -> Option<V> {
        let entry = self.entries.get(&(name.to_lowercase(), kind))?;
        Some(entry.value)
    }

    /// Keeps `value` for its time, at most an hour, five minutes where it is that there is nothing.
    pub(super) fn put(&self, name: &Name, kind: RecordType, value: V, holds: Holds) {
        let holds = holds.bounded();
        if !holds.is_zero() {
            let entry = Entry { value, holds };
            self.entries.insert((name.to_lowercase(), kind), entry);
        }
    }

    pub(super) fn forget(&self, name: &Name, kind: RecordType) {
        self.entries.invalidate(&(name.to_lowercase(), kind));
    }

    pub(super) fn forget_all(&self) {
        self.entries.invalidate_all();
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

    fn name(text: &str) -> Name {
        Name::from_ascii(text).expect("a name")
    }

    #[test]
    fn what_has_no_time_to_live_is_not_kept() {
        let cache = DnsCache::default();
        let (a, srv) = (RecordType::A, RecordType::SRV);
        cache.put(&name("x"), a, 1, Holds::Records(Duration::ZERO));
        assert_eq!(cache.get(&name("x"), a), None);
        cache.put(&name("x"), a, 1, Holds::Records(Duration::from_secs(60)));
        assert_eq!(cache.get(&name("X"), a), Some(1));
        assert_eq!(cache.get(&name("x"), srv), None);
        cache.forget(&name("X"), a);
        assert_eq!(cache.get(&name("x"), a), None);
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
