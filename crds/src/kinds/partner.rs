//! `XmppFederatedPartner`: a foreign domain that this organisation federates with, and how.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    conditions::ConditionType,
    fields::{self, ConfigMapKeyRef},
};
use crate::{
    edge_config::OnKeyChange,
    negotiation::{KeyBinding, Method, MethodSet, Negotiation, NegotiationError, Requirement},
    verdict::PartnerType,
};

/// The conditions of a partner, in the order of its status.
pub const CONDITIONS: &[ConditionType] = &[
    ConditionType::Ready,
    ConditionType::Accepted,
    ConditionType::Programmed,
    ConditionType::Secure,
    ConditionType::Reachable,
];

/// A foreign domain that this organisation federates with.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "xmpp-edge.dev",
    version = "v1alpha1",
    kind = "XmppFederatedPartner",
    plural = "xmppfederatedpartners",
    shortname = "xfp",
    category = "xmpp",
    namespaced,
    status = "PartnerStatus",
    derive = "PartialEq",
    doc = "A partner organisation's XMPP domains, and how to federate with them.",
    printcolumn(name = "Domain", type_ = "string", json_path = ".spec.domain"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.partnerType"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Reachable",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Reachable')].status"
    ),
    printcolumn(
        name = "Methods",
        type_ = "string",
        json_path = ".status.authenticationMethods",
        priority = 1
    ),
    printcolumn(
        name = "Secure",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Secure')].status",
        priority = 1
    ),
    printcolumn(
        name = "Suspended",
        type_ = "boolean",
        json_path = ".spec.suspended",
        priority = 1
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.saslNegotiation == 'NotSupported' || self.tlsNegotiation != 'NotSupported'")
        .message("saslNegotiation needs TLS, but tlsNegotiation is NotSupported: set saslNegotiation to NotSupported, or allow TLS")
        .field_path(".saslNegotiation"),
    validation = Rule::new("self.saslNegotiation != 'NotSupported' || self.supportDialbackNegotiation")
        .message("no authentication method is left: enable saslNegotiation, or set supportDialbackNegotiation to true")
        .field_path(".supportDialbackNegotiation"),
    validation = Rule::new("self.saslNegotiation != 'NotSupported' || !has(self.trust) || !(has(self.trust.caConfigMapRef) || has(self.trust.pinnedSpkiSha256) && size(self.trust.pinnedSpkiSha256) > 0 || has(self.trust.onKeyChange) && self.trust.onKeyChange == 'Refuse')")
        .message("a pinned key, an own CA and onKeyChange: Refuse bind the certificate, which dialback does not prove, so that no authentication method is left: set saslNegotiation to Required or Optional, or take them out of trust")
        .field_path(".saslNegotiation"),
    validation = Rule::new("self.allowPlaintext || !self.supportDialbackNegotiation || self.tlsNegotiation == 'Required'")
        .message("these settings allow dialback over plain TCP: set tlsNegotiation to Required, or say allowPlaintext: true")
        .field_path(".allowPlaintext"),
    validation = Rule::new("!has(self.additionalDomains) || !(self.domain in self.additionalDomains)")
        .message("the primary domain is listed again in additionalDomains: leave it out there")
        .field_path(".additionalDomains"),
)]
pub struct PartnerSpec {
    /// Primary domain. It cannot change: delete the partner and make it anew, or use
    /// `additionalDomains`.
    #[schemars(schema_with = "fields::immutable_domain")]
    pub domain: String,
    /// Further domains of the partner; sub-domains are never implied. `*.example.org` stands for
    /// one leading label or more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "fields::additional_domains")]
    pub additional_domains: Vec<String>,
    /// Free text for people; it has no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// What strangers of this partner may do unasked. `Federated`: write and ask for contact.
    /// `PublicVerified`: the same, status notes are stripped. `PublicUnverified`: nothing, until a
    /// user has added them.
    #[serde(default)]
    pub partner_type: PartnerType,
    /// Whether streams are encrypted: `Required`, `Optional` (where the partner offers it),
    /// `NotSupported` (never).
    #[serde(default)]
    pub tls_negotiation: Requirement,
    /// Whether domains are authenticated by certificate (SASL EXTERNAL): `Required`, `Optional`
    /// (else by dialback), `NotSupported` (never).
    #[serde(default)]
    pub sasl_negotiation: Requirement,
    /// Whether domains may be authenticated by Server Dialback (XEP-0220), where `tlsNegotiation`
    /// and `saslNegotiation` are not both `Required`.
    #[serde(default = "fields::yes")]
    pub support_dialback_negotiation: bool,
    /// Must be true where the settings allow dialback over plain TCP.
    #[serde(default)]
    pub allow_plaintext: bool,
    /// Whether idle streams are kept alive; if not, they end after `streamInactivityTimeoutSeconds`.
    #[serde(default = "fields::yes")]
    pub enable_keep_alive: bool,
    /// Most authenticated streams with this partner on one replica; default: the pool's
    /// `partnerConnectionLimit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub connection_limit: Option<u32>,
    /// `host` or `host:port` to dial instead of what SRV records say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::host_optional_port")]
    pub proxy_fqdn: Option<String>,
    /// Kill switch: streams are closed at once, nothing is accepted.
    #[serde(default)]
    pub suspended: bool,
    /// Rates of one direction of a stream; over them it is slowed down, nothing is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<PartnerLimits>,
    /// Whose certificates are accepted, and what a changed key does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<PartnerTrust>,
    /// Regular XEP-0199 pings to the partner.
    #[serde(default)]
    pub probe: Probe,
}

