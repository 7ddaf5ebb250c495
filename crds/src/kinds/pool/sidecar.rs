//! `spec.gateways[].sidecar`: the sidecars beside a server, and how the edge knows them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    edge_config::SidecarServers,
    kinds::fields::{self, ConfigMapKeyRef},
};

/// `gateways[].sidecar`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PoolSidecar {
    /// Namespace of the server's pods, where the operator puts Secret `xmpp-edge-sidecar-<name>` for them. Defaults to the
    /// pool's. The operator's settings have to allow another one (chart value `sidecars`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Servers that have a sidecar each. `Single`, the default: each is a world of its own, so that one
    /// gets what comes in and the others stand by. `Clustered`: they know each other's users, and all get
    /// something.
    #[schemars(schema_with = "fields::sidecar_servers")]
    pub server: SidecarServers,
    /// Address at which a sidecar finds its server, as `host:port`. Defaults to 127.0.0.1:5269: the same
    /// pod, or the same host.
    #[schemars(length(min = 3, max = 260))]
    pub server_address: String,
    /// Further addresses for sidecars to dial, as `host:port`: pools of another cluster with the same internal CA.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "fields::sidecar_edges")]
    pub edges: Vec<String>,
    /// Keys of sidecars that have none of the operator's certificates. A sidecar loses its trunks within
    /// 5 s of its key's removal.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = fields::MAX_SIDECAR_ENTRIES),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub keys: Vec<PoolSidecarKey>,
    /// Another issuer of sidecars' certificates, beside the internal CA of the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<PoolSidecarTrust>,
}

impl Default for PoolSidecar {
    fn default() -> Self {
        Self {
            namespace: None,
            server: SidecarServers::default(),
            server_address: "127.0.0.1:5269".to_owned(),
            edges: Vec::new(),
            keys: Vec::new(),
            trust: None,
        }
    }
}

/// One of `gateways[].sidecar.keys`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolSidecarKey {
    /// Name of the key, for people.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// SHA-256 over the key's SubjectPublicKeyInfo in hexadecimal, as `xmpp-edge-proxy sidecar key` prints
    /// it; `sha256:` in front may stay.
    #[schemars(length(min = 64, max = 71))]
    pub spki_sha256: String,
}

/// `gateways[].sidecar.trust`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolSidecarTrust {
    /// ConfigMap key with CA certificates (PEM). Certificates of sidecars need the gateway's domains as
    /// subjectAltNames.
    pub ca_config_map_ref: ConfigMapKeyRef,
}
