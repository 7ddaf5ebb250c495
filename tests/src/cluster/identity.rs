//! Who asks the API server: a certificate's user or a token's, as client and as kubeconfig file.

use anyhow::Result;
use base64::{Engine, prelude::BASE64_STANDARD};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

use crate::pki::Leaf;

/// What proves who asks.
#[derive(Clone, Debug)]
pub enum Credential {
    Certificate(Leaf),
    /// A bearer token.
    Token(String),
}

/// Somebody who can reach a server.
#[derive(Clone, Debug)]
pub struct ClusterIdentity {
    /// `https://HOST:PORT`.
    pub server: String,
    /// PEM of the server's root.
    pub authority: String,
    pub credential: Credential,
}

impl ClusterIdentity {
    /// The kubeconfig file's text (JSON, which is YAML), with `namespace` where nothing else is said.
    pub fn kubeconfig(&self, namespace: &str) -> String {
        self.document(namespace).to_string()
    }

    /// A client of the calling runtime; it asks in `namespace` by default.
    ///
    /// # Errors
    /// When the certificates are none.
    pub async fn client(&self, namespace: &str) -> Result<Client> {
        let kubeconfig: Kubeconfig = serde_json::from_value(self.document(namespace))?;
        let config =
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    }

    fn document(&self, namespace: &str) -> Value {
        let user = match &self.credential {
            Credential::Certificate(leaf) => json!({
                "client-certificate-data": BASE64_STANDARD.encode(&leaf.certificate),
                "client-key-data": BASE64_STANDARD.encode(&leaf.key),
            }),
            Credential::Token(token) => json!({ "token": token }),
        };
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "test", "cluster": {
                "server": self.server,
                "certificate-authority-data": BASE64_STANDARD.encode(&self.authority),
            }}],
            "users": [{ "name": "user", "user": user }],
            "contexts": [{ "name": "test", "context": {
                "cluster": "test", "user": "user", "namespace": namespace,
            }}],
            "current-context": "test",
        })
    }
}
