//! What was found out, for as long as it holds.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::Message,
    rr::{Name, RData, RecordType},
};
use parking_lot::Mutex;

/// Entries at most; past them all that is out of date goes, else everything.
const MOST: usize = 4096;
/// Nothing is believed longer than this, whatever its TTL.
const LONGEST: Duration = Duration::from_secs(3600);

/// By name and type; safe to share.
pub(super) struct Cache<V> {
    entries: Mutex<HashMap<(Name, RecordType), (Instant, V)>>,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
        }
    }
}

impl<V: Clone> Cache<V> {
    pub(super) fn get(&self, name: &Name, kind: RecordType) -> Option<V> {
        let key = (name.to_lowercase(), kind);
        let entries = self.entries.lock();
        let (until, value) = entries.get(&key)?;
        (Instant::now() < *until).then(|| value.clone())
    }

    /// Keeps `value` for `ttl`, at most an hour.
    pub(super) fn put(&self, name: &Name, kind: RecordType, value: V, ttl: Duration) {
        if ttl.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut entries = self.entries.lock();
        if entries.len() >= MOST {
            entries.retain(|_, (until, _)| now < *until);
        }
        if entries.len() >= MOST {
            entries.clear();
        }
        let until = now + ttl.min(LONGEST);
        entries.insert((name.to_lowercase(), kind), (until, value));
    }
}

/// The least TTL of an answer, or of what proves that there is none (RFC 2308 section 5).
pub(super) fn time_to_live(message: &Message) -> Duration {
    let records = if message.answers.is_empty() {
        &message.authorities
    } else {
        &message.answers
    };
    let seconds = records.iter().map(|record| match &record.data {
        RData::SOA(soa) => record.ttl.min(soa.minimum),
        _ => record.ttl,
    });
    Duration::from_secs(seconds.min().unwrap_or_default().into())
}
