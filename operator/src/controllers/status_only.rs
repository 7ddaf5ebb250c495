//! Kinds that pools' documents carry, partners and policies: the one way to look at all objects of
//! such a kind. No object is made for them; what is told of them is their status.
//!
//! What a status says, and what of it is news, is decided in the kind's own room.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Resource, ResourceExt, core::object::HasStatus};
use serde::{Deserialize, de::DeserializeOwned};
use xmpp_edge_crds::kinds::conditions::{ConditionType, Reason};

use super::namespace::snapshot::{Context, PoolOutcome, Scene};
use crate::{
    compile::{Diagnostic, Kind, ObjectRef},
    runtime::decoded::Loose,
    status::{
        apply::{Author, Status},
        condition::{State, Wanted},
        throttle::{Counts, Difference, Written},
    },
};

/// A kind's own part of a look.
pub trait Carried:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + HasStatus<Status: Status + DeserializeOwned + Clone + Default>
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    const KIND: Kind;
    /// The kind's controller.
    const AUTHOR: Author<Self>;

    /// The status that the object should have now.
    fn desired_status(
        scene: &Scene,
        outcomes: &BTreeMap<String, PoolOutcome>,
        observed: &Observed<'_, Self>,
    ) -> Self::Status;

    /// How `new` differs from `old`.
    fn significance(old: &Self::Status, new: &Self::Status) -> Difference;
}

/// One object as the API server holds it, with what was said of it before.
pub struct Observed<'a, K: HasStatus> {
    pub object: Arc<Loose<K>>,
    pub reference: ObjectRef,
    /// What compiling has to say.
    pub diagnostics: &'a [Diagnostic],
    /// What the object's status says.
    pub status: K::Status,
}

impl<K: Carried> Observed<'_, K> {
    #[must_use]
    pub fn metadata(&self) -> &ObjectMeta {
        self.object.meta()
    }

    /// A condition of the spec as compiling judged it, with what may not be meant so as its message.
    #[must_use]
    pub fn judged(&self, condition: ConditionType) -> Option<Wanted> {
        let said = self.diagnostics.iter();
        let mut said = said.filter(|it| it.condition == condition);
        said.next().map(Wanted::from)
    }

    /// `Accepted`.
    #[must_use]
    pub fn accepted(&self) -> Wanted {
        // Compiling says it of every object; one that came since is looked at next.
        self.judged(ConditionType::Accepted).unwrap_or_else(|| {
            Wanted::new(
                ConditionType::Accepted,
                State::Unknown,
                Reason::Pending,
                "not looked at yet",
            )
        })
    }
}

/// Reads one object of a scene.
#[must_use]
pub fn read<'a, K: Carried>(scene: &'a Scene, object: &Arc<Loose<K>>) -> Observed<'a, K> {
    let reference = ObjectRef::new(K::KIND, &object.name_any());
    let status = match object.as_ref() {
        Loose::Read(object) => object.status().cloned().unwrap_or_default(),
        // A status that cannot be read is written anew.
        Loose::Unreadable(unreadable) => {
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
pub fn reconcile<K: Carried>(
    context: &Context,
    scene: &Scene,
    outcomes: &BTreeMap<String, PoolOutcome>,
    written: &mut Written,
) -> Counts {
    let mut counts = Counts::default();
    let author = K::AUTHOR;
    for object in (author.table)(&context.caches).in_namespace(&scene.namespace) {
        if object.is_going() {
            continue;
        }
        let observed = read(scene, &object);
        let wanted = K::desired_status(scene, outcomes, &observed);
        counts.add(wanted.conditions());
        let difference = K::significance(&observed.status, &wanted);
        if written.due(author.kind, &object.name_any(), difference) {
            author.hand_in(context, &object, &observed.status, wanted);
        }
    }
    counts
}
