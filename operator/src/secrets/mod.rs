//! Certificates and secrets: the pool's own towards partners, and the internal PKI.
//!
//! Everything here is written against [`store::Store`] and a given time, so that the cluster
//! (Secrets) and standalone (files) run the very same code. It must not know Kubernetes or clocks.

pub mod chain;
pub mod database;
pub mod egress;
pub mod files;
pub mod internal_ca;
pub mod issue;
pub mod source;
pub mod store;

#[cfg(test)]
mod field_cases;
#[cfg(test)]
mod tests;

use chain::ChainError;
use store::{ManagedSecret, StoreError};

/// Why certificates could not be had: of the infrastructure, or of what is kept. What is wrong with
/// what somebody gave is a [`source::BackendFault`].
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Issue(#[from] issue::IssueError),
    #[error(
        "{entry} is kept but unusable: {fault}. Restore it from a backup; or delete it, and all that was issued from it is made anew"
    )]
    Kept {
        entry: ManagedSecret,
        fault: ChainError,
    },
    #[error(
        "{entry} is kept but incomplete ({missing} is not there). Restore it from a backup; or delete it, and all that was issued from it is made anew"
    )]
    Incomplete {
        entry: ManagedSecret,
        missing: &'static str,
    },
    #[error(transparent)]
    PoolName(#[from] store::PoolNameTaken),
    #[error("Secret {name:?} {reason}: put a random text of 32 bytes or more there")]
    DialbackSecret { name: String, reason: &'static str },
}
