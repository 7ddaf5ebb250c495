//! `probe`: a pod of a pool walks to a partner, asked by the API server's port forwarding.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt, api::ListParams};
use xmpp_edge_proxy::probe::Report;

use super::{
    arguments::ProbeByPod,
    kubeconfig::{ClusterAccess, ClusterAccessError},
};
use crate::proxy_status::{
    POOL_LABEL,
    poll::{admin_port, is_ready},
    question::{PodAccess, PodQuestionError},
};

/// Why nothing was probed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    #[error("listing the pods of EdgePool {pool:?} in namespace {namespace:?}: {source}")]
    Pods {
        namespace: String,
        pool: String,
        source: Box<kube::Error>,
    },
    #[error(
        "no pod of EdgePool {pool:?} is ready in namespace {namespace:?}: kubectl describe epool {pool} says why, or name another --pool"
    )]
    NoPod { namespace: String, pool: String },
    #[error(
        "no way to port {port} of pod {pod:?}: {source}; it takes the right to create pods/portforward"
    )]
    Forward {
        pod: String,
        port: u16,
        source: Box<kube::Error>,
    },
    #[error("pod {pod:?} did not open port {port}")]
    NoStream { pod: String, port: u16 },
    #[error(transparent)]
    Access(#[from] ClusterAccessError),
    #[error(transparent)]
    Question(#[from] PodQuestionError),
    #[error("the pod's report cannot be read: {0}; let the pod and this program be of one version")]
    Report(#[from] serde_json::Error),
    #[error("pod {pod:?} answers with {code}: {text}")]
    Refused {
        pod: String,
        code: u16,
        text: String,
    },
}

/// What a pod found.
pub(super) struct ProbeOfPod {
    pub report: Report,
    /// `NAMESPACE/POD`.
    pub pod: String,
}

/// Has a ready pod of the pool probe.
///
/// # Errors
/// [`ProbeError`].
pub(super) async fn probe(asked: &ProbeByPod) -> Result<ProbeOfPod, ProbeError> {
    let access = ClusterAccess::of(asked.context.as_deref()).await?;
    let (namespace, pool) = match asked.pool.split_once('/') {
        Some((namespace, pool)) => (namespace.to_owned(), pool.to_owned()),
        None => (access.namespace, asked.pool.clone()),
    };
    let pod = ready_pod(&access.client, &namespace, &pool).await?;
    let (name, port) = (pod.name_any(), admin_port(&pod));
    let secrets = PodAccess::read(&access.client, &namespace, &pool).await?;
    let pods: Api<Pod> = Api::namespaced(access.client, &namespace);
    let forwarded = pods.portforward(&name, &[port]).await;
    let mut forwarded = forwarded.map_err(|source| ProbeError::Forward {
        pod: name.clone(),
        port,
        source: Box::new(source),
    })?;
    let stream = forwarded.take_stream(port);
    let stream = stream.ok_or_else(|| ProbeError::NoStream {
        pod: name.clone(),
        port,
    })?;
    let answer = secrets.probe(stream, &asked.domain, asked.from.as_ref());
    let answer = answer.await?;
    if answer.code != 200 {
        let text = String::from_utf8_lossy(&answer.body).trim().to_owned();
        let (pod, code) = (name, answer.code);
        return Err(ProbeError::Refused { pod, code, text });
    }
    Ok(ProbeOfPod {
        report: serde_json::from_slice(&answer.body)?,
        pod: format!("{namespace}/{name}"),
    })
}

/// A pod that serves.
async fn ready_pod(client: &Client, namespace: &str, pool: &str) -> Result<Pod, ProbeError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let of_pool = ListParams::default().labels(&format!("{POOL_LABEL}={pool}"));
    let found = api.list(&of_pool).await;
    let found = found.map_err(|source| ProbeError::Pods {
        namespace: namespace.to_owned(),
        pool: pool.to_owned(),
        source: Box::new(source),
    })?;
    let ready = found.items.into_iter().find(is_ready);
    ready.ok_or_else(|| ProbeError::NoPod {
        namespace: namespace.to_owned(),
        pool: pool.to_owned(),
    })
}
