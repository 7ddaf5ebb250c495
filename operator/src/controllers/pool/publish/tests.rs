//! Pools on their way out, by the clock of the API server.

#![allow(clippy::unwrap_used)]

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, Response, body::Bytes, header::DATE};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::{controllers::namespace::snapshot::tests::context, runtime::decoded::Decoded};

/// An API server that takes the finalizer off whenever it is asked to change a pool, or fails with a code; and what
/// it was asked to write.
fn server(code: &Arc<AtomicU16>) -> (Client, mpsc::UnboundedReceiver<String>) {
    let (written, asked) = mpsc::unbounded_channel();
    let code = code.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (code, written) = (code.load(Ordering::Relaxed), written.clone());
        async move {
            let body = request.into_body().collect().await?.to_bytes();
            let _ = written.send(String::from_utf8_lossy(&body).into_owned());
            let answer = if code == 200 {
                json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                    "metadata": {"name": "hq", "namespace": "n", "uid": "u"}})
            } else {
                json!({"kind": "Status", "status": "Failure", "code": code, "reason": "Some",
                    "message": format!("no: {code}")})
            };
            let answer = Full::<Bytes>::new(answer.to_string().into());
            let answer = Response::builder().status(code).body(answer).unwrap();
            Ok::<_, kube::Error>(answer)
        }
    });
    (Client::new(service, "n"), asked)
}

/// What takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(30);

fn code(code: u16) -> Arc<AtomicU16> {
    Arc::new(AtomicU16::new(code))
}

fn manifest() -> Value {
    json!({
        "apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool",
        "metadata": {"name": "hq", "namespace": "n", "uid": "u", "resourceVersion": "1"},
        "spec": {"site": "hq", "domains": ["org.example"], "accessEdge": {"fqdn": "edge.org.example"},
            "gateways": [{"domains": ["org.example"], "address": "inside.example:5269"}],
            "certificate": {"selfSigned": {}},
            "dns": {"rfc2136": {"server": "127.0.0.1:9", "tsigSecretRef": {"name": "tsig"}}}},
    })
}

/// A pool that was deleted long ago, if anybody knows the time.
fn deleted() -> Decoded<EdgePool> {
    let mut deleted = manifest();
    deleted["metadata"]["finalizers"] = json!([finalizer::FINALIZER]);
    deleted["metadata"]["deletionTimestamp"] = json!("2000-01-01T00:00:00Z");
    serde_json::from_value(deleted).unwrap()
}

#[tokio::test]
async fn a_pool_waits_ten_minutes_by_the_clock_that_dated_its_deletion() {
    let pool = deleted();
    let mut context = context(server(&code(200)).0);
    context.dns_owner_id = Some("owner".to_owned());
    let publications = PoolDns::default();
    let goes = async |context: &Context| {
        let leave = publications.leave(context, "n", &pool).await;
        leave.again.is_none()
    };
    assert!(!goes(&context).await, "nothing is known of its time yet");
    for (now, expected) in [
        ("Fri, 31 Dec 1999 23:59:00 GMT", false),
        ("Sat, 01 Jan 2000 00:09:50 GMT", false),
        ("Sat, 01 Jan 2000 00:10:00 GMT", true),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(DATE, now.parse().unwrap());
        context.server_clock.heard(&headers);
        assert_eq!(goes(&context).await, expected, "{now}");
    }
}

#[tokio::test]
async fn who_does_not_let_a_pool_go_is_told_in_its_own_words_and_not_asked_again_at_each_look() {
    let (client, mut asked) = server(&code(403));
    let context = context(client);
    let (dns, pool) = (PoolDns::default(), deleted());
    for is_asked in [true, false] {
        // Without an owner id it goes at once.
        let leave = dns.leave(&context, "n", &pool).await;
        assert!(leave.refusal.contains("no: 403"), "{}", leave.refusal);
        assert!(leave.again.is_some());
        assert_eq!(asked.try_recv().is_ok(), is_asked);
    }
}

