//! One subscription of a user of SIP: when its next NOTIFY goes, and what it says.

use std::time::{Duration, Instant};

use xmpp_edge_crds::{edge_config::SipDialect, jid::BareJid};

use super::{
    watched::{KnownPresence, WatchedDecision},
    wish::EVENT,
};
use crate::sip::{
    compose::SentBy,
    dialog::Dialog,
    ledger::HeldSubscriptions,
    method::SipMethod,
    pidf::{self, Availability, WatchedDevice},
    share::SipShare,
    turns::TwoPeople,
    wire::{HeaderName, WriteFault},
};

/// Between two NOTIFYs of one subscription (RFC 3856 section 6.10).
const BETWEEN: Duration = Duration::from_secs(5);
/// Longest pause that a server is given that asks for one in refusing a NOTIFY.
const MOST_PAUSE: Duration = Duration::from_secs(60);
/// So often in a row one that was refused for a passing cause goes once more.
const REPEATS: u8 = 3;
/// How long who only asks how it stands waits for presence to come.
const FETCH: Duration = Duration::from_secs(2);
/// What is said to who was given up on for a passing cause, in seconds.
const RETRY_AFTER: u32 = 60;

/// A subscription.
#[derive(Debug)]
pub(super) struct NotifierDialog {
    /// U, who watches, and R.
    pub(super) people: TwoPeople,
    pub(super) dialog: Dialog,
    pub(super) event_id: Option<Box<str>>,
    pub(super) life: DialogLife,
    turn: NotifyTurn,
    /// When the next goes, where one has to.
    owed: Option<Instant>,
    sent: Option<Instant>,
    /// Up to which change of what is known it was told.
    told: u64,
    /// As [`Self::told`], once what is in flight is taken.
    telling: u64,
    /// How many in a row were refused.
    refusals: u8,
    /// The server asked for a pause, until then.
    rests: Option<Instant>,
    pub(super) share: SipShare,
    pub(super) held: HeldSubscriptions,
}

/// How long it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DialogLife {
    /// Nobody said yet that it may be.
    New,
    Until(Instant),
    /// One NOTIFY, once presence came, or at this time.
    Fetch(Instant),
    /// The next NOTIFY is the last.
    Over(NotifyEnd),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NotifyTurn {
    Idle,
    InFlight,
}

/// Why a subscription ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotifyEnd {
    /// Who subscribed does not want it any more, or its time is over.
    Timeout,
    /// It was to be one NOTIFY.
    Fetched,
    /// R, or policy, does not want it.
    Rejected,
    /// There is no R.
    NoResource,
    /// R is not reached.
    GaveUp,
    /// The edge ends: who subscribes again finds another.
    Deactivated,
}

/// What a NOTIFY says of the subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyState {
    Pending,
    Active,
    Terminated(NotifyEnd),
}

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DocumentForm {
    /// Most bytes: of one that is longer the notes go first, then devices.
    bytes: usize,
    dialect: SipDialect,
}

impl DocumentForm {
    #[must_use]
    pub fn new(bytes: usize, dialect: SipDialect) -> Self {
        Self { bytes, dialect }
    }
}

/// A NOTIFY to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    pub state: NotifyState,
    /// Seconds that are left.
    pub expires: u32,
    pub document: Option<Vec<u8>>,
}

impl NotifierDialog {
    pub(super) fn new(
        people: TwoPeople,
        dialog: Dialog,
        event_id: Option<Box<str>>,
        share: SipShare,
        held: HeldSubscriptions,
    ) -> Self {
        Self {
            people,
            dialog,
            event_id,
            life: DialogLife::New,
            turn: NotifyTurn::Idle,
            owed: None,
            sent: None,
            told: 0,
            telling: 0,
            refusals: 0,
            rests: None,
            share,
            held,
        }
    }

    /// It goes on for so many seconds; a NOTIFY follows at once (RFC 6665 section 4.2.1.2).
    pub(super) fn granted(&mut self, seconds: u32, now: Instant) {
        self.life = DialogLife::Until(now + Duration::from_secs(seconds.into()));
        (self.refusals, self.rests) = (0, None);
        self.owed = Some(now);
    }

    /// It waits for presence, for a moment.
    pub(super) fn waits(&mut self, now: Instant) {
        self.life = DialogLife::Fetch(now + FETCH);
    }

    pub(super) fn end(&mut self, end: NotifyEnd, now: Instant) {
        if !matches!(self.life, DialogLife::Over(_)) {
            self.life = DialogLife::Over(end);
            self.owed = Some(now);
        }
    }

    /// What is known is another thing now.
    pub(super) fn changed(&mut self, now: Instant) {
        if let DialogLife::Until(_) = self.life {
            let after = self.sent.map_or(now, |sent| (sent + BETWEEN).max(now));
            let after = self.rests.map_or(after, |rests| rests.max(after));
            self.owed = Some(self.owed.map_or(after, |owed| owed.min(after)));
        }
    }

    /// It is not pending any more: that is said at once.
    pub(super) fn decided(&mut self, now: Instant) {
        if let DialogLife::Until(_) = self.life {
            self.owed = Some(now);
        }
    }

    /// When the next NOTIFY goes.
    pub(super) fn notify_at(&self) -> Option<Instant> {
        match self.turn {
            NotifyTurn::Idle => self.owed,
            NotifyTurn::InFlight => None,
        }
    }

