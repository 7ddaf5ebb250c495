//! What standalone has to say: conditions as a cluster's status would hold them, and notes for the
//! log. It decides nothing.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::Serialize;
use xmpp_edge_crds::{
    edge_config::EdgeConfig,
    kinds::conditions::{ConditionType, Reason},
};
use xmpp_edge_page::model::{ConditionShown, ControlShown};

use super::manifests::{Manifests, Place, Problem};
use crate::{
    compile::{Diagnostic, Kind, NamespaceInputs, ObjectRef, Severity},
    dns::{answered::AnsweredRecords, records},
    secrets::{chain::CertificateFacts, source::CertificateState},
};

/// One thing to know, of an object or of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Note {
    Document(Problem),
    Object {
        #[serde(flatten)]
        diagnostic: Diagnostic,
        #[serde(skip_serializing_if = "Option::is_none")]
        place: Option<Place>,
    },
    General {
        severity: Severity,
        message: String,
    },
}

impl Note {
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::Document(problem) => problem.severity,
            Self::Object { diagnostic, .. } => diagnostic.severity,
            Self::General { severity, .. } => *severity,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document(problem) => problem.fmt(f),
            Self::Object { diagnostic, place } => {
                diagnostic.fmt(f)?;
                match place {
                    Some(place) => write!(f, " ({place})"),
                    None => Ok(()),
                }
            }
            Self::General { severity, message } => {
                let severity = if *severity == Severity::Error {
                    "error"
                } else {
                    "warning"
                };
                write!(f, "{severity}: {message}")
            }
        }
    }
}

/// Everything worth a line, worst first. With a served pool, also what standalone does not do.
#[must_use]
pub fn notes(
    namespace: &str,
    manifests: &Manifests,
    diagnostics: &[Diagnostic],
    served: Option<(&NamespaceInputs, &EdgeConfig)>,
) -> Vec<Note> {
    let mut notes: Vec<Note> = manifests
        .problems
        .iter()
        .cloned()
        .map(Note::Document)
        .collect();
    for diagnostic in diagnostics {
        if diagnostic.severity > Severity::Info {
            let key = (namespace.to_owned(), diagnostic.object.clone());
            let place = manifests.places.get(&key).cloned();
            notes.push(Note::Object {
                diagnostic: diagnostic.clone(),
                place,
            });
        }
    }
    if let Some((world, config)) = served {
        notes.extend(not_served(manifests, world, config));
    }
    notes.sort_by_key(|note| std::cmp::Reverse(note.severity()));
    notes
}

/// What the files hold that this process does not do.
fn not_served(manifests: &Manifests, world: &NamespaceInputs, config: &EdgeConfig) -> Vec<Note> {
    let warning = |message| Note::General {
        severity: Severity::Warning,
        message,
    };
    let mut notes = Vec::new();
    let elsewhere: Vec<String> = manifests
        .places
        .iter()
        .filter(|((namespace, _), _)| *namespace != config.namespace)
        .map(|((namespace, object), place)| {
            format!("{object} of namespace {namespace:?} ({place})")
        })
        .collect();
    if !elsewhere.is_empty() {
        notes.push(warning(format!(
            "this process serves namespace {:?} alone; passed over: {}",
            config.namespace,
            crate::text::listed(elsewhere)
        )));
    }
    let pool = world
        .pools
        .iter()
        .find(|pool| pool.metadata.name.as_ref() == Some(&config.pool));
    if let Some(pool) = pool
        && let Some(dns) = &pool.spec.dns
        && dns.external_dns.is_some()
    {
        notes.push(warning(format!(
            "EdgePool {:?}: spec.dns.externalDns needs a cluster: use rfc2136, or publish the records that status.json lists",
            config.pool
        )));
    }
    if config.listeners.dns != 0
        && config
            .edges
            .iter()
            .any(|edge| edge.pool == config.pool && edge.addresses.is_empty())
    {
        notes.push(warning(
            "the DNS view knows no address of the internal listener: give --internal-bind an address of this machine, or set spec.internalService.addresses".to_owned(),
        ));
    }
    notes
}

/// Writes the notes to the log, one line each.
pub fn log(notes: &[Note]) {
    for note in notes {
        let text = note.to_string();
        let text = text
            .split_once(": ")
            .map_or(text.as_str(), |(_, rest)| rest);
        match note.severity() {
            Severity::Error => tracing::error!("{text}"),
            Severity::Warning => tracing::warn!("{text}"),
            Severity::Info => tracing::info!("{text}"),
        }
    }
}

/// `status.json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusReport {
    pub namespace: String,
    pub pool: String,
    pub generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateFacts>,
    /// PEM, mode csr: to be signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_signing_request: Option<String>,
    /// What to publish in DNS, as lines of a zone file.
    pub records: Vec<String>,
    pub objects: Vec<ObjectReport>,
    pub notes: Vec<Note>,
}

