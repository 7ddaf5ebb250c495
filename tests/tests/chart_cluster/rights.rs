//! The rights that the chart grants: all that the operator needs, and nothing that it never uses.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::{Value, json};
use xmpp_edge_tests::{
    cluster::{ApiServer, ClusterIdentity, Entry, FakePod, Helm, Major, Namespace, alone},
    wait,
};

use super::{ACCOUNT, HOME, get, has_helm, install, operator, pods_are_ready};

const WATCHED: &str = "chat";
const OTHER: &str = "elsewhere";

/// A right: group, resource, verb.
type Right = (String, String, String);

/// Rights that this test's operator has no occasion to use, and what they are for.
const UNUSED: &[(&str, &str, &str, &str)] = &[
    (
        "xmpp-edge.dev",
        "edgepools/finalizers",
        "update",
        "asked for by the admission plugin OwnerReferencesPermissionEnforcement alone",
    ),
    (
        "xmpp-edge.dev",
        "edgepools",
        "get",
        "by `prepare-uninstall`, when a pool changed while it looked",
    ),
    ("xmpp-edge.dev", "edgepools/status", "update", FOREIGN),
    (
        "xmpp-edge.dev",
        "xmppfederatedpartners/status",
        "update",
        FOREIGN,
    ),
    (
        "xmpp-edge.dev",
        "externalaccesspolicies/status",
        "update",
        FOREIGN,
    ),
    (
        "",
        "configmaps",
        "delete",
        "parts of a configuration that became smaller by a megabyte",
    ),
    ("", "secrets", "update", "renewals of certificates"),
    (
        "events.k8s.io",
        "events",
        "patch",
        "an event that repeats itself",
    ),
];

const FOREIGN: &str = "takes away what somebody else wrote into a status";

fn granted(server: &ApiServer, namespace: &str, role: &str) -> Result<BTreeSet<Right>> {
    let role = get(server, namespace, &format!("role/{role}"))?;
    let texts = |value: &Value| -> Vec<String> {
        let texts = value.as_array().into_iter().flatten();
        texts
            .map(|it| it.as_str().unwrap_or_default().to_owned())
            .collect()
    };
    let mut rights = BTreeSet::new();
    for rule in role["rules"].as_array().context("rules")? {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    rights.insert((group.clone(), resource.clone(), verb));
                }
            }
        }
    }
    Ok(rights)
}

/// An apply that makes an object asks for `patch` and for `create`.
fn used(entry: &Entry) -> Vec<Right> {
    let Some(object) = &entry.object_ref else {
        return Vec::new();
    };
    let right = |verb: &str| (object.api_group.clone(), entry.target(), verb.to_owned());
    let mut rights = vec![right(&entry.verb)];
    if entry.verb == "patch" && entry.code() == 201 {
        rights.push(right("create"));
    }
    rights
}

/// Kinds of others that pools may lead to, as far as the API server has to know them.
fn kinds_of_others() -> Vec<Value> {
    let definition = |group: &str, version: &str, plural: &str, kind: &str| {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}"),
                // Groups of Kubernetes' own domain ask for it.
                "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"}},
            "spec": {"group": group, "scope": "Namespaced",
                "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")},
                "versions": [{"name": version, "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}})
    };
    vec![
        definition("cert-manager.io", "v1", "certificates", "Certificate"),
        definition(
            "cert-manager.io",
            "v1",
            "certificaterequests",
            "CertificateRequest",
        ),
        definition(
            "externaldns.k8s.io",
            "v1alpha1",
            "dnsendpoints",
            "DNSEndpoint",
        ),
    ]
}

