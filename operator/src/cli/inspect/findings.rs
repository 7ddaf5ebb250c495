//! What `validate` finds: each error and warning by itself, where it stands in the files.
//!
//! One mistake is one finding: what only follows from it (no pool to be in force in, as the pool is wrong)
//! is left out. Lines of Secrets are never shown.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use serde::Serialize;
use xmpp_edge_crds::kinds::conditions::{ConditionType, Reason};

use super::inspection::{Inspection, NamespaceInspection};
use crate::{
    compile::{Diagnostic, Kind, Severity},
    standalone::{
        documents::{self, Position},
        manifests::{ManifestFault, Place},
    },
};

/// Longest part of a line that is shown, in characters.
const MAX_SOURCE: usize = 160;

/// One error or warning.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ManifestFinding {
    /// Where it stands; none where it is of no one place.
    #[serde(flatten)]
    pub spot: Option<Spot>,
    #[serde(serialize_with = "lower")]
    pub severity: Severity,
    #[serde(flatten)]
    pub subject: Option<Subject>,
    /// As in `spec.gateways[0].address`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    pub text: String,
}

/// Line and column count from 1, the column in characters.
#[derive(Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spot {
    pub file: String,
    pub line: usize,
    pub column: usize,
    /// The line as it stands.
    #[serde(skip)]
    source: Option<String>,
}

/// The object, and the condition that says it in a cluster.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Subject {
    pub namespace: String,
    pub kind: &'static str,
    pub name: String,
    pub condition: String,
    pub status: bool,
    pub reason: String,
}

/// Finds all of them, in the order of the files.
pub(super) fn findings(inspection: &Inspection, directory: Option<&Path>) -> Vec<ManifestFinding> {
    let mut texts = SourceTexts {
        directory,
        read: BTreeMap::new(),
    };
    let problems = inspection
        .manifests
        .problems
        .iter()
        .map(|problem| ManifestFinding {
            spot: Some(Spot {
                file: problem.place.file.clone(),
                line: problem.place.line,
                column: 1,
                // It may be a Secret.
                source: None,
            }),
            severity: problem.severity,
            subject: None,
            field: Some(problem.path.clone()).filter(|path| !path.is_empty()),
            text: problem.message.clone(),
        });
    let mut found: Vec<ManifestFinding> = problems.collect();
    for namespace in &inspection.namespaces {
        for diagnostic in &namespace.compiled.diagnostics {
            if diagnostic.severity > Severity::Info && !follows(namespace, diagnostic) {
                of_diagnostic(inspection, namespace, diagnostic, &mut texts, &mut found);
            }
        }
    }
    found.extend(inspection.remarks.iter().map(|text| ManifestFinding {
        spot: None,
        severity: Severity::Warning,
        subject: None,
        field: None,
        text: text.clone(),
    }));
    // What is of no place comes last.
    found.sort_by(|one, other| {
        let nowhere = one.spot.is_none().cmp(&other.spot.is_none());
        nowhere.then_with(|| one.spot.cmp(&other.spot))
    });
    found
}

/// Whether it is so only because a pool is wrong, which is told of the pool.
fn follows(namespace: &NamespaceInspection, diagnostic: &Diagnostic) -> bool {
    let of_pool = |other: &Diagnostic| {
        other.object.kind == Kind::EdgePool
            && other.condition == ConditionType::Accepted
            && other.severity == Severity::Error
    };
    diagnostic.reason == Reason::NoPool && namespace.compiled.diagnostics.iter().any(of_pool)
}

fn of_diagnostic(
    inspection: &Inspection,
    namespace: &NamespaceInspection,
    diagnostic: &Diagnostic,
    texts: &mut SourceTexts<'_>,
    found: &mut Vec<ManifestFinding>,
) {
    let key = (namespace.name.clone(), diagnostic.object.clone());
    let place = inspection.manifests.places.get(&key);
    let is_rejected = diagnostic.condition == ConditionType::Accepted && !diagnostic.status;
    let faults = inspection.manifests.faults.get(&key);
    let faults = match faults.filter(|_| is_rejected) {
        Some(faults) => causes(faults),
        None => vec![split(&diagnostic.message)],
    };
    for fault in faults {
        let spot = place.map(|place| texts.spot(place, &fault.path));
        found.push(ManifestFinding {
            spot,
            severity: diagnostic.severity,
            subject: Some(Subject {
                namespace: namespace.name.clone(),
                kind: diagnostic.object.kind.as_str(),
                name: diagnostic.object.name.clone(),
                condition: diagnostic.condition.to_string(),
                status: diagnostic.status,
                reason: diagnostic.reason.to_string(),
            }),
            field: Some(fault.path).filter(|path| !path.is_empty()),
            text: fault.message,
        });
    }
}

