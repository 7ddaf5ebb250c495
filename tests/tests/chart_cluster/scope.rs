//! Where the operator looks: everywhere, or in the namespaces that the values list; always as the
//! chart's account, with the arguments of its Deployment.

use anyhow::{Result, ensure};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use xmpp_edge_crds::kinds::{EdgePool, XmppFederatedPartner};
use xmpp_edge_tests::{
    cluster::{ApiServer, ClusterIdentity, Helm, Kubectl, Major, alone},
    wait,
};

use super::{ACCOUNT, HOME, get, has_helm, install, operator};

fn pool(domain: &str) -> Value {
    json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool", "metadata": {"name": "hq"},
        "spec": {"site": "hq", "domains": [domain], "replicas": 1,
            "accessEdge": {"fqdn": format!("edge.{domain}"), "addresses": ["192.0.2.7"]},
            "gateways": [{"domains": [domain], "address": "192.0.2.1:5269"}],
            "certificate": {"selfSigned": {}}}})
}

async fn apply_pool(client: &Client, namespace: &str, domain: &str) -> Result<()> {
    let api: Api<EdgePool> = Api::namespaced(client.clone(), namespace);
    let parameters = PatchParams::apply("somebody").force();
    api.patch("hq", &parameters, &Patch::Apply(pool(domain)))
        .await?;
    Ok(())
}

/// Until `Accepted` of a pool says so, about its newest form; the message then.
async fn accepted(server: &ApiServer, namespace: &str, said: (&str, &str)) -> Result<String> {
    let mut last = Value::Null;
    let found = wait::until("the pool says so", wait::GENEROUS, async || {
        last = get(server, namespace, "edgepool/hq").ok()?;
        let newest = last["status"]["observedGeneration"] == last["metadata"]["generation"];
        let mut conditions = last["status"]["conditions"].as_array()?.iter();
        let it = conditions.find(|it| it["type"] == "Accepted")?;
        (newest && it["status"] == said.0 && it["reason"] == said.1)
            .then(|| it["message"].as_str().unwrap_or_default().to_owned())
    });
    let found = found.await;
    found.map_err(|error| error.context(format!("{namespace}: {said:?} of {last:#}")))
}

