//! One look after the other: files → world → document and materials, and the state that remains.
//!
//! Everything but the proxy: tests drive it without one. What it learns it keeps in the state
//! directory (`config.json`, `status.json`, secrets), so that a restart knows what was in force.

use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use xmpp_edge_crds::{domain::DomainPattern, edge_config::EdgeConfig};
use xmpp_edge_proxy::{
    config::peer_keys::PeerKey,
    config::{ConfigInputs, ConfigSecrets},
    stream::trunk::outdated::OutdatedSidecar,
};

use super::{
    dns,
    error::StandaloneReconcileError,
    manifests::Manifests,
    materials::{self, Provided},
    peer_keys::{KeyHolder, PeerKeys},
    reader::Reader,
    sidecars, status,
};
use crate::{
    compile::{self, Compiled, Kind, NamespaceInputs, ObjectRef, Severity},
    dns::{DnsCondition, backend::pool_records::PoolRecordsTask},
    secrets::{
        files::{self, FileStore},
        source::CertificateState,
        store::StoreError,
    },
};

/// After what could not be written, or had: when it is tried again.
const RETRY: SignedDuration = SignedDuration::from_secs(5);

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
    /// Whether there is something else to say than the last time, of what could not be written or had.
    pub news: bool,
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
    /// Whether `config.json` says so.
    last_is_kept: bool,
    keys: PeerKeys,
    manifests: Manifests,
    given: Option<ConfigInputs>,
    /// What came of the certificate, when it was last looked at with success.
    certificate: Option<CertificateState>,
    /// What could not be written or had at the last look, and when that was.
    failures: Vec<String>,
    looked: Timestamp,
    /// What came of the last order about DNS records.
    published: Option<DnsCondition>,
    /// Sidecars that the proxy refuses.
    outdated: Vec<OutdatedSidecar>,
}

