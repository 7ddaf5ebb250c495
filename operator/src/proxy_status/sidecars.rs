//! What the pods of a pool say of a gateway's sidecars, merged.

use std::collections::BTreeMap;

use super::model;

/// Of one gateway of mode `Sidecar`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SidecarFacts {
    /// Pods to which none has a trunk.
    pub missing_at: Vec<String>,
    /// By instance: whether its server answers, as far as every pod knows.
    pub servers_up: BTreeMap<String, bool>,
}

impl SidecarFacts {
    /// Takes in what one pod says.
    pub(super) fn add(&mut self, pod: &str, sidecars: &[model::Sidecar]) {
        if sidecars.is_empty() {
            self.missing_at.push(pod.to_owned());
        }
        for sidecar in sidecars {
            let up = self.servers_up.entry(sidecar.instance.clone());
            *up.or_insert(true) &= sidecar.server_up;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn pods_without_a_trunk_are_named_and_a_server_is_up_where_every_pod_says_so() {
        let gateway = |sidecars| -> model::Gateway {
            let said = json!({"name": "org.example", "mode": "Sidecar", "domains": ["org.example"],
                "address": "", "sidecars": sidecars});
            serde_json::from_value(said).unwrap()
        };
        let sidecar = |instance, up| json!({"instance": instance, "active": true, "serverUp": up});
        let mut facts = SidecarFacts::default();
        for (pod, sidecars) in [
            ("hq-0", json!([sidecar("a", true), sidecar("b", true)])),
            ("hq-1", json!([sidecar("a", false)])),
            ("hq-2", json!([])),
        ] {
            facts.add(pod, &gateway(sidecars).sidecars);
        }
        assert_eq!(facts.missing_at, ["hq-2"]);
        let up: Vec<_> = facts.servers_up.into_iter().collect();
        assert_eq!(up, [("a".to_owned(), false), ("b".to_owned(), true)]);
    }
}
