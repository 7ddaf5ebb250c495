//! The control plane of controlled XMPP federation: it compiles the kinds into one `EdgeConfig` per
//! pool, and provides certificates. It must never know XMPP on the wire; only [`standalone`] links
//! the proxy in.

#![cfg_attr(
    not(test),
    deny(
        unreachable_pub,
        missing_debug_implementations,
        clippy::cast_possible_truncation
    )
)]

pub mod cli;
pub mod compile;
pub mod controllers;
pub mod dns;
pub mod lync;
pub mod page;
pub mod proxy_status;
pub mod runtime;
pub mod secrets;
pub mod sidecar;
pub mod standalone;
pub mod status;
mod text;
