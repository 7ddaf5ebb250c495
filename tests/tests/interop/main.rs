//! Real servers, Prosody and ejabberd: with each other, with the scripted peer, and through the edge.

#![allow(clippy::unwrap_used)]

mod direct;
mod international;
mod live;
mod pairings;
mod peer_against_prosody;
