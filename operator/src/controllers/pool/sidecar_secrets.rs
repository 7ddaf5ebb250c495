//! Secrets of sidecars whose servers are in other namespaces than their pools. Both sides consent: the pool names
//! the namespace, and whoever runs the operator the gateways that it gives Secrets to.

use std::{collections::BTreeMap, collections::BTreeSet, str::FromStr};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Preconditions},
};
use xmpp_edge_crds::kinds::conditions::Reason;

use super::plan::metadata;
use crate::{
    compile::Fault,
    controllers::namespace::inputs,
    runtime::caches::{SecretElsewhere, SecretPlace},
    secrets::store::SecretData,
};

/// Annotation of such a Secret: the namespace of its pools.
pub const POOLS_IN: &str = "xmpp-edge.dev/pools-in";

/// `--sidecar-namespace`: gateways by the namespaces that sidecars' Secrets may be written into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SidecarNamespaces(pub BTreeMap<String, BTreeSet<String>>);

/// One `--sidecar-namespace`: `chat=org,lab`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarNamespace {
    pub namespace: String,
    pub gateways: BTreeSet<String>,
}

impl FromStr for SidecarNamespace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, gateways) = text
            .split_once('=')
            .filter(|(namespace, gateways)| !namespace.is_empty() && !gateways.is_empty())
            .ok_or("give a namespace and names of gateways, such as chat=org,lab")?;
        let gateways = gateways.split(',').filter(|name| !name.is_empty());
        Ok(Self {
            namespace: namespace.to_owned(),
            gateways: gateways.map(str::to_owned).collect(),
        })
    }
}

impl FromIterator<SidecarNamespace> for SidecarNamespaces {
    fn from_iter<I: IntoIterator<Item = SidecarNamespace>>(given: I) -> Self {
        let mut all = Self::default();
        for SidecarNamespace {
            namespace,
            gateways,
        } in given
        {
            all.0.entry(namespace).or_default().extend(gateways);
        }
        all
    }
}

impl SidecarNamespaces {
    fn allow(&self, namespace: &str, gateway: &str) -> bool {
        let gateways = self.0.get(namespace);
        gateways.is_some_and(|gateways| gateways.contains(gateway))
    }
}

/// What a gateway's sidecars prove themselves by, as far as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct SidecarIdentity {
    pub gateway: String,
    pub place: SecretPlace,
    pub state: IdentityState,
}

#[derive(Clone, Debug, PartialEq)]
pub enum IdentityState {
    /// Its Secret is in place.
    Issued {
        not_after: Timestamp,
    },
    /// Nothing can be said yet.
    NotYet,
    Refused(Fault),
}

/// What there is to renew, or why there is nothing to write.
#[derive(Debug)]
pub enum HeldElsewhere {
    /// `None`: none is there.
    Data(Option<SecretData>),
    NotYet,
    Refused(Fault),
}

/// What is held at `place` for `gateway` of the pools of `namespace`.
#[must_use]
pub fn held(
    allowed: &SidecarNamespaces,
    place: &SecretPlace,
    gateway: &str,
    namespace: &str,
    state: SecretElsewhere,
) -> HeldElsewhere {
    if !allowed.allow(&place.namespace, gateway) {
        return HeldElsewhere::Refused(not_allowed(place, gateway, ""));
    }
    match state {
        SecretElsewhere::Unread => HeldElsewhere::NotYet,
        SecretElsewhere::Absent => HeldElsewhere::Data(None),
        SecretElsewhere::Held(secret) if is_ours(&secret, namespace) => {
            HeldElsewhere::Data(Some(inputs::material(&secret)))
        }
        SecretElsewhere::Held(secret) => HeldElsewhere::Refused(foreign(place, &secret)),
        SecretElsewhere::Forbidden(words) => {
            HeldElsewhere::Refused(not_allowed(place, gateway, &words))
        }
        SecretElsewhere::Failed(words) => HeldElsewhere::Refused(not_written(place, &words)),
    }
}

/// The namespace gives nothing, with the line to add.
#[must_use]
pub fn not_allowed(place: &SecretPlace, gateway: &str, words: &str) -> Fault {
    let SecretPlace { namespace, name } = place;
    let words = if words.is_empty() {
        String::new()
    } else {
        format!(" ({words})")
    };
    Fault::new(
        Reason::NamespaceNotAllowed,
        format!(
            "the operator may not write Secret {name:?} into namespace {namespace:?}{words}: whoever runs it adds `sidecars: {{{namespace}: [{gateway}]}}` to the chart's values, which makes the Role there, or you take sidecar.namespace out of the gateway"
        ),
    )
}

