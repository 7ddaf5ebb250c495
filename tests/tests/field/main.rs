//! What people reported from the field, by the ids of their cases: real shapes of stanzas, real peers'
//! quirks. One file a group.

#![allow(clippy::unwrap_used)]

mod peers;
mod stanzas;
