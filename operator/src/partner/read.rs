//! One partner as the API server holds it, with what was said of it before.

use xmpp_edge_crds::kinds::{PartnerSpec, XmppFederatedPartner};

use crate::cluster::{carried, loose::Loose};

/// A partner to look at.
pub type Observed<'a> = carried::Observed<'a, XmppFederatedPartner>;

/// Its spec, where it can be read.
#[must_use]
pub fn spec<'o>(partner: &'o Observed<'_>) -> Option<&'o PartnerSpec> {
    partner.object.read().map(|partner| &partner.spec)
}

/// Whether its kill switch is on.
#[must_use]
pub fn is_suspended(partner: &Observed<'_>) -> bool {
    match partner.object.as_ref() {
        Loose::Read(partner) => partner.spec.suspended,
        Loose::Unreadable(unreadable) => unreadable.suspended == Some(true),
    }
}
