//! A sidecar dials edge pods: all that its settings name, each at each of its addresses, for ever.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::ErrorKind,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{Host, HostPort},
};

use super::{
    TrunkStanding, TrunkStream,
    figures::{DialFailure, DialOutcome},
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
/// After as many failures the pause is the longest: nobody waits for a second trunk to the same pod.
const REDUNDANT: u32 = 20;
/// What an edge says to whom it does not know (RFC 6120 section 4.9.3.12).
const NOT_AUTHORIZED: &str = "not-authorized";
/// Addresses that are dialled at all.
const MOST: usize = 100;

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

/// Keeps a trunk to each edge pod, until `stop`.
pub async fn serve(context: Arc<StreamContext>, stop: CancellationToken) {
    let mut dialled: HashMap<SocketAddr, CancellationToken> = HashMap::new();
    // Of names that do not resolve at the moment: what they led to last.
    let mut known: HashMap<HostPort, Vec<SocketAddr>> = HashMap::new();
    loop {
        let config = context.config();
        let edges = config
            .edge_dials
            .as_ref()
            .map_or(&[][..], |own| own.edges.as_slice());
        let mut wanted = HashSet::new();
        let mut unresolved = BTreeMap::new();
        for edge in edges {
            match addresses(&context, edge).await {
                Ok(addresses) => {
                    known.insert(edge.clone(), addresses);
                }
                Err(failure) => {
                    unresolved.insert(edge.to_string(), failure);
                }
            }
            wanted.extend(known.get(edge).into_iter().flatten().copied());
        }
        context.trunks.unresolved_are(unresolved);
        known.retain(|edge, _| edges.contains(edge));
        dialled.retain(|address, let_go| {
            let stays = wanted.contains(address);
            if !stays {
                let_go.cancel();
            }
            stays
        });
        for address in wanted {
            if dialled.len() < MOST && !dialled.contains_key(&address) {
                let let_go = CancellationToken::new();
                dialled.insert(address, let_go.clone());
                context
                    .tasks
                    .spawn(keep(Arc::clone(&context), address, let_go));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RESOLVE) => {}
            () = stop.cancelled() => return,
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
    let failure = DialFailure::new(Step::Dns, error.label(), error.to_string());
    limited!(
        info,
        context.log.lines_of("edge", failure.label),
        %edge, step = failure.step.as_str(), cause = failure.label, remedy = failure.remedy(),
        "no address of an edge: {}", failure.text.escape_debug()
    );
    failure
}

/// Keeps a trunk to the pod at this address, until it is let go and its trunk has ended. Before the
/// certificates of one end that it was opened with, the next is opened; the pairs move there.
async fn keep(context: Arc<StreamContext>, address: SocketAddr, let_go: CancellationToken) {
    let mut failures = 0;
    context.trunks.dials(address, DialOutcome::None);
    while !let_go.is_cancelled() && !context.stopping.is_cancelled() {
        let failure = match open(&context, address).await {
            Ok((stream, peer)) => {
                let trunk = TrunkStream::new(stream, peer);
                let renewal = tokio::time::sleep(trunk.renewal());
                let running = context.tasks.spawn(trunk.run());
                tokio::select! {
                    ended = running => {
                        let (standing, fault) = ended.unwrap_or((TrunkStanding::Greeting, None));
                        failures = match standing {
                            TrunkStanding::Stood => 0,
                            TrunkStanding::Greeting => failures + 1,
                            TrunkStanding::Redundant => {
                                context.trunks.dials(address, DialOutcome::Redundant);
                                REDUNDANT
                            }
                        };
                        fault.map(NoTrunk::Stream)
                    }
                    // It is drained once the next one stands.
                    () = renewal => {
                        failures = 0;
                        None
                    }
                }
            }
            Err(failure) => {
                failures += 1;
                Some(failure)
            }
        };
        if let Some(failure) = failure {
            let text = failure.text(&context);
            let failure = DialFailure::new(failure.step(), failure.label(), text);
            limited!(
                info,
                context.log.lines_of("trunk", failure.label),
                %address, step = failure.step.as_str(), cause = failure.label,
                remedy = failure.remedy(),
                "no trunk: {}", failure.text.escape_debug()
            );
            context.trunks.dials(address, DialOutcome::Failed(failure));
        }
        tokio::select! {
            () = tokio::time::sleep(pause(failures, random::unit())) => {}
            () = let_go.cancelled() => {}
            () = context.stopping.cancelled() => {}
        }
    }
    context.trunks.dials_no_more(address);
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
}
