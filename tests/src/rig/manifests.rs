//! The manifests and DNS records of a rig.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{BOB, DOWN, DOWN_HOST, FQDN, GOOD, INSIDE_HOST, OWN, Plan, SECOND, SECOND_HOST};
use crate::{
    edge::{manifest, texts},
    lab::Lab,
    pki::Usage,
    servers::S2S_PORT,
};

/// Publishes `_xmpp-server` of `domain` at this address.
pub(super) fn publish(lab: &Lab, domain: &str, host: u8) {
    let target = format!("xmpp.{domain}");
    lab.dns().host(&target, lab.ip(host));
    lab.dns().xmpp_server(domain, 0, 0, S2S_PORT, &target);
}

/// All objects of the plan.
pub(super) fn manifests(lab: &Lab, plan: &Plan) -> Vec<Value> {
    let certificate = lab
        .authority()
        .issue(&[OWN, SECOND, DOWN, FQDN], Usage::ServerAndClientAuth);
    let gateway = |domain: &str, host: u8| {
        json!({
            "name": domain,
            "domains": [domain],
            "mode": "Direct",
            "address": format!("{}:{S2S_PORT}", lab.ip(host)),
        })
    };
    let mut pool = json!({
        "site": "here",
        "domains": [OWN, SECOND, DOWN],
        "accessEdge": { "fqdn": FQDN },
        "listeners": { "dns": 53 },
        "gateways": [
            gateway(OWN, INSIDE_HOST),
            gateway(SECOND, SECOND_HOST),
            gateway(DOWN, DOWN_HOST),
        ],
        "certificate": { "secretRef": { "name": "edge-certificate" } },
        "trust": { "caConfigMapRef": { "name": "public-roots", "key": "ca.crt" } },
        "settings": (plan.settings)(),
    });
    merge(&mut pool, (plan.pool)());
    let access = |scope: &str, granted: bool, users: Value| {
        let mut spec = json!({
            "scope": scope,
            "enableFederationAccess": granted,
            "enableXmppAccess": granted,
            "enablePublicCloudAccess": granted,
        });
        merge(&mut spec, users);
        spec
    };
    let mut all = vec![
        texts(
            "ConfigMap",
            "public-roots",
            &BTreeMap::from([("ca.crt", lab.authority().certificate())]),
        ),
        texts(
            "Secret",
            "edge-certificate",
            &BTreeMap::from([
                ("tls.crt", certificate.certificate),
                ("tls.key", certificate.key),
            ]),
        ),
        manifest("EdgePool", "edge", pool),
        manifest(
            "XmppFederatedPartner",
            "good",
            json!({ "domain": GOOD, "partnerType": "Federated", "connectionLimit": 1000 }),
        ),
        manifest(
            "ExternalAccessPolicy",
            "everyone",
            access("Global", true, json!({})),
        ),
        manifest(
            "ExternalAccessPolicy",
            "nothing-for-bob",
            access("User", false, json!({ "users": [BOB] })),
        ),
    ];
    all.extend((1..=plan.tests).filter_map(|test| partner(plan, test)));
    all.extend((plan.objects)(lab));
    all
}

/// The partner object of a test; `None` where it has none.
fn partner(plan: &Plan, test: u8) -> Option<Value> {
    let more = (plan.partner)(test);
    if more.is_null() {
        return None;
    }
    let mut spec = json!({ "domain": plan.domain(test), "partnerType": "Federated" });
    merge(&mut spec, more);
    Some(manifest("XmppFederatedPartner", &plan.name(test), spec))
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}
