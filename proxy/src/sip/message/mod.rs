//! Messages of each side in the other's words (RFC 3428, 7572, 7573): the content alone, not who may send it
//! to whom.

mod from_stanza;
#[cfg(test)]
mod tests;
mod to_stanza;

pub use self::{
    from_stanza::{ChatState, OutgoingMessage, PageMessage, Receipt, Untranslated},
    to_stanza::{IncomingText, StanzaAddresses, received, text_stanza, typing_stanza},
};

mod ns {
    /// XEP-0085.
    pub(super) const CHAT_STATES: &str = "http://jabber.org/protocol/chatstates";
    /// XEP-0184.
    pub(super) const RECEIPTS: &str = "urn:xmpp:receipts";
    /// XEP-0203.
    pub(super) const DELAY: &str = "urn:xmpp:delay";
}
