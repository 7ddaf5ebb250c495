#![allow(clippy::unwrap_used)]
use std::{fs, path::Path};

use super::*;

/// What is made from the types and checked in: definitions, the chart's copies, reference pages.
/// `UPDATE_CRDS=1 cargo test -p xmpp-edge-crds --features kinds definition` writes it anew.
#[test]
fn checked_in_definitions_match_the_types() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut wanted = Vec::new();
    for (name, text) in files() {
        wanted.push((format!("charts/xmpp-edge/files/crds/{name}"), text.clone()));
        wanted.push((format!("crds/{name}"), text));
    }
    for (name, text) in crate::kinds::reference::pages() {
        wanted.push((format!("docs/reference/{name}"), text));
    }
    wanted.push((
        "examples/kustomize/kustomizeconfig.yaml".to_owned(),
        kustomize(),
    ));
    for (name, text) in wanted {
        let path = root.join(&name);
        if std::env::var_os("UPDATE_CRDS").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let on_disk = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            on_disk == text,
            "{name} is stale: run the tests with UPDATE_CRDS=1"
        );
    }
}

#[test]
fn every_field_says_what_it_means() {
    for (kind, schema) in schemas() {
        for part in ["spec", "status"] {
            every_schema(&schema["properties"][part], part, &mut |path, object| {
                let lent = LENT.iter().any(|(at, _)| path.starts_with(at));
                // An entry of a list or map is what its list or map says.
                let told = lent || path.ends_with("[]") || path.starts_with("status.conditions");
                let text = object.get("description").and_then(Value::as_str);
                assert!(
                    told || text.is_some_and(|it| it.len() > 10),
                    "{kind} {path}"
                );
            });
        }
    }
}

fn every_schema(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Map<String, Value>)) {
    let Some(object) = schema.as_object() else {
        return;
    };
    visit(path, object);
    for (name, property) in object
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        every_schema(property, &format!("{path}.{name}"), visit);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = object.get(key) {
            every_schema(inner, &format!("{path}[]"), visit);
        }
    }
}

#[test]
fn every_list_map_and_string_is_bounded_and_every_keyword_known() {
    // What the offline check reads; another keyword would be silently passed over by it.
    const KNOWN: [&str; 19] = [
        "type",
        "properties",
        "required",
        "description",
        "default",
        "enum",
        "format",
        "items",
        "additionalProperties",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "maxProperties",
        "pattern",
        "x-kubernetes-int-or-string",
        "x-kubernetes-validations",
    ];
    for (kind, schema) in schemas() {
        for part in ["spec", "status"] {
            every_schema(&schema["properties"][part], part, &mut |path, object| {
                let bound = match object.get("type").and_then(Value::as_str) {
                    Some("array") => object.contains_key("maxItems"),
                    Some("string") => ["maxLength", "enum", "format"]
                        .iter()
                        .any(|key| object.contains_key(*key)),
                    Some("object") => {
                        !object.contains_key("additionalProperties")
                            || object.contains_key("maxProperties")
                    }
                    Some(_) => true,
                    None => object.contains_key("x-kubernetes-int-or-string"),
                };
                assert!(bound, "{kind} {path} has no bound or no type");
                for key in object.keys() {
                    let known = KNOWN.contains(&key.as_str())
                        || key.starts_with("x-kubernetes-list-")
                        || key == "x-kubernetes-map-type";
                    assert!(known, "{kind} {path}: {key}");
                }
                if object.contains_key("pattern") {
                    assert_eq!(
                        object["pattern"],
                        crate::kinds::fields::LABEL_VALUE,
                        "{path}"
                    );
                }
            });
        }
    }
}

#[test]
fn every_rule_has_a_message_that_says_what_to_do() {
    for (kind, schema) in schemas() {
        every_schema(&schema, "", &mut |path, object| {
            let rules = object
                .get("x-kubernetes-validations")
                .and_then(Value::as_array);
            for rule in rules.into_iter().flatten() {
                assert!(
                    rule["message"].as_str().is_some_and(|m| m.len() > 20),
                    "{kind}{path}"
                );
            }
        });
    }
}

#[test]
fn definitions_read_back_as_what_the_api_server_takes() {
    for crd in crds() {
        let names = &crd.spec.names;
        assert_eq!(names.categories.as_deref(), Some(&["xmpp".to_owned()][..]));
        assert_eq!(names.short_names.as_ref().map(Vec::len), Some(1));
        assert_eq!(crd.spec.scope, "Namespaced");
        let version = &crd.spec.versions[0];
        let subresources = version.subresources.as_ref().unwrap();
        assert!(subresources.status.is_some());
        assert_eq!(subresources.scale.is_some(), names.kind == "EdgePool");
        let wide = version.additional_printer_columns.iter().flatten();
        assert!(
            wide.filter(|column| column.priority.unwrap_or(0) == 0)
                .count()
                <= 6
        );
    }
    let documents = yaml().matches("---\n").count();
    assert_eq!(documents, 3);
}

