//! What a trunk was set up by, and cannot change while it stands: where the configuration says otherwise, the next one
//! has it.

use xmpp_edge_crds::{domain::DomainName, edge_config::SidecarServers};

use crate::config::ActiveConfig;

/// All of it, to be compared whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TrunkTerms {
    /// To an edge: under which name its sidecars are known, and whether their servers are one.
    gateway: Option<(String, SidecarServers)>,
    /// As `<limits/>` announced it, or the scanner was set up for it.
    max_stanza_bytes: u64,
    /// As `queue` of `<enable/>` and `<enabled/>` says.
    queue_bytes: u64,
}

impl TrunkTerms {
    /// With `peer`, by this configuration.
    pub(super) fn of(config: &ActiveConfig, peer: &DomainName) -> Self {
        let gateway = config.gateway(peer).map(|own| &own.config);
        let settings = &config.document.settings;
        Self {
            gateway: gateway.map(|own| {
                let servers = own.sidecar.as_ref().map(|own| own.server);
                (own.effective_name().to_owned(), servers.unwrap_or_default())
            }),
            max_stanza_bytes: settings.max_stanza_bytes.into(),
            queue_bytes: settings.queue_bytes,
        }
    }
}
