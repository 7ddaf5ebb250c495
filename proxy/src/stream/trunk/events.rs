//! What the other end of a trunk says, and what other tasks tell it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use xmpp_edge_crds::edge_config::EdgeConfig;

use super::{
    CountLately, Speaker, TrunkPair, TrunkStanding, TrunkStream,
    far_end::{FarEdge, FarSidecar, SidecarId},
    figures::TrunkFacts,
    hand_over::{place, whom},
    own_version,
    registry::TooManyTrunks,
    terms::TrunkTerms,
};
use crate::{
    config::trunk_name::{ProductVersion, TrunkName},
    negotiation::{CertificateRejection, Fault, Input, Pair, PeerRole, Side, ns},
    routing::dial_ticket::DialTicket,
    stream::{Command, TrunkCommand},
    trunk::{
        MOST_PAIRS, NAMESPACE,
        fault::TrunkFault,
        machine::TrunkEvent,
        nonza::{EdgeFacts, Enable, Enabled, Nonza, OpenedPair, ServerState},
    },
    xml::Element,
};

/// How often a peer may say within a minute that something is another.
pub(super) const MOST_CHANGES: usize = 120;
/// What a peer does is counted anew after so long.
const LATELY: Duration = Duration::from_secs(60);

impl TrunkStream {
    /// An element that is no stanza.
    pub(super) fn element(&mut self, element: &Element, now: Instant) {
        if element.namespace != NAMESPACE && element.namespace == ns::STREAM {
            return self.stream.input(Input::Element(element));
        }
        let event = match Nonza::read(element) {
            Ok(nonza) => self.trunk.nonza(nonza, now),
            Err(error) => Err(error.into()),
        };
        match event.and_then(|event| event.map_or(Ok(()), |event| self.event(event, now))) {
            Ok(()) => {}
            Err(fault) => self.fail(fault),
        }
    }

    fn event(&mut self, event: TrunkEvent<TrunkPair>, now: Instant) -> Result<(), TrunkFault> {
        let id = self.stream.entry.id;
        match event {
            TrunkEvent::Enable(enable) => self.welcome(enable, now),
            TrunkEvent::Enabled(enabled) => self.welcomed(enabled, now),
            TrunkEvent::Pair(opened) => return self.opened(opened, now),
            TrunkEvent::PairEnded(TrunkPair::Refused(mut refused)) => {
                refused.detach(&mut self.turns);
            }
            TrunkEvent::PairEnded(TrunkPair::Carried(_)) => {}
            TrunkEvent::Acknowledged => {}
            TrunkEvent::Drains => self.moves_away(),
            TrunkEvent::Edge(_) | TrunkEvent::Server(_) | TrunkEvent::Claim(_)
                if !self.changes.one_more(now, MOST_CHANGES) =>
            {
                return Err(TrunkFault::TooManyChanges);
            }
            TrunkEvent::Edge(change) => self.stream.context.trunks.edge_changed(id, change),
            TrunkEvent::Server(state) => self.server_is(state, now),
            TrunkEvent::Claim(since) => {
                self.stream.context.trunks.claims(id, since);
                self.sign_inbound();
            }
        }
        Ok(())
    }

    /// An edge answers a sidecar that has said what it is.
    fn welcome(&mut self, enable: Enable, now: Instant) {
        let context = Arc::clone(&self.stream.context);
        let config = Arc::clone(&self.stream.config);
        let gateway = config.gateway(&self.peer).map(|own| &own.config);
        let (Some(gateway), Speaker::Sidecar { domains }) = (gateway, &self.speaker) else {
            return self.end(Fault::HostUnknown);
        };
        self.far_server.follow(&enable.server, now);
        let far = FarSidecar {
            gateway: gateway.effective_name().to_owned(),
            id: SidecarId {
                instance: enable.instance,
                start: enable.start,
            },
            domains: domains.clone(),
            servers: gateway
                .sidecar
                .as_ref()
                .map(|own| own.server)
                .unwrap_or_default(),
            server: enable.server,
        };
        let handle = Arc::clone(&self.stream.handle);
        let id = self.stream.entry.id;
        let known = self.facts(enable.version);
        let trunks = &context.trunks;
        let activity = match trunks.stands_to_sidecar(id, handle, far, known, enable.claim) {
            Ok(activity) => activity,
            Err(TooManyTrunks) => {
                return self.end(Fault::ResourceConstraint("too many trunks of one gateway"));
            }
        };
        self.standing = TrunkStanding::Stood;
        self.trunk.welcome(Enabled {
            pool: name_of(&config.document.pool),
            pod: pod_name(&config.document.pool),
            version: own_version(),
            queue: config.document.settings.queue_bytes,
            facts: facts(&config.document),
            activity,
        });
        for domain in domains {
            let whose = config.attempt_peer(Side::Gateway, domain);
            context.attempts.connected(whose, domain);
        }
        self.sign_inbound();
    }

