//! One look at a pool, where writing does not go as it should.
#![allow(clippy::unwrap_used)]
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, body::Bytes};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::{
    compile::NamespaceInputs,
    controllers::namespace::snapshot::tests::{context, of},
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

/// What one look at a namespace with the pool alone is given.
fn one_pool(client: kube::Client) -> (Context, NamespaceSnapshot) {
    let context = context(client);
    let pools = &context.caches.pools;
    pools.created(serde_json::from_value(pool()).unwrap(), pools.epoch());
    let scene = of(NamespaceInputs {
        namespace: "n".into(),
        pools: vec![serde_json::from_value(pool()).unwrap()],
        ..NamespaceInputs::default()
    });
    (context, scene)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_whose_objects_take_too_long_says_so_in_its_conditions() {
    let (client, mut statuses) = busy_server();
    let (context, scene) = one_pool(client);
    let longest = Duration::from_millis(20);
    let done = reconcile_within(longest, &context, &PoolMemory::default(), &scene, "hq").await;
    assert!(matches!(done, Err(ApplyError::TooLong { .. })), "{done:?}");
    let queue = context.statuses.queue.clone();
    let status = tokio::select! {
        () = queue.run(&context.caches) => unreachable!("it runs until dropped"),
        written = statuses.recv() => written.unwrap(),
    };
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

/// An API server that has nothing, takes what is written, and never answers about `resource`; what it was
/// asked, as method and path.
fn server_that_hangs_on(
    resource: &'static str,
) -> (kube::Client, mpsc::UnboundedReceiver<(Method, String)>) {
    let (asked, requests) = mpsc::unbounded_channel();
    let service = tower::service_fn(move |request: Request<Body>| {
        let asked = asked.clone();
        async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let _ = asked.send((method.clone(), path.clone()));
            if path.contains(resource) {
                std::future::pending::<()>().await;
            }
            let body = request.into_body().collect().await?.to_bytes();
            let (code, answer) = if method == Method::GET {
                let status = json!({"kind": "Status", "status": "Failure", "code": 404,
                    "reason": "NotFound", "message": "not found"});
                (404, status)
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
        while let Some((method, path)) = requests.recv().await {
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