impl PartnerSpec {
    /// The three settings of the negotiation rule.
    #[must_use]
    pub fn negotiation(&self) -> Negotiation {
        Negotiation {
            tls: self.tls_negotiation,
            sasl: self.sasl_negotiation,
            dialback: self.support_dialback_negotiation,
        }
    }

    /// Whether `trust` says which certificate the partner must have.
    #[must_use]
    pub fn key_binding(&self) -> KeyBinding {
        let Some(trust) = &self.trust else {
            return KeyBinding::Open;
        };
        KeyBinding::of(
            trust.ca_config_map_ref.is_some(),
            !trust.pinned_spki_sha256.is_empty(),
            trust.on_key_change == OnKeyChange::Refuse,
        )
    }

    /// The methods that the spec leaves usable.
    ///
    /// # Errors
    /// As [`Negotiation::partner_methods`].
    pub fn methods(&self) -> Result<MethodSet, NegotiationError> {
        self.negotiation()
            .partner_methods(self.key_binding(), self.allow_plaintext)
    }
}

/// `spec.limits`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartnerLimits {
    /// Stanzas a second; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub stanzas_per_second: Option<u32>,
    /// Bytes a second; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 1_073_741_824))]
    pub bytes_per_second: Option<u32>,
}

/// `spec.trust` of a partner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartnerTrust {
    /// CA certificates (PEM) in place of the public roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<ConfigMapKeyRef>,
    /// Keys accepted whatever their certificate says: SHA-256 of the SubjectPublicKeyInfo, hex.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "fields::spki_pins")]
    pub pinned_spki_sha256: Vec<String>,
    /// What a key does that is neither pinned nor known: `Ignore`; `Warn` counts and logs it;
    /// `Refuse` accepts the first key seen, and then a new one only once it is pinned.
    #[serde(default)]
    pub on_key_change: OnKeyChange,
}

/// `spec.probe`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Probe {
    /// Whether the partner is pinged.
    pub enabled: bool,
    /// Seconds between pings.
    #[schemars(range(min = 5, max = 86_400))]
    pub interval_seconds: u32,
}
impl Default for Probe {
    fn default() -> Self {
        Self {
            enabled: false,
            interval_seconds: 60,
        }
    }
}

/// What is known of a partner.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PartnerStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The methods that result from the spec, best first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub authentication_methods: Vec<Method>,
    /// Live, per pool.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 100),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub pools: Vec<PartnerPoolStatus>,
    /// What holds of the partner, one entry a type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "fields::conditions")]
    pub conditions: Vec<Condition>,
}

/// How one pool fares with a partner.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartnerPoolStatus {
    /// The pool's name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Authenticated streams that carry stanzas from the partner, all replicas together; one of
    /// both directions counts in both.
    #[serde(default)]
    pub inbound_streams: u32,
    /// Authenticated streams that carry stanzas to the partner, all replicas together.
    #[serde(default)]
    pub outbound_streams: u32,
    /// How the newest stream was authenticated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// TLS version of the newest stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub tls_version: Option<String>,
    /// Cipher suite of the newest stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub tls_cipher: Option<String>,
    /// End of the partner's certificate, as last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_certificate_not_after: Option<Time>,
    /// When a stream with the partner last came to stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_connected_time: Option<Time>,
    /// The newest failure since the last success of its direction: one entry a step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub last_attempt: Vec<AttemptStatus>,
    /// SHA-256 of the newest peer key's SubjectPublicKeyInfo, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub peer_key_sha256: Option<String>,
    /// The newest answer to a ping, where `spec.probe` is enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeStatus>,
}

/// One step of an attempt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttemptStatus {
    /// `dns`, `tcp`, `tls`, `certificate`, `sasl`, `dialback` or `policy`.
    #[schemars(length(max = 32))]
    pub step: String,
    /// `Ok`, or the cause in one word.
    #[schemars(length(max = 64))]
    pub outcome: String,
    /// `Inbound` or `Outbound`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub direction: Option<String>,
    /// The domain of the partner that was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub domain: Option<String>,
    /// The peer's address and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub address: Option<String>,
    /// What was expected and what was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub text: Option<String>,
    /// The pod that tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub replica: Option<String>,
}

/// The newest ping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProbeStatus {
    /// When the ping was sent.
    pub time: Time,
    /// Whether it was answered in time.
    pub success: bool,
    /// Milliseconds until the answer; absent where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_milliseconds: Option<u32>,
}
