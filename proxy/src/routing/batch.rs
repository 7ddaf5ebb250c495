//! Consecutive stanzas of one stream for one pair, as one slice.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;

use super::acknowledgement::{AckToken, AckTracker};

/// What a batch costs beside its bytes, roughly: itself, its place in a queue, its allocation.
const OVERHEAD: usize = 160;

/// Stanzas in their order, ready to stand in one of our streams.
#[derive(Clone, Debug)]
pub struct Batch {
    bytes: Bytes,
    /// Where each stanza ends in `bytes`.
    ends: Box<[u32]>,
    /// Stanzas before this index are already settled.
    settled: u32,
    receipt: Option<AckToken>,
    pub arrived: Instant,
    /// How often it has been handed to a stream.
    pub sendings: u8,
    /// An error that answers a stanza: never answered itself.
    pub answer: bool,
}

impl Batch {
    /// A single stanza of our own making, with the receipt of what it answers, if any.
    #[must_use]
    pub fn answer(bytes: Vec<u8>, receipt: Option<AckToken>, arrived: Instant) -> Self {
        let end = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Self {
            bytes: bytes.into(),
            ends: Box::new([end]),
            settled: 0,
            receipt,
            arrived,
            sendings: 0,
            answer: true,
        }
    }

    /// The stanzas that are not settled yet.
    #[must_use]
    pub fn unsettled(&self) -> Bytes {
        self.bytes.slice(self.start(self.settled)..)
    }

    /// Stanzas from the first on that are settled.
    #[must_use]
    pub fn settled(&self) -> u32 {
        self.settled
    }

    /// Where [`Self::unsettled`] begins, in bytes from the first stanza on.
    #[must_use]
    pub fn unsettled_from(&self) -> usize {
        self.start(self.settled)
    }

    /// How many stanzas from index `next` on end at `byte`, counted as in [`Self::unsettled_from`],
    /// or before it.
    #[must_use]
    pub fn ended(&self, next: u32, byte: usize) -> u32 {
        let rest = self.ends.get(next as usize..).unwrap_or_default();
        let whole = rest.iter().take_while(|end| **end as usize <= byte).count();
        u32::try_from(whole).unwrap_or(u32::MAX)
    }

    fn start(&self, index: u32) -> usize {
        match index.checked_sub(1) {
            Some(before) => self.ends[before as usize] as usize,
            None => 0,
        }
    }

    /// How many stanzas are not settled yet.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.ends.len()).unwrap_or(u32::MAX) - self.settled
    }

    /// Memory held, in bytes.
    #[must_use]
    pub fn held(&self) -> usize {
        self.bytes.len() + self.ends.len() * 4 + OVERHEAD
    }

    /// Bytes of its largest stanza.
    #[must_use]
    pub fn largest(&self) -> usize {
        let mut start = 0;
        let mut largest = 0;
        for end in &self.ends {
            largest = largest.max(end - start);
            start = *end;
        }
        largest as usize
    }

    /// The same stanzas, each a batch of its own.
    pub fn cut(self) -> impl Iterator<Item = Self> {
        let (arrived, sendings, answer) = (self.arrived, self.sendings, self.answer);
        self.into_stanzas().map(move |(bytes, receipt)| {
            let mut part = Self::answer(bytes.to_vec(), receipt, arrived);
            part.sendings = sendings;
            part.answer = answer;
            part
        })
    }

    /// The first `count` unsettled stanzas are taken care of.
    pub fn settle_first(&mut self, count: u32) {
        let count = count.min(self.count());
        self.settled += count;
        if let Some(receipt) = &mut self.receipt {
            receipt.settle_first(count);
        }
    }

    /// All of it is taken care of.
    pub fn settle(mut self) {
        self.settle_first(self.count());
    }

    /// Each unsettled stanza with the receipt owed for it.
    pub fn into_stanzas(self) -> impl Iterator<Item = (Bytes, Option<AckToken>)> {
        (self.settled..self.settled + self.count()).map(move |index| {
            let bytes = self
                .bytes
                .slice(self.start(index)..self.ends[index as usize] as usize);
            let receipt = self
                .receipt
                .as_ref()
                .map(|receipt| receipt.single(index - self.settled));
            (bytes, receipt)
        })
    }
}

/// Collects stanzas until the pair changes or the read is over.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    first: u64,
}

impl BatchBuilder {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes collected so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether stanza number `number` of the stream follows what is here without a gap.
    #[must_use]
    pub fn continues_with(&self, number: u64) -> bool {
        self.ends.is_empty() || self.first + self.ends.len() as u64 == number
    }

    /// Room for one more stanza, written by `write`; `number` counts the stream's stanzas.
    pub fn add(&mut self, number: u64, expected: usize, write: impl FnOnce(&mut Vec<u8>)) {
        if self.ends.is_empty() {
            self.first = number;
            self.bytes.reserve(expected);
        }
        write(&mut self.bytes);
        self.ends
            .push(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX));
    }

    /// What was collected; the builder is empty after it and keeps no memory.
    pub fn take(&mut self, ledger: Option<&Arc<AckTracker>>, arrived: Instant) -> Option<Batch> {
        if self.ends.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.bytes);
        let ends = std::mem::take(&mut self.ends);
        let count = u32::try_from(ends.len()).unwrap_or(u32::MAX);
        let receipt = ledger.map(|ledger| AckToken {
            ledger: Arc::clone(ledger),
            first: self.first,
            count,
        });
        Some(Batch {
            // Shrinks to what is used: a queued slice pins nothing else.
            bytes: bytes.into_boxed_slice().into(),
            ends: ends.into_boxed_slice(),
            settled: 0,
            receipt,
            arrived,
            sendings: 0,
            answer: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_settles_from_its_front_and_keeps_the_rest() {
        let ledger = Arc::new(AckTracker::new(Arc::default()));
        let mut builder = BatchBuilder::default();
        for (number, text) in ["<a/>", "<bb/>", "<c/>"].iter().enumerate() {
            assert!(builder.continues_with(number as u64));
            builder.add(number as u64, 5, |bytes| {
                bytes.extend_from_slice(text.as_bytes())
            });
        }
        assert!(!builder.continues_with(7));
        let mut batch = builder
            .take(Some(&ledger), Instant::now())
            .expect("three stanzas");
        assert!(builder.is_empty());
        batch.settle_first(1);
        assert_eq!((ledger.settled(), batch.count()), (1, 2));
        assert_eq!(&batch.unsettled()[..], b"<bb/><c/>");
        let rest: Vec<_> = batch.into_stanzas().collect();
        assert_eq!(&rest[0].0[..], b"<bb/>");
        assert_eq!(&rest[1].0[..], b"<c/>");
        for (_, receipt) in rest.into_iter().rev() {
            receipt.expect("custody").settle();
        }
        assert_eq!(ledger.settled(), 3);
    }
}
