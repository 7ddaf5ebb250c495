//! What specs refer to: the ConfigMaps and Secrets that compiling and provisioning read.

use std::collections::BTreeSet;

use xmpp_edge_crds::kinds::{
    EdgePool, ExternalAccessPolicy, XmppFederatedPartner, pool::PoolGateway,
};

use crate::secrets::store::ManagedSecret;

/// The Secret of dialback keys where a pool names none.
const DIALBACK_SECRET: &str = "xmpp-edge-dialback";

/// Names within one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    pub config_maps: BTreeSet<String>,
    pub secrets: BTreeSet<String>,
}

impl References {
    /// Adds what a partner refers to.
    pub fn add_partner(&mut self, partner: &XmppFederatedPartner) {
        let trust = partner.spec.trust.as_ref();
        let ca = trust.and_then(|trust| trust.ca_config_map_ref.as_ref());
        self.config_maps.extend(ca.map(|ca| ca.name.clone()));
    }

    /// Adds what a policy refers to.
    pub fn add_policy(&mut self, policy: &ExternalAccessPolicy) {
        let lists = policy.spec.users_from.iter();
        let names = lists.map(|list| list.config_map_ref.name.clone());
        self.config_maps.extend(names);
    }

    /// Adds what a pool refers to.
    pub fn add_pool(&mut self, pool: &EdgePool) {
        let spec = &pool.spec;
        let trust = spec.trust.iter().map(|trust| &trust.ca_config_map_ref);
        let gateways = spec.gateways.iter();
        let sidecars = gateways
            .clone()
            .filter_map(|it| it.sidecar.as_ref()?.trust.as_ref());
        let sidecars = sidecars.map(|trust| &trust.ca_config_map_ref);
        let gateways = gateways.filter_map(|it| it.trust.as_ref()?.ca_config_map_ref.as_ref());
        let cas = trust.chain(gateways).chain(sidecars);
        self.config_maps.extend(cas.map(|ca| ca.name.clone()));
        let certificate = &spec.certificate;
        let csr = certificate.csr.as_ref();
        let dns = spec.dns.as_ref().and_then(|dns| dns.rfc2136.as_ref());
        let secrets = [
            database_secret(pool),
            certificate.secret_ref.as_ref().map(|it| &*it.name),
            csr.map(|csr| &*csr.chain_secret_ref.name),
            dns.map(|dns| &*dns.tsig_secret_ref.name),
            Some(dialback_secret(Some(pool))),
            egress_secret(pool),
        ];
        let sip = spec.gateways.iter().filter_map(|it| it.sip.as_ref());
        let sip = sip.filter_map(|sip| sip.certificate_secret_ref.as_ref());
        let secrets = secrets.into_iter().flatten();
        let secrets = secrets.chain(sip.map(|it| it.name.as_str()));
        self.secrets.extend(secrets.map(str::to_owned));
    }
}

/// Name of the Secret that holds a pool's dialback secret; of one that cannot be read, the default.
pub(super) fn dialback_secret(pool: Option<&EdgePool>) -> &str {
    let reference = pool.and_then(|pool| pool.spec.settings.dialback_secret_ref.as_ref());
    reference.map_or(DIALBACK_SECRET, |reference| &reference.name)
}

fn database_secret(pool: &EdgePool) -> Option<&str> {
    let postgres = pool.spec.contacts.as_ref()?.postgres.as_ref()?;
    Some(&postgres.secret_ref.name)
}

fn egress_secret(pool: &EdgePool) -> Option<&str> {
    let proxy = pool.spec.settings.egress_proxy.as_ref()?;
    Some(&proxy.secret_ref.as_ref()?.name)
}

/// The other namespace that a gateway's sidecars are in, where they are.
#[must_use]
pub fn elsewhere<'a>(pool: &EdgePool, gateway: &'a PoolGateway) -> Option<&'a str> {
    let given = gateway.sidecar.as_ref()?.namespace.as_deref();
    given.filter(|given| pool.metadata.namespace.as_deref() != Some(*given))
}

/// Names of the Secrets of a pool's sidecars in its own namespace, which the operator itself keeps: compiling
/// reads their epochs.
#[must_use]
pub fn sidecar_secrets(pool: &EdgePool) -> Vec<String> {
    let gateways = pool.spec.gateways.iter().filter(|it| it.takes_trunks());
    let here = gateways.filter(|it| elsewhere(pool, it).is_none());
    here.map(|it| ManagedSecret::Sidecar(it.effective_name().to_owned()).to_string())
        .collect()
}

/// The same of those in other namespaces: namespace and name.
#[must_use]
pub fn sidecar_secrets_elsewhere(pool: &EdgePool) -> Vec<(String, String)> {
    let gateways = pool.spec.gateways.iter().filter(|it| it.takes_trunks());
    let places = gateways.filter_map(|it| {
        let namespace = elsewhere(pool, it)?.to_owned();
        let entry = ManagedSecret::Sidecar(it.effective_name().to_owned());
        Some((namespace, entry.to_string()))
    });
    places.collect()
}

