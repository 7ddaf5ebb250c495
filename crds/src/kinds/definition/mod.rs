//! The CustomResourceDefinitions as a cluster gets them.
//!
//! What the derives produce is made plain first: integer bounds as integers, formats that the API
//! server knows, no `null` where absence says the same, every list, map and string bounded (also
//! inside types that Kubernetes lends us, whose long descriptions are left out). The YAML files
//! beside this crate's `src/` are this module's output; a test holds them together.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use super::{EdgePool, ExternalAccessPolicy, XmppFederatedPartner};

/// Bounds for what a type leaves open.
const OPEN_LIST: u64 = 64;
const OPEN_MAP: u64 = 64;
const OPEN_STRING: u64 = 1024;

/// The kinds' definitions, in the order partner, policy, pool.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    definitions()
        .into_iter()
        .map(|definition| {
            serde_json::from_value(definition).expect("a definition stays one when made plain")
        })
        .collect()
}

/// All definitions as one YAML stream, for `xmpp-edge-operator crds`.
#[must_use]
pub fn yaml() -> String {
    files()
        .into_iter()
        .map(|(_, text)| text)
        .collect::<Vec<_>>()
        .join("")
}

/// File name and content of each checked-in definition.
#[must_use]
pub fn files() -> Vec<(String, String)> {
    definitions()
        .into_iter()
        .map(|definition| {
            let name = definition["metadata"]["name"].as_str().unwrap_or_default();
            let text = serde_saphyr::to_string(&definition).expect("JSON is YAML");
            (format!("{name}.yaml"), format!("---\n{text}"))
        })
        .collect()
}

/// Where objects of ours name Secrets and ConfigMaps, as kustomize's `nameReference` wants it: names
/// that its generators give a hash are followed.
#[must_use]
pub fn kustomize() -> String {
    let mut found: BTreeMap<&str, Vec<(String, String)>> = BTreeMap::new();
    for (kind, schema) in schemas() {
        references(&schema["properties"]["spec"], "spec", &mut |of, path| {
            found.entry(of).or_default().push((kind.clone(), path));
        });
    }
    let mut text = String::from(
        "# Where the kinds name Secrets and ConfigMaps: list this file in `configurations` of a kustomization whose\n\
         # generators give names a hash. Made from the definitions by a test of crds/.\nnameReference:\n",
    );
    for (of, fields) in found {
        text.push_str(&format!("- kind: {of}\n  fieldSpecs:\n"));
        for (kind, path) in fields {
            text.push_str(&format!(
                "  - {{group: {}, kind: {kind}, path: {path}}}\n",
                super::GROUP
            ));
        }
    }
    text
}

