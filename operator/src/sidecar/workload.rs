//! Workloads of a manifest: where their pod templates stand, and what is printed for them.

use serde_json::{Map, Value, json};

use super::{
    inject::{InjectError, Injection, inject},
    parameters::SidecarParameters,
    parts,
};

/// What `render --sidecar` is asked for.
#[derive(Clone, Debug)]
pub struct SidecarRendering {
    pub parameters: SidecarParameters,
    /// Of objects that name none.
    pub namespace: String,
}

/// Why nothing is printed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadError {
    #[error("{kind} {name:?}: {fault}")]
    Inject {
        kind: String,
        name: String,
        fault: InjectError,
    },
    #[error(
        "no pod template has the label xmpp-edge.dev/sidecar: write it with the gateway's name into metadata.labels of the template (of a Deployment or StatefulSet spec.template.metadata.labels)"
    )]
    NoLabel,
    #[error(
        "every labelled pod template has the container xmpp-edge-sidecar already: there is nothing to patch"
    )]
    NothingToPatch,
}

impl SidecarRendering {
    /// All objects, labelled workloads with their sidecars; the others as they are.
    ///
    /// # Errors
    /// [`WorkloadError`].
    pub fn objects(&self, objects: &[Value]) -> Result<Vec<Value>, WorkloadError> {
        let mut rendered = objects.to_vec();
        let mut labelled = false;
        for object in &mut rendered {
            labelled |= self.injected(object)? != Injection::NotAsked;
        }
        labelled.then_some(rendered).ok_or(WorkloadError::NoLabel)
    }

    /// A strategic merge patch for each labelled workload.
    ///
    /// # Errors
    /// [`WorkloadError`].
    pub fn patches(&self, objects: &[Value]) -> Result<Vec<Value>, WorkloadError> {
        let mut patches = Vec::new();
        let mut labelled = false;
        for before in objects {
            let mut after = before.clone();
            let injection = self.injected(&mut after)?;
            labelled |= injection != Injection::NotAsked;
            if injection == Injection::Injected {
                patches.extend(patch(before, &after));
            }
        }
        match (labelled, patches.is_empty()) {
            (false, _) => Err(WorkloadError::NoLabel),
            (true, true) => Err(WorkloadError::NothingToPatch),
            (true, false) => Ok(patches),
        }
    }

    fn injected(&self, object: &mut Value) -> Result<Injection, WorkloadError> {
        let said = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        let (kind, name) = (said(&object["kind"]), said(&object["metadata"]["name"]));
        let namespace = object["metadata"]["namespace"].as_str();
        let namespace = namespace.unwrap_or(&self.namespace).to_owned();
        let Some(template) = object.pointer_mut(place(&kind)) else {
            return Ok(Injection::NotAsked);
        };
        inject(template, &namespace, &self.parameters).map_err(|fault| WorkloadError::Inject {
            kind,
            name,
            fault,
        })
    }
}

/// Where the pod template of a kind stands, as a JSON pointer; of others where nothing stands.
fn place(kind: &str) -> &'static str {
    match kind {
        "Pod" => "",
        "CronJob" => "/spec/jobTemplate/spec/template",
        "Deployment"
        | "StatefulSet"
        | "DaemonSet"
        | "ReplicaSet"
        | "ReplicationController"
        | "Job" => "/spec/template",
        _ => "/-",
    }
}

/// What is new, under the object's name. Lists with keys are merged by whoever applies it, so that they hold
/// what is new alone; the others are written whole.
fn patch(before: &Value, after: &Value) -> Option<Value> {
    let kind = after["kind"].as_str()?;
    let spec = |object: &Value| Some(object.pointer(place(kind))?["spec"].clone());
    let (old, new) = (spec(before)?, spec(after)?);
    let mut added = Map::new();
    for list in ["initContainers", "containers"] {
        let named = |container: &Value| container["name"].clone();
        let held = |name: &Value| {
            let mut held = old[list].as_array().into_iter().flatten();
            held.find(|it| it["name"] == *name)
        };
        let changed: Vec<Value> = new[list]
            .as_array()?
            .iter()
            .filter_map(|container| match held(&named(container)) {
                None => Some(container.clone()),
                Some(held) if held == container => None,
                Some(_) => Some(json!({
                    "name": named(container),
                    "volumeMounts": [parts::public_mount()],
                })),
            })
            .collect();
        added.insert(list.to_owned(), changed.into());
    }
    let volumes = new["volumes"].as_array()?;
    let count = old["volumes"].as_array().map_or(0, Vec::len);
    added.insert("volumes".to_owned(), volumes.get(count..)?.into());
    for field in ["dnsPolicy", "dnsConfig"] {
        if old[field] != new[field] {
            added.insert(field.to_owned(), new[field].clone());
        }
    }
    let sysctls = &new["securityContext"]["sysctls"];
    if old["securityContext"]["sysctls"] != *sysctls {
        let context = json!({ "sysctls": sysctls });
        added.insert("securityContext".to_owned(), context);
    }
    let mut patch = json!({ "spec": added });
    for step in place(kind).rsplit('/').filter(|step| !step.is_empty()) {
        patch = json!({ step: patch });
    }
    let object = patch.as_object_mut()?;
    object.insert("apiVersion".to_owned(), after["apiVersion"].clone());
    object.insert("kind".to_owned(), kind.into());
    let metadata = &after["metadata"];
    let mut name = Map::new();
    for field in ["name", "namespace"] {
        if !metadata[field].is_null() {
            name.insert(field.to_owned(), metadata[field].clone());
        }
    }
    object.insert("metadata".to_owned(), name.into());
    Some(patch)
}
