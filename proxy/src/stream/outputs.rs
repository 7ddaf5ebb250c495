//! What the negotiation machine answered, carried out in order.

use std::{sync::Arc, time::Instant};

use xmpp_edge_crds::{domain::DomainName, negotiation::Method};

use super::{CLOSING, Machine, Phase, Stream, egress::Confirmation, key_verification};
use crate::{
    negotiation::{Fault, Input, Output, Pair, PeerRole, Side, Unavailable, Verdict, acks::Acks},
    routing::acknowledgement::AckTracker,
    telemetry::{
        attempt::{AttemptStep, Step},
        peer_keys,
    },
};

impl Stream {
    /// Does what the machine answered.
    pub(super) fn carry_out(&mut self) {
        while !self.outputs.is_empty() {
            let outputs = std::mem::take(&mut self.outputs);
            for output in outputs {
                self.carry_out_one(output);
            }
        }
    }

    pub(super) fn carry_out_one(&mut self, output: Output) {
        match output {
            Output::Send(bytes) => self.egress.control(bytes),
            Output::StartTls { domain } => self.start_tls = Some(domain),
            Output::Restart => self.scanner.restart(),
            Output::PairAuthenticated { pair, method } => {
                if !self.admitted(&pair.from) {
                    return;
                }
                let carried = self
                    .edge
                    .carry(self.side, &self.config, pair.clone(), method);
                self.entry
                    .carries(&carried.pair, method, self.tls.as_deref(), true);
                let peer = carried.pair.from.clone();
                self.relay.add(carried);
                // A stream of ours stands once we may send on it, whatever the peer may already.
                if self.peer == PeerRole::Client {
                    self.established();
                    self.edge.router.sign_of(self.side, &pair);
                }
                self.connected(&peer, method);
            }
            Output::PairReady { pair, method } => {
                if !self.admitted(&pair.to) {
                    return;
                }
                let route = self.edge.router.route(self.side, &pair);
                self.entry
                    .carries(&pair, method, self.tls.as_deref(), false);
                if self.edge.router.attach(&route, self.handle.waker()) {
                    let is_new = !self.outgoing.iter().any(|own| Arc::ptr_eq(own, &route));
                    if is_new {
                        self.outgoing.push(route);
                    }
                    if self.mixes_partners() {
                        // The configuration changed while the pair was asked for.
                        self.input(Input::End(Fault::Done));
                    }
                } else if self.peer == PeerRole::Server && self.outgoing.is_empty() {
                    // The peer opened a bidirectional stream in the meantime.
                    self.input(Input::End(Fault::Done));
                }
                self.established();
                self.connected(&pair.to, method);
                self.joined(&pair, Ok(()));
            }
            Output::PairFailed { pair, fault } => {
                tracing::debug!(stream = self.entry.id, %pair, cause = fault.label(), "pair failed");
                if fault == Fault::TooManyPairs {
                    self.entry.set_open(false);
                }
                self.joined(&pair, Err(fault));
            }
            Output::Verify { request, question } => {
                let full = self
                    .counted
                    .as_ref()
                    .is_some_and(|counted| !counted.has_room(&self.config, &question.pair.from));
                if full {
                    // Another partner's pair: its limit must not cost the pairs that stand here.
                    self.edge
                        .metrics
                        .connection_refused("PartnerConnectionLimit");
                    let verdict = Verdict::Unavailable(Unavailable::ConnectionLimit);
                    self.input(Input::Verdict { request, verdict });
                } else {
                    let handle = Arc::clone(&self.handle);
                    let slot = self.place.as_ref().map(|place| place.rank().clone());
                    key_verification::start(&self.edge, self.side, question, request, handle, slot);
                }
            }
            Output::Verified(verdict) => self.verified = Some(verdict),
            Output::Bidi => self.entry.set_bidirectional(),
            Output::AcksEnabled { namespace } => {
                // What was read before does not count: it leaves without a receipt.
                self.relay.flush(&self.edge, Instant::now());
                self.entry.set_acknowledged();
                self.acks = Some(Acks::new(namespace));
                self.relay.ledger =
                    Some(Arc::new(AckTracker::new(Arc::clone(self.handle.waker()))));
                self.relay.received = 0;
                self.settled = 0;
                self.egress.confirm_by(Confirmation::Acks {
                    acks: Acks::new(namespace),
                    asked: None,
                    again: None,
                });
            }
            Output::AckRequested => {
                self.ack_wanted = true;
                self.keepalive.ack_requested();
            }
            Output::Acked { h } => self.acked(h),
            Output::ProbeAnswered { number } => {
                self.keepalive.answered();
                self.egress.probe_answered(number);
            }
            Output::PeerLimits(limits) => self.peer_limits = limits,
            Output::Step {
                step,
                peer,
                outcome,
                text,
            } => self.step(step, peer, outcome, text),
            Output::Close(fault) => self.close(fault),
        }
    }

