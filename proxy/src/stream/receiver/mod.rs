//! The way of a stanza through a stream that receives it: identity, policy, queue. The hot path:
//! nothing is allocated for a stanza, no label is looked up, nothing is formatted.

use std::{borrow::Cow, sync::Arc, time::Instant};

use xmpp_edge_crds::{
    domain::{DomainName, is_canonical},
    jid::{DomainRange, JidParts},
    verdict::Direction,
};

use crate::{
    config::ActiveConfig,
    negotiation::Side,
    policy,
    routing::{
        batch::BatchBuilder,
        failure::{Failure, FailureKind},
        route::Route,
    },
    stream::{
        acknowledger::Acknowledger,
        carried::{Carried, add_to},
        context::StreamContext,
        relay::{KnownAddresses, Owed, Relay},
        seen_people::{Seen, SeenAt, SeenPeople},
    },
    telemetry::{
        log_limiter::limited,
        metrics::{ReasonCounters, StanzaTally, direction_label},
    },
    xml::{FaultyStanza, StreamHeader, XmlError, rewrite, stanza::Stanza},
};

/// What became of a stanza that was looked at.
#[derive(Debug)]
pub enum Taken {
    Yes,
    /// A queue is full: look again once there is room. It was not taken.
    Full(Arc<Route>),
    /// This stream may not carry its pair. It was not taken.
    Stray,
}

/// What of a stanza's addresses is known, as [`KnownAddresses`] has it.
#[derive(Clone, Copy)]
enum FoundAddresses {
    Seen(SeenAt),
    Domains { from: DomainRange, to: DomainRange },
    Nothing,
}

/// Of so many stanzas of a stream one is measured, the first included.
const SAMPLE: u64 = 16;

/// The receiving half of a stream, after authentication.
#[derive(Debug)]
pub struct Receiver {
    pub side: Side,
    pub direction: Direction,
    /// None is ever taken away.
    pub carried: Vec<Carried>,
    people: SeenPeople,
    /// Index into `carried` of what is being collected and was seen last.
    current: usize,
    builder: BatchBuilder,
    /// What `builder` may collect of the pair at `current` before it is looked at the queue again, in bytes.
    room: usize,
    /// What is counted of the one at `tallied`, and not added to its counters yet.
    tally: StanzaTally,
    tallied: usize,
    /// Where the peer counts on acknowledgements.
    acknowledger: Option<Acknowledger>,
    /// Stanzas received since acks were enabled.
    received: u64,
    pub stanzas: u64,
    pub bytes: u64,
}

/// What a queue takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueueRoom {
    /// So many bytes.
    Bytes(usize),
    /// Nothing: others of the stream go on, and what comes for this pair is answered.
    Full,
    /// Nothing, and no answers.
    Unanswerable,
}

/// `settings.queueBytes`.
fn queue(config: &ActiveConfig) -> usize {
    usize::try_from(config.document.settings.queue_bytes).unwrap_or(usize::MAX)
}

impl Receiver {
    #[must_use]
    pub fn new(side: Side) -> Self {
        Self {
            side,
            direction: match side {
                Side::Partner => Direction::Inbound,
                Side::Gateway => Direction::Outbound,
            },
            carried: Vec::new(),
            people: SeenPeople::default(),
            current: 0,
            builder: BatchBuilder::default(),
            room: 0,
            tally: StanzaTally::default(),
            tallied: 0,
            acknowledger: None,
            received: 0,
            stanzas: 0,
            bytes: 0,
        }
    }

