//! All subscriptions of users of SIP at one server: whose a SUBSCRIBE or an answer is, whose time has come, and what
//! they take.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use thiserror::Error;
use xmpp_edge_crds::edge_config::EndOfSubscription;

use super::{
    dialog::{DialogLife, DocumentForm, NotifierDialog, Notify, NotifyEnd},
    watched::{KnownPresence, NotifierNumber, WatchedDecision, WatchedPair},
    wish::SubscribeWish,
};
use crate::sip::{
    code::StatusCode,
    compose::SentBy,
    dialog::{Dialog, DialogFault},
    due::{SharedDue, move_due},
    ledger::{HeldSubscriptions, SubscriptionLedger},
    presence::SaidPresence,
    share::SipShare,
    turns::TwoPeople,
    wire::{SipRequest, WriteFault},
};

/// Beside its addresses, what a subscription takes.
const DIALOG_OVERHEAD: usize = 640;
/// Most subscriptions of one to another: with one more the oldest ends. Of as many others the end is not told yet.
const MOST_OF_PAIR: usize = 16;

/// What R is asked or told, on behalf of U.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotifierOutput {
    Probe,
    Unsubscribe,
}

/// U and R, and what goes from one to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifierEvent {
    pub people: TwoPeople,
    pub output: NotifierOutput,
}

/// What each step takes, and gives.
#[derive(Debug)]
pub struct NotifierStep<'a> {
    pub ledger: &'a mut SubscriptionLedger,
    pub now: Instant,
    pub events: &'a mut Vec<NotifierEvent>,
}

/// Why a SUBSCRIBE is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum NotifierRefusal {
    #[error(transparent)]
    Dialog(#[from] DialogFault),
    #[error("one of the same Call-ID and tag is there")]
    Merged,
    #[error("as many subscriptions as may be")]
    Full,
}

/// A NOTIFY that is out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifyTicket {
    number: NotifierNumber,
    share: SipShare,
}

impl NotifyTicket {
    #[must_use]
    pub fn number(&self) -> NotifierNumber {
        self.number
    }

    /// On whose account it is.
    #[must_use]
    pub fn share(&self) -> &SipShare {
        &self.share
    }
}

/// How a NOTIFY ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyOutcome {
    /// Retry-After: the pause that was asked for.
    Answered {
        code: StatusCode,
        retry_after: Option<Duration>,
    },
    Unanswered,
    /// Its connection ended.
    Lost,
}

/// All of one server.
#[derive(Debug)]
pub struct Notifiers {
    /// Most bytes of a document.
    form: DocumentForm,
    dialogs: HashMap<NotifierNumber, NotifierDialog>,
    /// By Call-ID and the tag of who subscribed.
    by_call: HashMap<(Box<str>, Box<str>), NotifierNumber>,
    pairs: HashMap<TwoPeople, WatchedPair>,
    notifies: SharedDue<NotifierNumber>,
    ends: BTreeSet<(Instant, NotifierNumber)>,
    next: u64,
    active: usize,
}

impl Notifiers {
    /// For documents of this form.
    #[must_use]
    pub fn new(form: DocumentForm) -> Self {
        Self {
            form,
            dialogs: HashMap::new(),
            by_call: HashMap::new(),
            pairs: HashMap::new(),
            notifies: SharedDue::default(),
            ends: BTreeSet::new(),
            next: 0,
            active: 0,
        }
    }

