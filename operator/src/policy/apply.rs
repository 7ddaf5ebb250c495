//! Who writes a policy's status.

use xmpp_edge_crds::kinds::ExternalAccessPolicy;

use super::KIND;
use crate::cluster::statuses::Author;

/// The kind's controller.
pub const AUTHOR: Author<ExternalAccessPolicy> = Author {
    kind: KIND,
    manager: "xmpp-edge-operator/policy",
    table: |caches| &caches.policies,
};
