//! What the field reported (`docs/field-cases.md`), each case named after its id. One file a group.

#![allow(clippy::unwrap_used)]

mod dns;
mod egress;
mod endings;
mod flood;
mod names;
mod peers;
mod stanzas;
mod tls;
mod verification;

use serde_json::json;
use xmpp_edge_tests::rig::{Plan, Shared};

/// Partners that may prove themselves by dialback; the fourth is a wildcard too. A stranger hears of what
/// failed after half the time that he has.
static RIG: Shared = Shared::new(Plan {
    partner: |test| match test {
        4 => json!({ "saslNegotiation": "Optional", "additionalDomains": ["*.f04.example"] }),
        _ => json!({ "saslNegotiation": "Optional" }),
    },
    settings: || json!({ "streamEstablishmentTimeoutSeconds": 10 }),
    ..Plan::standard("f", 8)
});
