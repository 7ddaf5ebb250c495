//! From a connection to a target of a peer to a stream that does what it is for.

use std::{sync::Arc, time::Instant};

use xmpp_edge_crds::domain::DomainName;

use super::{
    Command, Machine, Stream, StreamStart, context::StreamContext, environment::ConfigEnvironment,
    proofs::Proofs, targets::direction,
};
use crate::{
    config::ActiveConfig,
    dns::Connected,
    negotiation::{self, Fault, Link, Outbound, Pair, PeerRole, Purpose, Side, WireNames},
    telemetry::attempt::{AttemptStep, Step},
    tls::{self, Mode, Transport},
};

/// How we prove ourselves on the next connection to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnProof {
    /// By the best method that both sides have.
    Any,
    /// Not by SASL EXTERNAL: the peer refused it.
    Dialback,
    /// And without showing a certificate: the peer ended TLS over it.
    DialbackWithoutCertificate,
}

pub(super) async fn negotiate(
    context: &Arc<StreamContext>,
    config: &Arc<ActiveConfig>,
    side: Side,
    purpose: &Purpose,
    connected: Connected,
    (proof, skip_bidi, names): (OwnProof, bool, WireNames),
    deadline: Instant,
) -> Result<Box<Stream>, Fault> {
    let (peer, local) = ends(purpose);
    let local = Some(local).filter(|_| proof != OwnProof::DialbackWithoutCertificate);
    let candidate = connected.candidate;
    let began = Instant::now();
    let (transport, link) = if candidate.direct_tls {
        let identity = local
            .as_ref()
            .and_then(|local| config.identity_of(side, local));
        match tls::connect(
            connected.stream,
            identity.as_deref(),
            &peer,
            Mode::Direct,
            deadline.into(),
        )
        .await
        {
            Ok(transport) => {
                let facts = transport.facts().map(Arc::new);
                (transport, facts)
            }
            Err(error) => {
                let step = AttemptStep {
                    step: Step::Tls,
                    direction: direction(side),
                    domain: peer,
                    outcome: error.label(),
                    address: Some(candidate.address),
                    text: error.to_string(),
                    took: began.elapsed(),
                };
                let whose = config.attempt_peer(side, &step.domain);
                context.attempts.note(whose, step);
                return Err(Fault::TlsFailed {
                    label: error.label(),
                    text: error.to_string(),
                });
            }
        }
    } else {
        (Transport::Plain(connected.stream), None)
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
            config,
            tlsa: &tlsa,
            proofs: &proofs,
        };
        let start = negotiation::OutboundStart {
            side,
            purpose: purpose.clone(),
            link: link.clone().map_or(Link::Plain, Link::DirectTls),
            skip_sasl: proof != OwnProof::Any,
            skip_bidi,
            names,
        };
        Outbound::start(start, &environment, &mut outputs)
    };
    let mut stream = Stream::new(
        context,
        StreamStart {
            side,
            peer: PeerRole::Server,
            transport,
            address: Some(candidate.address),
            tls: link,
            machine: Machine::Outbound(Box::new(machine)),
            outputs,
            place: None,
            already: Vec::new(),
            tlsa,
            proofs,
            local,
            deadline: Some(deadline),
        },
    );
    if !Arc::ptr_eq(config, &stream.config) {
        // It came into force while the address was looked up and dialled.
        stream.handle.tell(Command::ConfigChanged);
    }
    match stream.establish().await {
        Ok(()) => Ok(stream),
        Err(fault) => {
            stream.finish().await;
            Err(fault)
        }
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
