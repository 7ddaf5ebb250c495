//! Pairs, queues, custody, bounces, backoff: how what passed reaches its next hop.

pub mod acknowledgement;
pub mod backoff;
pub mod batch;
pub mod failure;
pub mod handle;
pub mod route;
pub mod routes;
