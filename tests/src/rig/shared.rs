//! A rig that starts with the first test that needs it, on a runtime that outlives each test.

use std::sync::{Arc, OnceLock, Weak};

use anyhow::Result;
use tokio::sync::Mutex;

use super::{Plan, Rig, Scene};
use crate::{runtime::runtime, wait};

/// A rig that a file's tests share.
pub struct Shared {
    plan: Plan,
    running: OnceLock<Mutex<Weak<Rig>>>,
}

impl Shared {
    /// Nothing starts before the first test.
    pub const fn new(plan: Plan) -> Self {
        Self {
            plan,
            running: OnceLock::new(),
        }
    }

    async fn rig(&self) -> Result<Arc<Rig>> {
        let running = self.running.get_or_init(|| Mutex::new(Weak::new()));
        let mut running = running.lock().await;
        if let Some(rig) = running.upgrade() {
            return Ok(rig);
        }
        let rig = Arc::new(Rig::start(self.plan).await?);
        *running = Arc::downgrade(&rig);
        Ok(rig)
    }

    /// Runs one test in its scene.
    ///
    /// # Panics
    /// When the test fails; shows what the edge logged about its domain.
    pub fn test(&self, number: u8, body: impl AsyncFnOnce(&Scene) -> Result<()>) {
        assert!(number <= self.plan.tests, "the plan has fewer partners");
        runtime().block_on(async {
            let rig = self.rig().await.expect("the rig starts");
            let scene = Scene::new(Arc::clone(&rig), number)
                .await
                .expect("the scene is set");
            let outcome = tokio::time::timeout(wait::GENEROUS * 3, body(&scene)).await;
            let failure = match outcome {
                Ok(Ok(())) => return,
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => "the test takes too long".to_owned(),
            };
            let log = rig.edge.lock().await.log();
            let about: Vec<_> = log
                .lines()
                .filter(|line| line.contains(&scene.domain) || line.contains("panic"))
                .collect();
            panic!(
                "{failure}\n--- edge about {} ---\n{}",
                scene.domain,
                about.join("\n")
            );
        });
    }
}
