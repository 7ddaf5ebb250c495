//! `sidecars/<name>/` of the state directory: `sidecar.json` and `ca.crt` of each gateway that takes trunks, for
//! people to copy to the hosts of its servers. Both are public.

use std::{collections::BTreeMap, fs, path::Path};

use xmpp_edge_crds::edge_config::EdgeConfig;

use crate::{
    compile::NamespaceInputs,
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