/// One object with its conditions.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReport {
    #[serde(flatten)]
    pub object: ObjectRef,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    pub conditions: Vec<StatusCondition>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusCondition {
    pub r#type: String,
    pub status: &'static str,
    pub reason: String,
    pub message: String,
}

/// The report of one look.
#[must_use]
pub fn report(
    manifests: &Manifests,
    world: &NamespaceInputs,
    config: &EdgeConfig,
    certificate: Option<&CertificateState>,
    diagnostics: &[Diagnostic],
    notes: &[Note],
) -> StatusReport {
    let pool = world
        .pools
        .iter()
        .find(|pool| pool.metadata.name.as_ref() == Some(&config.pool));
    StatusReport {
        namespace: config.namespace.clone(),
        pool: config.pool.clone(),
        generation: config.generation,
        certificate: certificate.and_then(|it| it.facts.clone()),
        certificate_signing_request: certificate.and_then(|it| it.request.clone()),
        records: pool.map_or_else(Vec::new, |pool| records::of_pool(&pool.spec)),
        objects: objects(manifests, &config.namespace, diagnostics),
        notes: notes.to_vec(),
    }
}

/// What the status page shows of a report beside what the proxy knows itself.
#[must_use]
pub fn control(report: &StatusReport, answers: &Arc<AnsweredRecords>) -> ControlShown {
    let is_pool =
        |it: &&ObjectReport| it.object.kind == Kind::EdgePool && it.object.name == report.pool;
    let conditions = report.objects.iter().filter(is_pool);
    let conditions = conditions.flat_map(|it| &it.conditions);
    ControlShown {
        notes: report.notes.iter().map(ToString::to_string).collect(),
        conditions: conditions
            .map(|condition| ConditionShown {
                r#type: condition.r#type.clone(),
                status: condition.status.to_owned(),
                reason: condition.reason.clone(),
                message: condition.message.clone(),
                since: None,
            })
            .collect(),
        records: report.records.clone(),
        answers: Some(answers.shown()),
    }
}

/// Objects with their conditions, one of each type: what is false outweighs what is true.
#[must_use]
pub fn objects(
    manifests: &Manifests,
    namespace: &str,
    diagnostics: &[Diagnostic],
) -> Vec<ObjectReport> {
    let mut grouped: BTreeMap<&ObjectRef, BTreeMap<ConditionType, Vec<&Diagnostic>>> =
        BTreeMap::new();
    for diagnostic in diagnostics {
        let conditions = grouped.entry(&diagnostic.object).or_default();
        conditions
            .entry(diagnostic.condition)
            .or_default()
            .push(diagnostic);
    }
    grouped
        .into_iter()
        .map(|(object, conditions)| ObjectReport {
            object: object.clone(),
            place: manifests
                .places
                .get(&(namespace.to_owned(), object.clone()))
                .cloned(),
            conditions: conditions_of(object, conditions),
        })
        .collect()
}

fn conditions_of(
    object: &ObjectRef,
    mut found: BTreeMap<ConditionType, Vec<&Diagnostic>>,
) -> Vec<StatusCondition> {
    let accepted = found
        .get(&ConditionType::Accepted)
        .is_some_and(|said| said[0].status);
    let programmed = found.remove(&ConditionType::Programmed).unwrap_or_default();
    let mut conditions: Vec<StatusCondition> = found.values().map(|said| condition(said)).collect();
    if object.kind != Kind::EdgePool {
        conditions.push(match (accepted, programmed.is_empty()) {
            (_, false) => condition(&programmed),
            (true, true) => plain(ConditionType::Programmed, true, Reason::Programmed),
            (false, true) => plain(ConditionType::Programmed, false, Reason::NotAccepted),
        });
    }
    conditions
}

fn condition(said: &[&Diagnostic]) -> StatusCondition {
    let chosen = said
        .iter()
        .find(|diagnostic| !diagnostic.status)
        .unwrap_or(&said[0]);
    let messages: Vec<&str> = said
        .iter()
        .filter(|diagnostic| diagnostic.status == chosen.status && !diagnostic.message.is_empty())
        .map(|diagnostic| diagnostic.message.as_str())
        .collect();
    StatusCondition {
        message: messages.join("; "),
        ..plain(chosen.condition, chosen.status, chosen.reason)
    }
}

fn plain(kind: ConditionType, status: bool, reason: Reason) -> StatusCondition {
    StatusCondition {
        r#type: kind.to_string(),
        status: if status { "True" } else { "False" },
        reason: reason.to_string(),
        message: String::new(),
    }
}
