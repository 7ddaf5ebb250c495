//! The whole on a real node: the chart installed by Helm, `examples/cluster` applied, pods of the real
//! images under the restricted profile, a real Prosody inside, real servers outside; and what an
//! administrator does to it while people talk.
#![allow(clippy::unwrap_used)]

mod install;
mod kind;
mod live;
mod monitoring;
mod pods;
mod pool;
mod postgres;
mod sidecar;
mod stage;
mod talk;
mod upgrade;