    /// A subscription of U to R, as a SUBSCRIBE makes it; `tag` is ours. Nothing is said before [`Self::grant`] or
    /// [`Self::fetch`].
    ///
    /// # Errors
    /// [`NotifierRefusal`].
    pub fn open(
        &mut self,
        step: &mut NotifierStep<'_>,
        people: &TwoPeople,
        request: &SipRequest,
        wish: &SubscribeWish,
        share: SipShare,
        tag: &str,
    ) -> Result<NotifierNumber, NotifierRefusal> {
        let dialog = Dialog::of_request(request, tag, 0)?;
        let key = key_of(request);
        if self.by_call.contains_key(&key) {
            return Err(NotifierRefusal::Merged);
        }
        let of_pair = self.pairs.get(people);
        if of_pair.is_some_and(|pair| pair.dialogs.len() >= 2 * MOST_OF_PAIR) {
            return Err(NotifierRefusal::Full);
        }
        let event_id = wish.event_id.clone();
        let held = HeldSubscriptions {
            dialogs: 1,
            dialog_bytes: dialog_bytes(event_id.as_deref(), dialog.bytes()),
            presence_bytes: 0,
        };
        let nothing = HeldSubscriptions::default();
        if !step.ledger.change(&share, nothing, held) {
            return Err(NotifierRefusal::Full);
        }
        self.make_room(people, step.now);
        let number = NotifierNumber(self.next);
        self.next += 1;
        self.by_call.insert(key, number);
        let pair = self
            .pairs
            .entry(people.clone())
            .or_insert_with(|| WatchedPair {
                decision: WatchedDecision::Unasked,
                known: KnownPresence::default(),
                dialogs: Vec::new(),
                asked: Box::default(),
                share: share.clone(),
                held: nothing,
            });
        pair.dialogs.push(number);
        self.active += usize::from(pair.decision == WatchedDecision::Active);
        let dialog = NotifierDialog::new(people.clone(), dialog, event_id, share, held);
        self.dialogs.insert(number, dialog);
        Ok(number)
    }

    /// R is asked by the stanza of this id: the subscription stands for so many seconds.
    pub fn grant(&mut self, number: NotifierNumber, seconds: u32, asked: &str, now: Instant) {
        let Some(people) = self.people(number).cloned() else {
            return;
        };
        if let Some(pair) = self.pairs.get_mut(&people) {
            if pair.decision == WatchedDecision::Unasked {
                pair.decision = WatchedDecision::Pending;
            }
            pair.asked = asked.into();
        }
        self.edit(number, |dialog| dialog.granted(seconds, now));
    }

    /// U only wants to know how it stands. Where nothing is known R is probed, and presence waited for.
    pub fn fetch(&mut self, step: &mut NotifierStep<'_>, number: NotifierNumber) {
        let now = step.now;
        let Some(people) = self.people(number).cloned() else {
            return;
        };
        let pair = self.pairs.get(&people);
        let waits = pair.is_some_and(|pair| {
            !pair.known.is_heard() && pair.decision != WatchedDecision::Pending
        });
        if waits {
            self.edit(number, |dialog| dialog.waits(now));
            step.events.push(NotifierEvent {
                people,
                output: NotifierOutput::Probe,
            });
        } else {
            self.edit(number, |dialog| dialog.end(NotifyEnd::Fetched, now));
        }
    }

    /// It is not taken after all, and nobody hears of it.
    pub fn discard(&mut self, ledger: &mut SubscriptionLedger, number: NotifierNumber) {
        self.remove(ledger, number);
    }

    /// A further SUBSCRIBE in a dialog: how many seconds are granted.
    ///
    /// # Errors
    /// [`DialogFault`].
    pub fn refresh(
        &mut self,
        step: &mut NotifierStep<'_>,
        request: &SipRequest,
        wish: &SubscribeWish,
        at_end: EndOfSubscription,
    ) -> Result<u32, DialogFault> {
        let number = self.by_call.get(&key_of(request)).copied();
        let number = number.ok_or(DialogFault::Other)?;
        let dialog = self.dialogs.get_mut(&number).ok_or(DialogFault::Other)?;
        if matches!(dialog.life, DialogLife::Over(_)) {
            return Err(DialogFault::Other);
        }
        let NotifierDialog {
            dialog: own,
            event_id,
            share,
            held,
            ..
        } = dialog;
        let mut after = *held;
        own.take(request, |bytes| {
            after.dialog_bytes = dialog_bytes(event_id.as_deref(), bytes);
            step.ledger.change(share, *held, after)
        })?;
        *held = after;
        let (now, people) = (step.now, dialog.people.clone());
        if wish.seconds == 0 {
            self.time_over(step, number, at_end);
            return Ok(0);
        }
        self.edit(number, |dialog| dialog.granted(wish.seconds, now));
        let pair = self.pairs.get(&people);
        if pair
            .is_some_and(|pair| pair.decision == WatchedDecision::Active && !pair.known.is_heard())
        {
            step.events.push(NotifierEvent {
                people,
                output: NotifierOutput::Probe,
            });
        }
        Ok(wish.seconds)
    }

