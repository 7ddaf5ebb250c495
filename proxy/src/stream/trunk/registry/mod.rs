//! The trunks that stand, and which of them a pair takes. Tells each what the others made of it; holds no
//! route and moves none.

mod claims;
mod dials;
mod ending;

pub use self::dials::PodsBehind;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, futures::Notified};
use xmpp_edge_crds::{domain::DomainName, edge_config::SidecarServers};

use super::{
    absence::{Absence, AbsenceCause, TrunkPlace, TrunkWays},
    far_end::{FarEdge, FarEnd, FarSidecar, SidecarId},
    figures::{DialFailure, DialOutcome, ShownSidecar, TrunkFacts},
};
use crate::{
    negotiation::{Pair, Side},
    random,
    stream::{Command, TrunkCommand, handle::StreamHandle, trunk::TrunkDial},
    trunk::{
        choice::{EdgeChoice, choose_edge, choose_sidecar},
        claim::{Claimants, OwnClaim},
        nonza::{Activity, EdgeChange, EdgeFacts, Nonza, ServerState},
    },
};

/// Trunks that sidecars of one gateway may have to an edge pod; one more is refused.
pub const MOST_OF_GATEWAY: usize = 64;

/// Between two tellings of what a server that is away is said to do.
const WORDS: Duration = Duration::from_secs(10);

/// All trunks of this process.
#[derive(Debug, Default)]
pub struct TrunkRegistry {
    table: Mutex<TrunkTable>,
    news: Notify,
    /// Of a sidecar: by which edges tell this process from others of its name.
    start: SidecarStart,
    /// Told where a sidecar's server refused a stream.
    server_doubt: Notify,
}

#[derive(Debug)]
struct SidecarStart(Option<u64>);

impl Default for SidecarStart {
    fn default() -> Self {
        Self(random::number())
    }
}

#[derive(Debug, Default)]
struct TrunkTable {
    /// By the ids of their streams: the newest last.
    trunks: BTreeMap<u64, StandingTrunk>,
    /// Of an edge, by the gateway's name, where its servers are worlds of their own.
    claimants: HashMap<String, Claimants<SidecarId>>,
    /// Of a sidecar.
    claim: OwnClaim<u64>,
    /// Of a sidecar: whether it reaches its server.
    server: ServerState,
    intake: SidecarIntake,
    /// When edges were told of the server last.
    server_told: Option<Instant>,
    /// Of a sidecar: the addresses that it dials, with what came of the last try.
    dials: BTreeMap<SocketAddr, DialOutcome>,
    /// Of a sidecar: names of edges that lead nowhere at the moment, as `host:port`.
    unresolved: BTreeMap<String, DialFailure>,
    ways: TrunkWays,
}

#[derive(Debug)]
struct StandingTrunk {
    handle: Arc<StreamHandle>,
    far: FarEnd,
    facts: TrunkFacts,
    intake: TrunkIntake,
}

/// Whether a sidecar takes what comes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum SidecarIntake {
    #[default]
    WhileServerIsUp,
    /// It ends.
    Never,
}

/// Whether a trunk takes stanzas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TrunkIntake {
    Open,
    Draining,
}

/// Why a trunk is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyTrunks;

/// Another trunk leads to the same pod already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodIsReached;

impl TrunkRegistry {
    /// By what edges tell this process from others of its name; none where there is no chance.
    #[must_use]
    pub fn start(&self) -> Option<u64> {
        self.start.0
    }

    /// What this sidecar claims at the edge to which stream `id` leads, in its `<enable/>`.
    pub fn opening(&self, id: u64, now: Timestamp) -> Option<Timestamp> {
        self.table.lock().claim.opening(id, now)
    }

    /// A trunk to an edge pod stands, which says of this sidecar's claim what `activity` is. One by the same
    /// address that stood before drains where this one was dialled to renew it.
    ///
    /// # Errors
    /// Another one leads to the pod: this one is of no use.
    pub fn stands_to_edge(
        &self,
        id: u64,
        handle: Arc<StreamHandle>,
        far: FarEdge,
        facts: TrunkFacts,
        (activity, dial): (Activity, TrunkDial),
    ) -> Result<(), PodIsReached> {
        let mut table = self.table.lock();
        let same = table.trunks.values().filter(|own| match &own.far {
            FarEnd::Edge(old) => {
                // What an edge says, another may say too: its key is its own. A pod changes that with its
                // intermediate, and is found at its address with the new one.
                let is_renewed = dial == TrunkDial::Renewal && own.facts.address == facts.address;
                old.id() == far.id()
                    && (is_renewed || own.facts.key_sha256 == facts.key_sha256)
                    && own.intake == TrunkIntake::Open
            }
            FarEnd::Sidecar(_) => false,
        });
        for own in same {
            if own.facts.address != facts.address || dial == TrunkDial::Further {
                table.is_redundant(facts, far);
                return Err(PodIsReached);
            }
            own.handle.tell(Command::Drain);
        }
        table.enter(id, handle, FarEnd::Edge(far), facts);
        if !table.told(id, activity) && activity.claim != table.claim.claim() {
            // What others were told while this trunk was being opened.
            table.trunks[&id].say(Nonza::Claim(table.claim.claim()));
        }
        self.changed(&mut table, FarEnd::EDGES);
        Ok(())
    }

