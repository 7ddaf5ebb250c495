//! What was in custody of a stream that is over: what goes again, what is lost, and what the peer ended the stream
//! over.

use std::{collections::HashMap, sync::Arc, time::Instant};

use super::{Blame, Piece, SendBuffer, Sent, blame::LARGE};
use crate::routing::{batch::Batch, route::Route};

/// How often a stanza may be handed to a stream beside others: once, and once more when that stream died.
const TOGETHER: u8 = 2;
/// Of what a stream had not confirmed that ended a second time without a word so many stanzas go alone: a
/// peer reads in order, and the rest need not wait for the answer to each.
const SEARCHED: usize = 256;
/// How often in all: the last time with nothing beside it, where it may be what streams end over.
const IN_ALL: u8 = 3;

/// Everything of one route that was in custody of a stream that has ended.
#[derive(Debug)]
pub struct Returned {
    pub route: Arc<Route>,
    /// Goes first on the next stream, in order.
    pub again: Vec<Batch>,
    /// Sent as often as anything is.
    pub lost: Vec<Batch>,
    /// The peer ended the stream over them.
    pub culprits: Vec<Batch>,
}

impl SendBuffer {
    /// The stream is over: everything in custody, by route, in order. It goes out once more, unless
    /// this was its second stream. Where the peer ended it over something that it was sent, or the second
    /// time without a word, what it may have read goes one stanza at a time, so that another end says which
    /// it was; one that is large where no other is does not go again at all.
    pub fn hand_back(&mut self, blame: Blame, now: Instant) -> Vec<Returned> {
        let mut by_route: Vec<Returned> = Vec::new();
        let mut places: HashMap<*const Route, usize> = HashMap::new();
        // The first that is not written whole may have been read in part, where a part of it was written.
        let read = self.written() + usize::from(self.has_begun_the_next());
        let too_large = match blame {
            Blame::Size => self.too_large(read),
            Blame::Nothing | Blame::Unsaid | Blame::Content | Blame::Unread => None,
        };
        let mut searched = 0;
        for (
            index,
            Sent {
                route, mut batch, ..
            },
        ) in self.sent.drain(..).enumerate()
        {
            let at = *places.entry(Arc::as_ptr(&route)).or_insert_with(|| {
                by_route.push(Returned {
                    route,
                    again: Vec::new(),
                    lost: Vec::new(),
                    culprits: Vec::new(),
                });
                by_route.len() - 1
            });
            let own = &mut by_route[at];
            batch.arrived = now;
            if index >= read {
                // The peer has seen nothing of it.
                batch.sendings -= 1;
                own.again.push(batch);
                continue;
            }
            let (was_alone, sendings) = (batch.is_suspect, batch.sendings);
            let blamed = match blame {
                Blame::Nothing => false,
                // Once may be a restart. What went alone has been found, or had its last time.
                Blame::Unsaid => !was_alone && sendings == TOGETHER && searched < SEARCHED,
                Blame::Content | Blame::Unread | Blame::Size => true,
            };
            let goes_on = blame == Blame::Unsaid && searched >= SEARCHED;
            let most = if was_alone || goes_on {
                IN_ALL
            } else {
                TOGETHER
            };
            if !blamed && sendings < most {
                own.again.push(batch);
            } else if !blamed || sendings > IN_ALL {
                own.lost.push(batch);
            } else {
                for mut stanza in own.route.split(batch) {
                    searched += 1;
                    let is_too_large = too_large.is_some_and(|least| stanza.largest() >= least);
                    stanza.is_suspect = true;
                    if was_alone || is_too_large {
                        own.culprits.push(stanza);
                    } else if sendings < IN_ALL {
                        own.again.push(stanza);
                    } else {
                        own.lost.push(stanza);
                    }
                }
            }
        }
        self.pieces.clear();
        self.ahead = 0;
        self.own_ahead = 0;
        self.unwritten = 0;
        self.uncounted = 0;
        self.errors = 0;
        by_route
    }

    /// The size of the one stanza, of the first `read` batches, that is large and twice as large as any
    /// other.
    fn too_large(&self, read: usize) -> Option<usize> {
        let mut sizes: Vec<_> = self
            .sent
            .iter()
            .take(read)
            .flat_map(|sent| sent.batch.sizes())
            .collect();
        sizes.sort_unstable();
        let largest = sizes.pop()?;
        let next = sizes.pop().unwrap_or_default();
        (largest >= LARGE && largest >= 2 * next).then_some(largest)
    }

    /// Whether something was written of the first batch that is not written whole.
    fn has_begun_the_next(&self) -> bool {
        let at = self.pieces.iter().find_map(|piece| match piece {
            Piece::Control(_) => None,
            Piece::Stanzas { at, .. } => Some(*at),
        });
        let next = self.sent.get(self.written());
        next.zip(at)
            .is_some_and(|(next, at)| at > next.batch.unsettled_from())
    }
}
