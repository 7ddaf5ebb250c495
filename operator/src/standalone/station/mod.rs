//! One look after the other: files → world → document and materials, and the state that remains.
//!
//! Everything but the proxy: tests drive it without one. What it learns it keeps in the state
//! directory (`config.json`, `status.json`, secrets), so that a restart knows what was in force.

use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use xmpp_edge_crds::edge_config::EdgeConfig;
use xmpp_edge_proxy::{
    config::peer_keys::PeerKey,
    config::{ConfigInputs, ConfigSecrets},
};

use super::{
    dns,
    error::StandaloneReconcileError,
    manifests::Manifests,
    materials::{self, Provided},
    peer_keys::PeerKeys,
    reader::Reader,
    sidecars, status,
};
use crate::{
    compile::{self, Compiled, Kind, NamespaceInputs, ObjectRef},
    dns::{DnsCondition, backend::pool_records::PoolRecordsTask},
    secrets::{
        files::{self, FileStore},
        store::StoreError,
    },
};

/// Where a station looks, and for what.
#[derive(Clone, Debug)]
pub struct StandalonePaths {
    pub manifests: PathBuf,
    pub state: PathBuf,
    /// `NAME`, or `NAMESPACE/NAME`.
    pub pool: Option<String>,
    /// Where servers inside find the internal listener.
    pub inside: Vec<IpAddr>,
}

/// What one look found.
#[derive(Debug)]
pub struct Pass {
    pub inputs: ConfigInputs,
    /// Whether the proxy has to be told.
    pub changed: bool,
    /// What DNS should hold; `None`: what it was told last.
    pub dns: Option<PoolRecordsTask>,
    /// What is to be said, worst first; the same texts as in `status.json`.
    pub notes: Vec<status::Note>,
    /// As `status.json` has it.
    pub report: status::StatusReport,
}

/// The state directory in use, and what is in force.
#[derive(Debug)]
pub struct StandaloneReconciler {
    place: StandalonePaths,
    reader: Reader,
    store: FileStore,
    /// Held for as long as the station lives.
    _lock: fs::File,
    last: BTreeMap<String, EdgeConfig>,
    keys: PeerKeys,
    manifests: Manifests,
    given: Option<ConfigInputs>,
    /// What came of the last order about DNS records.
    published: Option<DnsCondition>,
}

impl StandaloneReconciler {
    /// Opens and locks the state directory and recalls what was in force.
    ///
    /// # Errors
    /// [`StandaloneReconcileError::Locked`], [`StandaloneReconcileError::State`], [`StandaloneReconcileError::Store`].
    pub fn open(place: StandalonePaths) -> Result<Self, StandaloneReconcileError> {
        let store = FileStore::open(&place.state)?;
        let path = place.state.join("lock");
        let lock = lock(&path)?;
        let memory = place.state.join("manifests");
        let reader = Reader::new(&place.manifests, Some(memory));
        let last = recall(&place.state.join("config.json"))?;
        let keys = PeerKeys::recall(&place.state)?;
        Ok(Self {
            place,
            reader,
            store,
            _lock: lock,
            last,
            keys,
            manifests: Manifests::default(),
            given: None,
            published: None,
        })
    }

    /// The first look.
    ///
    /// # Errors
    /// [`StandaloneReconcileError`]: without a document there is nothing to run.
    pub fn first(&mut self, now: Timestamp) -> Result<Pass, StandaloneReconcileError> {
        self.manifests = self.reader.read()?;
        self.look(now)
    }

    /// A further look; `None` where the files are as they were.
    ///
    /// # Errors
    /// [`StandaloneReconcileError`]; what is in force stays.
    pub fn poll(&mut self, now: Timestamp) -> Result<Option<Pass>, StandaloneReconcileError> {
        match self.reader.poll()? {
            None => Ok(None),
            Some(manifests) => {
                self.manifests = manifests;
                self.look(now).map(Some)
            }
        }
    }

