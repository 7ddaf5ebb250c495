//! Splits a manifest file into its documents and finds lines in them. Knows no kinds but Lists and Secrets.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
};

use serde_json::Value;

use super::positions::{Position, Positions};

/// One document of a file.
#[derive(Clone)]
pub struct Document {
    /// 1 for the first.
    pub number: usize,
    pub value: Value,
    whereabouts: Whereabouts,
    checked: Arc<OnceLock<Vec<DocumentFault>>>,
}

/// It may be a Secret: where it stands is shown, and not what it says.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("number", &self.number)
            .field("line", &self.whereabouts.line)
            .finish_non_exhaustive()
    }
}

/// Where an object stands in its file, and each of its fields.
#[derive(Clone)]
pub struct Whereabouts {
    /// Line of the file, from 1, at which the text begins.
    line: usize,
    text: Arc<DocumentText>,
    /// The object's own path in the text: as an item of a List, `items[0]`.
    path: String,
}

/// It may be a Secret.
impl fmt::Debug for Whereabouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Whereabouts")
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

/// What stands between two cuts of a file.
struct DocumentText {
    text: String,
    /// Whether any of it is a Secret's.
    is_secret: bool,
    /// Looked for once something is wrong.
    positions: OnceLock<Positions>,
}

impl Whereabouts {
    /// Where `path` (as in `spec.gateways[0].address`) stands in the file, or the nearest part of it that there is.
    #[must_use]
    pub fn position_of(&self, path: &str) -> Position {
        let text = &self.text;
        let positions = text.positions.get_or_init(|| Positions::of(&text.text));
        let found = match (self.path.as_str(), path) {
            ("", path) => positions.find(path),
            (own, "") => positions.find(own),
            (own, path) => positions.find(&format!("{own}.{path}")),
        };
        Position {
            line: self.line + found.line - 1,
            ..found
        }
    }

    /// The line of the file at a position, as it stands; none of a text that holds a Secret.
    #[must_use]
    pub fn shown(&self, position: Position) -> Option<&str> {
        if self.text.is_secret {
            return None;
        }
        let number = position.line.checked_sub(self.line)?;
        self.text.text.lines().nth(number)
    }
}

/// What a check found: path and message.
pub type DocumentFault = (String, String);

/// Why a document of a file could not be read.
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
    let (documents, errors) = read_each(text);
    errors.into_iter().next().map_or(Ok(documents), Err)
}

/// As [`read`], of each document what can be read of it.
#[must_use]
pub fn read_each(text: &str) -> (Vec<Document>, Vec<DocumentError>) {
    let (mut documents, mut errors) = (Vec::new(), Vec::new());
    for (index, (line, part)) in split(text).into_iter().enumerate() {
        match read_one(index + 1, line, part) {
            Ok(found) => documents.extend(found),
            Err(error) => errors.push(error),
        }
    }
    (documents, errors)
}

/// The objects of what stands between two cuts, at `line` of the file.
fn read_one(number: usize, line: usize, text: &str) -> Result<Vec<Document>, DocumentError> {
    let is_empty = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    if text.lines().all(is_empty) {
        return Ok(Vec::new());
    }
    let fault = |line, message: &str| DocumentError {
        document: number,
        line,
        message: message.to_owned(),
    };
    let options = serde_saphyr::options! { with_snippet: false };
    let value: Value = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let within = error
            .location()
            .map_or(0, |location| location.line().saturating_sub(1));
        let line = line + usize::try_from(within).unwrap_or(0);
        fault(line, &plain(&error.to_string()))
    })?;
    let text = Arc::new(DocumentText {
        text: text.to_owned(),
        is_secret: holds_secret(&value),
        positions: OnceLock::new(),
    });
    let whereabouts = |path| Whereabouts {
        line,
        text: Arc::clone(&text),
        path,
    };
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Object(mut object) if object.get("kind").is_some_and(is_list) => {
            let Some(Value::Array(items)) = object.remove("items") else {
                return Err(fault(line, "a List needs `items`, an array"));
            };
            let items = items.into_iter().enumerate();
            let items = items.map(|(index, value)| {
                Document::new(number, value, whereabouts(format!("items[{index}]")))
            });
            Ok(items.collect())
        }
        Value::Object(_) => Ok(vec![Document::new(
            number,
            value,
            whereabouts(String::new()),
        )]),
        _ => Err(fault(
            line,
            "a manifest is a mapping with apiVersion, kind and metadata",
        )),
    }
}

