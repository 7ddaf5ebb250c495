//! The tasks that a running proxy cannot do without: one that ends, however it ends, ends the process.
//!
//! A proxy whose queues nobody sweeps, or that takes no configuration any more, looks well and is not.
//! Whoever runs it starts it anew.

use std::{collections::HashMap, future::Future};

use tokio::task::{Id, JoinError, JoinSet};

/// Tasks that run until the end of the process.
#[derive(Debug, Default)]
pub(super) struct CriticalTasks {
    running: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

/// Why the process cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskFailure {
    #[error("{task} ended: {text}")]
    Panicked { task: &'static str, text: String },
    #[error("{task} ended before its time")]
    Returned { task: &'static str },
}

impl CriticalTasks {
    /// Runs `task` beside the others. It returns only once the process ends.
    pub(super) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let handle = self.running.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// The first that ends. Waits for ever where none does.
    pub(super) async fn failure(&mut self) -> TaskFailure {
        match self.running.join_next_with_id().await {
            Some(Ok((id, ()))) => TaskFailure::Returned {
                task: self.name(id),
            },
            Some(Err(error)) => self.panicked(error),
            None => std::future::pending().await,
        }
    }

    /// Waits for all that still run, after they were told to end. Answers those that panicked.
    pub(super) async fn join(mut self) -> Vec<TaskFailure> {
        let mut failures = Vec::new();
        while let Some(ended) = self.running.join_next_with_id().await {
            if let Err(error) = ended {
                failures.push(self.panicked(error));
            }
        }
        failures
    }

    fn name(&self, id: Id) -> &'static str {
        self.names.get(&id).copied().unwrap_or("a task")
    }

    fn panicked(&self, error: JoinError) -> TaskFailure {
        let task = self.name(error.id());
        let text = match error.try_into_panic() {
            Ok(payload) => panic_text(payload.as_ref()),
            Err(error) => error.to_string(),
        };
        TaskFailure::Panicked { task, text }
    }
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "it panicked".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_critical_task_that_ends_is_named_with_its_reason() {
        let mut tasks = CriticalTasks::default();
        tasks.spawn("the one that stays", std::future::pending());
        tasks.spawn("the maintenance", async { panic!("a broken invariant") });
        let failure = tasks.failure().await;
        assert_eq!(
            failure.to_string(),
            "the maintenance ended: a broken invariant"
        );
        tasks.spawn("the configuration", async {});
        let failure = tasks.failure().await;
        assert_eq!(
            failure.to_string(),
            "the configuration ended before its time"
        );
    }
}
