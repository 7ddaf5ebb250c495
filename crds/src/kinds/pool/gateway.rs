//! `spec.gateways[]`: the organisation's own servers, and how edges and they reach each other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PoolSidecar, PoolSip};
use crate::{
    edge_config::GatewayMode,
    kinds::fields::{self, ConfigMapKeyRef},
    negotiation::{KeyBinding, MethodSet, Negotiation, NegotiationError, Requirement},
};

/// The server of some own domains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.trust) || !has(self.trust.caConfigMapRef) || !has(self.negotiation) || self.negotiation.saslNegotiation != 'NotSupported'",
        "message": "a pinned key, an own CA and onKeyChange: Refuse bind the certificate, which dialback does not prove, so that no authentication method is left: set saslNegotiation to Required or Optional, or take them out of trust"
    },
    {
        "rule": "self.mode != 'Direct' || has(self.address)",
        "message": "mode Direct needs the server's address: write address as host:port, or let a sidecar beside the server dial the edge (mode: Sidecar)"
    },
    {
        "rule": "self.mode != 'Sip' || has(self.address)",
        "message": "mode Sip needs the server's address: write address as host:port, or as host alone where DNS has SRV records of it"
    },
    {
        "rule": "self.mode == 'Sip' || !has(self.address) || self.address.matches(':[0-9]+$')",
        "fieldPath": ".address",
        "message": "write host:port: a host alone is for mode Sip, where SRV records name its servers"
    },
    {
        "rule": "self.mode == 'Sip' || !has(self.sip)",
        "message": "sip is for mode Sip: set mode: Sip, or remove sip"
    },
    {
        "rule": "self.mode != 'Sip' || !has(self.negotiation)",
        "message": "negotiation is for XMPP servers: remove it from a gateway of mode Sip"
    },
    {
        "rule": "self.mode != 'Sip' || self.confirmByPing && !has(self.sidecar)",
        "message": "confirmByPing and sidecar are for XMPP servers: remove them from a gateway of mode Sip"
    }
]))]
pub struct PoolGateway {
    /// Name of the gateway: what tells the entries of the list apart. Defaults to the first of
    /// `domains`; of several gateways, one at most may leave it out.
    #[serde(default)]
    #[schemars(schema_with = "fields::gateway_name")]
    pub name: String,
    /// Own domains that this server is authoritative for.
    #[schemars(schema_with = "fields::gateway_domains")]
    pub domains: Vec<String>,
    /// Who connects to whom. `Direct`, the default: the edge connects to `address`. `Sidecar`: a
    /// sidecar beside the server connects to every pod of the pool, and nothing in the DMZ opens a
    /// connection inwards. `Sip`: the server speaks SIP; it and the edge connect to each other.
    #[serde(default = "direct")]
    #[schemars(schema_with = "fields::gateway_mode")]
    pub mode: GatewayMode,
    /// Address of the server as `host:port`; an IPv6 address stands in brackets. A host name must
    /// be complete (`prosody.chat.svc.cluster.local`): search lists do not apply. With mode `Sip` also `host` alone:
    /// its SRV records say where the servers are (`_sips._tcp`, with transport `Tcp` `_sip._tcp`); without any it is
    /// the host itself, at port 5061, with `Tcp` 5060. Required with modes `Direct` and `Sip`. With mode `Sidecar` the
    /// edge never connects to it: it is where the organisation's other servers reach this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::gateway_address")]
    pub address: Option<String>,
    /// TLS and authentication between the server and the edge, or its sidecar. Defaults to TLS
    /// `Required`, SASL `Optional` and dialback; with mode `Sidecar` TLS is `Optional`, for the two share
    /// a loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negotiation: Option<GatewayNegotiation>,
    /// Whether pings (XEP-0199) confirm what was sent, where the server neither acknowledges
    /// (XEP-0198) nor answers questions of dialback: at most one a second while something is
    /// unconfirmed. Defaults to true.
    #[serde(default = "fields::yes")]
    pub confirm_by_ping: bool,
    /// CA certificates that the server's certificate may come from, beside the internal CA of the
    /// namespace. Defaults to the internal CA alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<GatewayTrust>,
    /// Sidecars beside the server. With mode `Direct` they may connect already, and carry nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<PoolSidecar>,
    /// How the edge and a SIP server speak to each other; for mode `Sip` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sip: Option<PoolSip>,
}

