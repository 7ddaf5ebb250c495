//! An API server that counts what is read of it.

#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;

use hyper::{Request, Response, StatusCode};
use k8s_openapi::ByteString;
use kube::client::Body;
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const NAMESPACE: &str = "n";

#[derive(Default)]
struct Served {
    secrets: BTreeMap<String, Secret>,
    version: u64,
    /// Names of Secrets that were read.
    read: Vec<String>,
    /// Those that it refuses to give.
    refused: BTreeSet<String>,
    /// What the watch has still to say.
    events: Vec<Event<PartialObjectMeta<Secret>>>,
}

/// Its watch says everything but data, as one of metadata does.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Served>>);

impl Server {
    fn client(&self) -> Client {
        let served = self.0.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let answer = answer(&mut served.lock(), request.uri().path());
            async move { Ok::<_, kube::Error>(answer) }
        });
        Client::new(service, NAMESPACE)
    }

    fn write(&self, name: &str, bytes: usize) {
        let mut served = self.0.lock();
        served.version += 1;
        let version = served.version;
        let uid = || format!("{name}-{version}");
        let before = served.secrets.get(name).and_then(ResourceExt::uid);
        let secret: Secret = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": NAMESPACE, "uid": before.unwrap_or_else(uid),
                "resourceVersion": version.to_string(), "annotations": {"whole": "x".repeat(bytes)}},
        }))
        .unwrap();
        let metadata = secret.metadata.clone();
        let value = ByteString(vec![u8::try_from(version % 251).unwrap(); bytes]);
        let data = Some([("k".to_owned(), value)].into());
        served
            .secrets
            .insert(name.to_owned(), Secret { data, ..secret });
        let event = Event::Apply(metadata.into_response_partial());
        served.events.push(event);
    }

    fn annotate(&self, name: &str) {
        let mut served = self.0.lock();
        served.version += 1;
        let version = served.version.to_string();
        let secret = served.secrets.get_mut(name).unwrap();
        secret.metadata.resource_version = Some(version);
        let event = Event::Apply(secret.metadata.clone().into_response_partial());
        served.events.push(event);
    }

    fn delete(&self, name: &str) {
        let mut served = self.0.lock();
        served.version += 1;
        if let Some(mut secret) = served.secrets.remove(name) {
            secret.metadata.resource_version = Some(served.version.to_string());
            let event = Event::Delete(secret.metadata.into_response_partial());
            served.events.push(event);
        }
    }

    fn relist(&self) {
        let mut served = self.0.lock();
        let listed = served.secrets.values();
        let listed = listed.map(|it| Event::InitApply(it.metadata.clone().into_response_partial()));
        let listed: Vec<_> = listed.collect();
        served.events = vec![Event::Init];
        served.events.extend(listed);
        served.events.push(Event::InitDone);
    }

    fn next(&self) -> Option<Event<PartialObjectMeta<Secret>>> {
        let mut served = self.0.lock();
        (!served.events.is_empty()).then(|| served.events.remove(0))
    }

    fn read(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().read)
    }
}

fn answer(served: &mut Served, path: &str) -> Response<Body> {
    let name = path.rsplit('/').next().unwrap().to_owned();
    served.read.push(name.clone());
    let status = |code: StatusCode, message: &str| {
        let status = json!({"kind": "Status", "status": "Failure", "code": code.as_u16(),
            "message": message, "reason": code.canonical_reason()});
        (code, status.to_string())
    };
    let (code, body) = match served.secrets.get(&name) {
        _ if served.refused.contains(&name) => status(StatusCode::FORBIDDEN, "not yours"),
        None => status(StatusCode::NOT_FOUND, "not found"),
        Some(secret) => (StatusCode::OK, serde_json::to_string(secret).unwrap()),
    };
    let answer = Response::builder().status(code);
    answer.body(Body::from(body.into_bytes())).unwrap()
}

/// What one watch fills, and who refers to it.
struct Followed {
    server: Server,
    client: Client,
    store: ReferencedStore<Secret>,
    applier: IdentityApplier<Secret>,
}

