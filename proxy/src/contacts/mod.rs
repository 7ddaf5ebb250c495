//! Whom a user has added: what partners of type PublicUnverified may reach.
//!
//! The index lives in memory and answers on the path of a stanza; a store ([`ContactStore`]) loads
//! it at start and takes changes behind it. Contacts are begun for partners of type
//! PublicUnverified only, and where a server of users of SIP lets somebody watch them, which a restarted edge has to
//! know ([`Contacts::followed`]); but ends are followed whatever the type is now, so that a partner that
//! changes its type and back finds no contact that was ended meanwhile. What older types never
//! recorded comes by itself: servers probe and announce at login.

mod database;
mod embedded;
mod holders;
mod index;
mod pending;
mod postgres;
mod state;
mod store;

pub use database::{Database, DatabaseError};
pub use holders::ContactHolders;
pub use index::{
    Contacts, MAX_CONTACT_BYTES, MAX_CONTACT_BYTES_PER_USER, MAX_CONTACTS, MAX_CONTACTS_NOT_NEEDED,
    MAX_CONTACTS_PER_USER, RecordError,
};
pub use state::{Contact, ContactEvent, Transition};
pub use store::{ContactStore, StoreError, StoreHealth};

/// Something to remember about two people; addresses are bare and prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContactChange {
    pub user: Box<str>,
    pub remote: Box<str>,
    pub event: ContactEvent,
}
