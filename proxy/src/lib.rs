//! The data plane: an XMPP server-to-server edge.
//!
//! The folders are the architecture, in the order of a stanza's way; imports go down only:
//! `sidecar, app, admin → stream → trunk → routing → presence → config → policy, contacts → negotiation, sip → tls,
//! dns, dns_view, xml, net → telemetry`. Nothing here knows Kubernetes.

#![cfg_attr(
    not(test),
    deny(
        unreachable_pub,
        missing_debug_implementations,
        clippy::cast_possible_truncation
    )
)]

pub mod admin;
pub mod app;
pub mod arguments;
pub mod config;
pub mod contacts;
pub mod dns;
pub mod dns_view;
pub mod logging;
pub mod negotiation;
pub mod net;
pub mod policy;
pub mod presence;
pub mod probe;
pub mod random;
pub mod remembered;
pub mod routing;
pub mod same_bytes;
pub mod sidecar;
pub mod sip;
pub mod stream;
pub mod telemetry;
pub mod tls;
pub mod trunk;
pub mod xml;
