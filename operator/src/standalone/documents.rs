//! Splits a manifest file into its documents and finds lines in them. Knows no kinds.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
};

use serde_json::Value;

/// One document of a file.
#[derive(Clone)]
pub struct Document {
    /// 1 for the first.
    pub number: usize,
    /// Line of the file, from 1, at which the document's first content stands.
    pub line: usize,
    pub value: Value,
    text: Arc<str>,
    checked: Arc<OnceLock<Vec<DocumentFault>>>,
}

/// It may be a Secret: where it stands is shown, and not what it says.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("number", &self.number)
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

/// What a check found: path and message.
pub type DocumentFault = (String, String);

/// Why a file could not be read as documents.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("document {document}, line {line}: {message}")]
pub struct DocumentError {
    pub document: usize,
    pub line: usize,
    pub message: String,
}

/// Reads all documents of a YAML (or JSON, which is YAML) file. Empty documents are passed over; a
/// `kind: List` of Kubernetes counts as its items.
///
/// # Errors
/// The first document that is no YAML or JSON, with its line in the file.
pub fn read(text: &str) -> Result<Vec<Document>, DocumentError> {
    let mut documents = Vec::new();
    for (index, (line, part)) in split(text).into_iter().enumerate() {
        let number = index + 1;
        let shared: Arc<str> = part.into();
        if part
            .lines()
            .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
        {
            continue;
        }
        let options = serde_saphyr::options! { with_snippet: false };
        let value: Value = serde_saphyr::from_str_with_options(part, options).map_err(|error| {
            let within = error
                .location()
                .map_or(0, |location| location.line().saturating_sub(1));
            DocumentError {
                document: number,
                line: line + usize::try_from(within).unwrap_or(0),
                message: plain(&error.to_string()),
            }
        })?;
        match value {
            Value::Null => {}
            Value::Object(mut object) if object.get("kind").is_some_and(is_list) => {
                let items = object.remove("items").unwrap_or_default();
                let Value::Array(items) = items else {
                    let message = "a List needs `items`, an array".to_owned();
                    return Err(DocumentError {
                        document: number,
                        line,
                        message,
                    });
                };
                documents.extend(
                    items
                        .into_iter()
                        .map(|value| Document::new(number, line, value, &shared)),
                );
            }
            Value::Object(_) => documents.push(Document::new(number, line, value, &shared)),
            _ => {
                let message =
                    "a manifest is a mapping with apiVersion, kind and metadata".to_owned();
                return Err(DocumentError {
                    document: number,
                    line,
                    message,
                });
            }
        }
    }
    Ok(documents)
}

/// Takes over what was checked of documents with the same content: in a large file with one edit,
/// one document is checked.
pub fn carry_over(earlier: &[Document], fresh: &mut [Document]) {
    let known: HashMap<&str, &Document> = earlier.iter().map(|it| (&*it.text, it)).collect();
    for document in fresh {
        if let Some(same) = known.get(&*document.text)
            && same.value == document.value
        {
            document.checked = same.checked.clone();
        }
    }
}

/// What a parser says, without its own idea of the line and of its programmer's options.
fn plain(message: &str) -> String {
    let message = message.split(" at line ").next().unwrap_or(message);
    let message = message
        .split(", set DuplicateKeyPolicy")
        .next()
        .unwrap_or(message);
    message.to_owned()
}

fn is_list(kind: &Value) -> bool {
    kind.as_str() == Some("List")
}

/// Cuts at the lines `---`; each part with the line at which it begins. Nothing inside a value can
/// look like that: a line without indentation ends any block.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let end = offset + line.len();
        if line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
        {
            if index > 0 && !text[start..offset].trim().is_empty() || !parts.is_empty() {
                parts.push((start_line, &text[start..offset]));
            }
            // What follows on the line itself belongs to the new document.
            (start, start_line) = (offset + 3, index + 1);
        }
        offset = end;
    }
    parts.push((start_line, &text[start..]));
    parts
}

impl Document {
    fn new(number: usize, line: usize, value: Value, text: &Arc<str>) -> Self {
        let (text, checked) = (text.clone(), Arc::default());
        Self {
            number,
            line,
            value,
            text,
            checked,
        }
    }

    /// An object that stands in no file: nothing of it has a line.
    #[must_use]
    pub fn of_object(value: Value) -> Self {
        Self::new(1, 1, value, &Arc::from(""))
    }

    /// Whether lines of it can be told.
    #[must_use]
    pub fn is_in_file(&self) -> bool {
        !self.text.is_empty()
    }

    /// The faults that `check` finds, looked for once however often this document is taken up.
    pub fn checked(&self, check: impl FnOnce(&Value) -> Vec<DocumentFault>) -> &[DocumentFault] {
        self.checked.get_or_init(|| check(&self.value))
    }

    /// The line of the file at which `path` (as in `spec.gateways[0].address`) stands, or of the
    /// nearest part of it that can be found.
    #[must_use]
    pub fn line_of(&self, path: &str) -> usize {
        self.line + position_in(&self.text, path).line - 1
    }
}