    /// R lets U watch. An automatic answer brings no presence: it is asked for (RFC 6121 section 3.1.3).
    pub fn subscribed(&mut self, step: &mut NotifierStep<'_>, people: &TwoPeople) {
        let Some(pair) = self.pairs.get_mut(people) else {
            return;
        };
        if pair.decision == WatchedDecision::Unasked {
            return;
        }
        let was_pending = pair.decision == WatchedDecision::Pending;
        if was_pending {
            pair.decision = WatchedDecision::Active;
            self.active += pair.dialogs.len();
        }
        let is_heard = pair.known.is_heard();
        if was_pending {
            let now = step.now;
            self.edit_all(people, |dialog| dialog.decided(now));
        }
        if was_pending || !is_heard {
            step.events.push(NotifierEvent {
                people: people.clone(),
                output: NotifierOutput::Probe,
            });
        }
    }

    /// R does not let U watch, or not any more; or is not reached.
    pub fn ended(&mut self, people: &TwoPeople, end: NotifyEnd, now: Instant) {
        let Some(pair) = self.pairs.get_mut(people) else {
            return;
        };
        if pair.decision == WatchedDecision::Active {
            self.active -= pair.dialogs.len();
        }
        pair.decision = WatchedDecision::Unasked;
        pair.known.forget();
        self.edit_all(people, |dialog| dialog.end(end, now));
    }

    /// An error came for what was asked last of R.
    pub fn failed(&mut self, people: &TwoPeople, id: &str, code: StatusCode, now: Instant) {
        let pair = self.pairs.get(people);
        if pair.is_none_or(|pair| pair.asked.is_empty() || *pair.asked != *id) {
            return;
        }
        let end = match code.get() {
            404 => NotifyEnd::NoResource,
            403 => NotifyEnd::Rejected,
            _ => NotifyEnd::GaveUp,
        };
        self.ended(people, end, now);
    }

    /// What R says of themselves. `false`: nobody watches them, or there is no room for more.
    pub fn heard(
        &mut self,
        step: &mut NotifierStep<'_>,
        people: &TwoPeople,
        said: SaidPresence,
    ) -> bool {
        let Some(pair) = self.pairs.get_mut(people) else {
            return false;
        };
        let before = pair.known.bytes();
        let changed = pair.known.take(said);
        let fits = pair.charge(step.ledger);
        if !fits {
            // What is not counted is not kept; a probe brings it back once there is room.
            debug_assert!(pair.known.bytes() > before, "less always fits");
            pair.known.forget();
            pair.settle(step.ledger);
        }
        if changed && pair.decision != WatchedDecision::Pending {
            let now = step.now;
            self.edit_all(people, |dialog| match dialog.life {
                DialogLife::Fetch(_) => dialog.end(NotifyEnd::Fetched, now),
                _ => dialog.changed(now),
            });
        }
        changed && fits
    }

    /// Policy changed: those that it does not let be end.
    pub fn follow_policy(&mut self, now: Instant, is_allowed: impl Fn(&TwoPeople) -> bool) {
        let forbidden = self.pairs.keys().filter(|people| !is_allowed(people));
        let forbidden: Vec<TwoPeople> = forbidden.cloned().collect();
        for people in forbidden {
            self.ended(&people, NotifyEnd::Rejected, now);
        }
    }

    /// The edge ends: who subscribes again finds another.
    pub fn end_all(&mut self, now: Instant) {
        let numbers: Vec<NotifierNumber> = self.dialogs.keys().copied().collect();
        for number in numbers {
            self.edit(number, |dialog| dialog.end(NotifyEnd::Deactivated, now));
        }
    }