#[test]
fn who_does_not_let_a_pool_go_is_asked_ever_more_seldom() {
    let (refusals, key) = (Refusals::default(), PoolKey::of("n", &deleted()));
    let mut now = tokio::time::Instant::now();
    let mut pauses = Vec::new();
    for _ in 0..6 {
        let leave = refusals.note(&key, Err("forbidden".to_owned()), now);
        let pause = leave.again.unwrap();
        pauses.push(pause.as_secs());
        let held = refusals.holds(&key, now + pause / 2).unwrap();
        assert_eq!(held.refusal, leave.refusal);
        now += pause;
        assert_eq!(refusals.holds(&key, now), None);
    }
    assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
    assert_eq!(refusals.note(&key, Ok(()), now), Leave::default());
}

/// It would be told of at each look, and keep its domains from others.
#[tokio::test]
async fn a_pool_that_went_without_anybody_saying_so_is_forgotten_and_leaves_nothing_behind() {
    let (client, mut asked) = server(&code(404));
    let context = context(client);
    let pools = &context.caches.pools;
    pools.created(deleted(), pools.epoch());
    let other = context.caches.triggers.of("other");
    let dns = PoolDns::default();
    let leave = dns
        .leave(&context, "n", &pools.get("n", "hq").unwrap())
        .await;
    assert_eq!(leave, Leave::default());
    assert!(pools.get("n", "hq").is_none());
    // Who claims its domains elsewhere looks.
    let told = tokio::time::timeout(PATIENCE, other.notified());
    told.await.expect("others are told");
    let written = std::iter::from_fn(|| asked.try_recv().ok());
    assert!(written.into_iter().all(|it| !it.contains("RecordsLeft")));
}

/// `kubectl replace` takes finalizer and annotations away, and perhaps `spec.dns` too.
#[tokio::test]
async fn what_the_backend_remembers_counts_when_the_pool_does_not_say_it_any_more() {
    let (client, mut asked) = server(&code(200));
    let mut context = context(client);
    context.dns_owner_id = Some("owner".to_owned());
    let key = json!({"metadata": {"name": "tsig", "namespace": "n", "uid": "s", "resourceVersion": "1"},
        "data": {"name": "a2V5", "secret": "YzJWamNtVjBjMlZqY21WMGMyVmpjbVYw"}});
    let secrets = &context.caches.secrets;
    secrets.refer("n", ["tsig".to_owned()].into());
    secrets.created(serde_json::from_value(key).unwrap(), secrets.epoch());
    let dns = PoolDns::default();
    let look = async |pool: &EdgePool| {
        let found = PoolRecords {
            pool,
            ready_replicas: 1,
            service: None,
            not_allowed: &[],
            stranded: BTreeSet::new(),
        };
        dns.look(&context, "n", &found);
        let changed = context.caches.triggers.of("n");
        let done = tokio::time::timeout(PATIENCE, changed.notified());
        done.await.expect("it is worked on");
        dns.look(&context, "n", &found)
    };
    let mut stripped = manifest();
    stripped["spec"]["accessEdge"]["addresses"] = json!(["192.0.2.1"]);
    let pool: EdgePool = serde_json::from_value(stripped.clone()).unwrap();
    look(&pool).await;
    let marks = |asked: &mut mpsc::UnboundedReceiver<String>| {
        let written = std::iter::from_fn(|| asked.try_recv().ok());
        written.filter(|it| it.contains("dns-places")).count()
    };
    assert!(marks(&mut asked) > 0, "it is marked before it is published");
    look(&pool).await;
    assert!(marks(&mut asked) > 0, "the mark is not there");
    stripped["spec"]["dns"] = Value::Null;
    let look = look(&serde_json::from_value(stripped).unwrap()).await;
    assert_ne!(look.condition.reason, Reason::NotManaged);
    assert_eq!(
        look.condition.state,
        ConditionStatus::False,
        "the server is away"
    );
    assert!(marks(&mut asked) > 0);
}
