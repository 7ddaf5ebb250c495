//! Sizes of what was delivered by being written: where the peer then ends the stream over a size, nothing of
//! it is in custody any more, and the limit is learned all the same.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::blame::{Blame, LARGE};
use crate::{
    routing::{batch::Batch, route::Route},
    stream::peer_memory::LEAST_BYTES,
};

/// A stream that ends so long after a stanza was written does not end over it.
const OF_LATE: Duration = Duration::from_secs(10);

/// The largest stanza of late, and the largest that was taken well.
#[derive(Debug, Default)]
pub(super) struct WrittenSizes {
    largest: Option<WrittenStanza>,
    taken: usize,
}

#[derive(Debug)]
struct WrittenStanza {
    route: Arc<Route>,
    bytes: usize,
    written: Instant,
    /// Of the others of late.
    next: usize,
}

impl WrittenSizes {
    /// A batch was written whole. Costs a comparison where it is small.
    pub(super) fn note(&mut self, route: &Arc<Route>, batch: &Batch) {
        if batch.unsettled().len() > LEAST_BYTES {
            for bytes in batch.sizes().filter(|bytes| *bytes > LEAST_BYTES) {
                self.add(route, bytes, Instant::now());
            }
        }
    }

    fn add(&mut self, route: &Arc<Route>, bytes: usize, now: Instant) {
        let before = self.largest.take_if(|own| !own.is_of_late(now));
        self.taken = self.taken.max(before.map_or(0, |own| own.bytes));
        match &mut self.largest {
            Some(own) if own.bytes > bytes => own.next = own.next.max(bytes),
            other => {
                let next = other.as_ref().map_or(0, |own| own.bytes);
                *other = Some(WrittenStanza {
                    route: Arc::clone(route),
                    bytes,
                    written: now,
                    next,
                });
            }
        }
    }

    /// The stanza over whose size a stream may have ended. Where its peer could not read what it was sent, it
    /// has to be large where no other was: most of that is no matter of size.
    pub(super) fn suspect(&self, blame: Blame, now: Instant) -> Option<(Arc<Route>, usize)> {
        let own = self.largest.as_ref().filter(|own| own.is_of_late(now))?;
        let stands_out = own.bytes >= LARGE && own.bytes >= 2 * own.next;
        let may_be = own.bytes > self.taken && (blame == Blame::Size || stands_out);
        may_be.then(|| (Arc::clone(&own.route), own.bytes))
    }
}

impl WrittenStanza {
    fn is_of_late(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.written) < OF_LATE
    }
}
