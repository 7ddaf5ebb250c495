//! What the API server would say to a manifest, said offline: schema first, then CEL rules.
//!
//! Defaults are applied before the rules, as the API server does. Unknown fields are faults here,
//! as they are to `kubectl apply`. Rules across objects are not this module's.

mod shape;

use std::{collections::BTreeMap, fmt, sync::LazyLock};

use kube::core::cel::{CompiledSchema, Validator, apply_defaults, compile_schema};
use serde_json::Value;

use super::{GROUP, VERSION, definition};

/// One fault of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Violation {
    /// Where: `spec.gateways[0].address`; `kind` or `metadata.name` for the object itself.
    pub path: String,
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

struct Kind {
    schema: Value,
    rules: CompiledSchema,
}

static KINDS: LazyLock<BTreeMap<String, Kind>> = LazyLock::new(|| {
    definition::schemas()
        .into_iter()
        .map(|(name, schema)| {
            let rules = compile_schema(&schema);
            (name, Kind { schema, rules })
        })
        .collect()
});

thread_local! {
    /// Not `Sync`, and costly to build: one a thread.
    static VALIDATOR: Validator = Validator::new();
}

/// Every fault that the API server would find in a manifest of one of the three kinds, that is
/// created; sorted by path. CEL rules are evaluated once the shape is right. An empty answer means
/// accepted.
#[must_use]
pub fn validate_manifest(manifest: &Value) -> Vec<Violation> {
    check(manifest, None)
}

/// As [`validate_manifest`] for a manifest that replaces `old`: what may not change is checked too.
#[must_use]
pub fn validate_change(manifest: &Value, old: &Value) -> Vec<Violation> {
    check(manifest, Some(old))
}

/// The manifest as the API server would store it: defaults filled in, `null` where there is a
/// default left out. A manifest of another kind comes back unchanged.
#[must_use]
pub fn with_defaults(manifest: &Value) -> Value {
    match kind_of(manifest) {
        Ok(kind) => {
            let mut pruned = manifest.clone();
            shape::drop_defaulted_nulls(&kind.schema, &mut pruned);
            apply_defaults(&kind.schema, &pruned)
        }
        Err(_) => manifest.clone(),
    }
}

fn check(manifest: &Value, old: Option<&Value>) -> Vec<Violation> {
    let kind = match kind_of(manifest) {
        Ok(kind) => kind,
        Err(violation) => return vec![violation],
    };
    let mut faults = Vec::new();
    check_name(manifest, &mut faults);
    let stored = with_defaults(manifest);
    shape::check(&kind.schema, &stored, &mut faults);
    if faults.is_empty() {
        let old = old.map(with_defaults);
        let verdict = VALIDATOR
            .with(|validator| validator.validate_compiled(&kind.rules, &stored, old.as_ref()));
        for error in verdict.err().into_iter().flatten() {
            let path = error.field_path.trim_start_matches('.').to_owned();
            // A rule of the object as a whole speaks of its name: nothing else is visible to it.
            let path = if path.is_empty() {
                "metadata.name".to_owned()
            } else {
                path
            };
            faults.push(Violation {
                path,
                message: error.message,
            });
        }
    }
    faults.sort();
    faults.dedup();
    faults
}

fn kind_of(manifest: &Value) -> Result<&'static Kind, Violation> {
    let fault = |path: &str, message: String| Violation {
        path: path.into(),
        message,
    };
    let version = manifest
        .get("apiVersion")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let wanted = format!("{GROUP}/{VERSION}");
    if version != wanted {
        return Err(fault(
            "apiVersion",
            format!("is {version:?}, must be {wanted}"),
        ));
    }
    let name = manifest
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default();
    KINDS.get(name).ok_or_else(|| {
        let known = KINDS
            .keys()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ");
        fault("kind", format!("is {name:?}, must be one of {known}"))
    })
}

/// What every object's name must be (RFC 1123 subdomain).
fn check_name(manifest: &Value, faults: &mut Vec<Violation>) {
    let name = manifest
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let message = if name.is_empty() {
        "is required: give the object a name"
    } else if name.len() > 253 || !name.split('.').all(label) {
        "must be lower-case letters, digits, \"-\" and \".\", at most 253 of them, beginning and ending with a letter or digit"
    } else {
        return;
    };
    faults.push(Violation {
        path: "metadata.name".into(),
        message: message.into(),
    });
}
