//! The way of a stanza through a trunk that receives it: its pair, then as on any stream. The hot path, as
//! [`crate::stream::receiver`] is.
//!
//! A trunk is everybody's, and always read: nothing here waits for room.

use std::{sync::Arc, time::Instant};

use xmpp_edge_crds::jid::DomainRange;

use crate::{
    negotiation::Side,
    policy,
    routing::{
        acknowledgement::AckTracker,
        batch::BatchBuilder,
        failure::{Failure, FailureKind},
        route::Route,
        router::Router,
    },
    stream::{
        carried::Carried,
        receiver::canonical,
        relay::{KnownAddresses, Owed, Relay},
    },
    trunk::{
        PairNumber,
        fault::TrunkFault,
        machine::{Trunk, TrunkStanza},
    },
    xml::{FaultyStanza, StreamHeader, rewrite::StanzaStart, stanza::Stanza},
};

use super::pairs::TrunkPair;

/// Of so many stanzas of a trunk one is measured, the first included.
const SAMPLE: u64 = 16;

/// The receiving half of a trunk.
#[derive(Debug, Default)]
pub(super) struct TrunkReceiver {
    builder: BatchBuilder,
    /// Whose stanzas are being collected.
    collecting: Option<Collecting>,
    pub(super) stanzas: u64,
    pub(super) bytes: u64,
}

#[derive(Debug)]
struct Collecting {
    pair: PairNumber,
    route: Arc<Route>,
    tracker: Arc<AckTracker>,
}

impl TrunkReceiver {
    /// One stanza. `expected` is how many bytes may follow in this read, for one allocation.
    ///
    /// # Errors
    /// [`TrunkFault`]: the trunk ends.
    pub(super) fn stanza(
        &mut self,
        trunk: &mut Trunk<TrunkPair>,
        relay: &Relay<'_>,
        header: &StreamHeader,
        stanza: &Stanza<'_>,
        expected: usize,
    ) -> Result<(), TrunkFault> {
        let addresses = (stanza.from.as_deref(), stanza.to.as_deref());
        let Some((pair, number, addresses)) = taken(trunk, addresses)? else {
            return Ok(());
        };
        self.stanzas += 1;
        self.bytes += stanza.text.len() as u64;
        if self.stanzas % SAMPLE == 1 {
            let size = stanza.text.len() as f64;
            relay.context.metrics.stanza_size.observe(size);
        }
        let own = trunk.pair_mut(pair).ok_or(TrunkFault::StanzaWithoutPair)?;
        let (what, tracker) = own.parts();
        let owed = Owed {
            tracker: Some(tracker),
            number,
        };
        let carried = match what {
            TrunkPair::Carried(carried) => carried,
            TrunkPair::Refused(refused) => {
                refused.answer(relay, &StanzaStart::of(stanza), owed);
                return Ok(());
            }
        };
        carried.count(stanza);
        match Room::of(carried, relay) {
            Room::Enough => {}
            Room::ForAnswers => {
                let text = "the memory for stanzas that wait is used up here";
                let failure = Failure::new(FailureKind::QueueFull, text);
                relay.answer_failure(carried, stanza, &failure, owed);
                return Ok(());
            }
            Room::None => {
                no_answer(carried, relay, owed);
                return Ok(());
            }
        }
        let Some(passing) = relay.judge(carried, stanza, addresses, owed) else {
            return Ok(());
        };
        let follows = self.collecting.as_ref().is_some_and(|own| own.pair == pair)
            && self.builder.continues_with(number);
        if !follows {
            self.flush(&relay.context.router, relay.now);
            self.collecting = Some(Collecting {
                pair,
                route: Arc::clone(&carried.route),
                tracker: Arc::clone(tracker),
            });
        }
        let wanted = expected.max(stanza.text.len());
        let builder = &mut self.builder;
        builder.add(number, wanted, |out| passing.write(stanza, header, out));
        Ok(())
    }

