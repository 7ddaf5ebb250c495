//! The cluster that a person's kubeconfig leads to, with that person's rights.

use kube::{
    Client, Config,
    config::{InferConfigError, KubeConfigOptions, KubeconfigError},
};

/// Why there is no way to a cluster.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClusterAccessError {
    #[error(
        "there is no access to a cluster: {0}; set KUBECONFIG, or run it in a pod with a ServiceAccount"
    )]
    Infer(#[from] InferConfigError),
    #[error("context {context:?} of the kubeconfig cannot be used: {source}")]
    Context {
        context: String,
        source: KubeconfigError,
    },
    #[error("the client for the API server cannot be made: {0}")]
    Client(kube::Error),
}

/// A client, and the namespace that its context means.
pub(super) struct ClusterAccess {
    pub client: Client,
    pub namespace: String,
}

impl ClusterAccess {
    /// By the context that is named, else as kubectl has it, else as a pod has it.
    ///
    /// # Errors
    /// [`ClusterAccessError`].
    pub(super) async fn of(context: Option<&str>) -> Result<Self, ClusterAccessError> {
        let config = match context {
            None => Config::infer().await?,
            Some(context) => {
                let options = KubeConfigOptions {
                    context: Some(context.to_owned()),
                    ..KubeConfigOptions::default()
                };
                let config = Config::from_kubeconfig(&options).await;
                config.map_err(|source| ClusterAccessError::Context {
                    context: context.to_owned(),
                    source,
                })?
            }
        };
        let namespace = config.default_namespace.clone();
        let client = Client::try_from(config).map_err(ClusterAccessError::Client)?;
        Ok(Self { client, namespace })
    }
}
