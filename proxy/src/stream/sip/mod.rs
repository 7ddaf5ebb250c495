//! Links to SIP servers inside: one task for each gateway of mode `Sip`, in place of the streams of other gateways.
//!
//! A link takes what waits for its domains out of the very queues that streams take from, and what comes by SIP goes
//! the very way of any stanza: [`relay`](super::relay). Nothing of policy, custody or bounds is decided here. The link
//! does I/O and keeps time; what is said is known to [`crate::sip`].

pub mod accept;
mod accepted_slot;
mod answering;
mod asked;
mod asking;
mod connection;
mod connections;
mod dial;
mod dialled;
pub mod figures;
pub mod hand_over;
mod incoming;
mod inquiries;
mod inside_error;
mod intake;
pub mod link;
mod link_numbers;
mod link_settings;
mod linked_stanza;
pub mod links;
mod outgoing;
mod outward;
mod phase;
mod presence;
mod server_notes;
mod sessions;
mod silent_servers;
mod typing;
mod users_watching;
mod watching_partners;
