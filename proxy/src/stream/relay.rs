//! What becomes of a stanza of a pair that its receiver has taken: judged, then answered, or ready for its
//! queue. The hot path, for streams and trunks alike: nothing is allocated for a stanza that passes, no
//! label is looked up, nothing is formatted.
//!
//! Queues nothing but answers: what passes is collected by who received it.

use std::{sync::Arc, time::Instant};

use xmpp_edge_crds::{
    jid::DomainRange,
    verdict::{Direction, Reason},
};

use super::{ack_ping, carried::Carried, context::StreamContext, message_log, seen_people::Seen};
use crate::{
    config::ActiveConfig,
    negotiation::Side,
    policy::{self, AddressedPair, Answer, Outcome, PassedBefore, ResolvedPeople, Written},
    presence::tracker::NotedPresence,
    routing::{
        acknowledgement::{AckToken, AckTracker},
        batch::Batch,
        failure::Failure,
    },
    telemetry::{log_limiter::limited, metrics::direction_label},
    xml::{
        StreamHeader,
        rewrite::{self, Shape},
        stanza::{Stanza, StanzaKind},
    },
};

/// What is the same for all stanzas that come in at once.
#[derive(Clone, Copy)]
pub(super) struct Relay<'a> {
    pub context: &'a Arc<StreamContext>,
    pub config: &'a ActiveConfig,
    /// Who the peer is.
    pub side: Side,
    pub now: Instant,
}

/// Who waits to hear that a stanza needs nothing more: its number among its sender's, where that counts on
/// acknowledgements.
#[derive(Clone, Copy)]
pub(super) struct Owed<'a> {
    pub tracker: Option<&'a Arc<AckTracker>>,
    pub number: u64,
}

/// A stanza that goes on.
pub(super) struct Passing<'s> {
    shape: Shape,
    /// It goes under other spellings of its addresses.
    readdressed: Option<Box<Stanza<'s>>>,
    /// What policy found of its addresses, where that was not known before.
    pub(super) people: Option<ResolvedPeople>,
    /// That it is a presence, and was noted now.
    pub(super) presence: Option<NotedPresence>,
    /// What holds for the next one like it.
    pub(super) passed: Option<PassedBefore>,
}

/// What is known of a stanza's two addresses as they stand.
#[derive(Clone, Copy)]
pub(super) enum KnownAddresses<'k> {
    /// They were seen before.
    Seen(&'k Seen),
    /// Their domains are written as the pair has them, and stand there.
    Domains {
        from: DomainRange,
        to: DomainRange,
    },
    Nothing,
}

/// Whether the stanza answers a question of the edge itself, of this replica or another. It is taken, and not
/// passed on.
pub(super) fn answers_the_edge(
    context: &StreamContext,
    config: &ActiveConfig,
    side: Side,
    stanza: &Stanza<'_>,
) -> bool {
    side == Side::Partner && context.probes.take_answer(config, &context.metrics, stanza)
        || ack_ping::take_answer(context, stanza)
}

impl Owed<'_> {
    /// The stanza needs nothing more.
    pub(super) fn settle(self) {
        if let Some(receipt) = self.receipt() {
            receipt.settle();
        }
    }

    pub(super) fn receipt(self) -> Option<AckToken> {
        self.tracker.map(|tracker| AckToken {
            ledger: Arc::clone(tracker),
            first: self.number,
            count: 1,
        })
    }
}

impl Passing<'_> {
    /// Appends it as it stands in our streams; `stanza` is the one that was judged, and `header` that of
    /// its stream.
    pub(super) fn write(&self, stanza: &Stanza<'_>, header: &StreamHeader, out: &mut Vec<u8>) {
        let stanza = self.readdressed.as_deref().unwrap_or(stanza);
        let written = rewrite::shaped(self.shape, stanza, header, out);
        debug_assert!(written.is_ok(), "the scanner has checked it");
    }
}

