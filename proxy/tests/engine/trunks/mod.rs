//! Trunks between two engines, and between one and whatever a test plays.

mod balancer;
mod claims;
mod drains;
mod ends;
mod engines;
mod hostile;
mod idle;
mod messages;
mod pki;
mod scripted;
mod sending;
mod server_away;
