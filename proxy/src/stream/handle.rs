//! How other tasks reach a task: wake it, or tell it something.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;

use super::Command;
use crate::routing::wake::Wake;

/// The handle of a stream's task.
pub type StreamHandle = TaskHandle<Command>;

/// The handle of a task that is told `C`. Waking is cheap and never blocks.
pub struct TaskHandle<C> {
    wake: Arc<Wake>,
    told: Mutex<Told<C>>,
}

struct Told<C> {
    commands: VecDeque<C>,
    /// Nobody takes them any more.
    closed: bool,
}

impl<C> Default for TaskHandle<C> {
    fn default() -> Self {
        Self {
            wake: Arc::default(),
            told: Mutex::new(Told {
                commands: VecDeque::new(),
                closed: false,
            }),
        }
    }
}

impl<C> TaskHandle<C> {
    /// Something for this task has changed: a queue it drains, or what it may acknowledge.
    pub fn wake(&self) {
        self.wake.wake();
    }

    /// What queues and trackers hold of it.
    #[must_use]
    pub fn waker(&self) -> &Arc<Wake> {
        &self.wake
    }

    /// Tells the task something; it is lost where the task has ended, `false` then.
    pub fn tell(&self, command: C) -> bool {
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
    pub fn told(&self) -> Option<C> {
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

    /// Whether the task has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.told.lock().closed
    }

    /// The task has ended: what it was told last and has not done, it will not do.
    pub fn close(&self) {
        let mut told = self.told.lock();
        told.closed = true;
        let left = std::mem::take(&mut told.commands);
        drop(told);
        drop(left);
    }
}

impl<C> std::fmt::Debug for TaskHandle<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskHandle").finish_non_exhaustive()
    }
}