/// Objects that lead the operator through what it does.
fn objects() -> Vec<Value> {
    let ours = |kind: &str, name: &str, spec: Value| {
        json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": kind,
            "metadata": {"name": name, "namespace": WATCHED}, "spec": spec})
    };
    vec![
        json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "granted", "namespace": WATCHED}, "data": {"users": "a@example.org\n"}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tsig", "namespace": WATCHED},
            "stringData": {"name": "key.example", "secret": "c2VjcmV0c2VjcmV0c2VjcmV0"}}),
        ours(
            "EdgePool",
            "hq",
            pool(json!({"replicas": 2,
            "dns": {"externalDns": {}, "rfc2136": {"server": "127.0.0.1:9", "zone": "example.org",
                "tsigSecretRef": {"name": "tsig"}, "tsigAlgorithm": "HmacSha256"}}})),
        ),
        ours(
            "EdgePool",
            "embedded",
            json!({
                "site": "lab", "domains": ["example.net"], "accessEdge": {"fqdn": "edge.example.net"},
                "replicas": 1, "gateways": [{"domains": ["example.net"], "address": "192.0.2.2:5269"}],
                "certificate": {"certManager": {"issuerRef": {"name": "public"}}}, "contacts": {"embedded": {}},
            }),
        ),
        ours("XmppFederatedPartner", "p", json!({"domain": "p.example"})),
        ours(
            "ExternalAccessPolicy",
            "some",
            json!({"scope": "User", "enableFederationAccess": true,
            "enableXmppAccess": true,
            "usersFrom": [{"configMapRef": {"name": "granted", "key": "users"}}]}),
        ),
    ]
}

fn pool(more: Value) -> Value {
    let mut spec = json!({"site": "hq", "domains": ["example.org"], "accessEdge": {"fqdn": "edge.example.org"},
        "gateways": [{"domains": ["example.org"], "address": "192.0.2.1:5269"}],
        "certificate": {"selfSigned": {}}});
    for (name, value) in more.as_object().into_iter().flatten() {
        spec[name] = value.clone();
    }
    spec
}

fn apply(server: &ApiServer, objects: &[Value]) -> Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
    server
        .kubectl()
        .run_with(&["apply", "--server-side", "-f", "-"], &list)?;
    Ok(())
}

async fn is_there(server: &ApiServer, what: &str, there: bool) -> Result<()> {
    let title = format!("{what} is {}", if there { "there" } else { "gone" });
    wait::until(&title, wait::GENEROUS, async || {
        let found = get(server, WATCHED, what).is_ok_and(|it| it["items"] != json!([]));
        (found == there).then_some(())
    })
    .await
}

/// Until an object says of its newest form that it is accepted.
async fn is_accepted(server: &ApiServer, what: &str) -> Result<()> {
    wait::until(&format!("{what} is accepted"), wait::GENEROUS, async || {
        let object = get(server, WATCHED, what).ok()?;
        let newest = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        let mut conditions = object["status"]["conditions"].as_array()?.iter();
        let accepted = conditions.any(|it| it["type"] == "Accepted" && it["status"] == "True");
        (newest && accepted).then_some(())
    })
    .await
}

/// A pool's whole life, a partner and a policy.
async fn act(server: &ApiServer) -> Result<()> {
    apply(server, &objects())?;
    // The Service has an address, and there is something to publish.
    wait::until("the load balancer answers", wait::GENEROUS, async || {
        let status = r#"{"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}}"#;
        let place = [
            "--namespace",
            WATCHED,
            "--subresource=status",
            "--type=merge",
        ];
        let patch = [
            &["patch", "service/hq-edge"],
            &place[..],
            &["--patch", status],
        ]
        .concat();
        server.kubectl().run(&patch).ok()
    })
    .await?;
    wait::until("its pods are ready", wait::GENEROUS, async || {
        pods_are_ready(server, WATCHED, "hq").ok()
    })
    .await?;
    for what in ["certificate/embedded", "dnsendpoint"] {
        is_there(server, what, true)
            .await
            .with_context(|| all(server))?;
    }
    for what in [
        "deployment/hq",
        "service/hq-edge",
        "poddisruptionbudget/hq",
        "networkpolicy/hq",
    ] {
        is_there(server, what, true)
            .await
            .with_context(|| all(server))?;
    }
    for what in ["edgepool/hq", "edgepool/embedded", "xfp/p", "exap/some"] {
        is_accepted(server, what).await?;
    }
    let chat = Namespace {
        server,
        client: server.admin().client(WATCHED).await?,
        name: WATCHED.to_owned(),
    };
    let pod = FakePod::start(&chat, "hq", 1).await?;
    wait::until("the pod is told to look", wait::GENEROUS, async || {
        let pods = get(server, WATCHED, "pods").ok()?;
        pods.to_string()
            .contains("xmpp-edge.dev/mounted")
            .then_some(())
    })
    .await?;
    // What is no longer wanted goes; what is written whole is written anew.
    let edited = pool(json!({"replicas": 1, "networkPolicy": {"enabled": false},
        "domains": ["example.org", "example.com"],
        "gateways": [{"domains": ["example.org", "example.com"], "address": "192.0.2.1:5269"}]}));
    apply(
        server,
        &[
            json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool",
        "metadata": {"name": "hq", "namespace": WATCHED}, "spec": edited}),
        ],
    )?;
    is_there(server, "networkpolicy/hq", false).await?;
    is_there(server, "poddisruptionbudget/hq", false).await?;
    is_there(server, "dnsendpoint", false).await?;
    is_accepted(server, "edgepool/hq").await?;
    let certificate =
        json!({"spec": {"certificate": {"selfSigned": {}, "certManager": null}}}).to_string();
    let place = [
        "--namespace",
        WATCHED,
        "--type=merge",
        "--patch",
        &certificate,
    ];
    server
        .kubectl()
        .run(&[&["patch", "edgepool/embedded"], &place[..]].concat())?;
    is_there(server, "certificate/embedded", false).await?;
    pod.delete().await?;
    Ok(())
}

