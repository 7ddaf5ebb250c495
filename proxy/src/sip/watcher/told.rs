//! What a watcher was told of somebody's devices, and what is new in the next document.

use super::exchange::WatchOutput;
use crate::sip::pidf::{Availability, Note, ReadDevice, ReadPresence};

/// Beside its texts, what a device takes.
const DEVICE_OVERHEAD: usize = size_of::<ReadDevice>() + 64;
/// Beside its texts, what a note takes.
const NOTE_OVERHEAD: usize = size_of::<Note>() + 32;

/// Devices as the last document had them.
#[derive(Debug, Default)]
pub(super) struct ToldPresence(Vec<ReadDevice>);

impl ToldPresence {
    /// A document, which is the whole state (RFC 3856 section 6.8): who is not in it is gone. One that is `closed` is
    /// told once, though it was never seen (RFC 8048 section 6.3).
    pub(super) fn take(&mut self, document: ReadPresence, out: &mut Vec<WatchOutput>) {
        let before = std::mem::replace(&mut self.0, document.devices);
        let new = self.0.iter().filter(|device| !before.contains(device));
        let new: Vec<_> = new.cloned().map(WatchOutput::Device).collect();
        let stays = |old: &ReadDevice| self.0.iter().any(|it| it.resource == old.resource);
        let left = before.iter().filter(|old| is_available(old) && !stays(old));
        out.extend(left.map(|old| gone(old.resource.clone())));
        out.extend(new);
    }

    /// Nothing of it is true any more.
    pub(super) fn withdraw(&mut self, out: &mut Vec<WatchOutput>) {
        let before = std::mem::take(&mut self.0);
        let left = before.into_iter().filter(is_available);
        out.extend(left.map(|old| gone(old.resource)));
    }

    /// Says again what is known: of one device, or of all that are available. `false`: nothing is.
    pub(super) fn say(&self, resource: Option<&str>, out: &mut Vec<WatchOutput>) -> bool {
        let Some(resource) = resource else {
            return self.say_available(out);
        };
        let known = self.0.iter().find(|device| device.resource == resource);
        out.extend(known.cloned().map(WatchOutput::Device));
        known.is_some()
    }

    /// As [`Self::say`], of all that are available.
    pub(super) fn say_available(&self, out: &mut Vec<WatchOutput>) -> bool {
        let known = self.0.iter().filter(|device| is_available(device));
        out.extend(known.cloned().map(WatchOutput::Device));
        self.is_available()
    }

    /// Whether any device is available.
    pub(super) fn is_available(&self) -> bool {
        self.0.iter().any(is_available)
    }

    pub(super) fn bytes(&self) -> usize {
        bytes_of(&self.0)
    }
}

/// What a document's devices take, in bytes.
pub(super) fn bytes_of(devices: &[ReadDevice]) -> usize {
    let of_note = |note: &Note| {
        let language = note.language.as_ref().map_or(0, String::len);
        NOTE_OVERHEAD + language + note.text.len()
    };
    let of_device = |device: &ReadDevice| {
        let notes = match &device.availability {
            Availability::Available { notes, .. } => notes.iter().map(of_note).sum(),
            Availability::Unavailable => 0,
        };
        DEVICE_OVERHEAD + device.resource.len() + notes
    };
    devices.iter().map(of_device).sum()
}

fn is_available(device: &ReadDevice) -> bool {
    device.availability != Availability::Unavailable
}

/// This device is unavailable.
pub(super) fn gone(resource: String) -> WatchOutput {
    WatchOutput::Device(ReadDevice {
        resource,
        availability: Availability::Unavailable,
    })
}
