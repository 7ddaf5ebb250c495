//! Pools of watched namespaces that may not be read, on their way out.
//!
//! A namespace that is deleted loses its Roles first. Whoever reads it already goes on with what it has; who starts
//! after that never gets to see its pools, whose finalizer keeps it for ever. Their metadata alone is listed, by a right
//! beside the namespace's Roles, and they go with their records left behind: no key of theirs can be read.

use std::time::Duration;

use kube::{Api, api::ListParams};
use tokio::time::{MissedTickBehavior, interval};
use xmpp_edge_crds::kinds::EdgePool;

use super::PoolMemory;
use crate::controllers::namespace::snapshot::Context;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(60);

/// Looks until dropped.
pub async fn follow(context: &Context, memory: &PoolMemory) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for namespace in context.caches.refused() {
            look(context, memory, &namespace).await;
        }
    }
}

async fn look(context: &Context, memory: &PoolMemory, namespace: &str) {
    let api: Api<EdgePool> = Api::namespaced(context.client.clone(), namespace);
    match api.list_metadata(&ListParams::default()).await {
        Ok(pools) => {
            let deleted = pools.items.iter();
            for pool in deleted.filter(|it| it.metadata.deletion_timestamp.is_some()) {
                let dns = &memory.publications;
                dns.leave_unread(context, namespace, pool).await;
            }
        }
        // That it may not be read is told by the watches.
        Err(error) => {
            tracing::debug!(namespace, %error, "pools on their way out cannot be looked for");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http_body_util::{BodyExt, Full};
    use hyper::{HeaderMap, Method, Request, Response, body::Bytes, header::DATE};
    use kube::client::Body;
    use serde_json::{Value, json};
    use tokio::sync::mpsc;

    use super::*;
    use crate::controllers::{namespace::snapshot::tests::context, pool::publish::finalizer};

    /// An API server with these pools; whose finalizers it was asked to take off.
    fn server(pools: Vec<Value>) -> (kube::Client, mpsc::UnboundedReceiver<String>) {
        let (patched, asked) = mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (patched, pools) = (patched.clone(), pools.clone());
            async move {
                let (path, method) = (request.uri().path().to_owned(), request.method().clone());
                let body = request.into_body().collect().await?.to_bytes();
                let body = String::from_utf8_lossy(&body).into_owned();
                let name = path.rsplit('/').next().unwrap();
                let answer = if method == Method::PATCH {
                    if body.contains("remove") {
                        patched.send(name.to_owned()).unwrap();
                    }
                    let there = pools.iter().find(|it| it["metadata"]["name"] == name);
                    there.cloned().unwrap()
                } else {
                    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
                        "metadata": {}, "items": pools})
                };
                let answer = Full::<Bytes>::new(answer.to_string().into());
                Ok::<_, kube::Error>(Response::new(answer))
            }
        });
        (kube::Client::new(service, "n"), asked)
    }

    #[tokio::test]
    async fn a_namespace_that_nobody_may_read_any_more_is_not_kept_for_ever() {
        let pool = |name: &str, deleted: bool, annotations: Value| {
            let mut pool = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                "metadata": {"name": name, "namespace": "n", "uid": name, "annotations": annotations,
                    "finalizers": [finalizer::FINALIZER]}});
            if deleted {
                pool["metadata"]["deletionTimestamp"] = json!("2000-01-01T00:00:00Z");
            }
            pool
        };
        let source = json!({"uid": "keyed", "source": {"owner": "o", "rfc2136": {
            "server": "192.0.2.53", "tsigSecretRef": {"name": "tsig"}}}});
        let keyed = json!({"xmpp-edge.dev/dns-source": source.to_string()});
        let (client, mut asked) = server(vec![
            pool("stays", false, json!({})),
            pool("keyless", true, json!({})),
            pool("keyed", true, keyed),
        ]);
        let context = context(client);
        let memory = PoolMemory::default();
        for (now, expected) in [
            ("Sat, 01 Jan 2000 00:09:50 GMT", "keyless"),
            ("Sat, 01 Jan 2000 00:10:00 GMT", "keyed"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(DATE, now.parse().unwrap());
            context.server_clock.heard(&headers);
            look(&context, &memory, "n").await;
            let gone: Vec<String> = std::iter::from_fn(|| asked.try_recv().ok()).collect();
            assert!(gone.contains(&expected.to_owned()), "{now}: {gone:?}");
            assert!(!gone.contains(&"stays".to_owned()));
            assert_eq!(gone.contains(&"keyed".to_owned()), expected == "keyed");
        }
    }
}
