//! How the records of a pool are published.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::workload::{OWN_ANNOTATIONS, OWN_LABELS};
use crate::kinds::{
    PoolSpec,
    fields::{self, SecretRef},
};

/// `spec.dns`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.rfc2136) || has(self.externalDns)",
    "message": "name rfc2136, externalDns or both; to publish records yourself, leave spec.dns out"
}]))]
pub struct Dns {
    /// Dynamic updates (RFC 2136), signed with TSIG, sent to the primary server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rfc2136: Option<Rfc2136>,
    /// DNSEndpoint objects, one for each domain, which external-dns publishes. Needs a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_dns: Option<ExternalDns>,
}

/// `dns.rfc2136`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rfc2136 {
    /// Primary server as `host` or `host:port`. The port defaults to 53.
    #[schemars(schema_with = "fields::host_optional_port")]
    pub server: String,
    /// Zone of all names. By default the zone of each name is found by its SOA record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::domain")]
    pub zone: Option<String>,
    /// TTL of the records in seconds. Defaults to 60.
    #[serde(default = "ttl_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub ttl_seconds: u32,
    /// Secret with the TSIG key: its name under `name`, and under `secret` the key in base64, as
    /// the server's configuration has it.
    pub tsig_secret_ref: SecretRef,
    /// Algorithm of the TSIG key (RFC 8945 section 6), as the server's configuration has it.
    /// Defaults to `HmacSha256`.
    #[serde(default)]
    pub tsig_algorithm: TsigAlgorithm,
}

fn ttl_seconds() -> u32 {
    60
}

/// RFC 8945 section 6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TsigAlgorithm {
    #[default]
    HmacSha256,
    HmacSha384,
    HmacSha512,
}

impl PoolSpec {
    /// Seconds for which resolvers may keep the pool's records.
    #[must_use]
    pub fn record_ttl_seconds(&self) -> u32 {
        self.dns.as_ref().map_or_else(ttl_seconds, |dns| {
            let rfc2136 = dns.rfc2136.as_ref().map(|backend| backend.ttl_seconds);
            let external = dns.external_dns.as_ref().map(|backend| backend.ttl_seconds);
            rfc2136.or(external).unwrap_or_else(ttl_seconds)
        })
    }
}

/// `dns.externalDns`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.labels) || self.labels.all(k, !k.startsWith('app.kubernetes.io/') && !k.startsWith('xmpp-edge.dev/'))",
        "message": OWN_LABELS
    },
    {
        "rule": "!has(self.annotations) || self.annotations.all(k, !k.startsWith('xmpp-edge.dev/'))",
        "message": OWN_ANNOTATIONS
    }
]))]
pub struct ExternalDns {
    /// TTL of the records in seconds. Defaults to 60.
    #[schemars(range(min = 1, max = 86_400))]
    pub ttl_seconds: u32,
    /// Labels of the objects, for external-dns that has `--label-filter`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "fields::labels")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the objects, for external-dns that has `--annotation-filter`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "fields::annotations")]
    pub annotations: BTreeMap<String, String>,
    /// What the provider of external-dns is told of each record (`providerSpecific`), by name, such as
    /// `external-dns.alpha.kubernetes.io/cloudflare-proxied`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "fields::annotations")]
    pub provider_specific: BTreeMap<String, String>,
}
impl Default for ExternalDns {
    fn default() -> Self {
        Self {
            ttl_seconds: ttl_seconds(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            provider_specific: BTreeMap::new(),
        }
    }
}
