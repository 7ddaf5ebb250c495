//! One look at a pool, where writing does not go as it should.
#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;

use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, body::Bytes};
use k8s_openapi::{ByteString, api::core::v1::ConfigMap};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use xmpp_edge_crds::{edge_config::shards, kinds::XmppFederatedPartner};

use super::*;
use crate::{
    compile::NamespaceInputs,
    controllers::namespace::snapshot::tests::{context, of},
    runtime::store::UnreadError,
};

/// An API server that answers nothing but writes of statuses, which it hands on.
fn busy_server() -> (kube::Client, mpsc::UnboundedReceiver<Value>) {
    let (written, statuses) = mpsc::unbounded_channel();
    let service = tower::service_fn(move |request: Request<Body>| {
        let written = written.clone();
        async move {
            let is_status = request.uri().path().ends_with("/status");
            if request.method() != Method::PATCH || !is_status {
                std::future::pending::<()>().await;
            }
            let body = request.into_body().collect().await?.to_bytes();
            let _ = written.send(serde_json::from_slice(&body).unwrap());
            Ok::<_, kube::Error>(Response::new(Full::<Bytes>::new(body)))
        }
    });
    (kube::Client::new(service, "n"), statuses)
}

fn pool() -> Value {
    json!({
        "apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool",
        "metadata": {"name": "hq", "namespace": "n", "uid": "u", "resourceVersion": "1", "generation": 1},
        "spec": {"site": "hq", "domains": ["org.example"], "accessEdge": {"fqdn": "edge.org.example"},
            "gateways": [{"domains": ["org.example"], "address": "inside.example:5269"}],
            "certificate": {"selfSigned": {}}},
    })
}

/// What compiling takes of the pool alone.
fn inputs_of_pool() -> NamespaceInputs {
    NamespaceInputs {
        namespace: "n".into(),
        pools: vec![serde_json::from_value(pool()).unwrap()],
        ..NamespaceInputs::default()
    }
}

/// What one look at a namespace with the pool alone is given.
fn one_pool(client: kube::Client) -> (Context, NamespaceSnapshot) {
    let context = context(client);
    let pools = &context.caches.pools;
    pools.created(serde_json::from_value(pool()).unwrap(), pools.epoch());
    (context, of(inputs_of_pool()))
}

fn partner(suspended: bool) -> XmppFederatedPartner {
    let manifest = json!({
        "apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "XmppFederatedPartner",
        "metadata": {"name": "p"}, "spec": {"domain": "p.example", "suspended": suspended},
    });
    serde_json::from_value(manifest).unwrap()
}

/// The pool's document with one partner, as the last look left it, and its shard where the watch shows it.
fn last_document(context: &Context) -> EdgeConfig {
    let before = NamespaceInputs {
        partners: vec![partner(false)],
        ..inputs_of_pool()
    };
    let mut compiled = crate::compile::compile(&before, &BTreeMap::new());
    let config = compiled.configs.remove("hq").unwrap();
    hold(context, &config);
    config
}

/// As if the watch had shown this document's shards, written for the pool.
fn hold(context: &Context, config: &EdgeConfig) {
    let maps = &context.caches.config_maps;
    maps.refer("n", shards::shard_names("hq").collect());
    for (number, shard) in (0..).zip(shards::encode(config).unwrap().shards) {
        let name = shards::shard_name("hq", number);
        let map = json!({"metadata": {"name": name, "namespace": "n", "uid": name, "resourceVersion": "1",
            "ownerReferences": [{"apiVersion": "v1", "kind": "EdgePool", "name": "hq", "uid": "u"}]}});
        let mut map: ConfigMap = serde_json::from_value(map).unwrap();
        map.binary_data = Some([(shards::SHARD_KEY.to_owned(), ByteString(shard))].into());
        maps.created(map, maps.epoch());
    }
}

/// The documents that were written: a server sends on what it is asked.
fn documents(requests: &mut mpsc::UnboundedReceiver<Asked>) -> Vec<EdgeConfig> {
    let asked = std::iter::from_fn(|| requests.try_recv().ok());
    let shards = asked.filter(|it| it.method == Method::PATCH && it.path.contains("-config-"));
    let documents = shards.map(|it| {
        let map: ConfigMap = serde_json::from_value(it.body).unwrap();
        shards::decode(&[&map.binary_data.unwrap()[shards::SHARD_KEY].0])
            .unwrap()
            .config
    });
    documents.collect()
}