fn all(server: &ApiServer) -> String {
    let kinds = "deployment,service,pdb,netpol,cm,secret,pvc,edgepool";
    let shown = server
        .kubectl()
        .run(&["get", kinds, "--namespace", WATCHED]);
    shown.unwrap_or_else(|error| error.to_string())
}

async fn cannot_read_elsewhere(account: &ClusterIdentity) -> Result<()> {
    let client = account.client(HOME).await?;
    for namespace in [OTHER, HOME, "kube-system"] {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let refused =
            |error: kube::Error| matches!(error, kube::Error::Api(status) if status.code == 403);
        ensure!(
            secrets.get("private").await.is_err_and(refused),
            "{namespace}"
        );
        ensure!(
            secrets.list(&Default::default()).await.is_err_and(refused),
            "{namespace}"
        );
    }
    Ok(())
}

#[test]
fn the_operator_has_the_rights_that_it_uses_and_no_others() {
    if !has_helm(&[Major::Four]) {
        return;
    }
    alone(async {
        let server = ApiServer::start().await?;
        for namespace in [HOME, WATCHED, OTHER] {
            server.namespace(namespace, &[]).await?;
        }
        let helm = Helm::on(&server, Major::Four, server.admin())?;
        install(&helm, HOME, &["--set=watchNamespaces={chat}"])?;
        apply(&server, &kinds_of_others())?;
        let account = server.service_account(HOME, "xmpp-edge").await?;
        let mark = server.audit().mark();
        let mut operator = operator(&server, &account)?;
        operator.ready().await?;
        act(&server).await?;
        operator.stop().await?;

        let entries = server.audit().of(ACCOUNT, mark)?;
        let denied: Vec<String> = entries
            .iter()
            .filter(|it| it.denied())
            .map(|it| format!("{} {}", it.verb, it.uri))
            .collect();
        ensure!(denied.is_empty(), "denied: {denied:#?}");
        let used: BTreeSet<Right> = entries.iter().flat_map(used).collect();
        let mut granted = granted(&server, WATCHED, "xmpp-edge")?;
        granted.extend(self::granted(&server, HOME, "xmpp-edge-leader")?);
        let known: BTreeMap<Right, &str> = UNUSED
            .iter()
            .map(|(group, resource, verb, why)| {
                (
                    (
                        (*group).to_owned(),
                        (*resource).to_owned(),
                        (*verb).to_owned(),
                    ),
                    *why,
                )
            })
            .collect();
        let idle: Vec<_> = granted
            .difference(&used)
            .filter(|it| !known.contains_key(*it))
            .collect();
        ensure!(
            idle.is_empty(),
            "granted, but neither used nor explained: {idle:#?}"
        );
        let stale: Vec<_> = known.keys().filter(|it| !granted.contains(*it)).collect();
        ensure!(stale.is_empty(), "explained, but not granted: {stale:#?}");
        cannot_read_elsewhere(&account).await
    });
}
