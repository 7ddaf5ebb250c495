//! Who writes a partner's status.

use xmpp_edge_crds::kinds::XmppFederatedPartner;

use super::KIND;
use crate::cluster::statuses::Author;

/// The kind's controller.
pub const AUTHOR: Author<XmppFederatedPartner> = Author {
    kind: KIND,
    manager: "xmpp-edge-operator/partner",
    table: |caches| &caches.partners,
};
