//! Pools on their way out, by the clock of the API server.

#![allow(clippy::unwrap_used)]

use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, Response, body::Bytes, header::DATE};
use kube::client::Body;
use serde_json::json;

use super::*;
use crate::controllers::namespace::snapshot::tests::context;

/// An API server that takes the finalizer off whenever it is asked to change a pool.
fn server() -> Client {
    let service = tower::service_fn(|request: Request<Body>| async move {
        request.into_body().collect().await?;
        let pool = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {"name": "hq", "namespace": "n", "uid": "u"}});
        let answer = Full::<Bytes>::new(pool.to_string().into());
        Ok::<_, kube::Error>(Response::new(answer))
    });
    Client::new(service, "n")
}

#[tokio::test]
async fn a_pool_waits_ten_minutes_by_the_clock_that_dated_its_deletion() {
    let deleted = json!({
        "apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool",
        "metadata": {"name": "hq", "namespace": "n", "uid": "u", "resourceVersion": "1",
            "finalizers": [finalizer::FINALIZER], "deletionTimestamp": "2000-01-01T00:00:00Z"},
        "spec": {"site": "hq", "domains": ["org.example"], "accessEdge": {"fqdn": "edge.org.example"},
            "gateways": [{"domains": ["org.example"], "address": "inside.example:5269"}],
            "certificate": {"selfSigned": {}},
            "dns": {"rfc2136": {"server": "127.0.0.1:9", "tsigSecretRef": {"name": "tsig"}}}},
    });
    let pool: Decoded<EdgePool> = serde_json::from_value(deleted).unwrap();
    let mut context = context(server());
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
