//! ConfigMap `<pool>-peer-keys`: keys of partners that pods saw live, compiled in from there.
//!
//! What is in it is decided by [`crate::compile::peer_keys`], as in standalone.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
};
use tokio::time::Instant;
use xmpp_edge_crds::{
    edge_config::EdgeConfig,
    kinds::conditions::{ConditionType, Reason},
};

use super::snapshot::{Context, NamespaceSnapshot};
use crate::{
    compile::{
        Diagnostic, Kind, ObjectRef, Severity,
        peer_keys::{self, PeerKeyHash, PeerKeysData},
    },
    proxy_status::{PoolReport, model::ProxyStatus},
    runtime::held_back::{HeldBack, Pause},
    text::listed,
};

/// Field manager of these ConfigMaps.
const MANAGER: &str = "xmpp-edge-operator/peer-keys";

/// Of a partner as many keys follow those that are known as [`ALONE`] or [`TOGETHER`] says, and then none before
/// this has passed: a pod that lies needs [`peer_keys`]'s 32 keys of that many hours to push the real ones out,
/// and one that does not loses nothing, as its partner's keys change by the year.
const ROTATION: Duration = Duration::from_secs(3600);
/// Keys by the word of one pod.
const ALONE: usize = 1;
/// Keys that several pods say that they saw: of a partner with several servers each may have one of its own.
const TOGETHER: usize = 4;

/// When keys of a partner were recorded, by pool and partner: as many as may be within [`ROTATION`].
#[derive(Debug, Default)]
struct Rotations(HashMap<(String, String), Vec<Instant>>);

impl Rotations {
    /// Whether a key may follow those that are known. `pods` say that they saw it.
    fn may(&self, pool: &str, partner: &str, pods: usize, now: Instant) -> bool {
        let most = if pods > 1 { TOGETHER } else { ALONE };
        let key = (pool.to_owned(), partner.to_owned());
        let taken = self.0.get(&key).into_iter().flatten();
        let held = taken.filter(|at| now.duration_since(**at) < ROTATION);
        held.count() < most
    }

    /// A key that followed others was recorded.
    fn recorded(&mut self, pool: &str, partner: &str, now: Instant) {
        self.0.retain(|_, taken| {
            taken.retain(|at| now.duration_since(*at) < ROTATION);
            !taken.is_empty()
        });
        let key = (pool.to_owned(), partner.to_owned());
        self.0.entry(key).or_default().push(now);
    }
}

/// Pods that saw this key of a partner.
fn witnesses(report: Option<&PoolReport>, partner: &str, key: PeerKeyHash) -> usize {
    let statuses = report.into_iter().flat_map(|report| report.pods.values());
    let statuses = statuses.filter_map(|pod| pod.status.as_ref());
    let saw = |status: &&ProxyStatus| {
        let mut partners = status.partners.iter();
        partners.any(|it| it.name == partner && it.peer_key_sha256 == Some(key))
    };
    statuses.filter(saw).count()
}

/// A write that fails is tried again after this; what was learned is learned again meanwhile.
const FAILED: Pause = Pause::Growing {
    first: Duration::from_secs(1),
    most: Duration::from_secs(60),
};

/// What is remembered of one namespace between looks.
#[derive(Debug, Default)]
pub struct PeerKeysMemory {
    rotations: Rotations,
    /// Writes that failed, by pool, with why.
    failed: HeldBack<String, PeerKeysError>,
    /// What the status of a pool is to tell of its ConfigMap.
    pub faults: BTreeMap<String, Diagnostic>,
}

impl PeerKeysMemory {
    /// When the next write that is held back may be tried.
    #[must_use]
    pub fn retry(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let next = self.failed.due(now, |_| ());
        next.map(|next| next.duration_since(now))
    }
}

/// Writes what was learned, where there is anything new; forgets partners that are gone. What keeps a
/// pool's ConfigMap from being written holds up no other's, and is told in [`PeerKeysMemory::faults`].
pub async fn learn(context: &Context, scene: &NamespaceSnapshot, memory: &mut PeerKeysMemory) {
    let mut faults = BTreeMap::new();
    for (pool, config) in &scene.compiled.configs {
        if let Err(fault) = learn_of(context, scene, memory, pool, config).await {
            faults.insert(pool.clone(), fault_of(pool, fault));
        }
    }
    if faults != memory.faults {
        for fault in faults.values() {
            tracing::warn!(namespace = scene.namespace, "{}", fault.message);
        }
        // Pools were looked at before: their status tells it by the next look.
        context.caches.triggers.enqueue(&scene.namespace);
    }
    memory.faults = faults;
}

