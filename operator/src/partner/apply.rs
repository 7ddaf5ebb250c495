//! Writes a partner's status, and an Event where a condition is news.

use std::sync::Arc;

use kube::{Resource, ResourceExt};
use xmpp_edge_crds::kinds::{PartnerStatus, XmppFederatedPartner};

use super::{KIND, read::Observed};
use crate::cluster::{Context, loose::Loose, writer::apply_status};

/// Field manager of the kind's controller.
pub const MANAGER: &str = "xmpp-edge-operator/partner";

/// Hands the status in; it is written as soon as others before it are.
pub fn apply(context: &Arc<Context>, partner: &Observed<'_>, status: PartnerStatus) {
    // A newer operator wrote of a newer form than this one has seen: its report is on its way.
    if partner.status.observed_generation > status.observed_generation {
        return;
    }
    let object = partner.object.clone();
    let before = partner.status.conditions.clone();
    let key = (
        KIND,
        object.namespace().unwrap_or_default(),
        object.name_any(),
    );
    let wanted = status.clone();
    let task_context = context.clone();
    let task = async move {
        let context = task_context;
        let answer: Loose<XmppFederatedPartner> =
            apply_status(&context.client, object.as_ref(), MANAGER, &status).await?;
        let mut reference = answer.object_ref(&());
        // The Event stands beside the object.
        reference.namespace = answer.namespace();
        context.caches.partners.put(answer);
        context
            .events
            .transitions(&reference, &before, &status.conditions)
            .await;
        Ok(())
    };
    context.writer.submit(key, &wanted, Box::pin(task));
}
