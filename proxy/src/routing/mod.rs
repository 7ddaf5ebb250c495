//! Pairs, queues, custody, bounces, backoff: how what passed reaches its next hop.

pub mod acknowledgement;
pub mod backoff;
pub mod batch;
pub mod budget;
mod carrier;
pub mod dial_ticket;
pub mod failure;
pub mod route;
pub mod route_slots;
pub mod router;
pub mod routes;
mod unanswered;
pub mod wake;
