//! What pods say of themselves: their `/status` is read every few seconds, and merged by pool.
//!
//! Facts, not verdicts: what a partner's or a pool's status makes of them is decided there. Nothing
//! here is read back from a status.

pub mod border;
pub mod documents;
pub mod held;
#[cfg(test)]
mod hostile;
pub mod merge;
pub mod model;
pub mod ownership;
pub mod pod_tls;
pub mod poll;
pub mod question;
pub mod sidecar_pods;
pub mod sidecars;

use std::collections::BTreeMap;

use jiff::Timestamp;
use xmpp_edge_crds::edge_config::Version;

pub use documents::WrittenDocuments;
pub use merge::{Attempt, GatewayFacts, PartnerFacts, PoolFacts};
pub use poll::{Poller, Reports};
pub use sidecar_pods::SidecarPods;
pub use sidecars::SidecarFacts;

/// Label of a pod that names its pool.
pub const POOL_LABEL: &str = "xmpp-edge.dev/pool";

/// What the ready pods of a pool say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolReport {
    /// The ready pods, by name.
    pub pods: BTreeMap<String, PodReport>,
    /// The documents that they may have: others count as none.
    pub written: WrittenDocuments,
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
                    let generation = self.generation(&status.config);
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

    /// The generation that a pod has loaded; 0 where it has another document of that number than was
    /// written. A proxy of a version that tells no hash is believed the number.
    fn generation(&self, config: &model::Config) -> u64 {
        let generation = config.generation;
        match &config.sha256 {
            Some(sha256) if !self.written.has(generation, sha256) => 0,
            _ => generation,
        }
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
            .filter(|status| self.generation(&status.config) >= generation)
            .count()
    }

    /// A ready pod that does not read documents of `version`, or has not said yet, in words.
    #[must_use]
    pub fn before(&self, version: Version) -> Option<String> {
        self.pods.iter().find_map(|(pod, report)| {
            let Some(status) = &report.status else {
                return Some(format!("pod {pod} has not said yet which it reads"));
            };
            let reads = status.config.reads;
            let is_older = reads.is_none_or(|reads| reads < version);
            is_older.then(|| format!("pod {pod} is of version {}", status.version))
        })
    }

    /// The pods that refused a configuration, with what they said.
    pub fn rejected(&self) -> impl Iterator<Item = (&str, &model::Rejected)> {
        self.pods.iter().filter_map(|(pod, report)| {
            let rejected = report.status.as_ref()?.config.rejected.as_ref()?;
            Some((pod.as_str(), rejected))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn a_number_that_comes_again_with_other_content_is_not_believed() {
        let mut report = PoolReport::default();
        report.written.note(40, "forty");
        report.written.note(41, "forty-one");
        for (generation, sha256, expected) in [
            (41, json!("forty-one"), 41),
            (40, json!("forty"), 40),
            // As a backup brings it back.
            (41, json!("another"), 0),
            (41, json!("forty"), 0),
            (99, json!("forty-one"), 0),
            // A proxy of a version that tells no hash.
            (41, json!(null), 41),
        ] {
            let status = json!({"pool": "hq", "version": "0", "config": {"generation": generation,
                "sha256": sha256, "loadedTime": "2026-01-01T00:00:00Z"}});
            let pod = PodReport {
                status: Some(serde_json::from_value(status).unwrap()),
                unreachable: None,
            };
            report.pods = [("hq-1".to_owned(), pod)].into();
            assert_eq!(
                report.loaded(),
                Loaded::All(expected),
                "{generation} {sha256}"
            );
            let in_sync = usize::from(expected >= 41);
            assert_eq!(report.in_sync(41), in_sync, "{generation} {sha256}");
        }
    }
}
