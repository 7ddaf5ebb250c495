//! One policy as the API server holds it, with what was said of it before.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};
use serde::Deserialize;
use xmpp_edge_crds::kinds::{ExternalAccessPolicy, PolicyStatus};

use crate::{
    cluster::{Scene, loose::Loose},
    compile::{Diagnostic, Kind, ObjectRef},
};

/// A policy to look at.
pub struct Observed<'a> {
    pub object: Arc<Loose<ExternalAccessPolicy>>,
    pub reference: ObjectRef,
    /// What compiling has to say.
    pub diagnostics: &'a [Diagnostic],
    /// What the object's status says.
    pub status: PolicyStatus,
}

impl Observed<'_> {
    #[must_use]
    pub fn metadata(&self) -> &ObjectMeta {
        self.object.meta()
    }
}

/// Reads one policy of a scene.
#[must_use]
pub fn read<'a>(scene: &'a Scene, object: &Arc<Loose<ExternalAccessPolicy>>) -> Observed<'a> {
    let reference = ObjectRef::new(Kind::ExternalAccessPolicy, &object.name_any());
    let status = match object.as_ref() {
        Loose::Read(policy) => policy.status.clone().unwrap_or_default(),
        // A status that cannot be read is written anew.
        Loose::Unreadable(unreadable) => {
            PolicyStatus::deserialize(&unreadable.status).unwrap_or_default()
        }
    };
    Observed {
        object: object.clone(),
        diagnostics: scene.diagnostics(&reference),
        reference,
        status,
    }
}
