//! What a labelled pod gets, on a real API server: by the admission policies, and as it is printed.
#![allow(clippy::unwrap_used)]

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xmpp_edge_operator::sidecar::{
    parameters::SidecarParameters,
    parts,
    policy::{self, NAME},
    workload::SidecarRendering,
};
use xmpp_edge_tests::{
    cluster::{Helm, Major, Namespace, SharedCluster},
    wait,
};

use super::{has_helm, unit::render};

/// One of its own: policies are cluster-wide, and other tests install them too.
pub static SERVER: SharedCluster = SharedCluster::new();

/// What a test of the policies needs of the server.
pub struct Scene<'s> {
    namespace: &'s Namespace<'s>,
}

fn parameters() -> SidecarParameters {
    let resolvers = ["10.96.0.10:53", "[2001:db8::a]:53"];
    let resolvers = resolvers.map(|it| it.parse().unwrap()).to_vec();
    SidecarParameters::new(
        "registry.example/xmpp-edge-proxy:1.2.3".to_owned(),
        resolvers,
    )
}

impl<'s> Scene<'s> {
    /// Nothing is installed yet, and pods may be made.
    pub fn new(namespace: &'s Namespace<'s>) -> Result<Self> {
        let scene = Self { namespace };
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" },
        });
        scene.kubectl(&["apply", "-f", "-"], &account.to_string())?;
        Ok(scene)
    }

    fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String> {
        let of = ["--namespace", &self.namespace.name];
        let arguments: Vec<&str> = of.into_iter().chain(arguments.iter().copied()).collect();
        self.namespace.server.kubectl().run_with(&arguments, input)
    }

    fn installed(&self) -> Vec<Value> {
        let mut all = policy::policies_with(&parameters()).to_vec();
        all.extend(policy::bindings());
        all
    }

    /// The policies, as the chart installs them; returns once they are in force.
    pub async fn install(&self) -> Result<()> {
        for object in self.installed() {
            self.kubectl(&["apply", "-f", "-"], &object.to_string())?;
        }
        let mut last = String::new();
        let found = wait::until("the policy is in force", wait::GENEROUS, async || {
            let made = self.made(&pod(json!({})));
            last = format!("{made:?}");
            // Each of the two comes into force by itself.
            let refused = self.refusal(&pod(json!({ "hostNetwork": true })));
            let is_made = made.ok()?["initContainers"][0]["name"] == parts::CONTAINER;
            (is_made && refused.is_ok()).then_some(())
        })
        .await;
        found.with_context(|| last)
    }

    /// As [`Self::install`] undone.
    pub fn remove(&self) -> Result<()> {
        for object in self.installed() {
            let removed = ["delete", "--ignore-not-found", "-f", "-"];
            self.kubectl(&removed, &object.to_string())?;
        }
        Ok(())
    }

    /// What the server would store of it.
    pub fn stored(&self, pod: &Value) -> Result<Value> {
        let create = ["create", "--dry-run=server", "--output=json", "-f", "-"];
        Ok(serde_json::from_str(
            &self.kubectl(&create, &pod.to_string())?,
        )?)
    }

    /// Its spec, in an order in which lists with keys may be compared.
    fn made(&self, pod: &Value) -> Result<Value> {
        let mut spec = self.stored(pod)?["spec"].take();
        sort(&mut spec["volumes"], "name");
        for kind in ["containers", "initContainers"] {
            for container in spec[kind].as_array_mut().into_iter().flatten() {
                sort(&mut container["volumeMounts"], "mountPath");
            }
        }
        Ok(spec)
    }

    fn refusal(&self, pod: &Value) -> Result<String> {
        match self.stored(pod) {
            Ok(_) => anyhow::bail!("it is accepted: {pod}"),
            Err(error) => Ok(format!("{error:#}")),
        }
    }

    fn rendering(&self) -> SidecarRendering {
        SidecarRendering {
            parameters: parameters(),
            namespace: self.namespace.name.clone(),
        }
    }
}

fn sort(list: &mut Value, key: &str) {
    let name = |it: &Value| it[key].as_str().unwrap_or_default().to_owned();
    if let Some(items) = list.as_array_mut() {
        items.sort_by_key(name);
    }
}

