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
    /// CA of the pool's own, for trials and closed groups. Partners must be told to trust it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_signed: Option<SelfSigned>,
    /// Secret with the certificate chain under `tls.crt` and the key under `tls.key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// Certificate issued and renewed by cert-manager. Needs a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_manager: Option<CertManager>,
    /// Certificate signing request: the operator makes key and request, someone signs it offline.
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
    /// Issuer that signs the certificate.
    pub issuer_ref: IssuerRef,
    /// Lifetime of a certificate, such as `2160h`. Defaults to cert-manager's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::go_duration")]
    pub duration: Option<String>,
    /// Time before its expiry at which it is renewed, such as `360h`. Defaults to cert-manager's
    /// default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "fields::go_duration")]
    pub renew_before: Option<String>,
    /// Common name (CN), for issuers that insist on one, such as Vault with `require_cn`: one of the
    /// certificate's names. None by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub common_name: Option<String>,
    /// Private key of the certificate.
    #[serde(default)]
    pub private_key: PrivateKey,
}

/// `certManager.privateKey`, in cert-manager's own terms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.size) || (has(self.algorithm) && self.algorithm == 'ECDSA' ? self.size in [256, 384, 521] : has(self.algorithm) && self.algorithm == 'Ed25519' ? false : self.size in [2048, 4096, 8192])",
    "message": "the size does not fit the algorithm: 2048, 4096 or 8192 for RSA, 256, 384 or 521 for ECDSA, none for Ed25519"
}]))]
pub struct PrivateKey {
    /// Algorithm of the key: `RSA`, `ECDSA` or `Ed25519`. Defaults to cert-manager's default, RSA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<CertManagerAlgorithm>,
    /// Size of the key in bits. Defaults to cert-manager's default for the algorithm.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 256, max = 8192))]
    pub size: Option<u32>,
    /// Whether a renewal makes a new key. `Never`, the default, keeps the key, so that partners
    /// that pinned it go on; `Always` makes a new one each time.
    pub rotation_policy: RotationPolicy,
}

/// `algorithm` of a key that cert-manager makes, spelled as cert-manager does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CertManagerAlgorithm {
    #[serde(rename = "RSA")]
    Rsa,
    #[serde(rename = "ECDSA")]
    Ecdsa,
    Ed25519,
}

/// `rotationPolicy` of a key that cert-manager makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RotationPolicy {
    #[default]
    Never,
    Always,
}

/// cert-manager's reference to an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IssuerRef {
    /// Name of the issuer. An `Issuer` must be in the namespace of the pool.
    #[schemars(schema_with = "fields::object_name")]
    pub name: String,
    /// Kind of the issuer: `Issuer` (the default), `ClusterIssuer`, or that of an external issuer.
    #[serde(default = "issuer_kind")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// API group of the issuer. Defaults to `cert-manager.io`.
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
    /// Defaults to `EcdsaP256`.
    #[serde(default)]
    pub key_algorithm: KeyAlgorithm,
    /// Distinguished name of the request. Empty by default: the names stand in subjectAltName.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
    /// Secret with the signed chain, leaf first, under `tls.crt`, which completes the request. The
    /// operator only reads it.
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
