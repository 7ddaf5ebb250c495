//! Which namespaces are to be looked at.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

/// Namespaces to look at.
#[derive(Debug)]
pub struct Triggers {
    known: Mutex<BTreeMap<String, Arc<Notify>>>,
    fresh: mpsc::UnboundedSender<String>,
}

impl Triggers {
    /// The receiver hears once of each namespace.
    #[must_use]
    pub fn new() -> (Self, mpsc::UnboundedReceiver<String>) {
        let (fresh, receiver) = mpsc::unbounded_channel();
        let known = Mutex::default();
        (Self { known, fresh }, receiver)
    }

    /// Whether there was anything to look at before.
    pub(super) fn knows(&self, namespace: &str) -> bool {
        self.known.lock().contains_key(namespace)
    }

    /// Something changed there.
    pub fn enqueue(&self, namespace: &str) {
        let mut known = self.known.lock();
        if let Some(notify) = known.get(namespace) {
            notify.notify_one();
            return;
        }
        let notify = Arc::new(Notify::new());
        notify.notify_one();
        known.insert(namespace.to_owned(), notify);
        // Nobody listens once the process stops.
        let _ = self.fresh.send(namespace.to_owned());
    }

    /// Told at each [`Self::enqueue`].
    #[must_use]
    pub fn of(&self, namespace: &str) -> Arc<Notify> {
        let mut known = self.known.lock();
        known.entry(namespace.to_owned()).or_default().clone()
    }

    pub(super) fn enqueue_all(&self) {
        for notify in self.known.lock().values() {
            notify.notify_one();
        }
    }
}
