//! One attempt at the targets of a peer, one after the other; a negotiation that is not over soon lets
//! the next target start beside it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::{domain::DomainName, negotiation::Method};

use super::{
    CLOSING, Stream,
    context::StreamContext,
    establish::{Negotiation, OwnProof, ends},
    targets::{direction, kind_of_dns},
};
use crate::{
    config::ActiveConfig,
    dns::{self, Candidate, Connected},
    negotiation::{Fault, Purpose, Side, WireNames},
    routing::{
        dial_ticket::DialTicket,
        failure::{Failure, FailureKind},
    },
    telemetry::log_limiter::limited,
};

/// A negotiation that is not over after this long lets the next target start beside it, at the latest.
const BESIDE: Duration = Duration::from_secs(5);

/// One attempt at the targets of a peer.
pub(super) struct Walk<'a> {
    context: &'a Arc<StreamContext>,
    config: &'a Arc<ActiveConfig>,
    side: Side,
    purpose: &'a Purpose,
    peer: DomainName,
    ticket: Option<&'a DialTicket>,
    deadline: Instant,
    /// How long a negotiation may take before the next target starts beside it: others must have their
    /// share of the whole.
    beside: Duration,
    proof: OwnProof,
    skip_bidi: bool,
    /// A target ended its stream over bidi in this walk.
    over_bidi: bool,
    /// In which form names are written to the peer, and whether its own was changed in this walk.
    names: WireNames,
    renamed: bool,
    /// Servers that are to be tried once more.
    again: Vec<Candidate>,
    /// Under way, beside each other: the first to be over wins.
    negotiations: FuturesUnordered<BoxFuture<'static, (Candidate, Negotiated)>>,
    /// Ends those that are under way, in order.
    superseded: CancellationToken,
    last: Failure,
    /// One target at least may be back in a moment.
    /// What of them may be over in a moment, the last.
    outage: Option<FailureKind>,
}

type Negotiated = Result<Box<Stream>, Fault>;

/// The next connection, with what is left behind it.
type Next = (
    dns::Candidates,
    Option<Result<Connected, dns::ConnectFault>>,
);

