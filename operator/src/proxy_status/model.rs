//! `/status` of a proxy, as far as the operator reads it (api.md, "Admin port"). Counters that move
//! with every stanza are left out, so that equal answers mean that nothing happened.
//!
//! Each text and list has its bound where it is declared ([`border`]).

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
};

use jiff::Timestamp;
use serde::Deserialize;
use xmpp_edge_crds::{
    edge_config::{GatewayMode, Version},
    kinds::partner::is_failure,
    negotiation::Method,
    verdict,
};

use super::{
    border::{self, NAME, TEXT, WORD},
    held::{Held, MAX_HELD, TooMuch},
};
use crate::compile::peer_keys::PeerKeyHash;

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyStatus {
    #[serde(deserialize_with = "border::text::<_, NAME>")]
    pub pool: String,
    #[serde(deserialize_with = "border::text::<_, WORD>")]
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
    #[serde(
        default,
        deserialize_with = "border::list::<_, _, { border::STREAMS }>"
    )]
    pub streams: Vec<Stream>,
    /// Ids of all streams, changed or not.
    #[serde(
        default,
        deserialize_with = "border::optional_list::<_, _, { border::STREAMS }>"
    )]
    pub open_streams: Option<Vec<u64>>,
    #[serde(
        default,
        deserialize_with = "border::list::<_, _, { border::PARTNERS }>"
    )]
    pub partners: Vec<Partner>,
    #[serde(
        default,
        deserialize_with = "border::list::<_, _, { border::GATEWAYS }>"
    )]
    pub gateways: Vec<Gateway>,
    #[serde(default)]
    pub totals: Totals,
    #[serde(
        default,
        deserialize_with = "border::list::<_, _, { border::REFUSALS }>"
    )]
    pub refusals: Vec<Refusal>,
}

/// What policy refused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    #[serde(deserialize_with = "border::text::<_, NAME>")]
    pub partner: String,
    pub direction: verdict::Direction,
    #[serde(deserialize_with = "border::text::<_, WORD>")]
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
    #[serde(default, deserialize_with = "border::optional::<_, WORD>")]
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
    #[serde(deserialize_with = "border::text::<_, TEXT>")]
    pub error: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyCertificate {
    pub not_after: Timestamp,
    #[serde(default, deserialize_with = "border::names::<_, { border::DOMAINS }>")]
    pub dns_names: Vec<String>,
    #[serde(deserialize_with = "border::text::<_, WORD>")]
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
    #[serde(default, deserialize_with = "border::names::<_, { border::DOMAINS }>")]
    pub peer_domains: Vec<String>,
    #[serde(default)]
    pub method: Option<Method>,
    #[serde(default, deserialize_with = "border::optional::<_, WORD>")]
    pub tls_version: Option<String>,
    #[serde(default, deserialize_with = "border::optional::<_, WORD>")]
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
    #[serde(deserialize_with = "border::text::<_, NAME>")]
    pub name: String,
    #[serde(default)]
    pub last_connected_time: Option<Timestamp>,
    #[serde(default, deserialize_with = "border::list::<_, _, { border::STEPS }>")]
    pub last_attempt: Vec<AttemptStep>,
    #[serde(default)]
    pub peer_key_sha256: Option<PeerKeyHash>,
    #[serde(default)]
    pub probe: Option<Probe>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttemptStep {
    #[serde(deserialize_with = "border::text::<_, WORD>")]
    pub step: String,
    #[serde(deserialize_with = "border::text::<_, WORD>")]
    pub outcome: String,
    pub direction: Direction,
    #[serde(default, deserialize_with = "border::optional::<_, NAME>")]
    pub domain: Option<String>,
    #[serde(default, deserialize_with = "border::optional::<_, NAME>")]
    pub address: Option<String>,
    #[serde(default, deserialize_with = "border::optional::<_, TEXT>")]
    pub text: Option<String>,
    pub time: Timestamp,
    /// Whoever it was only claimed to be the partner.
    #[serde(default)]
    pub unproven: bool,
}

impl AttemptStep {
    #[must_use]
    pub fn failed(&self) -> bool {
        is_failure(&self.outcome)
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
    #[serde(default, deserialize_with = "border::optional::<_, NAME>")]
    pub name: Option<String>,
    #[serde(default)]
    pub mode: Option<GatewayMode>,
    #[serde(default, deserialize_with = "border::names::<_, { border::DOMAINS }>")]
    pub domains: Vec<String>,
    #[serde(deserialize_with = "border::text::<_, NAME>")]
    pub address: String,
    #[serde(default)]
    pub reachable: Option<bool>,
    #[serde(default, deserialize_with = "border::list::<_, _, { border::STEPS }>")]
    pub last_attempt: Vec<AttemptStep>,
    /// Those that have a trunk to this pod.
    #[serde(
        default,
        deserialize_with = "border::list::<_, _, { border::CONNECTIONS }>"
    )]
    pub sidecars: Vec<Sidecar>,
    /// Of a SIP server alone.
    #[serde(default)]
    pub sip: Option<Sip>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sip {
    #[serde(
        default,
        deserialize_with = "border::list::<_, _, { border::CONNECTIONS }>"
    )]
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
    #[serde(deserialize_with = "border::text::<_, NAME>")]
    pub instance: String,
    #[serde(default, deserialize_with = "border::optional::<_, WORD>")]
    pub version: Option<String>,
    #[serde(default)]
    pub active: bool,
    pub server_up: bool,
    /// What is wrong with its server, in the sidecar's words.
    #[serde(default, deserialize_with = "border::optional::<_, TEXT>")]
    pub server_text: Option<String>,
    #[serde(default)]
    pub established_time: Option<Timestamp>,
    #[serde(default)]
    pub certificate_not_after: Option<Timestamp>,
}

