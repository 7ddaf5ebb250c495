//! The document as it is written: what the operator fills in, and JSON says. Nothing is checked here.

use serde::{Deserialize, Serialize};

use super::{SidecarConfigFault, VERSION};
use crate::{
    edge_config::{Settings, SidecarServers, Version},
    negotiation::{Negotiation, Requirement},
};

/// Memory of all queues of a sidecar together, in octets: it lives in the pod of a server.
const QUEUE_TOTAL_BYTES: u64 = 64 << 20;

/// `sidecar.json`. Unknown fields are ignored: they are of a later minor version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SidecarDocument {
    pub version: Version,
    pub namespace: String,
    pub name: String,
    pub domains: Vec<String>,
    pub server: ServerDocument,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_gateways: Vec<OtherGatewayDocument>,
    #[serde(default)]
    pub edges: Vec<String>,
    #[serde(default)]
    pub limits: LimitsDocument,
}

/// `server`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerDocument {
    pub mode: SidecarServers,
    /// `host:port`.
    pub address: String,
    pub negotiation: Negotiation,
    /// PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_ca: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub trust_public_roots: bool,
}

/// One of `otherGateways`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OtherGatewayDocument {
    pub domains: Vec<String>,
    /// `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// `limits`: octets and seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LimitsDocument {
    pub max_stanza_bytes: u32,
    pub queue_bytes: u64,
    pub queue_total_bytes: u64,
    pub queue_timeout_seconds: u32,
}

impl Default for ServerDocument {
    /// The server as packaged, in the same pod or on the same host.
    fn default() -> Self {
        Self {
            mode: SidecarServers::default(),
            address: "127.0.0.1:5269".to_owned(),
            // Who listens to a pod's loopback is in the pod.
            negotiation: Negotiation {
                tls: Requirement::Optional,
                sasl: Requirement::Optional,
                dialback: true,
            },
            trust_ca: None,
            trust_public_roots: false,
        }
    }
}

impl Default for LimitsDocument {
    fn default() -> Self {
        let edge = Settings::default();
        Self {
            max_stanza_bytes: edge.max_stanza_bytes,
            queue_bytes: edge.queue_bytes,
            queue_total_bytes: QUEUE_TOTAL_BYTES,
            queue_timeout_seconds: edge.queue_timeout_seconds,
        }
    }
}

impl SidecarDocument {
    /// The smallest one: `name` and `domains` of the gateway, everything else by default.
    #[must_use]
    pub fn new(namespace: &str, name: &str, domains: Vec<String>) -> Self {
        Self {
            version: VERSION,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            domains,
            server: ServerDocument::default(),
            other_gateways: Vec::new(),
            edges: Vec::new(),
            limits: LimitsDocument::default(),
        }
    }

    /// As a file, for people too.
    ///
    /// # Panics
    /// Never: every field has a form in JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("every field has a form in JSON");
        text.push('\n');
        text
    }

    pub(super) fn read(json: &[u8]) -> Result<Self, SidecarConfigFault> {
        serde_json::from_slice(json).map_err(|cause| SidecarConfigFault::json(&cause))
    }
}

/// The version alone: a document of another one may look otherwise in all else.
pub(super) fn version(json: &[u8]) -> Result<Version, SidecarConfigFault> {
    #[derive(Deserialize)]
    struct Versioned {
        version: Version,
    }
    serde_json::from_slice(json)
        .map(|read: Versioned| read.version)
        .map_err(|cause| SidecarConfigFault::json(&cause))
}
