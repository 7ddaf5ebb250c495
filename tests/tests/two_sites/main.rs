//! An organisation with two sites, each with an edge of its own: what moves when one of them is gone,
//! and that each vouches for the other.
//!
//! Real API servers and their controllers, the operator, real Prosody on both sides, DNS at a real
//! BIND by the operator; the pods are processes on loopback.
#![allow(clippy::unwrap_used)]

mod dialback;
mod failover;
mod scene;
mod way_inside;