impl Relay<'_> {
    /// Whose stanzas they are.
    pub(super) fn direction(&self) -> Direction {
        match self.side {
            Side::Partner => Direction::Inbound,
            Side::Gateway => Direction::Outbound,
        }
    }

    /// Judges a stanza of this pair. `None`: it was answered, or is never answered, and is settled once that is
    /// done.
    pub(super) fn judge<'s>(
        &self,
        carried: &mut Carried,
        stanza: &'s Stanza<'_>,
        addresses: KnownAddresses<'_>,
        owed: Owed<'_>,
    ) -> Option<Passing<'s>> {
        let Self {
            context, config, ..
        } = *self;
        let direction = self.direction();
        let (policy, contacts) = (&config.policy, &context.contacts);
        let again = match addresses {
            KnownAddresses::Seen(Seen {
                passed: Some(before),
                ..
            }) => policy.passes_again(before, stanza.pattern, &carried.facts, contacts),
            _ => None,
        };
        let judgement = match again {
            Some(again) => again,
            None if answers_the_edge(context, config, self.side, stanza) => {
                owed.settle();
                return None;
            }
            None => {
                let written = match addresses {
                    KnownAddresses::Seen(seen) => Some(Written::People(seen.people)),
                    KnownAddresses::Domains { from, to } => Some(Written::Domains { from, to }),
                    KnownAddresses::Nothing => None,
                };
                let facts = &carried.facts;
                let known = written.map(|written| AddressedPair { facts, written });
                policy.judge(direction, stanza, known, contacts)
            }
        };
        let partner = judgement.partner.map(|(_, name)| name);
        if let Some(reason) = judgement.audited {
            let reason = reason.as_str();
            let reasons = &mut carried.reasons;
            limited!(
                info,
                reasons.audited(&context.metrics, &context.log, reason),
                partner,
                direction = direction_label(direction), kind = ?stanza.kind, reason,
                from = %stanza.from.as_deref().unwrap_or_default().escape_debug(),
                to = %stanza.to.as_deref().unwrap_or_default().escape_debug(),
                "audited: would be refused, is delivered"
            );
        }
        match judgement.outcome {
            Outcome::Pass(shape) => {
                if let Some(change) = &judgement.contact
                    && let Err(error) = context.contacts.record(change)
                {
                    limited!(
                        warn,
                        context.log.lines("contact", partner, direction, error.label()),
                        %error, user = %change.user.escape_debug(), "contact not recorded"
                    );
                }
                let stands_as_it_is = !matches!(addresses, KnownAddresses::Nothing);
                let readdressed = if stands_as_it_is && !carried.international {
                    None
                } else {
                    let (hop, to) = (self.side.opposite(), &carried.pair.to);
                    policy::readdressed(stanza, context.peers.form(hop, to, self.now)).map(Box::new)
                };
                let goes = readdressed.as_deref().unwrap_or(stanza);
                let noted = match addresses {
                    KnownAddresses::Seen(seen) => seen.presence,
                    KnownAddresses::Domains { .. } | KnownAddresses::Nothing => None,
                };
                let is_noted = || {
                    readdressed.is_none()
                        && goes.type_.is_none()
                        && noted.is_some_and(|noted| context.presence.still_has(noted))
                };
                let presence = if goes.kind == StanzaKind::Presence && !is_noted() {
                    // A sidecar knows no partner objects: each remote domain has a share there.
                    let domain = || config.share_holder(self.side.opposite(), &carried.pair);
                    let holder = partner.or_else(domain);
                    context.presence.note(holder, direction, goes)
                } else {
                    None
                };
                if config.document.settings.log_message_bodies && goes.kind == StanzaKind::Message {
                    message_log::bodies(goes, direction);
                }
                Some(Passing {
                    shape,
                    readdressed,
                    people: judgement.people,
                    presence,
                    passed: judgement.passed,
                })
            }
            Outcome::Refuse(cause) | Outcome::Drop(cause) => {
                let start = rewrite::StanzaStart::of(stanza);
                self.refuse(carried, start, cause, owed);
                None
            }
        }
    }

    /// Counts a refusal, says so in the log now and then, and answers where there is an answer.
    pub(super) fn refuse(
        &self,
        carried: &mut Carried,
        start: rewrite::StanzaStart<'_>,
        cause: policy::Cause,
        owed: Owed<'_>,
    ) {
        let Self {
            context, config, ..
        } = *self;
        let direction = self.direction();
        // An address that cannot be read names no partner; the pair does.
        let Carried { reasons, pair, .. } = carried;
        let peer = match self.side {
            Side::Partner => &pair.from,
            Side::Gateway => &pair.to,
        };
        let partner = config.partner(peer).map(|partner| partner.name.as_str());
        let reason = cause.as_str();
        let lines = reasons.refused(&context.metrics, &context.log, reason);
        limited!(
            info, lines,
            partner = partner.unwrap_or("other"),
            direction = direction_label(direction), kind = ?start.kind, reason,
            from = %start.from.unwrap_or_default().escape_debug(),
            to = %start.to.unwrap_or_default().escape_debug(),
            "refused"
        );
        match policy::answer(direction, start.kind, start.type_, cause) {
            Answer::Drop => owed.settle(),
            Answer::Error(error) | Answer::PresenceError(error) => {
                let mut out = Vec::with_capacity(512);
                let reply = rewrite::Reply {
                    error_type: error.error_type.as_str(),
                    condition: error.condition.as_str(),
                    text: error.text,
                    reason: error.reason.map(Reason::as_str),
                };
                rewrite::error_answer(&start, reply, &mut out);
                let reply = Batch::reply(out, owed.receipt(), self.now);
                if cause.is_found_first() {
                    context.router.enqueue_own(&carried.back, reply);
                } else {
                    context.router.enqueue(&carried.back, reply);
                }
            }
        }
    }

    /// Answers a stanza that cannot be handed on.
    pub(super) fn answer_failure(
        &self,
        carried: &Carried,
        stanza: &Stanza<'_>,
        failure: &Failure,
        owed: Owed<'_>,
    ) {
        let (router, receipt) = (&self.context.router, owed.receipt());
        router.answer(&carried.back, stanza, failure, receipt, self.now);
    }
}
