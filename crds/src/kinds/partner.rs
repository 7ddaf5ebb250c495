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
    partner_type::PartnerType,
};

/// Most pools of `status.pools`, most steps of an attempt, most characters of a step's text and of
/// a pod's name: together they keep a status far below what etcd takes of an object.
pub const MAX_POOLS: usize = 32;
pub const MAX_STEPS: usize = 16;
pub const MAX_TEXT: usize = 256;
pub const MAX_REPLICA: usize = 63;

/// The conditions of a partner, in the order of its status.
pub const CONDITIONS: &[ConditionType] = &[
    ConditionType::Ready,
    ConditionType::Accepted,
    ConditionType::Programmed,
    ConditionType::Secure,
    ConditionType::Reachable,
];

/// Specification of a partner: its domains, and how to federate with them.
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
    selectable = ".spec.domain",
    selectable = ".spec.partnerType",
    doc = "An XmppFederatedPartner is an organisation whose XMPP domains may be federated with, and how.",
    printcolumn(name = "Domain", type_ = "string", json_path = ".spec.domain"),
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
    printcolumn(name = "Why", type_ = "string", json_path = ".status.why"),
    printcolumn(
        name = "Type",
        type_ = "string",
        json_path = ".spec.partnerType",
        priority = 1
    ),
    printcolumn(
        name = "Methods",
        type_ = "string",
        json_path = ".status.methodSummary",
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
    /// Primary domain of the partner. Immutable: for another one create another partner, or use
    /// `additionalDomains`.
    #[schemars(schema_with = "fields::immutable_domain")]
    pub domain: String,
    /// Further domains of the partner. Sub-domains are never implied; the wildcard `*.example.org`
    /// matches any sub-domain of `example.org`, at any depth.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "fields::additional_domains")]
    pub additional_domains: Vec<String>,
    /// Description of the partner for people. It has no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// Trust in the users of the partner. `Federated`: they may write to users and ask for
    /// subscriptions. `PublicVerified`: the same, but the free-text status of presence is removed.
    /// `PublicUnverified`, the default: only contacts that a user has added reach that user.
    #[serde(default)]
    pub partner_type: PartnerType,
    /// Whether streams use TLS: `Required` (the default), `Optional` (where the partner offers it)
    /// or `NotSupported` (never).
    #[serde(default)]
    pub tls_negotiation: Requirement,
    /// Whether domains are authenticated by certificate (SASL EXTERNAL): `Required` (the default),
    /// `Optional` (by Server Dialback where the certificate is not valid or not offered) or
    /// `NotSupported` (never).
    #[serde(default)]
    pub sasl_negotiation: Requirement,
    /// Whether Server Dialback (XEP-0220) may authenticate domains. It has an effect only where
    /// `tlsNegotiation` and `saslNegotiation` are not both `Required`. Defaults to true.
    #[serde(default = "fields::yes")]
    pub support_dialback_negotiation: bool,
    /// Consent to streams without encryption: must be true where the settings allow dialback over
    /// plain TCP. Defaults to false.
    #[serde(default)]
    pub allow_plaintext: bool,
    /// Whether idle streams are kept alive. When false they are closed after the pool's
    /// `streamInactivityTimeoutSeconds`. Defaults to true.
    #[serde(default = "fields::yes")]
    pub enable_keep_alive: bool,
    /// Whether pings (XEP-0199) confirm what was sent, where the partner acknowledges nothing
    /// (XEP-0198): at most one a second while something is unconfirmed. Defaults to true.
    #[serde(default = "fields::yes")]
    pub confirm_by_ping: bool,
    /// Maximum number of authenticated streams with this partner on one replica. Defaults to the
    /// pool's `partnerConnectionLimit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub connection_limit: Option<u32>,
    /// Server of the partner as `host` or `host:port`, in place of discovery by SRV records. The
    /// port defaults to 5269.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::host_optional_port")]
    pub proxy_fqdn: Option<String>,
    /// Kill switch of the partner: when true, its streams are closed at once and none is accepted.
    /// Defaults to false.
    #[serde(default)]
    pub suspended: bool,
    /// Rate limits of each direction of a stream. Over them the stream is slowed down; nothing is
    /// dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<PartnerLimits>,
    /// Certificates and keys of the partner that are accepted. Defaults to those of public CAs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<PartnerTrustSpec>,
    /// Regular pings (XEP-0199) to the partner.
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
    /// Maximum number of stanzas per second. No limit by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub stanzas_per_second: Option<u32>,
    /// Maximum number of bytes per second. No limit by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 1_073_741_824))]
    pub bytes_per_second: Option<u32>,
}