    /// What time brings.
    pub fn on_time(&mut self, step: &mut NotifierStep<'_>, at_end: EndOfSubscription) {
        while let Some((at, number)) = self.ends.first().copied() {
            if at > step.now {
                break;
            }
            self.time_over(step, number, at_end);
        }
    }

    /// The next NOTIFY whose time has come, of those accounts that `may`; these take turns.
    ///
    /// # Errors
    /// [`WriteFault`]: the subscription is gone then.
    pub fn notify(
        &mut self,
        ledger: &mut SubscriptionLedger,
        contact: &str,
        by: SentBy<'_>,
        now: Instant,
        may: impl Fn(&SipShare) -> bool,
    ) -> Option<Result<(NotifyTicket, Vec<u8>), WriteFault>> {
        let number = self.notifies.next(now, may)?;
        let dialog = self.dialogs.get(&number)?;
        let (people, share) = (dialog.people.clone(), dialog.share.clone());
        let pair = self.pairs.get(&people)?;
        let (decision, known) = (pair.decision, &pair.known);
        let (state, document) = dialog.says(decision, known, self.form);
        let version = pair.known.version();
        let mut written = None;
        self.edit(number, |dialog| {
            let expires = dialog.sent(version, now);
            let notify = Notify {
                state,
                expires,
                document,
            };
            let event_id = dialog.event_id.as_deref();
            written = Some(notify.write(&mut dialog.dialog, event_id, contact, by));
        });
        match written? {
            Ok(bytes) => Some(Ok((NotifyTicket { number, share }, bytes))),
            Err(fault) => {
                self.remove(ledger, number);
                Some(Err(fault))
            }
        }
    }

    /// How a NOTIFY ended.
    pub fn notified(
        &mut self,
        ledger: &mut SubscriptionLedger,
        number: NotifierNumber,
        outcome: NotifyOutcome,
        now: Instant,
    ) {
        let is_gone = match outcome {
            NotifyOutcome::Lost => {
                self.edit(number, |dialog| dialog.again(now));
                false
            }
            // RFC 6665 section 4.2.2; a proxy on the way says 408 for nothing.
            NotifyOutcome::Unanswered => true,
            NotifyOutcome::Answered { code, retry_after } => match code.get() {
                404 | 405 | 408 | 410 | 416 | 480..=485 | 489 | 501 | 604 => true,
                _ if code.is_success() => {
                    self.edit(number, NotifierDialog::taken);
                    false
                }
                _ => {
                    self.edit(number, |dialog| dialog.refused(retry_after, now));
                    false
                }
            },
        };
        let Some(dialog) = self.dialogs.get(&number) else {
            return;
        };
        let people = dialog.people.clone();
        if is_gone || dialog.is_done() {
            self.remove(ledger, number);
        }
        self.forget_gone(ledger, &people);
    }

    /// When [`Self::on_time`] has something to do.
    #[must_use]
    pub fn next_end(&self) -> Option<Instant> {
        self.ends.first().map(|(at, _)| *at)
    }

    /// When [`Self::notify`] has something to give.
    #[must_use]
    pub fn next_notify(&self, may: impl Fn(&SipShare) -> bool) -> Option<Instant> {
        self.notifies.next_at(may)
    }

