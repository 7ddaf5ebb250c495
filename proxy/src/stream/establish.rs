//! From a connection to a target of a peer to a stream that does what it is for.

use std::{sync::Arc, time::Instant};

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::domain::DomainName;

use super::{
    Command, Machine, Stream, StreamStart, context::StreamContext, environment::ConfigEnvironment,
    proofs::Proofs, targets::direction,
};
use crate::{
    config::ActiveConfig,
    dns::{Candidate, Connected},
    negotiation::{self, Fault, Link, Outbound, Pair, PeerRole, Purpose, Side, WireNames},
    telemetry::attempt::{AttemptStep, Step},
    tls::{self, Mode, Transport},
};

/// How we prove ourselves on the next connection to a peer.
/// From the best to the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum OwnProof {
    /// By the best method that both sides have.
    Any,
    /// Not by SASL EXTERNAL: the peer refused it.
    Dialback,
    /// And without showing a certificate: the peer ended TLS over it.
    DialbackWithoutCertificate,
}

/// One negotiation with a server that was reached.
pub(super) struct Negotiation {
    pub(super) context: Arc<StreamContext>,
    pub(super) config: Arc<ActiveConfig>,
    pub(super) side: Side,
    pub(super) purpose: Purpose,
    pub(super) proof: OwnProof,
    pub(super) skip_bidi: bool,
    pub(super) skip_acks: bool,
    pub(super) names: WireNames,
    pub(super) deadline: Instant,
    /// Cancelled when nobody needs the stream any more: it ends in order.
    pub(super) superseded: CancellationToken,
}

impl Negotiation {
    /// # Errors
    /// Why there is no stream.
    pub(super) async fn run(self, connected: Connected) -> Result<Box<Stream>, Fault> {
        let (peer, local) = ends(&self.purpose);
        let local = Some(local).filter(|_| self.proof != OwnProof::DialbackWithoutCertificate);
        let Connected { stream, candidate } = connected;
        let (transport, link) = if candidate.direct_tls {
            let began = self.direct_tls(stream, &peer, local.as_ref(), &candidate);
            let transport = tokio::select! {
                transport = began => transport?,
                () = self.superseded.cancelled() => return Err(Fault::Done),
            };
            (transport, Link::Tls)
        } else {
            (Transport::Plain(stream), Link::Plain)
        };
        let tlsa: Vec<_> = candidate
            .tlsa
            .map(|records| (peer.clone(), records))
            .into_iter()
            .collect();
        let mut outputs = Vec::new();
        let proofs = Proofs::default();
        let machine = {
            let environment = ConfigEnvironment {
                config: &self.config,
                tlsa: &tlsa,
                chain: transport.peer_chain(),
                proofs: &proofs,
                given_up: &self.context.given_up,
            };
            let start = negotiation::OutboundStart {
                side: self.side,
                purpose: self.purpose,
                link,
                skip_sasl: self.proof != OwnProof::Any,
                skip_bidi: self.skip_bidi,
                skip_acks: self.skip_acks,
                names: self.names,
            };
            Outbound::start(start, &environment, &mut outputs)
        };
        let mut stream = Stream::new(
            &self.context,
            StreamStart {
                side: self.side,
                peer: PeerRole::Server,
                transport,
                address: candidate.endpoint.address(),
                machine: Machine::Outbound(Box::new(machine)),
                outputs,
                place: None,
                already: Vec::new(),
                tlsa,
                proofs,
                local,
                deadline: Some(self.deadline),
            },
        );
        if !Arc::ptr_eq(&self.config, &stream.config) {
            // It came into force while the address was looked up and dialled.
            stream.handle.tell(Command::ConfigChanged);
        }
        let handle = Arc::clone(&stream.handle);
        let superseded = async {
            self.superseded.cancelled().await;
            handle.tell(Command::End(Fault::Done));
            std::future::pending().await
        };
        let established = tokio::select! {
            biased;
            never = superseded => never,
            established = stream.establish() => established,
        };
        match established {
            Ok(()) => Ok(stream),
            Err(fault) => {
                stream.finish().await;
                Err(fault)
            }
        }
    }

    /// TLS from the first byte; what becomes of it is noted.
    async fn direct_tls(
        &self,
        socket: TcpStream,
        peer: &DomainName,
        local: Option<&DomainName>,
        candidate: &Candidate,
    ) -> Result<Transport, Fault> {
        let began = Instant::now();
        let identity = local.and_then(|local| self.config.identity_of(self.side, local));
        let deadline = self.deadline.into();
        tls::connect(socket, identity.as_deref(), peer, Mode::Direct, deadline)
            .await
            .map_err(|error| {
                let step = AttemptStep {
                    step: Step::Tls,
                    direction: direction(self.side),
                    domain: peer.clone(),
                    outcome: error.label(),
                    address: candidate.endpoint.address(),
                    text: error.to_string(),
                    took: began.elapsed(),
                };
                let whose = self.config.attempt_peer(self.side, &step.domain);
                self.context.attempts.note(whose, step);
                Fault::TlsFailed {
                    label: error.label(),
                    text: error.to_string(),
                }
            })
    }
}

/// Whom we dial, and as whom.
pub(super) fn ends(purpose: &Purpose) -> (DomainName, DomainName) {
    match purpose {
        Purpose::Stanzas(Pair { from, to }) | Purpose::Trunk(Pair { from, to }) => {
            (to.clone(), from.clone())
        }
        Purpose::Verify(question) => (question.pair.from.clone(), question.pair.to.clone()),
    }
}
