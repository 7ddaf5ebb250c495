//! SIP as a gateway to it has to read and write it, and what each side's words are on the other.
//!
//! What is here knows no socket, no clock, no partner and no policy: bytes, values and times in, bytes and
//! values out. Everything that a SIP server sends is bounded here. [`wire`] frames and checks, [`address`]
//! maps users, [`code`] maps answers.
//! [`body`] is what a MESSAGE carries, [`message`] the same as a stanza, [`pidf`] what a NOTIFY carries,
//! [`compose`] writes requests.
//! [`connection`] reads one connection, [`transaction`] knows whose answer is whose, [`turns`] whose message
//! is next, [`subscription`] what follows from how a subscription stands. [`watcher`] watches users of SIP for
//! users of partners, [`notifier`] serves users of SIP who watch; [`dialog`] is what their requests go in, [`presence`]
//! what they say in stanzas, [`ledger`] what they may take, [`share`] how much of it each partner. [`session`] is how clients of Lync write.

pub use xmpp_edge_crds::sip_address as address;

pub mod body;
pub mod code;
pub mod compose;
pub mod connection;
pub mod dialog;
mod due;
pub mod ledger;
pub mod message;
pub mod method;
pub mod notifier;
pub mod pidf;
pub mod presence;
pub mod session;
pub mod share;
pub mod subscription;
pub mod transaction;
pub mod turns;
pub mod watcher;
pub mod wire;
