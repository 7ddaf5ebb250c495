//! With the cluster's own controllers at work: pods of a pool pass the restricted standard, what a pool
//! owns goes with it, and a namespace that is deleted whole goes whole.

use anyhow::Context;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace as NamespaceObject, Pod, Service},
};
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use serde_json::json;
use xmpp_edge_tests::{
    cluster::{ApiServer, ControllerManager, Namespace, Operator, WITHOUT_NODES, alone},
    wait,
};

use super::stage::{SOON, create, delete, partner, policy, pool, until_says};

async fn pods(namespace: &Namespace<'_>) -> Option<usize> {
    let found = namespace.api::<Pod>().list(&ListParams::default()).await;
    found.ok().map(|found| found.items.len())
}

#[test]
fn what_a_pool_owns_goes_with_it_and_a_namespace_that_is_deleted_goes_whole() {
    alone(async {
        let server = ApiServer::start().await?;
        server.install_kinds().await?;
        let restricted = [("pod-security.kubernetes.io/enforce", "restricted")];
        server.namespace("chat", &restricted).await?;
        let namespace = Namespace {
            server: &server,
            name: "chat".to_owned(),
            client: server.admin().client("chat").await?,
        };
        server.namespace("operator", &[]).await?;
        let _controllers = ControllerManager::start(&server, WITHOUT_NODES).await?;
        let admin = server.admin();
        let arguments = [
            "--watch-namespace=chat",
            "--proxy-image=proxy.invalid/edge:1",
        ];
        let mut operator = Operator::start_as(&server, admin, "operator", &arguments).await?;

        let (own, object) = (
            pool(&namespace),
            partner("p", json!({ "domain": "p.example" })),
        );
        let everyone = policy("everyone", json!({ "scope": "Global" }));
        create(&namespace, &[own.clone(), object.clone(), everyone]).await?;
        until_says(&namespace, &object, &[("Accepted", "True, Accepted")]).await?;
        // Nothing places them, but they were let in.
        wait::until("the pool has its pod", SOON, async || {
            (pods(&namespace).await? == 1).then_some(())
        })
        .await?;

        delete(&namespace, &own).await?;
        wait::until("what the pool owned is gone", SOON, async || {
            let all = ListParams::default();
            let deployments = namespace.api::<Deployment>().list(&all).await.ok()?;
            let services = namespace.api::<Service>().list(&all).await.ok()?;
            let left = deployments.items.len() + services.items.len() + pods(&namespace).await?;
            (left == 0).then_some(())
        })
        .await?;

        create(&namespace, &[own]).await?;
        wait::until("the pool is back", SOON, async || {
            (pods(&namespace).await? == 1).then_some(())
        })
        .await?;
        let namespaces: Api<NamespaceObject> = Api::all(server.client());
        namespaces.delete("chat", &DeleteParams::default()).await?;
        wait::until("the namespace is gone", SOON, async || {
            namespaces
                .get_opt("chat")
                .await
                .ok()?
                .is_none()
                .then_some(())
        })
        .await
        .context(server.logs_about("chat"))?;
        assert_eq!(operator.process().exited(), None, "the operator stays");
        Ok(())
    });
}
