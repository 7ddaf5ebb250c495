//! `/status` of a proxy, as far as the operator reads it (api.md, "Admin port"). Counters that move
//! with every stanza are left out, so that equal answers mean that nothing happened.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
};

use jiff::Timestamp;
use serde::Deserialize;
use xmpp_edge_crds::{
    edge_config::{GatewayMode, Version},
    negotiation::Method,
    verdict,
};

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyStatus {
    pub pool: String,
    pub version: String,
    /// By the pod's own clock: where the next question begins.
    #[serde(default)]
    pub time: Option<Timestamp>,
    /// With another one than before, nothing of before holds.
    #[serde(default)]
    pub started_time: Option<Timestamp>,
    pub config: Config,
    #[serde(default)]
    pub certificate: Option<ProxyCertificate>,
    #[serde(default)]
    pub streams: Vec<Stream>,
    /// Ids of all streams, changed or not.
    #[serde(default)]
    pub open_streams: Option<Vec<u64>>,
    #[serde(default)]
    pub partners: Vec<Partner>,
    #[serde(default)]
    pub gateways: Vec<Gateway>,
    #[serde(default)]
    pub totals: Totals,
    #[serde(default)]
    pub refusals: Vec<Refusal>,
}

/// What policy refused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    pub partner: String,
    pub direction: verdict::Direction,
    pub reason: String,
    /// Since the process began.
    pub count: u64,
    /// When it last grew.
    pub last_time: Timestamp,
}

