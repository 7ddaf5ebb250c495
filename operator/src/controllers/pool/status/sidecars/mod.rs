//! Whether a gateway is reached by sidecars, by which, and what these prove themselves by.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use xmpp_edge_crds::{
    edge_config::{GatewayMode, SidecarServers},
    kinds::{
        conditions::{ConditionType, Reason},
        pool::status::{GatewayState, MOST_GATEWAYS, MOST_SIDECARS, SidecarState},
    },
    remedy,
};

use crate::{
    controllers::pool::sidecar_secrets::{IdentityState, SidecarIdentity},
    proxy_status::{GatewayFacts, SidecarFacts},
    status::condition::{ConditionStatus, DesiredCondition, previous, whole_seconds},
};

/// Characters of `status.sidecars`.
const MOST_SHOWN: usize = 1024;

/// What keeps the gateway from being reached from every pod.
#[must_use]
pub(super) fn fault(
    facts: &SidecarFacts,
    gateway: &GatewayFacts,
    said: Option<&BTreeMap<String, Vec<String>>>,
) -> Option<(Reason, String)> {
    if gateway.mode != Some(GatewayMode::Sidecar) {
        return None;
    }
    let domains = gateway.domains.join(", ");
    if facts.connected.is_empty() {
        if let Some((pod, step)) = &facts.refused {
            let text = step.text.as_deref().unwrap_or_default();
            let from = step.address.as_ref();
            let from = from.map_or_else(String::new, |address| format!(" from {address}"));
            let remedy = remedy::of_gateway(&step.outcome)
                .map_or_else(String::new, |remedy| format!("; {remedy}"));
            let message = format!(
                "{domains}: pod {pod} refuses a sidecar{from}: step {} ({}): {text}{remedy}",
                step.step, step.outcome
            );
            let reason = match step.outcome.as_str() {
                "Version" => Reason::SidecarOutdated,
                _ => Reason::SidecarRefused,
            };
            return Some((reason, message));
        }
        let pods = said.and_then(|said| said.get(&gateway.name));
        let words = match pods.map(Vec::as_slice) {
            Some([]) => format!(
                ": in this namespace no pod has label xmpp-edge.dev/sidecar: {}; start one beside the server, or read in its log (`kubectl logs POD --container xmpp-edge-sidecar`) or /readyz at which step it fails",
                gateway.name
            ),
            Some(pods) => format!(": {}", pods.join("; ")),
            None => ": start one beside the server, or read in its log (`kubectl logs POD --container xmpp-edge-sidecar`) or /readyz at which step it fails".to_owned(),
        };
        return Some((
            Reason::NoSidecar,
            format!("{domains}: no sidecar is connected{words}"),
        ));
    }
    if !facts.missing_at.is_empty() {
        let pods = facts.missing_at.join(", ");
        let sidecars: Vec<_> = facts.connected.keys().map(String::as_str).collect();
        let told = said.and_then(|said| said.get(&gateway.name));
        let told = told.filter(|told| !told.is_empty());
        let told = told.map_or_else(
            || {
                format!(
                    "/readyz and the log of sidecar {} name the address that it dials, the step that fails and what to do",
                    sidecars.join(", ")
                )
            },
            |told| told.join("; "),
        );
        let message = format!("{domains}: no sidecar is connected to pod {pods}: {told}");
        return Some((Reason::TrunkMissing, message));
    }
    if !facts.inactive_at.is_empty() {
        let here = facts.inactive_at.join(", ");
        let active: Vec<_> = names(facts, true).collect();
        let message = format!(
            "{domains}: sidecar {}, which gets what comes in, is not connected to pod {here}, and those that are stand by (sidecar.server Single): its /readyz and log name the address that it dials, the step that fails and what to do",
            if active.is_empty() {
                "none".to_owned()
            } else {
                active.join(", ")
            }
        );
        return Some((Reason::TrunkMissing, message));
    }
    if facts.away_at.is_empty() {
        return None;
    }
    let active = facts.connected.iter().filter(|(_, own)| own.is_active);
    let faults = active.filter_map(|(instance, own)| {
        let words = own.server_fault.as_deref()?;
        let words = if words.is_empty() {
            "it does not answer: the sidecar's log says why"
        } else {
            words
        };
        Some(format!("the server beside sidecar {instance}: {words}"))
    });
    let faults: Vec<_> = faults.collect();
    let mut message = format!("{domains}: {}", faults.join("; "));
    let standing_by: Vec<_> = names(facts, false).collect();
    if !standing_by.is_empty() {
        message += &format!(
            "; sidecar {} stands by, and takes over once that one ends (sidecar.server Single)",
            standing_by.join(", ")
        );
    }
    Some((Reason::ServerUnreachable, message))
}

