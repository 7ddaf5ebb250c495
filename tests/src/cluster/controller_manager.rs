//! kube-controller-manager, for tests in which namespaces end, children of deleted owners go or
//! Deployments get ReplicaSets.

use anyhow::{Context, Result};

use super::{ApiServer, Missing};
use crate::{process::Daemon, wait};

const PORT: u16 = 10257;

/// The controllers that need no node.
pub const WITHOUT_NODES: &[&str] = &[
    "namespace-controller",
    "garbage-collector-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
    "deployment-controller",
    "replicaset-controller",
    "disruption-controller",
    "persistentvolumeclaim-protection-controller",
    "endpoints-controller",
    "endpointslice-controller",
];

/// Those that a cluster with nodes has beside them.
pub const WITH_NODES: &[&str] = &[
    "job-controller",
    "statefulset-controller",
    "pod-garbage-collector-controller",
    "node-lifecycle-controller",
    "persistentvolume-binder-controller",
];

/// Running controllers; killed on drop.
pub struct ControllerManager {
    daemon: Daemon,
}

impl ControllerManager {
    /// Starts these controllers; returns once it is healthy.
    ///
    /// # Errors
    /// When the program is not on this machine or does not get healthy.
    pub async fn start(server: &ApiServer, controllers: &[&str]) -> Result<Self> {
        let program = server
            .tools()
            .kube_controller_manager
            .clone()
            .ok_or_else(|| Missing::program("kube-controller-manager"))?;
        let directory = server.directory();
        let path = |name: &str| directory.join(name).display().to_string();
        let address = server.place().controllers;
        let kubeconfig = path("admin.kubeconfig");
        let arguments = [
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            format!("--bind-address={address}"),
            format!("--secure-port={PORT}"),
            format!("--cert-dir={}", path("controller-manager")),
            format!("--controllers={}", controllers.join(",")),
            format!("--root-ca-file={}", path("ca.crt")),
            "--leader-elect=false".to_owned(),
            "--use-service-account-credentials=false".to_owned(),
        ];
        let mut daemon = Daemon::start(
            "kube-controller-manager",
            &program,
            &arguments,
            &[],
            &directory.join("kube-controller-manager.log"),
        )?;
        daemon
            .await_line("Serving securely", wait::GENEROUS)
            .await
            .context("the controllers start")?;
        Ok(Self { daemon })
    }

    /// The process.
    pub fn process(&self) -> &Daemon {
        &self.daemon
    }
}