/// Rules over several fields, by where they are told, and the fields of which a fault leads to theirs.
const FOLLOWING: [(&str, &[&str]); 1] = [("spec.gateways", &["spec.domains", "spec.gateways["])];

/// The faults of an object without those that only follow from another.
fn causes(faults: &[ManifestFault]) -> Vec<ManifestFault> {
    let follows = |fault: &&ManifestFault| {
        let rule = FOLLOWING.iter().find(|(path, _)| *path == fault.path);
        rule.is_some_and(|(_, fields)| {
            let mut others = faults.iter();
            others.any(|other| fields.iter().any(|field| other.path.starts_with(field)))
        })
    };
    let is_cause = |fault: &&ManifestFault| !follows(fault);
    faults.iter().filter(is_cause).cloned().collect()
}

/// A message of compiling, which begins with the field where there is one.
fn split(message: &str) -> ManifestFault {
    let (path, rest) = match message.split_once(": ") {
        Some((path, rest)) if is_path(path) => (path, rest),
        _ => ("", message),
    };
    ManifestFault {
        path: path.to_owned(),
        message: rest.to_owned(),
    }
}

fn is_path(text: &str) -> bool {
    let known = ["spec", "metadata"];
    let first = text.split(['.', '[']).next().unwrap_or_default();
    known.contains(&first) && !text.contains(char::is_whitespace)
}

/// The files, each read once.
struct SourceTexts<'a> {
    /// None where there are no files.
    directory: Option<&'a Path>,
    read: BTreeMap<String, String>,
}

impl SourceTexts<'_> {
    /// Where a field of the object at `place` stands.
    fn spot(&mut self, place: &Place, path: &str) -> Spot {
        let text = self.read.entry(place.file.clone()).or_insert_with(|| {
            // It was read a moment ago; where it is gone now, the place alone is told.
            let path = self.directory.map(|directory| directory.join(&place.file));
            path.and_then(|path| fs::read_to_string(path).ok())
                .unwrap_or_default()
        });
        let lines: Vec<&str> = text.lines().collect();
        let is_cut = |line: &&str| line.starts_with("---");
        let before = lines.iter().take(place.line.saturating_sub(1));
        let first = before.clone().rposition(is_cut).map_or(0, |cut| cut + 1);
        let rest = lines.get(first..).unwrap_or_default();
        let document: Vec<&str> = rest
            .iter()
            .take_while(|line| !is_cut(line))
            .copied()
            .collect();
        let Position { line, column } = match path {
            "" => Position {
                line: place.line.saturating_sub(first).max(1),
                column: 1,
            },
            path => documents::position_in(&document.join("\n"), path),
        };
        let source = document.get(line - 1).map(|line| shown(line));
        Spot {
            file: place.file.clone(),
            line: first + line,
            column,
            source: source.filter(|line| !line.trim().is_empty()),
        }
    }
}

/// A line for a terminal: one character for each, and nothing that steers it.
fn shown(line: &str) -> String {
    let character = |one: char| if one.is_control() { ' ' } else { one };
    line.chars().take(MAX_SOURCE).map(character).collect()
}

fn lower<S: serde::Serializer>(severity: &Severity, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(word(*severity))
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// `file:line:column: severity: Kind/name: field: text`, then the line and a caret.
impl fmt::Display for ManifestFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Spot {
            file, line, column, ..
        }) = &self.spot
        {
            write!(f, "{file}:{line}:{column}: ")?;
        }
        write!(f, "{}: ", word(self.severity))?;
        if let Some(subject) = &self.subject {
            write!(f, "{}/{}: ", subject.kind, subject.name)?;
        }
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.text)?;
        if let Some(Subject {
            condition,
            status,
            reason,
            ..
        }) = &self.subject
        {
            let status = if *status { "True" } else { "False" };
            write!(f, " [{condition}={status}, {reason}]")?;
        }
        if let Some(spot) = &self.spot
            && let Some(source) = &spot.source
        {
            write!(f, "\n    {source}\n    {:>1$}", '^', spot.column)?;
        }
        Ok(())
    }
}