    /// How many there are, and how many of them R lets watch.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.dialogs.len(), self.active)
    }

    fn people(&self, number: NotifierNumber) -> Option<&TwoPeople> {
        self.dialogs.get(&number).map(|dialog| &dialog.people)
    }

    /// One more of these people comes: where there are as many as may be, the oldest ends.
    fn make_room(&mut self, people: &TwoPeople, now: Instant) {
        let own = self.pairs.get(people).into_iter();
        let standing = own.flat_map(|pair| &pair.dialogs).filter(|number| {
            let dialog = self.dialogs.get(*number);
            dialog.is_some_and(|it| !matches!(it.life, DialogLife::Over(_)))
        });
        let standing: Vec<NotifierNumber> = standing.copied().collect();
        if let [oldest, ..] = standing[..]
            && standing.len() >= MOST_OF_PAIR
        {
            self.edit(oldest, |dialog| dialog.end(NotifyEnd::Deactivated, now));
        }
    }

    /// Who subscribed does not want it any more, or did not refresh it.
    fn time_over(
        &mut self,
        step: &mut NotifierStep<'_>,
        number: NotifierNumber,
        at_end: EndOfSubscription,
    ) {
        let now = step.now;
        let Some(dialog) = self.dialogs.get(&number) else {
            return;
        };
        let (life, people) = (dialog.life, dialog.people.clone());
        let end = match life {
            DialogLife::Fetch(_) => NotifyEnd::Fetched,
            _ => NotifyEnd::Timeout,
        };
        self.edit(number, |dialog| dialog.end(end, now));
        let mut others = self
            .pairs
            .get(&people)
            .into_iter()
            .flat_map(|it| &it.dialogs);
        let is_last = others.all(|other| {
            let other = self.dialogs.get(other);
            other.is_none_or(|it| matches!(it.life, DialogLife::Over(_)))
        });
        if is_last && end == NotifyEnd::Timeout && at_end == EndOfSubscription::Unsubscribe {
            step.events.push(NotifierEvent {
                people,
                output: NotifierOutput::Unsubscribe,
            });
        }
    }

    fn edit_all(&mut self, people: &TwoPeople, mut act: impl FnMut(&mut NotifierDialog)) {
        let pair = self.pairs.get(people);
        let numbers = pair.map_or_else(Vec::new, |pair| pair.dialogs.clone());
        for number in numbers {
            self.edit(number, &mut act);
        }
    }

    fn edit(&mut self, number: NotifierNumber, act: impl FnOnce(&mut NotifierDialog)) {
        let Some(dialog) = self.dialogs.get_mut(&number) else {
            return;
        };
        let before = (dialog.notify_at(), dialog.ends_at());
        act(dialog);
        let after = (dialog.notify_at(), dialog.ends_at());
        self.notifies.set(&dialog.share, number, before.0, after.0);
        move_due(&mut self.ends, number, before.1, after.1);
    }

    fn remove(&mut self, ledger: &mut SubscriptionLedger, number: NotifierNumber) {
        let Some(dialog) = self.dialogs.remove(&number) else {
            return;
        };
        self.notifies
            .set(&dialog.share, number, dialog.notify_at(), None);
        move_due(&mut self.ends, number, dialog.ends_at(), None);
        ledger.release(&dialog.share, dialog.held);
        self.by_call.remove(&dialog.dialog.remote_key());
        let Some(pair) = self.pairs.get_mut(&dialog.people) else {
            return;
        };
        pair.dialogs.retain(|it| *it != number);
        self.active -= usize::from(pair.decision == WatchedDecision::Active);
        if pair.dialogs.is_empty() {
            ledger.release(&pair.share, pair.held);
            self.pairs.remove(&dialog.people);
        }
    }

    /// Who went is `closed` once for each who watches.
    fn forget_gone(&mut self, ledger: &mut SubscriptionLedger, people: &TwoPeople) {
        let Some(pair) = self.pairs.get_mut(people) else {
            return;
        };
        let dialogs = pair.dialogs.iter().filter_map(|it| self.dialogs.get(it));
        let told = dialogs.map(NotifierDialog::told).min();
        pair.known.forget_gone(told.unwrap_or_default());
        pair.settle(ledger);
    }
}

/// What a subscription takes whose dialog takes so many bytes: its key stands in an index, too.
fn dialog_bytes(event_id: Option<&str>, dialog: usize) -> usize {
    DIALOG_OVERHEAD + event_id.map_or(0, str::len) + 2 * dialog
}

fn key_of(request: &SipRequest) -> (Box<str>, Box<str>) {
    let tag = request.from.tag().unwrap_or_default();
    (request.call_id.as_str().into(), tag.into())
}
