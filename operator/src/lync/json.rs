//! Exports by ConvertTo-Json: one object, a list of them, or a list inside `value`.

use serde_json::Value;

use super::{
    LyncFault,
    record::{Property, Record},
};

/// The objects of an export.
///
/// # Errors
/// [`LyncFault::Json`] with line and column.
pub(super) fn records(text: &str) -> Result<Vec<Record>, LyncFault> {
    let mut records = Vec::new();
    collect(&serde_json::from_str(text)?, &mut records);
    Ok(records)
}

/// Goes into lists and into the wrappers that PowerShell puts around them, at most as deep as
/// serde_json reads.
fn collect(value: &Value, into: &mut Vec<Record>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, into)),
        Value::Object(fields) => {
            let wrapped = ["value", "Value"].iter().find_map(|key| fields.get(*key));
            match wrapped {
                Some(list @ Value::Array(_)) if fields.len() <= 2 => collect(list, into),
                _ => into.push(Record {
                    types: Vec::new(),
                    properties: fields
                        .iter()
                        .map(|(name, field)| (name.clone(), property(field)))
                        .collect(),
                }),
            }
        }
        _ => {}
    }
}

fn property(value: &Value) -> Property {
    match value {
        Value::Null => Property::Null,
        Value::Bool(value) => Property::Bool(*value),
        Value::Number(number) => match number.as_i64() {
            Some(number) => Property::Number(number),
            None => Property::Text(number.to_string()),
        },
        Value::String(text) => Property::Text(text.clone()),
        Value::Array(items) => Property::List(items.iter().map(property).collect()),
        // ConvertTo-Json writes an enum of PowerShell 7 as an object with its name in `Value`.
        Value::Object(fields) => match fields.get("value").or_else(|| fields.get("Value")) {
            Some(Value::Array(items)) => Property::List(items.iter().map(property).collect()),
            Some(Value::String(text)) => Property::Nested(Some(text.clone())),
            _ => Property::Nested(None),
        },
    }
}
