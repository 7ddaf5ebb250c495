//! `validate`: the same diagnostics as the conditions, without an operator.

use std::fmt::Write;

use serde::Serialize;

use super::{
    findings::{self, ManifestFinding},
    inspection::Inspection,
};
use crate::{
    compile::Severity,
    standalone::status::{self, ObjectReport},
};

/// The outcome, as `--output json` prints it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Validation {
    pub valid: bool,
    pub errors: usize,
    pub warnings: usize,
    pub findings: Vec<ManifestFinding>,
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
    let findings = findings::findings(inspection);
    let count = |severity| {
        findings
            .iter()
            .filter(|finding| finding.severity == severity)
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
        findings,
        objects,
    }
}

impl Validation {
    /// As a person reads it.
    #[must_use]
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            let _ = writeln!(text, "{finding}");
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
