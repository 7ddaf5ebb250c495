//! `spec.gateways[].sip`: a SIP server inside, and how the edge and it speak to each other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    edge_config::{EndOfSubscription, SipDialect, SipTransport},
    kinds::fields::{self, SecretRef},
};

/// `gateways[].sip`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.transport != 'Tcp' || self.allowPlaintext",
    "message": "transport Tcp sends messages and presence in the clear: set allowPlaintext: true where the path is trusted, or transport: Tls"
}, {
    "rule": "self.transport != 'Tcp' || !has(self.certificateSecretRef)",
    "message": "with transport Tcp the edge shows no certificate: remove certificateSecretRef, or set transport: Tls"
}]))]
pub struct PoolSip {
    /// What carries SIP, both ways: `Tls` (the default) or `Tcp`. UDP is not spoken.
    #[schemars(schema_with = "fields::sip_transport")]
    pub transport: SipTransport,
    /// How the server's clients write: `Simple` (the default, SIP/SIMPLE), or `Lync` (Lync, Skype for Business: messages
    /// in sessions).
    #[schemars(schema_with = "fields::sip_dialect")]
    pub dialect: SipDialect,
    /// Must be true with transport `Tcp`: messages go in the clear, and the server is known by its address
    /// alone. Defaults to false.
    pub allow_plaintext: bool,
    /// Host names that the server's certificate may have beside the host of `address` and the gateway's
    /// domains.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "fields::sip_server_names")]
    pub server_names: Vec<String>,
    /// Host name by which the server knows the edge: in Via, and in the certificate that the edge shows. Defaults to
    /// `<pool>.<namespace>.xmpp-edge.internal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub edge_name: Option<String>,
    /// Secret with the certificate that the edge shows to this server, both ways, for a server with another PKI: chain
    /// `tls.crt` and key `tls.key`, with `edgeName` as dNSName. Defaults to a certificate of the internal CA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_secret_ref: Option<SecretRef>,
    /// Most bytes of the body of one MESSAGE; a longer message is answered with an error. Defaults to 8192.
    #[schemars(range(min = 1_300, max = 65_536))]
    pub max_message_bytes: u32,
    /// Whether each side hears that somebody is writing (XEP-0085, RFC 3994). Defaults to true.
    pub typing: bool,
    /// Seconds for which the edge subscribes to presence of the server's users; refreshed at half of what the server
    /// grants. Defaults to 1800.
    #[schemars(range(min = 60, max = 86_400))]
    pub presence_expires_seconds: u32,
    /// What becomes of a contact once no device of a SIP user watches it any more: `Keep` (the default) keeps it, for
    /// clients end their subscriptions at each logout; `Unsubscribe` ends it (`unsubscribe`).
    #[schemars(schema_with = "fields::end_of_subscription")]
    pub end_of_subscription: EndOfSubscription,
}

impl Default for PoolSip {
    fn default() -> Self {
        Self {
            transport: SipTransport::Tls,
            dialect: SipDialect::Simple,
            allow_plaintext: false,
            server_names: Vec::new(),
            edge_name: None,
            certificate_secret_ref: None,
            max_message_bytes: 8_192,
            typing: true,
            presence_expires_seconds: 1_800,
            end_of_subscription: EndOfSubscription::Keep,
        }
    }
}