/// `spec.trust` of a partner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartnerTrustSpec {
    /// ConfigMap key with CA certificates (PEM) that replace the public roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<ConfigMapKeyRef>,
    /// Pinned keys, accepted whatever their certificate says: SHA-256 of the SubjectPublicKeyInfo in
    /// lower-case hexadecimal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "fields::spki_pins")]
    pub pinned_spki_sha256: Vec<String>,
    /// Reaction to a key that is neither pinned nor known. `Ignore`, the default: none. `Warn`: it
    /// is counted and logged. `Refuse`: after the first key seen, a new one is accepted only once
    /// it is pinned.
    #[serde(default)]
    pub on_key_change: OnKeyChange,
}

/// `spec.probe`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Probe {
    /// Whether the partner is pinged. Defaults to false.
    pub enabled: bool,
    /// Seconds between pings. Defaults to 60.
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
    /// Generation of the spec that this status was made for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Authentication methods that the spec allows, best first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub authentication_methods: Vec<Method>,
    /// The same methods as one text, for `kubectl get`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub method_summary: Option<String>,
    /// Cause in one word where the partner is not ready, is suspended or cannot be reached: the reason of `Ready`, else
    /// the outcome of the step that failed. Absent where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub why: Option<String>,
    /// State of federation with the partner in each pool.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_POOLS),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub pools: Vec<PartnerPoolStatus>,
    /// Conditions of the partner, one for each type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "fields::conditions")]
    pub conditions: Vec<Condition>,
}

/// How one pool fares with a partner.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartnerPoolStatus {
    /// Name of the pool.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Number of authenticated streams that carry stanzas from the partner, over all replicas; a
    /// bidirectional one counts in both directions.
    #[serde(default)]
    pub inbound_streams: u32,
    /// Number of authenticated streams that carry stanzas to the partner, over all replicas.
    #[serde(default)]
    pub outbound_streams: u32,
    /// Authentication method of the newest stream.
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
    /// Expiry of the partner's certificate, as last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_certificate_not_after: Option<Time>,
    /// Time when a stream with the partner was last established.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_connected_time: Option<Time>,
    /// Newest failed attempt since the last success of its direction, one entry for each step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_STEPS), extend("x-kubernetes-list-type" = "atomic"))]
    pub last_attempt: Vec<AttemptStatus>,
    /// Time of the step of that attempt which failed, else of its last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempt_time: Option<Time>,
    /// SHA-256 of the SubjectPublicKeyInfo of the newest peer key, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub peer_key_sha256: Option<String>,
    /// Result of the newest ping, where `spec.probe` is enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeStatus>,
}

/// One step of an attempt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttemptStatus {
    /// Step of the attempt: `dns`, `tcp`, `tls`, `certificate`, `sasl`, `dialback` or `policy`.
    #[schemars(length(max = 32))]
    pub step: String,
    /// Outcome of the step: `Ok`, or the cause in one word.
    #[schemars(length(max = 64))]
    pub outcome: String,
    /// Direction of the stream: `Inbound` or `Outbound`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub direction: Option<String>,
    /// Domain of the partner that was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub domain: Option<String>,
    /// Address and port of the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub address: Option<String>,
    /// Explanation: what was expected and what was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_TEXT))]
    pub text: Option<String>,
    /// Name of the pod that tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_REPLICA))]
    pub replica: Option<String>,
}

impl AttemptStatus {
    /// Whether it ended an attempt or a part of it.
    #[must_use]
    pub fn failed(&self) -> bool {
        is_failure(&self.outcome)
    }
}

/// Whether an outcome of a step is a failure; a target that is only slow has not failed yet.
#[must_use]
pub fn is_failure(outcome: &str) -> bool {
    !matches!(outcome, "Ok" | "TcpSilent")
}

/// The newest ping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProbeStatus {
    /// Time when the ping was sent.
    pub time: Time,
    /// Whether the ping was answered in time.
    pub success: bool,
    /// Milliseconds until the answer; absent where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_milliseconds: Option<u32>,
}
