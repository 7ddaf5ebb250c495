//! What the negotiation machine answered, carried out in order.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use xmpp_edge_crds::{
    domain::{DomainName, NameForm},
    edge_config::Partner,
    negotiation::Method,
};

use super::{
    CLOSING, LAST_WORD, Machine, Stream,
    acknowledger::Acknowledger,
    carried::Carried,
    egress::Confirmation,
    given_up::Dispensable,
    key_verification,
    state::{AfterClose, ProvedPeer, StreamState},
    throttle::RateLimits,
};
use crate::{
    config::peer_keys,
    negotiation::{
        Fault, Input, KeyVerification, Output, Pair, PeerRole, Side, Unavailable, acks::Acks,
    },
    telemetry::{
        attempt::{AttemptStep, Step},
        attempts::AttemptPeer,
        log_limiter::limited,
    },
};

/// So long a peer may take to say why it does not want the stream that we have ended.
const REASON: Duration = Duration::from_secs(2);

/// How much what happens on a stream says of a domain that is named on it.
enum DomainProof {
    /// It is the domain's own, or an attempt of ours.
    Proven,
    /// The peer says that it is the domain.
    Claimed,
    /// The peer named it beside others.
    Named,
}

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
            Output::Send(bytes) => self.sender.buffer.control(bytes),
            Output::StartTls { domain } => self.start_tls = Some(domain),
            Output::Restart => self.scanner.restart(),
            Output::PairAuthenticated { pair, method } => {
                if !self.admitted(&pair.from) {
                    return;
                }
                let (router, metrics) = (&self.context.router, &self.context.metrics);
                let sent = pair.clone();
                let carried = Carried::new(router, metrics, &self.config, self.side, sent, method);
                self.entry.carries(&carried.pair, method, self.tls(), true);
                let peer = carried.pair.from.clone();
                self.note_name(&peer);
                self.receiver.add(carried);
                self.lift_limits();
                // A stream of ours stands once we may send on it, whatever the peer may already.
                if self.peer == PeerRole::Client {
                    self.established();
                    self.context.router.sign_of(self.side, &pair);
                }
                self.connected(&peer, method);
                self.apply_settings();
            }
            Output::PairReady { pair, method } => {
                if !self.admitted(&pair.to) {
                    return;
                }
                let route = self.context.router.route(self.side, &pair);
                self.entry.carries(&pair, method, self.tls(), false);
                let peers = &self.context.peers;
                let limit = peers.max_bytes(self.side, &pair.to, Instant::now());
                let (router, wake) = (&self.context.router, self.handle.waker());
                if self.sender.attach(router, wake, route, limit) {
                    self.choose_confirmation();
                    if self.mixes_partners() {
                        // The configuration changed while the pair was asked for.
                        self.input(Input::End(Fault::Done));
                    }
                } else if self.peer == PeerRole::Server && self.sender.routes.is_empty() {
                    // The peer opened a bidirectional stream in the meantime.
                    self.input(Input::End(Fault::Done));
                }
                self.established();
                self.connected(&pair.to, method);
                self.apply_settings();
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
                    self.context
                        .metrics
                        .connection_refused("PartnerConnectionLimit");
                    let verdict = KeyVerification::Unavailable(Unavailable::ConnectionLimit);
                    self.input(Input::Verdict { request, verdict });
                } else {
                    let handle = Arc::clone(&self.handle);
                    let slot = self.place.as_ref().map(|place| place.rank().clone());
                    let asker = self.asker(&question.pair.from);
                    key_verification::start(
                        &self.context,
                        (self.side, asker),
                        question,
                        request,
                        handle,
                        slot,
                    );
                }
            }
            Output::Verified(verdict) => self.verified = Some(verdict),
            Output::Bidi => self.entry.set_bidirectional(),
            Output::TrunkReady { peer } => self.trunk_ready(peer),
            Output::AcksEnabled { namespace } => {
                let acknowledger = Acknowledger::new(namespace, Arc::clone(self.handle.waker()));
                let now = Instant::now();
                self.receiver.enable_acks(&self.context, acknowledger, now);
                self.entry.set_acknowledged();
                self.sender.buffer.confirm_by(Confirmation::Acks {
                    acks: Acks::new(namespace),
                    asked: None,
                    again: None,
                });
            }
            Output::AckRequested => self.receiver.ack_requested(),
            Output::Acked { h } => self.acked(h),
            Output::ProbeAnswered { number } => {
                self.keepalive.answered();
                self.sender.buffer.probe_answered(number);
            }
            Output::PeerLimits(limits) => {
                self.keepalive.idle_limit(limits.idle_seconds);
                self.sender.announced(limits.max_bytes);
            }
            Output::Step {
                step,
                peer,
                outcome,
                text,
            } => self.step(step, peer, outcome, text),
            Output::LastWord => self.state.hurry(Instant::now() + REASON),
            Output::Close(fault) => self.close(fault),
        }
    }

    /// How the peer writes its own name, on a stream that it opened.
    fn note_name(&self, peer: &DomainName) {
        let written = self.header.as_ref().and_then(|header| header.from.as_ref());
        if let Some(text) = written.filter(|_| self.peer == PeerRole::Client)
            && DomainName::parse(text).as_ref() == Ok(peer)
        {
            let (peers, form) = (&self.context.peers, NameForm::of(text).to_all());
            peers.note_form(&self.config, (self.side, peer), form, Instant::now());
        }
    }

    /// What the peer of a stream that is over says that it has got.
    pub(super) fn last_word(&mut self, handled: u32) {
        let acked = self.sender.buffer.acked(handled, Instant::now());
        if acked.is_err() {
            self.give_up(Dispensable::Acks);
            self.state.confirms_no_more();
        }
    }

    pub(super) fn acked(&mut self, h: u32) {
        self.keepalive.answered();
        if let Err(fault) = self.sender.buffer.acked(h, Instant::now()) {
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
                .context
                .streams
                .count(&self.config, peer)
                .map(|counted| self.counted = Some(counted)),
        };
        match counted {
            Ok(()) => true,
            Err(limit) => {
                self.context.metrics.connection_refused(limit);
                self.input(Input::End(Fault::ResourceConstraint(
                    "too many connections",
                )));
                false
            }
        }
    }

    /// The limits of strangers end once the peer is authenticated, whoever opened the stream: it may send
    /// stanzas before ours flow.
    fn lift_limits(&mut self) {
        let most = self.config.document.settings.max_stanza_bytes;
        self.scanner.set_stanza_bytes(most as usize);
        self.scanner.skip_faulty();
    }

    /// The first pair stands.
    pub(super) fn established(&mut self) {
        if matches!(self.state, StreamState::Establishing(_)) {
            self.state = StreamState::Established;
            self.lift_limits();
            self.apply_settings();
            let facts = self.entry.facts();
            self.log_start(&facts);
            let partner = facts.partner(self.side, &self.config);
            if let Some(place) = self.place.take() {
                place.authenticated(partner);
            }
            self.context.metrics.established(
                partner,
                self.entry.direction(),
                facts.method,
                self.entry.opened.elapsed(),
            );
            if self.side == Side::Partner {
                self.context.metrics.partner_connected(partner);
            }
            if let (Machine::Outbound(machine), Side::Partner) = (&self.machine, self.side) {
                let open = machine.takes_further_pairs() && !self.intake.is_draining();
                self.entry.set_open(open);
            }
        }
    }

    /// Both ends know each other, and no pair stands: [`super::trunk`] carries on from here.
    fn trunk_ready(&mut self, peer: DomainName) {
        if let Some(place) = self.place.take() {
            // A sidecar or an edge, and no partner.
            place.authenticated(None);
        }
        let whose = self.config.attempt_peer(self.side, &peer);
        self.context.attempts.connected(whose, &peer);
        let header = self.header.as_ref();
        let local = header.and_then(|header| DomainName::parse(header.to.as_deref()?).ok());
        let pair = Pair {
            from: peer.clone(),
            to: local.unwrap_or_else(|| peer.clone()),
        };
        self.entry.set_trunk(&pair, self.tls());
        self.state = StreamState::Trunk(ProvedPeer { domain: peer });
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
        if self.side == Side::Partner
            && let Some(address) = self.entry.address
        {
            let whose = self.config.attempt_peer(self.side, peer);
            self.context.attempts.proved(whose, peer, address);
        }
        if self.side == Side::Partner && method == Method::SaslOverTls {
            self.consider_key(peer);
        }
        self.watch_certificate();
        // That a server inside comes says nothing of whether it can be reached, unless it is by the same stream.
        let leads_there = self.peer == PeerRole::Server || self.entry.is_bidirectional();
        if self.side == Side::Partner || leads_there {
            let whose = self.config.attempt_peer(self.side, peer);
            self.context.attempts.connected(whose, peer);
        }
        if self.side == Side::Partner && !self.attends.iter().any(|own| own.domain() == peer) {
            if self.attends.is_empty() {
                // Most streams have one peer.
                self.attends.reserve_exact(1);
            }
            self.attends.push(self.context.attend(peer));
        }
    }

    /// A certificate proved that the peer is `peer`: its key is new, or on record.
    fn consider_key(&self, peer: &DomainName) {
        let Some(new) = peer_keys::judge(&self.config, peer, self.tls()) else {
            return;
        };
        if new.changed {
            let name = new.partner.name.as_str();
            let direction = self.entry.direction();
            limited!(
                warn,
                self.context.log.lines("key", Some(name), direction, "Changed"),
                %peer, partner = name, key = %new.key, "the partner's key has changed"
            );
            self.context.metrics.peer_key_changed(&new.partner.name);
        }
        peer_keys::tell(self.context.peer_keys.as_ref(), &new);
    }

    /// The settings in force count from here: of all partners that have a pair here, the strictest.
    pub(super) fn apply_settings(&mut self) {
        let mut partners: Vec<&Partner> = Vec::new();
        if self.side == Side::Partner {
            let received = self
                .receiver
                .carried
                .iter()
                .map(|carried| &carried.pair.from);
            let sent = self.sender.routes.iter().map(|route| &route.pair.to);
            for peer in received.chain(sent) {
                if let Some(partner) = self.config.partner(peer)
                    && !partners.iter().any(|own| std::ptr::eq(*own, partner))
                {
                    partners.push(partner);
                }
            }
        }
        let enabled = partners.iter().all(|partner| partner.enable_keep_alive);
        let limits = RateLimits::strictest(partners);
        self.throttle.apply(limits, Instant::now());
        self.keepalive.apply(&self.config, enabled);
    }

    pub(super) fn partner_name(&self) -> Option<String> {
        let peer = self
            .receiver
            .carried
            .first()
            .map(|carried| match self.side {
                Side::Partner => &carried.pair.from,
                Side::Gateway => &carried.pair.to,
            })?;
        self.config
            .partner(peer)
            .map(|partner| partner.name.clone())
    }

    pub(super) fn step(
        &mut self,
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
        let refused = step.outcome != "Ok";
        let proof = self.proof_of(&step.domain);
        let whose = self.config.attempt_peer(self.side, &step.domain);
        match proof {
            DomainProof::Proven => self.context.attempts.note(whose, step),
            DomainProof::Claimed => self.context.attempts.claim(whose, &step),
            DomainProof::Named => self.context.attempts.count(whose, &step),
        }
        let stands = self.side == Side::Partner
            && self.peer == PeerRole::Client
            && !self.receiver.carried.is_empty();
        if refused && stands && self.refusals.one_more(Instant::now()) {
            self.input(Input::End(Fault::TooManyRefusedKeys));
        }
    }

    /// What the peer has shown of being `domain`. Whoever came to us and has not proved that very domain
    /// may name one, and on the partners' side those of the partner object that it has proved to be of: all
    /// others cost no memory, and nothing that it does says anything of them.
    fn proof_of(&mut self, domain: &DomainName) -> DomainProof {
        if self.peer == PeerRole::Server {
            return DomainProof::Proven;
        }
        let is_named = self.named.get_or_insert_with(|| domain.clone()) == domain;
        let carried = &self.receiver.carried;
        if self.side == Side::Gateway {
            return match is_named || !carried.is_empty() {
                true => DomainProof::Proven,
                false => DomainProof::Named,
            };
        }
        let mut proven = carried
            .iter()
            .filter(|own| !own.errors_only)
            .map(|own| &own.pair.from);
        if proven.clone().any(|own| own == domain) {
            return DomainProof::Proven;
        }
        let partner = self.config.partner(domain).map(|own| own.name.as_str());
        let is_of_same = partner.is_some()
            && proven.any(|own| self.config.partner(own).map(|own| own.name.as_str()) == partner);
        match is_named || is_of_same {
            true => DomainProof::Claimed,
            false => DomainProof::Named,
        }
    }

    pub(super) fn close(&mut self, fault: Fault) {
        if self.state.end().is_some() {
            return;
        }
        tracing::debug!(
            stream = self.entry.id, side = ?self.side, address = ?self.entry.address,
            cause = fault.label(), "stream ends: {}", fault.to_string().escape_debug()
        );
        self.note_refusal(&fault);
        self.note_given_up(&fault);
        let after = self.after_close(&fault);
        if fault.is_orderly() {
            // In order: the peer reads what was written before the end.
            self.sender.buffer.pings_no_more();
        }
        let (now, is_orderly) = (Instant::now(), fault.is_orderly());
        let stood = matches!(self.state, StreamState::Established);
        self.state.close(fault, now + CLOSING, after);
        if is_orderly && stood && self.sender.buffer.has_acks() {
            self.state.confirm_until(now + LAST_WORD);
        }
        self.full = None;
        self.sender.buffer.must_flush();
        self.entry.set_open(false);
        self.joining.clear();
    }

    /// A partner whom our own policy keeps out is told of where one looks for why nothing comes from him;
    /// strangers are counted alone.
    fn note_refusal(&mut self, fault: &Fault) {
        if let (Fault::Policy(_), StreamState::Establishing(_)) = (fault, &self.state)
            && let Some(from) = self.header.as_ref().and_then(|header| header.from.as_ref())
            && let Ok(peer) = DomainName::parse(from)
            && let AttemptPeer::Partner { .. } = self.config.attempt_peer(self.side, &peer)
        {
            self.step(Step::Policy, Some(peer), fault.label(), fault.to_string());
        }
    }

    /// The peer ended a stream over bidi that stood, before it had taken or sent anything, or counts wrongly:
    /// what comes next goes without.
    fn note_given_up(&self, fault: &Fault) {
        match (fault, &self.state) {
            (Fault::BidiRejected { .. }, StreamState::Established) => {
                self.give_up(Dispensable::Bidi);
            }
            (Fault::HandledCountTooHigh { .. }, StreamState::Established) => {
                self.give_up(Dispensable::Acks);
            }
            _ => {}
        }
    }

    /// It is left out towards the stream's first peer for a while.
    fn give_up(&self, what: Dispensable) {
        let peer = match &self.machine {
            Machine::Outbound(machine) => machine.pairs().next().map(|(pair, _)| &pair.to),
            Machine::Inbound(machine) => machine.pairs().next().map(|(pair, _)| &pair.from),
        };
        if let Some(peer) = peer {
            let peers = &self.context.given_up;
            peers.remember(&self.config, (self.side, peer), what, Instant::now());
        }
    }

    /// What is still to be read once all of ours is written.
    fn after_close(&self, fault: &Fault) -> AfterClose {
        match (&self.state, fault) {
            (_, Fault::PeerClosed) => AfterClose::Nothing,
            // What the peer sent before it heard of the end is not lost.
            (StreamState::Established, fault)
                if fault.is_orderly()
                    && self.receiver.carried.iter().any(|own| !own.errors_only) =>
            {
                AfterClose::Relay
            }
            (StreamState::Established | StreamState::Trunk(_), _) => AfterClose::Discard,
            // Whoever lost his place to another gets no more time.
            (StreamState::Establishing(_), _) if self.place.is_some() => AfterClose::Discard,
            _ => AfterClose::Nothing,
        }
    }
}
