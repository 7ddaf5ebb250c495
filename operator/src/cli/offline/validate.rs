//! `validate`: the same diagnostics as the conditions, offline.

use std::fmt::Write;

use serde::Serialize;

use super::inspection::Inspection;
use crate::{
    compile::Severity,
    standalone::status::{self, Note, ObjectReport},
};

/// The outcome, as `--output json` prints it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Validation {
    pub valid: bool,
    pub errors: usize,
    pub warnings: usize,
    pub notes: Vec<Note>,
    pub objects: Vec<NamespacedObject>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NamespacedObject {
    pub namespace: String,
    #[serde(flatten)]
    pub object: ObjectReport,
}

/// Validates what was read.
#[must_use]
pub(super) fn validate(inspection: &Inspection) -> Validation {
    let notes = inspection.notes();
    let count = |severity| {
        notes
            .iter()
            .filter(|note| note.severity() == severity)
            .count()
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let objects = inspection
        .namespaces
        .iter()
        .flat_map(|namespace| {
            status::objects(
                &inspection.manifests,
                &namespace.name,
                &namespace.compiled.diagnostics,
            )
            .into_iter()
            .map(|object| NamespacedObject {
                namespace: namespace.name.clone(),
                object,
            })
        })
        .collect();
    Validation {
        valid: errors == 0,
        errors,
        warnings,
        notes,
        objects,
    }
}

impl Validation {
    /// As a person reads it.
    #[must_use]
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        let _ = writeln!(
            text,
            "{}: {} objects, {} errors, {} warnings",
            if self.valid { "valid" } else { "not valid" },
            self.objects.len(),
            self.errors,
            self.warnings
        );
        text
    }
}