    /// When its time is over.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        match self.life {
            DialogLife::Until(at) | DialogLife::Fetch(at) => Some(at),
            DialogLife::New | DialogLife::Over(_) => None,
        }
    }

    /// One goes now, of all changes up to this one: seconds that are left.
    pub(super) fn sent(&mut self, version: u64, now: Instant) -> u32 {
        self.turn = NotifyTurn::InFlight;
        self.telling = version;
        self.owed = None;
        self.sent = Some(now);
        let left = match self.life {
            DialogLife::Until(at) => at.saturating_duration_since(now),
            _ => Duration::ZERO,
        };
        u32::try_from(left.as_secs()).unwrap_or(u32::MAX)
    }

    /// The last one was taken.
    pub(super) fn taken(&mut self) {
        self.turn = NotifyTurn::Idle;
        self.told = self.telling;
        (self.refusals, self.rests) = (0, None);
    }

    /// The last one was refused for a cause that may pass: what it said is owed still. It goes once more after the pause
    /// that was asked for, a few times; then with the next change or the next refresh.
    pub(super) fn refused(&mut self, pause: Option<Duration>, now: Instant) {
        self.turn = NotifyTurn::Idle;
        // The edge does not wait with its end for a server that takes no NOTIFY.
        let is_end = self.life == DialogLife::Over(NotifyEnd::Deactivated);
        if is_end || self.refusals == REPEATS {
            return;
        }
        self.refusals += 1;
        let at = now + pause.unwrap_or(BETWEEN).clamp(BETWEEN, MOST_PAUSE);
        self.rests = Some(at);
        self.owed = Some(self.owed.map_or(at, |owed| owed.max(at)));
    }

    /// Up to which change of what is known it was told.
    pub(super) fn told(&self) -> u64 {
        self.told
    }

    /// The last one has to go once more.
    pub(super) fn again(&mut self, now: Instant) {
        self.turn = NotifyTurn::Idle;
        self.owed = Some(self.owed.map_or(now, |owed| owed.min(now)));
    }

    /// What the next NOTIFY says; a document only where something was heard (RFC 8048 section 5.3).
    pub(super) fn says(
        &self,
        decision: WatchedDecision,
        known: &KnownPresence,
        form: DocumentForm,
    ) -> (NotifyState, Option<Vec<u8>>) {
        let devices = match self.life {
            DialogLife::Over(NotifyEnd::Timeout) => Some(Vec::new()),
            DialogLife::Over(NotifyEnd::Fetched) => {
                let is_told = decision != WatchedDecision::Pending && known.is_heard();
                is_told.then(|| known.since(u64::MAX))
            }
            DialogLife::Over(_) => None,
            _ => {
                let is_told = decision == WatchedDecision::Active && known.is_heard();
                is_told.then(|| known.since(self.told))
            }
        };
        let state = match (self.life, decision) {
            (DialogLife::Over(end), _) => NotifyState::Terminated(end),
            (_, WatchedDecision::Active) => NotifyState::Active,
            _ => NotifyState::Pending,
        };
        let document = devices.and_then(|devices| document(&self.people.to, devices, form));
        (state, document)
    }

    /// Whether nothing more is to be said.
    pub(super) fn is_done(&self) -> bool {
        let is_over = matches!(self.life, DialogLife::Over(_));
        is_over && self.turn == NotifyTurn::Idle && self.owed.is_none()
    }
}

impl Notify {
    /// The whole request.
    pub(super) fn write(
        &self,
        dialog: &mut Dialog,
        event_id: Option<&str>,
        contact: &str,
        by: SentBy<'_>,
    ) -> Result<Vec<u8>, WriteFault> {
        let event = match event_id {
            Some(id) => format!("{EVENT};id={id}"),
            None => EVENT.to_owned(),
        };
        let writer = dialog
            .begin(SipMethod::Notify, by)?
            .field(HeaderName::Event, &event)?
            .field(
                HeaderName::SubscriptionState,
                &self.state.field(self.expires),
            )?
            .field(HeaderName::Contact, contact)?;
        match &self.document {
            Some(document) => writer.finish_with(pidf::MEDIA_TYPE, document),
            None => Ok(writer.finish()),
        }
    }
}

impl NotifyState {
    fn field(self, expires: u32) -> String {
        match self {
            Self::Pending => format!("pending;expires={expires}"),
            Self::Active => format!("active;expires={expires}"),
            Self::Terminated(end) => match end {
                NotifyEnd::Timeout | NotifyEnd::Fetched => "terminated;reason=timeout".to_owned(),
                NotifyEnd::Rejected => "terminated;reason=rejected".to_owned(),
                NotifyEnd::NoResource => "terminated;reason=noresource".to_owned(),
                NotifyEnd::Deactivated => "terminated;reason=deactivated".to_owned(),
                NotifyEnd::GaveUp => {
                    format!("terminated;reason=giveup;retry-after={RETRY_AFTER}")
                }
            },
        }
    }
}

/// A server may close the connection over what is longer than it reads.
fn document(
    user: &BareJid,
    mut devices: Vec<WatchedDevice>,
    form: DocumentForm,
) -> Option<Vec<u8>> {
    loop {
        // Whom a SUBSCRIBE named has an address in SIP.
        let written = pidf::write(user, &devices, form.dialect).ok()?.document;
        if written.len() <= form.bytes || devices.is_empty() {
            return Some(written);
        }
        let mut had_notes = false;
        for device in &mut devices {
            if let Availability::Available { notes, .. } = &mut device.availability {
                had_notes |= !notes.is_empty();
                notes.clear();
            }
        }
        if !had_notes {
            devices.truncate(devices.len() / 2);
        }
    }
}