/// The status that one look writes at a busy server.
async fn status_of_a_look(
    context: &Context,
    scene: &NamespaceSnapshot,
    statuses: &mut mpsc::UnboundedReceiver<Value>,
) -> Value {
    let longest = Duration::from_millis(20);
    let done = reconcile_within(longest, context, &PoolMemory::default(), scene, "hq").await;
    assert!(matches!(done, Err(ApplyError::TooLong { .. })), "{done:?}");
    next_status(context, statuses).await
}

async fn next_status(context: &Context, statuses: &mut mpsc::UnboundedReceiver<Value>) -> Value {
    let queue = context.statuses.queue.clone();
    tokio::select! {
        () = queue.run(&context.caches) => unreachable!("it runs until dropped"),
        written = statuses.recv() => written.unwrap(),
        // What never comes has no other end.
        () = tokio::time::sleep(Duration::from_secs(30)) => panic!("no status is written"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_whose_objects_take_too_long_says_so_in_its_conditions() {
    let (client, mut statuses) = busy_server();
    let (context, scene) = one_pool(client);
    let status = status_of_a_look(&context, &scene, &mut statuses).await;
    let conditions = status["status"]["conditions"].as_array().unwrap();
    let said = |kind: &str| {
        let found = conditions.iter().find(|it| it["type"] == kind).unwrap();
        let text = |field: &str| found[field].as_str().unwrap().to_owned();
        (text("status"), text("reason"), text("message"))
    };
    let (status, reason, message) = said("Ready");
    assert_eq!((&*status, &*reason), ("False", "WriteFailed"));
    assert!(message.contains("could not all be written"), "{message}");
    // Nobody looked at the certificate: nothing is said against the pool.
    let (status, reason, _) = said("CertificateReady");
    assert_eq!((&*status, &*reason), ("Unknown", "Pending"));
}

/// What an API server was asked.
struct Asked {
    method: Method,
    path: String,
    body: Value,
}

/// An API server that has nothing, takes what is written, and never answers about `resource`.
fn server_that_hangs_on(resource: &'static str) -> (kube::Client, mpsc::UnboundedReceiver<Asked>) {
    server(resource, NOTHING)
}

fn is_named(body: &[u8], name: &str) -> bool {
    let object: Value = serde_json::from_slice(body).unwrap_or_default();
    object["metadata"]["name"] == name
}

/// In no path.
const NOTHING: &str = "/nothing";

/// As [`server_that_hangs_on`]; it refuses what is written at `refused`, or made under that name.
fn server(
    resource: &'static str,
    refused: &'static str,
) -> (kube::Client, mpsc::UnboundedReceiver<Asked>) {
    let (asked, requests) = mpsc::unbounded_channel();
    let service = tower::service_fn(move |request: Request<Body>| {
        let asked = asked.clone();
        async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let body = request.into_body().collect().await?.to_bytes();
            let _ = asked.send(Asked {
                method: method.clone(),
                path: path.clone(),
                body: serde_json::from_slice(&body).unwrap_or_default(),
            });
            if path.contains(resource) {
                std::future::pending::<()>().await;
            }
            let (code, answer) = if method == Method::GET {
                let status = json!({"kind": "Status", "status": "Failure", "code": 404,
                    "reason": "NotFound", "message": "not found"});
                (404, status)
            } else if path.contains(refused) || is_named(&body, refused) {
                let status = json!({"kind": "Status", "status": "Failure", "code": 403,
                    "reason": "Forbidden", "message": "exceeded quota"});
                (403, status)
            } else {
                let mut object: Value = serde_json::from_slice(&body).unwrap();
                object["metadata"]["uid"] = json!(path);
                object["metadata"]["resourceVersion"] = json!("2");
                (200, object)
            };
            let answer = Full::<Bytes>::from(answer.to_string());
            let answer = Response::builder().status(code).body(answer).unwrap();
            Ok::<_, kube::Error>(answer)
        }
    });
    (kube::Client::new(service, "n"), requests)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_hangs_holds_up_no_object_that_does_not_need_its_own() {
    let (client, mut requests) = server_that_hangs_on("/services");
    let (context, scene) = one_pool(client);
    let mut written = Vec::new();
    let memory = PoolMemory::default();
    let until_pods = async {
        while let Some(Asked { method, path, .. }) = requests.recv().await {
            if method == Method::PATCH {
                written.push(path.rsplit('/').nth(1).unwrap().to_owned());
            }
            if path.contains("/deployments/") && method == Method::PATCH {
                return;
            }
        }
    };
    tokio::select! {
        () = until_pods => {}
        done = reconcile(&context, &memory, &scene, "hq") => panic!("Services are not written: {done:?}"),
    }
    // What pods begin with is there before them.
    for kind in ["networkpolicies", "configmaps", "persistentvolumeclaims"] {
        assert!(written.iter().any(|it| it == kind), "{kind}: {written:?}");
    }
}

/// Its metadata own its objects, whatever its spec says to this operator.
#[tokio::test(flavor = "multi_thread")]
async fn kill_switches_and_renewals_reach_the_pods_of_a_pool_that_cannot_be_decoded() {
    let (client, mut requests) = server(NOTHING, NOTHING);
    let context = context(client);
    let mut unknown = pool();
    unknown["spec"]["contacts"] = json!("of a newer version");
    let object: Decoded<EdgePool> = serde_json::from_value(unknown).unwrap();
    assert!(object.read().is_none());
    let fault = crate::compile::Fault::new(Reason::Invalid, "unknown");
    let pools = &context.caches.pools;
    pools.created(object, pools.epoch());
    let last = last_document(&context);
    let world = NamespaceInputs {
        pools: Vec::new(),
        partners: vec![partner(true)],
        broken: [(
            ObjectRef::new(Kind::EdgePool, "hq"),
            crate::compile::Undecodable {
                suspended: Some(true),
                fault,
            },
        )]
        .into(),
        ..inputs_of_pool()
    };
    let mut scene = of(NamespaceInputs::default());
    scene.namespace = "n".to_owned();
    let last = [("hq".to_owned(), last)].into();
    scene.compiled = Arc::new(crate::compile::compile(&world, &last));
    scene.world = Arc::new(world);
    let memory = PoolMemory::default();
    reconcile(&context, &memory, &scene, "hq").await.unwrap();
    let mut secrets = Vec::new();
    let mut others = Vec::new();
    while let Ok(asked) = requests.try_recv() {
        match asked.method {
            Method::POST if asked.path.ends_with("/secrets") => {
                secrets.push(asked.body["metadata"]["name"].as_str().unwrap().to_owned());
            }
            _ => others.push(asked),
        }
    }
    for name in ["hq-internal-issuer", "hq-tls"] {
        assert!(secrets.iter().any(|it| it == name), "{name}: {secrets:?}");
    }
    let written = others.iter().find(|it| it.path.contains("hq-config-0"));
    let owner = &written.unwrap().body["metadata"]["ownerReferences"][0];
    assert_eq!(owner["uid"], "u");
    let (sender, mut again) = mpsc::unbounded_channel();
    others.into_iter().for_each(|it| sender.send(it).unwrap());
    let written = documents(&mut again);
    assert_eq!(written.len(), 1);
    assert!(written[0].suspended && written[0].partners[0].suspended);
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_reach_the_pods_of_a_pool_that_somebody_elses_finalizer_keeps() {
    for (finalizers, read, expected) in [
        (vec!["somebody.example/keeps"], true, 1),
        (vec!["somebody.example/keeps"], false, 1),
        (vec![], true, 0),
    ] {
        let (client, mut requests) = server(NOTHING, NOTHING);
        let context = context(client);
        let mut deleted = pool();
        deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        deleted["metadata"]["finalizers"] = json!(finalizers);
        if !read {
            deleted["spec"]["contacts"] = json!("of a newer version");
        }
        let pools = &context.caches.pools;
        pools.created(serde_json::from_value(deleted).unwrap(), pools.epoch());
        last_document(&context);
        let scene = of(NamespaceInputs {
            pools: Vec::new(),
            ..inputs_of_pool()
        });
        let memory = PoolMemory::default();
        let done = reconcile(&context, &memory, &scene, "hq").await.unwrap();
        let written = documents(&mut requests);
        assert_eq!(written.len(), expected, "{finalizers:?}");
        assert_eq!(done.again.is_some(), expected > 0, "it is looked at again");
        assert!(written.iter().all(|it| it.partners.is_empty()));
    }
}

/// The document with what takes it a shard more.
fn grown(mut config: EdgeConfig) -> EdgeConfig {
    let mut bytes = vec![0; 1 << 20];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    config.content.iq_namespaces = vec![data_encoding::HEXLOWER.encode(&bytes)];
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_refused_leaves_the_last_good_document_as_it_is() {
    for (refused, grows) in [("/hq-config-1", true), ("/hq-config-0", false)] {
        let (client, mut requests) = server(NOTHING, refused);
        let (context, mut scene) = one_pool(client);
        let small = scene.compiled.configs["hq"].clone();
        let large = grown(small.clone());
        let (before, mut after) = if grows {
            (small, large)
        } else {
            (large, small)
        };
        hold(&context, &before);
        after.generation += 1;
        Arc::make_mut(&mut scene.compiled)
            .configs
            .insert("hq".to_owned(), after);
        let memory = PoolMemory::default();
        let _ = reconcile(&context, &memory, &scene, "hq").await;
        let asked = std::iter::from_fn(|| requests.try_recv().ok());
        let shards: Vec<_> = asked
            .filter(|it| it.path.contains("/hq-config-") && it.method != Method::GET)
            .map(|it| (it.method, it.path.rsplit('/').next().unwrap().to_owned()))
            .collect();
        assert_eq!(
            shards,
            [(Method::PATCH, refused[1..].to_owned())],
            "{grows}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_follow_what_is_in_force_and_not_a_spec_that_is_not_accepted() {
    let (client, mut statuses) = busy_server();
    let (context, mut scene) = one_pool(client);
    let mut edited = pool();
    edited["metadata"]["resourceVersion"] = json!("2");
    edited["spec"]["domains"] = json!(["other.example"]);
    edited["spec"]["gateways"][0]["domains"] = json!(["other.example"]);
    edited["spec"]["trust"] = json!({"caConfigMapRef": {"name": "comes-later", "key": "ca.crt"}});
    let edited: EdgePool = serde_json::from_value(edited).unwrap();
    context.caches.pools.updated(Decoded::Valid(edited.clone()));
    let world = NamespaceInputs {
        pools: vec![edited],
        ..inputs_of_pool()
    };
    let last = scene.compiled.configs.clone();
    scene.compiled = Arc::new(crate::compile::compile(&world, &last));
    scene.world = Arc::new(world);
    let status = status_of_a_look(&context, &scene, &mut statuses).await;
    let conditions = status["status"]["conditions"].as_array().unwrap();
    let accepted = conditions.iter().find(|it| it["type"] == "Accepted");
    assert_eq!(accepted.unwrap()["reason"], "ReferenceMissing");
    let records = status["status"]["srvRecords"].to_string();
    assert!(
        records.contains("_xmpp-server._tcp.org.example."),
        "{records}"
    );
    assert!(!records.contains("other.example"), "{records}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_refused_holds_up_what_is_issued_from_it_alone_and_is_shown_by_nobody() {
    let gateway = "xmpp-edge-gateway-org.example";
    let all = ["hq-admin", "hq-internal-issuer", "hq-tls", gateway];
    for (refused, missing, is_shown) in [
        (
            "xmpp-edge-internal-ca",
            vec!["hq-internal-issuer", gateway],
            true,
        ),
        ("hq-internal-issuer", vec![], true),
        ("hq-ca", vec!["hq-tls"], false),
        ("hq-tls", vec![], false),
    ] {
        let (client, mut requests) = server(NOTHING, refused);
        let (context, scene) = one_pool(client);
        let memory = PoolMemory::default();
        let object = context.caches.pools.get("n", "hq").unwrap();
        let applier = Applier {
            context: &context,
            applied: &memory.applied,
            certificates: &memory.certificates,
            pool: &object,
            namespace: "n",
        };
        let mut written = ApplyOutcome::default();
        let (pool, config) = (object.read(), scene.config("hq").unwrap());
        provision::write(&applier, &memory, &scene, pool, config, &mut written).await;
        assert_eq!(written.certificate.is_some(), is_shown, "{refused}");
        let asked = std::iter::from_fn(|| requests.try_recv().ok());
        let made = asked.filter(|it| it.method == Method::POST);
        let made: Vec<Value> = made.map(|it| it.body["metadata"]["name"].clone()).collect();
        assert!(made.contains(&json!(refused)), "{made:?}");
        for name in all {
            let is_made = made.contains(&json!(name));
            assert_eq!(is_made, !missing.contains(&name), "{refused}: {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_told_by_each_pool_and_holds_up_no_deletion() {
    let error = UnreadError {
        kind: "ConfigMap".to_owned(),
        name: "hq-config-0".to_owned(),
        cause: crate::runtime::store::UnreadCause::Refused("it is forbidden".to_owned()),
    };
    let (client, mut statuses) = busy_server();
    let (context, scene) = one_pool(client);
    let again = reconcile_unread(&context, &PoolMemory::default(), &scene, &error).await;
    assert_eq!(again, None);
    let status = next_status(&context, &mut statuses).await;
    let said = &status["status"]["conditions"][0];
    assert_eq!(
        (&said["type"], &said["reason"]),
        (&json!("Ready"), &json!("WriteFailed"))
    );
    let message = said["message"].as_str().unwrap();
    assert!(message.contains("\"hq-config-0\"") && message.contains("it is forbidden"));

    let (client, mut requests) = server(NOTHING, NOTHING);
    let context = crate::controllers::namespace::snapshot::tests::context(client);
    let mut deleted = pool();
    deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    deleted["metadata"]["finalizers"] = json!(["somebody.example/keeps"]);
    let pools = &context.caches.pools;
    pools.created(serde_json::from_value(deleted).unwrap(), pools.epoch());
    last_document(&context);
    let again = reconcile_unread(&context, &PoolMemory::default(), &scene, &error).await;
    assert!(again.is_some());
    assert!(documents(&mut requests)[0].partners.is_empty());
}

/// The garbage collector would take it along with the pool.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_somebody_else_gives_now_is_the_pools_no_more() {
    for (certificate, is_released) in [
        (json!({"secretRef": {"name": "hq-tls"}}), true),
        (json!({"certManager": {"issuerRef": {"name": "i"}}}), true),
        (json!({"selfSigned": {}}), false),
    ] {
        let (client, mut requests) = server(NOTHING, NOTHING);
        let context = context(client);
        let mut given = pool();
        given["spec"]["certificate"] = certificate.clone();
        let given: EdgePool = serde_json::from_value(given).unwrap();
        let pools = &context.caches.pools;
        pools.created(Decoded::Valid(given.clone()), pools.epoch());
        let secret = json!({"metadata": {"name": "hq-tls", "namespace": "n", "uid": "s", "resourceVersion": "1",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Other", "name": "o", "uid": "o"},
                {"apiVersion": "v1", "kind": "EdgePool", "name": "hq", "uid": "u"}]},
            "data": {"tls.crt": "YQ==", "tls.key": "Yg=="}});
        let secrets = &context.caches.secrets;
        secrets.refer("n", ["hq-tls".to_owned()].into());
        secrets.created(
            serde_json::from_value(secret.clone()).unwrap(),
            secrets.epoch(),
        );
        let scene = of(NamespaceInputs {
            pools: vec![given],
            ..inputs_of_pool()
        });
        let _ = reconcile(&context, &PoolMemory::default(), &scene, "hq").await;
        let asked = std::iter::from_fn(|| requests.try_recv().ok());
        let mut put = asked.filter(|it| it.method == Method::PUT && it.path.ends_with("/hq-tls"));
        let Some(put) = put.next().filter(|_| is_released) else {
            assert!(!is_released, "{certificate}: it is the pool's still");
            continue;
        };
        let owners = put.body["metadata"]["ownerReferences"].as_array().unwrap();
        assert_eq!(owners.len(), 1);
        assert_eq!(owners[0]["uid"], "o");
        assert_eq!(put.body["data"], secret["data"]);
        assert_eq!(put.body["metadata"]["resourceVersion"], "1");
    }
}