    /// Looks again at what time alone changes: certificates.
    ///
    /// # Errors
    /// [`StandaloneReconcileError`]; what is in force stays.
    pub fn renew(&mut self, now: Timestamp) -> Result<Pass, StandaloneReconcileError> {
        self.look(now)
    }

    /// Remembers keys of partners that the proxy told of; `None` where none was new.
    ///
    /// # Errors
    /// [`StandaloneReconcileError`]; what is in force stays.
    pub fn record(
        &mut self,
        seen: &[PeerKey],
        now: Timestamp,
    ) -> Result<Option<Pass>, StandaloneReconcileError> {
        let Some(given) = &self.given else {
            return Ok(None);
        };
        if !self.keys.record(&given.config, seen)? {
            return Ok(None);
        }
        self.look(now).map(Some)
    }

    /// Notes what came of the DNS records.
    ///
    /// # Errors
    /// [`StandaloneReconcileError`]; what is in force stays.
    pub fn note_dns(
        &mut self,
        published: DnsCondition,
        now: Timestamp,
    ) -> Result<Pass, StandaloneReconcileError> {
        self.published = Some(published);
        self.look(now)
    }

    fn look(&mut self, now: Timestamp) -> Result<Pass, StandaloneReconcileError> {
        let (namespace, pool) = self.choose()?;
        let mut world = self
            .manifests
            .worlds
            .get(&namespace)
            .cloned()
            .unwrap_or_default();
        world.namespace.clone_from(&namespace);
        world.single_process = true;
        let inside: Vec<IpAddr> = self
            .place
            .inside
            .iter()
            .copied()
            .filter(|ip| !ip.is_unspecified())
            .collect();
        world.inside.insert(pool.clone(), inside);
        let exists = |partner: &str| {
            let object = ObjectRef::new(Kind::XmppFederatedPartner, partner);
            let key = (namespace.clone(), object);
            self.manifests.places.contains_key(&key)
        };
        self.keys.retain(&namespace, &pool, exists)?;
        self.keys.add_to(&namespace, &pool, &mut world.config_maps);
        let last = self.last_of(&namespace);
        let mut compiled = compile::compile(&world, &last);
        if self.gone(&namespace, &pool) {
            self.suspend(&mut compiled, &last, &pool);
        }
        let Some(config) = compiled.configs.get(&pool).cloned() else {
            let notes = status::notes(&namespace, &self.manifests, &compiled.diagnostics, None);
            status::log(&notes);
            return Err(StandaloneReconcileError::NotAccepted(pool));
        };
        let before = self.given.as_ref().map(|given| given.materials.clone());
        let provided =
            materials::provide(&world, &config, before.as_deref(), &mut self.store, now)?;
        self.finish(&namespace, &world, config, compiled, provided)
    }

    fn finish(
        &mut self,
        namespace: &str,
        world: &NamespaceInputs,
        config: EdgeConfig,
        compiled: Compiled,
        provided: Provided,
    ) -> Result<Pass, StandaloneReconcileError> {
        let Provided {
            materials,
            certificate,
            diagnostics,
        } = provided;
        let mut said = compiled.diagnostics;
        said.extend(diagnostics);
        let dns = dns::task(world, &config, &said);
        let published = self.published.as_ref();
        said.extend(published.map(|condition| dns::diagnostic(&config.pool, condition)));
        let notes = status::notes(namespace, &self.manifests, &said, Some((world, &config)));
        let report = status::report(&self.manifests, world, &config, &certificate, &said, &notes);
        replace(&self.place.state.join("status.json"), &report)?;
        sidecars::write(
            &self.place.state,
            world,
            &compiled.configs,
            &materials.internal_ca,
        )?;
        if self.last != compiled.configs {
            replace(&self.place.state.join("config.json"), &compiled.configs)?;
            self.last = compiled.configs;
        }
        let inputs = self.inputs(config, materials);
        let changed = match &self.given {
            None => true,
            Some(given) => {
                !Arc::ptr_eq(&given.config, &inputs.config)
                    || !Arc::ptr_eq(&given.materials, &inputs.materials)
            }
        };
        self.given = Some(inputs.clone());
        Ok(Pass {
            inputs,
            changed,
            dns,
            notes,
            report,
        })
    }

