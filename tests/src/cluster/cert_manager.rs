//! cert-manager's own controllers, with the issuers that need nothing outside of the cluster
//! (`tests/cluster/tools/cert-manager`). Its webhook is not among them: what only that checks or
//! fills in, it does not.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{ApiServer, Missing, tools::built};
use crate::{process::Daemon, wait};

const MODULE: &str = "github.com/cert-manager/cert-manager";
/// The kinds that these controllers watch, as its module names their files.
const KINDS: [&str; 4] = [
    "certificaterequests",
    "certificates",
    "clusterissuers",
    "issuers",
];

/// Running controllers for one namespace; killed on drop.
pub struct CertManager {
    _daemon: Daemon,
}

impl CertManager {
    /// Why it cannot run on this machine, if so.
    ///
    /// # Errors
    /// [`Missing`].
    pub fn find() -> Result<PathBuf, Missing> {
        built("cert-manager")
    }

    /// Applies its definitions, which lie in its module, and waits until they are served.
    ///
    /// # Errors
    /// When the module is not on this machine, or the API server refuses one.
    pub async fn install(server: &ApiServer) -> Result<()> {
        let folder = module()?.join("deploy/crds");
        for kind in KINDS {
            let file = folder.join(format!("cert-manager.io_{kind}.yaml"));
            let yaml = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            server.install(&serde_saphyr::from_str(&yaml)?).await?;
        }
        Ok(())
    }

    /// Starts every controller but those of these names, and waits until it has read everything.
    ///
    /// # Errors
    /// When it is not built, or does not get ready.
    pub async fn start(server: &ApiServer, namespace: &str, without: &[&str]) -> Result<Self> {
        let program = Self::find()?;
        let name = format!("cert-manager-{namespace}");
        let kubeconfig = server.kubeconfig_file(&name, server.admin(), namespace)?;
        let arguments = [
            format!("-kubeconfig={}", kubeconfig.display()),
            format!("-namespace={namespace}"),
            format!("-without={}", without.join(",")),
        ];
        let log = server.directory().join(format!("{name}.log"));
        let mut daemon = Daemon::start(&name, &program, &arguments, &[], &log)?;
        daemon
            .await_line("ready: informers are in step", wait::GENEROUS)
            .await
            .context("cert-manager starts")?;
        Ok(Self { _daemon: daemon })
    }
}

/// Where its module lies, in the version that the program is built of.
fn module() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/tools/cert-manager");
    let output = Command::new("go")
        .args(["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", MODULE])
        .current_dir(folder)
        // A Go older than the module asks for gets that one.
        .env("GOTOOLCHAIN", "auto")
        .output()
        .context("go list")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "go list: {said}");
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}