async fn next_of(mut candidates: dns::Candidates) -> Next {
    let next = candidates.next().await;
    (candidates, next)
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        context: &'a Arc<StreamContext>,
        config: &'a Arc<ActiveConfig>,
        side: Side,
        purpose: &'a Purpose,
        ticket: Option<&'a DialTicket>,
        deadline: Instant,
    ) -> Self {
        let (peer, local) = ends(purpose);
        let text = format!("no address found for {peer}");
        let names = context.peers.names(side, &peer, &local, Instant::now());
        Self {
            context,
            config,
            side,
            purpose,
            peer,
            ticket,
            deadline,
            beside: BESIDE.min(deadline.saturating_duration_since(Instant::now()) / 3),
            proof: OwnProof::Any,
            skip_bidi: context
                .without_bidi
                .contains(&ends(purpose).0, Instant::now()),
            over_bidi: false,
            names,
            renamed: false,
            again: Vec::new(),
            negotiations: FuturesUnordered::new(),
            superseded: CancellationToken::new(),
            last: Failure::new(FailureKind::NotFound, text),
            outage: None,
        }
    }

    /// Why the last target failed.
    pub(super) fn last(&self) -> &Failure {
        &self.last
    }

    /// # Errors
    /// Why no target gave a stream.
    pub(super) async fn over(
        &mut self,
        candidates: dns::Candidates,
    ) -> Result<Box<Stream>, Failure> {
        let mut connecting = Some(Box::pin(next_of(candidates)));
        let mut rest = None;
        let mut beside = Instant::now();
        loop {
            if connecting.is_none() && (self.negotiations.is_empty() || Instant::now() >= beside) {
                connecting = rest.take().map(|mut candidates: dns::Candidates| {
                    for candidate in self.again.drain(..) {
                        candidates.again(candidate);
                    }
                    Box::pin(next_of(candidates))
                });
            }
            if connecting.is_none() && self.negotiations.is_empty() {
                break;
            }
            let is_negotiating = !self.negotiations.is_empty();
            if let Some(ticket) = self.ticket {
                ticket.route().negotiates(ticket.number(), is_negotiating);
            }
            tokio::select! {
                biased;
                Some((candidate, outcome)) = self.negotiations.next(), if is_negotiating => match outcome {
                    Ok(stream) => {
                        if self.over_bidi {
                            self.context.without_bidi.remember(&self.peer, Instant::now());
                        }
                        if let Purpose::Stanzas(_) = self.purpose {
                            let (peers, form) = (&self.context.peers, self.names.peer);
                            peers.note_form(self.side, &self.peer, form, Instant::now());
                        }
                        return Ok(stream);
                    }
                    Err(fault) => self.negotiation_failed(candidate, fault)?,
                },
                (mut candidates, next) = if_some(&mut connecting) => {
                    connecting = None;
                    for step in candidates.take_steps() {
                        let whose = self.config.attempt_peer(self.side, &step.domain);
                        self.context.attempts.note(whose, step);
                    }
                    match next {
                        None => continue,
                        Some(Ok(connected)) => {
                            self.negotiate(connected);
                            beside = Instant::now() + self.beside;
                        }
                        Some(Err(fault)) => self.connection_failed(&fault),
                    }
                    rest = Some(candidates);
                }
                () = tokio::time::sleep_until(beside.into()),
                    if rest.is_some() && connecting.is_none() => {}
            }
        }
        let mut failure = self.last.clone();
        if let Some(outage) = self.outage {
            failure.kind = outage;
        }
        Err(failure)
    }

    fn negotiate(&mut self, connected: Connected) {
        let candidate = connected.candidate.clone();
        let negotiation = Negotiation {
            context: Arc::clone(self.context),
            config: Arc::clone(self.config),
            side: self.side,
            purpose: self.purpose.clone(),
            proof: self.proof,
            skip_bidi: self.skip_bidi,
            names: self.names,
            deadline: self.deadline,
            superseded: self.superseded.clone(),
        };
        let outcome = negotiation.run(connected);
        let outcome = async move { (candidate, outcome.await) };
        self.negotiations.push(outcome.boxed());
    }

    fn connection_failed(&mut self, fault: &dns::ConnectFault) {
        let kind = match (fault, self.last.kind) {
            (dns::ConnectFault::Dns { cause, .. }, last) => match kind_of_dns(cause) {
                // Not found is only what has no address at any target.
                FailureKind::NotFound if last != FailureKind::NotFound => FailureKind::Refused,
                kind => kind,
            },
            (dns::ConnectFault::Forbidden { .. } | dns::ConnectFault::ForbiddenName { .. }, _) => {
                FailureKind::Refused
            }
            (dns::ConnectFault::Egress { cause, .. }, _) if cause.is_refusal() => {
                FailureKind::Refused
            }
            _ => FailureKind::Unreachable,
        };
        self.failed(Failure::new(kind, fault.to_string()));
    }

    /// # Errors
    /// Where no further target is to be tried.
    fn negotiation_failed(&mut self, candidate: Candidate, fault: Fault) -> Result<(), Failure> {
        // The peer has opened a stream that carries the pair: no target is tried any more.
        if fault == Fault::Done {
            return Err(Failure::new(FailureKind::Unreachable, fault.to_string()));
        }
        if let Fault::SaslRejected { ended, .. } = fault {
            if ended && self.proof == OwnProof::Any {
                // It hung up over EXTERNAL: the same server by dialback, before any other.
                self.again.push(candidate.clone());
            }
            if self.proof == OwnProof::Any {
                self.proof = OwnProof::Dialback;
            }
        }
        let is_alert = matches!(&fault, Fault::TlsFailed { label, .. } if *label == "TlsAlert");
        if is_alert && self.proof != OwnProof::DialbackWithoutCertificate && self.may_dial_back() {
            // It ended TLS, over our certificate most likely: it may take who shows none, as every
            // client may (RFC 8446 section 4.4.2).
            self.again.push(candidate.clone());
            self.proof = OwnProof::DialbackWithoutCertificate;
        }
        if matches!(fault, Fault::BidiRejected { .. }) && !self.skip_bidi {
            // Nobody needs it: the same server without, before any other.
            self.again.push(candidate.clone());
            self.skip_bidi = true;
            self.over_bidi = true;
        }
        let knows_none =
            matches!(&fault, Fault::PeerError { condition, .. } if condition == "host-unknown");
        if knows_none && !self.renamed && self.peer_has_two_names() {
            // Some servers host A-labels and compare texts: the same server once more, in the other form.
            self.again.push(candidate.clone());
            self.renamed = true;
            self.names.peer = self.names.peer.other();
        }
        let kind = kind_of(&fault);
        let before = format!("{} at {}: ", self.peer, candidate.endpoint);
        self.failed(Failure::quoting(kind, &before, &fault.to_string(), ""));
        // What the peer said stands in it: it must not forge lines.
        let partner = match self.side {
            Side::Partner => self.config.partner(&self.peer).map(|own| own.name.as_str()),
            Side::Gateway => None,
        };
        let log = &self.context.log;
        limited!(
            info,
            log.lines("no stream", partner, direction(self.side), fault.label()),
            peer = %self.peer, address = %candidate.endpoint, cause = fault.label(),
            "no stream: {}", fault.to_string().escape_debug()
        );
        match kind {
            FailureKind::Forbidden => Err(self.last.clone()),
            _ => Ok(()),
        }
    }

    /// Whether the peer's name can be written in another form. A question about a key has the form in
    /// which that came.
    fn peer_has_two_names(&self) -> bool {
        matches!(self.purpose, Purpose::Stanzas(_)) && self.peer.is_international()
    }

    /// Whether dialback over TLS suffices towards this peer.
    fn may_dial_back(&self) -> bool {
        self.side == Side::Partner
            && self
                .config
                .partner(&self.peer)
                .is_some_and(|partner| partner.methods.contains(Method::TlsDialback))
    }

    fn failed(&mut self, failure: Failure) {
        if failure.kind.is_outage() {
            self.outage = Some(failure.kind);
        }
        if let Some(ticket) = self.ticket {
            ticket.route().note_failure(&failure);
        }
        self.last = failure;
    }
}

