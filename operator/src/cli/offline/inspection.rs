//! Commands that look at manifests and touch nothing: `validate`, `render`, `explain`.
//!
//! They compile as a cluster would, namespace by namespace, with nothing in force before.

use std::{collections::BTreeMap, path::Path};

use jiff::Timestamp;

use crate::{
    compile::{self, Compiled, Diagnostic, NamespaceInputs},
    standalone::{
        manifests::Manifests,
        reader::{ReadError, Reader},
        status::{self, Note},
    },
};

/// One namespace as compiled.
pub(crate) struct NamespaceInspection {
    pub name: String,
    pub world: NamespaceInputs,
    pub compiled: Compiled,
}

/// Everything in a directory.
pub(crate) struct Inspection {
    pub manifests: Manifests,
    pub namespaces: Vec<NamespaceInspection>,
}

impl Inspection {
    /// Reads and compiles a directory.
    ///
    /// # Errors
    /// [`ReadError`] where the directory cannot be read; what is wrong in it is a note.
    pub(crate) fn of(directory: &Path, now: Timestamp) -> Result<Self, ReadError> {
        let manifests = Reader::new(directory, None).read()?;
        let namespaces = manifests
            .worlds
            .iter()
            .map(|(name, world)| {
                let mut compiled = compile::compile(world, &BTreeMap::new());
                let found: Vec<Diagnostic> = compiled
                    .configs
                    .values()
                    .flat_map(|config| super::outside::of_pool(world, config, now))
                    .collect();
                compiled.diagnostics.extend(found);
                NamespaceInspection {
                    name: name.clone(),
                    world: world.clone(),
                    compiled,
                }
            })
            .collect();
        Ok(Self {
            manifests,
            namespaces,
        })
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
        notes.sort_by_key(|note| std::cmp::Reverse(note.severity()));
        notes
    }
}
