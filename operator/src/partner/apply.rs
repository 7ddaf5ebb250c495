//! Who writes a partner's status.

use xmpp_edge_crds::kinds::XmppFederatedPartner;

use crate::{cluster::statuses::Author, compile::Kind};

/// The kind's controller.
pub const AUTHOR: Author<XmppFederatedPartner> = Author {
    kind: Kind::XmppFederatedPartner.as_str(),
    manager: "xmpp-edge-operator/partner",
    table: |caches| &caches.partners,
};