    /// A stanza that broke a limit and was skipped: answered, where its like is.
    ///
    /// # Errors
    /// [`TrunkFault`]: the trunk ends.
    pub(super) fn faulty(
        &mut self,
        trunk: &mut Trunk<TrunkPair>,
        relay: &Relay<'_>,
        stanza: &FaultyStanza,
    ) -> Result<(), TrunkFault> {
        let start = StanzaStart {
            kind: stanza.kind,
            from: stanza.from.as_deref(),
            to: stanza.to.as_deref(),
            id: stanza.id.as_deref(),
            type_: stanza.type_.as_deref(),
        };
        let Some((pair, number, _)) = taken(trunk, (start.from, start.to))? else {
            return Ok(());
        };
        self.stanzas += 1;
        let own = trunk.pair_mut(pair).ok_or(TrunkFault::StanzaWithoutPair)?;
        let (what, tracker) = own.parts();
        let owed = Owed {
            tracker: Some(tracker),
            number,
        };
        match what {
            TrunkPair::Refused(refused) => refused.answer(relay, &start, owed),
            TrunkPair::Carried(carried) => match Room::of(carried, relay) {
                Room::None => no_answer(carried, relay, owed),
                Room::Enough | Room::ForAnswers => {
                    relay.refuse(carried, start, policy::Cause::Faulty(stanza.error), owed);
                }
            },
        }
        Ok(())
    }

    /// Hands on what was collected.
    pub(super) fn flush(&mut self, router: &Arc<Router>, now: Instant) {
        if let Some(own) = self.collecting.take()
            && let Some(batch) = self.builder.take(Some(&own.tracker), now)
        {
            router.enqueue(&own.route, batch);
        }
    }
}

/// Whether there is memory for a stanza. What its pair holds alone does not count: the peer keeps to the
/// window that it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Enough,
    /// Its sender is told that there is none.
    ForAnswers,
    None,
}

impl Room {
    fn of(carried: &Carried, relay: &Relay<'_>) -> Self {
        let settings = &relay.config.document.settings;
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let whole = bytes(settings.queue_total_bytes);
        let answers = bytes(settings.queue_bytes).saturating_mul(4);
        // A sidecar has a share for each domain that an edge names, which may be many.
        let all = relay.context.router.held();
        if carried.share.is_overfull(whole)
            || carried.back.held() > answers
            || all > whole.saturating_add(whole / 8)
        {
            Self::None
        } else if carried.share.is_full(whole) || all > whole {
            Self::ForAnswers
        } else {
            Self::Enough
        }
    }
}

/// The stanza is neither handed on nor answered: counted.
fn no_answer(carried: &Carried, relay: &Relay<'_>, owed: Owed<'_>) {
    let domain = match relay.side {
        Side::Partner => &carried.pair.from,
        Side::Gateway => &carried.pair.to,
    };
    let partner = relay.config.partner(domain).map(|own| own.name.as_str());
    let metrics = &relay.context.metrics;
    metrics.bounced(partner, relay.direction(), "Answer", 1);
    owed.settle();
}

/// The pair of a stanza that is taken, its number there, and what is known of its addresses. `None`: it is not
/// taken, and its sender has it still.
fn taken<'k>(
    trunk: &mut Trunk<TrunkPair>,
    addresses: (Option<&str>, Option<&str>),
) -> Result<Option<(PairNumber, u64, KnownAddresses<'k>)>, TrunkFault> {
    let (Some(from), Some(to)) = addresses else {
        return Err(TrunkFault::StanzaWithoutPair);
    };
    let ends = (DomainRange::of(from), DomainRange::of(to));
    let written = KnownAddresses::Domains {
        from: ends.0,
        to: ends.1,
    };
    let (from, to) = (ends.0.domain(from), ends.1.domain(to));
    let (stanza, known) = match trunk.stanza(from, to) {
        Err(TrunkFault::StanzaWithoutPair) => {
            let spelled = canonical(from).zip(canonical(to));
            let (from, to) = spelled.ok_or(TrunkFault::StanzaWithoutPair)?;
            (trunk.stanza(&from, &to)?, KnownAddresses::Nothing)
        }
        stanza => (stanza?, written),
    };
    Ok(match stanza {
        TrunkStanza::Taken { pair, number } => Some((pair, number, known)),
        TrunkStanza::NotTaken => None,
    })
}
