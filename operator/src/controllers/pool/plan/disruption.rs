//! The PodDisruptionBudget: one pod at a time. A single replica has none: a budget could only
//! block every drain of its node.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::ResourceExt;
use xmpp_edge_crds::kinds::EdgePool;

use super::{Child, metadata, names};

/// The budget, for two replicas and more.
#[must_use]
pub fn plan(pool: &EdgePool) -> Option<Child> {
    if pool.spec.desired_replicas() < 2 {
        return None;
    }
    let name = pool.name_any();
    Some(Child::PodDisruptionBudget(Box::new(PodDisruptionBudget {
        metadata: metadata::owned(pool, names::workload(&name)),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(metadata::label_selector(&name)),
            // A pod that is not ready serves nobody, and must not hold up a node.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    })))
}
