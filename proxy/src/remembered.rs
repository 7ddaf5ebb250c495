//! What is remembered for a time of names and addresses that others choose. Each partner object has a share,
//! of which the oldest goes: whoever names much forgets what was learnt of himself, and nobody else's.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};

/// From this many entries on what is over is looked for.
const SWEPT: usize = 1024;

/// Whose share an entry takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'a> {
    /// Nobody's: the configuration lists it, and so says how many there are.
    Configuration,
    /// One of endlessly many that this partner object may have. Empty: those that belong to none.
    Object(&'a str),
}

/// Entries by key, each for a time.
#[derive(Debug)]
pub struct Remembered<K, V> {
    lifetime: Duration,
    /// Entries of one partner object at most.
    share: usize,
    entries: HashMap<K, RememberedEntry<V>>,
    /// The keys of each partner object, by age.
    shares: HashMap<Arc<str>, BTreeMap<u64, K>>,
    next: u64,
    sweep_at: usize,
}

#[derive(Debug)]
struct RememberedEntry<V> {
    noted: Instant,
    number: u64,
    object: Option<Arc<str>>,
    value: V,
}

impl<K: Clone + Eq + Hash, V> Remembered<K, V> {
    /// Each entry is remembered for `lifetime`; a partner object has `share` of them at most.
    #[must_use]
    pub fn new(lifetime: Duration, share: usize) -> Self {
        Self {
            lifetime,
            share,
            entries: HashMap::new(),
            shares: HashMap::new(),
            next: 0,
            sweep_at: SWEPT,
        }
    }

    #[must_use]
    pub fn get(&self, key: &K, now: Instant) -> Option<&V> {
        self.fresh(key, now).map(|entry| &entry.value)
    }

    /// The partner object that the entry belongs to.
    #[must_use]
    pub fn object(&self, key: &K, now: Instant) -> Option<&Arc<str>> {
        self.fresh(key, now)?.object.as_ref()
    }

    /// Remembered from now on, as the newest of its owner.
    pub fn note(&mut self, owner: Owner<'_>, key: K, value: V, now: Instant) {
        self.forget(&key);
        if self.entries.len() >= self.sweep_at {
            self.sweep(now);
        }
        let object = match owner {
            Owner::Configuration => None,
            Owner::Object(name) => Some(match self.shares.get_key_value(name) {
                Some((known, _)) => Arc::clone(known),
                None => name.into(),
            }),
        };
        let number = self.next;
        self.next += 1;
        if let Some(object) = &object {
            let own = self.shares.entry(Arc::clone(object)).or_default();
            own.insert(number, key.clone());
            if own.len() > self.share
                && let Some((_, oldest)) = own.pop_first()
            {
                self.entries.remove(&oldest);
            }
        }
        let entry = RememberedEntry {
            noted: now,
            number,
            object,
            value,
        };
        self.entries.insert(key, entry);
    }

    /// Changes what is remembered, which holds no longer by that; anew where nothing is.
    pub fn change(&mut self, owner: Owner<'_>, key: K, now: Instant, change: impl FnOnce(&mut V))
    where
        V: Default,
    {
        let lifetime = self.lifetime;
        let known = self.entries.get_mut(&key);
        if let Some(entry) = known.filter(|entry| entry.is_fresh(lifetime, now)) {
            change(&mut entry.value);
            return;
        }
        let mut value = V::default();
        change(&mut value);
        self.note(owner, key, value, now);
    }

    /// How many entries there are, those that are over counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn fresh(&self, key: &K, now: Instant) -> Option<&RememberedEntry<V>> {
        let entry = self.entries.get(key)?;
        entry.is_fresh(self.lifetime, now).then_some(entry)
    }

    fn forget(&mut self, key: &K) {
        let Some(entry) = self.entries.remove(key) else {
            return;
        };
        if let Some(object) = entry.object
            && let Some(own) = self.shares.get_mut(&object)
        {
            own.remove(&entry.number);
            if own.is_empty() {
                self.shares.remove(&object);
            }
        }
    }

    /// Forgets what is over. O(1) amortised: not again before twice as much is there.
    fn sweep(&mut self, now: Instant) {
        let lifetime = self.lifetime;
        let entries = self.entries.iter();
        let over: Vec<K> = entries
            .filter(|(_, entry)| !entry.is_fresh(lifetime, now))
            .map(|(key, _)| key.clone())
            .collect();
        for key in over {
            self.forget(&key);
        }
        self.sweep_at = SWEPT.max(2 * self.entries.len());
    }
}

impl<V> RememberedEntry<V> {
    fn is_fresh(&self, lifetime: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.noted) < lifetime
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const ONE: Owner<'_> = Owner::Object("one");

    #[test]
    fn of_one_partner_object_the_oldest_goes_and_of_others_nothing() {
        let (mut known, now) = (Remembered::new(HOUR, 10), Instant::now());
        known.note(Owner::Object("other"), u32::MAX, (), now);
        known.note(Owner::Configuration, u32::MAX - 1, (), now);
        for number in 0..5_000 {
            known.note(ONE, number, (), now);
        }
        assert_eq!(known.len(), 12);
        for (number, is_known) in [
            (u32::MAX, true),
            (u32::MAX - 1, true),
            (0, false),
            (4_989, false),
            (4_990, true),
            (4_999, true),
        ] {
            assert_eq!(known.get(&number, now).is_some(), is_known, "{number}");
        }
        // What is noted again is the newest again, and counts once.
        known.note(ONE, 4_990, (), now);
        known.note(ONE, 5_000, (), now);
        assert!(known.get(&4_990, now).is_some() && known.get(&4_991, now).is_none());
        assert_eq!(known.len(), 12);
        assert_eq!(known.object(&5_000, now).map(|name| &**name), Some("one"));
        assert_eq!(known.object(&(u32::MAX - 1), now), None);
    }

    #[test]
    fn what_is_over_is_unknown_and_leaves_no_memory() {
        let (mut known, now) = (Remembered::new(HOUR, 1 << 20), Instant::now());
        let number = u32::try_from(SWEPT).expect("small");
        for number in 0..number {
            known.note(ONE, number, number, now);
        }
        let later = now + HOUR;
        assert_eq!(known.get(&0, later), None);
        known.note(Owner::Configuration, number, 0, later);
        assert_eq!((known.len(), known.shares.len()), (1, 0));
    }

    #[test]
    fn a_change_holds_no_longer_than_what_it_changes() {
        let (mut known, now) = (Remembered::<u8, u32>::new(HOUR, 10), Instant::now());
        known.change(ONE, 1, now, |value| *value += 1);
        known.change(ONE, 1, now + HOUR / 2, |value| *value += 1);
        assert_eq!(known.get(&1, now + HOUR / 2), Some(&2));
        assert_eq!(known.get(&1, now + HOUR), None);
        known.change(ONE, 1, now + HOUR, |value| *value += 1);
        assert_eq!(known.get(&1, now + HOUR), Some(&1));
        assert_eq!(known.len(), 1);
    }
}
