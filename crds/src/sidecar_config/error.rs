//! What can be wrong with a sidecar's document: file, field, what, and what to do.

use super::{MAX_BYTES, MAX_NAME, RESERVED, VERSION};
use crate::{
    domain::{DomainError, DomainName},
    edge_config::{HostPortError, Version},
    line::steers,
    negotiation::NegotiationError,
};

/// Most characters that are shown of what a parser says: it quotes what it met.
const MAX_CAUSE: usize = 300;

/// Why a document is not taken; the last one that was good stays in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {fault}")]
pub struct SidecarConfigError {
    /// Which file.
    pub origin: String,
    pub fault: SidecarConfigFault,
}

/// What is wrong with the document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SidecarConfigFault {
    #[error(
        "has {bytes} octets, at most {limit} are read: copy the sidecar.json of this gateway alone",
        limit = MAX_BYTES
    )]
    TooLarge { bytes: usize },
    #[error(
        "is not a sidecar's configuration ({0}): copy sidecar.json whole from where the operator keeps it"
    )]
    Json(String),
    #[error(
        "has version {}.{}, this sidecar reads {}.{} and one minor version before and after: bring operator and sidecar to versions beside each other",
        .0.major, .0.minor, VERSION.major, VERSION.minor
    )]
    Version(Version),
    #[error(
        "{field}: {fault}; the operator writes this file: correct the EdgePool, and copy the file anew"
    )]
    Field { field: String, fault: FieldFault },
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldFault {
    #[error("{0}")]
    Domain(DomainError),
    #[error("{0}")]
    HostPort(HostPortError),
    #[error("{0}")]
    Negotiation(NegotiationError),
    #[error("is empty: a sidecar speaks for one domain or more")]
    Empty,
    #[error("{0} is listed twice: each own domain has one server")]
    Twice(DomainName),
    #[error("{0} is at or below {zone}, where the edge's own names are", zone = RESERVED)]
    Reserved(DomainName),
    #[error("has {found} entries, at most {most} are taken")]
    TooMany { found: usize, most: usize },
    #[error("is longer than {most} octets")]
    TooLong { most: usize },
    #[error(
        "is no name: 1 to {limit} of a-z, 0-9, \"-\" and \".\", a letter or digit first and last",
        limit = MAX_NAME
    )]
    Name,
    #[error("is {value}, must be {least} to {most}")]
    Range { value: u64, least: u64, most: u64 },
    #[error("is {value}, which is above {above} ({most})")]
    Above {
        value: u64,
        above: &'static str,
        most: u64,
    },
}

impl SidecarConfigFault {
    /// A JSON reader's words name line and column, and quote what stands there.
    pub(super) fn json(cause: &serde_json::Error) -> Self {
        let said = cause.to_string().replace(steers, " ");
        if said.chars().count() <= MAX_CAUSE {
            return Self::Json(said);
        }
        let shown: String = said.chars().take(MAX_CAUSE).collect();
        Self::Json(format!(
            "{shown}… at line {} column {}",
            cause.line(),
            cause.column()
        ))
    }
}