    /// A trunk from a sidecar stands, which claims what comes in since `claim`. Answers what it is told of
    /// that.
    ///
    /// # Errors
    /// Its gateway has [`MOST_OF_GATEWAY`] trunks here.
    pub fn stands_to_sidecar(
        &self,
        id: u64,
        handle: Arc<StreamHandle>,
        far: FarSidecar,
        facts: TrunkFacts,
        claim: Option<Timestamp>,
    ) -> Result<Activity, TooManyTrunks> {
        let mut table = self.table.lock();
        let (gateway, sidecar, servers) = (far.gateway.clone(), far.id.clone(), far.servers);
        let same = table
            .sidecars()
            .filter(|(_, _, own)| own.gateway == gateway);
        if same.count() >= MOST_OF_GATEWAY {
            return Err(TooManyTrunks);
        }
        table.succeeds(&far, &facts);
        table.enter(id, handle, FarEnd::Sidecar(far), facts);
        let activity = match servers {
            SidecarServers::Clustered => Activity {
                is_active: true,
                claim,
            },
            SidecarServers::Single => {
                table.claims(&gateway, &sidecar, claim, Some(id));
                table.claimants[&gateway].activity(&sidecar)
            }
        };
        self.changed(&mut table, &gateway);
        Ok(activity)
    }

    /// The edge pod at the other end of trunk `id` says what changed.
    pub fn edge_changed(&self, id: u64, change: EdgeChange) {
        let mut table = self.table.lock();
        if let Some(activity) = change.activity {
            table.told(id, activity);
        }
        if let Some(StandingTrunk {
            far: FarEnd::Edge(far),
            ..
        }) = table.trunks.get_mut(&id)
        {
            let before = far.facts;
            far.facts.apply(change);
            if far.facts != before {
                self.changed(&mut table, FarEnd::EDGES);
            }
        }
    }

    /// Whether this sidecar reaches its server.
    #[must_use]
    pub fn own_server(&self) -> ServerState {
        self.table.lock().server.clone()
    }

    /// This sidecar reaches its server, or does not: edges are told. Whether that is another than before; other
    /// words alone are told every [`WORDS`] at most, as each pair may have its own.
    pub fn own_server_is(&self, server: ServerState) -> bool {
        let mut table = self.table.lock();
        let now = Instant::now();
        let told = table.server_told;
        let is_another = table.intake == SidecarIntake::WhileServerIsUp
            && (!table.server.is_as(&server)
                || table.server != server
                    && told.is_none_or(|told| now.duration_since(told) >= WORDS));
        if is_another {
            table.server = server.clone();
            table.server_told = Some(now);
            for own in table.trunks.values() {
                own.say(Nonza::Server(server.clone()));
            }
            self.news.notify_waiters();
        }
        is_another
    }

    /// This sidecar's server refused a stream: it is to be tried whether it refuses all.
    pub fn doubt_server(&self) {
        self.server_doubt.notify_one();
    }

    /// Completes once at [`Self::doubt_server`].
    pub async fn server_in_doubt(&self) {
        self.server_doubt.notified().await;
    }

    /// The sidecar at the other end of trunk `id` reaches its server, or does not.
    pub fn server_is(&self, id: u64, server: ServerState) {
        let mut table = self.table.lock();
        if let Some(StandingTrunk {
            far: FarEnd::Sidecar(far),
            ..
        }) = table.trunks.get_mut(&id)
            && far.server != server
        {
            far.server = server;
            let gateway = far.gateway.clone();
            self.changed(&mut table, &gateway);
        }
    }

