//! The template: each thing that a labelled pod gets, with slots in braces. Whoever changes it changes what
//! is printed and what the API server adds alike.

use serde_json::{Value, json};

/// Label of pods that get a sidecar; its value is the gateway's name.
pub const LABEL: &str = "xmpp-edge.dev/sidecar";
/// Label that leaves a pod's DNS alone, with value [`OFF`].
pub const DNS_LABEL: &str = "xmpp-edge.dev/sidecar-dns";
pub const OFF: &str = "off";
/// Name of the container.
pub const CONTAINER: &str = "xmpp-edge-sidecar";
/// Where every other container sees `ca.crt`, the authority that the server is to trust.
pub const PUBLIC_MOUNT: &str = "/run/xmpp-edge";
/// An element of a list that stands for several: how the sidecar answers and asks DNS.
pub const DNS_ARGUMENTS: &str = "{dnsArguments}";
/// An object that the cluster says: what the container may do, and as whom it runs.
pub const SECURITY_CONTEXT: &str = "{securityContext}";
/// What [`DNS_ARGUMENTS`] is where the pod's DNS is left alone.
pub const NO_VIEW: &str = "--dns=off";
/// What each of [`DNS_ARGUMENTS`] begins with else; a resolver follows.
pub const RESOLVER: &str = "--resolver=";
/// So that the sidecar may listen on port 53 without any capability.
pub const SYSCTL: &str = "net.ipv4.ip_unprivileged_port_start";

/// As the operator writes it.
const SECRET_NAME: &str = "xmpp-edge-sidecar-{gateway}";
const SECRET: &str = "xmpp-edge-sidecar";
const STATE: &str = "xmpp-edge-sidecar-state";
const PUBLIC: &str = "xmpp-edge-sidecar-public";
const STATE_MOUNT: &str = "/var/lib/xmpp-edge-sidecar";
const SECRET_MOUNT: &str = "/etc/xmpp-edge/sidecar";
const TOKEN_MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Health and metrics.
pub const ADMIN_PORT: u16 = 9091;

/// The init container, the first one. It restarts like any other (KEP-753), and ends after the server.
///
/// No readiness: chat goes on without federation. No `preStop`: it would run when the pod's end begins, not
/// when the server has stopped.
#[must_use]
pub fn container() -> Value {
    let healthy = json!({ "path": "/healthz", "port": ADMIN_PORT });
    json!({
        "name": CONTAINER,
        "image": "{image}",
        "imagePullPolicy": "{imagePullPolicy}",
        "restartPolicy": "Always",
        "args": [
            "sidecar",
            format!("--config={SECRET_MOUNT}/sidecar.json"),
            format!("--secrets={SECRET_MOUNT}"),
            format!("--state={STATE_MOUNT}"),
            format!("--admin=[::]:{ADMIN_PORT}"),
            DNS_ARGUMENTS,
        ],
        "env": [
            { "name": "POD_NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
            // It says what it waits for by its name.
            { "name": "SIDECAR_SECRET", "value": SECRET_NAME },
        ],
        "ports": [{ "name": "sidecar-admin", "containerPort": ADMIN_PORT }],
        // Its listeners are open: what starts after it has DNS.
        "startupProbe": { "httpGet": healthy, "periodSeconds": 1, "failureThreshold": 60 },
        "livenessProbe": { "httpGet": healthy, "periodSeconds": 10 },
        "resources": {
            "requests": { "cpu": "{cpuRequest}", "memory": "{memoryRequest}" },
            "limits": { "memory": "{memoryLimit}" },
        },
        "securityContext": SECURITY_CONTEXT,
        "volumeMounts": [
            { "name": SECRET, "mountPath": SECRET_MOUNT, "readOnly": true },
            { "name": STATE, "mountPath": STATE_MOUNT },
            { "name": PUBLIC, "mountPath": format!("{STATE_MOUNT}/public") },
            // Where the API server would mount the pod's token: the sidecar has none.
            { "name": PUBLIC, "mountPath": TOKEN_MOUNT, "readOnly": true },
        ],
    })
}

/// The volumes. Without the Secret a pod starts too, and the sidecar says what it waits for.
#[must_use]
pub fn volumes() -> [Value; 3] {
    [
        json!({
            "name": SECRET,
            "secret": { "secretName": SECRET_NAME, "optional": true },
        }),
        json!({ "name": STATE, "emptyDir": {} }),
        json!({ "name": PUBLIC, "emptyDir": {} }),
    ]
}

/// What every other container mounts.
#[must_use]
pub fn public_mount() -> Value {
    json!({ "name": PUBLIC, "mountPath": PUBLIC_MOUNT, "readOnly": true })
}

/// Name servers of the pod: a second one would lead around the edge.
pub const NAMESERVER: &str = "127.0.0.1";

/// Search list of the pod, as the cluster gives it to pods of that namespace; the pod's own follow.
#[must_use]
pub fn searches() -> [&'static str; 3] {
    [
        "{namespace}.svc.{clusterDomain}",
        "svc.{clusterDomain}",
        "{clusterDomain}",
    ]
}

/// Options of the pod's resolver, unless it has them; `ndots` is what the cluster gives to pods.
#[must_use]
pub fn dns_options() -> [Value; 3] {
    [
        json!({ "name": "ndots", "value": "5" }),
        json!({ "name": "timeout", "value": "2" }),
        json!({ "name": "attempts", "value": "3" }),
    ]
}

/// See [`SYSCTL`].
#[must_use]
pub fn sysctl() -> Value {
    json!({ "name": SYSCTL, "value": "0" })
}
