//! The reference of the kinds, as Markdown made from their definitions: what `docs/reference/` holds.
//!
//! It adds nothing to what the CustomResourceDefinitions say; what a field means is mended in its
//! doc comment. A test holds the pages and this module together.

use std::fmt::Write;

use serde_json::Value;

use super::{conditions::ConditionType, definition, partner, policy, pool};

/// File name and content of each page, in the order partner, policy, pool.
#[must_use]
pub fn pages() -> Vec<(String, String)> {
    let conditions = [partner::CONDITIONS, policy::CONDITIONS, pool::CONDITIONS];
    definition::definitions()
        .iter()
        .zip(conditions)
        .map(|(definition, conditions)| {
            let names = &definition["spec"]["names"];
            (
                format!("{}.md", word(&names["singular"])),
                page(definition, conditions),
            )
        })
        .collect()
}

/// All pages as one text, for `xmpp-edge-operator crds --output markdown`.
#[must_use]
pub fn markdown() -> String {
    let texts: Vec<String> = pages().into_iter().map(|(_, text)| text).collect();
    texts.join("\n")
}

fn page(definition: &Value, conditions: &[ConditionType]) -> String {
    let names = &definition["spec"]["names"];
    let version = &definition["spec"]["versions"][0];
    let schema = &version["schema"]["openAPIV3Schema"];
    let mut rules = Rules::default();
    rules.take("", schema);
    let spec = rows("spec", schema, &mut rules);
    let status = rows("status", schema, &mut rules);

    let mut text = format!("# {}\n\n", word(&names["kind"]));
    let mut line = |words: std::fmt::Arguments<'_>| {
        text.write_fmt(words).expect("a String takes everything");
        text.push('\n');
    };
    line(format_args!(
        "<!-- Made from the CustomResourceDefinition by `xmpp-edge-operator crds --output markdown`; edits are lost. -->\n"
    ));
    line(format_args!("{}\n", prose(&schema["description"])));
    line(format_args!(
        "`apiVersion: {}/{}`, `kind: {}`; {}, short name `{}`, category `{}`; subresources: {}.",
        word(&definition["spec"]["group"]),
        word(&version["name"]),
        word(&names["kind"]),
        word(&definition["spec"]["scope"]).to_lowercase(),
        word(&names["shortNames"][0]),
        word(&names["categories"][0]),
        keys(&version["subresources"]),
    ));
    line(format_args!(
        "What objects mean together: [the API](../api.md).\n\n## Spec\n"
    ));
    line(format_args!("{HEAD}{spec}\n## Status\n"));
    line(format_args!("{HEAD}{status}\n## Conditions\n"));
    line(format_args!(
        "Reasons, and what to do: [errors](../errors.md#conditions).\n\n| type | says |\n| --- | --- |"
    ));
    for condition in conditions {
        line(format_args!("| `{condition}` | {} |", condition.meaning()));
    }
    line(format_args!(
        "\n## Columns\n\nOf `kubectl get {}`.\n\n| column | shows | only with `-o wide` |\n| --- | --- | --- |",
        word(&names["plural"])
    ));
    let columns = version["additionalPrinterColumns"].as_array();
    for column in columns.into_iter().flatten() {
        line(format_args!(
            "| {} | `{}` | {} |",
            word(&column["name"]),
            word(&column["jsonPath"]).trim_start_matches('.'),
            if column["priority"].as_u64() > Some(0) {
                "yes"
            } else {
                ""
            },
        ));
    }
    line(format_args!(
        "\n## Rules\n\nBeyond types and bounds: each in CEL, with the message that an API server answers; standalone and\n`validate` say the same."
    ));
    text + &rules.text()
}

const HEAD: &str =
    "| field | type | default | bounds | meaning |\n| --- | --- | --- | --- | --- |\n";

/// A CEL rule, and every field that it is on.
struct ReferenceRule {
    message: String,
    expression: String,
    fields: Vec<String>,
}

#[derive(Default)]
struct Rules(Vec<ReferenceRule>);

impl Rules {
    /// Links to the rules on this schema, or on its entries: `[rule 3](#rule-3)`.
    fn take(&mut self, path: &str, schema: &Value) -> Vec<String> {
        let rules = schema["x-kubernetes-validations"].as_array();
        let mut links = Vec::new();
        for rule in rules.into_iter().flatten() {
            let (message, expression) = (word(&rule["message"]), word(&rule["rule"]));
            let known = self
                .0
                .iter()
                .position(|it| it.message == message && it.expression == expression);
            let number = known.unwrap_or_else(|| {
                self.0.push(ReferenceRule {
                    message: message.to_owned(),
                    expression: expression.to_owned(),
                    fields: Vec::new(),
                });
                self.0.len() - 1
            });
            let at = if path.is_empty() {
                "metadata.name"
            } else {
                path
            };
            self.0[number].fields.push(format!("`{at}`"));
            links.push(format!("[rule {0}](#rule-{0})", number + 1));
        }
        links
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (number, rule) in self.0.iter().enumerate() {
            let _ = write!(
                text,
                "\n### Rule {}\n\nOf {}: {}.\n\n```cel\n{}\n```\n",
                number + 1,
                rule.fields.join(", "),
                rule.message,
                rule.expression
            );
        }
        text
    }
}