impl Followed {
    fn new() -> Self {
        let server = Server::default();
        Self {
            client: server.client(),
            server,
            store: ReferencedStore::default(),
            applier: IdentityApplier::of(None),
        }
    }

    /// Takes what the watch has to say; whether the namespace is to be looked at.
    fn hear(&mut self) -> bool {
        let mut touched = false;
        while let Some(event) = self.server.next() {
            touched |= !self.applier.take(&self.store, event).is_empty();
        }
        touched
    }

    async fn refer(&self, names: &[&str]) -> Option<Duration> {
        let names = names.iter().map(|it| (*it).to_owned()).collect();
        self.store.refer(NAMESPACE, names);
        self.store.read(&self.client, NAMESPACE).await
    }

    fn get(&self, name: &str) -> Result<Option<usize>, UnreadCause> {
        let found = self.store.get(NAMESPACE, name);
        let found = found.map_err(|error| error.cause)?;
        Ok(found.map(|secret| secret.data_bytes() - 1))
    }
}

#[tokio::test]
async fn what_nobody_refers_to_is_neither_read_nor_held() {
    let mut followed = Followed::new();
    for number in 0..1000 {
        followed.server.write(&format!("s{number}"), 1024);
    }
    followed.server.relist();
    followed.hear();
    followed.refer(&["s1", "s7", "none"]).await;
    let mut read = followed.server.read();
    read.sort();
    assert_eq!(read, ["s1", "s7"]);
    assert_eq!(followed.get("s7"), Ok(Some(1024)));
    assert_eq!(followed.get("none"), Ok(None));
    assert_eq!(followed.get("s2"), Err(UnreadCause::NotReferred));
    let (objects, bytes) = (2, 2 * 1025);
    assert_eq!(followed.store.size(), HeldSize { objects, bytes });
    let index = followed.store.index.get(NAMESPACE, "s2").unwrap();
    assert_eq!(index.metadata.annotations, None, "it may hold everything");
    followed.refer(&["s1"]).await;
    assert_eq!(followed.store.size().objects, 1);
    assert!(followed.server.read().is_empty(), "it is held");
    followed.refer(&[]).await;
    assert_eq!(followed.store.size(), HeldSize::default());
}

#[tokio::test]
async fn a_change_of_what_is_referred_to_is_followed_and_of_others_wakes_nobody() {
    let mut followed = Followed::new();
    for name in ["mine", "other"] {
        followed.server.write(name, 10);
    }
    followed.hear();
    followed.refer(&["mine", "later"]).await;
    followed.server.write("other", 11);
    assert!(!followed.hear());
    followed.server.write("mine", 12);
    assert!(followed.hear());
    assert_eq!(followed.get("mine"), Ok(Some(10)), "one pass, one state");
    followed.refer(&["mine", "later"]).await;
    assert_eq!(followed.get("mine"), Ok(Some(12)));
    followed.server.write("later", 13);
    assert!(followed.hear());
    assert_eq!(followed.get("later"), Ok(None), "one pass, one state");
    followed.refer(&["mine", "later"]).await;
    assert_eq!(followed.get("later"), Ok(Some(13)));
    followed.server.delete("mine");
    assert!(followed.hear());
    assert_eq!(followed.get("mine"), Ok(None), "deletions count at once");
    // A watch that was away tells by a list.
    followed.server.write("later", 14);
    followed.server.relist();
    assert!(followed.hear());
    followed.refer(&["mine", "later"]).await;
    assert_eq!(followed.get("later"), Ok(Some(14)));
    followed.server.relist();
    assert!(!followed.hear(), "nothing changed");
}

#[tokio::test]
async fn a_change_of_annotations_alone_is_no_other_form() {
    let mut followed = Followed::new();
    followed.server.write("mine", 10);
    followed.hear();
    followed.refer(&["mine"]).await;
    let hash = |followed: &Followed| {
        let mut hasher = DefaultHasher::new();
        followed.store.form(NAMESPACE, "mine").hash(&mut hasher);
        hasher.finish()
    };
    let before = hash(&followed);
    followed.server.annotate("mine");
    followed.hear();
    followed.refer(&["mine"]).await;
    assert_eq!(followed.server.read().len(), 2);
    assert_eq!(hash(&followed), before);
    followed.server.write("mine", 10);
    followed.hear();
    followed.refer(&["mine"]).await;
    assert_ne!(hash(&followed), before, "other bytes");
}