/// Who gets what comes in at any pod, or at none.
fn names(facts: &SidecarFacts, is_active: bool) -> impl Iterator<Item = &str> {
    let own = facts.connected.iter();
    let own = own.filter(move |(_, own)| own.is_active == is_active);
    own.map(|(instance, _)| instance.as_str())
}

/// Several sidecars whose servers are worlds of their own: who gets what comes in.
#[must_use]
pub(super) fn several(gateway: &GatewayFacts) -> Option<String> {
    let facts = gateway.sidecars.as_ref()?;
    let is_single = gateway.servers == SidecarServers::Single;
    if gateway.mode != Some(GatewayMode::Sidecar) || !is_single || facts.connected.len() < 2 {
        return None;
    }
    let named = |is_active| names(facts, is_active).collect::<Vec<_>>().join(", ");
    Some(format!(
        "{}: sidecar {} gets what comes in, {} stands by: their servers are worlds of their own (sidecar.server Single)",
        gateway.domains.join(", "),
        named(true),
        named(false)
    ))
}

/// `status.gateways`: those that take trunks.
#[must_use]
pub(super) fn states(gateways: &[GatewayFacts]) -> Vec<GatewayState> {
    let with_sidecars = gateways.iter().filter_map(|gateway| {
        let facts = gateway.sidecars.as_ref()?;
        let sidecars = facts.connected.iter().take(MOST_SIDECARS);
        let sidecars = sidecars.map(|(instance, own)| SidecarState {
            instance: instance.clone(),
            version: own.version.clone(),
            trunks: i32::try_from(own.pods).unwrap_or(i32::MAX),
            active: own.is_active,
            server_up: own.server_fault.is_none(),
            connected_time: own.since.map(whole_seconds),
            certificate_not_after: own.certificate_not_after.map(whole_seconds),
        });
        Some(GatewayState {
            name: gateway.name.clone(),
            mode: gateway.mode.unwrap_or(GatewayMode::Direct),
            sidecars: sidecars.collect(),
        })
    });
    with_sidecars.take(MOST_GATEWAYS).collect()
}

/// `status.sidecars`: each with the pods that it has a trunk to, of so many.
#[must_use]
pub(super) fn shown(gateways: &[GatewayFacts], pods: usize) -> Option<String> {
    let facts = gateways.iter().filter_map(|it| it.sidecars.as_ref());
    let shown: Vec<String> = facts
        .flat_map(|facts| &facts.connected)
        .map(|(instance, own)| format!("{instance} {}/{pods}", own.pods))
        .collect();
    let shown: String = shown.join(", ").chars().take(MOST_SHOWN).collect();
    (!shown.is_empty()).then_some(shown)
}

/// `SidecarIdentity`, where any gateway has sidecars.
#[must_use]
pub(super) fn identity(
    old: &[Condition],
    identities: Option<&[SidecarIdentity]>,
) -> Option<DesiredCondition> {
    let kind = ConditionType::SidecarIdentity;
    let Some(identities) = identities else {
        return previous(old, kind);
    };
    let (mut faults, mut issued, mut waits) = (Vec::new(), Vec::new(), Vec::new());
    for SidecarIdentity {
        gateway,
        place,
        state,
    } in identities
    {
        match state {
            IdentityState::Refused(fault) => faults.push((fault.reason, &fault.message, gateway)),
            IdentityState::NotYet => waits.push(gateway.as_str()),
            IdentityState::Issued { not_after } => issued.push(format!(
                "gateway {gateway}: Secret {:?} in namespace {:?} until {}",
                place.name,
                place.namespace,
                whole_seconds(*not_after).0
            )),
        }
    }
    if let Some((reason, _, _)) = faults.first() {
        let messages: Vec<String> = faults
            .iter()
            .map(|(_, message, gateway)| format!("gateway {gateway}: {message}"))
            .collect();
        return Some(DesiredCondition::new(
            kind,
            false,
            *reason,
            messages.join("; "),
        ));
    }
    if !waits.is_empty() {
        let message = format!("not looked at yet: gateway {}", waits.join(", "));
        let unknown = ConditionStatus::Unknown;
        return Some(DesiredCondition::new(
            kind,
            unknown,
            Reason::Pending,
            message,
        ));
    }
    (!issued.is_empty())
        .then(|| DesiredCondition::new(kind, true, Reason::Issued, issued.join("; ")))
}

#[cfg(test)]
mod tests;
