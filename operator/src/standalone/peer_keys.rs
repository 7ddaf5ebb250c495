//! Memory of the keys that partners showed: what `<pool>-peer-keys` is in a cluster, in one file of
//! the state directory. It must not judge a key; whether one is told at all is the proxy's.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use xmpp_edge_crds::edge_config::EdgeConfig;
use xmpp_edge_proxy::config::peer_keys::PeerKey;

use super::error::StandaloneReconcileError;
use crate::{
    compile::peer_keys::{self, PeerKeyHash, PeerKeysData, name_of},
    secrets::{files, store::StoreError},
};

/// For how long a partner that is gone is remembered: a check-out, or a copy, takes files away for a moment.
const FORGET_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// The file `peer-keys.json`: a List of ConfigMaps, as a cluster takes it.
#[derive(Debug)]
pub struct PeerKeys {
    path: PathBuf,
    /// By namespace and name of the ConfigMap.
    maps: BTreeMap<(String, String), PeerKeysData>,
    /// Partners that are gone and not forgotten yet.
    away: BTreeMap<String, Away>,
}

#[derive(Debug)]
struct Away {
    since: Timestamp,
    /// The domain that it had, where that is known.
    domain: Option<String>,
}

/// A partner of the manifests, as far as its keys are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyHolder<'a> {
    /// With its domain, where that can be read.
    There(Option<&'a str>),
    /// With the domain that it had last.
    Gone(Option<&'a str>),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    api_version: String,
    kind: String,
    items: Vec<ConfigMap>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigMap {
    api_version: String,
    kind: String,
    metadata: Metadata,
    #[serde(default)]
    data: PeerKeysData,
}

#[derive(Serialize, Deserialize)]
struct Metadata {
    namespace: String,
    name: String,
}

impl PeerKeys {
    /// What the state directory remembers.
    ///
    /// # Errors
    /// [`StandaloneReconcileError::State`] where the file is damaged: taken for empty, it would make every
    /// next key a first one.
    pub fn recall(state: &Path) -> Result<Self, StandaloneReconcileError> {
        let path = state.join("peer-keys.json");
        let maps = match fs::read(&path) {
            Ok(bytes) => {
                let list: List = serde_json::from_slice(&bytes).map_err(|error| {
                    StandaloneReconcileError::State {
                        path: path.clone(),
                        reason: error.to_string(),
                    }
                })?;
                let keyed =
                    |map: ConfigMap| ((map.metadata.namespace, map.metadata.name), map.data);
                list.items.into_iter().map(keyed).collect()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(source) => {
                return Err(StoreError::Read {
                    place: path.display().to_string(),
                    source,
                }
                .into());
            }
        };
        Ok(Self {
            path,
            maps,
            away: BTreeMap::new(),
        })
    }

    /// Adds what is remembered of a pool's partners to the ConfigMap that stands in the manifests.
    pub fn add_to(
        &self,
        namespace: &str,
        pool: &str,
        config_maps: &mut BTreeMap<String, BTreeMap<String, String>>,
    ) {
        let name = name_of(pool);
        let Some(data) = self.maps.get(&(namespace.to_owned(), name.clone())) else {
            return;
        };
        let given = config_maps.entry(name).or_default();
        for (partner, keys) in data {
            let text = given.entry(partner.clone()).or_default();
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(keys);
        }
    }

    /// Takes keys that the proxy of `config` told; says whether there was anything new.
    ///
    /// With `Refuse` only a first key is taken: several may come before it is compiled in.
    ///
    /// # Errors
    /// [`StandaloneReconcileError::Store`]; it is told again with the partner's next stream.
    pub fn record(
        &mut self,
        config: &EdgeConfig,
        seen: &[PeerKey],
    ) -> Result<bool, StandaloneReconcileError> {
        let id = (config.namespace.clone(), name_of(&config.pool));
        let mut data = self.maps.get(&id).cloned().unwrap_or_default();
        let mut learned = Vec::new();
        for PeerKey { partner, key } in seen {
            if peer_keys::learn(&mut data, config, partner, PeerKeyHash(key.0)) {
                learned.push((partner, key));
            }
        }
        let news = !learned.is_empty();
        if news {
            self.replace(id, data)?;
        }
        for (partner, key) in learned {
            tracing::info!(partner, %key, "the partner's key is recorded");
        }
        Ok(news)
    }

    /// Forgets partners that are gone for [`FORGET_AFTER`], and those that came back with another domain: one that is
    /// made anew under the name is another.
    ///
    /// # Errors
    /// [`StandaloneReconcileError::Store`].
    pub fn retain<'a>(
        &mut self,
        namespace: &str,
        pool: &str,
        holder: impl Fn(&str) -> KeyHolder<'a>,
        now: Timestamp,
    ) -> Result<(), StandaloneReconcileError> {
        let id = (namespace.to_owned(), name_of(pool));
        let Some(data) = self.maps.get(&id) else {
            return Ok(());
        };
        let mut data = data.clone();
        let before = data.len();
        let away = &mut self.away;
        data.retain(|partner, _| match holder(partner) {
            KeyHolder::There(domain) => {
                let was = away.get(partner).and_then(|away| away.domain.as_deref());
                let is_another = matches!((was, domain), (Some(was), Some(is)) if was != is);
                if !is_another {
                    away.remove(partner);
                }
                !is_another
            }
            KeyHolder::Gone(domain) => {
                let since = away.entry(partner.clone()).or_insert_with(|| Away {
                    since: now,
                    domain: domain.map(str::to_owned),
                });
                now.duration_since(since.since) < FORGET_AFTER
            }
        });
        if data.len() == before {
            return Ok(());
        }
        self.replace(id.clone(), data)?;
        let left = self.maps.get(&id);
        self.away
            .retain(|partner, _| left.is_some_and(|left| left.contains_key(partner)));
        Ok(())
    }

    /// Writes first: what is not on disk is not taken for known.
    fn replace(
        &mut self,
        id: (String, String),
        data: PeerKeysData,
    ) -> Result<(), StandaloneReconcileError> {
        let mut maps = self.maps.clone();
        maps.insert(id, data);
        let items = maps
            .iter()
            .map(|((namespace, name), data)| ConfigMap {
                api_version: "v1".to_owned(),
                kind: "ConfigMap".to_owned(),
                metadata: Metadata {
                    namespace: namespace.clone(),
                    name: name.clone(),
                },
                data: data.clone(),
            })
            .collect();
        let list = List {
            api_version: "v1".to_owned(),
            kind: "List".to_owned(),
            items,
        };
        let text =
            serde_json::to_vec_pretty(&list).map_err(|error| StandaloneReconcileError::State {
                path: self.path.clone(),
                reason: error.to_string(),
            })?;
        files::replace(&self.path, &text, 0o600)?;
        self.maps = maps;
        Ok(())
    }
}