/// What nobody waits for any more ends in order, beside whatever comes next.
impl Drop for Walk<'_> {
    fn drop(&mut self) {
        if self.negotiations.is_empty() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        self.superseded.cancel();
        let rest = std::mem::take(&mut self.negotiations);
        let end = rest.for_each(async |(_, outcome)| {
            if let Ok(mut stream) = outcome {
                stream.finish().await;
            }
        });
        self.context.tasks.spawn(tokio::time::timeout(CLOSING, end));
    }
}

/// Whether a fault may be over in a moment, or is what somebody wants.
fn kind_of(fault: &Fault) -> FailureKind {
    /// Conditions of servers that are starting, ending, or short of something (RFC 6120 sections 4.9.3
    /// and 8.3.3).
    const PASSING: [&str; 9] = [
        "connection-timeout",
        "internal-server-error",
        "remote-connection-failed",
        "remote-server-not-found",
        "remote-server-timeout",
        "reset",
        "resource-constraint",
        "system-shutdown",
        "temporary-auth-failure",
    ];
    /// Those of them that are of who was asked about the pair, where a server ends its stream in place of
    /// XEP-0220's error (section 2.5).
    const OF_THE_PAIR: [&str; 3] = [
        "remote-connection-failed",
        "remote-server-not-found",
        "remote-server-timeout",
    ];
    match fault {
        Fault::EstablishmentTimeout => FailureKind::TimedOut,
        Fault::Policy(_) | Fault::HostUnknown => FailureKind::Forbidden,
        Fault::PeerClosed | Fault::Shutdown | Fault::Unresponsive | Fault::BidiRejected { .. } => {
            FailureKind::Unreachable
        }
        Fault::DialbackError { condition } if PASSING.contains(&condition.as_str()) => {
            FailureKind::Unproved
        }
        Fault::PeerError { condition, .. } if OF_THE_PAIR.contains(&condition.as_str()) => {
            FailureKind::Unproved
        }
        Fault::PeerError { condition, .. } | Fault::SaslRejected { condition, .. }
            if PASSING.contains(&condition.as_str()) =>
        {
            FailureKind::Unreachable
        }
        // The connection broke, or the handshake was too slow: nobody has refused anything.
        Fault::TlsFailed { label, .. } if ["TlsTimeout", "TlsIo", "TlsClosed"].contains(label) => {
            FailureKind::Unreachable
        }
        _ => FailureKind::Refused,
    }
}

/// Never, where there is nothing to wait for.
async fn if_some<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
