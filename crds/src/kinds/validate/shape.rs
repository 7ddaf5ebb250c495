//! The schema half: types, enums, bounds, required and unknown fields, sets and maps.
//!
//! It knows the keywords that our definitions use, which a test holds it to.

use serde_json::Value;

use super::Violation;

/// Checks a whole object against its kind's schema. `status` is not looked at: a manifest's is
/// never stored.
pub(super) fn check(schema: &Value, object: &Value, faults: &mut Vec<Violation>) {
    let Some(fields) = object.as_object() else {
        faults.push(Violation {
            path: String::new(),
            message: "is no object".into(),
        });
        return;
    };
    for key in fields.keys() {
        if !["apiVersion", "kind", "metadata", "spec", "status"].contains(&key.as_str()) {
            faults.push(unknown(
                key,
                key,
                &["apiVersion", "kind", "metadata", "spec"],
            ));
        }
    }
    match fields.get("spec") {
        Some(spec) => Walk { faults }.value(&schema["properties"]["spec"], spec, "spec"),
        None => faults.push(Violation {
            path: "spec".into(),
            message: "is required".into(),
        }),
    }
}

/// The API server leaves out a `null` where the field has a default.
pub(super) fn drop_defaulted_nulls(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
                return;
            };
            fields.retain(|key, field| {
                !(field.is_null()
                    && properties
                        .get(key)
                        .is_some_and(|known| known.get("default").is_some()))
            });
            for (key, field) in fields {
                if let Some(known) = properties.get(key) {
                    drop_defaulted_nulls(known, field);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                drop_defaulted_nulls(&schema["items"], item);
            }
        }
        _ => {}
    }
}

fn unknown(path: &str, key: &str, known: &[&str]) -> Violation {
    let message = match known.iter().find(|name| name.eq_ignore_ascii_case(key)) {
        Some(name) => format!("is no known field: did you mean {name}?"),
        None => format!("is no known field here; known are {}", known.join(", ")),
    };
    Violation {
        path: path.into(),
        message,
    }
}

struct Walk<'a> {
    faults: &'a mut Vec<Violation>,
}

