//! Where the programs of a control plane lie.
//!
//! `KUBEBUILDER_ASSETS` names a folder that has etcd, kube-apiserver and kubectl; else
//! `tests/cluster/tools/build` has put them into the user's cache (`make tools`) and etcd is the
//! machine's. Nothing is built here: a build takes minutes, a test must not.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Names the folder that has the programs, as other projects' tests have it.
pub const ASSETS: &str = "KUBEBUILDER_ASSETS";

/// The programs that a test environment needs.
#[derive(Clone, Debug)]
pub struct Tools {
    pub etcd: PathBuf,
    pub kube_apiserver: PathBuf,
    pub kubectl: PathBuf,
    /// Not among those that `KUBEBUILDER_ASSETS` commonly has: then the one built here.
    pub kube_controller_manager: Option<PathBuf>,
}

/// A program that is not on this machine.
#[derive(Debug, thiserror::Error)]
#[error("{program} is not here ({looked}); `make tools` gets it")]
pub struct Missing {
    pub program: &'static str,
    looked: String,
}

impl Missing {
    pub(super) fn program(program: &'static str) -> Self {
        Self {
            program,
            looked: "the built ones".to_owned(),
        }
    }

    /// Whether a run that must not skip runs on a machine that can build the programs.
    pub(super) fn should_be_here(&self) -> bool {
        let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        ci && Command::new("go")
            .arg("version")
            .output()
            .is_ok_and(|output| output.status.success())
    }
}

impl Tools {
    /// Looks for every program.
    ///
    /// # Errors
    /// Which one is missing, and where it was looked for.
    pub fn find() -> Result<Self, Missing> {
        Ok(Self {
            etcd: etcd()?,
            kube_apiserver: built("kube-apiserver")?,
            kubectl: built("kubectl")?,
            kube_controller_manager: built("kube-controller-manager").ok(),
        })
    }
}

/// The linter of workflows.
///
/// # Errors
/// Where it was looked for.
pub fn actionlint() -> Result<PathBuf, Missing> {
    built("actionlint")
}

fn etcd() -> Result<PathBuf, Missing> {
    if let Some(own) = asset("etcd") {
        return Ok(own);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join("etcd"))
        .find(|program| program.is_file())
        .ok_or(Missing {
            program: "etcd",
            looked: "PATH".to_owned(),
        })
}

pub(super) fn built(program: &'static str) -> Result<PathBuf, Missing> {
    if let Some(own) = asset(program) {
        return Ok(own);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/tools/build");
    let answer = Command::new(&script)
        .args(["--where", program])
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default();
    let place = PathBuf::from(&answer);
    if place.is_file() {
        return Ok(place);
    }
    Err(Missing {
        program,
        looked: answer,
    })
}

fn asset(program: &str) -> Option<PathBuf> {
    let place = PathBuf::from(std::env::var_os(ASSETS)?).join(program);
    place.is_file().then_some(place)
}
