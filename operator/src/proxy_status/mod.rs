//! What pods say of themselves: their `/status` is read every few seconds, and merged by pool.
//!
//! Facts, not verdicts: what a partner's or a pool's status makes of them is decided there. Nothing
//! here is read back from a status.

pub mod merge;
pub mod model;
pub mod ownership;
pub mod poll;

use std::collections::BTreeMap;

use jiff::Timestamp;

pub use merge::{Attempt, GatewayFacts, PartnerFacts, PoolFacts};
pub use poll::{Poller, Reports};

/// Label of a pod that names its pool.
pub const POOL_LABEL: &str = "xmpp-edge.dev/pool";

/// What the ready pods of a pool say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolReport {
    /// The ready pods, by name.
    pub pods: BTreeMap<String, PodReport>,
}

/// What one ready pod says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodReport {
    /// Its newest answer; `None` before the first.
    pub status: Option<model::ProxyStatus>,
    /// Why it does not answer, and since when.
    pub unreachable: Option<(Timestamp, String)>,
}

/// How far a pool's pods are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// No pod is ready.
    NoPod,
    /// Not all have answered yet.
    Unknown,
    /// A pod does not answer.
    Unreachable { pod: String, error: String },
    /// Every ready pod has loaded this generation or a newer one.
    All(u64),
}

impl PoolReport {
    /// The generation that every ready pod has loaded.
    #[must_use]
    pub fn loaded(&self) -> Loaded {
        let mut least = None;
        for (pod, report) in &self.pods {
            match (&report.status, &report.unreachable) {
                (Some(status), _) => {
                    let generation = status.config.generation;
                    least = Some(least.map_or(generation, |least: u64| least.min(generation)));
                }
                (None, Some((_, error))) => {
                    return Loaded::Unreachable {
                        pod: pod.clone(),
                        error: error.clone(),
                    };
                }
                (None, None) => return Loaded::Unknown,
            }
        }
        least.map_or(Loaded::NoPod, Loaded::All)
    }

    /// Whether every ready pod has answered at least once.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.pods.values().all(|report| report.status.is_some())
    }

    /// Ready pods that have loaded `generation` or a newer one.
    #[must_use]
    pub fn in_sync(&self, generation: u64) -> usize {
        let answers = self
            .pods
            .values()
            .filter_map(|report| report.status.as_ref());
        answers
            .filter(|status| status.config.generation >= generation)
            .count()
    }

    /// The pods that refused a configuration, with what they said.
    pub fn rejected(&self) -> impl Iterator<Item = (&str, &model::Rejected)> {
        self.pods.iter().filter_map(|(pod, report)| {
            let rejected = report.status.as_ref()?.config.rejected.as_ref()?;
            Some((pod.as_str(), rejected))
        })
    }
}
