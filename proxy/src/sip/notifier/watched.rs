//! What is known of somebody outside whom a user of SIP watches.

use crate::sip::{
    ledger::{HeldSubscriptions, SubscriptionLedger},
    pidf::{Availability, MAX_DEVICES, Note, WatchedDevice},
    presence::SaidPresence,
    share::SipShare,
};

/// Beside its texts, what a device takes.
const DEVICE_OVERHEAD: usize = size_of::<KnownDevice>() + 64;
/// Beside its texts, what a note takes.
const NOTE_OVERHEAD: usize = size_of::<Note>() + 32;

/// Which subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NotifierNumber(pub(super) u64);

/// Whether they let themselves be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WatchedDecision {
    /// They were not asked: somebody only wants to know how it stands now.
    Unasked,
    Pending,
    Active,
}

/// Devices of one user, for one who watches them.
#[derive(Debug, Default)]
pub(super) struct KnownPresence {
    devices: Vec<KnownDevice>,
    /// One more with each change; 0 as long as nothing was heard.
    version: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct KnownDevice {
    device: WatchedDevice,
    /// With which change it came to be so.
    version: u64,
}

/// Somebody who watches somebody, on one device or on several.
#[derive(Debug)]
pub(super) struct WatchedPair {
    pub(super) decision: WatchedDecision,
    pub(super) known: KnownPresence,
    pub(super) dialogs: Vec<NotifierNumber>,
    /// Id of what was asked last: an error to it has the same.
    pub(super) asked: Box<str>,
    pub(super) share: SipShare,
    pub(super) held: HeldSubscriptions,
}

impl KnownPresence {
    /// Of one that is more than there may be nothing is kept. Says whether anything changed.
    pub(super) fn take(&mut self, said: SaidPresence) -> bool {
        let version = self.version + 1;
        let changed = match said {
            SaidPresence::NoDevice => {
                for known in &mut self.devices {
                    if is_available(&known.device) {
                        known.device.availability = Availability::Unavailable;
                        known.version = version;
                    }
                }
                true
            }
            SaidPresence::Device(device) => {
                let at = self
                    .devices
                    .iter()
                    .position(|known| known.device.resource == device.resource);
                let known = KnownDevice { device, version };
                match at {
                    Some(at) => {
                        self.devices[at] = known;
                        true
                    }
                    None if self.devices.len() < MAX_DEVICES => {
                        self.devices.push(known);
                        true
                    }
                    // Whoever went makes room.
                    None => match self.devices.iter().position(|it| !is_available(&it.device)) {
                        Some(at) => {
                            self.devices[at] = known;
                            true
                        }
                        None => false,
                    },
                }
            }
        };
        if changed {
            self.version = version;
        }
        changed
    }

    /// Nothing is known any more.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Those who went and of whom everybody was told, up to this change.
    pub(super) fn forget_gone(&mut self, told: u64) {
        self.devices
            .retain(|known| is_available(&known.device) || known.version > told);
    }

    /// What has to be told to who was told of all changes up to this one: who is there, and who went since.
    pub(super) fn since(&self, told: u64) -> Vec<WatchedDevice> {
        let devices = self.devices.iter();
        let told = devices.filter(|it| is_available(&it.device) || it.version > told);
        told.map(|it| it.device.clone()).collect()
    }

    pub(super) fn is_heard(&self) -> bool {
        self.version > 0
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn bytes(&self) -> usize {
        let of_note = |note: &Note| {
            let language = note.language.as_ref().map_or(0, String::len);
            NOTE_OVERHEAD + language + note.text.len()
        };
        let of_device = |known: &KnownDevice| {
            let notes = match &known.device.availability {
                Availability::Available { notes, .. } => notes.iter().map(of_note).sum(),
                Availability::Unavailable => 0,
            };
            DEVICE_OVERHEAD + known.device.resource.len() + notes
        };
        self.devices.iter().map(of_device).sum()
    }
}

impl WatchedPair {
    /// Room for what is known; `false`: there is none.
    pub(super) fn charge(&mut self, ledger: &mut SubscriptionLedger) -> bool {
        let new = HeldSubscriptions {
            presence_bytes: self.known.bytes(),
            ..HeldSubscriptions::default()
        };
        let fits = ledger.change(&self.share, self.held, new);
        if fits {
            self.held = new;
        }
        fits
    }

    /// Less is known than before.
    pub(super) fn settle(&mut self, ledger: &mut SubscriptionLedger) {
        let fits = self.charge(ledger);
        debug_assert!(fits, "less always fits");
    }
}

fn is_available(device: &WatchedDevice) -> bool {
    device.availability != Availability::Unavailable
}
