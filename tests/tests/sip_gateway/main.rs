//! SIP-01 to SIP-50: a gateway of mode `Sip` between partners and scripted SIP servers, or a real Kamailio.

mod by_records;
mod certificate;
mod connections;
mod edits;
mod faults;
mod inwards;
mod kamailio;
mod kamailio_presence;
mod kamailio_sessions;
mod lync;
mod lync_invites;
mod neighbours;
mod outwards;
mod presence;
mod server;
mod shown;
mod stage;
