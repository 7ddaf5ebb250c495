//! What may be taken from a document that is compiled no more: its pool is being deleted, and its pods
//! run until DNS leads nobody to them. Nothing new is allowed in it, but the kill switch and deletions
//! reach it. Pure.

use std::collections::BTreeMap;

use xmpp_edge_crds::edge_config::EdgeConfig;

use super::{Kind, NamespaceInputs, ObjectRef};

/// The document without partners that are gone and with those suspended that are, itself where the pool is
/// (`is_suspended`); `None` where that is what it says.
#[must_use]
pub fn restrict(
    last: &EdgeConfig,
    inputs: &NamespaceInputs,
    is_suspended: bool,
) -> Option<EdgeConfig> {
    let mut suspended: BTreeMap<&str, bool> = BTreeMap::new();
    for partner in &inputs.partners {
        if let Some(name) = &partner.metadata.name {
            suspended.insert(name, partner.spec.suspended);
        }
    }
    let mut config = last.clone();
    config.suspended |= is_suspended;
    config.partners.retain_mut(|partner| {
        let object = ObjectRef::new(Kind::XmppFederatedPartner, &partner.name);
        let now = match (suspended.get(&*partner.name), inputs.broken.get(&object)) {
            (Some(suspended), _) => *suspended,
            (None, Some(broken)) => broken.suspended == Some(true),
            (None, None) => return false,
        };
        partner.suspended |= now;
        true
    });
    if config == *last {
        return None;
    }
    config.generation += 1;
    Some(config)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn inputs(partners: &[(&str, bool)]) -> NamespaceInputs {
        let pool = json!({
            "apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool", "metadata": {"name": "hq"},
            "spec": {"site": "hq", "domains": ["org.example"], "accessEdge": {"fqdn": "edge.org.example"},
                "gateways": [{"domains": ["org.example"], "address": "inside.example:5269"}],
                "certificate": {"selfSigned": {}}},
        });
        let partner = |(name, suspended): &(&str, bool)| {
            serde_json::from_value(json!({
                "apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "XmppFederatedPartner",
                "metadata": {"name": name}, "spec": {"domain": format!("{name}.example"), "suspended": suspended},
            }))
            .unwrap()
        };
        NamespaceInputs {
            namespace: "n".into(),
            pools: vec![serde_json::from_value(pool).unwrap()],
            partners: partners.iter().map(partner).collect(),
            ..NamespaceInputs::default()
        }
    }

    #[test]
    fn suspension_and_deletion_reach_a_pool_that_is_on_its_way_out_and_nothing_else_does() {
        let before = inputs(&[("a", false), ("b", false), ("c", false), ("d", true)]);
        let last = super::super::compile(&before, &BTreeMap::new())
            .configs
            .remove("hq")
            .unwrap();
        assert_eq!(restrict(&last, &before, false), None);
        // a is suspended, b is gone, d is free again, e is new.
        let now = inputs(&[("a", true), ("c", false), ("d", false), ("e", false)]);
        let config = restrict(&last, &now, false).unwrap();
        let partners = config.partners.iter();
        let said: Vec<(&str, bool)> = partners.map(|it| (&*it.name, it.suspended)).collect();
        assert_eq!(said, [("a", true), ("c", false), ("d", true)]);
        assert_eq!(config.generation, last.generation + 1);
        assert_eq!(restrict(&config, &now, false), None);
        // The whole pool's kill switch, which nothing lifts here.
        let config = restrict(&config, &now, true).unwrap();
        assert!(config.suspended);
        assert_eq!(restrict(&config, &now, false), None);
    }
}
