//! Consecutive stanzas of one stream for one pair, as one slice.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use bytes::Bytes;

use super::{
    acknowledgement::{AckToken, AckTracker},
    budget::Charge,
};

/// What a batch costs beside its bytes, roughly: itself, its place in a queue and in custody, its
/// allocations, the gap that it is in its sender's acknowledgements.
const OVERHEAD: usize = 384;

/// Stanzas in their order, ready to stand in one of our streams.
#[derive(Debug)]
pub struct Batch {
    bytes: Bytes,
    /// Where each stanza ends in `bytes`.
    ends: Box<[u32]>,
    /// Stanzas before this index are done with.
    settled: u32,
    receipts: Receipts,
    /// Memory held, where a queue has taken it in.
    charge: Option<Charge>,
    pub arrived: Instant,
    /// How often it has been handed to a stream.
    pub sendings: u8,
    /// Of our own making, most of all errors that answer stanzas: never answered itself.
    pub is_reply: bool,
    /// A stream ended while it was unconfirmed, over something that the peer was sent: it goes again with
    /// nothing beside it.
    pub is_suspect: bool,
}

/// What is owed to senders for the stanzas of a batch.
#[derive(Debug)]
enum Receipts {
    None,
    /// For consecutive stanzas of one stream.
    Run(AckToken),
    /// For each stanza its own, from the first that is not done with on.
    Each(VecDeque<Option<AckToken>>),
}

impl Batch {
    /// A single stanza of our own making, with the receipt of what it answers, if any.
    #[must_use]
    pub fn reply(bytes: Vec<u8>, receipt: Option<AckToken>, arrived: Instant) -> Self {
        let end = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Self {
            // Shrinks to what is used: what is counted is what is held.
            bytes: bytes.into_boxed_slice().into(),
            ends: Box::new([end]),
            settled: 0,
            receipts: receipt.map_or(Receipts::None, Receipts::Run),
            charge: None,
            arrived,
            sendings: 0,
            is_reply: true,
            is_suspect: false,
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
        let receipts = match &self.receipts {
            Receipts::None | Receipts::Run(_) => 0,
            Receipts::Each(each) => each.capacity() * size_of::<Option<AckToken>>(),
        };
        self.bytes.len() + self.ends.len() * size_of::<u32>() + receipts + OVERHEAD
    }

    /// A queue has taken it in: what it holds counts there from here on, and nowhere else.
    pub(super) fn charge(&mut self, charge: impl FnOnce(usize) -> Charge) {
        self.charge = Some(charge(self.held()));
    }

    /// Whoever has it out of its queue holds so many bytes for it beside: they count there too.
    pub fn charge_beside(&mut self, bytes: usize) {
        let held = self.held() + bytes;
        if let Some(charge) = &mut self.charge {
            charge.raise_to(held);
        }
    }

    /// Bytes of its largest stanza.
    #[must_use]
    pub fn largest(&self) -> usize {
        self.sizes().max().unwrap_or_default()
    }

    /// Bytes of each stanza that is not settled yet.
    pub fn sizes(&self) -> impl Iterator<Item = usize> {
        let mut start = self.start(self.settled);
        self.ends[self.settled as usize..].iter().map(move |end| {
            let from = std::mem::replace(&mut start, *end as usize);
            *end as usize - from
        })
    }

    /// The same stanzas, each a batch of its own.
    pub fn split(mut self) -> impl Iterator<Item = Self> {
        let (arrived, sendings, is_reply) = (self.arrived, self.sendings, self.is_reply);
        let is_suspect = self.is_suspect;
        std::iter::from_fn(move || self.take_first()).map(move |(bytes, receipt)| {
            let mut part = Self::reply(bytes.to_vec(), receipt, arrived);
            part.sendings = sendings;
            part.is_reply = is_reply;
            part.is_suspect = is_suspect;
            part
        })
    }

    /// The first `count` unsettled stanzas are taken care of.
    pub fn settle_first(&mut self, count: u32) {
        let count = count.min(self.count());
        self.settled += count;
        match &mut self.receipts {
            Receipts::None => {}
            Receipts::Run(receipt) => receipt.settle_first(count),
            Receipts::Each(each) => each
                .drain(..each.len().min(count as usize))
                .flatten()
                .for_each(AckToken::settle),
        }
    }

    /// All of it is taken care of.
    pub fn settle(mut self) {
        self.settle_first(self.count());
    }

    /// Neither delivered nor answered, and nobody has it.
    pub fn lose(self) {
        match self.receipts {
            Receipts::None => {}
            Receipts::Run(receipt) => receipt.lose(),
            Receipts::Each(each) => each.into_iter().flatten().for_each(AckToken::lose),
        }
    }

    /// Neither delivered nor answered: the senders that are owed something have their stanzas still. How
    /// many nobody is owed anything for: those are gone.
    pub fn give_back(self) -> u32 {
        let count = self.count();
        match self.receipts {
            Receipts::None => count,
            Receipts::Run(receipt) => {
                receipt.give_back();
                0
            }
            Receipts::Each(each) => {
                let owed = each.into_iter().flatten();
                let given = owed.map(AckToken::give_back).count();
                count.saturating_sub(u32::try_from(given).unwrap_or(u32::MAX))
            }
        }
    }

    /// Whether senders count on it that its stanzas are acknowledged.
    #[must_use]
    pub fn is_owed(&self) -> bool {
        !matches!(self.receipts, Receipts::None)
    }

    /// Takes out the first unsettled stanza with the receipt owed for it: who takes it settles it.
    pub fn take_first(&mut self) -> Option<(Bytes, Option<AckToken>)> {
        if self.count() == 0 {
            return None;
        }
        let bytes = self
            .bytes
            .slice(self.start(self.settled)..self.ends[self.settled as usize] as usize);
        self.settled += 1;
        let receipt = match &mut self.receipts {
            Receipts::None => None,
            Receipts::Run(receipt) => receipt.take_first(),
            Receipts::Each(each) => each.pop_front().flatten(),
        };
        Some((bytes, receipt))
    }
}

/// Collects replies of our own, with what is owed for what each answers.
#[derive(Debug, Default)]
pub struct ReplyBuilder {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    receipts: VecDeque<Option<AckToken>>,
}

impl ReplyBuilder {
    /// Bytes collected so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// One more reply, written by `write`.
    pub fn add(&mut self, receipt: Option<AckToken>, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends
            .push(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX));
        self.receipts.push_back(receipt);
    }

