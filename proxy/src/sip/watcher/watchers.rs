//! All watches of one SIP server: whose a NOTIFY or an answer is, whose time has come, and what they take.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    exchange::{
        Ask, AskOutcome, NotifiedPresence, WatchCause, WatchMoment, WatchOutput, WatchProgress,
    },
    told::bytes_of,
    watch::{PresenceWatch, STALE},
};
use crate::sip::{
    dialog::{CallKey, Dialog, DialogFault},
    due::{SharedDue, move_due},
    ledger::{HeldSubscriptions, SubscriptionLedger},
    pidf::{Availability, ReadPresence},
    share::SipShare,
    subscription::SubscriptionState,
    turns::TwoPeople,
    wire::SipRequest,
};

/// What is asked again by itself goes so far apart: 50 a second.
const PACE: Duration = Duration::from_millis(20);
/// Beside its addresses, what a watch takes.
const WATCH_OVERHEAD: usize = 512;

/// Which watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchNumber(u64);

/// A SUBSCRIBE that is out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchTicket {
    number: WatchNumber,
    call_id: Box<str>,
    share: SipShare,
}

impl WatchTicket {
    #[must_use]
    pub fn number(&self) -> WatchNumber {
        self.number
    }

    /// On whose account it is.
    #[must_use]
    pub fn share(&self) -> &SipShare {
        &self.share
    }
}

/// What became of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    /// R and U.
    pub people: TwoPeople,
    pub said: Vec<WatchOutput>,
}

/// What each step takes, and gives.
#[derive(Debug)]
pub struct WatchStep<'a> {
    pub ledger: &'a mut SubscriptionLedger,
    pub moment: WatchMoment,
    pub events: &'a mut Vec<WatchEvent>,
}

/// Whether there was room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum WatchRoom {
    Taken,
    /// As many as may be, of this partner or of all: nothing is remembered.
    Full,
}

/// All of one server.
#[derive(Debug)]
pub struct Watchers {
    /// Seconds to ask for.
    expires: u32,
    /// Boxed: a table has room for more than it holds.
    watches: HashMap<WatchNumber, Box<KeptWatch>>,
    by_people: HashMap<Arc<TwoPeople>, WatchNumber>,
    by_call: HashMap<Arc<str>, WatchNumber>,
    asks: SharedDue<WatchNumber>,
    alarms: BTreeSet<(Instant, WatchNumber)>,
    next: u64,
    /// When the next that is asked again by itself may go.
    paced: Option<Instant>,
    /// When what is known is no longer true, because the server is away.
    away_until: Option<Instant>,
    active: usize,
}

#[derive(Debug)]
struct KeptWatch {
    people: Arc<TwoPeople>,
    watch: PresenceWatch,
    share: SipShare,
    held: HeldSubscriptions,
    /// As it stands in the indices.
    indexed: WatchIndex,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct WatchIndex {
    call_id: Option<Arc<str>>,
    ask_at: Option<Instant>,
    alarm_at: Option<Instant>,
    standing: Option<WatchProgress>,
}

impl Watchers {
    /// `expires`: seconds to ask for.
    #[must_use]
    pub fn new(expires: u32) -> Self {
        Self {
            expires,
            watches: HashMap::new(),
            by_people: HashMap::new(),
            by_call: HashMap::new(),
            asks: SharedDue::default(),
            alarms: BTreeSet::new(),
            next: 0,
            paced: None,
            away_until: None,
            active: 0,
        }
    }

    /// `subscribe` of R's.
    pub fn subscribe(
        &mut self,
        step: &mut WatchStep<'_>,
        people: &TwoPeople,
        share: SipShare,
    ) -> WatchRoom {
        match self.by_people.get(people).copied() {
            Some(number) => {
                self.step(step, number, |watch, out| watch.subscribed(out));
                WatchRoom::Taken
            }
            None => {
                let watch =
                    PresenceWatch::new(WatchCause::Subscribe, self.expires, step.moment.now);
                self.begin(step, people, share, watch)
            }
        }
    }

    /// `probe` of R's, to one device or to all.
    pub fn probe(
        &mut self,
        step: &mut WatchStep<'_>,
        people: &TwoPeople,
        resource: Option<&str>,
        share: SipShare,
    ) -> WatchRoom {
        match self.by_people.get(people).copied() {
            Some(number) => {
                self.step(step, number, |watch, out| watch.probed(resource, out));
                WatchRoom::Taken
            }
            None => {
                let watch = PresenceWatch::new(WatchCause::Standing, self.expires, step.moment.now);
                self.begin(step, people, share, watch)
            }
        }
    }

