//! Users of SIP who watch users of partners: their SUBSCRIBEs, what is heard of whom they watch, and their NOTIFYs.
//!
//! What follows from what is known to [`crate::sip::notifier`]. What partners are asked goes the way of any stanza:
//! nothing of policy is decided here.

use std::time::Instant;

use xmpp_edge_crds::{edge_config::GatewaySip, verdict::Direction};

use super::{
    incoming::{IncomingSubscribe, Refused},
    inside_error::InsideError,
    link_settings::LinkMoment,
    outward::{Outward, OutwardOutcome, pair_of},
};
use crate::{
    sip::{
        code::FinalCode,
        compose::SentBy,
        connection::ReceivedRequest,
        ledger::SubscriptionLedger,
        notifier::{
            DocumentForm, NotifierEvent, NotifierNumber, NotifierOutput, NotifierRefusal,
            NotifierStep, Notifiers, NotifyEnd, NotifyOutcome, NotifyTicket, SubscribeWish,
        },
        presence::{PresenceType, SaidPresence, presence_stanza},
        share::SipShare,
        turns::TwoPeople,
        wire::WriteFault,
    },
    xml::{Condition, StanzaKind},
};

/// All of one link.
#[derive(Debug)]
pub(super) struct UsersWatching {
    notifiers: Notifiers,
    /// Of ours, in all dialogs.
    tag: Box<str>,
}

/// What is answered to a first SUBSCRIBE.
#[derive(Debug)]
pub(super) enum TakenSubscribe {
    /// It stands for so many seconds.
    Granted(u32),
    /// The error that policy made of this stanza.
    Refused { id: String },
}

impl UsersWatching {
    /// `tag` is ours, in all answers.
    pub(super) fn new(settings: &GatewaySip, tag: &str) -> Self {
        // What a MESSAGE may have a document may have too: a server reads no more.
        Self {
            notifiers: Notifiers::new(DocumentForm::new(
                settings.max_message_bytes as usize,
                settings.dialect,
            )),
            tag: tag.into(),
        }
    }

    /// A first SUBSCRIBE of U's.
    ///
    /// # Errors
    /// What is answered.
    pub(super) fn subscribe(
        &mut self,
        moment: &LinkMoment<'_>,
        outward: &mut Outward,
        ledger: &mut SubscriptionLedger,
        subscribe: &IncomingSubscribe,
        received: &ReceivedRequest,
    ) -> Result<TakenSubscribe, Refused> {
        let IncomingSubscribe { people, wish } = subscribe;
        let share = ledger.share(moment.partner(people.to.domain()));
        let tag = self.tag.clone();
        let number = self.step(moment, outward, ledger, |notifiers, step| {
            let request = &received.request;
            notifiers.open(step, people, request, wish, share, &tag)
        });
        let number = number.map_err(refused)?;
        if wish.seconds == 0 {
            // Who only wants to know how it stands asks for no contact: there is no stanza that policy could answer.
            if let Err(reason) = moment.admits(&people.from, people.to.domain()) {
                self.notifiers.discard(ledger, number);
                return Err(Refused::of_reason(
                    moment,
                    (StanzaKind::Presence, "subscribe"),
                    reason,
                ));
            }
            self.step(moment, outward, ledger, |notifiers, step| {
                notifiers.fetch(step, number);
            });
            return Ok(TakenSubscribe::Granted(0));
        }
        let id = moment.config.dialback.new_stream_id();
        let stanza = presence_stanza(people, PresenceType::Subscribe, &id);
        match outward.send(moment, &pair_of(people), &stanza, None) {
            OutwardOutcome::Taken => {
                self.notifiers.grant(number, wish.seconds, &id, moment.now);
                Ok(TakenSubscribe::Granted(wish.seconds))
            }
            OutwardOutcome::Answered => {
                self.notifiers.discard(ledger, number);
                Ok(TakenSubscribe::Refused { id })
            }
            OutwardOutcome::Forbidden(reason) => {
                self.notifiers.discard(ledger, number);
                let asked = (StanzaKind::Presence, "subscribe");
                Err(Refused::of_reason(moment, asked, reason))
            }
            OutwardOutcome::NoRoom => {
                self.notifiers.discard(ledger, number);
                Err(refused(NotifierRefusal::Full))
            }
            OutwardOutcome::Malformed => {
                self.notifiers.discard(ledger, number);
                Err(Refused::code(400))
            }
        }
    }

    /// A SUBSCRIBE in a dialog: seconds that are granted.
    ///
    /// # Errors
    /// What is answered.
    pub(super) fn refresh(
        &mut self,
        moment: &LinkMoment<'_>,
        outward: &mut Outward,
        ledger: &mut SubscriptionLedger,
        wish: &SubscribeWish,
        received: &ReceivedRequest,
    ) -> Result<u32, Refused> {
        let at_end = moment.settings.sip.end_of_subscription;
        let granted = self.step(moment, outward, ledger, |notifiers, step| {
            notifiers.refresh(step, &received.request, wish, at_end)
        });
        granted.map_err(|fault| Refused::code(fault.code()))
    }