#[tokio::test]
async fn what_cannot_be_read_is_not_absent_holds_up_no_other_and_is_tried_again_later() {
    let mut followed = Followed::new();
    for name in ["mine", "refused"] {
        followed.server.write(name, 10);
    }
    followed.server.0.lock().refused = ["refused".to_owned()].into();
    followed.hear();
    let again = followed.refer(&["mine", "refused"]).await;
    assert!(again.is_some_and(|again| again <= Duration::from_secs(1)));
    assert_eq!(followed.get("mine"), Ok(Some(10)));
    let refused = followed.store.get(NAMESPACE, "refused").unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Secret \"refused\" cannot be read: not yours; give the operator the right to get it, it is tried again"
    );
    followed.server.read();
    followed.refer(&["mine", "refused"]).await;
    assert!(followed.server.read().is_empty(), "not at every look");
    followed.server.0.lock().refused.clear();
    followed.server.write("refused", 12);
    assert!(followed.hear());
    followed.refer(&["mine", "refused"]).await;
    assert_eq!(followed.get("refused"), Ok(Some(12)), "it is another form");
    // What was read before is not believed where the newest cannot be had.
    followed.server.0.lock().refused = ["mine".to_owned()].into();
    followed.server.write("mine", 13);
    followed.hear();
    followed.refer(&["mine", "refused"]).await;
    assert!(matches!(followed.get("mine"), Err(UnreadCause::Refused(_))));
    assert!(followed.store.last_read(NAMESPACE, "mine").is_some());
    followed.server.delete("mine");
    followed.hear();
    assert_eq!(followed.get("mine"), Ok(None));
}

/// What happens at the API server, on the way from it, or here.
#[derive(Clone, Copy, Debug)]
enum Step {
    Write(usize),
    Delete(usize),
    Watch,
    Relist,
    Read,
    /// This process writes it, and the answer comes at once.
    OwnWrite(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let name = 0_usize..4;
    prop_oneof![
        name.clone().prop_map(Step::Write),
        name.clone().prop_map(Step::Delete),
        name.prop_map(Step::OwnWrite),
        Just(Step::Watch),
        Just(Step::Watch),
        Just(Step::Relist),
        Just(Step::Read),
    ]
}

proptest! {
    /// Whatever the order of events, reads and own writes: once all was heard and read, what is
    /// referred to is held as the API server has it, and nothing else is.
    #[test]
    fn the_store_ends_with_what_is_referred_to(steps in proptest::collection::vec(any_step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut followed = Followed::new();
            let referred = ["0", "1", "absent"];
            followed.server.relist();
            for step in steps {
                match step {
                    Step::Write(name) => followed.server.write(&name.to_string(), name + 1),
                    Step::Delete(name) => followed.server.delete(&name.to_string()),
                    Step::Relist => followed.server.relist(),
                    Step::Read => drop(followed.refer(&referred).await),
                    Step::Watch => {
                        if let Some(event) = followed.server.next() {
                            followed.applier.take(&followed.store, event);
                        }
                    }
                    Step::OwnWrite(name) => {
                        let since = followed.store.epoch();
                        followed.server.write(&name.to_string(), name + 1);
                        let written = followed.server.0.lock().secrets[&name.to_string()].clone();
                        followed.store.created(written, since);
                    }
                }
            }
            followed.hear();
            followed.refer(&referred).await;
            let served = followed.server.0.lock();
            for name in referred {
                let there = served.secrets.get(name);
                let held = followed.store.get(NAMESPACE, name).unwrap();
                prop_assert_eq!(held.as_deref(), there, "{}", name);
            }
            let there = referred.iter().filter(|name| served.secrets.contains_key(**name));
            prop_assert_eq!(followed.store.size().objects, there.count());
            Ok(())
        })?;
    }
}
