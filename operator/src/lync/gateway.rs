//! XmppGatewayConfiguration → `spec.settings` of an EdgePool, whose rest Lync knows elsewhere.

use serde_json::{Map, json};
use xmpp_edge_crds::edge_config::Settings;

use super::{Draft, record::Record};

/// Fields of a pool that the export cannot tell.
const OPEN: [&str; 5] = [
    "spec.site",
    "spec.domains",
    "spec.accessEdge",
    "spec.gateways",
    "spec.certificate",
];

/// Adds a pool that holds the settings; a person adds the rest.
pub(super) fn import(record: &Record, draft: &mut Draft) {
    let mut warnings = vec![format!(
        "the export tells the settings alone: add {} before applying it",
        OPEN.join(", ")
    )];
    let defaults = Settings::default();
    // Lync's name, ours, bounds of ours, default of both.
    let limits: [(&str, &str, std::ops::RangeInclusive<i64>, u32); 5] = [
        (
            "ConnectionLimit",
            "connectionLimit",
            1..=100_000,
            defaults.connection_limit,
        ),
        (
            "PartnerConnectionLimit",
            "partnerConnectionLimit",
            1..=100_000,
            defaults.partner_connection_limit,
        ),
        (
            "KeepAliveInterval",
            "keepAliveIntervalSeconds",
            5..=86_400,
            defaults.keep_alive_interval_seconds,
        ),
        (
            "StreamEstablishmentTimeout",
            "streamEstablishmentTimeoutSeconds",
            1..=3_600,
            defaults.stream_establishment_timeout_seconds,
        ),
        (
            "StreamInactivityTimeout",
            "streamInactivityTimeoutSeconds",
            10..=604_800,
            defaults.stream_inactivity_timeout_seconds,
        ),
    ];
    let mut settings = Map::new();
    for (theirs, ours, range, default) in limits {
        if record.get(theirs).is_none() {
            continue;
        }
        match record.number(theirs) {
            Some(value) if range.contains(&value) => {
                settings.insert(ours.into(), json!(value));
            }
            Some(value) => warnings.push(format!(
                "{theirs} is {value}; {ours} goes from {} to {}: the default {default} stays",
                range.start(),
                range.end()
            )),
            None => warnings.push(format!(
                "{theirs} is no number: the default {default} of {ours} stays"
            )),
        }
    }
    if let Some(log) = record.bool("EnableLoggingAllMessageBodies") {
        settings.insert("logMessageBodies".into(), json!(log));
    }
    if record.get("SubscriptionRefreshInterval").is_some() {
        warnings.push(
            "SubscriptionRefreshInterval has no equivalent: presence is followed by the servers"
                .into(),
        );
    }
    if record
        .get("DialbackPassphrase")
        .is_some_and(|_| record.text("DialbackPassphrase").is_some())
    {
        // The passphrase itself is never shown, nor written.
        warnings.push(
            "DialbackPassphrase was left out: dialback keys are made from a generated secret; to \
             share one, put it into a Secret (key `secret`) and name that in \
             spec.settings.dialbackSecretRef"
                .into(),
        );
    }
    draft.add(
        json!({
            "apiVersion": "xmpp-edge.dev/v1alpha1",
            "kind": "EdgePool",
            "metadata": { "name": "lync-import" },
            "spec": { "settings": settings },
        }),
        warnings,
        &OPEN,
    );
}