    /// One stanza. `expected` is how many bytes may follow in this read, for one allocation.
    pub fn stanza(
        &mut self,
        context: &Arc<StreamContext>,
        config: &ActiveConfig,
        header: &StreamHeader,
        stanza: &Stanza<'_>,
        expected: usize,
        now: Instant,
    ) -> Taken {
        let (Some(from), Some(to)) = (&stanza.from, &stanza.to) else {
            return Taken::Stray;
        };
        let Some((index, found)) = self.carried_index(from, to, stanza.type_.as_deref()) else {
            return Taken::Stray;
        };
        let follows = index == self.current && !self.builder.is_empty();
        let has_room = follows && self.builder.len() + stanza.text.len() <= self.room;
        let mut full = false;
        if !has_room {
            match self.room_of(config, index, stanza.text.len()) {
                QueueRoom::Bytes(bytes) => self.room = bytes,
                QueueRoom::Full if self.carried.len() > 1 => full = true,
                QueueRoom::Full | QueueRoom::Unanswerable => {
                    self.flush(context, now);
                    // The room may be taken up by what was just flushed, or have come in between.
                    let carried = &self.carried[index];
                    return Taken::Full(Arc::clone(if carried.back.held() > queue(config) {
                        &carried.back
                    } else {
                        &carried.route
                    }));
                }
            }
        }
        if index != self.tallied {
            self.publish();
            self.tallied = index;
        }
        add_to(&mut self.tally, stanza);
        let number = self.received;
        self.received += 1;
        self.stanzas += 1;
        self.bytes += stanza.text.len() as u64;
        if self.stanzas % SAMPLE == 1 {
            context
                .metrics
                .stanza_size
                .observe(stanza.text.len() as f64);
        }
        let relay = Relay {
            context,
            config,
            side: self.side,
            now,
        };
        let owed = Owed {
            tracker: self.acknowledger.as_ref().map(Acknowledger::tracker),
            number,
        };
        let carried = &mut self.carried[index];
        if full {
            let failure = Failure::new(FailureKind::QueueFull, "the queue of this pair is full");
            relay.answer_failure(carried, stanza, &failure, owed);
            return Taken::Yes;
        }
        let known = match found {
            FoundAddresses::Seen(at) => match self.people.at(at) {
                Some(seen) => KnownAddresses::Seen(seen),
                None => KnownAddresses::Nothing,
            },
            FoundAddresses::Domains { from, to } => KnownAddresses::Domains { from, to },
            FoundAddresses::Nothing => KnownAddresses::Nothing,
        };
        let Some(passing) = relay.judge(carried, stanza, known, owed) else {
            // Its answer may have taken what there was.
            self.room = 0;
            return Taken::Yes;
        };
        if let Some(people) = passing.people {
            let seen = Seen {
                pair: index,
                people,
                presence: passing.presence,
                passed: passing.passed,
            };
            self.people.note(from, to, seen);
        } else if let FoundAddresses::Seen(at) = found
            && (passing.presence.is_some() || passing.passed.is_some())
            && let Some(seen) = self.people.at_mut(at)
        {
            seen.presence = passing.presence.or(seen.presence);
            seen.passed = passing.passed.or(seen.passed);
        }
        if index != self.current || !self.builder.continues_with(number) {
            self.flush(context, now);
            self.current = index;
        }
        let wanted = expected.max(stanza.text.len());
        let builder = &mut self.builder;
        builder.add(number, wanted, |out| passing.write(stanza, header, out));
        Taken::Yes
    }

    /// What there is room for of the pair at `index`, where it has to take so many bytes now.
    fn room_of(&self, config: &ActiveConfig, index: usize, bytes: usize) -> QueueRoom {
        let carried = &self.carried[index];
        let (limit, share) = (queue(config), &carried.share);
        let whole = config.document.settings.queue_total_bytes;
        let whole = usize::try_from(whole).unwrap_or(usize::MAX);
        // A peer that does not take its errors gets no more of them, and neither does a partner whose
        // errors alone overfill its share.
        if carried.back.held() > limit || share.is_overfull(whole) {
            return QueueRoom::Unanswerable;
        }
        let collected = match index == self.current {
            true => self.builder.len(),
            false => 0,
        };
        let queued = carried.route.held();
        let held = queued + collected;
        // An empty queue takes any stanza: there will never be more room.
        if held > 0 && held + bytes > limit || share.is_full(whole) {
            return QueueRoom::Full;
        }
        QueueRoom::Bytes(limit.saturating_sub(queued))
    }

    /// A stanza that broke a limit and was skipped: answered, where its like is. `false`: this stream
    /// may not carry its pair.
    pub fn faulty(
        &mut self,
        context: &Arc<StreamContext>,
        config: &ActiveConfig,
        stanza: &FaultyStanza,
        now: Instant,
    ) -> bool {
        let start = rewrite::StanzaStart::of_faulty(stanza);
        let (Some(from), Some(to)) = (start.from, start.to) else {
            return false;
        };
        let Some((index, _)) = self.carried_index(from, to, start.type_) else {
            return false;
        };
        let cause = policy::Cause::Faulty(stanza.error);
        self.refuse(context, config, (index, start, cause), now);
        true
    }

