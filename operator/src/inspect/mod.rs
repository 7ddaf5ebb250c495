//! Commands that look at manifests and touch nothing: `validate`, `render`, `explain`.
//!
//! They compile as a cluster would, namespace by namespace, with nothing in force before.

pub mod explain;
pub mod render;
pub mod validate;

use std::{collections::BTreeMap, path::Path};

use jiff::Timestamp;
use xmpp_edge_crds::edge_config::EdgeConfig;

use crate::{
    certificates::store::MemoryStore,
    compile::{self, Compiled, Diagnostic, World},
    standalone::{
        manifests::Manifests,
        materials,
        reader::{ReadError, Reader},
        status::{self, Note},
    },
};

/// One namespace as compiled.
pub struct Namespace {
    pub name: String,
    pub world: World,
    pub compiled: Compiled,
}

/// Everything in a directory.
pub struct Inspection {
    pub manifests: Manifests,
    pub namespaces: Vec<Namespace>,
}

impl Inspection {
    /// Reads and compiles a directory.
    ///
    /// # Errors
    /// [`ReadError`] where the directory cannot be read; what is wrong in it is a note.
    pub fn of(directory: &Path, now: Timestamp) -> Result<Self, ReadError> {
        let manifests = Reader::new(directory, None).read()?;
        let namespaces = manifests
            .worlds
            .iter()
            .map(|(name, world)| {
                let mut compiled = compile::compile(world, &BTreeMap::new());
                let found: Vec<Diagnostic> = compiled
                    .configs
                    .values()
                    .filter_map(|config| given_certificate(world, config, now))
                    .collect();
                compiled.diagnostics.extend(found);
                Namespace {
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
    pub fn notes(&self) -> Vec<Note> {
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

    /// How many objects of the three kinds there are.
    #[must_use]
    pub fn objects(&self) -> usize {
        self.manifests.places.len()
    }
}

/// What there is to say of a certificate whose Secret stands in the manifests; one that is kept
/// elsewhere cannot be judged here.
fn given_certificate(world: &World, config: &EdgeConfig, now: Timestamp) -> Option<Diagnostic> {
    let pool = world
        .pools
        .iter()
        .find(|pool| pool.metadata.name.as_ref() == Some(&config.pool))?;
    let secret = pool.spec.certificate.secret_ref.as_ref()?;
    world.secrets.get(&secret.name)?;
    let mut nowhere = MemoryStore::default();
    let provision = materials::certificate(world, Some(pool), config, &mut nowhere, now).ok()?;
    Some(materials::certificate_ready(&config.pool, &provision, now))
}
