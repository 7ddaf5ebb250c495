//! Objects that no operator gives a status: somebody made them where nobody looks, and waits.
//!
//! Their metadata alone is asked for, and of namespaces that this operator does not watch. An object has
//! been looked at where a manager of ours wrote its status, whoever's operator it was.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, Resource,
    api::{ListParams, PartialObjectMeta},
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::time::{MissedTickBehavior, interval};
use xmpp_edge_crds::kinds::{EdgePool, ExternalAccessPolicy, XmppFederatedPartner};

use crate::runtime::caches::Scope;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(60);
/// An operator that watches has said something after this long.
pub const SAID_AFTER: Duration = Duration::from_secs(60);
/// Objects in one answer.
const PAGE: u32 = 500;
/// Namespaces that are told of; more are counted by nobody.
const NAMESPACES: usize = 20;
/// What managers of statuses begin with.
const MANAGERS: &str = "xmpp-edge-operator/";

/// What is unwatched in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnwatchedObjects {
    /// `EdgePool/hq`, for example.
    pub first: String,
    pub count: usize,
}

/// By namespace.
pub type Unwatched = BTreeMap<String, UnwatchedObjects>;

/// A line for each namespace.
#[must_use]
pub fn lines(unwatched: &Unwatched) -> Vec<String> {
    let line = |(namespace, objects): (&String, &UnwatchedObjects)| {
        let more = match objects.count - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!(
            "nobody watches namespace {namespace:?}: {}{more} there have no status; add it to the chart's watchNamespaces, or make them in a namespace that is watched",
            objects.first
        )
    };
    unwatched.iter().take(NAMESPACES).map(line).collect()
}

/// Looks once, everywhere but at what `scope` watches.
///
/// # Errors
/// What the API server says, its refusal to list too.
pub async fn look(
    client: &Client,
    scope: Option<&Scope>,
    now: Timestamp,
) -> Result<Unwatched, kube::Error> {
    let mut found = Unwatched::new();
    let others = match scope {
        Some(Scope::Cluster) => return Ok(found),
        Some(Scope::Namespaces(names)) => {
            let names = names
                .iter()
                .map(|name| format!("metadata.namespace!={name}"));
            names.collect::<Vec<_>>().join(",")
        }
        None => String::new(),
    };
    gather::<EdgePool>(client, &others, now, &mut found).await?;
    gather::<XmppFederatedPartner>(client, &others, now, &mut found).await?;
    gather::<ExternalAccessPolicy>(client, &others, now, &mut found).await?;
    Ok(found)
}

async fn gather<K>(
    client: &Client,
    others: &str,
    now: Timestamp,
    found: &mut Unwatched,
) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::all(client.clone());
    let mut parameters = ListParams::default().fields(others).limit(PAGE);
    loop {
        let page = api.list_metadata(&parameters).await?;
        for object in page.items.iter().filter(|it| is_unwatched(it, now)) {
            let name = object.metadata.name.as_deref().unwrap_or_default();
            let namespace = object.metadata.namespace.clone().unwrap_or_default();
            let known = found.entry(namespace).or_insert_with(|| UnwatchedObjects {
                first: format!("{}/{name}", K::kind(&())),
                count: 0,
            });
            known.count += 1;
        }
        match page.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => parameters = parameters.continue_token(&next),
            None => return Ok(()),
        }
    }
}

fn is_unwatched<K>(object: &PartialObjectMeta<K>, now: Timestamp) -> bool {
    let ObjectMeta {
        creation_timestamp,
        deletion_timestamp,
        managed_fields,
        ..
    } = &object.metadata;
    let is_new = creation_timestamp
        .as_ref()
        .is_none_or(|created| now.duration_since(created.0).unsigned_abs() < SAID_AFTER);
    let mut managers = managed_fields.iter().flatten();
    let is_said = managers.any(|entry| {
        let manager = entry.manager.as_deref().unwrap_or_default();
        entry.subresource.as_deref() == Some("status") && manager.starts_with(MANAGERS)
    });
    !is_new && !is_said && deletion_timestamp.is_none()
}

/// Looks now and then, and tells each namespace once.
#[derive(Debug, Default)]
pub struct UnwatchedWatch {
    found: Mutex<Unwatched>,
}

impl UnwatchedWatch {
    /// What was found last, a line for each namespace.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        lines(&self.found.lock())
    }

    /// Looks until dropped.
    pub async fn follow(&self, client: &Client, scope: &Scope) {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_refused = false;
        loop {
            tick.tick().await;
            match look(client, Some(scope), Timestamp::now()).await {
                Ok(found) => self.note(found),
                Err(kube::Error::Api(status)) if status.code == 403 && !is_refused => {
                    is_refused = true;
                    tracing::info!(
                        error = %status.message,
                        "objects in namespaces that nobody watches are not looked for (chart value rbac.tellUnwatched)"
                    );
                }
                // It is looked again, and nothing depends on it.
                Err(error) => tracing::debug!(%error, "other namespaces cannot be looked at"),
            }
        }
    }

    fn note(&self, found: Unwatched) {
        let before = std::mem::replace(&mut *self.found.lock(), found.clone());
        let is_news =
            |(namespace, _): &(&String, &UnwatchedObjects)| !before.contains_key(*namespace);
        let news = found.iter().filter(is_news);
        let news: Unwatched = news.map(|(name, it)| (name.clone(), it.clone())).collect();
        for line in lines(&news) {
            tracing::warn!("{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn object(created: &str, managed: Value) -> PartialObjectMeta<EdgePool> {
        serde_json::from_value(
            json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {"name": "hq", "namespace": "edge", "creationTimestamp": created,
                "managedFields": managed}}),
        )
        .unwrap()
    }

    #[test]
    fn what_an_operator_wrote_a_status_of_is_watched_and_what_is_new_may_be() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-01T00:09:30Z");
        let by = |manager: &str, subresource: &str| json!([{"manager": manager, "subresource": subresource, "operation": "Apply"}]);
        for (created, managed, expected) in [
            (old, json!([]), true),
            (new, json!([]), false),
            (old, by("xmpp-edge-operator/partner", "status"), false),
            (old, by("xmpp-edge-operator/dns", ""), true),
            (old, by("kubectl", "status"), true),
        ] {
            let object = object(created, managed.clone());
            assert_eq!(is_unwatched(&object, now), expected, "{created} {managed}");
        }
    }

    #[test]
    fn a_namespace_is_told_with_the_first_of_its_objects() {
        let objects = UnwatchedObjects {
            first: "EdgePool/hq".to_owned(),
            count: 3,
        };
        let unwatched = [("edge".to_owned(), objects)].into();
        let told = lines(&unwatched);
        assert!(
            told[0].contains("\"edge\": EdgePool/hq and 2 more"),
            "{told:?}"
        );
    }
}
