//! What is right or wrong with a policy's spec, alone and among its neighbours: compiling judged
//! it, here it becomes conditions.

use xmpp_edge_crds::kinds::conditions::{ConditionType, Reason};

use super::read::Observed;
use crate::cluster::conditions::{State, Wanted};

/// `Accepted`, with what may not be meant so as its message.
#[must_use]
pub fn accepted(policy: &Observed<'_>) -> Wanted {
    let said = policy
        .diagnostics
        .iter()
        .find(|it| it.condition == ConditionType::Accepted);
    match said {
        Some(said) => Wanted::from(said),
        // Compiling says it of every object; one that came since is looked at next.
        None => Wanted::new(
            ConditionType::Accepted,
            State::Unknown,
            Reason::Pending,
            "not looked at yet",
        ),
    }
}