    /// What the proxy is to have; parts that are as they were are the very same.
    fn inputs(&self, config: EdgeConfig, materials: ConfigSecrets) -> ConfigInputs {
        let (mut config, mut materials) = (Arc::new(config), Arc::new(materials));
        if let Some(given) = &self.given {
            if *given.config == *config {
                config = given.config.clone();
            }
            if materials::same(&given.materials, &materials) {
                materials = given.materials.clone();
            }
        }
        ConfigInputs {
            config,
            document_sha256: None,
            materials,
            edge_dials: None,
        }
    }

    fn last_of(&self, namespace: &str) -> BTreeMap<String, EdgeConfig> {
        self.last
            .iter()
            .filter(|(_, config)| config.namespace == namespace)
            .map(|(name, config)| (name.clone(), config.clone()))
            .collect()
    }

    /// The pool this process serves: chosen once, then it stays.
    fn choose(&self) -> Result<(String, String), StandaloneReconcileError> {
        if let Some(given) = &self.given {
            return Ok((given.config.namespace.clone(), given.config.pool.clone()));
        }
        let pools = self.manifests.pools();
        let found = || {
            let names: Vec<String> = pools
                .iter()
                .map(|(namespace, name)| format!("{namespace}/{name}"))
                .collect();
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            }
        };
        let fits = |(namespace, name): &&(String, String)| match &self.place.pool {
            None => true,
            Some(wanted) => wanted == name || *wanted == format!("{namespace}/{name}"),
        };
        let mut candidates = pools.iter().filter(fits);
        match (candidates.next(), candidates.next(), &self.place.pool) {
            (Some(pool), None, _) => Ok(pool.clone()),
            (Some(_), Some(_), _) => Err(StandaloneReconcileError::SeveralPools { found: found() }),
            (None, _, Some(wanted)) => Err(StandaloneReconcileError::UnknownPool {
                wanted: wanted.clone(),
                found: found(),
            }),
            (None, _, None) => Err(StandaloneReconcileError::NoPool),
        }
    }

    fn gone(&self, namespace: &str, pool: &str) -> bool {
        let object = ObjectRef::new(Kind::EdgePool, pool);
        !self
            .manifests
            .places
            .contains_key(&(namespace.to_owned(), object))
    }

    /// A pool whose manifest was deleted while it runs serves nothing from then on.
    fn suspend(&self, compiled: &mut Compiled, last: &BTreeMap<String, EdgeConfig>, pool: &str) {
        if let Some(last) = last.get(pool) {
            let mut config = last.clone();
            if !config.suspended || !config.partners.is_empty() {
                config.suspended = true;
                config.partners.clear();
                config.generation += 1;
            }
            compiled.configs.insert(pool.to_owned(), config);
        }
    }
}

fn lock(path: &Path) -> Result<fs::File, StandaloneReconcileError> {
    let fault = |source| StoreError::Write {
        place: path.display().to_string(),
        source,
    };
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(fault)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(StandaloneReconcileError::Locked(path.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(fault(error).into()),
    }
}

fn recall(path: &Path) -> Result<BTreeMap<String, EdgeConfig>, StandaloneReconcileError> {
    match fs::read(path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|error| StandaloneReconcileError::State {
                path: path.to_owned(),
                reason: error.to_string(),
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(source) => Err(StoreError::Read {
            place: path.display().to_string(),
            source,
        }
        .into()),
    }
}

fn replace(path: &Path, value: &impl serde::Serialize) -> Result<(), StandaloneReconcileError> {
    let text =
        serde_json::to_vec_pretty(value).map_err(|error| StandaloneReconcileError::State {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
    Ok(files::replace(path, &text, 0o600)?)
}

#[cfg(test)]
mod tests;