    /// A stanza of no pair of this stream, on which some are authenticated. Where the fault is in its
    /// addresses alone it is answered by the domain that its sender talks to here, or dropped where nobody
    /// knows whom to answer; `fault` is what else is wrong with it. `false`: it claims to be of a domain that
    /// the peer may not speak for.
    pub fn out_of_place(
        &mut self,
        context: &Arc<StreamContext>,
        config: &ActiveConfig,
        (start, fault): (rewrite::StanzaStart<'_>, Option<XmlError>),
        now: Instant,
    ) -> bool {
        let is_error = start.type_ == Some("error");
        if !self.carried.iter().any(|own| is_error || !own.errors_only) {
            return false;
        }
        let Some(from) = start.from.and_then(domain_of) else {
            self.dropped(context, config, policy::Cause::Unaddressed.as_str());
            return true;
        };
        let of_sender = |own: &Carried| own.pair.from == from && (is_error || !own.errors_only);
        let seen_last = self.carried.get(self.current).is_some_and(of_sender);
        let index = match seen_last {
            true => Some(self.current),
            false => self.carried.iter().position(of_sender),
        };
        let Some(index) = index else {
            return false;
        };
        let cause = match (fault, start.to.and_then(domain_of)) {
            (Some(fault), _) => policy::Cause::Faulty(fault),
            (None, None) => policy::Cause::Unaddressed,
            (None, Some(_)) => policy::Cause::Misdirected,
        };
        let pair = self.carried[index].pair.clone();
        let names = context.peers.names(self.side, &pair.from, &pair.to, now);
        let start = rewrite::StanzaStart {
            to: Some(&names.local.write(&pair.to)),
            ..start
        };
        self.refuse(context, config, (index, start, cause), now);
        true
    }

    /// A stanza that the pair at `index` is to be answered for, found at fault before it was looked at.
    fn refuse(
        &mut self,
        context: &Arc<StreamContext>,
        config: &ActiveConfig,
        (index, start, cause): (usize, rewrite::StanzaStart<'_>, policy::Cause),
        now: Instant,
    ) {
        let number = self.next_number();
        let relay = Relay {
            context,
            config,
            side: self.side,
            now,
        };
        let owed = Owed {
            tracker: self.acknowledger.as_ref().map(Acknowledger::tracker),
            number,
        };
        relay.refuse(&mut self.carried[index], start, cause, owed);
    }

    /// A stanza of which nobody knows whom to answer. It counts as handled, so that its sender does not give
    /// it again, and as refused for the pair seen last.
    pub fn dropped(
        &mut self,
        context: &Arc<StreamContext>,
        config: &ActiveConfig,
        reason: &'static str,
    ) {
        self.handled();
        let mut of_none = ReasonCounters::new(None, self.direction);
        let (reasons, partner) = match self.carried.get_mut(self.current) {
            Some(Carried { reasons, pair, .. }) => {
                let peer = match self.side {
                    Side::Partner => &pair.from,
                    Side::Gateway => &pair.to,
                };
                let partner = config.partner(peer).map(|partner| partner.name.as_str());
                (reasons, partner)
            }
            None => (&mut of_none, None),
        };
        let lines = reasons.refused(&context.metrics, &context.log, reason);
        limited!(
            info,
            lines,
            partner = partner.unwrap_or("other"),
            direction = direction_label(self.direction),
            reason,
            "dropped: a stanza that does not say whom to answer"
        );
    }

    /// The stanza at hand needs nothing more.
    pub fn handled(&mut self) {
        let number = self.next_number();
        let owed = Owed {
            tracker: self.acknowledger.as_ref().map(Acknowledger::tracker),
            number,
        };
        owed.settle();
    }

    /// The number of the stanza at hand, which is counted.
    fn next_number(&mut self) -> u64 {
        let number = self.received;
        self.received += 1;
        self.stanzas += 1;
        number
    }

    /// From here on the peer counts on acknowledgements (XEP-0198). What was read before does not
    /// count: it leaves without a receipt.
    pub fn enable_acks(
        &mut self,
        context: &Arc<StreamContext>,
        acknowledger: Acknowledger,
        now: Instant,
    ) {
        self.flush(context, now);
        self.acknowledger = Some(acknowledger);
        self.received = 0;
    }

    /// Whether the peer keeps what it sent until it is acknowledged.
    #[must_use]
    pub fn acknowledges(&self) -> bool {
        self.acknowledger.is_some()
    }

    /// The peer asks what was settled.
    pub fn ack_requested(&mut self) {
        if let Some(acknowledger) = &mut self.acknowledger {
            acknowledger.requested();
        }
    }

    /// The `<a/>` that is due, if one is; `unasked`: the stream ends soon.
    pub fn ack(&mut self, unasked: bool) -> Option<Vec<u8>> {
        self.acknowledger.as_mut()?.ack(self.received, unasked)
    }

    /// Everything taken in is settled, as far as the peer counts on that.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.acknowledger
            .as_ref()
            .is_none_or(|own| own.is_done(self.received))
    }

    /// Another pair that the peer may send.
    pub fn add(&mut self, carried: Carried) {
        match self.carried.iter_mut().find(|own| own.pair == carried.pair) {
            Some(own) => *own = carried,
            None => self.push(carried),
        }
    }

    /// Most streams carry one pair: room for four would stay behind, as a hole, with each of them.
    fn push(&mut self, carried: Carried) {
        if self.carried.is_empty() {
            self.carried.reserve_exact(1);
        }
        self.carried.push(carried);
    }

    /// As [`Self::add`], unless something of the pair may come already; says whether it was added.
    pub fn add_if_new(&mut self, carried: Carried) -> bool {
        let is_new = !self.carried.iter().any(|own| own.pair == carried.pair);
        if is_new {
            self.push(carried);
        }
        is_new
    }

    /// The configuration changed: partners may have other names.
    pub fn relabel(&mut self, context: &StreamContext, config: &ActiveConfig) {
        for carried in &mut self.carried {
            carried.relabel(&context.metrics, config, self.side);
        }
    }

    /// Hands on what was collected, and what was counted.
    pub fn flush(&mut self, context: &Arc<StreamContext>, now: Instant) {
        self.publish();
        let tracker = self.acknowledger.as_ref().map(Acknowledger::tracker);
        if let Some(batch) = self.builder.take(tracker, now) {
            context
                .router
                .enqueue(&self.carried[self.current].route, batch);
        }
    }

    /// Adds what was counted to the counters.
    fn publish(&mut self) {
        let tally = std::mem::take(&mut self.tally);
        if let Some(carried) = self.carried.get(self.tallied) {
            carried.counters.add(tally);
        }
    }

    /// Gives back what only busy streams need.
    pub fn release(&mut self) {
        self.carried.shrink_to_fit();
        self.people.release();
    }

    /// Which pair it is: the one of the last stanza in the common case, compared as it stands.
    fn carried_index(
        &self,
        from: &str,
        to: &str,
        type_: Option<&str>,
    ) -> Option<(usize, FoundAddresses)> {
        let is_error = type_ == Some("error");
        let may_carry = |carried: &Carried| is_error || !carried.errors_only;
        if let Some(at) = self.people.find(from, to)
            && let Some(index) = self.people.at(at).map(|seen| seen.pair)
            && self.carried.get(index).is_some_and(may_carry)
        {
            return Some((index, FoundAddresses::Seen(at)));
        }
        let ends = (DomainRange::of(from), DomainRange::of(to));
        let found = FoundAddresses::Domains {
            from: ends.0,
            to: ends.1,
        };
        let (from, to) = (ends.0.domain(from), ends.1.domain(to));
        let is = |carried: &Carried| {
            carried.pair.from.as_str() == from
                && carried.pair.to.as_str() == to
                && may_carry(carried)
        };
        if self.carried.get(self.current).is_some_and(is) {
            return Some((self.current, found));
        }
        if let Some(index) = self.carried.iter().position(is) {
            return Some((index, found));
        }
        let (from, to) = (canonical(from)?, canonical(to)?);
        let index = self.carried.iter().position(|carried| {
            carried.pair.from.as_str() == from
                && carried.pair.to.as_str() == to
                && may_carry(carried)
        })?;
        Some((index, FoundAddresses::Nothing))
    }
}

/// The domain of an address, where it is one and its domain can be read.
fn domain_of(address: &str) -> Option<DomainName> {
    let parts = JidParts::split(address).ok()?;
    DomainName::parse(parts.domain).ok()
}

/// The domain of a JID as it stands (RFC 7622 section 3.1).
#[must_use]
pub fn domain_part(jid: &str) -> &str {
    DomainRange::of(jid).domain(jid)
}

/// The domain in the form of a `DomainName`; `None` where it is none.
pub(super) fn canonical(domain: &str) -> Option<Cow<'_, str>> {
    if is_canonical(domain.as_bytes()) {
        return Some(Cow::Borrowed(domain));
    }
    DomainName::parse(domain)
        .ok()
        .map(|domain| Cow::Owned(domain.into()))
}

#[cfg(test)]
mod tests;