/// A labelled pod with these fields more in its spec.
pub fn pod(more: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "prosody", "labels": { "xmpp-edge.dev/sidecar": "org.example" } },
        "spec": {
            // The token's volume has a name at random.
            "automountServiceAccountToken": false,
            "containers": [
                { "name": "prosody", "image": "prosody:1" },
                { "name": "exporter", "image": "exporter:1" },
            ],
        },
    });
    let fields = more.as_object().unwrap().clone();
    pod["spec"].as_object_mut().unwrap().extend(fields);
    pod
}

/// Pods with something of their own at each place where the sidecar needs something.
pub fn pods() -> Vec<(&'static str, Value)> {
    let mut off = pod(json!({}));
    off["metadata"]["labels"][parts::DNS_LABEL] = json!("off");
    let mut on = pod(json!({}));
    on["metadata"]["labels"][parts::DNS_LABEL] = json!("on");
    vec![
        ("plain", pod(json!({}))),
        ("off", off),
        ("another value of the label is not off", on),
        (
            "init containers and another sidecar",
            pod(json!({ "initContainers": [
                { "name": "mesh", "image": "mesh:1", "restartPolicy": "Always" },
                { "name": "migrate", "image": "migrate:1" },
            ] })),
        ),
        (
            "dnsPolicy None",
            pod(json!({ "dnsPolicy": "None", "dnsConfig": { "nameservers": ["192.0.2.53"] } })),
        ),
        (
            "search list and options",
            pod(json!({ "dnsConfig": {
                "searches": ["own.example", "cluster.local"],
                "options": [{ "name": "ndots", "value": "1" }, { "name": "edns0" }],
            } })),
        ),
        (
            "sysctls",
            pod(json!({ "securityContext": {
                "fsGroup": 7,
                "sysctls": [{ "name": "net.ipv4.tcp_syncookies", "value": "1" }],
            } })),
        ),
        (
            "the same sysctl",
            pod(
                json!({ "securityContext": { "sysctls": [{ "name": parts::SYSCTL, "value": "25" }] } }),
            ),
        ),
        (
            "volumes and mounts",
            pod(json!({
                "volumes": [{ "name": "data", "emptyDir": {} }],
                "containers": [{
                    "name": "prosody",
                    "image": "prosody:1",
                    "ports": [{ "containerPort": 5269 }],
                    "volumeMounts": [
                        { "name": "data", "mountPath": "/data" },
                        { "name": "data", "mountPath": "/run/xmpp-edge" },
                    ],
                }],
            })),
        ),
    ]
}