/// The rows of everything below this part of an object.
fn rows(part: &str, root: &Value, rules: &mut Rules) -> String {
    let mut text = String::new();
    let required = required(root, part);
    row(part, &root["properties"][part], required, rules, &mut text);
    text
}

fn row(path: &str, schema: &Value, required: bool, rules: &mut Rules, text: &mut String) {
    let lent = lent(path);
    let inner = ["items", "additionalProperties"]
        .into_iter()
        .find_map(|key| schema.get(key));
    let mut bounds = Vec::new();
    if required {
        bounds.push("required".to_owned());
    }
    bounds.extend(bounds_of(schema));
    bounds.extend(rules.take(path, schema));
    if let (Some(inner), None) = (inner, lent) {
        bounds.extend(bounds_of(inner).into_iter().map(|it| format!("each {it}")));
        bounds.extend(rules.take(&format!("{path}[]"), inner));
    }
    let _ = writeln!(
        text,
        "| `{path}` | {} | {} | {} | {} |",
        kind(schema, lent),
        default(&schema["default"]),
        bounds.join("; "),
        prose(&schema["description"]),
    );
    if lent.is_some() {
        return;
    }
    let (below, of) = match inner {
        Some(inner) => (format!("{path}[]"), inner),
        None => (path.to_owned(), schema),
    };
    for (name, field) in of["properties"].as_object().into_iter().flatten() {
        let wanted = self::required(of, name);
        row(&format!("{below}.{name}"), field, wanted, rules, text);
    }
}

/// The name of the type, where it is Kubernetes' own: its fields are not listed.
fn lent(path: &str) -> Option<&'static str> {
    if path == "status.conditions" {
        return Some("Condition");
    }
    let found = definition::LENT.iter().find(|(at, _)| *at == path);
    found.map(|(_, kind)| *kind)
}

fn required(schema: &Value, name: &str) -> bool {
    let names = schema["required"].as_array();
    names.into_iter().flatten().any(|it| it == name)
}

fn kind(schema: &Value, lent: Option<&str>) -> String {
    let list = schema["type"] == "array";
    match (lent, list) {
        (Some(lent), true) => format!("list of Kubernetes' `{lent}`"),
        (Some(lent), false) => format!("Kubernetes' `{lent}`"),
        (None, true) => format!("list of {}s", kind(&schema["items"], None)),
        (None, false) if schema.get("additionalProperties").is_some() => {
            format!("map to {}s", kind(&schema["additionalProperties"], None))
        }
        (None, false) if schema["format"] == "date-time" => "time (RFC 3339)".to_owned(),
        (None, false) => word(&schema["type"]).to_owned(),
    }
}

/// What the schema itself allows, in words.
fn bounds_of(schema: &Value) -> Vec<String> {
    let mut bounds = Vec::new();
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values.iter().map(|it| format!("`{}`", word(it))).collect();
        bounds.push(format!("one of {}", values.join(", ")));
    }
    for (least, most, unit) in [
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " entries"),
        ("minProperties", "maxProperties", " entries"),
    ] {
        // A list or a text that may be empty has no lower bound worth a word.
        let floor = schema[least]
            .as_i64()
            .filter(|it| unit.is_empty() || *it > 0);
        let number = |it: i64| thousands(it);
        match (floor, schema[most].as_i64()) {
            (Some(floor), Some(most)) if floor == most => {
                bounds.push(format!("{}{unit}", number(most)));
            }
            (Some(floor), Some(most)) => {
                bounds.push(format!("{} to {}{unit}", number(floor), number(most)));
            }
            (None, Some(most)) => bounds.push(format!("at most {}{unit}", number(most))),
            (Some(floor), None) => bounds.push(format!("at least {}{unit}", number(floor))),
            (None, None) => {}
        }
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        bounds.push(format!("matches `{}`", cell(pattern)));
    }
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => bounds.push("no entry twice".to_owned()),
        Some("map") => {
            let key = word(&schema["x-kubernetes-list-map-keys"][0]);
            bounds.push(format!("no `{key}` twice"));
        }
        _ => {}
    }
    bounds
}

/// An object's default is that of its fields, which have rows of their own.
fn default(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Object(_) => "as its fields".to_owned(),
        Value::String(text) => format!("`{}`", cell(text)),
        other => format!("`{other}`"),
    }
}

fn thousands(number: i64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        let left = digits.len() - place;
        if place > 0 && left.is_multiple_of(3) && digits.as_bytes()[place - 1] != b'-' {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn keys(object: &Value) -> String {
    let keys = object.as_object().into_iter().flatten();
    let keys: Vec<String> = keys.map(|(key, _)| format!("`{key}`")).collect();
    keys.join(", ")
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A description on one line.
fn prose(value: &Value) -> String {
    cell(&word(value).split_whitespace().collect::<Vec<_>>().join(" "))
}

/// A text that stands in a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
