//! The last people who wrote to each other on a stream, with what policy found of their addresses and whether
//! a presence between them was noted: most stanzas have the addresses of one of those before them, byte by byte.
//!
//! Remembers the text alone; whether what was found still holds is policy's to say, and whether the pair may
//! still be carried the stream's.

use std::{cell::Cell, hash::BuildHasher};

use foldhash::fast::RandomState;

use crate::{
    policy::{PassedBefore, ResolvedPeople},
    presence::tracker::NotedPresence,
    same_bytes::are_same,
};

/// Most that are remembered.
const PLACES: usize = 16;

/// Most bytes of two addresses: who has longer ones is looked at each time.
const MAX_BYTES: usize = 168;

/// What is remembered of two people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Which pair they belong to, by its number among those that the stream carries.
    pub pair: usize,
    pub people: ResolvedPeople,
    /// The first was last seen available to the second.
    pub presence: Option<NotedPresence>,
    /// What became of the last stanza between them that was judged.
    pub passed: Option<PassedBefore>,
}

/// Where two people are remembered: until another is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeenAt(u8);

/// At most 4 KiB, which only a stream has on which people write.
#[derive(Debug, Default)]
pub(super) struct SeenPeople(Option<Box<Places>>);

#[derive(Debug)]
struct Places {
    hasher: RandomState,
    places: [SeenPlace; PLACES],
    /// The place of those found last.
    last: Cell<u8>,
}

#[derive(Clone, Copy, Debug)]
struct SeenPlace {
    seen: Option<Seen>,
    /// Of whom was seen last and is not remembered yet: whoever is seen once drives nobody out.
    candidate: u32,
    from: u8,
    length: u8,
    text: [u8; MAX_BYTES],
}

impl SeenPeople {
    /// Where these two addresses are remembered, as they stand. Not what of them: to copy that costs more than to look.
    #[inline]
    pub(super) fn find(&self, from: &str, to: &str) -> Option<SeenAt> {
        let seen = self.0.as_deref()?;
        // People write several times in a row.
        let last = seen.last.get();
        if seen.places[usize::from(last)].is_of(from, to) {
            return Some(SeenAt(last));
        }
        let (at, _) = seen.place_of(from, to);
        if !seen.places[at].is_of(from, to) {
            return None;
        }
        let at = u8::try_from(at).unwrap_or_default();
        seen.last.set(at);
        Some(SeenAt(at))
    }

    /// What is remembered there.
    #[inline]
    pub(super) fn at(&self, at: SeenAt) -> Option<&Seen> {
        self.0
            .as_deref()?
            .places
            .get(usize::from(at.0))?
            .seen
            .as_ref()
    }

    #[inline]
    pub(super) fn at_mut(&mut self, at: SeenAt) -> Option<&mut Seen> {
        let places = &mut self.0.as_deref_mut()?.places;
        places.get_mut(usize::from(at.0))?.seen.as_mut()
    }

    /// They are remembered once they are seen twice, nobody else of their place in between.
    pub(super) fn note(&mut self, from: &str, to: &str, seen_now: Seen) {
        let length = from.len() + to.len();
        let (Ok(from_bytes), Ok(bytes)) = (from.len().try_into(), length.try_into()) else {
            return;
        };
        if length > MAX_BYTES {
            return;
        }
        let seen = self.0.get_or_insert_default();
        let (at, tag) = seen.place_of(from, to);
        let place = &mut seen.places[at];
        if place.candidate != tag {
            place.candidate = tag;
            return;
        }
        place.seen = Some(seen_now);
        (place.from, place.length) = (from_bytes, bytes);
        let (first, second) = place.text[..length].split_at_mut(from.len());
        first.copy_from_slice(from.as_bytes());
        second.copy_from_slice(to.as_bytes());
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.0.as_deref().map_or(0, size_of_val)
    }

    /// Forgets all, and holds no memory.
    pub(super) fn release(&mut self) {
        self.0 = None;
    }
}

impl Places {
    /// The place of two addresses, and by what they are told from others of it.
    #[inline]
    fn place_of(&self, from: &str, to: &str) -> (usize, u32) {
        let hash = self.hasher.hash_one((from, to));
        let [place, tag @ .., _, _, _] = hash.to_le_bytes();
        // Never 0, which stands for nobody.
        (usize::from(place) % PLACES, u32::from_le_bytes(tag) | 1)
    }
}

impl SeenPlace {
    #[inline]
    fn is_of(&self, from: &str, to: &str) -> bool {
        // Of nobody where nobody is remembered: no address is empty.
        let (written_from, written_to) = self.text[..self.length.into()].split_at(self.from.into());
        are_same(written_from, from.as_bytes()) && are_same(written_to, to.as_bytes())
    }
}

impl Default for Places {
    fn default() -> Self {
        let nobody = SeenPlace {
            seen: None,
            candidate: 0,
            from: 0,
            length: 0,
            text: [0; MAX_BYTES],
        };
        Self {
            hasher: RandomState::default(),
            places: [nobody; PLACES],
            last: Cell::new(0),
        }
    }
}
