//! One end of a trunk: what was said on it so far, and what has to be said next.
//!
//! Its driver reads and writes, judges the pairs that are opened, and relays their stanzas. It hands every
//! nonza to [`Trunk::nonza`], asks [`Trunk::stanza`] of every stanza whether it is taken, looks in with
//! [`Trunk::tick`] when it was woken and at [`Trunk::deadline`], and ends the trunk at the first fault.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    PairNumber,
    ack_schedule::AckSchedule,
    fault::TrunkFault,
    liveness::{LivenessAction, TrunkLiveness},
    nonza::{EdgeChange, Enable, Enabled, Nonza, OpenedPair, ServerState},
    phase::TrunkPhase,
    receiving::{ReceivedPair, ReceivedPairs},
    sending::{ReturnedPair, TrunkBuffer, TrunkEnd},
};
use crate::{config::trunk_name::ProductVersion, routing::acknowledgement::MovedPairs};

/// How long the two ends may take to say what they are.
const GREETING: Duration = Duration::from_secs(10);

/// Which end it is: they say different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrunkRole {
    Sidecar,
    Edge,
}

/// Where it is.
#[derive(Debug)]
enum TrunkState {
    /// The other end has not said what it is.
    Greeting(TrunkGreeting),
    /// Of an edge: the sidecar has, and waits for the answer.
    Welcoming(TrunkGreeting),
    Flowing(TrunkPhase),
}

#[derive(Clone, Copy, Debug)]
struct TrunkGreeting {
    own: ProductVersion,
    deadline: Instant,
}

/// What a nonza means for the driver.
#[derive(Debug)]
pub enum TrunkEvent<T> {
    /// To an edge: the answer is [`Trunk::welcome`].
    Enable(Enable),
    /// To a sidecar: stanzas flow.
    Enabled(Enabled),
    /// The driver judges it, and has it counted by [`Trunk::open`].
    Pair(OpenedPair),
    PairEnded(T),
    /// The peer settled stanzas: pairs whose window was full may have room again.
    Acknowledged,
    /// The peer takes nothing more: pairs move to other trunks.
    Drains,
    Edge(EdgeChange),
    Server(ServerState),
    Claim(Option<jiff::Timestamp>),
}

/// What becomes of a stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrunkStanza {
    /// It is the one of this number of its pair: whoever relays it owes it to the peer.
    Taken { pair: PairNumber, number: u64 },
    /// This side has drained: its sender has it still.
    NotTaken,
}

/// One end of a trunk; `T` is what its driver keeps of each pair that the peer opened.
#[derive(Debug)]
pub struct Trunk<T> {
    role: TrunkRole,
    state: TrunkState,
    /// How long stanzas may wait.
    queue_timeout: Duration,
    buffer: TrunkBuffer,
    received: ReceivedPairs<T>,
    schedule: AckSchedule,
    liveness: TrunkLiveness,
}

impl<T> Trunk<T> {
    /// The sidecar's end: says `enable` at once. `moved` is told of pairs of which something was settled.
    #[must_use]
    pub fn sidecar(
        enable: Enable,
        queue_timeout: Duration,
        moved: Arc<MovedPairs>,
        now: Instant,
    ) -> Self {
        let version = enable.version;
        let mut own = Self::new(TrunkRole::Sidecar, version, queue_timeout, moved, now);
        own.buffer.say(&Nonza::Enable(enable));
        own
    }

    /// The edge's end: waits for what the sidecar says.
    #[must_use]
    pub fn edge(
        version: ProductVersion,
        queue_timeout: Duration,
        moved: Arc<MovedPairs>,
        now: Instant,
    ) -> Self {
        Self::new(TrunkRole::Edge, version, queue_timeout, moved, now)
    }

