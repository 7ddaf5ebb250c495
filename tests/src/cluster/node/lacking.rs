//! What a computer must have so that a node can run on it.

use std::path::{Path, PathBuf};

use crate::cluster::{Missing, images::NoImages, tools::built};

/// What this one has not.
#[derive(Debug, thiserror::Error)]
pub enum Lacking {
    #[error(transparent)]
    Program(#[from] Missing),
    #[error(transparent)]
    Images(#[from] NoImages),
    #[error("{0} is not here; `make install` gets it")]
    Package(&'static str),
    #[error("no network namespace of its own: {0}")]
    Namespaces(String),
    #[error("no machine of its own: {0}")]
    Machine(String),
    #[error("no control group of its own: {0}")]
    Groups(String),
}

/// The programs of a node that are built.
#[derive(Debug)]
pub(super) struct Programs {
    pub kubelet: PathBuf,
    pub kube_proxy: PathBuf,
    pub kube_scheduler: PathBuf,
    pub coredns: PathBuf,
}

impl Programs {
    /// Looks for these, and for those that packages bring.
    ///
    /// # Errors
    /// The first that is not here.
    pub fn find() -> Result<Self, Lacking> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders: Vec<_> = std::env::split_paths(&path).collect();
        for program in ["containerd", "ctr", "runc", "ip", "nft", "conntrack"] {
            if !folders.iter().any(|it| it.join(program).is_file()) {
                return Err(Lacking::Package(program));
            }
        }
        for file in ["/usr/lib/cni/ptp", "/bin/busybox"] {
            if !Path::new(file).is_file() {
                return Err(Lacking::Package(file));
            }
        }
        Ok(Self {
            kubelet: built("kubelet")?,
            kube_proxy: built("kube-proxy")?,
            kube_scheduler: built("kube-scheduler")?,
            coredns: built("coredns")?,
        })
    }
}
