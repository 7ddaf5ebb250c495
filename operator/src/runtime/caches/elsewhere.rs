//! Secrets in namespaces that are not watched, each by its name alone: a Role there gives no more. A namespace
//! that is gone or forbids it is a state of that one Secret, and holds up nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    task::{AbortHandle, JoinSet},
};

use super::{super::backoff::Backoff, readiness::status_code, triggers::Triggers};

/// Characters of what the API server says that are told on.
const MOST_WORDS: usize = 300;

/// A Secret's namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretPlace {
    pub namespace: String,
    pub name: String,
}

/// What is known of such a Secret.
#[derive(Clone, Debug, PartialEq)]
pub enum SecretElsewhere {
    /// It was not looked for yet.
    Unread,
    Absent,
    Held(Arc<Secret>),
    /// The API server does not let this operator read it, in its words.
    Forbidden(String),
    /// It could not be read, and never was.
    Failed(String),
}

/// Those that any watched namespace refers to.
#[derive(Debug, Default)]
pub struct SecretsElsewhere {
    places: Mutex<BTreeMap<SecretPlace, FollowedSecret>>,
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
struct FollowedSecret {
    /// Namespaces that refer to it, with who is told of news.
    owners: BTreeMap<String, Arc<Notify>>,
    state: SecretElsewhere,
    watch: AbortHandle,
}

impl SecretsElsewhere {
    /// `owner` refers to these from now on, and to no others: those are watched until nobody does. Answers what
    /// was held of the ones that are let go.
    pub fn refer(
        self: &Arc<Self>,
        client: &Client,
        triggers: &Triggers,
        owner: &str,
        wanted: &BTreeSet<SecretPlace>,
    ) -> Vec<Arc<Secret>> {
        let mut places = self.places.lock();
        for place in wanted {
            let own = places.entry(place.clone()).or_insert_with(|| {
                let mut tasks = self.tasks.lock();
                while tasks.try_join_next().is_some() {}
                let watch = Arc::clone(self).follow(client.clone(), place.clone());
                FollowedSecret {
                    owners: BTreeMap::new(),
                    state: SecretElsewhere::Unread,
                    watch: tasks.spawn(watch),
                }
            });
            own.owners.insert(owner.to_owned(), triggers.of(owner));
        }
        let mut let_go = Vec::new();
        places.retain(|place, own| {
            let goes = !wanted.contains(place) && own.owners.remove(owner).is_some();
            if goes && own.owners.is_empty() {
                own.watch.abort();
                if let SecretElsewhere::Held(secret) = &own.state {
                    let_go.push(Arc::clone(secret));
                }
                return false;
            }
            true
        });
        let_go
    }

    #[must_use]
    pub fn get(&self, place: &SecretPlace) -> SecretElsewhere {
        let places = self.places.lock();
        let own = places.get(place).map(|own| own.state.clone());
        own.unwrap_or(SecretElsewhere::Unread)
    }

    /// The answer to a write of our own: it counts unless the watch was faster.
    pub fn written(&self, place: &SecretPlace, secret: Secret) {
        let mut places = self.places.lock();
        if let Some(own) = places.get_mut(place) {
            let held = match &own.state {
                SecretElsewhere::Held(held) => version(held),
                _ => None,
            };
            if held <= version(&secret) {
                own.state = SecretElsewhere::Held(Arc::new(secret));
            }
        }
    }

    /// Breaks the watches off, and returns once nothing of them runs any more.
    pub async fn shutdown(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        tasks.shutdown().await;
    }

    /// Takes in what a watch says.
    fn told(&self, place: &SecretPlace, told: SecretElsewhere) {
        let mut places = self.places.lock();
        let Some(own) = places.get_mut(place) else {
            return;
        };
        let stays = match (&own.state, &told) {
            // What was read is better than nothing, while it cannot be read again.
            (SecretElsewhere::Held(_) | SecretElsewhere::Absent, SecretElsewhere::Failed(_)) => {
                true
            }
            (before, after) => before == after,
        };
        if !stays {
            own.state = told;
            own.owners.values().for_each(|owner| owner.notify_one());
        }
    }

    /// Watches one Secret for as long as it is referred to.
    async fn follow(self: Arc<Self>, client: Client, place: SecretPlace) {
        let api: Api<Secret> = Api::namespaced(client, &place.namespace);
        let by_name = watcher::Config::default().fields(&format!("metadata.name={}", place.name));
        let events = watcher(api, by_name).backoff(Backoff::api_server());
        let mut events = std::pin::pin!(events);
        // What a list has, until it has ended.
        let mut listed = None;
        while let Some(event) = events.next().await {
            let told = match event {
                Ok(Event::Init) => {
                    listed = None;
                    continue;
                }
                Ok(Event::InitApply(secret)) => {
                    listed = Some(secret);
                    continue;
                }
                Ok(Event::InitDone) => match listed.take() {
                    Some(secret) => SecretElsewhere::Held(Arc::new(secret)),
                    None => SecretElsewhere::Absent,
                },
                Ok(Event::Apply(secret)) => SecretElsewhere::Held(Arc::new(secret)),
                Ok(Event::Delete(_)) => SecretElsewhere::Absent,
                Err(error) => {
                    let words: String = error.to_string().chars().take(MOST_WORDS).collect();
                    match status_code(&error) {
                        Some(401 | 403) => SecretElsewhere::Forbidden(words),
                        _ => SecretElsewhere::Failed(words),
                    }
                }
            };
            self.told(&place, told);
        }
    }
}

fn version(secret: &Secret) -> Option<u64> {
    secret.resource_version()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn place(name: &str) -> SecretPlace {
        SecretPlace {
            namespace: "chat".to_owned(),
            name: name.to_owned(),
        }
    }

    fn secret(version: &str) -> Secret {
        serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "chat",
            "resourceVersion": version}}))
        .unwrap()
    }

    #[tokio::test]
    async fn one_that_nobody_refers_to_is_let_go_and_an_old_answer_replaces_nothing() {
        let silent = tower::service_fn(|_: hyper::Request<kube::client::Body>| {
            std::future::pending::<Result<hyper::Response<kube::client::Body>, kube::Error>>()
        });
        let client = Client::new(silent, "n");
        let (triggers, _fresh) = Triggers::new();
        let elsewhere = Arc::new(SecretsElsewhere::default());
        let refer = |owner: &str, names: &[&str]| {
            let wanted = names.iter().map(|name| place(name)).collect();
            elsewhere.refer(&client, &triggers, owner, &wanted)
        };
        refer("n", &["a", "b"]);
        refer("m", &["a"]);
        assert_eq!(elsewhere.get(&place("a")), SecretElsewhere::Unread);
        elsewhere.told(&place("a"), SecretElsewhere::Forbidden("no".to_owned()));
        for owner in ["m", "n"] {
            triggers.of(owner).notified().await;
        }
        elsewhere.written(&place("a"), secret("7"));
        elsewhere.written(&place("a"), secret("6"));
        let SecretElsewhere::Held(held) = elsewhere.get(&place("a")) else {
            panic!("it was written");
        };
        assert_eq!(version(&held), Some(7));
        let failed = SecretElsewhere::Failed("no route".to_owned());
        elsewhere.told(&place("a"), failed);
        let state = elsewhere.get(&place("a"));
        assert!(matches!(state, SecretElsewhere::Held(_)), "it was read");
        assert!(refer("n", &[]).is_empty(), "m has it still");
        assert_eq!(refer("m", &[]).len(), 1);
        assert_eq!(elsewhere.get(&place("a")), SecretElsewhere::Unread);
        elsewhere.shutdown().await;
    }
}