#[test]
fn no_description_is_wrapped_within_an_identifier_or_at_all() {
    for (kind, schema) in schemas() {
        every_schema(&schema, &kind, &mut |path, object| {
            let Some(text) = object.get("description").and_then(Value::as_str) else {
                return;
            };
            assert!(!text.contains('\n'), "{path}: {text}");
            assert_eq!(text.matches('`').count() % 2, 0, "{path}: {text}");
            for quoted in text.split('`').skip(1).step_by(2) {
                assert!(!quoted.contains("- "), "{path}: {quoted}");
            }
        });
    }
}

/// `kubectl explain` prints no defaults: the text has to.
#[test]
fn a_default_of_a_setting_is_said_in_its_description() {
    for (kind, schema) in schemas() {
        every_schema(
            &schema["properties"]["spec"],
            "spec",
            &mut |path, object| {
                let default = match object.get("default") {
                    None | Some(Value::Object(_)) => return,
                    Some(Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                };
                let text = object["description"].as_str().unwrap();
                let said = text.contains("efault");
                assert!(
                    said && text.contains(&default),
                    "{kind} {path}: {default} is not in {text:?}"
                );
            },
        );
    }
}

/// etcd takes 1.5 MiB of an object; spec and metadata want room too.
#[test]
fn no_status_can_outgrow_what_etcd_takes() {
    const MOST: u64 = 1024 * 1024;
    for (kind, schema) in schemas() {
        let bytes = worst(&schema["properties"]["status"], "status");
        assert!(bytes < MOST, "{kind}: a status of {bytes} bytes is allowed");
    }
}

/// Most bytes of a value's JSON. Texts that are written for people may be of any script, up to four
/// bytes a character; all others are ASCII.
fn worst(schema: &Value, name: &str) -> u64 {
    match schema["type"].as_str() {
        Some("array") => {
            schema["maxItems"].as_u64().unwrap() * (worst(&schema["items"], name) + 1) + 2
        }
        Some("object") => {
            let fields = schema["properties"].as_object().unwrap();
            let fields = fields.iter();
            fields
                .map(|(name, field)| name.len() as u64 + 4 + worst(field, name))
                .sum::<u64>()
                + 2
        }
        Some("string") if schema.get("enum").is_some() || schema.get("format").is_some() => 64,
        Some("string") => {
            let characters = schema["maxLength"].as_u64().unwrap();
            let any_script = ["text", "message"].contains(&name);
            characters * if any_script { 4 } else { 1 } + 2
        }
        _ => 20,
    }
}

#[test]
fn what_is_looked_for_most_can_be_selected() {
    for crd in crds() {
        let version = &crd.spec.versions[0];
        let fields = version.selectable_fields.iter().flatten();
        let paths: Vec<_> = fields.map(|field| field.json_path.as_str()).collect();
        let wanted = match crd.spec.names.kind.as_str() {
            "XmppFederatedPartner" => vec![".spec.domain", ".spec.partnerType"],
            "ExternalAccessPolicy" => vec![".spec.scope", ".spec.site"],
            _ => vec![".spec.site", ".spec.accessEdge.fqdn"],
        };
        assert_eq!(paths, wanted);
    }
}

/// A time of the future prints as `<invalid>` in a column of type `date`.
#[test]
fn only_times_of_the_past_are_columns_of_type_date() {
    for crd in crds() {
        let columns = crd.spec.versions[0].additional_printer_columns.iter();
        for column in columns.flatten() {
            let past = column.json_path == ".metadata.creationTimestamp";
            assert!(column.type_ != "date" || past, "{}", column.name);
        }
    }
}

#[test]
fn k26_kustomize_is_told_of_every_field_that_names_a_secret_or_a_config_map() {
    let text = kustomize();
    for (kind, path) in [
        ("EdgePool", "spec/certificate/secretRef/name"),
        ("EdgePool", "spec/certificate/csr/chainSecretRef/name"),
        ("EdgePool", "spec/contacts/postgres/secretRef/name"),
        ("EdgePool", "spec/dns/rfc2136/tsigSecretRef/name"),
        ("EdgePool", "spec/gateways/trust/caConfigMapRef/name"),
        ("EdgePool", "spec/settings/dialbackSecretRef/name"),
        ("EdgePool", "spec/podTemplate/imagePullSecrets/name"),
        (
            "EdgePool",
            "spec/podTemplate/env/valueFrom/secretKeyRef/name",
        ),
        ("EdgePool", "spec/trust/caConfigMapRef/name"),
        ("XmppFederatedPartner", "spec/trust/caConfigMapRef/name"),
        ("ExternalAccessPolicy", "spec/usersFrom/configMapRef/name"),
    ] {
        let line = format!("kind: {kind}, path: {path}}}");
        assert!(text.contains(&line), "{line} in\n{text}");
    }
}

/// kubectl, which validates before it asks, refuses a definition with a `null` anywhere.
#[test]
fn a_definition_has_no_null_that_kubectl_would_refuse() {
    fn nulls(value: &Value, path: &str) {
        match value {
            Value::Null => panic!("{path} is null"),
            Value::Array(items) => items.iter().for_each(|item| nulls(item, path)),
            Value::Object(fields) => fields
                .iter()
                .for_each(|(name, field)| nulls(field, &format!("{path}.{name}"))),
            _ => {}
        }
    }
    for (kind, schema) in schemas() {
        nulls(&schema, &kind);
    }
}