impl PoolGateway {
    /// `negotiation`, or what is in force without it.
    #[must_use]
    pub fn negotiation(&self) -> Negotiation {
        match (&self.negotiation, self.mode) {
            (Some(given), _) => given.into(),
            (None, GatewayMode::Direct | GatewayMode::Sip) => {
                (&GatewayNegotiation::default()).into()
            }
            (None, GatewayMode::Sidecar) => Negotiation {
                tls: Requirement::Optional,
                ..(&GatewayNegotiation::default()).into()
            },
        }
    }

    /// Whether sidecars may open trunks for it.
    #[must_use]
    pub fn takes_trunks(&self) -> bool {
        self.sidecar.is_some() || self.mode == GatewayMode::Sidecar
    }

    /// Whether `trust` says from which authority the server's certificate must be.
    #[must_use]
    pub fn key_binding(&self) -> KeyBinding {
        let own_ca = self
            .trust
            .as_ref()
            .is_some_and(|trust| trust.ca_config_map_ref.is_some());
        KeyBinding::of(own_ca, false, false)
    }

    /// The methods that `negotiation` and `trust` leave usable.
    ///
    /// # Errors
    /// As [`Negotiation::methods`].
    pub fn methods(&self) -> Result<MethodSet, NegotiationError> {
        self.negotiation().methods(self.key_binding())
    }
}

impl PoolGateway {
    /// The name in force: that of the spec, or the first domain.
    #[must_use]
    pub fn effective_name(&self) -> &str {
        let first = self.domains.first().map_or("", String::as_str);
        Some(self.name.as_str())
            .filter(|name| !name.is_empty())
            .unwrap_or(first)
    }
}

fn direct() -> GatewayMode {
    GatewayMode::Direct
}

/// `gateways[].negotiation`. Plaintext needs no opt-in here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.saslNegotiation == 'NotSupported' || self.tlsNegotiation != 'NotSupported'",
        "message": "saslNegotiation needs TLS, but tlsNegotiation is NotSupported: set saslNegotiation to NotSupported, or allow TLS"
    },
    {
        "rule": "self.saslNegotiation != 'NotSupported' || self.supportDialbackNegotiation",
        "message": "no authentication method is left: enable saslNegotiation, or set supportDialbackNegotiation to true"
    }
]))]
pub struct GatewayNegotiation {
    /// Whether streams with the server use TLS: `Required` (the default), `Optional` (where the
    /// server offers it) or `NotSupported` (never).
    pub tls_negotiation: Requirement,
    /// Whether the server and the edge authenticate by certificate (SASL EXTERNAL): `Required`,
    /// `Optional` (the default; dialback where it fails) or `NotSupported` (never).
    pub sasl_negotiation: Requirement,
    /// Whether Server Dialback (XEP-0220) may authenticate domains. Defaults to true.
    pub support_dialback_negotiation: bool,
}
impl Default for GatewayNegotiation {
    fn default() -> Self {
        Self {
            tls_negotiation: Requirement::Required,
            sasl_negotiation: Requirement::Optional,
            support_dialback_negotiation: true,
        }
    }
}
impl From<&GatewayNegotiation> for Negotiation {
    fn from(gateway: &GatewayNegotiation) -> Self {
        Self {
            tls: gateway.tls_negotiation,
            sasl: gateway.sasl_negotiation,
            dialback: gateway.support_dialback_negotiation,
        }
    }
}

/// `gateways[].trust`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayTrust {
    /// ConfigMap key with CA certificates (PEM) that the server's certificate may come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<ConfigMapKeyRef>,
    /// Whether certificates of public CAs are accepted too. Defaults to false.
    #[serde(default)]
    pub public_roots: bool,
}
