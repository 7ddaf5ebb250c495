//! Who is due when: times in order, each with whose it is.

use std::{collections::BTreeSet, time::Instant};

/// In place of `before` the time of `whose` is `now`; none: nothing is due.
pub(super) fn move_due<N: Copy + Ord>(
    times: &mut BTreeSet<(Instant, N)>,
    whose: N,
    before: Option<Instant>,
    now: Option<Instant>,
) {
    if before == now {
        return;
    }
    if let Some(at) = before {
        times.remove(&(at, whose));
    }
    if let Some(at) = now {
        times.insert((at, whose));
    }
}
