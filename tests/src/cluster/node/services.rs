//! What finds pods: the scheduler their node, kube-proxy and CoreDNS the way to their Services.

use std::{fs, path::Path};

use anyhow::Result;

use super::{DNS, NODE, Site, machine::Machine};
use crate::{cluster::ApiServer, process::Daemon, wait};

/// Starts the scheduler, beside the API server.
pub(super) fn scheduler(program: &Path, server: &ApiServer, site: Site) -> Result<Daemon> {
    let path = |name: &str| server.directory().join(name).display().to_string();
    let kubeconfig = path("admin.kubeconfig");
    let arguments = [
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        format!("--bind-address={}", site.router()),
        format!("--cert-dir={}", path("scheduler")),
        "--leader-elect=false".to_owned(),
    ];
    let log = server.directory().join("scheduler.log");
    Daemon::start("scheduler", program, &arguments, &[], &log)
}

/// Starts kube-proxy on the node.
pub(super) fn proxy(
    program: &Path,
    server: &ApiServer,
    machine: &Machine,
    site: Site,
) -> Result<Daemon> {
    let kubeconfig = server.directory().join("admin.kubeconfig");
    let arguments = [
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--hostname-override={NODE}"),
        format!("--cluster-cidr={}", site.pods()),
        "--proxy-mode=nftables".to_owned(),
        // Those are the whole computer's.
        "--conntrack-max-per-core=0".to_owned(),
        "--conntrack-min=0".to_owned(),
    ];
    machine.daemon("kube-proxy", program, &arguments, &[])
}

/// Starts CoreDNS on the node's address: the cluster's names, and for all others the internet's name
/// server.
pub(super) async fn names(
    program: &Path,
    server: &ApiServer,
    machine: &Machine,
    site: Site,
    data: &Path,
) -> Result<Daemon> {
    let kubeconfig = server.directory().join("admin.kubeconfig");
    let corefile = data.join("Corefile");
    let text = format!(
        ". {{\n  bind {}\n  errors\n  kubernetes cluster.local in-addr.arpa {{\n    kubeconfig {}\n    ttl 1\n  }}\n  forward . {DNS}\n}}\n",
        site.node(),
        kubeconfig.display()
    );
    fs::write(&corefile, text)?;
    let arguments = ["-conf".to_owned(), corefile.display().to_string()];
    let mut daemon = machine.daemon("coredns", program, &arguments, &[])?;
    daemon.await_line("CoreDNS-", wait::GENEROUS).await?;
    Ok(daemon)
}