    /// One that stood before this process did; they go 50 a second.
    pub fn resume(
        &mut self,
        step: &mut WatchStep<'_>,
        people: &TwoPeople,
        share: SipShare,
    ) -> WatchRoom {
        if self.by_people.contains_key(people) {
            return WatchRoom::Taken;
        }
        let at = self.paced(step.moment.now);
        let watch = PresenceWatch::new(WatchCause::Standing, self.expires, at);
        self.begin(step, people, share, watch)
    }

    /// `unsubscribe` of R's. Who watches nobody hears that they do not.
    pub fn unsubscribe(&mut self, step: &mut WatchStep<'_>, people: &TwoPeople) {
        let moment = step.moment;
        match self.by_people.get(people).copied() {
            Some(number) => self.step(step, number, |watch, out| watch.unsubscribed(moment, out)),
            None => step.events.push(WatchEvent {
                people: people.clone(),
                said: vec![WatchOutput::Unsubscribed],
            }),
        }
    }

    /// Policy changed: those that it does not let be are left.
    pub fn follow_policy(
        &mut self,
        step: &mut WatchStep<'_>,
        is_allowed: impl Fn(&TwoPeople) -> bool,
    ) {
        let moment = step.moment;
        let forbidden = self
            .by_people
            .iter()
            .filter(|(people, _)| !is_allowed(people));
        let forbidden: Vec<WatchNumber> = forbidden.map(|(_, number)| *number).collect();
        for number in forbidden {
            self.step(step, number, |watch, out| watch.forbidden(moment, out));
        }
    }

    /// All of them end here: what is known is taken back, and nobody is asked for anything.
    pub fn withdraw_all(&mut self, step: &mut WatchStep<'_>) {
        self.of_each(step, |watch, out| watch.server_away(out));
    }

    /// Whether a request of this call may be of a watch.
    #[must_use]
    pub fn has_call(&self, call_id: &str) -> bool {
        self.by_call.contains_key(call_id)
    }

    /// Whose NOTIFY this is; the first makes the dialog, and those of others are of none.
    ///
    /// # Errors
    /// [`DialogFault`].
    pub fn take_notify(
        &mut self,
        ledger: &mut SubscriptionLedger,
        request: &SipRequest,
        moment: WatchMoment,
    ) -> Result<WatchNumber, DialogFault> {
        let number = self.by_call.get(request.call_id.as_str()).copied();
        let kept = number.and_then(|number| Some((number, self.watches.get_mut(&number)?)));
        let (number, kept) = kept.ok_or(DialogFault::Other)?;
        match kept.watch.opening() {
            None => {
                let KeptWatch {
                    people,
                    watch,
                    share,
                    held,
                    ..
                } = &mut **kept;
                let mut after = *held;
                let dialog = watch.dialog_mut().ok_or(DialogFault::Other)?;
                dialog.take(request, |bytes| {
                    after.dialog_bytes = own_bytes(people) + bytes;
                    ledger.change(share, *held, after)
                })?;
                *held = after;
            }
            Some(call) => {
                if request.to.tag() != Some(&*call.tag) {
                    return Err(DialogFault::Other);
                }
                let dialog = Dialog::of_request(request, &call.tag, 1)?;
                let mut held = kept.held;
                held.dialog_bytes = own_bytes(&kept.people) + dialog.bytes();
                if !ledger.change(&kept.share, kept.held, held) {
                    return Err(DialogFault::TooLong);
                }
                kept.held = held;
                kept.watch.opened(dialog, moment);
                self.index(number);
            }
        }
        Ok(number)
    }

    /// R and U.
    #[must_use]
    pub fn people(&self, number: WatchNumber) -> Option<&TwoPeople> {
        self.watches.get(&number).map(|kept| &*kept.people)
    }

    /// What the NOTIFY says. A document for which there is no room goes without its notes, and else counts as none:
    /// what is not remembered could never be taken back. `Full` where that was so.
    pub fn notified(
        &mut self,
        step: &mut WatchStep<'_>,
        number: WatchNumber,
        state: SubscriptionState,
        presence: NotifiedPresence,
    ) -> WatchRoom {
        let Some(kept) = self.watches.get_mut(&number) else {
            return WatchRoom::Taken;
        };
        let mut room = WatchRoom::Taken;
        let presence = match presence {
            NotifiedPresence::Document(mut document) => {
                if kept.charge(step.ledger, &document) {
                    NotifiedPresence::Document(document)
                } else {
                    room = WatchRoom::Full;
                    without_notes(&mut document);
                    if kept.charge(step.ledger, &document) {
                        NotifiedPresence::Document(document)
                    } else {
                        NotifiedPresence::None
                    }
                }
            }
            other => other,
        };
        let moment = step.moment;
        self.step(step, number, |watch, out| {
            watch.notified(state, presence, moment, out);
        });
        room
    }

