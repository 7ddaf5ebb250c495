//! The Deployment: how many pods, and how they are replaced.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::ResourceExt;
use xmpp_edge_crds::{edge_config::EdgeConfig, kinds::EdgePool};

use super::{Child, Facts, metadata, names, pod, volume};

/// Annotation of the Deployment: which pod template was applied last. The API server fills in
/// defaults, so that templates themselves cannot be compared.
pub const TEMPLATE: &str = "xmpp-edge.dev/pod-template";

/// A new pod counts as available after this long.
const MIN_READY_SECONDS: i32 = 5;

/// The Deployment of a pool.
#[must_use]
pub fn plan(pool: &EdgePool, config: &EdgeConfig, facts: &Facts<'_>) -> Child {
    let name = pool.name_any();
    let template = pod::template(pool, config, facts.proxy_image);
    let mut metadata = metadata::owned(pool, names::workload(&name));
    metadata.annotations = Some(BTreeMap::from([(TEMPLATE.to_owned(), print_of(&template))]));
    Child::Deployment(Box::new(Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            replicas: Some(pool.spec.desired_replicas()),
            selector: metadata::label_selector(&name),
            strategy: Some(strategy(pool)),
            min_ready_seconds: Some(MIN_READY_SECONDS),
            revision_history_limit: Some(3),
            template,
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }))
}

/// A volume that one pod holds goes from the old pod to the new one, and so do the connections of a SIP server; else
/// the new pod is ready before the old one goes.
fn strategy(pool: &EdgePool) -> DeploymentStrategy {
    if volume::wanted(pool) || pool.spec.speaks_sip() {
        return DeploymentStrategy {
            type_: Some("Recreate".to_owned()),
            rolling_update: None,
        };
    }
    DeploymentStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: Some(IntOrString::Int(1)),
            max_unavailable: Some(IntOrString::Int(0)),
        }),
    }
}

/// What tells one template from another: SHA-256 over its JSON, shortened.
#[must_use]
pub fn print_of(template: &PodTemplateSpec) -> String {
    let text = serde_json::to_vec(template).expect("a pod template has string keys alone");
    let hash = digest(&SHA256, &text);
    HEXLOWER.encode(&hash.as_ref()[..16])
}

/// The print of the template that a Deployment was applied with.
#[must_use]
pub fn template_of(deployment: &Deployment) -> Option<&str> {
    let annotations = deployment.metadata.annotations.as_ref()?;
    annotations.get(TEMPLATE).map(String::as_str)
}

/// Whether pods are being replaced: some are still of an older template, or the controller has not
/// looked yet. Pods that are unready for other reasons do not count.
#[must_use]
pub fn is_rolling(deployment: &Deployment) -> bool {
    let wanted = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    let Some(status) = &deployment.status else {
        return wanted > 0;
    };
    if status.observed_generation < deployment.metadata.generation {
        return true;
    }
    let updated = status.updated_replicas.unwrap_or(0);
    let all = status.replicas.unwrap_or(0);
    updated < wanted || all > updated
}
