//! What is known of a pool. Its controller alone writes it; nobody reads it as a store.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kinds::fields;

/// `status` of an EdgePool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PoolStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pods that there are.
    pub replicas: i32,
    /// Pods that are ready.
    pub ready_replicas: i32,
    /// Addresses that partners reach.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 45)), extend("x-kubernetes-list-type" = "set"))]
    pub addresses: Vec<String>,
    /// Full text of the records that belong to this pool, as they stand in a zone file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512), inner(length(max = 1024)), extend("x-kubernetes-list-type" = "atomic"))]
    pub srv_records: Vec<String>,
    /// The certificate that partners see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateStatus>,
    /// The request to be signed, as PEM; mode `csr` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65_536))]
    pub certificate_signing_request: Option<String>,
    /// How far the configuration has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigStatus>,
    /// Authenticated streams with partners, all replicas together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streams: Option<StreamCounts>,
    /// Label selector of the pods, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub selector: Option<String>,
    /// What holds of the pool, one entry a type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "fields::conditions")]
    pub conditions: Vec<Condition>,
}

/// `status.certificate`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// When it ends.
    pub not_after: Time,
    /// The names that it covers.
    #[serde(default)]
    #[schemars(length(max = 128), inner(length(max = 255)), extend("x-kubernetes-list-type" = "atomic"))]
    pub dns_names: Vec<String>,
    /// Its serial number, hex.
    #[schemars(length(max = 64))]
    pub serial: String,
}

/// `status.config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigStatus {
    /// The newest generation written.
    pub generation: i64,
    /// Ready pods that have loaded it.
    pub pods_in_sync: i32,
}

/// `status.streams`: partner side, all replicas together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamCounts {
    /// Streams that carry stanzas from partners; one of both directions counts in both.
    pub inbound: u32,
    /// Streams that carry stanzas to partners.
    pub outbound: u32,
}