    /// What waits for the servers of this sidecar may have a way by now, here or by another's trunk: pauses from
    /// before are over.
    pub(super) fn sign_inbound(&self) {
        if let Speaker::Sidecar { domains } = &self.speaker {
            let leads_there =
                |side, pair: &Pair| side == Side::Gateway && domains.contains(&pair.to);
            self.stream.context.router.signed(leads_there);
        }
    }

    /// The sidecar reaches its server, or does not: what comes for it is kept here meanwhile.
    fn server_is(&mut self, state: ServerState, now: Instant) {
        self.far_server.follow(&state, now);
        let context = Arc::clone(&self.stream.context);
        context.trunks.server_is(self.stream.entry.id, state);
        if matches!(self.speaker, Speaker::Edge { .. }) {
            return;
        }
        if self.far_server.is_reached() {
            return self.sign_inbound();
        }
        for route in self.turns.routes() {
            let absence = context.trunks.absence(&place(route));
            route.note_failure(&absence.failure(&whom(route), now));
        }
    }

    /// The edge has said what it is.
    fn welcomed(&mut self, enabled: Enabled, now: Instant) {
        let known = self.facts(enabled.version);
        let context = &self.stream.context;
        let stands = context.trunks.stands_to_edge(
            self.stream.entry.id,
            Arc::clone(&self.stream.handle),
            FarEdge {
                pool: enabled.pool,
                pod: enabled.pod,
                facts: enabled.facts,
            },
            known,
            (enabled.activity, self.dialled_for),
        );
        if stands.is_err() {
            self.standing = TrunkStanding::Redundant;
            return self.trunk.drain(now);
        }
        self.standing = TrunkStanding::Stood;
        // It may be another than was said in the greeting, and only trunks that stand are told of changes.
        let server = context.trunks.own_server();
        self.trunk.say(&Nonza::Server(server));
        context.router.signed(|side, _| side == Side::Partner);
    }

    fn facts(&self, version: ProductVersion) -> TrunkFacts {
        let (address, tls) = (self.stream.entry.address, self.stream.tls());
        TrunkFacts::new(version, address, tls, Arc::clone(&self.figures))
    }

    /// The peer opens a pair: it may send it, or each stanza of it is answered.
    fn opened(&mut self, opened: OpenedPair, now: Instant) -> Result<(), TrunkFault> {
        // No peer opens more that moves all its pairs here.
        if !self.opened.one_more(now, 2 * MOST_PAIRS) {
            return Err(TrunkFault::TooManyPairs);
        }
        let stream = &self.stream;
        let (context, config) = (&stream.context, &stream.config);
        let (number, pair) = (opened.number, opened.pair.clone());
        let is_allowed = self.speaker.may_send(config, &pair);
        // Whatever is wrong with the number costs no route.
        if self.trunk.pair(number).is_some() {
            return Err(TrunkFault::NumberInUse(number));
        }
        let what = TrunkPair::new(context, config, stream.side, pair, is_allowed);
        self.trunk.open(opened, what)?;
        if let Some(own) = self.trunk.pair_mut(number)
            && let TrunkPair::Refused(refused) = &mut own.what
        {
            refused.attach(&mut self.turns, &context.router, stream.handle.waker());
        }
        Ok(())
    }

