#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::{
    compile::compile,
    standalone::{documents, manifests},
};

fn config(sidecar: &Value) -> EdgeConfig {
    let gateway =
        json!({"name": "org", "domains": ["org.example"], "mode": "Sidecar", "sidecar": sidecar});
    let pool = json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool", "metadata": {"name": "hq"},
        "spec": {"site": "hq", "domains": ["org.example"], "accessEdge": {"fqdn": "edge.org.example"},
            "gateways": [gateway], "certificate": {"selfSigned": {}}}});
    let read = documents::read(&pool.to_string()).unwrap();
    let mut gathered = manifests::gather([("a.yaml", read.as_slice())], &manifests::Stored::new());
    let mut world = gathered.worlds.remove("default").unwrap();
    world.namespace = "default".to_owned();
    let mut configs = compile(&world, &BTreeMap::new()).configs;
    configs.remove("hq").unwrap()
}

#[test]
fn keys_of_sidecars_are_the_administrator_s() {
    let key = json!({"name": "prosody-0", "spkiSha256": "0".repeat(64)});
    for (sidecar, part) in [
        (json!({}), "add the key that the sidecar says"),
        (json!({"keys": [key]}), "the listed keys count (prosody-0)"),
    ] {
        let said = diagnostics(&config(&sidecar), &[]);
        assert_eq!(said.len(), 1);
        assert_eq!(said[0].condition, ConditionType::SidecarIdentity);
        assert_eq!((said[0].status, said[0].reason), (true, Reason::NotManaged));
        assert!(said[0].message.contains(part), "{said:?}");
        assert_eq!(
            said[0].severity,
            Severity::Info,
            "it is no news for the log"
        );
    }
}

#[test]
fn a_sidecar_that_is_too_old_is_told_with_both_versions_and_what_to_do() {
    let outdated = OutdatedSidecar {
        gateway: "org".to_owned(),
        address: Some("10.0.0.9".to_owned()),
        text: "the peer's version is 1.1.0, ours 1.3.0".to_owned(),
    };
    let said = diagnostics(&config(&json!({})), &[outdated]);
    let refused = &said[1];
    assert_eq!(refused.condition, ConditionType::GatewayReachable);
    assert_eq!(
        (refused.status, refused.reason),
        (false, Reason::SidecarOutdated)
    );
    for part in ["gateway org", "10.0.0.9", "1.1.0", "1.3.0", "upgrade"] {
        assert!(refused.message.contains(part), "{part}: {refused:?}");
    }
}
