//! A question to one pod that a person waits for: what the admin port does for who has the pool's token.

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::{Method, body::Bytes};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use xmpp_edge_crds::domain::DomainName;

use super::{
    pod_tls::{PodTls, PodTlsError, issuer_secret},
    poll::token_secret,
};
use crate::runtime::http::{BearerToken, HttpError, HttpQuestion};

/// A pod answers a probe within a minute.
const LONGEST: Duration = Duration::from_secs(75);
/// Largest answer in bytes: a report has 24 targets at most.
const MAX_ANSWER: usize = 1 << 20;

/// Why a pod gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum PodQuestionError {
    #[error("Secret {name:?} of namespace {namespace:?} cannot be read: {source}")]
    Secret {
        namespace: String,
        name: String,
        source: Box<kube::Error>,
    },
    #[error("Secret {name:?} of namespace {namespace:?} has no key {key:?} as text")]
    NoKey {
        namespace: String,
        name: String,
        key: &'static str,
    },
    #[error(transparent)]
    Tls(#[from] PodTlsError),
    #[error("the pod does not answer: {0}")]
    Http(#[from] HttpError),
    #[error("the pod's answer cannot be read: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("the pod gave no answer within {} s", LONGEST.as_secs())]
    Late,
}

/// What the pods of a pool answer to, and by what they prove themselves.
#[derive(Debug)]
pub struct PodAccess {
    namespace: String,
    pool: String,
    token: BearerToken,
    /// PEM of the pool's intermediate.
    issuer: String,
}

/// What a pod said.
#[derive(Clone, Debug)]
pub struct PodAnswer {
    pub code: u16,
    pub body: Bytes,
}

impl PodAccess {
    /// Reads the Secrets of a pool, with the rights of `client`.
    ///
    /// # Errors
    /// [`PodQuestionError::Secret`], [`PodQuestionError::NoKey`].
    pub async fn read(
        client: &Client,
        namespace: &str,
        pool: &str,
    ) -> Result<Self, PodQuestionError> {
        let token = value(client, namespace, token_secret(pool), "token").await?;
        let issuer = value(client, namespace, issuer_secret(pool), "tls.crt").await?;
        Ok(Self {
            namespace: namespace.to_owned(),
            pool: pool.to_owned(),
            token: BearerToken::new(token.trim()),
            issuer,
        })
    }

    /// Has the pod at the other end walk to a partner's domain.
    ///
    /// # Errors
    /// [`PodQuestionError`]; what the pod refuses is an answer.
    pub async fn probe<S>(
        &self,
        connection: S,
        domain: &DomainName,
        from: Option<&DomainName>,
    ) -> Result<PodAnswer, PodQuestionError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // Names of domains need no escaping.
        let from = from.map_or(String::new(), |from| format!("&from={from}"));
        let path = format!("/probe?domain={domain}{from}");
        timeout(LONGEST, self.ask(connection, &Method::POST, &path))
            .await
            .unwrap_or(Err(PodQuestionError::Late))
    }

    async fn ask<S>(
        &self,
        connection: S,
        method: &Method,
        path: &str,
    ) -> Result<PodAnswer, PodQuestionError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let expected = PodTls {
            namespace: &self.namespace,
            pool: &self.pool,
            issuer: Some(&self.issuer),
        };
        // The token goes to nobody else.
        let connection = expected.connect(connection).await?;
        let question = HttpQuestion {
            method,
            host: "edge",
            path,
            token: Some(&self.token),
        };
        question
            .send_on(connection, async |answer| {
                let code = answer.status().as_u16();
                let body = Limited::new(answer.into_body(), MAX_ANSWER).collect();
                let body = body.await.map_err(PodQuestionError::Body)?.to_bytes();
                Ok(PodAnswer { code, body })
            })
            .await
    }
}

async fn value(
    client: &Client,
    namespace: &str,
    name: String,
    key: &'static str,
) -> Result<String, PodQuestionError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = api.get(&name).await;
    let mut secret = secret.map_err(|source| PodQuestionError::Secret {
        namespace: namespace.to_owned(),
        name: name.clone(),
        source: Box::new(source),
    })?;
    let value = secret.data.as_mut().and_then(|data| data.remove(key));
    value
        .and_then(|value| String::from_utf8(value.0).ok())
        .ok_or_else(|| PodQuestionError::NoKey {
            namespace: namespace.to_owned(),
            name,
            key,
        })
}
