//! The kubelet of the one node.

use std::{fs, path::Path};

use anyhow::Result;
use serde_json::json;

use super::{NODE, Site, containers::SOCKET, machine::Machine};
use crate::{cluster::ApiServer, process::Daemon};

/// Starts it; the node gets ready later.
pub(super) fn start(
    program: &Path,
    server: &ApiServer,
    machine: &Machine,
    site: Site,
    data: &Path,
) -> Result<Daemon> {
    let path = |name: &str| data.join(name).display().to_string();
    let resolver = path("resolv.conf");
    fs::write(&resolver, format!("nameserver {}\n", super::DNS))?;
    let settings = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "address": site.node(),
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": false},
            "x509": {"clientCAFile": server.directory().join("ca.crt")}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": machine.group(),
        "enforceNodeAllocatable": [],
        // The older control groups do as well here.
        "failCgroupV1": false,
        "failSwapOn": false,
        "clusterDNS": [site.node()],
        "clusterDomain": "cluster.local",
        "resolvConf": resolver,
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        // This computer's disk is not the node's alone.
        "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "podLogsDir": path("logs"),
        "volumePluginDir": path("plugins"),
        "registerNode": true,
    });
    let configuration = path("kubelet.json");
    fs::write(&configuration, settings.to_string())?;
    let user = format!("system:node:{NODE}");
    let identity = server.user(&user, Some("system:nodes"));
    let kubeconfig = server.kubeconfig_file("kubelet", &identity, "default")?;
    let arguments = [
        format!("--config={configuration}"),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--root-dir={}", path("kubelet")),
        format!("--cert-dir={}", path("kubelet-certificates")),
        format!("--hostname-override={NODE}"),
        format!("--node-ip={}", site.node()),
    ];
    machine.daemon("kubelet", program, &arguments, &[])
}
