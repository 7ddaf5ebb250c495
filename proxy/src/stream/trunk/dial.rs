//! A sidecar dials edge pods: all that its settings name, each at each of its addresses, for ever.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::ErrorKind,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::watch,
    task::{JoinError, JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{Host, HostPort},
};

use super::{
    TrunkDial, TrunkStanding, TrunkStream,
    figures::{DialFailure, DialOutcome},
    registry::{self, PodsBehind},
};
use crate::{
    dns::{Candidate, Connected, DnsError, Endpoint, socket},
    negotiation::{Fault, Pair, Purpose, Side, Step, WireNames},
    random,
    stream::{
        Stream,
        context::StreamContext,
        establish::{Negotiation, OwnProof},
    },
    telemetry::log_limiter::limited,
    trunk,
};

/// Between two looks at what names lead to.
const RESOLVE: Duration = Duration::from_secs(5);
/// Setting a trunk up may take so long.
const SET_UP: Duration = Duration::from_secs(10);
/// The pause after the second failure in a row; there is none after the first.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Pauses double up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A name that has not led anywhere by then is asked for again; others are not kept waiting.
const LOOKUP: Duration = Duration::from_secs(5);
/// What an edge says to whom it does not know (RFC 6120 section 4.9.3.12).
const NOT_AUTHORIZED: &str = "not-authorized";
/// Addresses that are dialled at all.
const MOST: usize = 100;
/// Trunks by one address: an edge takes no more of one gateway.
const MOST_PODS: usize = registry::MOST_OF_GATEWAY;
/// So often an address is dialled in a row for pods that are lacking behind it, then now and then.
const VAIN_AT_ONCE: u32 = 10;
const FURTHER_PAUSE: Duration = Duration::from_secs(60);
/// A trunk that was to be renewed and has not ended is renewed again after this.
const RENEWED_AGAIN: Duration = Duration::from_secs(60);
/// Every trunk has its renewal; should one lack it, the address is dialled then.
const MOST_PAUSE_OF_RENEWAL: Duration = Duration::from_secs(24 * 3600);

/// Why there is no trunk to an address.
#[derive(Debug, thiserror::Error)]
enum NoTrunk {
    #[error("no connection: {0}")]
    Tcp(std::io::Error),
    #[error("no connection within 10 s")]
    Silent,
    #[error("this sidecar has no domain: its settings name none")]
    NoDomain,
    #[error("{0}")]
    Stream(Fault),
}

impl NoTrunk {
    fn label(&self) -> &'static str {
        match self {
            Self::Tcp(error) => match error.kind() {
                ErrorKind::ConnectionRefused => "TcpRefused",
                ErrorKind::TimedOut => "TcpTimeout",
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "TcpUnreachable",
                _ => "TcpFailed",
            },
            Self::Silent => "TcpTimeout",
            Self::NoDomain => "NoDomain",
            Self::Stream(fault) if is_refusal(fault) => "SidecarRefused",
            Self::Stream(fault) => fault.label(),
        }
    }

    fn step(&self) -> Step {
        match self {
            Self::Tcp(_) | Self::Silent => Step::Tcp,
            Self::NoDomain => Step::Policy,
            Self::Stream(fault) if is_refusal(fault) => Step::Certificate,
            Self::Stream(fault) => fault.step(),
        }
    }

    /// In words, with what to do where an edge does not know this sidecar.
    fn text(&self, context: &StreamContext) -> String {
        let text = self.to_string();
        match (&context.config().identity, self.step()) {
            (Some(identity), Step::Certificate | Step::Sasl) => format!(
                "{text}; this sidecar's key is sha256:{}: add it to spec.gateways[].sidecar.keys, unless it shows a certificate",
                identity.spki_sha256()
            ),
            _ => text,
        }
    }
}

/// Whether an edge does not know this sidecar. It does not say which step it was; what it has against a
/// sidecar is its certificate.
fn is_refusal(fault: &Fault) -> bool {
    match fault {
        Fault::PeerError { condition, .. } => condition == NOT_AUTHORIZED,
        Fault::SaslRejected { .. } => true,
        _ => false,
    }
}

