//! With the cluster's own controllers at work: pods of a pool pass the restricted standard, what a pool
//! owns goes with it and the rest is taken up by the next of its name, and a namespace that is deleted
//! whole goes whole.

use std::collections::BTreeMap;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, Pod};
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};
use xmpp_edge_tests::{
    cluster::{
        ApiServer, ControllerManager, Namespace, Operator, WITHOUT_NODES, alone, operator_account,
    },
    wait,
};

use super::stage::{SOON, create, delete, partner, policy, pool, until_says};

async fn pods(namespace: &Namespace<'_>) -> Option<usize> {
    let found = namespace.api::<Pod>().list(&ListParams::default()).await;
    found.ok().map(|found| found.items.len())
}

/// `KIND/NAME uid` of all that pools lead to, but for what Kubernetes itself puts into a namespace.
fn objects(namespace: &Namespace<'_>) -> Option<BTreeMap<String, String>> {
    let kinds = "deploy,rs,pod,svc,endpointslices,pdb,netpol,cm,secret,pvc";
    let shown = "jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.uid}{'\\n'}{end}";
    let kubectl = namespace.server.kubectl();
    let text = kubectl.run(&["get", "-n", &namespace.name, kinds, "-o", shown]);
    let text = text.ok()?;
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    Some(
        lines
            .filter(|(title, _)| *title != "ConfigMap/kube-root-ca.crt")
            .map(|(title, uid)| (title.to_owned(), uid.to_owned()))
            .collect(),
    )
}

/// What outlives the pool: the namespace's PKI and dialback secret, the key of the request, contacts.
const KEPT: [&str; 5] = [
    "ConfigMap/xmpp-edge-internal-ca",
    "PersistentVolumeClaim/hq-contacts",
    "Secret/hq-tls",
    "Secret/xmpp-edge-dialback",
    "Secret/xmpp-edge-internal-ca",
];

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
        let account = operator_account(&server, "operator", &["chat"]).await?;
        let arguments = [
            "--watch-namespace=chat",
            "--proxy-image=proxy.invalid/edge:1",
        ];
        let mut operator = Operator::start_as(&server, &account, "operator", &arguments).await?;

        let (mut own, object) = (
            pool(&namespace),
            partner("p", json!({ "domain": "p.example" })),
        );
        own["spec"]["certificate"] = json!({ "csr": { "chainSecretRef": { "name": "signed" } } });
        let everyone = policy("everyone", json!({ "scope": "Global" }));
        create(&namespace, &[own.clone(), object.clone(), everyone]).await?;
        until_says(&namespace, &object, &[("Accepted", "True, Accepted")]).await?;
        // Nothing places them, but they were let in.
        wait::until("the pool has its pod", SOON, async || {
            (pods(&namespace).await? == 1).then_some(())
        })
        .await?;

        let request = |pool: &Value| pool["status"]["certificateSigningRequest"].clone();
        let waiting = [("CertificateReady", "False, AwaitingSignature")];
        let before = request(&until_says(&namespace, &own, &waiting).await?);
        let there = objects(&namespace).context("all objects")?;
        assert!(there.len() > KEPT.len() + 10, "{there:#?}");

        delete(&namespace, &own).await?;
        let mut left = BTreeMap::new();
        let gone = wait::until("what the pool owned is gone", SOON, async || {
            left = objects(&namespace)?;
            left.keys().map(String::as_str).eq(KEPT).then_some(())
        });
        gone.await.with_context(|| format!("left: {left:#?}"))?;
        // The partner is told that nothing carries it.
        until_says(&namespace, &object, &[("Programmed", "False, NoPool")]).await?;

        create(&namespace, std::slice::from_ref(&own)).await?;
        wait::until("the pool is back", SOON, async || {
            (pods(&namespace).await? == 1).then_some(())
        })
        .await?;
        let after = request(&until_says(&namespace, &own, &waiting).await?);
        assert_eq!(
            before, after,
            "the request is made with the key that was kept"
        );
        let again = objects(&namespace).context("all objects")?;
        for kept in KEPT {
            assert_eq!(
                again.get(kept),
                there.get(kept),
                "{kept} is the one from before"
            );
        }
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
