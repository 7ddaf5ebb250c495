//! The ways to get records into DNS: each takes what the pure part of the room decided and carries it
//! out. What works on a pool's records by one of them is driven by [`controller`](super::controller).

pub mod external_dns;
pub mod pool_records;
pub mod rfc2136;
