//! The sidecar on a host of its own, as section 7 of the design and the guide have it: real servers, real
//! processes, no cluster.
#![allow(clippy::unwrap_used)]

mod alone;
mod faults;
mod figures;
mod guide;
mod kills;
mod load;
mod loss;
mod names;
mod outage;
mod renewals;
mod replaced;
mod rolling;
mod scene;
mod servers;
mod several;
mod stanzas;
mod told;
mod two_hosts;