#[must_use]
pub fn not_written(place: &SecretPlace, words: &str) -> Fault {
    let SecretPlace { namespace, name } = place;
    Fault::new(
        Reason::SecretNotWritten,
        format!(
            "Secret {name:?} in namespace {namespace:?}: {words}; it is tried again: the namespace has to be there, and the API server to take it"
        ),
    )
}

fn foreign(place: &SecretPlace, secret: &Secret) -> Fault {
    let SecretPlace { namespace, name } = place;
    let whose = match secret.annotations().get(POOLS_IN) {
        Some(other) => format!("belongs to the pools of namespace {other:?}"),
        None => "was not made for this pool".to_owned(),
    };
    Fault::new(
        Reason::SecretNotWritten,
        format!(
            "Secret {name:?} in namespace {namespace:?} is there already and {whose}: delete it, or give the gateway another name"
        ),
    )
}

/// Whether the operator made it for the pools of `namespace`.
#[must_use]
pub fn is_ours(secret: &Secret, namespace: &str) -> bool {
    let managed = secret.labels().get("app.kubernetes.io/managed-by");
    managed.map(String::as_str) == Some(metadata::MANAGED_BY)
        && secret.annotations().get(POOLS_IN).map(String::as_str) == Some(namespace)
}

/// No gateway of `namespace` refers to it any more: it is deleted where it is ours. What fails stays there, and
/// proves nothing to pools that do not have its gateway.
pub async fn withdraw(client: &Client, namespace: &str, secret: &Secret) {
    if !is_ours(secret, namespace) {
        return;
    }
    let (place, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
    let api: Api<Secret> = Api::namespaced(client.clone(), &place);
    let only_this = DeleteParams {
        preconditions: Some(Preconditions {
            uid: secret.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match api.delete(&name, &only_this).await {
        Ok(_) => tracing::info!(namespace = place, name, "deleted"),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => tracing::warn!(
            namespace = place, name, %error,
            "a sidecar's Secret that nothing refers to any more could not be deleted: delete it by hand"
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn secret(labels: &serde_json::Value, annotations: &serde_json::Value) -> SecretElsewhere {
        let secret = json!({"metadata": {"name": "xmpp-edge-sidecar-org", "namespace": "chat",
            "labels": labels, "annotations": annotations}});
        SecretElsewhere::Held(Arc::new(serde_json::from_value(secret).unwrap()))
    }

    #[test]
    fn both_sides_consent_and_nobody_s_secret_is_written_over() {
        let allowed: SidecarNamespaces = ["chat=org,lab", "chat=more"]
            .into_iter()
            .map(|text| text.parse::<SidecarNamespace>().unwrap())
            .collect();
        let ours = json!({"app.kubernetes.io/managed-by": "xmpp-edge-operator"});
        let of = |namespace| json!({"xmpp-edge.dev/pools-in": namespace});
        let forbidden = || SecretElsewhere::Forbidden("secrets is forbidden".to_owned());
        for (namespace, gateway, state, reason, words) in [
            ("chat", "org", SecretElsewhere::Absent, None, ""),
            ("chat", "more", SecretElsewhere::Absent, None, ""),
            ("chat", "org", secret(&ours, &of("edge")), None, ""),
            (
                "chat",
                "other",
                SecretElsewhere::Absent,
                Some(Reason::NamespaceNotAllowed),
                "sidecars: {chat: [other]}",
            ),
            (
                "elsewhere",
                "org",
                SecretElsewhere::Absent,
                Some(Reason::NamespaceNotAllowed),
                "sidecars: {elsewhere: [org]}",
            ),
            (
                "chat",
                "org",
                forbidden(),
                Some(Reason::NamespaceNotAllowed),
                "secrets is forbidden",
            ),
            (
                "chat",
                "org",
                SecretElsewhere::Failed("no route".to_owned()),
                Some(Reason::SecretNotWritten),
                "no route",
            ),
            (
                "chat",
                "org",
                secret(&ours, &of("others")),
                Some(Reason::SecretNotWritten),
                "pools of namespace \"others\"",
            ),
            (
                "chat",
                "org",
                secret(&json!({}), &of("edge")),
                Some(Reason::SecretNotWritten),
                "delete it",
            ),
        ] {
            let place = SecretPlace {
                namespace: namespace.to_owned(),
                name: format!("xmpp-edge-sidecar-{gateway}"),
            };
            let found = held(&allowed, &place, gateway, "edge", state);
            match (found, reason) {
                (HeldElsewhere::Data(_), None) => {}
                (HeldElsewhere::Refused(fault), Some(reason)) => {
                    assert_eq!(fault.reason, reason);
                    assert!(fault.message.contains(words), "{}", fault.message);
                }
                (found, _) => panic!("{namespace} {gateway}: {found:?}"),
            }
        }
        for text in ["chat", "=org", "chat="] {
            assert!(text.parse::<SidecarNamespace>().is_err(), "{text}");
        }
    }
}
