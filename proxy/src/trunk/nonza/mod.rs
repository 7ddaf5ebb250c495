//! What is said on a trunk beside stanzas: one type a nonza, read from what the scanner has checked.
//!
//! Attributes that are not known do not matter: an edge and a sidecar may be a minor version apart.
//! Everything else has to be as it is here, for who reads a count wrongly loses stanzas.

mod read;
#[cfg(test)]
mod tests;
mod write;

use jiff::Timestamp;

pub use self::read::NonzaError;
use super::PairNumber;
use crate::{
    config::trunk_name::{ProductVersion, TrunkName},
    negotiation::Pair,
};

/// Most characters kept of what a sidecar says of its server: it goes into logs, status and errors.
const TEXT_CHARACTERS: usize = 600;
/// Most pairs in one `<a/>`: so many fit into what every side takes as one element.
pub const MOST_COUNTS: usize = 1_000;

/// All of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nonza {
    /// From the sidecar, once, first.
    Enable(Enable),
    /// The edge's answer.
    Enabled(Enabled),
    Pair(OpenedPair),
    Ack(TrunkAck),
    /// `<r/>`: a sign of life is wanted, under this number.
    Request(u32),
    /// The pair is idle: its number means nothing any more.
    End(PairNumber),
    /// Its sender takes nothing more.
    Drain,
    /// From the edge: what changed.
    Edge(EdgeChange),
    /// From the sidecar.
    Server(ServerState),
    /// From the sidecar: since when it claims what comes in; `None`: it does not.
    Claim(Option<Timestamp>),
}

impl Nonza {
    /// Local name of its element.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Enable(_) => "enable",
            Self::Enabled(_) => "enabled",
            Self::Pair(_) => "pair",
            Self::Ack(_) => "a",
            Self::Request(_) => "r",
            Self::End(_) => "end",
            Self::Drain => "drain",
            Self::Edge(_) => "edge",
            Self::Server(_) => "server",
            Self::Claim(_) => "claim",
        }
    }
}

/// What a sidecar says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enable {
    /// Which of the sidecars of its gateway it is.
    pub instance: TrunkName,
    /// A number that this process took by chance: another one of the same instance has another.
    pub start: Option<u64>,
    pub version: ProductVersion,
    /// Most unacknowledged bytes of a pair that it takes.
    pub queue: u64,
    pub claim: Option<Timestamp>,
    pub server: ServerState,
}

/// What an edge pod says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enabled {
    pub pool: TrunkName,
    pub pod: TrunkName,
    pub version: ProductVersion,
    /// Most unacknowledged bytes of a pair that it takes.
    pub queue: u64,
    pub facts: EdgeFacts,
    pub activity: Activity,
}

/// What a sidecar has to know of an edge pod to choose among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeFacts {
    /// As of an SRV record: the lowest is taken first.
    pub priority: u16,
    /// As of an SRV record: share among those of one priority.
    pub weight: u16,
    /// Its pool is not to be used while there is another.
    pub is_withdrawn: bool,
    /// How many pods its pool has.
    pub replicas: u16,
}

/// What an edge says of a sidecar's claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// What comes in is given to this sidecar, or would be if it claimed it.
    pub is_active: bool,
    /// The claim that the edge knew when it said so: the sidecar may have another one by now.
    pub claim: Option<Timestamp>,
}

/// What changed of [`EdgeFacts`], and the answer to a claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EdgeChange {
    pub priority: Option<u16>,
    pub weight: Option<u16>,
    pub is_withdrawn: Option<bool>,
    pub replicas: Option<u16>,
    pub activity: Option<Activity>,
}

impl EdgeFacts {
    /// Takes over what changed.
    pub fn apply(&mut self, change: EdgeChange) {
        self.priority = change.priority.unwrap_or(self.priority);
        self.weight = change.weight.unwrap_or(self.weight);
        self.is_withdrawn = change.is_withdrawn.unwrap_or(self.is_withdrawn);
        self.replicas = change.replicas.unwrap_or(self.replicas);
    }

    /// What has to be said to a sidecar that knows `self`; `None` where nothing changed.
    #[must_use]
    pub fn change_to(&self, new: Self) -> Option<EdgeChange> {
        let change = EdgeChange {
            priority: (self.priority != new.priority).then_some(new.priority),
            weight: (self.weight != new.weight).then_some(new.weight),
            is_withdrawn: (self.is_withdrawn != new.is_withdrawn).then_some(new.is_withdrawn),
            replicas: (self.replicas != new.replicas).then_some(new.replicas),
            activity: None,
        };
        (change != EdgeChange::default()).then_some(change)
    }
}

/// A pair before its first stanza. The answer's way is a pair of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedPair {
    pub number: PairNumber,
    pub pair: Pair,
}

/// What was settled of the pairs that moved, and the answer to an `<r/>` where one is due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrunkAck {
    /// Answers the request of this number.
    pub answers: Option<u32>,
    pub counts: Vec<PairCount>,
}

/// The first `h` stanzas of the pair, modulo 2³², are settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairCount {
    pub number: PairNumber,
    pub h: u32,
}

/// Whether a sidecar reaches its server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ServerState {
    #[default]
    Up,
    /// It answers, and takes no stream: nothing need wait for it, as nothing but an administrator mends that. With
    /// its words; 600 characters at most, as of the next.
    Refuses { text: String },
    /// With what the network said.
    Down { text: String },
}

impl ServerState {
    /// What is told of it to people, where it is not as it should be.
    #[must_use]
    pub fn words(&self) -> Option<&str> {
        match self {
            Self::Up => None,
            Self::Refuses { text } | Self::Down { text } => Some(text),
        }
    }

    /// Whether the two differ by more than their words.
    #[must_use]
    pub fn is_as(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}
