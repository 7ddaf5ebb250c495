//! Files in, proxy in the process: the embedded default, without Kubernetes.

pub mod documents;
pub mod manifests;