    pub(super) fn command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Trunk(TrunkCommand::Carry(ticket)) => self.carry(ticket),
            Command::Trunk(TrunkCommand::Reconsider) => self.reconsider(),
            Command::Trunk(TrunkCommand::Say(nonza)) => self.trunk.say(&nonza),
            Command::ConfigChanged => self.config_changed(now),
            Command::Drain => self.drain(now),
            Command::End(fault) => self.end(fault),
            // Nobody asks a trunk for a key, by a ping, or for a pair of a stream.
            Command::Verdict { .. } | Command::PingAnswered { .. } | Command::Carry { .. } => {}
        }
    }

    fn carry(&mut self, ticket: DialTicket) {
        if !self.trunk.may_send() || !ticket.is_wanted() {
            // Dropped, it gives its route back.
            return;
        }
        let route = Arc::clone(ticket.route());
        let (router, wake) = (&self.stream.context.router, self.stream.handle.waker());
        if self.turns.attach(router, wake, route) {
            ticket.done();
        }
    }

    /// Routes that have a better trunk leave: nothing more of them is sent here, and once nothing is
    /// unacknowledged they go.
    fn reconsider(&mut self) {
        if !self.trunk.may_send() || self.stream.context.stopping.is_cancelled() {
            return;
        }
        let (trunks, id) = (&self.stream.context.trunks, self.stream.entry.id);
        let is_elsewhere = |side, pair: &Pair| {
            let chosen = trunks.choose(side, pair);
            chosen.is_some_and(|(other, _)| other != id)
        };
        let routes = self.turns.routes();
        let leaving = routes.filter(|route| is_elsewhere(route.side, &route.pair));
        let leaving = leaving.cloned().collect();
        self.are_leaving(leaving);
    }

    pub(super) fn config_changed(&mut self, now: Instant) {
        let before = facts(&self.stream.config.document);
        self.stream.config = self.stream.context.config();
        let config = Arc::clone(&self.stream.config);
        self.stream.input(Input::ConfigChanged);
        self.stream.carry_out();
        if self.stream.state.end().is_some() {
            return;
        }
        if self.stream.peer == PeerRole::Client {
            self.look_at_certificate();
            if let Some(change) = before.change_to(facts(&config.document)) {
                self.trunk.say(&Nonza::Edge(change));
            }
        }
        let (role, tls) = (self.stream.peer, self.stream.tls());
        let speaker = Speaker::of(&config, role, &self.peer, tls);
        let is_set_up_otherwise = self.terms != TrunkTerms::of(&config, &self.peer);
        if is_set_up_otherwise && self.standing == TrunkStanding::Greeting {
            // What it said of itself is so no longer.
            return self.end(Fault::Shutdown);
        }
        let mut is_another = speaker != self.speaker || is_set_up_otherwise;
        self.speaker = speaker;
        let (metrics, side) = (&self.stream.context.metrics, self.stream.side);
        for own in self.trunk.pairs_mut() {
            let may_send = self.speaker.may_send(&config, &own.pair);
            is_another |= may_send != own.what.is_carried();
            if let TrunkPair::Carried(carried) = &mut own.what {
                carried.relabel(metrics, &config, side);
            }
        }
        if is_another {
            // Nothing more is taken here; on the next trunk each pair is judged anew.
            self.trunk.drain(now);
            self.moves_away();
        }
    }

    /// A sidecar's certificate still counts: those that were issued before others were made are taken away.
    pub(super) fn look_at_certificate(&mut self) {
        let chain = self.stream.tls().map(|tls| tls.peer_chain);
        let gateway = self.stream.config.gateway(&self.peer);
        let judged = gateway.map(|own| own.judge_sidecar(&self.peer, chain.unwrap_or_default()));
        if let Some(Err(fault)) = judged {
            let rejection = CertificateRejection {
                label: fault.label(),
                text: fault.to_string(),
            };
            self.end(Fault::Certificate(rejection));
        }
    }

    /// The stream ends over this.
    pub(super) fn end(&mut self, fault: Fault) {
        self.stream.input(Input::End(fault));
        self.stream.carry_out();
    }
}

impl CountLately {
    /// Nothing yet.
    pub(super) fn from(now: Instant) -> Self {
        Self {
            since: now,
            count: 0,
        }
    }

    /// Counts one more; `false` where that is more than `most`.
    fn one_more(&mut self, now: Instant, most: usize) -> bool {
        if now.saturating_duration_since(self.since) >= LATELY {
            *self = Self::from(now);
        }
        self.count += 1;
        self.count <= most
    }
}

/// What a sidecar has to know of this pod to choose among the pods of all pools.
fn facts(document: &EdgeConfig) -> EdgeFacts {
    let own = document.edges.iter().find(|own| own.pool == document.pool);
    EdgeFacts {
        priority: own.map_or(10, |own| own.priority),
        weight: own.map_or(100, |own| own.weight),
        is_withdrawn: own.is_some_and(|own| own.withdrawn),
        replicas: own.map_or(1, |own| own.replicas),
    }
}

/// Name of this pod: of its host, which in a cluster begins with the pool's name; elsewhere a host may have
/// several pools.
fn pod_name(pool: &str) -> TrunkName {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    if host.starts_with(pool) {
        name_of(host)
    } else {
        name_of(&format!("{pool}.{host}"))
    }
}

fn name_of(text: &str) -> TrunkName {
    let graphic = text.chars().filter(char::is_ascii_graphic).take(253);
    let graphic: String = graphic.collect();
    graphic
        .parse()
        .unwrap_or_else(|_| "unnamed".parse().expect("graphic ASCII"))
}
