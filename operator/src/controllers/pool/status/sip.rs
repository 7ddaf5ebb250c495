//! What `GatewayReachable` says of SIP servers that are reached and refuse something.

use xmpp_edge_crds::{
    kinds::conditions::{ConditionType, Reason},
    remedy,
};

use crate::{proxy_status::GatewayFacts, status::condition::DesiredCondition};

/// Of the first that refuses something, with what the others do; `None`: none does.
pub(super) fn refusal(gateways: &[GatewayFacts]) -> Option<DesiredCondition> {
    let told: Vec<_> = gateways.iter().filter_map(told).collect();
    let reason = told.first()?.0;
    let messages: Vec<_> = told.into_iter().map(|(_, message)| message).collect();
    Some(DesiredCondition::new(
        ConditionType::GatewayReachable,
        true,
        reason,
        messages.join("; "),
    ))
}

fn told(gateway: &GatewayFacts) -> Option<(Reason, String)> {
    let (pod, step) = gateway.refused.as_ref()?;
    let reason = match step.outcome.as_str() {
        "AuthenticationDemanded" => Reason::AuthenticationDemanded,
        "EventRefused" => Reason::EventRefused,
        "NotifyMissing" => Reason::NotifyMissing,
        "UnknownServer" => Reason::UnknownServer,
        // Of a newer version: `/status` has it.
        _ => return None,
    };
    let text = step.text.as_deref().unwrap_or_default();
    let remedy = remedy::of_gateway(&step.outcome).unwrap_or_default();
    let (address, domains) = (&gateway.address, gateway.domains.join(", "));
    let message = format!("{address} ({domains}): {text} at pod {pod}; {remedy}");
    Some((reason, message))
}
