//! Kinds that pools' documents carry, partners and policies: the one way to look at all objects of
//! such a kind. No object is made for them; what is told of them is their status.
//!
//! What a status says, and what of it is news, is decided in the kind's own room.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Resource, ResourceExt, core::object::HasStatus};
use serde::{Deserialize, de::DeserializeOwned};
use xmpp_edge_crds::kinds::conditions::{ConditionType, Reason};

use super::namespace::snapshot::{Context, NamespaceSnapshot, PoolOutcome};
use crate::{
    compile::{Diagnostic, Kind, ObjectRef},
    runtime::decoded::Decoded,
    status::{
        apply::{Status, StatusWriter},
        condition::{ConditionStatus, DesiredCondition},
        throttle::{Counts, Significance, StatusThrottle},
    },
};

/// A kind's own part of a look.
pub trait StatusOnlyKind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + HasStatus<Status: Status + DeserializeOwned + Clone + Default>
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    const KIND: Kind;
    /// The kind's controller.
    const STATUS_WRITER: StatusWriter<Self>;

    /// The status that the object should have now.
    fn desired_status(
        scene: &NamespaceSnapshot,
        outcomes: &BTreeMap<String, PoolOutcome>,
        observed: &Observed<'_, Self>,
    ) -> Self::Status;

    /// How `new` differs from `old`.
    fn significance(old: &Self::Status, new: &Self::Status) -> Significance;
}

/// One object as the API server holds it, with what was said of it before.
#[derive(Debug)]
pub struct Observed<'a, K: HasStatus> {
    pub object: Arc<Decoded<K>>,
    pub reference: ObjectRef,
    /// What compiling has to say.
    pub diagnostics: &'a [Diagnostic],
    /// What the object's status says.
    pub status: K::Status,
}

impl<K: StatusOnlyKind> Observed<'_, K> {
    #[must_use]
    pub fn metadata(&self) -> &ObjectMeta {
        self.object.meta()
    }

    /// A condition of the spec as compiling judged it, with what may not be meant so as its message.
    #[must_use]
    pub fn judged(&self, condition: ConditionType) -> Option<DesiredCondition> {
        let said = self.diagnostics.iter();
        let mut said = said.filter(|it| it.condition == condition);
        said.next().map(DesiredCondition::from)
    }

    /// `Accepted`.
    #[must_use]
    pub fn accepted(&self) -> DesiredCondition {
        // Compiling says it of every object; one that came since is looked at next.
        self.judged(ConditionType::Accepted).unwrap_or_else(|| {
            DesiredCondition::new(
                ConditionType::Accepted,
                ConditionStatus::Unknown,
                Reason::Pending,
                "not looked at yet",
            )
        })
    }
}

/// Reads one object of a scene.
#[must_use]
pub fn read<'a, K: StatusOnlyKind>(
    scene: &'a NamespaceSnapshot,
    object: &Arc<Decoded<K>>,
) -> Observed<'a, K> {
    let reference = ObjectRef::new(K::KIND, &object.name_any());
    let status = match object.as_ref() {
        Decoded::Valid(object) => object.status().cloned().unwrap_or_default(),
        // A status that cannot be read is written anew.
        Decoded::Undecodable(unreadable) => {
            K::Status::deserialize(&unreadable.status).unwrap_or_default()
        }
    };
    Observed {
        object: object.clone(),
        diagnostics: scene.diagnostics(&reference),
        reference,
        status,
    }
}

/// Looks at all of the kind in the scene's namespace and hands in the statuses that are to be written.
pub fn reconcile<K: StatusOnlyKind>(
    context: &Context,
    scene: &NamespaceSnapshot,
    outcomes: &BTreeMap<String, PoolOutcome>,
    written: &mut StatusThrottle,
) -> Counts {
    let mut counts = Counts::default();
    let author = K::STATUS_WRITER;
    for object in (author.table)(&context.caches).in_namespace(&scene.namespace) {
        if object.is_terminating() {
            continue;
        }
        let observed = read(scene, &object);
        let wanted = K::desired_status(scene, outcomes, &observed);
        counts.add(wanted.conditions());
        let difference = K::significance(&observed.status, &wanted);
        if written.due(author.kind, &object.name_any(), difference) {
            author.enqueue(&context.statuses, &object, &observed.status, wanted);
        }
    }
    counts
}
