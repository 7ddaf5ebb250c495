//! A planned object: of a known kind, ready to be written.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, PersistentVolumeClaim, Secret, Service},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::Value;

/// The kinds that a pool leads to. The order is that of `render`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChildKind {
    Certificate,
    ConfigMap,
    Secret,
    NetworkPolicy,
    PodDisruptionBudget,
    Service,
    PersistentVolumeClaim,
    Deployment,
}

impl ChildKind {
    /// How the API server knows it.
    #[must_use]
    pub fn resource(self) -> ApiResource {
        match self {
            Self::Certificate => ApiResource::from_gvk_with_plural(
                &GroupVersionKind::gvk("cert-manager.io", "v1", "Certificate"),
                "certificates",
            ),
            Self::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
            Self::Secret => ApiResource::erase::<Secret>(&()),
            Self::NetworkPolicy => ApiResource::erase::<NetworkPolicy>(&()),
            Self::PodDisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
            Self::Service => ApiResource::erase::<Service>(&()),
            Self::PersistentVolumeClaim => ApiResource::erase::<PersistentVolumeClaim>(&()),
            Self::Deployment => ApiResource::erase::<Deployment>(&()),
        }
    }
}

/// One object, with all fields that the operator means and none else.
#[derive(Clone, Debug, PartialEq)]
pub enum Child {
    /// Of cert-manager, whose types are not linked.
    Certificate(Box<DynamicObject>),
    ConfigMap(Box<ConfigMap>),
    NetworkPolicy(Box<NetworkPolicy>),
    PodDisruptionBudget(Box<PodDisruptionBudget>),
    Service(Box<Service>),
    PersistentVolumeClaim(Box<PersistentVolumeClaim>),
    Deployment(Box<Deployment>),
}

impl Child {
    #[must_use]
    pub fn kind(&self) -> ChildKind {
        match self {
            Self::Certificate(_) => ChildKind::Certificate,
            Self::ConfigMap(_) => ChildKind::ConfigMap,
            Self::NetworkPolicy(_) => ChildKind::NetworkPolicy,
            Self::PodDisruptionBudget(_) => ChildKind::PodDisruptionBudget,
            Self::Service(_) => ChildKind::Service,
            Self::PersistentVolumeClaim(_) => ChildKind::PersistentVolumeClaim,
            Self::Deployment(_) => ChildKind::Deployment,
        }
    }

    /// `metadata.name`.
    #[must_use]
    pub fn name(&self) -> &str {
        let metadata = match self {
            Self::Certificate(object) => &object.metadata,
            Self::ConfigMap(object) => &object.metadata,
            Self::NetworkPolicy(object) => &object.metadata,
            Self::PodDisruptionBudget(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::PersistentVolumeClaim(object) => &object.metadata,
            Self::Deployment(object) => &object.metadata,
        };
        metadata.name.as_deref().unwrap_or_default()
    }

    /// The manifest, with `apiVersion` and `kind`.
    ///
    /// # Errors
    /// [`serde_json::Error`] should a value have no JSON form.
    pub fn manifest(&self) -> Result<Value, serde_json::Error> {
        match self {
            Self::Certificate(object) => serde_json::to_value(object),
            Self::ConfigMap(object) => serde_json::to_value(object),
            Self::NetworkPolicy(object) => serde_json::to_value(object),
            Self::PodDisruptionBudget(object) => serde_json::to_value(object),
            Self::Service(object) => serde_json::to_value(object),
            Self::PersistentVolumeClaim(object) => serde_json::to_value(object),
            Self::Deployment(object) => serde_json::to_value(object),
        }
    }
}