impl StandaloneReconciler {
    /// Opens and locks the state directory and recalls what was in force.
    ///
    /// # Errors
    /// [`StandaloneReconcileError::Locked`], [`StandaloneReconcileError::State`], [`StandaloneReconcileError::Store`].
    pub fn open(place: StandalonePaths) -> Result<Self, StandaloneReconcileError> {
        let store = FileStore::open(&place.state)?;
        warn_of_others(&place.state);
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
            last_is_kept: true,
            keys,
            manifests: Manifests::default(),
            given: None,
            certificate: None,
            failures: Vec::new(),
            looked: Timestamp::UNIX_EPOCH,
            published: None,
            outdated: Vec::new(),
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

    /// A further look; `None` where the files are as they were, and so is what could not be written or had.
    ///
    /// # Errors
    /// [`StandaloneReconcileError`]; what is in force stays.
    pub fn poll(&mut self, now: Timestamp) -> Result<Option<Pass>, StandaloneReconcileError> {
        match self.reader.poll()? {
            None if self.failures.is_empty() || now.duration_since(self.looked) < RETRY => Ok(None),
            None => {
                let look = self.look(now)?;
                Ok((look.changed || look.news).then_some(look))
            }
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

    /// Notes which sidecars the proxy refuses for their version.
    ///
    /// # Errors
    /// [`StandaloneReconcileError`]; what is in force stays.
    pub fn note_outdated(
        &mut self,
        outdated: Vec<OutdatedSidecar>,
        now: Timestamp,
    ) -> Result<Pass, StandaloneReconcileError> {
        self.outdated = outdated;
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
        let last = self.last_of(&namespace);
        let gone = self.gone(&namespace, &pool);
        let mut failures = Vec::new();
        // Whoever takes all manifests away, or a mount that is not there, makes no partner a stranger.
        if !gone && let Err(error) = self.forget_keys(&world, &last, &pool, now) {
            failures.push(error.to_string());
        }
        self.keys.add_to(&namespace, &pool, &mut world.config_maps);
        let mut compiled = compile::compile(&world, &last);
        if gone {
            stays(&mut compiled, &world, &last, &pool);
        }
        let Some(config) = compiled.configs.get(&pool).cloned() else {
            let notes = status::notes(&namespace, &self.manifests, &compiled.diagnostics, None);
            status::log(&notes);
            return Err(StandaloneReconcileError::NotAccepted(pool));
        };
        let provided = match &self.given {
            Some(_) if gone => None,
            given => match materials::provide(&world, &config, &mut self.store, now) {
                Ok(provided) => Some(provided),
                Err(error) if given.is_none() => return Err(error.into()),
                // What is new in the document does not wait for it: it may be a kill switch.
                Err(error) => {
                    failures.push(format!(
                        "{error}; certificates and secrets stay as they are"
                    ));
                    None
                }
            },
        };
        self.looked = now;
        self.finish(&world, config, compiled, provided, gone, failures)
    }

    fn forget_keys(
        &mut self,
        world: &NamespaceInputs,
        last: &BTreeMap<String, EdgeConfig>,
        pool: &str,
        now: Timestamp,
    ) -> Result<(), StandaloneReconcileError> {
        let places = &self.manifests.places;
        let holder = |partner: &str| {
            let object = ObjectRef::new(Kind::XmppFederatedPartner, partner);
            if places.contains_key(&(world.namespace.clone(), object)) {
                let mut read = world.partners.iter();
                let read = read.find(|it| it.metadata.name.as_deref() == Some(partner));
                return KeyHolder::There(read.map(|it| it.spec.domain.as_str()));
            }
            let mut had = last.get(pool).into_iter().flat_map(|it| &it.partners);
            let had = had.find(|it| it.name == partner);
            let domain = had.and_then(|it| it.domains.first());
            KeyHolder::Gone(match domain {
                Some(DomainPattern::Exact(domain)) => Some(domain.as_str()),
                _ => None,
            })
        };
        self.keys.retain(&world.namespace, pool, holder, now)
    }

    fn finish(
        &mut self,
        world: &NamespaceInputs,
        config: EdgeConfig,
        compiled: Compiled,
        provided: Option<Provided>,
        gone: bool,
        mut failures: Vec<String>,
    ) -> Result<Pass, StandaloneReconcileError> {
        let mut said = compiled.diagnostics;
        let materials = match provided {
            Some(provided) => {
                said.extend(provided.diagnostics);
                self.certificate = Some(provided.certificate);
                Arc::new(provided.materials)
            }
            None => match &self.given {
                Some(given) => Arc::clone(&given.materials),
                None => return Err(StandaloneReconcileError::NotAccepted(config.pool)),
            },
        };
        let dns = dns::task(world, &config, &said);
        let published = self.published.as_ref();
        said.extend(published.map(|condition| dns::diagnostic(&config.pool, condition)));
        said.extend(sidecars::diagnostics(&config, &self.outdated));
        if self.last != compiled.configs {
            self.last = compiled.configs;
            self.last_is_kept = false;
        }
        failures.extend(self.keep(world, &materials.internal_ca, gone));
        let served = Some((world, &config));
        let mut notes = status::notes(&config.namespace, &self.manifests, &said, served);
        notes.extend(self.further_notes(&config, gone));
        notes.extend(
            failures
                .iter()
                .map(|failure| told(Severity::Error, failure)),
        );
        notes.sort_by_key(|note| std::cmp::Reverse(note.severity()));
        let report = status::report(
            &self.manifests,
            world,
            &config,
            self.certificate.as_ref(),
            &said,
            &notes,
        );
        if let Err(error) = replace(&self.place.state.join("status.json"), &report) {
            notes.insert(0, told(Severity::Error, &error.to_string()));
            failures.push(error.to_string());
        }
        let news = self.failures != failures;
        self.failures = failures;
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
            news,
            dns,
            notes,
            report,
        })
    }

    /// Writes what a restart is to know; says what could not be written. Nothing that is decided waits for it. While the
    /// pool's manifest is gone, memory stays as it is.
    fn keep(&mut self, world: &NamespaceInputs, internal_ca: &str, gone: bool) -> Vec<String> {
        let mut failures = Vec::new();
        if !self.last_is_kept {
            match replace(&self.place.state.join("config.json"), &self.last) {
                Ok(()) => self.last_is_kept = true,
                Err(error) => failures.push(error.to_string()),
            }
        }
        if !gone && let Err(error) = self.reader.keep() {
            failures.push(error.to_string());
        }
        let sidecars = sidecars::write(&self.place.state, world, &self.last, internal_ca);
        failures.extend(sidecars.err().map(|error| error.to_string()));
        failures
    }

    /// What nobody else sees: the pool's manifest is gone, or has company.
    fn further_notes(&self, config: &EdgeConfig, gone: bool) -> Vec<status::Note> {
        let (namespace, pool) = (&config.namespace, &config.pool);
        let pools = self.manifests.pools();
        if gone {
            let manifests = self.place.manifests.display();
            let text = format!(
                "the manifest of EdgePool {namespace}/{pool} is gone from {manifests}: what was in force stays, but for partners that are suspended; bring it back; set spec.suspended: true in it to serve nothing, or stop this process"
            );
            return vec![told(Severity::Error, &text)];
        }
        if self.place.pool.is_some() || pools.len() < 2 {
            return Vec::new();
        }
        let text = format!(
            "the manifests have several EdgePools: this process goes on with {namespace}/{pool}, and does not start again without --pool {namespace}/{pool}"
        );
        vec![told(Severity::Warning, &text)]
    }

    /// What the proxy is to have; parts that are as they were are the very same.
    fn inputs(&self, config: EdgeConfig, mut materials: Arc<ConfigSecrets>) -> ConfigInputs {
        let mut config = Arc::new(config);
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
}

/// A pool whose manifest is gone goes on as it was: an unmounted volume, a check-out under way and a full disk look the
/// same. Kill switches of partners that are still there count.
fn stays(
    compiled: &mut Compiled,
    world: &NamespaceInputs,
    last: &BTreeMap<String, EdgeConfig>,
    pool: &str,
) {
    let Some(last) = last.get(pool) else {
        return;
    };
    let mut config = last.clone();
    for partner in &mut config.partners {
        let object = ObjectRef::new(Kind::XmppFederatedPartner, &partner.name);
        let mut read = world.partners.iter();
        let read = read.find(|it| it.metadata.name.as_ref() == Some(&partner.name));
        let broken = world.broken.get(&object);
        partner.suspended |= read.is_some_and(|it| it.spec.suspended)
            || broken.is_some_and(|broken| broken.suspended == Some(true));
    }
    if config != *last {
        config.generation += 1;
    }
    compiled.configs.insert(pool.to_owned(), config);
}

fn told(severity: Severity, message: &str) -> status::Note {
    status::Note::General {
        severity,
        message: message.to_owned(),
    }
}

/// Keys have modes of their own; names of files and what else lies there do not.
fn warn_of_others(state: &Path) {
    let mode = fs::metadata(state).map(|metadata| metadata.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o007 != 0) {
        tracing::warn!(
            "the state directory {} is open to every user of this machine: chmod 0700 it",
            state.display()
        );
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
mod accidents;
#[cfg(test)]
mod tests;
