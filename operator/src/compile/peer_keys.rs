//! Keys of partners seen live: what ConfigMap `<pool>-peer-keys` says, and when it learns a key.
//!
//! The same in a cluster and in standalone. It judges no key; that is the proxy's.

use std::collections::BTreeMap;

use xmpp_edge_crds::edge_config::{EdgeConfig, OnKeyChange};

/// Keys kept of one partner; the oldest goes first.
const MAX_KEYS: usize = 32;

/// Keys in hex by partner's name, each one a line, the oldest first: `data` of the ConfigMap.
pub type PeerKeysData = BTreeMap<String, String>;

/// Name of the ConfigMap that compiling reads for a pool.
#[must_use]
pub fn name_of(pool: &str) -> String {
    format!("{pool}-peer-keys")
}

/// Takes a key that a proxy of `config` saw; says whether it was new and is to be kept.
///
/// With `Refuse` only a first key is taken: several may come before it is compiled in.
pub fn learn(data: &mut PeerKeysData, config: &EdgeConfig, partner: &str, key: &str) -> bool {
    // Compiled in the order of their names.
    let place = config
        .partners
        .binary_search_by(|it| it.name.as_str().cmp(partner));
    let Ok(place) = place else {
        return false;
    };
    let trust = &config.partners[place].trust;
    let text = data.get(partner).map_or("", String::as_str);
    let first = text.is_empty()
        && trust.known_spki_sha256.is_empty()
        && trust.pinned_spki_sha256.is_empty();
    let wanted = match trust.on_key_change {
        OnKeyChange::Ignore => false,
        OnKeyChange::Warn => true,
        OnKeyChange::Refuse => first,
    };
    let mut keys: Vec<&str> = text.lines().collect();
    if !wanted || keys.contains(&key) {
        return false;
    }
    tracing::info!(partner, key, first, "the partner's key is recorded");
    keys.push(key);
    let oldest = keys.len().saturating_sub(MAX_KEYS);
    let text: String = keys[oldest..]
        .iter()
        .map(|key| format!("{key}\n"))
        .collect();
    data.insert(partner.to_owned(), text);
    true
}