    fn new(
        role: TrunkRole,
        own: ProductVersion,
        queue_timeout: Duration,
        moved: Arc<MovedPairs>,
        now: Instant,
    ) -> Self {
        Self {
            role,
            state: TrunkState::Greeting(TrunkGreeting {
                own,
                deadline: now + GREETING,
            }),
            queue_timeout,
            buffer: TrunkBuffer::default(),
            received: ReceivedPairs::new(moved),
            schedule: AckSchedule::default(),
            liveness: TrunkLiveness::new(now),
        }
    }

    /// Takes what the peer said; `None` where nothing is left to the driver.
    ///
    /// # Errors
    /// [`TrunkFault`]: the trunk ends.
    pub fn nonza(
        &mut self,
        nonza: Nonza,
        now: Instant,
    ) -> Result<Option<TrunkEvent<T>>, TrunkFault> {
        let phase = match &mut self.state {
            TrunkState::Greeting(greeting) => {
                let TrunkGreeting { own, deadline } = *greeting;
                return self.greeted(own, deadline, nonza);
            }
            TrunkState::Welcoming(_) => return Err(unexpected(&nonza)),
            TrunkState::Flowing(phase) => phase,
        };
        Ok(match (self.role, nonza) {
            (_, Nonza::Pair(opened)) => {
                if phase.takes()? {
                    Some(TrunkEvent::Pair(opened))
                } else {
                    None
                }
            }
            (_, Nonza::End(number)) => {
                // One that was opened after this side drained was never counted.
                match self.received.end(number) {
                    Err(TrunkFault::UnknownPair(_)) if !phase.may_send() => None,
                    ended => Some(TrunkEvent::PairEnded(ended?)),
                }
            }
            (_, Nonza::Ack(ack)) => {
                if let Some(number) = ack.answers
                    && !self.liveness.answered(number)
                {
                    return Err(TrunkFault::Unexpected("a"));
                }
                self.buffer.acked(&ack, now)?;
                (!ack.counts.is_empty()).then_some(TrunkEvent::Acknowledged)
            }
            (_, Nonza::Request(number)) => {
                // It crossed this side's `</stream:stream>`, behind which nothing stands.
                if phase.converses() {
                    self.schedule.asked(number);
                }
                None
            }
            (_, Nonza::Drain) => {
                phase.peer_drains(now, self.queue_timeout)?;
                Some(TrunkEvent::Drains)
            }
            (TrunkRole::Sidecar, Nonza::Edge(change)) => Some(TrunkEvent::Edge(change)),
            (TrunkRole::Edge, Nonza::Server(state)) => Some(TrunkEvent::Server(state)),
            (TrunkRole::Edge, Nonza::Claim(since)) => Some(TrunkEvent::Claim(since)),
            (_, nonza) => return Err(unexpected(&nonza)),
        })
    }

    fn greeted(
        &mut self,
        own: ProductVersion,
        deadline: Instant,
        nonza: Nonza,
    ) -> Result<Option<TrunkEvent<T>>, TrunkFault> {
        let (peer, queue, event) = match (self.role, nonza) {
            (TrunkRole::Edge, Nonza::Enable(enable)) => {
                (enable.version, enable.queue, TrunkEvent::Enable(enable))
            }
            (TrunkRole::Sidecar, Nonza::Enabled(enabled)) => {
                (enabled.version, enabled.queue, TrunkEvent::Enabled(enabled))
            }
            (_, nonza) => return Err(unexpected(&nonza)),
        };
        if !own.works_with(peer) {
            return Err(TrunkFault::Version { peer, own });
        }
        self.buffer.set_window(queue);
        self.state = match self.role {
            TrunkRole::Edge => TrunkState::Welcoming(TrunkGreeting { own, deadline }),
            TrunkRole::Sidecar => TrunkState::Flowing(TrunkPhase::Open),
        };
        Ok(Some(event))
    }