#[test]
fn the_chart_installs_what_the_template_makes() {
    if !has_helm(&[Major::Four]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let helm = Helm::offline(Major::Four, home.path().to_owned()).unwrap();
    let settings = [
        "--set=sidecar.injection=on",
        "--set=sidecar.resolvers={10.96.0.10:53,[2001:db8::a]:53}",
        "--set=proxyImage.registry=registry.example,proxyImage.tag=1.2.3",
    ];
    let rendered = render(&helm, &settings);
    let mut wanted = policy::policies_with(&parameters()).to_vec();
    wanted.extend(policy::bindings());
    for object in &mut wanted {
        let same = |it: &&Value| it["kind"] == object["kind"] && it["metadata"]["name"] == NAME;
        let found = rendered.iter().find(same);
        let mut found = found
            .unwrap_or_else(|| panic!("no {}", object["kind"]))
            .clone();
        for policy in [&mut found, &mut *object] {
            sort(&mut policy["spec"]["variables"], "name");
        }
        for field in ["apiVersion", "spec"] {
            assert_eq!(found[field], object[field], "{} {field}", object["kind"]);
        }
    }
    let by_default = render(&helm, &[]);
    assert!(by_default.iter().all(|it| it["metadata"]["name"] != NAME));
}

#[test]
fn b_40_what_the_policy_makes_is_what_is_printed() {
    SERVER.test_in_turn(async |namespace| {
        let scene = Scene::new(namespace)?;
        scene.install().await?;
        for (name, pod) in pods() {
            let by_policy = scene.made(&pod).context(name)?;
            let printed = scene.rendering().objects(std::slice::from_ref(&pod))?;
            let printed = scene.made(&printed[0]).context(name)?;
            assert_eq!(by_policy, printed, "{name}");
            let patched = kustomized(&scene, &pod).context(name)?;
            assert_eq!(
                scene.made(&patched).context(name)?,
                printed,
                "{name}, patched"
            );
        }
        // Its token is not mounted into the sidecar, also where pods get one.
        let with_token = pod(json!({ "automountServiceAccountToken": true }));
        let made = scene.made(&with_token)?;
        let token = |container: &Value| {
            let mounts = container["volumeMounts"].as_array().unwrap().iter();
            let mut at = mounts
                .filter(|it| it["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount");
            at.next().map(|it| it["name"].as_str().unwrap().to_owned())
        };
        assert!(
            token(&made["containers"][0])
                .unwrap()
                .starts_with("kube-api-access-")
        );
        assert_eq!(
            token(&made["initContainers"][0]).unwrap(),
            "xmpp-edge-sidecar-public"
        );
        scene.remove()
    });
}

/// What `kubectl kustomize` makes of a pod and its printed patch.
fn kustomized(scene: &Scene<'_>, pod: &Value) -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let write =
        |name: &str, value: &Value| std::fs::write(folder.path().join(name), value.to_string());
    let patches = scene.rendering().patches(std::slice::from_ref(pod))?;
    ensure!(patches.len() == 1, "{patches:?}");
    write("pod.yaml", pod)?;
    write("patch.yaml", &patches[0])?;
    write(
        "kustomization.yaml",
        &json!({ "resources": ["pod.yaml"], "patches": [{ "path": "patch.yaml" }] }),
    )?;
    let path = folder.path().display().to_string();
    let made = scene
        .namespace
        .server
        .kubectl()
        .run(&["kustomize", &path])?;
    Ok(serde_saphyr::from_str(&made)?)
}

#[test]
fn b_37_pods_without_the_label_are_not_changed_by_a_byte() {
    SERVER.test_in_turn(async |namespace| {
        let scene = Scene::new(namespace)?;
        let unlabelled = || -> Result<Vec<String>> {
            let mut all = Vec::new();
            for (_, mut pod) in pods() {
                pod["metadata"].as_object_mut().unwrap().remove("labels");
                let mut stored = scene.stored(&pod)?;
                for made in ["uid", "creationTimestamp"] {
                    stored["metadata"].as_object_mut().unwrap().remove(made);
                }
                all.push(stored.to_string());
            }
            Ok(all)
        };
        let before = unlabelled()?;
        scene.install().await?;
        assert_eq!(unlabelled()?, before);
        // A policy that cannot be evaluated: labelled pods alone are held up.
        let [mut broken, _] = policy::policies_with(&parameters());
        broken["spec"]["variables"][0]["expression"] = json!("string(1 / 0)");
        scene.kubectl(&["apply", "-f", "-"], &broken.to_string())?;
        let said = wait::until("labelled pods are refused", wait::GENEROUS, async || {
            scene.refusal(&pod(json!({}))).ok()
        })
        .await?;
        assert!(said.contains(NAME), "{said}");
        assert_eq!(unlabelled()?, before);
        scene.remove()
    });
}

#[test]
fn b_39_a_labelled_pod_is_never_made_without_its_sidecar() {
    SERVER.test_in_turn(async |namespace| {
        let scene = Scene::new(namespace)?;
        scene.install().await?;
        let said = scene.refusal(&pod(json!({ "hostNetwork": true })))?;
        assert!(said.contains("take hostNetwork away"), "{said}");
        let mut name = pod(json!({}));
        name["metadata"]["labels"][parts::LABEL] = json!("Org_Example");
        let said = scene.refusal(&name)?;
        assert!(said.contains("spec.gateways[].name"), "{said}");
        scene.kubectl(&["delete", "mutatingadmissionpolicy", NAME], "")?;
        let said = wait::until("the pod is refused", wait::GENEROUS, async || {
            scene.refusal(&pod(json!({}))).ok()
        })
        .await?;
        assert!(said.contains("render --sidecar FILE"), "{said}");
        let printed = scene.rendering().objects(&[pod(json!({}))])?;
        scene.stored(&printed[0])?;
        scene.remove()
    });
}
