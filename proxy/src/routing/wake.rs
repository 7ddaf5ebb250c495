//! What a queue and a tracker of acknowledgements know of a stream: how to wake it.

use tokio::sync::Notify;

/// Wakes the task of one stream. Cheap, never blocks; compared by pointer.
#[derive(Debug, Default)]
pub struct Wake(Notify);

impl Wake {
    /// Something for this stream has changed: a queue it drains, or what it may acknowledge.
    pub fn wake(&self) {
        self.0.notify_one();
    }

    /// Completes after a wake; a wake before the call counts.
    pub async fn woken(&self) {
        self.0.notified().await;
    }
}