    /// The sidecar at the other end of trunk `id` claims something else than before.
    pub fn claims(&self, id: u64, since: Option<Timestamp>) {
        let mut table = self.table.lock();
        let own = table.trunks.get(&id);
        // One that drains says it on others.
        let is_open = own.is_some_and(|own| own.intake == TrunkIntake::Open);
        let Some(far) = table.sidecar(id).filter(|_| is_open).cloned() else {
            return;
        };
        match far.servers {
            SidecarServers::Single => {
                table.claims(&far.gateway, &far.id, since, None);
                self.changed(&mut table, &far.gateway);
            }
            SidecarServers::Clustered => {
                let activity = Activity {
                    is_active: true,
                    claim: since,
                };
                table.trunks[&id].tell(activity);
            }
        }
    }

    /// Nothing more may be sent on the trunk: pairs move to others.
    pub fn drains(&self, id: u64) {
        let mut table = self.table.lock();
        let Some(own) = table.trunks.get_mut(&id) else {
            return;
        };
        own.intake = TrunkIntake::Draining;
        let key = own.far.key().to_owned();
        table.look_at_claims(id);
        self.changed(&mut table, &key);
    }

    /// The trunk is over, or never stood.
    pub fn gone(&self, id: u64) {
        let mut table = self.table.lock();
        let claims_anew = table.claim.gone(&id, Timestamp::now());
        if claims_anew {
            table.tell_claim();
        }
        let Some(own) = table.trunks.get(&id) else {
            return;
        };
        let key = own.far.key().to_owned();
        table.look_at_claims(id);
        table.trunks.remove(&id);
        self.changed(&mut table, &key);
    }

    /// The trunk that stanzas of this pair take to their next hop, by the id of its stream.
    #[must_use]
    pub fn choose(&self, next_hop: Side, pair: &Pair) -> Option<(u64, Arc<StreamHandle>)> {
        let table = self.table.lock();
        let id = match next_hop {
            Side::Partner => table.edge_for(&pair.to),
            Side::Gateway => table.sidecar_for(pair),
        }?;
        let own = table.trunks.get(&id)?;
        Some((id, Arc::clone(&own.handle)))
    }

    /// Trunks are to lead to the servers of these domains from here on, and to those of no others.
    pub fn are_to_lead_to(&self, domains: &HashSet<DomainName>) {
        let mut table = self.table.lock();
        table.ways.expect(domains);
        table.look_at_ways();
    }

    /// Since when nothing leads there, and why.
    #[must_use]
    pub fn absence(&self, place: &TrunkPlace) -> Absence {
        let table = self.table.lock();
        let (since, since_time) = table.ways.absent_since(place);
        Absence {
            since,
            since_time,
            cause: table.absence_cause(place),
        }
    }

    /// The trunks of this gateway's sidecars, the oldest first.
    #[must_use]
    pub fn sidecars_of(&self, gateway: &str) -> Vec<ShownSidecar> {
        let table = self.table.lock();
        let own = table
            .sidecars()
            .filter(|(_, _, far)| far.gateway == gateway);
        own.map(|(id, _, far)| {
            let facts = table.trunks[&id].facts.clone();
            ShownSidecar {
                name: table.shown_name(far, &facts),
                far: far.clone(),
                facts,
                is_active: table.is_active(far),
            }
        })
        .collect()
    }

    /// Whether a trunk of this sidecar leads to any edge.
    #[must_use]
    pub fn reaches_edges(&self) -> bool {
        let table = self.table.lock();
        table
            .trunks
            .values()
            .any(|own| matches!(own.far, FarEnd::Edge(_)))
    }

    /// Completes when a trunk came, went, or leads elsewhere than before; what happens after the call
    /// counts once the future is enabled.
    pub fn news(&self) -> Notified<'_> {
        self.news.notified()
    }

    /// Every trunk that leads to the same has reason to look at its routes, and so has who waits for one.
    fn changed(&self, table: &mut TrunkTable, key: &str) {
        table.look_at_ways();
        let same = table.trunks.values().filter(|own| own.far.key() == key);
        for own in same {
            own.handle.tell(Command::Trunk(TrunkCommand::Reconsider));
        }
        self.news.notify_waiters();
    }
}

impl TrunkTable {
    fn enter(&mut self, id: u64, handle: Arc<StreamHandle>, far: FarEnd, facts: TrunkFacts) {
        self.trunks.insert(
            id,
            StandingTrunk {
                handle,
                far,
                facts,
                intake: TrunkIntake::Open,
            },
        );
    }

    fn sidecars(&self) -> impl Iterator<Item = (u64, TrunkIntake, &FarSidecar)> {
        self.trunks.iter().filter_map(|(id, own)| match &own.far {
            FarEnd::Sidecar(far) => Some((*id, own.intake, far)),
            FarEnd::Edge(_) => None,
        })
    }

