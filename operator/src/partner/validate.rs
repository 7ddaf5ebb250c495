//! What is right or wrong with a partner's spec, alone and among its neighbours: compiling judged
//! it, here it becomes conditions.

use xmpp_edge_crds::{
    kinds::conditions::{ConditionType, Reason},
    negotiation::Method,
};

use super::read::Observed;
use crate::cluster::conditions::{State, Wanted};

/// `Accepted`.
#[must_use]
pub fn accepted(partner: &Observed<'_>) -> Wanted {
    let said = partner
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

/// `Secure`; of a partner that is not accepted nothing is said.
#[must_use]
pub fn secure(partner: &Observed<'_>) -> Wanted {
    let said = partner
        .diagnostics
        .iter()
        .find(|it| it.condition == ConditionType::Secure);
    match said {
        Some(said) => Wanted::from(said),
        None => Wanted::new(
            ConditionType::Secure,
            State::Unknown,
            Reason::NotAccepted,
            "not accepted: see condition Accepted",
        ),
    }
}

/// The methods that result from the spec, best first; none where it is not accepted.
#[must_use]
pub fn methods(partner: &Observed<'_>) -> Vec<Method> {
    let spec = partner.spec();
    let methods = spec.and_then(|spec| {
        spec.negotiation()
            .partner_methods(spec.allow_plaintext)
            .ok()
    });
    methods
        .map(|methods| methods.iter().collect())
        .unwrap_or_default()
}
