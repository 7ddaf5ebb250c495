//! Commands that look at objects and touch nothing: `validate`, `render`, `explain`.
//!
//! They compile as a cluster would, namespace by namespace: manifests with nothing in force before, a
//! cluster's objects over what is in force there.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    super::kubeconfig::{ClusterAccess, ClusterAccessError},
    cluster::{ClusterLook, LookError},
    outside::{self, Surroundings},
};
use crate::{
    compile::{self, Compiled, Diagnostic, Kind, NamespaceInputs, ObjectRef, Severity},
    runtime::caches::Scope,
    standalone::{
        documents::Document,
        manifests::{self, Manifests, Stored},
        reader::{FileDocuments, ReadError, Reader},
        status::{self, Note},
    },
};

/// Why there is nothing to look at.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum InspectionError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Access(#[from] ClusterAccessError),
    #[error(transparent)]
    Look(#[from] LookError),
}

/// Where the objects are.
#[derive(Debug, Default)]
pub(in crate::cli) struct InspectionSource {
    /// A directory of manifests. Beside a cluster: as it would be with them applied.
    pub manifests: Option<PathBuf>,
    pub cluster: Option<ClusterSource>,
}

/// Which part of which cluster.
#[derive(Debug, Default)]
pub(in crate::cli) struct ClusterSource {
    /// Context of the kubeconfig; none: its current one.
    pub context: Option<String>,
    /// None: the namespace of the kubeconfig.
    pub scope: Option<Scope>,
}

/// One namespace as compiled.
pub(crate) struct NamespaceInspection {
    pub name: String,
    pub world: NamespaceInputs,
    pub compiled: Compiled,
}

/// All objects of a source, compiled.
#[derive(Default)]
pub(crate) struct Inspection {
    pub manifests: Manifests,
    pub namespaces: Vec<NamespaceInspection>,
    /// What there is to know of the cluster beside that.
    pub remarks: Vec<String>,
}

impl Inspection {
    /// Reads and compiles.
    ///
    /// # Errors
    /// Where the directory or the cluster cannot be read; what is wrong in them is a note.
    pub(in crate::cli) async fn of(
        source: &InspectionSource,
        now: Timestamp,
    ) -> Result<Self, InspectionError> {
        let (mut files, problems) = match &source.manifests {
            Some(directory) => Reader::new(directory, None).documents()?,
            None => Default::default(),
        };
        let mut inspection = Self::default();
        let mut last = BTreeMap::new();
        match &source.cluster {
            None => inspection.manifests = gather(&files, &[], &Stored::new()),
            Some(asked) => {
                let access = ClusterAccess::of(asked.context.as_deref()).await?;
                let own = Scope::Namespaces([access.namespace.clone()].into());
                place_in(&mut files, &access.namespace);
                let mut look = ClusterLook::new(access.client);
                let namespaces = watched(asked.scope.as_ref().unwrap_or(&own), &files);
                let mut objects = Vec::new();
                for namespace in namespaces {
                    objects.extend(look.objects(namespace.as_deref(), now).await?);
                }
                let (beneath, replaced) = split(objects, &mut files);
                let manifests = &mut inspection.manifests;
                *manifests = gather(&files, &beneath, &replaced);
                for (name, world) in &mut manifests.worlds {
                    look.complete(world).await?;
                    last.insert(name.clone(), look.documents(world).await?);
                }
                inspection.remarks = look.remarks;
            }
        }
        inspection.manifests.problems.extend(problems);
        let surroundings = match source.cluster {
            Some(_) => Surroundings::Cluster,
            None => Surroundings::Files,
        };
        let nothing = BTreeMap::new();
        for (name, world) in &inspection.manifests.worlds {
            let mut compiled = compile::compile(world, last.get(name).unwrap_or(&nothing));
            let configs = compiled.configs.values();
            let found: Vec<Diagnostic> = configs
                .flat_map(|config| outside::of_pool(world, config, surroundings, now))
                .collect();
            compiled.diagnostics.extend(found);
            inspection.namespaces.push(NamespaceInspection {
                name: name.clone(),
                world: world.clone(),
                compiled,
            });
        }
        Ok(inspection)
    }

    /// Every warning and error, worst first.
    #[must_use]
    pub(crate) fn notes(&self) -> Vec<Note> {
        let problems = Manifests {
            problems: self.manifests.problems.clone(),
            ..Manifests::default()
        };
        let mut notes = status::notes("", &problems, &[], None);
        for namespace in &self.namespaces {
            let places = Manifests {
                places: self.manifests.places.clone(),
                ..Manifests::default()
            };
            let said = &namespace.compiled.diagnostics;
            notes.extend(status::notes(&namespace.name, &places, said, None));
        }
        let remarks = self.remarks.iter().cloned();
        notes.extend(remarks.map(|message| Note::General {
            severity: Severity::Warning,
            message,
        }));
        notes.sort_by_key(|note| std::cmp::Reverse(note.severity()));
        notes
    }
}

/// The name under which objects of a cluster are gathered; no file has it.
const NO_FILE: &str = "";

/// All of it, with places for what stands in files alone.
fn gather(files: &[FileDocuments], beneath: &[Document], before: &Stored) -> Manifests {
    let files = files
        .iter()
        .map(|(name, documents)| (&**name, &**documents));
    let mut manifests = manifests::gather(files.chain([(NO_FILE, beneath)]), before);
    manifests.places.retain(|_, place| place.file != NO_FILE);
    manifests
}

fn namespace_of(value: &Value) -> Option<&str> {
    value.pointer("/metadata/namespace").and_then(Value::as_str)
}

fn id(value: &Value) -> Option<(String, ObjectRef)> {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    let object = ObjectRef::new(Kind::parse(text("/kind")?)?, text("/metadata/name")?);
    Some((namespace_of(value)?.to_owned(), object))
}

/// What names no namespace is applied to that of the kubeconfig.
fn place_in(files: &mut [FileDocuments], namespace: &str) {
    for document in files.iter_mut().flat_map(|(_, documents)| documents) {
        let metadata = document.value.get_mut("metadata");
        if let Some(metadata) = metadata.and_then(Value::as_object_mut) {
            metadata
                .entry("namespace")
                .or_insert_with(|| Value::from(namespace));
        }
    }
}

/// The namespaces to look at: those that are asked for, and those of the files.
fn watched(scope: &Scope, files: &[FileDocuments]) -> Vec<Option<String>> {
    let Scope::Namespaces(names) = scope else {
        return scope.watches();
    };
    let documents = files.iter().flat_map(|(_, documents)| documents);
    let of_files = documents.filter_map(|document| namespace_of(&document.value));
    let all: BTreeSet<String> = of_files.map(str::to_owned).chain(names.clone()).collect();
    all.into_iter().map(Some).collect()
}

/// The objects that no file has, and those that a file's would replace: such a file's object is as old as
/// what it replaces.
fn split(objects: Vec<Value>, files: &mut [FileDocuments]) -> (Vec<Document>, Stored) {
    let documents = files.iter_mut().flat_map(|(_, documents)| documents);
    let mut given: BTreeMap<_, _> = documents
        .filter_map(|document| Some((id(&document.value)?, document)))
        .collect();
    let (mut beneath, mut replaced) = (Vec::new(), Stored::new());
    for object in objects {
        match id(&object).and_then(|id| given.remove_entry(&id)) {
            Some((id, document)) => {
                let created = object["metadata"]["creationTimestamp"].clone();
                document.value["metadata"]["creationTimestamp"] = created;
                replaced.insert(id, object);
            }
            None => beneath.push(Document::of_object(object)),
        }
    }
    (beneath, replaced)
}
