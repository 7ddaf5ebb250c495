//! What `validate` finds: each error and warning by itself, where it stands in the files.
//!
//! One mistake is one finding: what only follows from it (no pool to be in force in, as the pool is wrong)
//! is left out. Lines of Secrets are never shown.

use std::fmt;

use serde::Serialize;
use xmpp_edge_crds::{
    kinds::conditions::{ConditionType, Reason},
    line::steers,
};

use super::inspection::{Inspection, NamespaceInspection};
use crate::{
    compile::{Diagnostic, Kind, Severity},
    standalone::{
        documents::Whereabouts,
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
    /// The line as it stands; none where it may be a Secret's.
    #[serde(skip)]
    source: Option<SourceLine>,
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
pub(super) fn findings(inspection: &Inspection) -> Vec<ManifestFinding> {
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
                of_diagnostic(inspection, namespace, diagnostic, &mut found);
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
    found: &mut Vec<ManifestFinding>,
) {
    let key = (namespace.name.clone(), diagnostic.object.clone());
    let manifests = &inspection.manifests;
    let place = manifests.places.get(&key);
    let place = place.zip(manifests.whereabouts.get(&key));
    let is_rejected = diagnostic.condition == ConditionType::Accepted && !diagnostic.status;
    let faults = inspection.manifests.faults.get(&key);
    let faults = match faults.filter(|_| is_rejected) {
        Some(faults) => causes(faults),
        None => vec![split(&diagnostic.message)],
    };
    for fault in faults {
        let spot = place.map(|(place, whereabouts)| spot(place, whereabouts, &fault.path));
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

/// Where a field of an object stands.
fn spot(place: &Place, whereabouts: &Whereabouts, path: &str) -> Spot {
    let position = whereabouts.position_of(path);
    let line = whereabouts.shown(position);
    Spot {
        file: place.file.clone(),
        line: position.line,
        column: position.column,
        source: line
            .map(|line| SourceLine::around(line, position.column))
            .filter(|source| !source.text.trim().is_empty()),
    }
}

/// What is shown of a line.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SourceLine {
    text: String,
    /// Where in it the column is, from 1.
    caret: usize,
}

impl SourceLine {
    /// At most [`MAX_SOURCE`] characters with the column among them: one for each of the line, and nothing that
    /// steers a terminal.
    fn around(line: &str, column: usize) -> Self {
        let character = |one: char| if steers(one) { ' ' } else { one };
        let left_out = column.saturating_sub(MAX_SOURCE / 2);
        let mark = if left_out > 0 { "…" } else { "" };
        let shown = line.chars().skip(left_out).map(character);
        let text: String = mark.chars().chain(shown).take(MAX_SOURCE).collect();
        Self {
            text,
            caret: column - left_out + mark.chars().count(),
        }
    }
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
            write!(f, "\n    {}\n    {:>2$}", source.text, '^', source.caret)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{super::inspection::InspectionSource, *};

    #[test]
    fn the_caret_stands_below_its_column_however_long_the_line_is() {
        for column in [1, 5, 79, 80, 81, 160, 161, 5000, 99_999] {
            let mut line = vec!['x'; 100_000];
            line[column - 1] = '!';
            let shown = SourceLine::around(&line.iter().collect::<String>(), column);
            assert_eq!(
                shown.text.chars().nth(shown.caret - 1),
                Some('!'),
                "{column}"
            );
            assert!(shown.text.chars().count() <= MAX_SOURCE, "{column}");
        }
        let short = SourceLine::around("a\tb\u{1b}[2J\u{202e}c", 3);
        assert_eq!((short.text.as_str(), short.caret), ("a b [2J c", 3));
    }

    /// What `validate` prints of a folder with these files.
    async fn told(files: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let source = InspectionSource {
            manifests: Some(folder.path().to_owned()),
            cluster: None,
        };
        let inspection = Inspection::of(&source, jiff::Timestamp::now())
            .await
            .unwrap();
        findings(&inspection)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    const POOL: &str = r#"{"apiVersion":"xmpp-edge.dev/v1alpha1","kind":"EdgePool","metadata":{"labels":{"name":"x"},"name":"hq"},"spec":{"site":"hq","gateways":[{"domains":["org.example"],"address":"i.example:5269"}],"domains":["no domain"],"accessEdge":{"fqdn":"e.org.example"},"certificate":{"selfSigned":{}}}}"#;

    #[tokio::test]
    async fn each_fault_is_pointed_at_whatever_else_a_file_has() {
        let partner = |name: &str| {
            format!(
                "apiVersion: xmpp-edge.dev/v1alpha1\nkind: XmppFederatedPartner\nmetadata:\n  labels: {{name: x}}\n  name: {name}\nspec:\n  trust: {{onKeyChange: Warn}}\n  domain: no domain\n"
            )
        };
        let file = format!("{}---\nspec: [\n---\n{}", partner("one"), partner("two"));
        let told = told(&[("a.yaml", &file)]).await;
        for part in [
            "a.yaml:8:3: error: ",
            "are looked at without it",
            "a.yaml:19:3: error: ",
        ] {
            assert!(told.iter().any(|it| it.contains(part)), "{part}: {told:#?}");
        }
        let shown = "\n      domain: no domain\n      ^";
        assert!(told.iter().any(|it| it.ends_with(shown)), "{told:#?}");
    }

    #[tokio::test]
    async fn a_line_that_a_secret_is_in_is_never_shown() {
        let secret = r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"data":{"key":"c2VjcmV0"}}"#;
        let list = format!(r#"{{"apiVersion":"v1","kind":"List","items":[{secret},{POOL}]}}"#);
        let beside = told(&[("all.json", &list)]).await;
        assert!(
            beside.iter().any(|it| it.contains("spec.domains")),
            "{beside:#?}"
        );
        assert!(!beside.concat().contains("c2VjcmV0"), "{beside:#?}");
        // Without it the part of the line is shown that is meant.
        let alone = told(&[("pool.json", POOL)]).await;
        assert!(
            alone
                .iter()
                .any(|it| it.contains("\"no domain\"") && it.contains('^')),
            "{alone:#?}"
        );
    }
}
