//! Secrets of sidecars in other namespaces that no pool refers to, and nobody knows of any more.
//!
//! Who refers to one and ends that deletes it ([`sidecar_secrets`]). Who led before may have ended in between, or
//! with the pools themselves; whoever leads looks once at each place that the settings name. What cannot be looked at
//! the next leader looks at.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, api::ListParams};
use tokio::time::timeout;
use xmpp_edge_crds::kinds::EdgePool;

use super::sidecar_secrets::{self, AllowedGateway};
use crate::{
    compile::sidecar_secrets_elsewhere,
    controllers::namespace::snapshot::Context,
    runtime::caches::{Caches, SecretPlace},
    secrets::store::ManagedSecret,
};

/// A look that takes longer failed.
const LONGEST: Duration = Duration::from_secs(10);

/// Looks once at all of them.
pub async fn withdraw(context: &Context) {
    for (namespace, gateways) in &context.settings.sidecar_namespaces.0 {
        for AllowedGateway { pools_in, gateway } in gateways {
            let Some(pools_in) = pools_in else {
                continue;
            };
            let entry = ManagedSecret::Sidecar(gateway.clone());
            let place = SecretPlace {
                namespace: namespace.clone(),
                name: entry.to_string(),
            };
            withdraw_at(context, &place, pools_in).await;
        }
    }
}

/// What is at `place` for the pools of `pools_in`; of others' nothing is said.
async fn withdraw_at(context: &Context, place: &SecretPlace, pools_in: &str) {
    let SecretPlace { namespace, name } = place;
    // By its name: the Role there gives no more.
    let only_this = ListParams::default().fields(&format!("metadata.name={name}"));
    let api: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    let listed = match timeout(LONGEST, api.list(&only_this)).await {
        Ok(Ok(listed)) => listed.items,
        Ok(Err(error)) => {
            tracing::debug!(namespace, name, %error, "no Secret of sidecars can be looked for");
            return;
        }
        Err(_) => return,
    };
    for secret in listed {
        if sidecar_secrets::is_ours(&secret, pools_in)
            && is_forgotten(&context.caches, pools_in, place)
        {
            sidecar_secrets::withdraw(&context.client, pools_in, &secret).await;
        }
    }
}

/// Whether it is known that no pool of a namespace refers to a place: all of them are read, and can be.
fn is_forgotten(caches: &Caches, pools_in: &str, place: &SecretPlace) -> bool {
    let refers = |pool: &EdgePool| {
        let mut places = sidecar_secrets_elsewhere(pool).into_iter();
        places.any(|(namespace, name)| namespace == place.namespace && name == place.name)
    };
    let pools = caches.pools.in_namespace(pools_in);
    let mut pools = pools.iter().map(|pool| pool.read());
    caches.is_read(pools_in) && pools.all(|pool| pool.is_some_and(|pool| !refers(pool)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http_body_util::Full;
    use hyper::{Method, Request, Response, body::Bytes};
    use kube::client::Body;
    use serde_json::{Value, json};
    use tokio::sync::mpsc;

    use super::*;
    use crate::controllers::{
        namespace::snapshot::tests::context, pool::sidecar_secrets::SidecarNamespace,
    };

    /// An API server with one Secret of sidecars; what it was asked to delete.
    fn server(secret: Value) -> (kube::Client, mpsc::UnboundedReceiver<String>) {
        let (deleted, asked) = mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (path, secret) = (request.uri().path().to_owned(), secret.clone());
            let answer = if request.method() == Method::DELETE {
                deleted.send(path).unwrap();
                json!({"kind": "Status", "status": "Success"})
            } else {
                json!({"kind": "SecretList", "apiVersion": "v1", "metadata": {}, "items": [secret]})
            };
            let answer = Full::<Bytes>::new(answer.to_string().into());
            async move { Ok::<_, kube::Error>(Response::new(answer)) }
        });
        (kube::Client::new(service, "n"), asked)
    }

    #[tokio::test]
    async fn what_no_pool_refers_to_is_deleted_by_whoever_leads_where_that_is_known() {
        let pool = |gateways: Value| {
            json!({
                "apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool",
                "metadata": {"name": "hq", "namespace": "n", "uid": "u", "resourceVersion": "1"},
                "spec": {"site": "hq", "domains": ["org.example"], "accessEdge": {"fqdn": "edge.org.example"},
                    "gateways": gateways, "certificate": {"selfSigned": {}}},
            })
        };
        let none = json!([{"domains": ["org.example"], "address": "inside.example:5269"}]);
        let sidecar = json!([{"name": "org", "domains": ["org.example"], "mode": "Sidecar",
            "sidecar": {"namespace": "chat"}}]);
        for (pools, is_read, pools_in, allowed, expected) in [
            (vec![], true, "n", "chat=n/org", 1),
            (vec![], true, "n", "chat=org", 0),
            (vec![], true, "n", "chat=others/org", 0),
            (vec![pool(none.clone())], true, "n", "chat=n/org", 1),
            (vec![pool(none)], false, "n", "chat=n/org", 0),
            (vec![pool(sidecar)], true, "n", "chat=n/org", 0),
            (vec![pool(json!("newer"))], true, "n", "chat=n/org", 0),
            (vec![], true, "others", "chat=n/org", 0),
        ] {
            let secret = json!({"metadata": {"name": "xmpp-edge-sidecar-org", "namespace": "chat", "uid": "s",
                "labels": {"app.kubernetes.io/managed-by": "xmpp-edge-operator"},
                "annotations": {"xmpp-edge.dev/pools-in": pools_in}}});
            let (client, mut deleted) = server(secret);
            let mut context = context(client);
            let given: SidecarNamespace = allowed.parse().unwrap();
            context.settings.sidecar_namespaces = [given].into_iter().collect();
            if is_read {
                context.caches.was_read("n");
            }
            for pool in &pools {
                let all = &context.caches.pools;
                all.created(serde_json::from_value(pool.clone()).unwrap(), all.epoch());
            }
            withdraw(&context).await;
            let deleted: Vec<String> = std::iter::from_fn(|| deleted.try_recv().ok()).collect();
            assert_eq!(
                deleted.len(),
                expected,
                "{pools:?} {pools_in} {allowed}: {deleted:?}"
            );
        }
    }
}