    fn sidecar(&self, id: u64) -> Option<&FarSidecar> {
        match &self.trunks.get(&id)?.far {
            FarEnd::Sidecar(far) => Some(far),
            FarEnd::Edge(_) => None,
        }
    }

    fn edge_for(&self, partner: &DomainName) -> Option<u64> {
        // Of two trunks to one pod the newer one: the other is to be renewed.
        let mut pods: BTreeMap<_, (u64, &EdgeFacts)> = BTreeMap::new();
        for (id, own) in &self.trunks {
            if let (FarEnd::Edge(far), TrunkIntake::Open) = (&own.far, own.intake) {
                pods.insert((far.id(), &own.facts.key_sha256), (*id, &far.facts));
            }
        }
        let edges = pods
            .iter()
            .map(|(((pool, pod), _), (_, facts))| EdgeChoice { pool, pod, facts });
        let chosen = choose_edge(partner, edges)?;
        pods.values().nth(chosen).map(|(id, _)| *id)
    }

    fn sidecar_for(&self, pair: &Pair) -> Option<u64> {
        // Of two trunks of one sidecar the older one, until that drains: the other may be closed unused.
        let mut instances: BTreeMap<&SidecarId, (u64, &FarSidecar)> = BTreeMap::new();
        for (id, intake, far) in self.sidecars() {
            if self.takes(intake, far) && far.domains.contains(&pair.to) {
                instances.entry(&far.id).or_insert((id, far));
            }
        }
        // What a server refuses is answered; one that takes it is better.
        let up = |far: &FarSidecar| far.server == ServerState::Up;
        if instances.values().any(|(_, far)| up(far)) {
            instances.retain(|_, (_, far)| up(far));
        }
        let chosen = choose_sidecar(&pair.from, instances.keys().map(|own| &own.instance))?;
        instances.values().nth(chosen).map(|(id, _)| *id)
    }

    /// Whether what comes in is given to this trunk. A sidecar that does not reach its server would only keep
    /// it: the edge does, until it does or another one may have it.
    fn takes(&self, intake: TrunkIntake, far: &FarSidecar) -> bool {
        let is_away = matches!(far.server, ServerState::Down { .. });
        intake == TrunkIntake::Open && !is_away && self.is_active(far)
    }

    fn look_at_ways(&mut self) {
        let mut ways = std::mem::take(&mut self.ways);
        ways.look(|place| self.leads(place));
        self.ways = ways;
    }

    /// Whether any trunk leads there.
    fn leads(&self, place: &TrunkPlace) -> bool {
        self.trunks.values().any(|own| match (&own.far, place) {
            (FarEnd::Edge(_), TrunkPlace::Edges) => own.intake == TrunkIntake::Open,
            (FarEnd::Sidecar(far), TrunkPlace::Server(domain)) => {
                far.domains.contains(domain) && self.takes(own.intake, far)
            }
            _ => false,
        })
    }

    /// Why none does.
    fn absence_cause(&self, place: &TrunkPlace) -> AbsenceCause {
        let TrunkPlace::Server(domain) = place else {
            return AbsenceCause::NoTrunk;
        };
        let mut own = self
            .sidecars()
            .filter(|(_, _, far)| far.domains.contains(domain));
        let down = own.find_map(|(_, _, far)| match &far.server {
            ServerState::Down { text } if self.is_active(far) => Some((far, text)),
            ServerState::Down { .. } | ServerState::Refuses { .. } | ServerState::Up => None,
        });
        match down {
            None => AbsenceCause::NoTrunk,
            Some((far, text)) => AbsenceCause::ServerDown {
                instance: far.id.instance.clone(),
                text: text.clone(),
            },
        }
    }

    /// Whether what comes in may be given to this sidecar.
    fn is_active(&self, far: &FarSidecar) -> bool {
        match far.servers {
            SidecarServers::Single => {
                let claimants = self.claimants.get(&far.gateway);
                claimants.and_then(Claimants::active) == Some(&far.id)
            }
            SidecarServers::Clustered => true,
        }
    }
}

impl StandingTrunk {
    fn tell(&self, activity: Activity) {
        self.say(Nonza::Edge(EdgeChange {
            activity: Some(activity),
            ..EdgeChange::default()
        }));
    }

    fn say(&self, nonza: Nonza) {
        self.handle.tell(Command::Trunk(TrunkCommand::Say(nonza)));
    }
}

#[cfg(test)]
mod tests;
