//! One attempt at the targets of a peer, one after the other; a negotiation that is not over soon lets
//! the next target start beside it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::{
    domain::{DomainName, NameForm},
    negotiation::Method,
};

use super::{
    CLOSING, Stream,
    context::StreamContext,
    environment::ConfigEnvironment,
    establish::{Negotiation, OwnProof, ends},
    given_up::Dispensable,
    proofs::Proofs,
    targets::{direction, kind_of_dns},
};
use crate::{
    config::ActiveConfig,
    dns::{self, Candidate, Connected},
    negotiation::{Environment, Fault, Purpose, Side, WireNames},
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
    /// How the next server is tried: what one of them does not take is not asked of those behind it.
    manner: Manner,
    /// The form of the peer's name that this walk began with.
    first_form: NameForm,
    /// Servers that are to be tried once more, in another manner.
    again: Vec<Candidate>,
    /// Under way, beside each other: the first to be over wins.
    negotiations: FuturesUnordered<BoxFuture<'static, (Tried, Negotiated)>>,
    /// Ends those that are under way, in order.
    superseded: CancellationToken,
    last: Failure,
    /// One target at least may be back in a moment.
    /// What of them may be over in a moment, the last.
    outage: Option<FailureKind>,
}

type Negotiated = Result<Box<Stream>, Fault>;

/// How a server is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Manner {
    proof: OwnProof,
    skip_bidi: bool,
    skip_acks: bool,
    /// In which form names are written to it.
    names: WireNames,
}

/// A server, and the manner in which it was tried: beside another it may have begun before that one
/// changed the manner of the walk.
#[derive(Debug)]
struct Tried {
    candidate: Candidate,
    manner: Manner,
}