    /// The next SUBSCRIBE whose time has come, of those accounts that `may`; these take turns.
    pub fn ask(
        &mut self,
        fresh: impl FnOnce() -> CallKey,
        moment: WatchMoment,
        may: impl Fn(&SipShare) -> bool,
    ) -> Option<(WatchTicket, Ask)> {
        let number = self.asks.next(moment.now, may)?;
        let kept = self.watches.get_mut(&number)?;
        let ask = kept.watch.ask(fresh, moment);
        let ticket = WatchTicket {
            number,
            call_id: kept.watch.call_id().unwrap_or_default().into(),
            share: kept.share.clone(),
        };
        self.index(number);
        Some((ticket, ask?))
    }

    /// The dialog that a SUBSCRIBE goes in.
    pub fn dialog_mut(&mut self, ticket: &WatchTicket) -> Option<&mut Dialog> {
        self.watches.get_mut(&ticket.number)?.watch.dialog_mut()
    }

    /// How a SUBSCRIBE ended. What is of a call that is over says nothing.
    pub fn answered(
        &mut self,
        step: &mut WatchStep<'_>,
        ticket: &WatchTicket,
        outcome: AskOutcome,
    ) {
        let kept = self.watches.get(&ticket.number);
        if kept.and_then(|kept| kept.watch.call_id()) != Some(&*ticket.call_id) {
            return;
        }
        let moment = step.moment;
        self.step(step, ticket.number, |watch, out| {
            watch.answered(outcome, moment, out);
        });
    }

    /// The connection with the server is gone.
    pub fn server_away(&mut self, now: Instant) {
        self.away_until.get_or_insert(now + STALE);
    }

    /// It is there again. Whether it remembers anything is asked, 50 a second.
    pub fn server_back(&mut self, now: Instant) {
        self.away_until = None;
        let numbers: Vec<WatchNumber> = self.watches.keys().copied().collect();
        for number in numbers {
            let at = self.paced(now);
            if let Some(kept) = self.watches.get_mut(&number) {
                kept.watch.server_back(at);
                self.index(number);
            }
        }
    }

    /// What time brings.
    pub fn on_time(&mut self, step: &mut WatchStep<'_>) {
        let moment = step.moment;
        if self.away_until.is_some_and(|until| until <= moment.now) {
            self.away_until = None;
            self.of_each(step, |watch, out| watch.server_away(out));
        }
        while let Some((at, number)) = self.alarms.first().copied() {
            if at > moment.now {
                break;
            }
            // Whatever it does, its time is another one then.
            self.alarms.pop_first();
            if let Some(kept) = self.watches.get_mut(&number) {
                kept.indexed.alarm_at = None;
            }
            self.step(step, number, |watch, out| watch.on_time(moment, out));
        }
    }

    /// When [`Self::on_time`] has something to do.
    #[must_use]
    pub fn next_alarm(&self) -> Option<Instant> {
        let alarm = self.alarms.first().map(|(at, _)| *at);
        alarm.into_iter().chain(self.away_until).min()
    }

    /// When [`Self::ask`] has something to give.
    #[must_use]
    pub fn next_ask(&self, may: impl Fn(&SipShare) -> bool) -> Option<Instant> {
        self.asks.next_at(may)
    }

    /// How many there are, and how many of them see somebody.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.watches.len(), self.active)
    }

    fn paced(&mut self, now: Instant) -> Instant {
        let at = self.paced.map_or(now, |paced| paced.max(now));
        self.paced = Some(at + PACE);
        at
    }

    fn begin(
        &mut self,
        step: &mut WatchStep<'_>,
        people: &TwoPeople,
        share: SipShare,
        watch: PresenceWatch,
    ) -> WatchRoom {
        let held = HeldSubscriptions {
            dialogs: 1,
            dialog_bytes: own_bytes(people),
            presence_bytes: 0,
        };
        if !step
            .ledger
            .change(&share, HeldSubscriptions::default(), held)
        {
            return WatchRoom::Full;
        }
        let number = WatchNumber(self.next);
        self.next += 1;
        let people = Arc::new(people.clone());
        self.by_people.insert(Arc::clone(&people), number);
        let kept = KeptWatch {
            people,
            watch,
            share,
            held,
            indexed: WatchIndex::default(),
        };
        self.watches.insert(number, Box::new(kept));
        self.index(number);
        WatchRoom::Taken
    }

