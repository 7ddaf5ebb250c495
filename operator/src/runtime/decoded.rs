//! An object that may not be readable as its kind: then its metadata, its kill switch and its
//! status, as far as they can be had. One bad object must never stop the watch of all.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

/// An object as the API server holds it.
#[derive(Clone, Debug)]
pub enum Decoded<K> {
    Valid(K),
    Undecodable(Box<UndecodableObject>),
}

/// What can be said of an object that is not readable as its kind.
#[derive(Clone, Debug)]
pub struct UndecodableObject {
    pub metadata: ObjectMeta,
    pub error: String,
    /// `spec.suspended`, where that alone can be read.
    pub suspended: Option<bool>,
    pub spec: Value,
    pub status: Value,
}

impl<K> Decoded<K> {
    #[must_use]
    pub fn read(&self) -> Option<&K> {
        match self {
            Self::Valid(object) => Some(object),
            Self::Undecodable(_) => None,
        }
    }
}

impl<K: Resource> Decoded<K> {
    /// Whether it is being deleted: nothing is said of it any more.
    #[must_use]
    pub fn is_terminating(&self) -> bool {
        self.meta().deletion_timestamp.is_some()
    }
}

impl<'de, K: serde::de::DeserializeOwned + Resource> Deserialize<'de> for Decoded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        // Nobody here reads who wrote which field, and it is the larger half of an object.
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
            if let Some(annotations) = metadata
                .get_mut("annotations")
                .and_then(Value::as_object_mut)
            {
                // The whole object once more.
                annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
            }
        }
        match K::deserialize(&value) {
            Ok(object) => Ok(Self::Valid(object)),
            Err(error) => {
                let metadata = value.get("metadata").unwrap_or(&Value::Null);
                Ok(Self::Undecodable(Box::new(UndecodableObject {
                    metadata: ObjectMeta::deserialize(metadata).map_err(D::Error::custom)?,
                    error: error.to_string(),
                    suspended: value.pointer("/spec/suspended").and_then(Value::as_bool),
                    spec: value.get("spec").cloned().unwrap_or_default(),
                    status: value.get("status").cloned().unwrap_or_default(),
                })))
            }
        }
    }
}

impl<K: Resource> Resource for Decoded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }
    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }
    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }
    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }
    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Valid(object) => object.meta(),
            Self::Undecodable(unreadable) => &unreadable.metadata,
        }
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Valid(object) => object.meta_mut(),
            Self::Undecodable(unreadable) => &mut unreadable.metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;
    use xmpp_edge_crds::kinds::XmppFederatedPartner;

    fn read(spec: Value) -> Decoded<XmppFederatedPartner> {
        serde_json::from_value(json!({
            "apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "XmppFederatedPartner",
            "metadata": {"name": "p", "namespace": "n", "generation": 3, "managedFields": [{"manager": "x"}]},
            "spec": spec,
        }))
        .unwrap()
    }

    #[test]
    fn an_object_that_is_not_of_its_kind_keeps_name_and_kill_switch() {
        let Decoded::Undecodable(object) = read(json!({"domain": 7, "suspended": true})) else {
            panic!("it was read");
        };
        assert_eq!(object.metadata.name.as_deref(), Some("p"));
        assert_eq!(object.metadata.generation, Some(3));
        assert_eq!(object.suspended, Some(true));
        assert!(object.error.contains("domain") || object.error.contains("string"));
    }

    #[test]
    fn who_wrote_which_field_is_not_kept() {
        let object = read(json!({"domain": "p.example"}));
        assert!(object.read().is_some());
        assert!(object.meta().managed_fields.is_none());
    }
}
