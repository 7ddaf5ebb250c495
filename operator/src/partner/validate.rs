//! What is right or wrong with a partner's spec, alone and among its neighbours: compiling judged
//! it, here it becomes conditions.

use xmpp_edge_crds::{
    kinds::conditions::{ConditionType, Reason},
    negotiation::Method,
};

use super::read::{self, Observed};
use crate::cluster::conditions::{State, Wanted};

/// `Secure`; of a partner that is not accepted nothing is said.
#[must_use]
pub fn secure(partner: &Observed<'_>) -> Wanted {
    let unsaid = || {
        let message = "not accepted: see condition Accepted";
        let kind = ConditionType::Secure;
        Wanted::new(kind, State::Unknown, Reason::NotAccepted, message)
    };
    partner.judged(ConditionType::Secure).unwrap_or_else(unsaid)
}

/// The methods that result from the spec, best first; none where it is not accepted.
#[must_use]
pub fn methods(partner: &Observed<'_>) -> Vec<Method> {
    let spec = read::spec(partner);
    let methods = spec.and_then(|spec| {
        spec.negotiation()
            .partner_methods(spec.allow_plaintext)
            .ok()
    });
    methods
        .map(|methods| methods.iter().collect())
        .unwrap_or_default()
}
