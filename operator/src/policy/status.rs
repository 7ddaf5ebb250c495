//! Whether a status that should be differs from the one that is. Nothing of a policy's status moves
//! by itself, so that every difference is news.

use xmpp_edge_crds::kinds::PolicyStatus;

use crate::cluster::written::Difference;

/// How `new` differs from `old`.
#[must_use]
pub fn difference(old: &PolicyStatus, new: &PolicyStatus) -> Difference {
    if old == new {
        Difference::None
    } else {
        Difference::News
    }
}
