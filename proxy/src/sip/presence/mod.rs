//! Presence stanzas and what devices say, each as the other (RFC 8048 section 6, RFC 6121 section 4).

mod from_stanza;
#[cfg(test)]
mod tests;
mod to_stanza;

pub use self::{
    from_stanza::{SaidPresence, said_by},
    to_stanza::{PresenceType, device_stanza, presence_stanza},
};

mod ns {
    /// XEP-0203.
    pub(super) const DELAY: &str = "urn:xmpp:delay";
}
