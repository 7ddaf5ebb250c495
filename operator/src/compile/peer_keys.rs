//! Keys of partners seen live: what ConfigMap `<pool>-peer-keys` says, and when it learns a key.
//!
//! The same in a cluster and in standalone. It judges no key; that is the proxy's.

use std::{
    collections::{BTreeMap, BinaryHeap},
    fmt,
};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, de};
use xmpp_edge_crds::edge_config::{EdgeConfig, OnKeyChange};

/// SHA-256 over the SubjectPublicKeyInfo of a key that a partner showed; in text 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerKeyHash(pub [u8; 32]);

impl PeerKeyHash {
    /// `None` where the text is of another form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        // Other lengths are refused before anything is decoded.
        let digits = text.as_bytes();
        if digits.len() != 2 * hash.len() {
            return None;
        }
        HEXLOWER.decode_mut(digits, &mut hash).ok()?;
        Some(Self(hash))
    }
}

impl fmt::Display for PeerKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for PeerKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for PeerKeyHash {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(PeerKeyVisitor)
    }
}

struct PeerKeyVisitor;

impl de::Visitor<'_> for PeerKeyVisitor {
    type Value = PeerKeyHash;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the SHA-256 of a key")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<PeerKeyHash, E> {
        let fault = || E::custom("a key is not 64 lower-case hexadecimal digits");
        PeerKeyHash::parse(text).ok_or_else(fault)
    }
}

/// Keys kept of one partner; the oldest goes first.
const MAX_KEYS: usize = 32;

/// Keys in hex by partner's name, each one a line, the oldest first: `data` of the ConfigMap.
pub type PeerKeysData = BTreeMap<String, String>;

/// Bytes of names and keys that a ConfigMap is filled with: the API server takes 1 MiB of data.
pub const MAX_DATA: usize = 1_000_000;

/// Makes `data` fit into a ConfigMap of `longest` bytes: of partners that only warn the longest histories
/// lose their oldest keys. Where that is not enough, partners that `known` does not have are left out;
/// their names.
pub fn fit(
    data: &mut PeerKeysData,
    known: &PeerKeysData,
    config: &EdgeConfig,
    longest: usize,
) -> Vec<String> {
    let entry = |(partner, keys): (&String, &String)| partner.len() + keys.len();
    let mut size: usize = data.iter().map(entry).sum();
    if size <= longest {
        return Vec::new();
    }
    // With `Refuse` a key that is not remembered is refused: none of those is given up.
    let warns = config.partners.iter();
    let warns = warns.filter(|it| it.trust.on_key_change == OnKeyChange::Warn);
    let mut histories: BinaryHeap<(usize, &str)> = warns
        .filter_map(|it| Some((data.get(&it.name)?.lines().count(), it.name.as_str())))
        .filter(|(keys, _)| *keys > 1)
        .collect();
    while size > longest
        && let Some((keys, partner)) = histories.pop()
    {
        let Some(text) = data.get_mut(partner) else {
            continue;
        };
        let oldest = text.find('\n').map_or(text.len(), |end| end + 1);
        text.drain(..oldest);
        size -= oldest;
        if keys > 2 {
            histories.push((keys - 1, partner));
        }
    }
    let mut left_out = Vec::new();
    if size > longest {
        data.retain(|partner, keys| {
            let stays = size <= longest || known.contains_key(partner);
            if !stays {
                size -= partner.len() + keys.len();
                left_out.push(partner.clone());
            }
            stays
        });
    }
    left_out
}

/// Name of the ConfigMap that compiling reads for a pool.
#[must_use]
pub fn name_of(pool: &str) -> String {
    format!("{pool}-peer-keys")
}

/// Takes a key that a proxy of `config` saw; says whether it was new and is to be kept.
///
/// With `Refuse` only a first key is taken: several may come before it is compiled in.
pub fn learn(
    data: &mut PeerKeysData,
    config: &EdgeConfig,
    partner: &str,
    key: PeerKeyHash,
) -> bool {
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
    let key = key.to_string();
    let mut keys: Vec<&str> = text.lines().collect();
    if !wanted || keys.contains(&key.as_str()) {
        return false;
    }
    keys.push(&key);
    let oldest = keys.len().saturating_sub(MAX_KEYS);
    let text: String = keys[oldest..]
        .iter()
        .map(|key| format!("{key}\n"))
        .collect();
    data.insert(partner.to_owned(), text);
    true
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    /// A document with these partners.
    fn document(partners: &[(&str, &str)]) -> EdgeConfig {
        let world = crate::compile::NamespaceInputs {
            namespace: "n".into(),
            pools: vec![serde_json::from_value(json!({
                "apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool", "metadata": {"name": "hq"},
                "spec": {"site": "hq", "domains": ["org.example"], "accessEdge": {"fqdn": "edge.org.example"},
                    "gateways": [{"domains": ["org.example"], "address": "inside.example:5269"}],
                    "certificate": {"selfSigned": {}}},
            })).unwrap()],
            partners: partners.iter().map(|(name, change)| serde_json::from_value(json!({
                "apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "XmppFederatedPartner", "metadata": {"name": name},
                "spec": {"domain": format!("{name}.example"), "trust": {"onKeyChange": change}},
            })).unwrap()).collect(),
            ..crate::compile::NamespaceInputs::default()
        };
        let mut compiled = crate::compile::compile(&world, &BTreeMap::new());
        compiled.configs.remove("hq").unwrap()
    }

    fn keys(of: &[(&str, usize)]) -> PeerKeysData {
        let line = |number: usize| format!("{number:064}\n");
        of.iter()
            .map(|(name, keys)| ((*name).to_owned(), (0..*keys).map(line).collect()))
            .collect()
    }

    #[test]
    fn a_first_key_finds_room_beside_histories_and_no_known_partner_is_forgotten_for_it() {
        let config = document(&[("a", "Warn"), ("b", "Warn"), ("c", "Refuse"), ("d", "Warn")]);
        let known = keys(&[("a", 4), ("b", 2), ("c", 3)]);
        let mut data = known.clone();
        data.extend(keys(&[("d", 1)]));
        let size: usize = data
            .iter()
            .map(|(name, keys)| name.len() + keys.len())
            .sum();
        assert!(fit(&mut data.clone(), &known, &config, size).is_empty());

        let mut tight = data.clone();
        assert!(fit(&mut tight, &known, &config, size - 65 * 2).is_empty());
        let lines = |data: &PeerKeysData, name: &str| data[name].lines().count();
        assert_eq!(
            (lines(&tight, "a"), lines(&tight, "b")),
            (2, 2),
            "the longest first"
        );
        assert!(
            tight["a"].starts_with(&format!("{:064}", 2)),
            "the oldest first"
        );
        assert_eq!((lines(&tight, "c"), lines(&tight, "d")), (3, 1));

        let left_out = fit(&mut data, &known, &config, 65 * 5 + 4);
        assert_eq!(left_out, ["d"], "what is known stays");
        assert_eq!(data, {
            let mut kept = keys(&[("c", 3)]);
            kept.extend(["a", "b"].map(|name| {
                let last = known[name].lines().last().unwrap();
                (name.to_owned(), format!("{last}\n"))
            }));
            kept
        });
    }
}
