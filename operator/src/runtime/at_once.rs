//! Several calls at a time, and no more.

use std::future::Future;

use futures::{StreamExt, stream};

/// Awaits all, at most `most` at a time; what came of each, in order.
pub fn at_once<F: Future>(
    most: usize,
    calls: impl IntoIterator<Item = F>,
) -> impl Future<Output = Vec<F::Output>> {
    let calls: Vec<F> = calls.into_iter().collect();
    stream::iter(calls).buffered(most).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn no_more_than_so_many_run_at_a_time_and_the_order_stays() {
        let (running, highest) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let call = async |number: usize| {
            let now = running.fetch_add(1, Ordering::Relaxed) + 1;
            highest.fetch_max(now, Ordering::Relaxed);
            // The later ones are done sooner.
            for _ in 0..20 - number {
                tokio::task::yield_now().await;
            }
            running.fetch_sub(1, Ordering::Relaxed);
            number
        };
        let done = at_once(3, (0..20).map(call)).await;
        assert_eq!(done, (0..20).collect::<Vec<_>>());
        assert_eq!(highest.into_inner(), 3);
    }
}