impl ProxyStatus {
    /// Leaves out partners that `exists` denies: only of those in the pool's namespace there is anything to say.
    pub fn keep_partners(&mut self, exists: impl Fn(&str) -> bool) {
        self.partners.retain(|partner| exists(&partner.name));
        // What is of no partner object has a name of its own.
        let counts = |name: &str| name == "other" || exists(name);
        self.refusals.retain(|refusal| counts(&refusal.partner));
        self.partners.shrink_to_fit();
        self.refusals.shrink_to_fit();
    }

    /// Takes an answer that says everything; whether it says anything new.
    ///
    /// # Errors
    /// [`TooMuch`]; what was known stays then.
    pub fn replace(known: &mut Option<Self>, whole: Self) -> Result<bool, TooMuch> {
        let held = whole.held();
        if held > MAX_HELD {
            return Err(TooMuch(held));
        }
        let news = known.as_ref().is_none_or(|it| !it.says_the_same(&whole));
        *known = Some(whole);
        Ok(news)
    }

    /// Takes an answer that lists only what changed; whether it says anything new.
    ///
    /// # Errors
    /// [`TooMuch`]; what was known stays then, until it says everything again.
    pub fn update(&mut self, news: Self) -> Result<bool, TooMuch> {
        let held = self.held() + news.held();
        if held > MAX_HELD {
            return Err(TooMuch(held));
        }
        let mut changed = !self.says_the_same_around(&news);
        changed |= replace_or_push(&mut self.streams, news.streams, |stream| stream.id);
        if let Some(open) = &news.open_streams {
            let open: HashSet<u64> = open.iter().copied().collect();
            let before = self.streams.len();
            self.streams.retain(|stream| open.contains(&stream.id));
            changed |= self.streams.len() != before;
        }
        changed |= replace_or_push(&mut self.partners, news.partners, |it| it.name.clone());
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
        Ok(changed)
    }

    /// Whether `other` says the same; that time passed is no news, nor that stanzas did.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.streams == other.streams
            && self.partners == other.partners
            && self.says_the_same_around(other)
    }

    /// As [`Self::says_the_same`], streams and partners aside.
    fn says_the_same_around(&self, other: &Self) -> bool {
        let Self {
            pool,
            version,
            time: _,
            started_time,
            config,
            certificate,
            streams: _,
            open_streams,
            partners: _,
            gateways,
            totals: _,
            refusals: _,
        } = self;
        *pool == other.pool
            && *version == other.version
            && *started_time == other.started_time
            && *config == other.config
            && *certificate == other.certificate
            && *open_streams == other.open_streams
            && *gateways == other.gateways
    }
}

/// Whether anything is another than before.
fn replace_or_push<T: PartialEq, K: Eq + Hash>(
    all: &mut Vec<T>,
    news: Vec<T>,
    key: impl Fn(&T) -> K,
) -> bool {
    if news.is_empty() {
        return false;
    }
    let mut changed = false;
    let mut places: HashMap<K, usize> = all.iter().map(&key).zip(0..).collect();
    for new in news {
        match places.get(&key(&new)) {
            Some(place) => {
                changed |= all[*place] != new;
                all[*place] = new;
            }
            None => {
                changed = true;
                places.insert(key(&new), all.len());
                all.push(new);
            }
        }
    }
    // Room for twice as many is more than is accounted for.
    all.shrink_to_fit();
    changed
}

/// `held` of structs: of the fields that hold anything.
macro_rules! held {
    ($($of:ty: $($field:ident),*;)*) => {
        $(impl Held for $of {
            fn held(&self) -> usize {
                0 $(+ self.$field.held())*
            }
        })*
    };
}

held! {
    ProxyStatus: pool, version, config, certificate, streams, open_streams, partners, gateways, refusals;
    Refusal: partner, reason;
    Config: sha256, rejected;
    Rejected: error;
    ProxyCertificate: dns_names, serial;
    Stream: peer_domains, tls_version, tls_cipher;
    Partner: name, last_attempt;
    AttemptStep: step, outcome, domain, address, text;
    Gateway: name, domains, address, last_attempt, sidecars, sip;
    Sip: connections;
    SipConnection: ;
    Sidecar: instance, version, server_text;
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
        let partner =
            |name: &str, key: &str| json!({"name": name, "peerKeySha256": key.repeat(64)});
        let mut known = answer(
            &[1, 2],
            json!([1, 2]),
            json!([partner("a", "1"), partner("b", "1")]),
        );
        let news = known.update(answer(&[3], json!([2, 3]), json!([partner("b", "2")])));
        assert_eq!(news, Ok(true));
        let ids: Vec<u64> = known.streams.iter().map(|stream| stream.id).collect();
        assert_eq!(ids, [2, 3]);
        let keys = known
            .partners
            .iter()
            .map(|it| it.peer_key_sha256.unwrap().to_string());
        assert_eq!(keys.collect::<Vec<_>>(), ["1".repeat(64), "2".repeat(64)]);
        let same = known.update(answer(&[3], json!([2, 3]), json!([partner("b", "2")])));
        assert_eq!(same, Ok(false), "nothing new");
        // Where a pod does not say what is open, nothing is taken for ended.
        known.update(answer(&[], Value::Null, json!([]))).unwrap();
        assert_eq!(known.streams.len(), 2);
    }
}
