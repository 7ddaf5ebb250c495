//! Secrets of sidecars whose servers are in other namespaces than their pools. Both sides consent: the pool names
//! the namespace, and whoever runs the operator the gateways that it gives Secrets to, with the namespaces of their pools.

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

/// `--sidecar-namespace`: whose sidecars' Secrets may be written, by the namespaces that they are written into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SidecarNamespaces(pub BTreeMap<String, BTreeSet<AllowedGateway>>);

/// A gateway whose sidecars' Secret may be written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AllowedGateway {
    /// Namespace of its pools; `None`: the only one that is watched, and nobody's where there are several. Names of
    /// gateways are each tenant's own choice, so that a name alone would allow them all.
    pub pools_in: Option<String>,
    pub gateway: String,
}

/// One `--sidecar-namespace`: `chat=edge/org,edge/lab`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarNamespace {
    pub namespace: String,
    pub gateways: BTreeSet<AllowedGateway>,
}

impl FromStr for SidecarNamespace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "give a namespace, and gateways with the namespaces of their pools, such as chat=edge/org,edge/lab";
        let (namespace, gateways) = text
            .split_once('=')
            .filter(|(namespace, gateways)| !namespace.is_empty() && !gateways.is_empty())
            .ok_or(FORM)?;
        let gateways = gateways.split(',').filter(|name| !name.is_empty());
        let gateways = gateways.map(|name| AllowedGateway::parse(name).ok_or(FORM));
        Ok(Self {
            namespace: namespace.to_owned(),
            gateways: gateways.collect::<Result<_, _>>()?,
        })
    }
}

impl AllowedGateway {
    fn parse(text: &str) -> Option<Self> {
        let (pools_in, gateway) = match text.split_once('/') {
            Some((pools_in, gateway)) => (Some(pools_in), gateway),
            None => (None, text),
        };
        let is_name = |name: &str| !name.is_empty() && !name.contains('/');
        (is_name(gateway) && pools_in.is_none_or(is_name)).then(|| Self {
            pools_in: pools_in.map(str::to_owned),
            gateway: gateway.to_owned(),
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
    /// What is allowed where `only` is the one namespace that is watched, if there is only one.
    #[must_use]
    pub fn where_watched(self, only: Option<&str>) -> Self {
        let complete = |gateway: AllowedGateway| AllowedGateway {
            pools_in: gateway.pools_in.or_else(|| only.map(str::to_owned)),
            ..gateway
        };
        let places = self.0.into_iter().map(|(namespace, gateways)| {
            let gateways = gateways.into_iter().map(complete).collect();
            (namespace, gateways)
        });
        Self(places.collect())
    }

    /// Namespaces and gateways that nobody is allowed to have a Secret for, as they name no pools.
    pub fn useless(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|(namespace, gateways)| {
            let useless = gateways.iter().filter(|it| it.pools_in.is_none());
            useless.map(move |it| (namespace.as_str(), it.gateway.as_str()))
        })
    }

    fn allow(&self, namespace: &str, gateway: &str, pools_in: &str) -> bool {
        let mut gateways = self.0.get(namespace).into_iter().flatten();
        gateways.any(|it| it.gateway == gateway && it.pools_in.as_deref() == Some(pools_in))
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
    if !allowed.allow(&place.namespace, gateway, namespace) {
        return HeldElsewhere::Refused(not_allowed(place, gateway, namespace, ""));
    }
    match state {
        SecretElsewhere::Unread => HeldElsewhere::NotYet,
        SecretElsewhere::Absent => HeldElsewhere::Data(None),
        SecretElsewhere::Held(secret) if is_ours(&secret, namespace) => {
            HeldElsewhere::Data(Some(inputs::material(&secret)))
        }
        SecretElsewhere::Held(secret) => HeldElsewhere::Refused(foreign(place, &secret)),
        SecretElsewhere::Forbidden(words) => {
            HeldElsewhere::Refused(not_allowed(place, gateway, namespace, &words))
        }
        SecretElsewhere::Failed(words) => HeldElsewhere::Refused(not_written(place, &words)),
    }
}

/// The namespace gives nothing to the pools of `pools_in`, with the line to add.
#[must_use]
pub fn not_allowed(place: &SecretPlace, gateway: &str, pools_in: &str, words: &str) -> Fault {
    let SecretPlace { namespace, name } = place;
    let words = if words.is_empty() {
        String::new()
    } else {
        format!(" ({words})")
    };
    Fault::new(
        Reason::NamespaceNotAllowed,
        format!(
            "the operator may not write Secret {name:?} into namespace {namespace:?} for pools of {pools_in:?}{words}: whoever runs it adds `sidecars: {{{namespace}: [{pools_in}/{gateway}]}}` to the chart's values, which makes the Role there, or you take sidecar.namespace out of the gateway"
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

    fn allowed(arguments: &[&str]) -> SidecarNamespaces {
        let arguments = arguments.iter();
        arguments
            .map(|text| text.parse::<SidecarNamespace>().unwrap())
            .collect()
    }

    #[test]
    fn both_sides_consent_and_nobody_s_secret_is_written_over() {
        let allowed = allowed(&["chat=edge/org,edge/lab", "chat=more,tenant/theirs"])
            .where_watched(Some("edge"));
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
                "sidecars: {chat: [edge/other]}",
            ),
            // Another's gateway of that name is not this one.
            (
                "chat",
                "theirs",
                SecretElsewhere::Absent,
                Some(Reason::NamespaceNotAllowed),
                "sidecars: {chat: [edge/theirs]}",
            ),
            (
                "elsewhere",
                "org",
                SecretElsewhere::Absent,
                Some(Reason::NamespaceNotAllowed),
                "sidecars: {elsewhere: [edge/org]}",
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
        for text in [
            "chat",
            "=org",
            "chat=",
            "chat=/org",
            "chat=edge/",
            "chat=edge/org/x",
        ] {
            assert!(text.parse::<SidecarNamespace>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_gateway_without_a_namespace_is_that_of_the_only_one_watched_and_of_several_nobody_s() {
        let given = || allowed(&["chat=org,tenant/lab"]);
        let alone = given().where_watched(Some("edge"));
        assert_eq!(alone.useless().count(), 0);
        let several = given().where_watched(None);
        assert_eq!(several.useless().collect::<Vec<_>>(), [("chat", "org")]);
        for (gateway, pools_in, where_alone, where_several) in [
            ("org", "edge", true, false),
            ("org", "tenant", false, false),
            ("lab", "tenant", true, true),
            ("lab", "edge", false, false),
        ] {
            let case = format!("{pools_in}/{gateway}");
            assert_eq!(
                alone.allow("chat", gateway, pools_in),
                where_alone,
                "{case}"
            );
            assert_eq!(
                several.allow("chat", gateway, pools_in),
                where_several,
                "{case}"
            );
        }
    }
}