/// Whether a Secret stands anywhere in it.
fn holds_secret(value: &Value) -> bool {
    match value {
        Value::Object(fields) => {
            fields.get("kind").and_then(Value::as_str) == Some("Secret")
                || fields.values().any(holds_secret)
        }
        Value::Array(items) => items.iter().any(holds_secret),
        _ => false,
    }
}

/// Takes over what was checked of documents with the same content: in a large file with one edit,
/// one document is checked.
pub fn carry_over(earlier: &[Document], fresh: &mut [Document]) {
    let known: HashMap<_, &Document> = earlier.iter().map(|it| (it.identity(), it)).collect();
    for document in fresh {
        let same = known.get(&document.identity());
        let same = same.filter(|same| same.value == document.value);
        let kept = same.map(|same| (same.checked.clone(), same.whereabouts.text.clone()));
        if let Some((checked, text)) = kept {
            document.checked = checked;
            document.whereabouts.text = text;
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
    fn new(number: usize, value: Value, whereabouts: Whereabouts) -> Self {
        Self {
            number,
            value,
            whereabouts,
            checked: Arc::default(),
        }
    }

    /// An object that stands in no file: nothing of it has a line.
    #[must_use]
    pub fn of_object(value: Value) -> Self {
        let text = DocumentText {
            text: String::new(),
            is_secret: true,
            positions: OnceLock::new(),
        };
        let whereabouts = Whereabouts {
            line: 1,
            text: Arc::new(text),
            path: String::new(),
        };
        Self::new(1, value, whereabouts)
    }

    /// Whether lines of it can be told.
    #[must_use]
    pub fn is_in_file(&self) -> bool {
        !self.whereabouts.text.text.is_empty()
    }

    /// Where it stands.
    #[must_use]
    pub fn whereabouts(&self) -> &Whereabouts {
        &self.whereabouts
    }

    /// What it was read from.
    fn identity(&self) -> (&str, &str) {
        (&self.whereabouts.text.text, &self.whereabouts.path)
    }

    /// The faults that `check` finds, looked for once however often this document is taken up.
    pub fn checked(&self, check: impl FnOnce(&Value) -> Vec<DocumentFault>) -> &[DocumentFault] {
        self.checked.get_or_init(|| check(&self.value))
    }

    /// The line of the file at which `path` (as in `spec.gateways[0].address`) stands, or of the
    /// nearest part of it that can be found.
    #[must_use]
    pub fn line_of(&self, path: &str) -> usize {
        self.whereabouts.position_of(path).line
    }
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
    }

    #[test]
    fn each_document_is_read_whatever_the_others_are() {
        let (documents, errors) = read_each("kind: A\n---\nb: [1\n---\nkind: C\n---\n- 1\n");
        let kinds: Vec<_> = documents.iter().map(|it| &it.value["kind"]).collect();
        assert_eq!(kinds, ["A", "C"]);
        let numbers: Vec<_> = errors.iter().map(|it| it.document).collect();
        assert_eq!(numbers, [2, 4]);
    }

    #[test]
    fn items_of_a_list_have_places_of_their_own_and_lines_beside_a_secret_are_not_shown() {
        let list =
            "kind: List\nitems:\n- kind: A\n  spec: {site: x}\n- kind: B\n  spec:\n    site: y\n";
        let documents = read(&format!("a: 1\n---\n{list}")).unwrap();
        let places = documents[1..].iter().map(|it| it.line_of("spec.site"));
        assert_eq!(places.collect::<Vec<_>>(), [6, 9]);
        let starts = documents[1..].iter().map(|it| it.line_of(""));
        assert_eq!(starts.collect::<Vec<_>>(), [5, 7]);
        let whereabouts = documents[2].whereabouts();
        let shown = whereabouts.shown(whereabouts.position_of("spec.site"));
        assert_eq!(shown, Some("    site: y"));

        let secret = r#"{"kind":"List","items":[{"kind":"Secret","data":{"key":"c2VjcmV0"}},{"kind":"EdgePool","spec":{}}]}"#;
        for document in read(secret).unwrap() {
            let whereabouts = document.whereabouts();
            assert_eq!(whereabouts.shown(whereabouts.position_of("spec")), None);
        }
    }
}
