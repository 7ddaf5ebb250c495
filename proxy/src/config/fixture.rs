//! A configuration for unit tests: `org.example` with one server inside and the wildcard partner
//! `*.partner.example`, by dialback over plain TCP.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{ActiveConfig, ConfigInputs, ConfigSecrets};

/// The configuration after `change` of its document.
pub fn active_config(change: impl FnOnce(&mut Value)) -> ActiveConfig {
    let mut document = document();
    change(&mut document);
    of_document(document)
}

/// The document of it.
pub fn document() -> Value {
    json!({
        "version": {"major": 1, "minor": 0}, "generation": 1,
        "namespace": "default", "pool": "edge", "site": "a", "fqdn": "edge.org.example",
        "domains": ["org.example"], "namespaceDomains": ["org.example"],
        "listeners": {"s2s": 5269, "directTls": 0, "internal": 23456, "admin": 0, "dns": 0},
        "gateways": [{
            "domains": ["org.example"], "mode": "Direct", "address": "127.0.0.1:5269",
            "negotiation": {"tls": "NotSupported", "sasl": "NotSupported", "dialback": true},
            "methods": ["TcpDialback"],
        }],
        "partners": [{
            "name": "partner", "domains": ["*.partner.example"], "partnerType": "Federated",
            "negotiation": {"tls": "NotSupported", "sasl": "NotSupported", "dialback": true},
            "methods": ["TcpDialback"], "enableKeepAlive": true, "connectionLimit": 20,
        }],
        "access": {
            "policies": [{
                "name": "all", "scope": "Global", "enableFederationAccess": true,
                "enableXmppAccess": true, "enablePublicCloudAccess": true, "mode": "Enforce",
            }],
            "homeSites": {"org.example": "a"},
        },
        "settings": {},
        "contacts": "Embedded",
    })
}

/// The configuration of a whole document.
pub fn of_document(document: Value) -> ActiveConfig {
    with_secrets(document, |_| ())
}

/// The same, after `change` of what arrives beside it.
pub fn with_secrets(document: Value, change: impl FnOnce(&mut ConfigSecrets)) -> ActiveConfig {
    ActiveConfig::build(&inputs(document, change)).expect("a configuration")
}

/// What such a configuration is built of.
pub fn inputs(document: Value, change: impl FnOnce(&mut ConfigSecrets)) -> ConfigInputs {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(Vec::<String>::new()).expect("parameters");
    let authority = params.self_signed(&key).expect("a certificate").pem();
    let mut materials = ConfigSecrets {
        certificate: None,
        internal_ca: authority,
        issuer: None,
        dialback_secret: Zeroizing::new(b"a secret of the lab".to_vec()),
        dialback_previous: None,
        admin_token: None,
        contacts_url: None,
        contacts_ca: None,
        egress_credentials: None,
        sip_pairs: Default::default(),
    };
    change(&mut materials);
    ConfigInputs {
        config: Arc::new(serde_json::from_value(document).expect("a configuration")),
        document_sha256: None,
        materials: Arc::new(materials),
        edge_dials: None,
    }
}