    /// All of them in one batch, without room to spare.
    #[must_use]
    pub fn finish(mut self, arrived: Instant) -> Option<Batch> {
        if self.ends.is_empty() {
            return None;
        }
        self.receipts.shrink_to_fit();
        Some(Batch {
            bytes: self.bytes.into_boxed_slice().into(),
            ends: self.ends.into_boxed_slice(),
            settled: 0,
            receipts: Receipts::Each(self.receipts),
            charge: None,
            arrived,
            sendings: 0,
            is_reply: true,
            is_suspect: false,
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
        let receipts = ledger.map_or(Receipts::None, |ledger| {
            Receipts::Run(AckToken {
                ledger: Arc::clone(ledger),
                first: self.first,
                count,
            })
        });
        Some(Batch {
            // Shrinks to what is used: a queued slice pins nothing else.
            bytes: bytes.into_boxed_slice().into(),
            ends: ends.into_boxed_slice(),
            settled: 0,
            receipts,
            charge: None,
            arrived,
            sendings: 0,
            is_reply: false,
            is_suspect: false,
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
        let rest: Vec<_> = std::iter::from_fn(|| batch.take_first()).collect();
        assert_eq!(&rest[0].0[..], b"<bb/>");
        assert_eq!(&rest[1].0[..], b"<c/>");
        for (_, receipt) in rest.into_iter().rev() {
            receipt.expect("custody").settle();
        }
        assert_eq!(ledger.settled(), 3);
    }

    #[test]
    fn replies_in_one_batch_settle_each_what_it_answers() {
        let ledger = Arc::new(AckTracker::new(Arc::default()));
        let token = |first| AckToken {
            ledger: Arc::clone(&ledger),
            first,
            count: 1,
        };
        let mut replies = ReplyBuilder::default();
        // The stanza between them was never answered.
        for first in [0, 2] {
            replies.add(Some(token(first)), |out| out.extend_from_slice(b"<no/>"));
        }
        replies.add(None, |out| out.extend_from_slice(b"<no/>"));
        let mut batch = replies.finish(Instant::now()).expect("three");
        assert_eq!((batch.count(), &batch.unsettled()[..5]), (3, &b"<no/>"[..]));
        batch.settle_first(1);
        assert_eq!(ledger.settled(), 1);
        token(1).settle();
        batch.settle();
        assert_eq!(ledger.settled(), 3);
    }
}