    pub(super) fn acked(&mut self, h: u32) {
        self.keepalive.answered();
        if let Err(fault) = self.egress.acked(h, Instant::now()) {
            self.input(Input::End(fault));
        }
    }

    /// Whether the limits on authenticated streams leave room; ends the stream where not.
    pub(super) fn admitted(&mut self, peer: &DomainName) -> bool {
        if self.side == Side::Gateway {
            return true;
        }
        let counted = match &mut self.counted {
            Some(counted) => counted.further(&self.config, peer),
            None => self
                .edge
                .streams
                .count(&self.config, peer)
                .map(|counted| self.counted = Some(counted)),
        };
        match counted {
            Ok(()) => true,
            Err(limit) => {
                self.edge.metrics.connection_refused(limit);
                self.input(Input::End(Fault::ResourceConstraint(
                    "too many connections",
                )));
                false
            }
        }
    }

    /// The first pair stands.
    pub(super) fn established(&mut self) {
        if matches!(self.phase, Phase::Establishing { .. }) {
            self.phase = Phase::Established;
            if let Some(place) = self.place.take() {
                place.authenticated();
            }
            self.scanner
                .set_stanza_bytes(self.config.document.settings.max_stanza_bytes as usize);
            self.consider_settings();
            self.edge.metrics.established(&self.entry, &self.config);
            if let (Machine::Outbound(machine), Side::Partner) = (&self.machine, self.side) {
                let open = machine.takes_further_pairs() && !self.keepalive.draining;
                self.entry.set_open(open);
            }
        }
    }

    /// Tells who asked for a further pair what became of it.
    fn joined(&mut self, pair: &Pair, outcome: Result<(), Fault>) {
        if let Some(at) = self.joining.iter().position(|(own, _)| own == pair) {
            // Who does not wait any more has dialled.
            let _ = self.joining.swap_remove(at).1.send(outcome);
        }
    }

    /// A pair with `peer` stands.
    pub(super) fn connected(&mut self, peer: &DomainName, method: Method) {
        if self.side == Side::Partner && method == Method::SaslOverTls {
            self.consider_key(peer);
        }
        if self.edge.attempts.connected(&self.config, self.side, peer) {
            self.edge.partner_back(peer);
        }
        if let (Machine::Outbound(machine), Confirmation::Written, Side::Gateway) =
            (&self.machine, self.egress.confirmation(), self.side)
            && machine.can_probe()
        {
            self.egress.confirm_by(Confirmation::Probe {
                next: 0,
                asked: None,
                last: None,
            });
        }
    }

    /// A certificate proved that the peer is `peer`: its key is new, or on record.
    fn consider_key(&self, peer: &DomainName) {
        let Some(new) = peer_keys::judge(&self.config, peer, self.tls.as_deref()) else {
            return;
        };
        if new.changed {
            tracing::warn!(%peer, partner = new.partner.name, key = %new.key, "the partner's key has changed");
            self.edge.metrics.peer_key_changed(&new.partner.name);
        }
        peer_keys::tell(self.edge.peer_keys.as_ref(), &new);
    }

    /// The settings in force count from here.
    pub(super) fn consider_settings(&mut self) {
        let partner = match self.side {
            Side::Partner => self
                .peer_domain()
                .and_then(|peer| self.config.partner(&peer).cloned()),
            Side::Gateway => None,
        };
        self.keepalive.consider(&self.config, partner.as_ref());
    }

    /// A domain of the peer's, once a pair stands.
    pub(super) fn peer_domain(&self) -> Option<DomainName> {
        let received = self
            .relay
            .carried
            .first()
            .map(|carried| carried.pair.from.clone());
        received.or_else(|| self.outgoing.first().map(|route| route.pair.to.clone()))
    }

    pub(super) fn partner_name(&self) -> Option<String> {
        let peer = self.relay.carried.first().map(|carried| match self.side {
            Side::Partner => &carried.pair.from,
            Side::Gateway => &carried.pair.to,
        })?;
        self.config
            .partner(peer)
            .map(|partner| partner.name.clone())
    }

    pub(super) fn step(
        &self,
        step: Step,
        peer: Option<DomainName>,
        outcome: &'static str,
        text: String,
    ) {
        let Some(domain) = peer else { return };
        let step = AttemptStep {
            step,
            direction: self.entry.direction(),
            domain,
            outcome,
            address: self.entry.address,
            text,
            took: self.entry.opened.elapsed(),
        };
        self.edge
            .attempts
            .note(&self.edge, &self.config, self.side, step);
    }

    pub(super) fn close(&mut self, fault: Fault) {
        if self.end.is_some() {
            return;
        }
        tracing::debug!(
            stream = self.entry.id, side = ?self.side, address = ?self.entry.address,
            cause = fault.label(), "stream ends: {}", fault.to_string().escape_debug()
        );
        self.end = Some(fault);
        self.full = None;
        self.flushed = false;
        self.entry.set_open(false);
        self.joining.clear();
        self.phase = Phase::Closing {
            deadline: Instant::now() + CLOSING,
        };
    }
}