/// Calls `visit` with kind and path of each field that names a Secret or a ConfigMap.
fn references(schema: &Value, path: &str, visit: &mut impl FnMut(&'static str, String)) {
    let inner = schema.get("items").unwrap_or(schema);
    for (name, field) in inner["properties"].as_object().into_iter().flatten() {
        let below = format!("{path}/{name}");
        let of = match name.to_lowercase() {
            it if it.ends_with("secretref") || it == "secretkeyref" || it == "imagepullsecrets" => {
                Some("Secret")
            }
            it if it.ends_with("configmapref") || it == "configmapkeyref" => Some("ConfigMap"),
            _ => None,
        };
        match of {
            Some(of) => visit(of, format!("{below}/name")),
            None => references(field, &below, visit),
        }
    }
}

/// As [`crds`], as plain JSON: bounds are integers here.
pub(super) fn definitions() -> Vec<Value> {
    [
        XmppFederatedPartner::crd(),
        ExternalAccessPolicy::crd(),
        EdgePool::crd(),
    ]
    .iter()
    .map(|crd| {
        let mut definition = serde_json::to_value(crd).expect("a definition is JSON");
        let versions = definition["spec"]["versions"].as_array_mut();
        for version in versions.into_iter().flatten() {
            let root = &mut version["schema"]["openAPIV3Schema"];
            for part in ["spec", "status"] {
                plain(&mut root["properties"][part]);
                bound(&mut root["properties"][part]);
            }
            shorten(root);
            silence(&mut root["properties"]["status"]);
            require_spec(root);
        }
        sorted(definition)
    })
    .collect()
}

/// The schema of each kind: `(kind, openAPIV3Schema)`.
pub(super) fn schemas() -> Vec<(String, Value)> {
    definitions()
        .into_iter()
        .map(|mut definition| {
            let kind = definition["spec"]["names"]["kind"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            (
                kind,
                definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take(),
            )
        })
        .collect()
}

fn require_spec(root: &mut Value) {
    root["required"] = json!(["spec"]);
    if let Some(status) = root
        .pointer_mut("/properties/status")
        .and_then(Value::as_object_mut)
    {
        status.remove("default");
    }
}

/// Calls `visit` on each schema below this one, then on this one.
fn each_schema(schema: &mut Value, visit: &mut impl FnMut(&mut Map<String, Value>)) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        for property in properties.values_mut() {
            each_schema(property, visit);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(key) {
            each_schema(inner, visit);
        }
    }
    visit(object);
}

fn plain(schema: &mut Value) {
    each_schema(schema, &mut |object| {
        object.remove("nullable");
        object.remove("title");
        // An optional choice: absence says the same, and kubectl takes no `null` for one.
        if let Some(Value::Array(choices)) = object.get_mut("enum") {
            choices.retain(|choice| !choice.is_null());
        }
        unwrap(object);
        if object
            .get("default")
            .is_some_and(|d| d.is_null() || *d == json!([]))
        {
            object.remove("default");
        }
        for key in [
            "minimum",
            "maximum",
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
        ] {
            if let Some(bound) = object.get_mut(key)
                && let Some(number) = bound.as_f64()
                && number.fract() == 0.0
            {
                // Bounds stay far below 2^53, where every integer is a float of its own.
                #[allow(clippy::cast_possible_truncation)]
                let whole = number as i64;
                *bound = json!(whole);
            }
        }
        let format = match object.get("format").and_then(Value::as_str) {
            Some("uint8" | "uint16" | "int8" | "int16") => "int32",
            Some("uint32" | "uint64" | "uint") => "int64",
            _ => return,
        };
        object.insert("format".into(), json!(format));
    });
}

/// A description without the line breaks of the source: readers wrap it to their own width. An
/// empty line stays.
fn unwrap(object: &mut Map<String, Value>) {
    if let Some(Value::String(text)) = object.get_mut("description") {
        let paragraphs = text.split("\n\n");
        let joined: Vec<String> = paragraphs.map(|it| it.replace('\n', " ")).collect();
        *text = joined.join("\n\n");
    }
}

fn bound(schema: &mut Value) {
    each_schema(schema, &mut |object| {
        let kind = object
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let open = |key: &str| !object.contains_key(key);
        match kind.as_str() {
            "array" if open("maxItems") => {
                object.insert("maxItems".into(), json!(OPEN_LIST));
            }
            "string" if open("maxLength") && open("enum") && open("format") => {
                object.insert("maxLength".into(), json!(OPEN_STRING));
            }
            "object" if object.contains_key("additionalProperties") && open("maxProperties") => {
                object.insert("maxProperties".into(), json!(OPEN_MAP));
            }
            _ => {}
        }
    });
}

/// Where a type is Kubernetes' own, and which.
pub(super) const LENT: [(&str, &str); 11] = [
    ("spec.podTemplate.resources", "ResourceRequirements"),
    ("spec.podTemplate.tolerations", "Toleration"),
    ("spec.podTemplate.affinity", "Affinity"),
    (
        "spec.podTemplate.topologySpreadConstraints",
        "TopologySpreadConstraint",
    ),
    ("spec.podTemplate.imagePullSecrets", "LocalObjectReference"),
    ("spec.podTemplate.env", "EnvVar"),
    ("spec.podTemplate.dnsConfig", "PodDNSConfig"),
    ("spec.podTemplate.hostAliases", "HostAlias"),
    ("spec.networkPolicy.adminFrom", "NetworkPolicyPeer"),
    ("spec.networkPolicy.internalFrom", "NetworkPolicyPeer"),
    ("spec.networkPolicy.egress", "NetworkPolicyEgressRule"),
];

/// Kubernetes documents its own types: pages of it are no help in ours.
fn shorten(root: &mut Value) {
    for (path, _) in LENT {
        let pointer: String = path
            .split('.')
            .flat_map(|field| ["/properties/", field])
            .collect();
        let Some(lent) = root.pointer_mut(&pointer) else {
            continue;
        };
        let own = lent.get("description").cloned();
        each_schema(lent, &mut |object| {
            object.remove("description");
        });
        if let Some(description) = own {
            lent["description"] = description;
        }
    }
}

/// `Time` comes with a description of Go code, where a field has none of its own.
fn silence(status: &mut Value) {
    each_schema(status, &mut |object| {
        let of_go = object
            .get("description")
            .and_then(Value::as_str)
            .is_some_and(|text| text.starts_with("Time is a wrapper"));
        if of_go {
            object.remove("description");
        }
    });
}

/// Keys in alphabetical order, whether or not a neighbour in the build asked serde_json to keep
/// the order of insertion.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let ordered: BTreeMap<String, Value> = fields
                .into_iter()
                .map(|(key, field)| (key, sorted(field)))
                .collect();
            Value::Object(ordered.into_iter().collect())
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests;
