//! Pairs, queues, custody, bounces, backoff: how what passed reaches its next hop.

pub mod backoff;
pub mod batch;
pub mod crossed;
pub mod custody;
pub mod failure;
pub mod outlet;
pub mod queue;
pub mod routes;
