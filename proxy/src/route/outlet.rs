//! How other tasks reach the task of a stream: wake it, or tell it something.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::session::Command;

/// The handle of a stream's task. Waking is cheap and never blocks.
#[derive(Default)]
pub struct Outlet {
    notify: Notify,
    commands: Mutex<VecDeque<Command>>,
    closed: AtomicBool,
}

impl Outlet {
    /// Something for this stream has changed: a queue it drains, or what it may acknowledge.
    pub fn wake(&self) {
        self.notify.notify_one();
    }

    /// Tells the stream's task something; it is lost where the stream has ended, `false` then.
    pub fn tell(&self, command: Command) -> bool {
        if self.closed.load(Ordering::Acquire) {
            return false;
        }
        self.commands.lock().push_back(command);
        self.notify.notify_one();
        true
    }

    /// What has been told since, one at a time.
    pub fn told(&self) -> Option<Command> {
        let mut commands = self.commands.lock();
        let next = commands.pop_front();
        if next.is_none() && commands.capacity() > 0 {
            // Every stream is told of a new configuration, and then nothing for long.
            *commands = VecDeque::new();
        }
        next
    }

    /// Completes after a wake; a wake before the call counts.
    pub async fn woken(&self) {
        self.notify.notified().await;
    }

    /// The stream has ended.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.commands.lock().clear();
    }
}

impl std::fmt::Debug for Outlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outlet").finish_non_exhaustive()
    }
}
