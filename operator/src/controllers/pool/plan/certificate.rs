//! `certManager`: the Certificate that cert-manager is to keep, in `<pool>-tls`.

use kube::{ResourceExt, core::DynamicObject};
use serde_json::{Value, json};
use xmpp_edge_crds::{edge_config::EdgeConfig, kinds::EdgePool};

use super::{Child, ChildKind, metadata, names};

/// The Certificate, in mode `certManager` alone. `commonName`, `duration` and `renewBefore` are handed through.
#[must_use]
pub fn plan(pool: &EdgePool, config: &EdgeConfig) -> Option<Child> {
    let mode = pool.spec.certificate.cert_manager.as_ref()?;
    let name = pool.name_any();
    let dns_names: Vec<String> = config
        .certificate_names()
        .iter()
        .map(ToString::to_string)
        .collect();
    let mut spec = json!({
        "secretName": names::pair(&name),
        "dnsNames": dns_names,
        // Both: the edge answers partners, and proves itself to them.
        "usages": ["digital signature", "key encipherment", "server auth", "client auth"],
        "issuerRef": {
            "name": mode.issuer_ref.name,
            "kind": mode.issuer_ref.kind,
            "group": mode.issuer_ref.group,
        },
    });
    spec["privateKey"] = json!(mode.private_key);
    // While a spec is not accepted, the names are those before.
    let is_covered = |name: &&String| dns_names.contains(*name);
    for (key, value) in [
        ("commonName", mode.common_name.as_ref().filter(is_covered)),
        ("duration", mode.duration.as_ref()),
        ("renewBefore", mode.renew_before.as_ref()),
    ] {
        if let Some(value) = value {
            spec[key] = Value::from(value.as_str());
        }
    }
    let mut object =
        DynamicObject::new(&names::workload(&name), &ChildKind::Certificate.resource())
            .data(json!({ "spec": spec }));
    object.metadata = metadata::owned(pool, names::workload(&name));
    Some(Child::Certificate(Box::new(object)))
}
