//! containerd with the network of its pods, and the images that it has: those that were imported,
//! there is no registry.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Site, machine::Machine};
use crate::{process::Daemon, wait};

/// An image with nothing but /bin/busybox, which waits where no other command is given.
pub const BUSYBOX: &str = "xmpp-edge.test/busybox:1";

/// Where the runtime is asked, in the machine.
pub(super) const SOCKET: &str = "/run/containerd.sock";

const PLUGINS: &str = "/usr/lib/cni";

/// A running containerd.
#[derive(Debug)]
pub(super) struct Containers {
    _daemon: Daemon,
}

impl Containers {
    /// Starts it and imports [`BUSYBOX`].
    ///
    /// # Errors
    /// When it does not answer; carries the end of its log.
    pub async fn start(machine: &Machine, site: Site, data: &Path) -> Result<Self> {
        let network = data.join("cni");
        fs::create_dir_all(&network)?;
        fs::write(network.join("pods.conflist"), network_of(site))?;
        let configuration = data.join("containerd.toml");
        fs::write(&configuration, configuration_of(data))?;
        let arguments = [
            "--config".to_owned(),
            configuration.display().to_string(),
            "--log-level=info".to_owned(),
        ];
        let mut daemon = machine.daemon("containerd", Path::new("containerd"), &arguments, &[])?;
        daemon
            .await_line("containerd successfully booted", wait::GENEROUS)
            .await?;
        let image = busybox(data)?;
        import(machine, &image)?;
        Ok(Self { _daemon: daemon })
    }
}

/// Takes in the images of an archive as `docker save` writes them.
pub(super) fn import(machine: &Machine, archive: &Path) -> Result<()> {
    let archive = archive.display().to_string();
    ctr(machine, &["images", "import", &archive])
}

/// Gives an image a second name; where one has no registry, it is of the public one, as pods ask for it.
pub(super) fn tag(machine: &Machine, image: &str, name: &str) -> Result<()> {
    let whole = |name: &str| match name.contains('/') {
        true => name.to_owned(),
        false => format!("docker.io/library/{name}"),
    };
    ctr(machine, &["images", "tag", &whole(image), &whole(name)])
}

fn ctr(machine: &Machine, command: &[&str]) -> Result<()> {
    let arguments = ["--address", SOCKET, "--namespace", "k8s.io"];
    machine.run("ctr", &[&arguments[..], command].concat())?;
    Ok(())
}

/// Each pod has a wire of its own to the node: what one Service's pod says to another takes the way
/// back through the node's address translation, without settings of bridges.
fn network_of(site: Site) -> String {
    let addresses = json!({"type": "host-local", "ranges": [[{"subnet": site.pods()}]],
        "routes": [{"dst": "0.0.0.0/0"}]});
    let pods = json!({"type": "ptp", "ipMasq": false, "ipam": addresses});
    let ports = json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true});
    json!({"cniVersion": "0.4.0", "name": "pods", "plugins": [pods, ports]}).to_string()
}

fn configuration_of(data: &Path) -> String {
    let data = data.display();
    format!(
        r#"version = 2
root = "{data}/containerd"
state = "/run/containerd"
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{BUSYBOX}"
  # Who may not lower its own may not lower a container's either.
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{PLUGINS}"
  conf_dir = "{data}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"#
    )
}

/// Writes the archive of [`BUSYBOX`].
fn busybox(data: &Path) -> Result<PathBuf> {
    let folder = data.join("busybox");
    fs::create_dir_all(folder.join("root/bin"))?;
    fs::create_dir_all(folder.join("root/tmp"))?;
    fs::copy("/bin/busybox", folder.join("root/bin/busybox")).context("/bin/busybox")?;
    let path = |name: &str| folder.join(name).display().to_string();
    tar(&[
        "--owner=0",
        "--group=0",
        "-C",
        &path("root"),
        "-cf",
        &path("layer.tar"),
        ".",
    ])?;
    let layer = Sha256::digest(fs::read(folder.join("layer.tar"))?);
    let hash: String = layer.iter().map(|byte| format!("{byte:02x}")).collect();
    let command = ["/bin/busybox", "sleep", "2147483647"];
    let config = json!({"architecture": architecture(), "os": "linux",
        "config": {"Cmd": command, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{hash}")]}});
    fs::write(folder.join("config.json"), config.to_string())?;
    let manifest =
        json!([{"Config": "config.json", "RepoTags": [BUSYBOX], "Layers": ["layer.tar"]}]);
    fs::write(folder.join("manifest.json"), manifest.to_string())?;
    let parts = ["config.json", "manifest.json", "layer.tar"];
    let archive = data.join("busybox.tar");
    let into = archive.display().to_string();
    tar(&[&["-C", &path(""), "-cf", &into], &parts[..]].concat())?;
    Ok(archive)
}

/// As image formats call this computer's.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn tar(arguments: &[&str]) -> Result<()> {
    let output = Command::new("tar").args(arguments).output()?;
    ensure!(
        output.status.success(),
        "tar: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
