//! What runs beneath the controllers and knows none of them: watches and the store of what they
//! saw, the lease of the leader, the admin port, metrics, Events.

pub mod at_once;
pub mod backoff;
pub mod caches;
pub mod decoded;
pub mod events;
pub mod held_back;
pub mod http;
pub mod leader;
pub mod metrics;
pub mod server;
pub mod server_clock;
pub mod store;
pub mod supervisor;
pub mod watch_name;
