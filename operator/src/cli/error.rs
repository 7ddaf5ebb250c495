//! Why a command did not come to its end, and the exit code that says so.

use std::path::PathBuf;

use super::{
    EXIT_FAILURE, EXIT_USAGE,
    inspect::{explain, inspection::InspectionError, render},
    prepare_uninstall,
    probe::ProbeError,
    run,
};
use crate::{
    lync,
    sidecar::workload::WorkloadError,
    standalone::{self, documents::DocumentError},
};

/// Why a command did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    #[error(transparent)]
    Standalone(#[from] standalone::run::StandaloneError),
    #[error(transparent)]
    Run(#[from] run::RunError),
    #[error(transparent)]
    PrepareUninstall(#[from] prepare_uninstall::PrepareUninstallError),
    #[error(transparent)]
    Inspection(#[from] InspectionError),
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error(transparent)]
    Unexplained(#[from] explain::Unexplained),
    #[error("cannot read {path}: {source}; give the file of an export", path = path.display())]
    Export {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Import(#[from] lync::ImportError),
    #[error("cannot render: {0}")]
    Render(#[from] render::RenderError),
    #[error("cannot read {path}: {source}; give a file of workloads", path = path.display())]
    Workloads {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path}: {source}", path = path.display())]
    WorkloadsYaml {
        path: PathBuf,
        source: DocumentError,
    },
    #[error("{path}: {source}", path = path.display())]
    Sidecar {
        path: PathBuf,
        source: WorkloadError,
    },
    #[error("the result cannot be told as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("cannot write the result as YAML: {0}")]
    Yaml(#[from] serde_saphyr::ser::Error),
    #[error("{0}")]
    System(#[from] std::io::Error),
}

impl CommandError {
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Inspection(InspectionError::Read(_))
            | Self::Export { .. }
            | Self::Workloads { .. }
            | Self::Unexplained(explain::Unexplained::Address { .. }) => EXIT_USAGE,
            _ => EXIT_FAILURE,
        }
    }
}
