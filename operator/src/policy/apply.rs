//! Who writes a policy's status.

use xmpp_edge_crds::kinds::ExternalAccessPolicy;

use crate::{cluster::statuses::Author, compile::Kind};

/// The kind's controller.
pub const AUTHOR: Author<ExternalAccessPolicy> = Author {
    kind: Kind::ExternalAccessPolicy.as_str(),
    manager: "xmpp-edge-operator/policy",
    table: |caches| &caches.policies,
};
