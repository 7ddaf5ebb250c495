//! The steps of one attempt to federate: they answer why federation with X fails, and where.

use std::{net::SocketAddr, time::Duration};

use serde::Serialize;
use xmpp_edge_crds::{domain::DomainName, verdict::Direction};

/// Where on the way an attempt was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    Dns,
    /// Opening a connection by `settings.egressProxy`.
    #[serde(rename = "egress-proxy")]
    EgressProxy,
    Tcp,
    Tls,
    Certificate,
    Sasl,
    Dialback,
    /// What a sidecar and an edge tell each other before stanzas flow.
    Trunk,
    /// What a SIP server and the edge tell each other before messages flow.
    Sip,
    Policy,
}

impl Step {
    /// As in `/status` and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::EgressProxy => "egress-proxy",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Certificate => "certificate",
            Self::Sasl => "sasl",
            Self::Dialback => "dialback",
            Self::Trunk => "trunk",
            Self::Sip => "sip",
            Self::Policy => "policy",
        }
    }
}

/// One step and how it went.
#[derive(Clone, Debug)]
pub struct AttemptStep {
    pub step: Step,
    pub direction: Direction,
    /// The peer's domain.
    pub domain: DomainName,
    /// A fixed CamelCase word: `Ok`, or the cause. It is a metric label, never free text.
    pub outcome: &'static str,
    pub address: Option<SocketAddr>,
    /// For people: names what was expected and what was found. No keys, no bodies.
    pub text: String,
    pub took: Duration,
}