impl Walk<'_> {
    fn fault(&mut self, path: &str, message: String) {
        self.faults.push(Violation {
            path: path.into(),
            message,
        });
    }

    fn value(&mut self, schema: &Value, value: &Value, path: &str) {
        if value.is_null() {
            return self.fault(
                path,
                "has no value: remove the field, or give it one".into(),
            );
        }
        if schema["x-kubernetes-int-or-string"] == true {
            if !value.is_string() && !value.is_i64() {
                self.fault(
                    path,
                    format!("is {}, must be an integer or a string", name_of(value)),
                );
            }
            return;
        }
        let wanted = schema["type"].as_str().unwrap_or_default();
        let fits = match wanted {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            _ => true,
        };
        if !fits {
            let article = if wanted.starts_with(['a', 'i', 'o']) {
                "an"
            } else {
                "a"
            };
            return self.fault(
                path,
                format!("is {}, must be {article} {wanted}", name_of(value)),
            );
        }
        match value {
            Value::Object(fields) => self.object(schema, fields, path),
            Value::Array(items) => self.array(schema, items, path),
            Value::String(text) => self.string(schema, text, path),
            Value::Number(number) => self.number(schema, number, path),
            _ => {}
        }
    }

    fn object(&mut self, schema: &Value, fields: &serde_json::Map<String, Value>, path: &str) {
        for key in schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if !fields.contains_key(key) {
                self.fault(&format!("{path}.{key}"), "is required".into());
            }
        }
        if let Some(most) = schema["maxProperties"].as_u64()
            && fields.len() as u64 > most
        {
            self.fault(
                path,
                format!("has {} entries, at most {most} are allowed", fields.len()),
            );
        }
        let properties = schema["properties"].as_object();
        for (key, field) in fields {
            let below = format!("{path}.{key}");
            match properties.and_then(|properties| properties.get(key)) {
                Some(known) => self.value(known, field, &below),
                None if schema["additionalProperties"].is_object() => {
                    self.value(&schema["additionalProperties"], field, &below);
                }
                None => {
                    let known: Vec<&str> = properties
                        .into_iter()
                        .flatten()
                        .map(|(name, _)| name.as_str())
                        .collect();
                    self.faults.push(unknown(&below, key, &known));
                }
            }
        }
    }

    fn array(&mut self, schema: &Value, items: &[Value], path: &str) {
        let count = items.len() as u64;
        if let Some(least) = schema["minItems"].as_u64()
            && count < least
        {
            let required =
                "may not be empty: add an entry, or leave the field out where it is optional";
            self.fault(path, required.into());
        }
        if let Some(most) = schema["maxItems"].as_u64()
            && count > most
        {
            // What follows would be one fault an entry.
            return self.fault(
                path,
                format!("has {count} entries, at most {most} are allowed"),
            );
        }
        for (index, item) in items.iter().enumerate() {
            self.value(&schema["items"], item, &format!("{path}[{index}]"));
        }
        let keys: Option<Vec<&str>> = match schema["x-kubernetes-list-type"].as_str() {
            Some("set") => Some(vec![]),
            Some("map") => schema["x-kubernetes-list-map-keys"]
                .as_array()
                .map(|keys| keys.iter().filter_map(Value::as_str).collect()),
            _ => None,
        };
        let Some(keys) = keys else { return };
        let mut seen = std::collections::BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            let key = match keys.as_slice() {
                [] => item.to_string(),
                keys => keys
                    .iter()
                    .map(|key| item[*key].to_string())
                    .collect::<Vec<_>>()
                    .join(" "),
            };
            if !seen.insert(key.clone()) {
                let twice = match keys.as_slice() {
                    [] => format!("{key} is listed twice: remove one"),
                    [name, ..] => format!(
                        "{name} {key} is listed twice: give each entry a {name} of its own, or remove one"
                    ),
                };
                self.fault(&format!("{path}[{index}]"), twice);
            }
        }
    }

    fn string(&mut self, schema: &Value, text: &str, path: &str) {
        if let Some(choices) = schema["enum"].as_array()
            && !choices.iter().any(|choice| choice.as_str() == Some(text))
        {
            let choices: Vec<&str> = choices.iter().filter_map(Value::as_str).collect();
            self.fault(
                path,
                format!("is {text:?}, must be one of {}", choices.join(", ")),
            );
        }
        // The API server counts characters, not octets.
        let length = text.chars().count() as u64;
        match schema["minLength"].as_u64() {
            Some(1) if length == 0 => {
                self.fault(path, "is too short: it may not be empty".into());
            }
            Some(least) if length < least => {
                self.fault(
                    path,
                    format!("has {length} characters, at least {least} are needed"),
                );
            }
            _ => {}
        }
        if let Some(most) = schema["maxLength"].as_u64()
            && length > most
        {
            self.fault(
                path,
                format!("has {length} characters, at most {most} are allowed"),
            );
        }
        if schema["pattern"] == *super::super::fields::LABEL_VALUE && !is_label_value(text) {
            self.fault(path, "is no label value: use letters, digits, \"-\", \"_\" and \".\", beginning and ending with a letter or digit".into());
        }
    }

    fn number(&mut self, schema: &Value, number: &serde_json::Number, path: &str) {
        let Some(number) = number.as_f64() else {
            return;
        };
        if let Some(least) = schema["minimum"].as_f64()
            && number < least
        {
            self.fault(path, format!("is {number}, must be at least {least}"));
        }
        if let Some(most) = schema["maximum"].as_f64()
            && number > most
        {
            self.fault(path, format!("is {number}, must be at most {most}"));
        }
    }
}

/// What the one pattern of our definitions says.
fn is_label_value(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let outer = |b: Option<u8>| b.is_none_or(|b| b.is_ascii_alphanumeric());
    text.bytes().all(inner) && outer(text.bytes().next()) && outer(text.bytes().next_back())
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