/// A place in a text, from 1; the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// Where `path` (as in `spec.gateways[0].address`) stands in the text of a document, or the nearest
/// part of it that can be found.
#[must_use]
pub fn position_in(text: &str, path: &str) -> Position {
    let lines: Vec<&str> = text.lines().collect();
    let mut at = 0;
    let mut last = None;
    for segment in path.split(['.', '[']).filter(|segment| !segment.is_empty()) {
        let index = segment.strip_suffix(']');
        let found = match index {
            Some(index) => index.parse().ok().and_then(|index| item(&lines, at, index)),
            None => key(&lines, at, segment),
        };
        match found {
            // An entry of a list on one line: that of its key.
            Some(line) if index.is_some() && line == at => continue,
            Some(line) => at = line,
            None => break,
        }
        last = index.is_none().then_some(segment);
    }
    let line = lines.get(at).copied().unwrap_or_default();
    let word = last.and_then(|key| line.find(key));
    let first = line.len() - line.trim_start_matches(['-', ' ', '\t', '{']).len();
    Position {
        line: at + 1,
        column: line[..word.unwrap_or(first)].chars().count() + 1,
    }
}

/// The next line at or after `from` whose first word is the key.
fn key(lines: &[&str], from: usize, key: &str) -> Option<usize> {
    let stands = |line: &str| {
        let line = line
            .trim_start_matches(['-', ' ', '\t', '{'])
            .trim_start_matches('"');
        line.strip_prefix(key).is_some_and(|rest| {
            rest.trim_start_matches(['"', '\''])
                .trim_start()
                .starts_with(':')
        })
    };
    (from..lines.len()).find(|&line| stands(lines[line]))
}

/// The line of an item of the block sequence below `from`, or that line where the sequence is on it.
fn item(lines: &[&str], from: usize, index: usize) -> Option<usize> {
    let value = lines[from].split_once(": ").map(|(_, value)| value);
    if value.is_some_and(|value| value.trim_start().starts_with('[')) {
        return Some(from);
    }
    let dash = |line: usize| lines[line].trim_start().starts_with('-');
    let first = (from + 1..lines.len()).find(|&line| dash(line))?;
    let indent = |line: usize| lines[line].len() - lines[line].trim_start().len();
    (first..lines.len())
        .filter(|&line| dash(line) && indent(line) == indent(first))
        .nth(index)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn documents_are_told_apart_and_keep_their_lines() {
        let text =
            "# head\n---\na: 1\n---\n\n---\nb: |\n  --- not a cut\n  -----BEGIN X-----\nc: 3\n";
        let documents = read(text).unwrap();
        let seen: Vec<_> = documents
            .iter()
            .map(|d| (d.number, d.line_of("b"), d.value.clone()))
            .collect();
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0].2, serde_json::json!({"a": 1}));
        assert_eq!(seen[1].1, 7);
        assert_eq!(seen[1].2["c"], 3);
        assert!(read("").unwrap().is_empty());
        assert_eq!(read("{\"a\": [1]}").unwrap()[0].value["a"][0], 1);
    }

    #[test]
    fn what_is_no_yaml_is_named_with_its_line() {
        for (text, document, line) in [
            ("a: 1\n---\nb: [1\n", 2, 3),
            ("a: 1\na: 2\n", 1, 2),
            ("- 1\n", 1, 1),
            ("kind: List\nitems: 3\n", 1, 1),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.document, document, "{text:?}: {error}");
            assert!(error.line >= line, "{text:?}: {error}");
        }
    }

    #[test]
    fn a_list_counts_as_its_items() {
        let documents = read("kind: List\nitems:\n- {kind: A}\n- {kind: B}\n").unwrap();
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[1].value["kind"], "B");
    }

    #[test]
    fn a_path_leads_to_its_line() {
        let text = "---\nkind: EdgePool\nspec:\n  site: hq\n  gateways:\n  - domains:\n    - a.example\n    address: x\n  - domains: [b.example]\n    address: y\n";
        let document = &read(text).unwrap()[0];
        for (path, line) in [
            ("spec", 3),
            ("spec.site", 4),
            ("spec.gateways[0].address", 8),
            ("spec.gateways[1]", 9),
            ("spec.gateways[1].address", 10),
            ("spec.nowhere", 3),
        ] {
            assert_eq!(document.line_of(path), line, "{path}");
        }
        let text = text.trim_start_matches("---\n");
        for (path, line, column) in [
            ("spec.site", 3, 3),
            ("spec.gateways[0].address", 7, 5),
            ("spec.gateways[1]", 8, 5),
            ("spec.gateways[1].domains", 8, 5),
            ("spec.gateways[1].domains[0]", 8, 5),
            ("spec.nowhere", 2, 1),
            ("", 1, 1),
        ] {
            let found = position_in(text, path);
            assert_eq!(found, Position { line, column }, "{path}");
        }
    }
}
