//! How other tasks reach the task of a stream: wake it, or tell it something.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;

use super::Command;
use crate::routing::wake::Wake;

/// The handle of a stream's task. Waking is cheap and never blocks.
#[derive(Default)]
pub struct StreamHandle {
    wake: Arc<Wake>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    commands: VecDeque<Command>,
    /// Nobody takes them any more.
    closed: bool,
}

impl StreamHandle {
    /// Something for this stream has changed: a queue it drains, or what it may acknowledge.
    pub fn wake(&self) {
        self.wake.wake();
    }

    /// What queues and trackers hold of it.
    #[must_use]
    pub fn waker(&self) -> &Arc<Wake> {
        &self.wake
    }

    /// Tells the stream's task something; it is lost where the stream has ended, `false` then.
    pub fn tell(&self, command: Command) -> bool {
        let mut told = self.told.lock();
        if told.closed {
            return false;
        }
        told.commands.push_back(command);
        drop(told);
        self.wake.wake();
        true
    }

    /// What has been told since, one at a time.
    pub fn told(&self) -> Option<Command> {
        let commands = &mut self.told.lock().commands;
        let next = commands.pop_front();
        if next.is_none() && commands.capacity() > 0 {
            // Every stream is told of a new configuration, and then nothing for long.
            *commands = VecDeque::new();
        }
        next
    }

    /// Completes after a wake; a wake before the call counts.
    pub async fn woken(&self) {
        self.wake.woken().await;
    }

    /// Whether the stream has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.told.lock().closed
    }

    /// The stream has ended: what it was told last and has not done, it will not do.
    pub fn close(&self) {
        let mut told = self.told.lock();
        told.closed = true;
        let left = std::mem::take(&mut told.commands);
        drop(told);
        drop(left);
    }
}

impl std::fmt::Debug for StreamHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamHandle").finish_non_exhaustive()
    }
}