/// Counted since the process began; a partner that is removed takes its counts along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Totals {
    pub inbound_stanzas: u64,
    pub outbound_stanzas: u64,
    pub refused_stanzas: u64,
    pub bounced_stanzas: u64,
    pub failed_attempts: u64,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    pub generation: u64,
    /// Of the document in force, in lower-case hex; absent where the proxy is of a version that did not
    /// tell it.
    #[serde(default)]
    pub sha256: Option<String>,
    /// The newest form of a document that the proxy reads; absent where it is of a version that knew but one.
    #[serde(default)]
    pub reads: Option<Version>,
    pub loaded_time: Timestamp,
    #[serde(default)]
    pub rejected: Option<Rejected>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Rejected {
    pub time: Timestamp,
    pub error: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyCertificate {
    pub not_after: Timestamp,
    #[serde(default)]
    pub dns_names: Vec<String>,
    pub serial: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Side {
    Partner,
    Gateway,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Direction {
    #[serde(alias = "inbound")]
    Inbound,
    #[serde(alias = "outbound")]
    Outbound,
    Both,
}

impl Direction {
    /// Whether what happened in this direction speaks of `other` too.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self == Self::Both || self == other
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "Inbound",
            Self::Outbound => "Outbound",
            Self::Both => "Both",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stream {
    pub id: u64,
    pub side: Side,
    pub direction: Direction,
    #[serde(default)]
    pub peer_domains: Vec<String>,
    #[serde(default)]
    pub method: Option<Method>,
    #[serde(default)]
    pub tls_version: Option<String>,
    #[serde(default)]
    pub tls_cipher: Option<String>,
    #[serde(default)]
    pub peer_certificate_not_after: Option<Timestamp>,
    #[serde(default)]
    pub established_time: Option<Timestamp>,
    #[serde(default)]
    pub trunk: bool,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Partner {
    pub name: String,
    #[serde(default)]
    pub last_connected_time: Option<Timestamp>,
    #[serde(default)]
    pub last_attempt: Vec<AttemptStep>,
    #[serde(default)]
    pub peer_key_sha256: Option<String>,
    #[serde(default)]
    pub probe: Option<Probe>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttemptStep {
    pub step: String,
    pub outcome: String,
    pub direction: Direction,
    #[serde(default)]
    pub domain: Option<String>,
    #[serde(default)]
    pub address: Option<String>,
    #[serde(default)]
    pub text: Option<String>,
    pub time: Timestamp,
}

impl AttemptStep {
    #[must_use]
    pub fn failed(&self) -> bool {
        self.outcome != "Ok"
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    pub time: Timestamp,
    pub success: bool,
    #[serde(default)]
    pub latency_milliseconds: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub mode: Option<GatewayMode>,
    #[serde(default)]
    pub domains: Vec<String>,
    pub address: String,
    #[serde(default)]
    pub reachable: Option<bool>,
    #[serde(default)]
    pub last_attempt: Vec<AttemptStep>,
    /// Those that have a trunk to this pod.
    #[serde(default)]
    pub sidecars: Vec<Sidecar>,
    /// Of a SIP server alone.
    #[serde(default)]
    pub sip: Option<Sip>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sip {
    #[serde(default)]
    pub connections: Vec<SipConnection>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SipConnection {
    pub direction: Direction,
    #[serde(default)]
    pub peer_certificate_not_after: Option<Timestamp>,
    #[serde(default)]
    pub established_time: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sidecar {
    pub instance: String,
    #[serde(default)]
    pub version: Option<String>,
    #[serde(default)]
    pub active: bool,
    pub server_up: bool,
    /// What is wrong with its server, in the sidecar's words.
    #[serde(default)]
    pub server_text: Option<String>,
    #[serde(default)]
    pub established_time: Option<Timestamp>,
    #[serde(default)]
    pub certificate_not_after: Option<Timestamp>,
}

impl ProxyStatus {
    /// Takes an answer that lists only what changed.
    pub fn update(&mut self, news: Self) {
        replace_or_push(&mut self.streams, news.streams, |stream| stream.id);
        if let Some(open) = &news.open_streams {
            let open: HashSet<u64> = open.iter().copied().collect();
            self.streams.retain(|stream| open.contains(&stream.id));
        }
        replace_or_push(&mut self.partners, news.partners, |it| it.name.clone());
        self.pool = news.pool;
        self.version = news.version;
        self.time = news.time;
        self.started_time = news.started_time;
        self.open_streams = news.open_streams;
        self.config = news.config;
        self.certificate = news.certificate;
        self.gateways = news.gateways;
        self.totals = news.totals;
        self.refusals = news.refusals;
    }
}

fn replace_or_push<T, K: Eq + Hash>(all: &mut Vec<T>, news: Vec<T>, key: impl Fn(&T) -> K) {
    if news.is_empty() {
        return;
    }
    let mut places: HashMap<K, usize> = all.iter().map(&key).zip(0..).collect();
    for new in news {
        match places.get(&key(&new)) {
            Some(place) => all[*place] = new,
            None => {
                places.insert(key(&new), all.len());
                all.push(new);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn answer(streams: &[u64], open: Value, partners: Value) -> ProxyStatus {
        let streams = streams
            .iter()
            .map(|id| json!({"id": id, "side": "Partner", "direction": "Inbound"}));
        serde_json::from_value(json!({"pool": "hq", "version": "0",
            "config": {"generation": 1, "loadedTime": "2026-01-01T00:00:00Z"},
            "streams": streams.collect::<Vec<_>>(), "openStreams": open, "partners": partners}))
        .unwrap()
    }

    #[test]
    fn an_answer_of_changes_adds_replaces_and_takes_away_what_ended() {
        let partner = |name: &str, key: &str| json!({"name": name, "peerKeySha256": key});
        let mut known = answer(
            &[1, 2],
            json!([1, 2]),
            json!([partner("a", "1"), partner("b", "1")]),
        );
        known.update(answer(&[3], json!([2, 3]), json!([partner("b", "2")])));
        let ids: Vec<u64> = known.streams.iter().map(|stream| stream.id).collect();
        assert_eq!(ids, [2, 3]);
        let keys = known
            .partners
            .iter()
            .map(|it| it.peer_key_sha256.as_deref());
        assert_eq!(keys.collect::<Vec<_>>(), [Some("1"), Some("2")]);
        // Where a pod does not say what is open, nothing is taken for ended.
        known.update(answer(&[], Value::Null, json!([])));
        assert_eq!(known.streams.len(), 2);
    }
}