/// An address that a name leads to, or led to and that has a trunk still.
struct DialledAddress {
    /// Whether a name leads there. While trunks stand that may change and change back.
    is_wanted: watch::Sender<bool>,
    keeps: JoinHandle<()>,
}

impl DialledAddress {
    fn begin(context: &Arc<StreamContext>, address: SocketAddr) -> Self {
        let (is_wanted, wanted) = watch::channel(true);
        let keeps = keep(Arc::clone(context), address, wanted);
        Self {
            is_wanted,
            keeps: context.tasks.spawn(keeps),
        }
    }

    fn is_now(&self, wanted: bool) {
        self.is_wanted.send_if_modified(|own| {
            let is_another = *own != wanted;
            *own = wanted;
            is_another
        });
    }
}

/// Keeps a trunk to each edge pod, until `stop`.
pub async fn serve(context: Arc<StreamContext>, stop: CancellationToken) {
    let mut dialled: HashMap<SocketAddr, DialledAddress> = HashMap::new();
    // Of names that do not resolve at the moment: what they led to last.
    let mut known: HashMap<HostPort, Vec<SocketAddr>> = HashMap::new();
    loop {
        let config = context.config();
        let edges = config
            .edge_dials
            .as_ref()
            .map_or(&[][..], |own| own.edges.as_slice());
        let mut unresolved = BTreeMap::new();
        known.retain(|edge, _| edges.contains(edge));
        let lookups = edges.iter().map(async |edge| {
            let found = tokio::time::timeout(LOOKUP, addresses(&context, edge)).await;
            let found = found.unwrap_or_else(|_| Err(no_answer(&context, edge)));
            (edge, found)
        });
        let mut lookups: FuturesUnordered<_> = lookups.collect();
        loop {
            let next = tokio::select! {
                next = lookups.next() => next,
                () = stop.cancelled() => return,
            };
            let Some((edge, found)) = next else { break };
            match found {
                Ok(addresses) => {
                    dial_further(&context, &mut dialled, &addresses);
                    known.insert(edge.clone(), addresses);
                }
                Err(failure) => {
                    unresolved.insert(edge.to_string(), failure);
                }
            }
        }
        context.trunks.unresolved_are(unresolved);
        let wanted: HashSet<SocketAddr> = known.values().flatten().copied().collect();
        dialled.retain(|address, own| {
            own.is_now(wanted.contains(address));
            !own.keeps.is_finished()
        });
        let wanted: Vec<_> = wanted.into_iter().collect();
        dial_further(&context, &mut dialled, &wanted);
        tokio::select! {
            () = tokio::time::sleep(RESOLVE) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Dials those of the addresses that are not dialled yet.
fn dial_further(
    context: &Arc<StreamContext>,
    dialled: &mut HashMap<SocketAddr, DialledAddress>,
    addresses: &[SocketAddr],
) {
    for address in addresses {
        if dialled.len() < MOST && !dialled.contains_key(address) {
            dialled.insert(*address, DialledAddress::begin(context, *address));
        }
    }
}

/// Where a name leads, or why that cannot be told now.
async fn addresses(
    context: &StreamContext,
    edge: &HostPort,
) -> Result<Vec<SocketAddr>, DialFailure> {
    let ips = match &edge.host {
        Host::Ip(ip) => vec![*ip],
        Host::Name(name) => match context.resolver.addresses(name).await {
            Ok(ips) => ips,
            Err(error) => return Err(no_address(context, edge, &error)),
        },
    };
    let ips = ips.into_iter();
    Ok(ips.map(|ip| SocketAddr::new(ip, edge.port)).collect())
}

fn no_address(context: &StreamContext, edge: &HostPort, error: &DnsError) -> DialFailure {
    told_of_name(context, edge, error.label(), error.to_string())
}

fn no_answer(context: &StreamContext, edge: &HostPort) -> DialFailure {
    let text = format!("no answer of the resolver within {} s", LOOKUP.as_secs());
    told_of_name(context, edge, "DnsTimeout", text)
}

fn told_of_name(
    context: &StreamContext,
    edge: &HostPort,
    label: &'static str,
    text: String,
) -> DialFailure {
    let failure = DialFailure::new(Step::Dns, label, text);
    limited!(
        info,
        context.log.lines_of("edge", failure.label),
        %edge, step = failure.step.as_str(), cause = failure.label, remedy = failure.remedy(),
        "no address of an edge: {}", failure.text.escape_debug()
    );
    failure
}

/// Keeps a trunk to the pod at this address, and where a load balancer is there, to each of its pods; until it
/// is not wanted and its trunks have ended. Before the certificates of one end that a trunk was opened with, the
/// next is opened; the pairs move there.
async fn keep(context: Arc<StreamContext>, address: SocketAddr, mut wanted: watch::Receiver<bool>) {
    context.trunks.dials(address, DialOutcome::None);
    let mut kept = KeptAddress::new(address);
    loop {
        let mut news = std::pin::pin!(context.trunks.news());
        news.as_mut().enable();
        let is_ending = context.stopping.is_cancelled();
        let is_wanted = *wanted.borrow_and_update() && !is_ending;
        if !is_wanted && kept.trunks.is_empty() {
            break;
        }
        let due = if is_wanted {
            kept.due(context.trunks.behind(address))
        } else {
            None
        };
        let changes = async {
            // Who dials has ended, and what stands goes on.
            if wanted.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = wait_for(due.map(|(at, _)| at)) => {
                if let Some((_, dial)) = due {
                    kept.dial(&context, dial).await;
                }
            }
            Some(ended) = kept.trunks.join_next_with_id(), if !kept.trunks.is_empty() => {
                kept.ended(&context, ended);
            }
            () = news => {}
            () = changes => {}
            () = context.stopping.cancelled(), if !is_ending => {}
        }
    }
    context.trunks.dials_no_more(address);
}

async fn wait_for(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// An address that is dialled.
struct KeptAddress {
    address: SocketAddr,
    /// Waits for each trunk's end; the trunk itself is a task of the process.
    trunks: JoinSet<(TrunkStanding, Option<Fault>)>,
    /// When each is to be followed by the next.
    renewals: HashMap<tokio::task::Id, Instant>,
    /// In a row, while there was no trunk.
    failures: u32,
    /// Dials in a row that led to no further pod.
    vain: u32,
    /// When it was dialled last, or a trunk ended.
    last: Instant,
}

impl KeptAddress {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            trunks: JoinSet::new(),
            renewals: HashMap::new(),
            failures: 0,
            vain: 0,
            last: Instant::now(),
        }
    }

    /// When it is to be dialled next, and what for; none before something else is new.
    fn due(&self, behind: PodsBehind) -> Option<(Instant, TrunkDial)> {
        let further = (self.last + pause_of_further(self.vain), TrunkDial::Further);
        if self.trunks.is_empty() {
            if behind.is_redundant {
                // Its pod has a trunk; another pod may answer here, where one is lacking.
                return behind.lacks_pods.then_some(further);
            }
            let pause = pause(self.failures, random::unit());
            return Some((self.last + pause, TrunkDial::Further));
        }
        let renewal = self.renewals.values().min().copied();
        let renewal = renewal.unwrap_or(self.last + MOST_PAUSE_OF_RENEWAL);
        let has_room = self.trunks.len() < MOST_PODS;
        // What drains may take as long as stanzas wait: the next is not kept waiting for it.
        let all_drain = !behind.has_open && behind.known >= self.trunks.len();
        if all_drain && has_room {
            let pause = pause_of_further(self.vain).min(PAUSE_WITHOUT_TRUNK);
            Some((self.last + pause, TrunkDial::Further))
        } else if behind.lacks_pods && has_room && further.0 < renewal {
            Some(further)
        } else {
            Some((renewal, TrunkDial::Renewal))
        }
    }

    async fn dial(&mut self, context: &Arc<StreamContext>, dial: TrunkDial) {
        let opened = open(context, self.address).await;
        self.last = Instant::now();
        if dial == TrunkDial::Renewal {
            // Behind a load balancer another pod may have answered: until it has ended, it is tried again.
            let again = self.last + RENEWED_AGAIN;
            for renewal in self.renewals.values_mut() {
                *renewal = (*renewal).max(again);
            }
        }
        match opened {
            Ok((stream, peer)) => {
                let trunk = TrunkStream::new(stream, peer).dialled_for(dial);
                let renewal = self.last + trunk.renewal();
                let running = context.tasks.spawn(trunk.run());
                let waits = self.trunks.spawn(async move {
                    // One that panicked has given back what it had.
                    running.await.unwrap_or((TrunkStanding::Greeting, None))
                });
                self.renewals.insert(waits.id(), renewal);
            }
            Err(failure) => {
                self.vain += 1;
                self.failures += u32::from(self.trunks.is_empty());
                self.note(context, &failure);
            }
        }
    }

    fn ended(&mut self, context: &StreamContext, ended: JoinedTrunk) {
        let (id, (standing, fault)) = match ended {
            Ok(ended) => ended,
            Err(error) => (error.id(), (TrunkStanding::Greeting, None)),
        };
        self.renewals.remove(&id);
        self.last = Instant::now();
        match standing {
            TrunkStanding::Stood => (self.failures, self.vain) = (0, 0),
            TrunkStanding::Greeting => {
                self.vain += 1;
                self.failures += u32::from(self.trunks.is_empty());
            }
            TrunkStanding::Redundant => {
                self.vain += 1;
                // Where its pod was reached a moment ago and is not now, no faster than after other failures.
                self.failures += u32::from(self.trunks.is_empty());
            }
        }
        if let Some(fault) = fault {
            self.note(context, &NoTrunk::Stream(fault));
        }
    }

    /// Tells why there is no trunk.
    fn note(&self, context: &StreamContext, failure: &NoTrunk) {
        let address = self.address;
        let failure = DialFailure::new(failure.step(), failure.label(), failure.text(context));
        limited!(
            info,
            context.log.lines_of("trunk", failure.label),
            %address, step = failure.step.as_str(), cause = failure.label,
            remedy = failure.remedy(),
            "no trunk: {}", failure.text.escape_debug()
        );
        context.trunks.dials(address, DialOutcome::Failed(failure));
    }
}

type JoinedTrunk = Result<(tokio::task::Id, (TrunkStanding, Option<Fault>)), JoinError>;

/// Between two dials while each trunk that stands drains, at most: soon there is none.
const PAUSE_WITHOUT_TRUNK: Duration = Duration::from_secs(2);

/// Between two dials for pods that are lacking, after so many that led to none.
fn pause_of_further(vain: u32) -> Duration {
    if vain < VAIN_AT_ONCE {
        FIRST_PAUSE
    } else {
        FURTHER_PAUSE
    }
}

/// After so many failures in a row; `jitter`, within 0 and 1, takes up to half away.
fn pause(failures: u32, jitter: f64) -> Duration {
    let Some(doublings) = failures.checked_sub(2) else {
        return Duration::ZERO;
    };
    let pause = FIRST_PAUSE.saturating_mul(1 << doublings.min(8));
    pause.min(LONGEST_PAUSE).mul_f64(1.0 - jitter / 2.0)
}

/// A stream to the pod at this address on which both have proved who they are.
async fn open(
    context: &Arc<StreamContext>,
    address: SocketAddr,
) -> Result<(Box<Stream>, DomainName), NoTrunk> {
    let config = context.config();
    let deadline = Instant::now() + SET_UP;
    let stream = tokio::time::timeout_at(deadline.into(), socket::open(address))
        .await
        .map_err(|_| NoTrunk::Silent)?
        .map_err(NoTrunk::Tcp)?;
    let own = config.document.domains.first().ok_or(NoTrunk::NoDomain)?;
    let edge = DomainName::parse(trunk::EDGE_NAME).map_err(|_| NoTrunk::NoDomain)?;
    let negotiation = Negotiation {
        context: Arc::clone(context),
        config: Arc::clone(&config),
        side: Side::Partner,
        purpose: Purpose::Trunk(Pair {
            from: own.clone(),
            to: edge.clone(),
        }),
        proof: OwnProof::Any,
        skip_bidi: true,
        skip_acks: false,
        names: WireNames::default(),
        deadline,
        superseded: CancellationToken::new(),
    };
    let candidate = Candidate {
        target: address.to_string(),
        endpoint: Endpoint::Address(address),
        direct_tls: true,
        tlsa: None,
        dane: None,
    };
    let connected = Connected { stream, candidate };
    let stream = negotiation.run(connected).await.map_err(NoTrunk::Stream)?;
    Ok((stream, edge))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_is_dialled_at_once_and_then_ever_later_up_to_ten_seconds() {
        let pauses: Vec<_> = (0..12).map(|failures| pause(failures, 0.0)).collect();
        assert_eq!(pauses[..3], [Duration::ZERO, Duration::ZERO, FIRST_PAUSE]);
        assert!(
            pauses.is_sorted() && pauses[11] == LONGEST_PAUSE,
            "{pauses:?}"
        );
        assert_eq!(pause(11, 1.0), LONGEST_PAUSE / 2);
    }

    fn behind(of: impl FnOnce(&mut PodsBehind)) -> PodsBehind {
        let mut behind = PodsBehind::default();
        of(&mut behind);
        behind
    }

    #[test]
    fn pods_that_are_lacking_are_dialled_for_at_once_and_then_now_and_then() {
        let mut kept = KeptAddress::new(([127, 0, 0, 1], 1).into());
        let due = kept.due(behind(|own| own.lacks_pods = true));
        let first = Some((kept.last, TrunkDial::Further));
        assert_eq!(due, first, "the first is not waited for");
        kept.vain = VAIN_AT_ONCE - 1;
        assert_eq!(pause_of_further(kept.vain), FIRST_PAUSE);
        assert_eq!(pause_of_further(VAIN_AT_ONCE), FURTHER_PAUSE);
    }

    #[test]
    fn an_address_of_a_pod_that_is_reached_is_not_dialled_again_while_it_is() {
        let mut kept = KeptAddress::new(([127, 0, 0, 1], 1).into());
        kept.vain = VAIN_AT_ONCE;
        let mut own = behind(|own| own.is_redundant = true);
        assert_eq!(kept.due(own), None);
        own.lacks_pods = true;
        let seldom = Some((kept.last + FURTHER_PAUSE, TrunkDial::Further));
        assert_eq!(kept.due(own), seldom, "another pod may answer there");
        own.is_redundant = false;
        assert_eq!(kept.due(own), Some((kept.last, TrunkDial::Further)));
    }

    #[tokio::test]
    async fn where_every_trunk_drains_the_next_is_not_kept_waiting() {
        let mut kept = KeptAddress::new(([127, 0, 0, 1], 1).into());
        kept.trunks.spawn(std::future::pending());
        let dials = |own| kept.due(own).map(|(_, dial)| dial);
        let greets = behind(|_| ());
        assert_eq!(
            dials(greets),
            Some(TrunkDial::Renewal),
            "it is being opened"
        );
        let drains = behind(|own| own.known = 1);
        assert_eq!(dials(drains), Some(TrunkDial::Further));
        let stands = behind(|own| (own.known, own.has_open) = (1, true));
        assert_eq!(dials(stands), Some(TrunkDial::Renewal));
        // However often it was dialled for further pods before.
        kept.vain = VAIN_AT_ONCE;
        let drains = behind(|own| (own.known, own.lacks_pods) = (1, true));
        let soon = (kept.last + PAUSE_WITHOUT_TRUNK, TrunkDial::Further);
        assert_eq!(kept.due(drains), Some(soon));
    }
}