/// Why keys of a pool's partners are not recorded.
#[derive(Clone, Debug, thiserror::Error)]
enum PeerKeysError {
    #[error("it is full, and the keys of {} are not recorded, so that nobody notices when they change: leave spec.trust.onKeyChange at Ignore for partners of which you need not know it, or pin their keys", listed(.0.clone()))]
    Full(Vec<String>),
    #[error("keys of partners are not recorded, as the API server refuses it: {0}")]
    Refused(String),
    #[error("keys of partners are not recorded: {0}; it is tried again")]
    Failed(String),
}

impl PeerKeysError {
    fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if (400..429).contains(&status.code) => {
                Self::Refused(status.message.clone())
            }
            other => Self::Failed(other.to_string()),
        }
    }

    /// Label `reason` of the metric of errors.
    fn reason(&self) -> &'static str {
        match self {
            Self::Full(_) | Self::Refused(_) => "Refused",
            Self::Failed(_) => "ApiError",
        }
    }
}

/// Failures in a row after which one that is tried again is told: these take a minute.
const TOLD_AFTER: u32 = 6;

fn fault_of(pool: &str, fault: PeerKeysError) -> Diagnostic {
    let reason = match fault {
        PeerKeysError::Full(_) | PeerKeysError::Refused(_) => Reason::ObjectRefused,
        PeerKeysError::Failed(_) => Reason::WriteFailed,
    };
    Diagnostic {
        object: ObjectRef::new(Kind::EdgePool, pool),
        condition: ConditionType::Ready,
        status: false,
        reason,
        message: format!("ConfigMap {:?}: {fault}", peer_keys::name_of(pool)),
        severity: Severity::Warning,
    }
}

async fn learn_of(
    context: &Context,
    scene: &NamespaceSnapshot,
    memory: &mut PeerKeysMemory,
    pool: &str,
    config: &EdgeConfig,
) -> Result<(), PeerKeysError> {
    let name = peer_keys::name_of(pool);
    let nothing = PeerKeysData::new();
    let known = scene.world.config_maps.get(&name).unwrap_or(&nothing);
    let mut data = known.clone();
    let mut learned = Vec::new();
    let facts = scene.facts.get(pool).into_iter();
    for (partner, facts) in facts.flat_map(|it| &it.partners) {
        let Some(key) = facts.peer_key_sha256 else {
            continue;
        };
        let held = data.get(partner);
        let new = !held.is_some_and(|keys| {
            let mut keys = keys.lines().filter_map(PeerKeyHash::parse);
            keys.any(|it| it == key)
        });
        let first = held.is_none_or(String::is_empty);
        let pods = || witnesses(scene.reports.get(pool), partner, key);
        let rotations = &memory.rotations;
        if new && (first || rotations.may(pool, partner, pods(), Instant::now())) {
            let kept = peer_keys::learn(&mut data, config, partner, key);
            learned.extend(kept.then_some((partner, key, first)));
        }
    }
    forget(&mut data, scene);
    let left_out = peer_keys::fit(&mut data, known, config, peer_keys::MAX_DATA);
    if *known != data {
        let fingerprint = fingerprint(&data);
        let (failed, key) = (&mut memory.failed, pool.to_owned());
        let held = failed.holds(&key, fingerprint, Instant::now());
        let error = match held.map(|(cause, _)| cause.clone()) {
            Some(held) => Some(held),
            None => match write(context, scene, pool, name, data).await {
                Ok(()) => None,
                // The form that came meanwhile is on its way, and with it the next look.
                Err(kube::Error::Api(status)) if status.code == 409 => return Ok(()),
                Err(error) => {
                    let error = PeerKeysError::of(&error);
                    context.metrics.failed("EdgePool", error.reason());
                    let (now, cause) = (Instant::now(), error.clone());
                    failed.failed(now, key.clone(), fingerprint, FAILED, cause);
                    Some(error)
                }
            },
        };
        match error {
            Some(PeerKeysError::Failed(_)) if failed.failures(&key) < TOLD_AFTER => return Ok(()),
            Some(error) => return Err(error),
            None => {}
        }
    }
    memory.failed.forget(&pool.to_owned());
    learned.retain(|(partner, ..)| !left_out.contains(partner));
    for (partner, key, first) in learned {
        if !first {
            // What is not written uses up nothing: it is learned again at the next look.
            memory.rotations.recorded(pool, partner, Instant::now());
        }
        let namespace = &scene.namespace;
        tracing::info!(namespace, pool, partner, %key, "the partner's key is recorded");
    }
    if left_out.is_empty() {
        Ok(())
    } else {
        Err(PeerKeysError::Full(left_out))
    }
}

