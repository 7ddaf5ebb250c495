//! Tasks that are to run for as long as the process: one that ends, however, is told by name, so that
//! the process can end for it. A leader of which half goes on is worse than none.

use std::{any::Any, collections::HashMap, fmt::Display, future::pending};

use tokio::task::{Id, JoinSet};

/// Named tasks. They end with this.
#[derive(Debug, Default)]
pub struct TaskSet {
    tasks: JoinSet<Result<(), String>>,
    names: HashMap<Id, String>,
}

/// A task that ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{task} {cause}")]
pub struct TaskEnd {
    pub task: String,
    pub cause: TaskEndCause,
}

/// Why a task ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskEndCause {
    #[error("came to its end, which it never should")]
    Returned,
    #[error("failed: {0}")]
    Failed(String),
    #[error("panicked: {0}")]
    Panicked(String),
    /// By the runtime alone, as it shuts down.
    #[error("was cancelled")]
    Cancelled,
}

impl TaskSet {
    /// Starts a task that cannot fail.
    pub fn spawn(
        &mut self,
        name: impl Into<String>,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.spawn_fallible(name, async move {
            task.await;
            Ok::<_, String>(())
        });
    }

    /// Starts a task that may.
    pub fn spawn_fallible<E: Display>(
        &mut self,
        name: impl Into<String>,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let handle = self
            .tasks
            .spawn(async move { task.await.map_err(|error| error.to_string()) });
        self.names.insert(handle.id(), name.into());
    }

    /// The next task that ends; never where there is none.
    pub async fn ended(&mut self) -> TaskEnd {
        let Some(ended) = self.tasks.join_next_with_id().await else {
            return pending().await;
        };
        let (id, cause) = match ended {
            Ok((id, Ok(()))) => (id, TaskEndCause::Returned),
            Ok((id, Err(error))) => (id, TaskEndCause::Failed(error)),
            Err(error) => {
                let id = error.id();
                let cause = error
                    .try_into_panic()
                    .map_or(TaskEndCause::Cancelled, |panic| {
                        TaskEndCause::Panicked(words(panic.as_ref()))
                    });
                (id, cause)
            }
        };
        let task = self.names.remove(&id).unwrap_or_default();
        TaskEnd { task, cause }
    }

    /// Breaks all off, and returns once nothing of them runs any more.
    pub async fn shutdown(&mut self) {
        self.tasks.shutdown().await;
        self.names.clear();
    }
}

/// What `panic!` was given.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "without a message".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;

    async fn told(task: impl Future<Output = Result<(), String>> + Send + 'static) -> String {
        let mut set = TaskSet::default();
        set.spawn("the watch of pods", pending());
        set.spawn_fallible("the admin port", task);
        set.ended().await.to_string()
    }

    #[tokio::test]
    async fn a_task_that_ends_is_told_by_name_with_its_reason() {
        let came = told(async { Ok(()) }).await;
        assert_eq!(
            came,
            "the admin port came to its end, which it never should"
        );
        let failed = told(async { Err("the socket is gone".to_owned()) }).await;
        assert_eq!(failed, "the admin port failed: the socket is gone");
        let number = 7;
        let panicked = told(async move { panic!("number {number}") }).await;
        assert_eq!(panicked, "the admin port panicked: number 7");
    }

    #[tokio::test]
    async fn nothing_of_a_set_runs_once_it_was_shut_down() {
        struct Gone(Arc<AtomicBool>);
        impl Drop for Gone {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let (mut set, gone) = (TaskSet::default(), Arc::new(AtomicBool::new(false)));
        let held = Gone(gone.clone());
        let (begun, begins) = tokio::sync::oneshot::channel();
        set.spawn("a task", async move {
            let _held = held;
            let _ = begun.send(());
            pending().await
        });
        begins.await.unwrap();
        set.shutdown().await;
        assert!(gone.load(Ordering::SeqCst));
        let none = futures::poll!(std::pin::pin!(set.ended()));
        assert!(none.is_pending(), "an empty set says nothing");
    }
}
