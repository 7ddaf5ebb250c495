//! `settings.egressProxy`: the only way out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    edge_config::NameResolution,
    kinds::fields::{self, SecretRef},
};

/// `settings.egressProxy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolEgressProxy {
    /// SOCKS5 proxy (RFC 1928), as `host:port`.
    #[schemars(schema_with = "fields::host_port")]
    pub address: String,
    /// Who resolves the host names of partners' servers. `Edge`, the default: the edge, and
    /// `dialExcept` holds. `Proxy`: the proxy is given names, and its own rules must keep them from
    /// leading inside; the edge still looks up SRV records.
    #[serde(default)]
    pub name_resolution: NameResolution,
    /// Secret with `username` and `password` (RFC 1929), such as one of type
    /// `kubernetes.io/basic-auth`. Absent: the edge offers no authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
}
