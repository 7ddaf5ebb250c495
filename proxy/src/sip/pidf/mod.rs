//! Presence as PIDF carries it (RFC 3863, 4480, 8048 section 6): what a device says of its user, read from
//! a document and written into one.

mod read;
#[cfg(test)]
mod tests;
mod write;

use jiff::Timestamp;

pub use self::{
    read::{PidfFault, ReadPresence, read},
    write::{WrittenPresence, write},
};

/// Media type of a document: what is asked for, and sent.
pub const MEDIA_TYPE: &str = "application/pidf+xml";

/// Most devices of one user, read or written.
pub const MAX_DEVICES: usize = 10;
/// Most languages in which a device has a note.
pub const MAX_LANGUAGES: usize = 3;
/// Most characters of a note.
pub const MAX_NOTE_CHARACTERS: usize = 1_024;

mod ns {
    /// RFC 3863 section 4.2.2.
    pub(super) const PIDF: &str = "urn:ietf:params:xml:ns:pidf";
    /// RFC 4479 section 5.
    pub(super) const DATA_MODEL: &str = "urn:ietf:params:xml:ns:pidf:data-model";
    /// RFC 4480 section 8.
    pub(super) const RPID: &str = "urn:ietf:params:xml:ns:pidf:rpid";
    /// Of its drafts, which clients still write.
    pub(super) const RPID_STATUS: &str = "urn:ietf:params:xml:ns:pidf:status:rpid-status";
}

/// What somebody does, as `<show/>` says it (RFC 6121 section 4.7.2.1). Without one they are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Show {
    Chat,
    Away,
    ExtendedAway,
    DoNotDisturb,
}

impl Show {
    const ALL: [Self; 4] = [
        Self::Chat,
        Self::Away,
        Self::ExtendedAway,
        Self::DoNotDisturb,
    ];

    /// The text of `<show/>`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Away => "away",
            Self::ExtendedAway => "xa",
            Self::DoNotDisturb => "dnd",
        }
    }

    /// `None` for a text that means nothing.
    #[must_use]
    pub fn of_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == text)
    }
}

/// A note, or `<status/>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// A language tag (RFC 5646), where it is known.
    pub language: Option<String>,
    /// 1 to 1,024 characters.
    pub text: String,
}

/// Whether somebody can be reached on a device, and what it says of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Availability {
    Available {
        show: Option<Show>,
        /// At most three, each of another language.
        notes: Vec<Note>,
        /// 0 to 127, as of `<priority/>`; below 0 is not carried.
        priority: u8,
    },
    Unavailable,
}

/// A device of a user of SIP: who a stanza is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadDevice {
    /// A resource, as one may be: never empty.
    pub resource: String,
    pub availability: Availability,
}

/// A device of a user of XMPP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedDevice {
    pub resource: String,
    pub availability: Availability,
    /// When it came to be so.
    pub since: Timestamp,
}

/// A resource of a text that cannot be one, or the other way round: `t-` and 16 digits of its SHA-256.
fn stand_in(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    format!(
        "t-{}",
        data_encoding::HEXLOWER.encode(&digest.as_ref()[..8])
    )
}