    /// `subscribed` of R's, to U.
    pub(super) fn approved(
        &mut self,
        moment: &LinkMoment<'_>,
        outward: &mut Outward,
        ledger: &mut SubscriptionLedger,
        people: &TwoPeople,
    ) {
        self.step(moment, outward, ledger, |notifiers, step| {
            notifiers.subscribed(step, &people.reversed());
        });
    }

    /// `unsubscribed` of R's, to U.
    pub(super) fn withdrawn(&mut self, moment: &LinkMoment<'_>, people: &TwoPeople) {
        let people = people.reversed();
        self.notifiers
            .ended(&people, NotifyEnd::Rejected, moment.now);
    }

    /// An error of R's server's, or of the edge's own, for what U asked.
    pub(super) fn failed(&mut self, moment: &LinkMoment<'_>, error: &InsideError) {
        let code = FinalCode::of_condition(error.condition).code;
        self.notifiers
            .failed(&error.people, &error.id, code, moment.now);
    }

    /// Presence of R's, to U. `false`: nobody watches, or there is no room for it.
    pub(super) fn heard(
        &mut self,
        moment: &LinkMoment<'_>,
        outward: &mut Outward,
        ledger: &mut SubscriptionLedger,
        people: &TwoPeople,
        said: SaidPresence,
    ) -> bool {
        self.step(moment, outward, ledger, |notifiers, step| {
            notifiers.heard(step, &people.reversed(), said)
        })
    }

    /// The next NOTIFY whose time has come, of those accounts that `may`.
    pub(super) fn next_request(
        &mut self,
        moment: &LinkMoment<'_>,
        ledger: &mut SubscriptionLedger,
        by: SentBy<'_>,
        may: impl Fn(&SipShare) -> bool,
    ) -> Option<Result<(NotifyTicket, Vec<u8>), WriteFault>> {
        let contact = &moment.settings.contact;
        self.notifiers.notify(ledger, contact, by, moment.now, may)
    }

    /// How a NOTIFY ended.
    pub(super) fn answered(
        &mut self,
        ledger: &mut SubscriptionLedger,
        number: NotifierNumber,
        outcome: NotifyOutcome,
        now: Instant,
    ) {
        self.notifiers.notified(ledger, number, outcome, now);
    }

    /// What time brings.
    pub(super) fn on_time(
        &mut self,
        moment: &LinkMoment<'_>,
        outward: &mut Outward,
        ledger: &mut SubscriptionLedger,
    ) {
        let at_end = moment.settings.sip.end_of_subscription;
        self.step(moment, outward, ledger, |notifiers, step| {
            notifiers.on_time(step, at_end);
        });
    }

    /// Policy changed.
    pub(super) fn follow_policy(&mut self, moment: &LinkMoment<'_>) {
        self.notifiers.follow_policy(moment.now, |people| {
            moment.allows(&people.from, people.to.domain())
        });
    }

    /// The edge ends: who watches finds another.
    pub(super) fn end(&mut self, now: Instant) {
        self.notifiers.end_all(now);
    }

    pub(super) fn next_end(&self) -> Option<Instant> {
        self.notifiers.next_end()
    }

    pub(super) fn next_notify(&self, may: impl Fn(&SipShare) -> bool) -> Option<Instant> {
        self.notifiers.next_notify(may)
    }

    /// How many there are, and how many of them R lets watch.
    pub(super) fn counts(&self) -> (usize, usize) {
        self.notifiers.counts()
    }

    fn step<T>(
        &mut self,
        moment: &LinkMoment<'_>,
        outward: &mut Outward,
        ledger: &mut SubscriptionLedger,
        act: impl FnOnce(&mut Notifiers, &mut NotifierStep<'_>) -> T,
    ) -> T {
        let mut events = Vec::new();
        let mut step = NotifierStep {
            ledger,
            now: moment.now,
            events: &mut events,
        };
        let outcome = act(&mut self.notifiers, &mut step);
        for NotifierEvent { people, output } in events {
            let of = match output {
                NotifierOutput::Probe => PresenceType::Probe,
                NotifierOutput::Unsubscribe => PresenceType::Unsubscribe,
            };
            let id = moment.config.dialback.new_stream_id();
            let stanza = presence_stanza(&people, of, &id);
            let sent = outward.send(moment, &pair_of(&people), &stanza, None);
            if sent == OutwardOutcome::NoRoom {
                let metrics = &moment.context.metrics;
                metrics.sip_untranslated(Direction::Outbound, "NoRoom");
            }
        }
        outcome
    }
}

fn refused(refusal: NotifierRefusal) -> Refused {
    match refusal {
        NotifierRefusal::Dialog(fault) => Refused::code(fault.code()),
        NotifierRefusal::Merged => Refused::code(482),
        NotifierRefusal::Full => {
            Refused::of(FinalCode::of_condition(Some(Condition::ResourceConstraint)))
        }
    }
}
