//! What the test environment itself promises: the server is real (it refuses, audits, ends
//! namespaces where its controllers run) and can go and come back on the same data.
#![allow(clippy::unwrap_used)]

use anyhow::{Context, Result};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, Pod},
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api, Client, Error,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    cluster::{ApiServer, ControllerManager, SharedCluster, WITHOUT_NODES, alone},
    wait,
};

static SERVER: SharedCluster = SharedCluster::new();

fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn config_map(name: &str) -> ConfigMap {
    object(json!({ "metadata": { "name": name } }))
}

fn code(error: &Error) -> u16 {
    match error {
        Error::Api(status) => status.code,
        _ => 0,
    }
}

#[test]
fn a_service_account_may_what_its_roles_say_and_the_audit_log_tells_both() {
    SERVER.test(async |namespace| {
        let account = namespace
            .server
            .service_account(&namespace.name, "reader")
            .await?;
        let role: Role = object(json!({
            "metadata": { "name": "reader" },
            "rules": [{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"] }],
        }));
        let binding: RoleBinding = object(json!({
            "metadata": { "name": "reader" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader" },
            "subjects": [{ "kind": "ServiceAccount", "name": "reader", "namespace": namespace.name }],
        }));
        let apply = PostParams::default();
        namespace.api().create(&apply, &role).await?;
        namespace.api().create(&apply, &binding).await?;

        let audit = namespace.server.audit();
        let mark = audit.mark();
        let client = account.client(&namespace.name).await?;
        let maps: Api<ConfigMap> = Api::default_namespaced(client);
        // The authorizer sees new roles by a watch of its own.
        wait::until("the role is in force", wait::GENEROUS, async || {
            maps.list(&ListParams::default()).await.ok().map(|_| ())
        })
        .await?;
        let refused = maps.create(&apply, &config_map("mine")).await.unwrap_err();
        assert_eq!(code(&refused), 403);

        let user = format!("system:serviceaccount:{}:reader", namespace.name);
        let asked = audit.of(&user, mark)?;
        let last: Vec<_> = asked[asked.len() - 2..]
            .iter()
            .map(|entry| (entry.verb.as_str(), entry.target(), entry.denied()))
            .collect();
        assert_eq!(
            last,
            [
                ("list", "configmaps".to_owned(), false),
                ("create", "configmaps".to_owned(), true),
            ]
        );
        assert!(asked[0].concerns(&namespace.name, "configmaps"));
        Ok(())
    });
}

#[test]
fn a_restricted_namespace_refuses_a_pod_that_runs_as_root() {
    SERVER.test(async |namespace| {
        let name = format!("{}-restricted", namespace.name);
        let enforce = [("pod-security.kubernetes.io/enforce", "restricted")];
        namespace.server.namespace(&name, &enforce).await?;
        let pods: Api<Pod> = Api::namespaced(namespace.client.clone(), &name);
        let pod: Pod = object(json!({
            "metadata": { "name": "root" },
            "spec": { "containers": [{ "name": "main", "image": "none" }] },
        }));
        let refused = pods.create(&PostParams::default(), &pod).await.unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("violates PodSecurity \"restricted"),
            "{refused}"
        );
        Ok(())
    });
}

async fn names(client: &Client, namespace: &str) -> Result<Vec<String>> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let found = maps.list(&ListParams::default()).await?;
    Ok(found
        .items
        .into_iter()
        .filter_map(|map| map.metadata.name)
        .collect())
}

#[test]
fn a_server_that_was_down_comes_back_with_its_data_and_its_audit_log() {
    alone(async {
        let server = ApiServer::start().await?;
        let client = server.client();
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
        maps.create(&PostParams::default(), &config_map("kept"))
            .await?;
        let before = server.audit().entries()?.len();

        server.stop().await?;
        let version = client.apiserver_version();
        assert!(
            tokio::time::timeout(wait::GENEROUS, version)
                .await
                .map_or(true, |answer| answer.is_err()),
            "nobody answers"
        );
        server.launch().await?;
        assert!(
            names(&client, "default")
                .await?
                .contains(&"kept".to_owned())
        );
        assert!(server.audit().entries()?.len() > before);

        // At once, as a machine that loses power.
        server.kill();
        server.launch().await?;
        assert!(
            names(&client, "default")
                .await?
                .contains(&"kept".to_owned())
        );

        // With its controllers, a namespace ends and takes what is in it along.
        let controllers = ControllerManager::start(&server, WITHOUT_NODES).await?;
        let api: Api<Namespace> = Api::all(client.clone());
        server.namespace("ends", &[]).await?;
        let inside: Api<ConfigMap> = Api::namespaced(client, "ends");
        inside
            .create(&PostParams::default(), &config_map("inside"))
            .await?;
        let annotation = json!({ "metadata": { "annotations": { "seen": "yes" } } });
        inside
            .patch("inside", &PatchParams::default(), &Patch::Merge(annotation))
            .await?;
        api.delete("ends", &DeleteParams::default()).await?;
        wait::until("the namespace is gone", wait::GENEROUS, async || {
            api.get_opt("ends").await.ok()?.is_none().then_some(())
        })
        .await
        .context(controllers.process().tail())
    });
}
