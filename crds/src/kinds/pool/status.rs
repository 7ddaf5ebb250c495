//! What is known of a pool. Its controller alone writes it; nobody reads it as a store.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{edge_config::GatewayMode, kinds::fields};

/// Gateways that a status shows, and sidecars of each: it has to fit into etcd.
pub const MOST_GATEWAYS: usize = 20;
pub const MOST_SIDECARS: usize = 16;

/// `status` of an EdgePool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PoolStatus {
    /// Generation of the spec that this status was made for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Number of pods.
    pub replicas: i32,
    /// Number of ready pods.
    pub ready_replicas: i32,
    /// IP addresses at which partners reach the pool.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 45)), extend("x-kubernetes-list-type" = "set"))]
    pub addresses: Vec<String>,
    /// DNS records of this pool in the format of a zone file: SRV, A and AAAA.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512), inner(length(max = 1024)), extend("x-kubernetes-list-type" = "atomic"))]
    pub srv_records: Vec<String>,
    /// Certificate that partners see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateStatus>,
    /// Certificate signing request (PEM) that waits to be signed; mode `csr` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65_536))]
    pub certificate_signing_request: Option<String>,
    /// Generation of the configuration, and how many pods have loaded it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigStatus>,
    /// Number of authenticated streams with partners, over all replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streams: Option<StreamCounts>,
    /// Gateways that sidecars may connect for, with those that are connected: the first 20, and 16 sidecars of
    /// each. `/status` of the pods has all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MOST_GATEWAYS),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub gateways: Vec<GatewayState>,
    /// Sidecars that are connected, each with how many of the ready pods it has a trunk to, for `kubectl get
    /// -o wide`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub sidecars: Option<String>,
    /// Label selector of the pods, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub selector: Option<String>,
    /// Conditions of the pool, one for each type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "fields::conditions")]
    pub conditions: Vec<Condition>,
}

/// One of `status.gateways`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayState {
    /// Name of the gateway.
    #[schemars(length(max = 253))]
    pub name: String,
    /// The way in use: `Direct`, where sidecars carry nothing yet, or `Sidecar`.
    #[schemars(schema_with = "fields::gateway_mode")]
    pub mode: GatewayMode,
    /// Sidecars with a trunk to at least one ready pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MOST_SIDECARS),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["instance"])
    )]
    pub sidecars: Vec<SidecarState>,
}

/// One sidecar, as the ready pods see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SidecarState {
    /// The pod or host of the server, or what `--instance` says.
    #[schemars(length(max = 253))]
    pub instance: String,
    /// Version of its program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub version: Option<String>,
    /// Number of ready pods that it has a trunk to.
    pub trunks: i32,
    /// Whether it gets what comes in.
    pub active: bool,
    /// Whether the server beside it answers and takes streams.
    pub server_up: bool,
    /// Time when the oldest of its trunks was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_time: Option<Time>,
    /// Time when the certificate that it shows expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_not_after: Option<Time>,
}

/// `status.certificate`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// Time when the certificate expires.
    pub not_after: Time,
    /// DNS names of its subjectAltName.
    #[serde(default)]
    #[schemars(length(max = 128), inner(length(max = 255)), extend("x-kubernetes-list-type" = "atomic"))]
    pub dns_names: Vec<String>,
    /// Serial number of the certificate in hexadecimal.
    #[schemars(length(max = 64))]
    pub serial: String,
}

/// `status.config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigStatus {
    /// Newest generation of the configuration that was written.
    pub generation: i64,
    /// Number of ready pods that have loaded it.
    pub pods_in_sync: i32,
}

/// `status.streams`: partner side, all replicas together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamCounts {
    /// Number of streams that carry stanzas from partners; a bidirectional one counts in both.
    pub inbound: u32,
    /// Number of streams that carry stanzas to partners.
    pub outbound: u32,
}
