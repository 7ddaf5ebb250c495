//! What there is for sidecars and to say of them. `sidecars/<name>/` of the state directory has `sidecar.json` and
//! `ca.crt` of each gateway that takes trunks, for people to copy to the hosts of its servers. Both are public.

use std::{collections::BTreeMap, fs, path::Path};

use xmpp_edge_crds::{
    edge_config::{EdgeConfig, Gateway},
    kinds::conditions::{ConditionType, Reason},
    remedy,
};
use xmpp_edge_proxy::stream::trunk::outdated::OutdatedSidecar;

use crate::{
    compile::{Diagnostic, Kind, NamespaceInputs, ObjectRef, Severity},
    secrets::{
        files::{directory, replace},
        store::StoreError,
    },
    sidecar::document::{documents, internal_addresses},
};

/// Writes what is another than before.
///
/// # Errors
/// [`StoreError`].
pub(super) fn write(
    state: &Path,
    world: &NamespaceInputs,
    configs: &BTreeMap<String, EdgeConfig>,
    internal_ca: &str,
) -> Result<(), StoreError> {
    for (name, document) in documents(&world.pools, configs, internal_addresses) {
        let folder = state.join("sidecars").join(name);
        let fault = |source| StoreError::Write {
            place: folder.display().to_string(),
            source,
        };
        directory(&folder).map_err(fault)?;
        let json = document.to_json();
        for (file, text) in [("sidecar.json", json.as_str()), ("ca.crt", internal_ca)] {
            let path = folder.join(file);
            if fs::read(&path).is_ok_and(|before| before == text.as_bytes()) {
                continue;
            }
            replace(&path, text.as_bytes(), 0o644)?;
        }
    }
    Ok(())
}

/// What a cluster's status would say of a pool's sidecars, as far as it is told here.
#[must_use]
pub(super) fn diagnostics(config: &EdgeConfig, outdated: &[OutdatedSidecar]) -> Vec<Diagnostic> {
    let with_sidecars = config.gateways.iter().filter(|it| it.sidecar.is_some());
    let identities = with_sidecars.map(|gateway| Diagnostic {
        object: ObjectRef::new(Kind::EdgePool, &config.pool),
        condition: ConditionType::SidecarIdentity,
        status: true,
        reason: Reason::NotManaged,
        message: identity(gateway),
        severity: Severity::Info,
    });
    let refused = outdated.iter().map(|sidecar| Diagnostic {
        object: ObjectRef::new(Kind::EdgePool, &config.pool),
        condition: ConditionType::GatewayReachable,
        status: false,
        reason: Reason::SidecarOutdated,
        message: refusal(sidecar),
        severity: Severity::Warning,
    });
    identities.chain(refused).collect()
}

/// By what the sidecars of a gateway prove themselves: nothing of it is made here.
fn identity(gateway: &Gateway) -> String {
    let name = gateway.effective_name();
    let own = gateway.sidecar.as_ref();
    let keys = own.map(|it| it.keys.as_slice()).unwrap_or_default();
    let keys: Vec<_> = keys.iter().map(|key| key.name.as_str()).collect();
    let has_issuer = own.is_some_and(|it| it.trust_ca.is_some());
    match (keys.as_slice(), has_issuer) {
        ([], false) => format!(
            "gateway {name}: sidecars' keys are yours to list, and none is: add the key that the sidecar says when it starts to spec.gateways[].sidecar.keys"
        ),
        ([], true) => {
            format!("gateway {name}: certificates of the issuer in sidecar.trust count")
        }
        (keys, has_issuer) => {
            let more = if has_issuer {
                ", and certificates of the issuer in sidecar.trust"
            } else {
                ""
            };
            let keys = keys.join(", ");
            format!("gateway {name}: the listed keys count ({keys}){more}")
        }
    }
}

fn refusal(sidecar: &OutdatedSidecar) -> String {
    let OutdatedSidecar {
        gateway,
        address,
        text,
    } = sidecar;
    let from = address.as_ref();
    let from = from.map_or_else(String::new, |address| format!(" from {address}"));
    let remedy = remedy::of_gateway("Version").unwrap_or_default();
    format!("gateway {gateway}: a sidecar{from} is refused: {text}; {remedy}")
}

#[cfg(test)]
mod tests;