fn fingerprint(data: &PeerKeysData) -> u64 {
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    hasher.finish()
}

/// One that is made anew under the name is another.
fn forget(data: &mut PeerKeysData, scene: &NamespaceSnapshot) {
    let mut exists: BTreeMap<&str, ()> = BTreeMap::new();
    if !data.is_empty() {
        let read = scene.world.partners.iter();
        exists.extend(read.filter_map(|it| Some((it.metadata.name.as_deref()?, ()))));
    }
    data.retain(|partner, _| {
        let object = ObjectRef::new(Kind::XmppFederatedPartner, partner);
        exists.contains_key(partner.as_str()) || scene.world.broken.contains_key(&object)
    });
}

/// On the form that was read: keys that someone else entered meanwhile are not lost.
async fn write(
    context: &Context,
    scene: &NamespaceSnapshot,
    pool: &str,
    name: String,
    data: PeerKeysData,
) -> Result<(), kube::Error> {
    let namespace = &scene.namespace;
    let before = context.caches.config_maps.last_read(namespace, &name);
    let owner = context.caches.pools.get(namespace, pool);
    let owner = owner.and_then(|pool| pool.controller_owner_ref(&()));
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            resource_version: before.and_then(|map| map.metadata.resource_version.clone()),
            owner_references: owner.map(|owner| vec![owner]),
            labels: Some(BTreeMap::from([
                (
                    "app.kubernetes.io/managed-by".to_owned(),
                    "xmpp-edge-operator".to_owned(),
                ),
                (
                    "app.kubernetes.io/part-of".to_owned(),
                    "xmpp-edge".to_owned(),
                ),
                (crate::proxy_status::POOL_LABEL.to_owned(), pool.to_owned()),
            ])),
            ..ObjectMeta::default()
        },
        data: Some(data),
        ..ConfigMap::default()
    };
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    let parameters = PatchParams::apply(MANAGER).force();
    let since = context.caches.config_maps.epoch();
    let answer = api.patch(&name, &parameters, &Patch::Apply(&map)).await?;
    context.caches.config_maps.created(answer, since);
    // It is compiled in by the next look.
    context.caches.triggers.enqueue(namespace);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http_body_util::Full;
    use hyper::{Request, Response, StatusCode, body::Bytes};
    use kube::client::Body;
    use serde_json::json;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        compile::NamespaceInputs,
        controllers::namespace::snapshot::tests::{context, of},
        proxy_status::{PartnerFacts, PoolFacts},
    };

    /// An API server that answers every write in this way, and the paths that were written.
    fn refusing(
        code: StatusCode,
        message: &'static str,
    ) -> (Context, mpsc::UnboundedReceiver<String>) {
        let (asked, writes) = mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: Request<Body>| {
            asked.send(request.uri().path().to_owned()).unwrap();
            let refusal = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                "message": message, "reason": "Forbidden", "code": code.as_u16()});
            let answer = Response::builder().status(code);
            let answer = answer.body(Full::<Bytes>::new(refusal.to_string().into()));
            std::future::ready(Ok::<_, kube::Error>(answer.unwrap()))
        });
        (context(kube::Client::new(service, "n")), writes)
    }

    /// Pools whose pods saw a key of partner `p`, of which this is known already.
    fn scene(pools: &[&str], known: &PeerKeysData) -> NamespaceSnapshot {
        let pool = |name: &&str| {
            serde_json::from_value(json!({
                "apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool", "metadata": {"name": name},
                "spec": {"site": name, "domains": [format!("{name}.example")],
                    "accessEdge": {"fqdn": format!("edge.{name}.example")},
                    "gateways": [{"domains": [format!("{name}.example")], "address": "inside.example:5269"}],
                    "certificate": {"selfSigned": {}}},
            }))
            .unwrap()
        };
        let partner = json!({
            "apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "XmppFederatedPartner", "metadata": {"name": "p"},
            "spec": {"domain": "p.example", "trust": {"onKeyChange": "Warn"}},
        });
        let maps = pools.iter().filter(|_| !known.is_empty());
        let maps = maps.map(|pool| (peer_keys::name_of(pool), known.clone()));
        let mut scene = of(NamespaceInputs {
            namespace: "n".into(),
            pools: pools.iter().map(pool).collect(),
            partners: vec![serde_json::from_value(partner).unwrap()],
            config_maps: maps.collect(),
            ..NamespaceInputs::default()
        });
        for pool in pools {
            let facts = PartnerFacts {
                peer_key_sha256: Some(PeerKeyHash([0xab; 32])),
                ..PartnerFacts::default()
            };
            let mut seen = PoolFacts::default();
            seen.partners.insert("p".to_owned(), facts);
            scene.facts.insert((*pool).to_owned(), seen);
        }
        scene
    }

    #[tokio::test]
    async fn keys_that_cannot_be_recorded_are_told_of_the_pool_and_not_written_at_each_look() {
        let (context, mut writes) = refusing(StatusCode::FORBIDDEN, "exceeded quota: maps");
        let scene = scene(&["hq", "dr"], &PeerKeysData::new());
        let mut memory = PeerKeysMemory::default();
        for _ in 0..5 {
            learn(&context, &scene, &mut memory).await;
        }
        let told: Vec<&String> = memory.faults.keys().collect();
        assert_eq!(told, ["dr", "hq"], "one holds up no other");
        let fault = &memory.faults["hq"];
        assert_eq!(
            (fault.condition, fault.status),
            (ConditionType::Ready, false)
        );
        assert!(
            fault.message.contains("exceeded quota"),
            "{}",
            fault.message
        );
        let written: Vec<String> = std::iter::from_fn(|| writes.try_recv().ok()).collect();
        // Of ten that there would be; a machine that stalls in between may have come to the next try.
        assert!((2..10).contains(&written.len()), "{written:?}");
        assert!(memory.retry().is_some());
    }

    #[tokio::test]
    async fn a_key_that_follows_others_is_tried_again_however_often_its_write_fails() {
        let known = PeerKeysData::from([("p".to_owned(), PeerKeyHash([0xcd; 32]).to_string())]);
        let scene = scene(&["hq"], &known);
        let (context, _writes) = refusing(StatusCode::INTERNAL_SERVER_ERROR, "etcd is away");
        let mut memory = PeerKeysMemory::default();
        for _ in 0..3 {
            learn(&context, &scene, &mut memory).await;
            assert!(!memory.failed.is_empty(), "it is tried again");
        }
        assert!(memory.rotations.0.is_empty(), "nothing was recorded");
        let (context, _writes) = refusing(StatusCode::FORBIDDEN, "exceeded quota: maps");
        let mut memory = PeerKeysMemory::default();
        for _ in 0..TOGETHER + 2 {
            learn(&context, &scene, &mut memory).await;
            assert!(memory.faults.contains_key("hq"), "it stays told");
        }
    }

    #[test]
    fn pods_words_rotate_a_key_a_few_times_an_hour_whether_one_says_so_or_several() {
        let (mut rotations, now) = (Rotations::default(), Instant::now());
        assert!(rotations.may("hq", "p", 1, now));
        assert!(rotations.may("hq", "p", 1, now), "nothing was recorded");
        rotations.recorded("hq", "p", now);
        assert!(!rotations.may("hq", "p", 1, now), "again at once");
        assert!(rotations.may("hq", "other", 1, now), "another partner's");
        for _ in 1..TOGETHER {
            assert!(rotations.may("hq", "p", 2, now), "two pods say so");
            rotations.recorded("hq", "p", now);
        }
        assert!(!rotations.may("hq", "p", 2, now), "and again");
        assert!(rotations.may("hq", "p", 1, now + ROTATION), "an hour later");
    }
}