    /// Answers [`TrunkEvent::Enable`]: stanzas flow.
    pub fn welcome(&mut self, enabled: Enabled) {
        if matches!(self.state, TrunkState::Welcoming(_)) {
            self.state = TrunkState::Flowing(TrunkPhase::Open);
            self.buffer.say(&Nonza::Enabled(enabled));
        }
    }

    /// Counts a pair that the driver has judged, whatever it found.
    ///
    /// # Errors
    /// As [`ReceivedPairs::open`].
    pub fn open(&mut self, opened: OpenedPair, what: T) -> Result<(), TrunkFault> {
        self.received.open(opened, what)
    }

    /// A stanza between these domains, in canonical form, has come.
    ///
    /// # Errors
    /// [`TrunkFault`] where its pair is not open, or where the peer had drained.
    pub fn stanza(&mut self, from: &str, to: &str) -> Result<TrunkStanza, TrunkFault> {
        let TrunkState::Flowing(phase) = &self.state else {
            return Err(TrunkFault::StanzaWithoutPair);
        };
        if !phase.takes()? {
            return Ok(TrunkStanza::NotTaken);
        }
        let pair = self.received.number(from, to);
        let taken = pair.and_then(|pair| Some((pair, self.received.receive(pair)?)));
        let (pair, number) = taken.ok_or(TrunkFault::StanzaWithoutPair)?;
        Ok(TrunkStanza::Taken { pair, number })
    }

    /// A pair that the peer opened.
    #[must_use]
    pub fn pair(&self, number: PairNumber) -> Option<&ReceivedPair<T>> {
        self.received.get(number)
    }

    /// All pairs that the peer opened, in no order.
    pub fn pairs_mut(&mut self) -> impl Iterator<Item = &mut ReceivedPair<T>> {
        self.received.iter_mut()
    }

    /// Whether something sent, or taken in, is not acknowledged.
    #[must_use]
    pub fn has_unacknowledged(&self) -> bool {
        self.received.unacknowledged() > 0 || self.buffer.custody().stanzas > 0
    }

    /// As [`ReceivedPairs::oldest_unsettled`].
    pub fn oldest_unsettled(&mut self, now: Instant) -> Option<Instant> {
        self.received.oldest_unsettled(now)
    }

    /// How many pairs the peer has open.
    #[must_use]
    pub fn received_pairs(&self) -> usize {
        self.received.len()
    }

    /// Stanzas that were taken in and of which the peer does not know that they were settled.
    #[must_use]
    pub fn owed(&self) -> u64 {
        self.received.unacknowledged()
    }

    /// As [`Self::pair`].
    #[must_use]
    pub fn pair_mut(&mut self, number: PairNumber) -> Option<&mut ReceivedPair<T>> {
        self.received.get_mut(number)
    }

    /// Bytes of the peer came.
    pub fn heard(&mut self, now: Instant) {
        self.liveness.heard(now);
    }

    /// Says what is due: acks, signs of life, the end of a trunk that is drained.
    ///
    /// # Errors
    /// [`TrunkFault`] where the peer is not there any more, or too slow.
    pub fn tick(&mut self, now: Instant) -> Result<(), TrunkFault> {
        let phase = match &mut self.state {
            TrunkState::Greeting(own) | TrunkState::Welcoming(own) => {
                return if now >= own.deadline {
                    Err(TrunkFault::GreetingTimeout)
                } else {
                    Ok(())
                };
            }
            TrunkState::Flowing(phase) => phase,
        };
        if self.received.have_moved() {
            self.schedule.moved(now);
        }
        let at_once = !phase.may_send();
        while !phase.is_closed()
            && self.buffer.nonzas_flow()
            && let Some(ack) = self.schedule.ack(&mut self.received, now, at_once)
        {
            self.buffer.say(&Nonza::Ack(ack));
        }
        let (unsettled, unacknowledged) =
            (self.received.is_owed(), self.buffer.custody().stanzas > 0);
        if phase.look(unsettled, unacknowledged, now)? {
            self.buffer.raw("</stream:stream>");
        }
        if self.buffer.is_overfull() {
            return Err(TrunkFault::Unread);
        }
        if !phase.converses() {
            return Ok(());
        }
        match self.liveness.act(now, self.buffer.custody().stanzas > 0) {
            None => Ok(()),
            Some(LivenessAction::Ask(number)) => {
                self.buffer.say(&Nonza::Request(number));
                Ok(())
            }
            Some(LivenessAction::GiveUp) => Err(TrunkFault::Silent),
        }
    }

