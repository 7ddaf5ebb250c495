//! Why a look at the manifests led to nothing, or the state directory cannot be used.

use std::path::PathBuf;

use super::reader::ReadError;
use crate::secrets::{CertificateError, store::StoreError};

/// Why a look led to nothing. What was in force before stays.
#[derive(Debug, thiserror::Error)]
pub enum StandaloneReconcileError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(
        "{0}: another process uses this state directory: stop it, or give another with --state"
    )]
    Locked(PathBuf),
    #[error(
        "{path} cannot be used ({reason}): it was written by something else, or is damaged; move it away, and what is in force is compiled anew from the manifests"
    )]
    State { path: PathBuf, reason: String },
    #[error("there is no EdgePool in the manifests: add one")]
    NoPool,
    #[error("there is no EdgePool {wanted:?} in the manifests: there are {found}")]
    UnknownPool { wanted: String, found: String },
    #[error("the manifests have several EdgePools ({found}): choose one with --pool")]
    SeveralPools { found: String },
    #[error("EdgePool {0:?} does not compile and was never in force: see the errors above")]
    NotAccepted(String),
}
