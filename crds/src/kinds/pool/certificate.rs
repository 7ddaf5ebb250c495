//! Where a pool's certificate comes from: four modes, of which a pool has one.
//!
//! What each mode does with it is the operator's (`secrets/`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kinds::fields::{self, SecretRef};

/// `spec.certificate`: exactly one mode.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.selfSigned), has(self.secretRef), has(self.certManager), has(self.csr)].filter(m, m).size() == 1",
    "message": "choose exactly one of selfSigned, secretRef, certManager and csr"
}]))]
pub struct Certificate {
    /// A CA of the pool's own: for trials and closed groups. Partners do not trust it by
    /// themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_signed: Option<SelfSigned>,
    /// A Secret with `tls.crt` and `tls.key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// cert-manager issues and renews it; needs a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_manager: Option<CertManager>,
    /// The offline way: the operator makes key and request, someone signs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csr: Option<Csr>,
}

/// `certificate.selfSigned`: nothing to set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SelfSigned {}

/// `certificate.certManager`, in cert-manager's own formats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertManager {
    /// The issuer that signs.
    pub issuer_ref: IssuerRef,
    /// How long a certificate is valid, as `2160h`; absent: cert-manager's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::go_duration")]
    pub duration: Option<String>,
    /// How long before its end it is renewed, as `360h`; absent: cert-manager's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::go_duration")]
    pub renew_before: Option<String>,
}

/// cert-manager's reference to an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IssuerRef {
    /// Name of the issuer; an `Issuer` must be in the namespace of the pool.
    #[schemars(schema_with = "fields::object_name")]
    pub name: String,
    /// `Issuer`, `ClusterIssuer`, or the kind of an external issuer.
    #[serde(default = "issuer_kind")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// API group of the issuer.
    #[serde(default = "issuer_group")]
    #[schemars(length(min = 1, max = 253))]
    pub group: String,
}

fn issuer_kind() -> String {
    "Issuer".into()
}
fn issuer_group() -> String {
    "cert-manager.io".into()
}

/// `certificate.csr`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Csr {
    /// Algorithm and size of the key. A change starts a new request beside the pair in use.
    #[serde(default)]
    pub key_algorithm: KeyAlgorithm,
    /// Distinguished name of the request; absent: an empty one, the names stand in subjectAltName.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
    /// The Secret whose `tls.crt`, the signed chain with the leaf first, completes the request.
    /// The operator only reads it.
    pub chain_secret_ref: SecretRef,
}

/// The key of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum KeyAlgorithm {
    #[default]
    EcdsaP256,
    EcdsaP384,
    Rsa2048,
    Rsa3072,
    Rsa4096,
}

/// A distinguished name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    /// Common name (CN).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub common_name: Option<String>,
    /// Organisation (O).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub organization: Option<String>,
    /// Organisational unit (OU).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub organizational_unit: Option<String>,
    /// Country (C): two letters of ISO 3166.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::country")]
    pub country: Option<String>,
    /// State or province (ST).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub state: Option<String>,
    /// Locality (L).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub locality: Option<String>,
}