/// Names of the Secrets that compiling and planning read of [`NamespaceInputs::secrets`]: of a namespace's
/// others nothing need be copied.
///
/// [`NamespaceInputs::secrets`]: super::NamespaceInputs::secrets
#[must_use]
pub fn secrets_read<'a>(pools: impl IntoIterator<Item = &'a EdgePool>) -> BTreeSet<String> {
    let mut names = BTreeSet::from([DIALBACK_SECRET.to_owned()]);
    for pool in pools {
        names.insert(dialback_secret(Some(pool)).to_owned());
        names.extend(sidecar_secrets(pool));
        let further = [database_secret(pool), egress_secret(pool)];
        names.extend(further.into_iter().flatten().map(str::to_owned));
    }
    names
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use kube::CustomResourceExt;
    use serde_json::{Map, Value, json};

    use super::*;

    /// The least that a schema takes, with one reference at `path`, which names `name`.
    fn with_reference(schema: &Value, path: &[&str], name: &str) -> Value {
        let mut object = Map::new();
        let properties = &schema["properties"];
        let required = schema["required"].as_array().into_iter().flatten();
        for field in required.filter_map(Value::as_str) {
            object.insert(field.to_owned(), least(&properties[field]));
        }
        if let Some((field, rest)) = path.split_first() {
            let within = &properties[field];
            let value = if within["type"] == "array" {
                json!([with_reference(&within["items"], rest, name)])
            } else {
                with_reference(within, rest, name)
            };
            object.insert((*field).to_owned(), value);
        } else {
            object.insert("name".into(), json!(name));
        }
        Value::Object(object)
    }

    fn least(schema: &Value) -> Value {
        match schema["type"].as_str() {
            Some("object") => with_least(schema),
            Some("array") => json!([]),
            Some("integer") => json!(1),
            Some("boolean") => json!(false),
            _ => schema["enum"].get(0).cloned().unwrap_or_else(|| json!("a")),
        }
    }

    fn with_least(schema: &Value) -> Value {
        let required = schema["required"].as_array().into_iter().flatten();
        let fields = required.filter_map(Value::as_str);
        let fields = fields.map(|it| (it.to_owned(), least(&schema["properties"][it])));
        Value::Object(fields.collect())
    }

    /// Paths of all fields of a schema whose name ends with one of `ends`.
    fn paths(schema: &Value, ends: [&str; 2], at: &[String], found: &mut Vec<Vec<String>>) {
        for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
            let mut path = at.to_vec();
            path.push(field.clone());
            if ends.iter().any(|end| field.ends_with(end)) {
                found.push(path);
                continue;
            }
            let within = if schema["type"] == "array" {
                &schema["items"]
            } else {
                schema
            };
            paths(within, ends, &path, found);
        }
    }

    fn found_in(kind: &str, object: &Value) -> References {
        let mut references = References::default();
        let object = json!({"apiVersion": "xmpp-edge.dev/v1alpha1", "kind": kind,
            "metadata": {"name": "x"}, "spec": object});
        match kind {
            "EdgePool" => references.add_pool(&serde_json::from_value(object).unwrap()),
            "ExternalAccessPolicy" => {
                references.add_policy(&serde_json::from_value(object).unwrap());
            }
            _ => references.add_partner(&serde_json::from_value(object).unwrap()),
        }
        references
    }

    #[test]
    fn every_reference_that_a_schema_has_is_followed() {
        let definitions = [
            EdgePool::crd(),
            ExternalAccessPolicy::crd(),
            XmppFederatedPartner::crd(),
        ];
        let mut followed = 0;
        for definition in definitions {
            let definition = serde_json::to_value(definition).unwrap();
            let kind = definition["spec"]["names"]["kind"].as_str().unwrap();
            let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            let spec = &schema["properties"]["spec"];
            for (ends, of_secrets) in [
                (["onfigMapRef", "onfigMapKeyRef"], false),
                (["ecretRef", "ecretKeyRef"], true),
            ] {
                let mut found = Vec::new();
                paths(spec, ends, &[], &mut found);
                // The kubelet reads what pods are given.
                found.retain(|path| path[0] != "podTemplate");
                for path in found {
                    let path: Vec<&str> = path.iter().map(String::as_str).collect();
                    let references = found_in(kind, &with_reference(spec, &path, "it"));
                    let names = if of_secrets {
                        references.secrets
                    } else {
                        references.config_maps
                    };
                    assert!(names.contains("it"), "{kind}: spec.{}", path.join("."));
                    followed += 1;
                }
            }
        }
        assert!(followed >= 9, "{followed}");
    }
}