/// Whether another target is being connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connecting {
    Now,
    /// Once no negotiation is under way, or the last one has taken too long.
    Later,
    /// All were tried; it goes on with those alone that are to be tried once more.
    Never,
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
            manner: Manner {
                proof: OwnProof::Any,
                skip_bidi: false,
                skip_acks: false,
                names,
            },
            first_form: names.peer,
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
        mut candidates: dns::Candidates,
    ) -> Result<Box<Stream>, Failure> {
        let mut connecting = Connecting::Now;
        let mut beside = Instant::now();
        loop {
            if !self.again.is_empty() {
                for candidate in self.again.drain(..) {
                    candidates.again(candidate);
                }
                connecting = Connecting::Now;
            }
            let is_due = self.negotiations.is_empty() || Instant::now() >= beside;
            if connecting == Connecting::Later && is_due {
                connecting = Connecting::Now;
            }
            if connecting == Connecting::Never && self.negotiations.is_empty() {
                break;
            }
            let is_negotiating = !self.negotiations.is_empty();
            if let Some(ticket) = self.ticket {
                ticket.route().negotiates(ticket.number(), is_negotiating);
            }
            tokio::select! {
                biased;
                Some((tried, outcome)) = self.negotiations.next(), if is_negotiating => match outcome {
                    Ok(stream) => {
                        self.learn(tried.manner);
                        return Ok(stream);
                    }
                    Err(fault) => self.negotiation_failed(&tried, &fault)?,
                },
                // Nothing is lost where it is not the first: what it began goes on with the next call.
                next = candidates.next(), if connecting == Connecting::Now => {
                    for step in candidates.take_steps() {
                        let whose = self.config.attempt_peer(self.side, &step.domain);
                        self.context.attempts.note(whose, step);
                    }
                    connecting = match next {
                        None => Connecting::Never,
                        Some(Ok(connected)) => {
                            self.negotiate(connected);
                            beside = Instant::now() + self.beside;
                            Connecting::Later
                        }
                        Some(Err(fault)) => {
                            self.connection_failed(&fault);
                            Connecting::Later
                        }
                    };
                }
                () = tokio::time::sleep_until(beside.into()),
                    if connecting == Connecting::Later => {}
            }
        }
        let mut failure = self.last.clone();
        if let Some(outage) = self.outage {
            failure.kind = outage;
        }
        Err(failure)
    }

    fn negotiate(&mut self, connected: Connected) {
        let tried = Tried {
            candidate: connected.candidate.clone(),
            manner: self.manner,
        };
        let negotiation = Negotiation {
            context: Arc::clone(self.context),
            config: Arc::clone(self.config),
            side: self.side,
            purpose: self.purpose.clone(),
            proof: tried.manner.proof,
            skip_bidi: tried.manner.skip_bidi,
            skip_acks: tried.manner.skip_acks,
            names: tried.manner.names,
            deadline: self.deadline,
            superseded: self.superseded.clone(),
        };
        let outcome = negotiation.run(connected);
        let outcome = async move { (tried, outcome.await) };
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

    /// The manner in which a stream came to be is the peer's.
    fn learn(&self, manner: Manner) {
        let now = Instant::now();
        for (what, is_left_out) in [
            (Dispensable::Bidi, manner.skip_bidi),
            (Dispensable::Acks, manner.skip_acks),
        ] {
            if is_left_out {
                self.remember_without(what, now);
            }
        }
        if let Purpose::Stanzas(_) = self.purpose {
            let peers = &self.context.peers;
            let peer = (self.side, &self.peer);
            peers.note_form(self.config, peer, manner.names.peer, now);
        }
    }

    /// # Errors
    /// Where no further target is to be tried.
    fn negotiation_failed(&mut self, tried: &Tried, fault: &Fault) -> Result<(), Failure> {
        // The peer has opened a stream that carries the pair: no target is tried any more.
        if *fault == Fault::Done {
            return Err(Failure::new(FailureKind::Unreachable, fault.to_string()));
        }
        let Tried { candidate, manner } = tried;
        if self.changes_manner(*manner, fault) {
            // The same server, before any other.
            self.again.push(candidate.clone());
        }
        let kind = kind_of(fault);
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

    /// Takes back what a server that was tried in this manner did not take. Says whether it may take us
    /// now: each server is tried once in each manner, however many are tried beside each other.
    fn changes_manner(&mut self, tried: Manner, fault: &Fault) -> bool {
        match fault {
            Fault::SaslRejected { ended, .. } if tried.proof == OwnProof::Any => {
                self.manner.proof = self.manner.proof.max(OwnProof::Dialback);
                // Where it did not end the stream over EXTERNAL, dialback was tried on it.
                *ended
            }
            // It ended TLS, over our certificate most likely: it may take who shows none, as every
            // client may (RFC 8446 section 4.4.2).
            Fault::TlsFailed { label, .. }
                if *label == "TlsAlert"
                    && tried.proof != OwnProof::DialbackWithoutCertificate
                    && self.may_dial_back() =>
            {
                self.manner.proof = OwnProof::DialbackWithoutCertificate;
                true
            }
            Fault::BidiRejected { .. } if !tried.skip_bidi => {
                self.manner.skip_bidi = true;
                self.has_time_without(Dispensable::Bidi)
            }
            Fault::AcksRejected { .. } if !tried.skip_acks => {
                self.manner.skip_acks = true;
                self.has_time_without(Dispensable::Acks)
            }
            // Some servers host A-labels and compare texts.
            Fault::PeerError { condition, .. }
                if condition == "host-unknown"
                    && tried.names.peer == self.first_form
                    && self.peer_has_two_names() =>
            {
                self.manner.names.peer = self.first_form.other();
                true
            }
            _ => false,
        }
    }

    /// Whether this walk has time left to try without. Where the peer said nothing until there was none, the
    /// next one begins so.
    fn has_time_without(&self, what: Dispensable) -> bool {
        let now = Instant::now();
        let has_time = now < self.deadline;
        if !has_time {
            self.remember_without(what, now);
        }
        has_time
    }

    fn remember_without(&self, what: Dispensable, now: Instant) {
        let (peers, peer) = (&self.context.given_up, (self.side, &self.peer));
        peers.remember(self.config, peer, what, now);
    }

    /// Whether the peer's name can be written in another form. A question about a key has the form in
    /// which that came.
    fn peer_has_two_names(&self) -> bool {
        matches!(self.purpose, Purpose::Stanzas(_)) && self.peer.is_international()
    }

    /// Whether dialback over TLS suffices towards this peer.
    fn may_dial_back(&self) -> bool {
        let environment = ConfigEnvironment {
            config: self.config,
            tlsa: &[],
            chain: &[],
            proofs: &Proofs::default(),
            given_up: &self.context.given_up,
        };
        let (peer, local) = ends(self.purpose);
        let terms = environment.admit(self.side, &peer, &local);
        terms.is_ok_and(|terms| terms.methods.contains(Method::TlsDialback))
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
    const PASSING: [&str; 10] = [
        "connection-timeout",
        "internal-server-error",
        "remote-connection-failed",
        "remote-server-not-found",
        "remote-server-timeout",
        "reset",
        "resource-constraint",
        // A node of a cluster that takes nobody just now. Where it sends us is anybody's word.
        "see-other-host",
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
        Fault::PeerClosed
        | Fault::Shutdown
        | Fault::Unresponsive
        | Fault::BidiRejected { .. }
        | Fault::AcksRejected { .. } => FailureKind::Unreachable,
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

#[cfg(test)]
mod tests;
