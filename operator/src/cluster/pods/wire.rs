//! `/status` of a proxy, as far as the operator reads it (api.md, "Admin port"). Counters that move
//! with every stanza are left out, so that equal answers mean that nothing happened.

use std::{collections::HashMap, hash::Hash};

use jiff::Timestamp;
use serde::Deserialize;
use xmpp_edge_crds::negotiation::Method;

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub pool: String,
    pub version: String,
    pub config: Config,
    #[serde(default)]
    pub certificate: Option<Certificate>,
    #[serde(default)]
    pub streams: Vec<Stream>,
    #[serde(default)]
    pub partners: Vec<Partner>,
    #[serde(default)]
    pub gateways: Vec<Gateway>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    pub generation: u64,
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
pub struct Certificate {
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
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Partner {
    pub name: String,
    #[serde(default)]
    pub last_connected_time: Option<Timestamp>,
    #[serde(default)]
    pub last_attempt: Vec<Step>,
    #[serde(default)]
    pub peer_key_sha256: Option<String>,
    #[serde(default)]
    pub probe: Option<Probe>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
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

impl Step {
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
    pub domains: Vec<String>,
    pub address: String,
    #[serde(default)]
    pub reachable: Option<bool>,
    #[serde(default)]
    pub last_attempt: Vec<Step>,
}

impl Status {
    /// Takes an answer that lists only what changed.
    pub fn update(&mut self, news: Self) {
        replace_or_push(&mut self.streams, news.streams, |stream| stream.id);
        replace_or_push(&mut self.partners, news.partners, |it| it.name.clone());
        self.pool = news.pool;
        self.version = news.version;
        self.config = news.config;
        self.certificate = news.certificate;
        self.gateways = news.gateways;
    }

    /// The newest time of anything listed, on the pod's own clock: where the next question begins.
    #[must_use]
    pub fn newest(&self) -> Timestamp {
        let streams = self
            .streams
            .iter()
            .filter_map(|stream| stream.established_time);
        let steps = self
            .partners
            .iter()
            .flat_map(|partner| &partner.last_attempt);
        let connected = self.partners.iter().filter_map(|it| it.last_connected_time);
        let probes = self.partners.iter().filter_map(|it| it.probe.as_ref());
        streams
            .chain(steps.map(|step| step.time))
            .chain(connected)
            .chain(probes.map(|probe| probe.time))
            .fold(self.config.loaded_time, Timestamp::max)
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