/// `kubectl auth can-i`, which says no by its exit code too.
fn can(kubectl: &Kubectl, namespace: &str, verb: &str, what: &str) -> Result<bool> {
    let asked = ["auth", "can-i", verb, what, "--namespace", namespace];
    let output = kubectl.output(&asked, "")?;
    let said = String::from_utf8_lossy(&output.stdout);
    match (said.trim(), output.status.success()) {
        ("yes", true) => Ok(true),
        ("no", false) => Ok(false),
        (said, _) => anyhow::bail!(
            "can-i {verb} {what}: {said} {}",
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}

fn nothing_denied(server: &ApiServer) -> Result<()> {
    let entries = server.audit().of(ACCOUNT, 0)?;
    let denied: Vec<String> = entries
        .iter()
        .filter(|it| it.denied())
        .map(|it| format!("{} {}", it.verb, it.uri))
        .collect();
    ensure!(!entries.is_empty(), "it asked nothing");
    ensure!(denied.is_empty(), "denied: {denied:#?}");
    Ok(())
}

async fn installed(server: &ApiServer, values: &str) -> Result<ClusterIdentity> {
    let helm = Helm::on(server, Major::Four, server.admin())?;
    install(&helm, HOME, &[values])?;
    server.service_account(HOME, "xmpp-edge").await
}

#[test]
fn cluster_wide_every_namespace_is_an_organisation_also_one_that_comes_later() {
    if !has_helm(&[Major::Four]) {
        return;
    }
    alone(async {
        let server = ApiServer::start().await?;
        for namespace in [HOME, "first", "second", "empty"] {
            server.namespace(namespace, &[]).await?;
        }
        let account = installed(&server, "--set=clusterWide=true").await?;
        let client = server.client();
        apply_pool(&client, "first", "first.example").await?;
        let mut running = operator(&server, &account)?;
        running.ready().await?;
        accepted(&server, "first", ("True", "Accepted")).await?;
        apply_pool(&client, "second", "second.example").await?;
        accepted(&server, "second", ("True", "Accepted")).await?;
        // A domain is one namespace's; creation times have whole seconds, and then the name decides.
        apply_pool(&client, "second", "first.example").await?;
        let message = accepted(&server, "second", ("False", "DomainConflict")).await?;
        for part in ["first.example", "\"first\"", "remove it"] {
            ensure!(message.contains(part), "{part} in {message}");
        }
        // Its pods' document keeps what they had.
        get(&server, "second", "configmap/hq-config-0")?;

        server.namespace("later", &[]).await?;
        apply_pool(&client, "later", "later.example").await?;
        accepted(&server, "later", ("True", "Accepted")).await?;
        get(&server, "later", "secret/xmpp-edge-internal-ca")?;
        // Where there is nothing of ours nothing is written.
        for kind in ["secret", "configmap", "deployment"] {
            let found =
                server
                    .kubectl()
                    .run(&["get", kind, "--namespace", "empty", "--output=name"])?;
            ensure!(found.trim().is_empty(), "{found}");
        }
        let partners: Api<XmppFederatedPartner> = Api::namespaced(client.clone(), "empty");
        let partner = json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "XmppFederatedPartner",
            "metadata": {"name": "p"}, "spec": {"domain": "p.example"}});
        let partner = serde_json::from_value(partner)?;
        partners.create(&Default::default(), &partner).await?;
        wait::until("a partner alone is told of", wait::GENEROUS, async || {
            let conditions = partners.get("p").await.ok()?.status?.conditions;
            let mut conditions = conditions.iter();
            conditions
                .any(|it| it.type_ == "Programmed" && it.reason == "NoPool")
                .then_some(())
        })
        .await?;
        nothing_denied(&server)
    });
}

#[test]
fn of_two_listed_namespaces_each_is_looked_after_and_no_other_can_be_read() {
    if !has_helm(&[Major::Four]) {
        return;
    }
    alone(async {
        let server = ApiServer::start().await?;
        for namespace in [HOME, "first", "second", "third"] {
            server.namespace(namespace, &[]).await?;
        }
        let account = installed(&server, "--set=watchNamespaces={first,second}").await?;
        let client = server.client();
        for namespace in ["first", "second", "third"] {
            apply_pool(&client, namespace, &format!("{namespace}.example")).await?;
        }
        let mut running = operator(&server, &account)?;
        running.ready().await?;
        for namespace in ["first", "second"] {
            accepted(&server, namespace, ("True", "Accepted")).await?;
        }
        let kubectl = server.kubectl_as("account", &account, HOME)?;
        for (namespace, watched) in [
            ("first", true),
            ("second", true),
            ("third", false),
            (HOME, false),
            ("kube-system", false),
        ] {
            for (verb, what) in [
                ("list", "secrets"),
                ("watch", "secrets"),
                ("create", "secrets"),
                ("patch", "deployments.apps"),
            ] {
                let allowed = can(&kubectl, namespace, verb, what)?;
                ensure!(
                    allowed == watched,
                    "{verb} {what} in {namespace}: {allowed}"
                );
            }
            ensure!(
                watched || !can(&kubectl, namespace, "get", "secret/private")?,
                "{namespace}"
            );
        }
        ensure!(!can(&kubectl, "default", "list", "secrets")?, "elsewhere");
        // Neither did it try.
        let asked = server.audit().of(ACCOUNT, 0)?;
        let elsewhere = asked.iter().find(|it| {
            it.object_ref.as_ref().is_some_and(|of| {
                !["first", "second", HOME].contains(&of.namespace.as_str())
                    && of.resource == "secrets"
            })
        });
        ensure!(elsewhere.is_none(), "{elsewhere:#?}");
        let third = get(&server, "third", "edgepool/hq")?;
        ensure!(third["status"].is_null(), "{third:#}");
        nothing_denied(&server)
    });
}