    fn of_each(
        &mut self,
        step: &mut WatchStep<'_>,
        mut act: impl FnMut(&mut PresenceWatch, &mut Vec<WatchOutput>),
    ) {
        let numbers: Vec<WatchNumber> = self.watches.keys().copied().collect();
        for number in numbers {
            self.step(step, number, &mut act);
        }
    }

    fn step(
        &mut self,
        step: &mut WatchStep<'_>,
        number: WatchNumber,
        act: impl FnOnce(&mut PresenceWatch, &mut Vec<WatchOutput>),
    ) {
        let Some(kept) = self.watches.get_mut(&number) else {
            return;
        };
        let mut said = Vec::new();
        act(&mut kept.watch, &mut said);
        kept.settle(step.ledger);
        let people = (!said.is_empty()).then(|| TwoPeople::clone(&kept.people));
        if said.contains(&WatchOutput::Forget) {
            self.forget(step.ledger, number);
        } else {
            self.index(number);
        }
        if let Some(people) = people {
            step.events.push(WatchEvent { people, said });
        }
    }

    fn forget(&mut self, ledger: &mut SubscriptionLedger, number: WatchNumber) {
        let Some(kept) = self.watches.remove(&number) else {
            return;
        };
        ledger.release(&kept.share, kept.held);
        self.by_people.remove(&kept.people);
        let none = WatchIndex::default();
        self.reindex((number, &kept.share), kept.indexed, none);
    }

    fn index(&mut self, number: WatchNumber) {
        let Some(kept) = self.watches.get_mut(&number) else {
            return;
        };
        let before = std::mem::take(&mut kept.indexed);
        let known = before.call_id.as_ref();
        let now = WatchIndex {
            call_id: kept.watch.call_id().map(|call_id| {
                let same = known.filter(|known| ***known == *call_id);
                same.map_or_else(|| call_id.into(), Arc::clone)
            }),
            ask_at: kept.watch.ask_at(),
            alarm_at: kept.watch.alarm_at(),
            standing: kept.watch.standing(),
        };
        let share = kept.share.clone();
        let now = self.reindex((number, &share), before, now);
        if let Some(kept) = self.watches.get_mut(&number) {
            kept.indexed = now;
        }
    }

    fn reindex(
        &mut self,
        (number, share): (WatchNumber, &SipShare),
        before: WatchIndex,
        now: WatchIndex,
    ) -> WatchIndex {
        if before.call_id != now.call_id {
            if let Some(call_id) = before.call_id {
                self.by_call.remove(&call_id);
            }
            if let Some(call_id) = &now.call_id {
                self.by_call.insert(call_id.clone(), number);
            }
        }
        self.asks.set(share, number, before.ask_at, now.ask_at);
        move_due(&mut self.alarms, number, before.alarm_at, now.alarm_at);
        let is_active = |standing| standing == Some(WatchProgress::Active);
        self.active += usize::from(is_active(now.standing));
        self.active -= usize::from(is_active(before.standing));
        now
    }
}

impl KeptWatch {
    /// Room for the devices of a document, in place of what is known.
    fn charge(&mut self, ledger: &mut SubscriptionLedger, document: &ReadPresence) -> bool {
        let mut held = self.held;
        held.presence_bytes = held.presence_bytes.max(bytes_of(&document.devices));
        let fits = ledger.change(&self.share, self.held, held);
        if fits {
            self.held = held;
        }
        fits
    }

    /// What is held is what is known, no more.
    fn settle(&mut self, ledger: &mut SubscriptionLedger) {
        let mut held = self.held;
        held.presence_bytes = self.watch.presence_bytes();
        let own = own_bytes(&self.people);
        held.dialog_bytes = own + self.watch.dialog().map_or(0, Dialog::bytes);
        let fits = ledger.change(&self.share, self.held, held);
        debug_assert!(fits, "what grows was charged before");
        if fits {
            self.held = held;
        }
    }
}

fn own_bytes(people: &TwoPeople) -> usize {
    WATCH_OVERHEAD + people.bytes()
}

fn without_notes(document: &mut ReadPresence) {
    for device in &mut document.devices {
        if let Availability::Available { notes, .. } = &mut device.availability {
            notes.clear();
        }
    }
}
