//! `import-lync`: exports of Lync's XMPP cmdlets to manifests of the three kinds.
//!
//! The way of an export: bytes → text ([`text`]) → records ([`json`] or [`clixml`]) → objects
//! ([`partner`], [`policy`], [`gateway`]) → YAML. Nothing is decided in anyone's name: settings are
//! carried over as they stand, and what this product refuses, or has no equivalent for, is a
//! warning beside the object. Secrets are never carried over, nor shown. No I/O happens here.

mod clixml;
mod gateway;
mod json;
mod partner;
mod policy;
mod record;
mod text;

use serde_json::Value;
use xmpp_edge_crds::kinds::validate_manifest;

use record::LyncRecordKind;

/// Largest export in bytes that is read.
pub const MAX_EXPORT_BYTES: usize = 64 * 1024 * 1024;

/// What an export becomes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Imported {
    /// Manifests, in the order of the export.
    pub objects: Vec<Value>,
    pub warnings: Vec<Warning>,
}

/// What a person should look at before applying the manifests.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Warning {
    /// `Kind/name` of the manifest that it is about; none where nothing was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// What, and what to do.
    pub message: String,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.object {
            Some(object) => write!(f, "{object}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// Why an export cannot be read at all.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {fault}")]
pub struct ImportError {
    /// The file.
    pub name: String,
    #[source]
    pub fault: LyncFault,
}

/// What is wrong with an export.
#[derive(Debug, thiserror::Error)]
pub enum LyncFault {
    #[error("is larger than {MAX_EXPORT_BYTES} bytes: export fewer objects at once")]
    TooLarge,
    #[error("is neither UTF-8 nor UTF-16 with a byte order mark: export with -Encoding UTF8")]
    Encoding,
    #[error("is empty: the cmdlet found nothing, or its output went elsewhere")]
    Empty,
    #[error(
        "is neither JSON nor CLIXML: write it by `| ConvertTo-Json -Depth 4 | Out-File` or by `| Export-Clixml`"
    )]
    Format,
    #[error("is not JSON: {0}; export it again, the file is cut short or was edited")]
    Json(#[from] serde_json::Error),
    #[error(
        "is not CLIXML at byte {position}: {reason}; export it again, the file is cut short or was edited"
    )]
    Clixml { position: u64, reason: String },
    #[error(
        "holds no object of Get-CsXmppAllowedPartner, Get-CsExternalAccessPolicy or Get-CsXmppGatewayConfiguration"
    )]
    NothingKnown,
}

/// Reads one export. `name` is the file's, for messages.
///
/// # Errors
/// [`ImportError`] where the file is not an export, or holds none of the three objects.
pub fn import(bytes: &[u8], name: &str) -> Result<Imported, ImportError> {
    read(bytes).map_err(|fault| ImportError {
        name: name.to_owned(),
        fault,
    })
}

fn read(bytes: &[u8]) -> Result<Imported, LyncFault> {
    if bytes.len() > MAX_EXPORT_BYTES {
        return Err(LyncFault::TooLarge);
    }
    let text = text::decode(bytes)?;
    let text = text.trim();
    let records = match text.as_bytes().first() {
        None => return Err(LyncFault::Empty),
        Some(b'<') => clixml::records(text)?,
        Some(b'{' | b'[') => json::records(text)?,
        Some(_) => return Err(LyncFault::Format),
    };
    let mut draft = Draft::default();
    let mut unknown = 0_usize;
    for record in &records {
        match record.kind() {
            Some(LyncRecordKind::Partner) => partner::import(record, &mut draft),
            Some(LyncRecordKind::Policy) => policy::import(record, &mut draft),
            Some(LyncRecordKind::Gateway) => gateway::import(record, &mut draft),
            None => unknown += 1,
        }
    }
    if unknown == records.len() {
        return Err(LyncFault::NothingKnown);
    }
    if unknown > 0 {
        draft.imported.warnings.push(Warning {
            object: None,
            message: format!("{unknown} objects of other cmdlets were passed over"),
        });
    }
    Ok(draft.imported)
}

impl Imported {
    /// The manifests as one YAML stream; each begins with its warnings as comments.
    #[must_use]
    pub fn yaml(&self) -> String {
        let mut out = String::new();
        for object in &self.objects {
            out.push_str("---\n");
            let name = reference(object);
            for warning in self
                .warnings
                .iter()
                .filter(|w| w.object.as_deref() == Some(&name))
            {
                // A comment ends with its line: text of an export must not begin another.
                let message: String = warning
                    .message
                    .chars()
                    .map(|c| {
                        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{85}') {
                            ' '
                        } else {
                            c
                        }
                    })
                    .collect();
                out.push_str("# warning: ");
                out.push_str(&message);
                out.push('\n');
            }
            out.push_str(&serde_saphyr::to_string(object).expect("JSON is YAML"));
        }
        out
    }
}

/// `Kind/name`.
fn reference(object: &Value) -> String {
    let part = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    format!("{}/{}", part("/kind"), part("/metadata/name"))
}

/// What was made so far.
#[derive(Default)]
struct Draft {
    imported: Imported,
}

impl Draft {
    /// Takes a manifest in, with what is to be said about it and with what the API server would
    /// say. `needed` are faults that the warnings already name.
    fn add(&mut self, object: Value, warnings: Vec<String>, needed: &[&str]) {
        let name = reference(&object);
        if self
            .imported
            .objects
            .iter()
            .any(|other| reference(other) == name)
        {
            self.warn(
                Some(name),
                "is in the export twice: the first one was taken".into(),
            );
            return;
        }
        for message in warnings {
            self.warn(Some(name.clone()), message);
        }
        for violation in validate_manifest(&object) {
            if !needed.contains(&violation.path.as_str()) {
                self.warn(
                    Some(name.clone()),
                    format!("is rejected as it stands: {violation}"),
                );
            }
        }
        self.imported.objects.push(object);
    }

    fn warn(&mut self, object: Option<String>, message: String) {
        self.imported.warnings.push(Warning { object, message });
    }
}

/// An object's name from a text of the export: lower case, other characters as `-`.
fn object_name(text: &str, longest: usize) -> String {
    let mut name = String::new();
    for c in text.chars().map(|c| c.to_ascii_lowercase()) {
        let c = if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        };
        let after_break = name.is_empty() || name.ends_with(['-', '.']);
        if !(after_break && matches!(c, '-' | '.')) {
            name.push(c);
        }
    }
    name.truncate(longest);
    name.trim_end_matches(['-', '.']).to_owned()
}

#[cfg(test)]
mod tests;