    /// When [`Self::tick`] has something to say, unless it is woken before.
    #[must_use]
    pub fn deadline(&self, now: Instant) -> Instant {
        let phase = match &self.state {
            TrunkState::Greeting(own) | TrunkState::Welcoming(own) => return own.deadline,
            TrunkState::Flowing(phase) => phase,
        };
        let alive = self.liveness.deadline(self.buffer.custody().stanzas > 0);
        // What the peer does not take is not written more often.
        let flows = self.buffer.nonzas_flow() && !phase.is_closed();
        let acks = self.schedule.deadline(now).filter(|_| flows);
        [
            Some(alive).filter(|_| phase.converses()),
            acks,
            phase.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
        // What is left to write is the socket's to say.
        .unwrap_or(now + GREETING)
    }

    /// This side takes nothing more; once what it took is settled, it closes.
    pub fn drain(&mut self, now: Instant) {
        if let TrunkState::Flowing(phase) = &mut self.state
            && phase.drain(now, self.queue_timeout)
        {
            self.buffer.say(&Nonza::Drain);
        }
    }

    /// The peer sent `</stream:stream>`. `None`: acks of this side are still due.
    #[must_use]
    pub fn closed(&mut self) -> Option<TrunkEnd> {
        let TrunkState::Flowing(phase) = &mut self.state else {
            return Some(TrunkEnd::OutOfOrder);
        };
        if !phase.peer_closed() {
            return Some(TrunkEnd::OutOfOrder);
        }
        (*phase == TrunkPhase::Done).then_some(TrunkEnd::InOrder)
    }

    /// Whether the peer may still say something. What comes all the same behind its `</stream:stream>` is
    /// not listened to: a version before this one asked for signs of life there.
    #[must_use]
    pub fn listens(&self) -> bool {
        !matches!(&self.state, TrunkState::Flowing(phase) if phase.is_closed_by_peer())
    }

    /// Both sides have closed, in order.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.state, TrunkState::Flowing(TrunkPhase::Done))
    }

    /// Whether stanzas may be sent.
    #[must_use]
    pub fn may_send(&self) -> bool {
        matches!(&self.state, TrunkState::Flowing(phase) if phase.may_send())
    }

    /// Whether anything may still be said: not before both have said what they are, nor once this side has
    /// closed.
    #[must_use]
    pub fn may_speak(&self) -> bool {
        matches!(&self.state, TrunkState::Flowing(phase) if !phase.is_closed())
    }

    /// Says how this end is now: what an edge tells its sidecars, and they it.
    pub fn say(&mut self, nonza: &Nonza) {
        if self.may_send() {
            self.buffer.say(nonza);
        }
    }

    /// What goes out.
    #[must_use]
    pub fn buffer(&self) -> &TrunkBuffer {
        &self.buffer
    }

    /// As [`Self::buffer`]. Stanzas are sent while [`Self::may_send`].
    pub fn buffer_mut(&mut self) -> &mut TrunkBuffer {
        &mut self.buffer
    }

    /// The trunk is over: what was in custody.
    pub fn hand_back(&mut self, end: TrunkEnd, now: Instant) -> Vec<ReturnedPair> {
        self.buffer.hand_back(end, now)
    }
}

fn unexpected(nonza: &Nonza) -> TrunkFault {
    TrunkFault::Unexpected(nonza.name())
}

#[cfg(test)]
mod tests;
