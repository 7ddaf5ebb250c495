//! One partner as the API server holds it, with what was said of it before.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};
use serde::Deserialize;
use xmpp_edge_crds::kinds::{PartnerSpec, PartnerStatus, XmppFederatedPartner};

use crate::{
    cluster::{Scene, loose::Loose},
    compile::{Diagnostic, Kind, ObjectRef},
};

/// A partner to look at.
pub struct Observed<'a> {
    pub object: Arc<Loose<XmppFederatedPartner>>,
    pub reference: ObjectRef,
    /// What compiling has to say.
    pub diagnostics: &'a [Diagnostic],
    /// What the object's status says.
    pub status: PartnerStatus,
}

impl Observed<'_> {
    #[must_use]
    pub fn metadata(&self) -> &ObjectMeta {
        self.object.meta()
    }

    /// Its spec, where it can be read.
    #[must_use]
    pub fn spec(&self) -> Option<&PartnerSpec> {
        self.object.read().map(|partner| &partner.spec)
    }

    /// Whether its kill switch is on.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        match self.object.as_ref() {
            Loose::Read(partner) => partner.spec.suspended,
            Loose::Unreadable(unreadable) => unreadable.suspended == Some(true),
        }
    }
}

/// Reads one partner of a scene.
#[must_use]
pub fn read<'a>(scene: &'a Scene, object: &Arc<Loose<XmppFederatedPartner>>) -> Observed<'a> {
    let reference = ObjectRef::new(Kind::XmppFederatedPartner, &object.name_any());
    let status = match object.as_ref() {
        Loose::Read(partner) => partner.status.clone().unwrap_or_default(),
        // A status that cannot be read is written anew.
        Loose::Unreadable(unreadable) => {
            PartnerStatus::deserialize(&unreadable.status).unwrap_or_default()
        }
    };
    Observed {
        object: object.clone(),
        diagnostics: scene.diagnostics(&reference),
        reference,
        status,
    }
}
