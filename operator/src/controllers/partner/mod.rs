//! `XmppFederatedPartner` in a cluster: what its status should say (its conditions, and how each pool
//! fares with it), and whether a difference is due. Pure.
//!
//! What carries a partner is its pools' document; no object of its own is made. It is read and
//! written as every kind of that sort is ([`status_only`](super::status_only)).

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use xmpp_edge_crds::{
    kinds::{
        PartnerSpec, PartnerStatus, XmppFederatedPartner,
        conditions::{ConditionType, Reason},
        partner::{
            AttemptStatus, MAX_POOLS, MAX_REPLICA, MAX_STEPS, MAX_TEXT, PartnerPoolStatus,
            ProbeStatus,
        },
    },
    negotiation::Method,
    remedy,
};

use super::{
    namespace::{
        programmed,
        snapshot::{NamespaceSnapshot, PoolOutcome},
    },
    status_only::{Observed, StatusOnlyKind},
};
use crate::{
    compile::Kind,
    proxy_status::{Attempt, PartnerFacts, PoolReport, model::Direction},
    runtime::decoded::Decoded,
    status::{
        apply::StatusWriter,
        condition::{self, ConditionStatus, DesiredCondition, whole_seconds},
        throttle::Significance,
    },
};

/// A partner to look at.
type ObservedPartner<'a> = Observed<'a, XmppFederatedPartner>;

impl StatusOnlyKind for XmppFederatedPartner {
    const KIND: Kind = Kind::XmppFederatedPartner;
    const STATUS_WRITER: StatusWriter<Self> = StatusWriter {
        kind: Kind::XmppFederatedPartner.as_str(),
        manager: "xmpp-edge-operator/partner",
        table: |caches| &caches.partners,
    };

    fn desired_status(
        scene: &NamespaceSnapshot,
        outcomes: &BTreeMap<String, PoolOutcome>,
        partner: &Observed<'_, Self>,
    ) -> PartnerStatus {
        desired_status(scene, outcomes, partner)
    }

    fn significance(old: &PartnerStatus, new: &PartnerStatus) -> Significance {
        significance(old, new)
    }
}

/// The status that the partner should have now.
fn desired_status(
    scene: &NamespaceSnapshot,
    outcomes: &BTreeMap<String, PoolOutcome>,
    partner: &ObservedPartner<'_>,
) -> PartnerStatus {
    let accepted = partner.accepted();
    let holds = accepted.state == ConditionStatus::True;
    let told = programmed::programmed(scene, outcomes, &partner.reference, holds);
    let old = &partner.status.conditions;
    let kept = condition::previous(old, ConditionType::Programmed);
    let programmed = programmed::or_kept(told, kept);
    let pools = pools(scene, partner);
    let reachable = reachable(scene, partner, &pools);
    let failed = pools
        .iter()
        .find_map(failed_step)
        .map(|it| it.outcome.clone());
    let mut wanted = vec![accepted, programmed, secure(partner), reachable];
    let counted = [ConditionType::Accepted, ConditionType::Programmed];
    wanted.insert(0, condition::ready(&wanted, &counted));
    let why = match &wanted[0] {
        ready if ready.state == ConditionStatus::False => Some(ready.reason.to_string()),
        _ if is_suspended(partner) => Some(Reason::Suspended.to_string()),
        _ => failed,
    };
    let generation = partner.metadata().generation;
    let methods = methods(partner);
    PartnerStatus {
        observed_generation: generation,
        method_summary: summary(&methods),
        authentication_methods: methods,
        why,
        pools,
        conditions: condition::merge(old, &wanted, generation, scene.now),
    }
}

/// The methods as one text: columns of `kubectl get` cannot print a list.
fn summary(methods: &[Method]) -> Option<String> {
    let names: Vec<String> = methods.iter().map(|method| format!("{method:?}")).collect();
    (!names.is_empty()).then(|| names.join(","))
}

/// Whether all pods that are ready have said what they know.
fn is_known(report: Option<&PoolReport>) -> bool {
    report.is_some_and(PoolReport::is_complete)
}

/// One entry for each pool that knows anything of the partner.
fn pools(scene: &NamespaceSnapshot, partner: &ObservedPartner<'_>) -> Vec<PartnerPoolStatus> {
    let name = &partner.reference.name;
    let before = |pool: &str| partner.status.pools.iter().find(|it| it.name == pool);
    let mut pools = Vec::new();
    for pool in scene.compiled.configs.keys().take(MAX_POOLS) {
        let facts = scene
            .facts
            .get(pool)
            .and_then(|facts| facts.partners.get(name));
        match (facts, before(pool)) {
            // Half of the answers would look like half of the streams.
            (_, Some(before)) if !is_known(scene.reports.get(pool)) => pools.push(before.clone()),
            (Some(facts), _) if *facts != PartnerFacts::default() => pools.push(entry(pool, facts)),
            _ => {}
        }
    }
    pools
}

fn entry(pool: &str, facts: &PartnerFacts) -> PartnerPoolStatus {
    let stream = facts.stream.as_ref();
    let time = |time: Option<Timestamp>| time.map(whole_seconds);
    PartnerPoolStatus {
        name: pool.to_owned(),
        inbound_streams: facts.inbound_streams,
        outbound_streams: facts.outbound_streams,
        method: facts.method(),
        tls_version: stream.and_then(|stream| bounded(stream.tls_version.as_ref(), 32)),
        tls_cipher: stream.and_then(|stream| bounded(stream.tls_cipher.as_ref(), 64)),
        peer_certificate_not_after: time(
            stream.and_then(|stream| stream.peer_certificate_not_after),
        ),
        last_connected_time: time(facts.last_connected_time),
        last_attempt: facts.attempt.as_ref().map(steps).unwrap_or_default(),
        last_attempt_time: time(facts.attempt.as_ref().and_then(Attempt::told_time)),
        peer_key_sha256: facts.peer_key_sha256.map(|key| key.to_string()),
        probe: facts.probe.as_ref().map(|probe| ProbeStatus {
            time: whole_seconds(probe.time),
            success: probe.success,
            latency_milliseconds: probe
                .latency_milliseconds
                .map(|latency| u32::try_from(latency).unwrap_or(u32::MAX)),
        }),
    }
}

fn bounded(text: Option<&String>, most: usize) -> Option<String> {
    text.map(|text| text.chars().take(most).collect())
}

fn steps(attempt: &Attempt) -> Vec<AttemptStatus> {
    // The last steps are those that say how it ended.
    let steps = attempt.steps();
    let surplus = steps.len().saturating_sub(MAX_STEPS);
    steps[surplus..]
        .iter()
        .map(|step| AttemptStatus {
            step: step.step.chars().take(32).collect(),
            outcome: step.outcome.chars().take(64).collect(),
            direction: Some(step.direction.as_str().to_owned()),
            domain: bounded(step.domain.as_ref(), 253),
            address: bounded(step.address.as_ref(), 64),
            text: bounded(step.text.as_ref().filter(|text| !text.is_empty()), MAX_TEXT),
            replica: Some(attempt.replica.chars().take(MAX_REPLICA).collect()),
        })
        .collect()
}

/// `Reachable`: the last attempt of each direction went well, in every pool that tried.
fn reachable(
    scene: &NamespaceSnapshot,
    partner: &ObservedPartner<'_>,
    pools: &[PartnerPoolStatus],
) -> DesiredCondition {
    let say = |state, reason, message: String| {
        DesiredCondition::new(ConditionType::Reachable, state, reason, message)
    };
    if is_suspended(partner) {
        return say(
            ConditionStatus::Unknown,
            Reason::Suspended,
            "suspended: nothing is tried".to_owned(),
        );
    }
    let failed = pools
        .iter()
        .find_map(|pool| Some((pool, failed_step(pool)?.clone())));
    if let Some((pool, step)) = failed {
        let time = pool
            .last_attempt_time
            .as_ref()
            .map(|time| format!(" on {}", time.0))
            .unwrap_or_default();
        let at = step
            .address
            .map(|address| format!(" at {address}"))
            .unwrap_or_default();
        let domain = step
            .domain
            .map(|domain| format!(" ({domain})"))
            .unwrap_or_default();
        let text = step
            .text
            .map(|text| format!(": {text}"))
            .unwrap_or_default();
        let remedy = remedy::of_outcome(&step.outcome)
            .map(|remedy| format!("; what to do: {remedy}"))
            .unwrap_or_default();
        return say(
            ConditionStatus::False,
            Reason::Unreachable,
            format!(
                "EdgePool {:?}, {}{domain}{time}: step {}{at}: {}{text}{remedy}",
                pool.name,
                step.direction.unwrap_or_default(),
                step.step,
                step.outcome
            ),
        );
    }
    let tried = |pool: &PartnerPoolStatus| {
        pool.last_connected_time.is_some()
            || !pool.last_attempt.is_empty()
            || pool.inbound_streams + pool.outbound_streams > 0
    };
    if pools.iter().any(tried) {
        return say(ConditionStatus::True, Reason::Reachable, String::new());
    }
    let all_said = scene
        .compiled
        .configs
        .keys()
        .all(|pool| is_known(scene.reports.get(pool)));
    let kept = condition::previous(&partner.status.conditions, ConditionType::Reachable);
    match kept {
        Some(kept) if !all_said && kept.reason != Reason::Suspended => kept,
        _ => say(
            ConditionStatus::Unknown,
            Reason::NotAttempted,
            "nothing was tried yet".to_owned(),
        ),
    }
}

/// The step at which the last attempt in a pool failed, as [`Attempt::failure`] says.
fn failed_step(pool: &PartnerPoolStatus) -> Option<&AttemptStatus> {
    pool.last_attempt.iter().rfind(|step| step.failed())
}

/// `Secure`; of a partner that is not accepted nothing is said.
fn secure(partner: &ObservedPartner<'_>) -> DesiredCondition {
    let unsaid = || {
        let message = "not accepted: see condition Accepted";
        let kind = ConditionType::Secure;
        DesiredCondition::new(kind, ConditionStatus::Unknown, Reason::NotAccepted, message)
    };
    partner.judged(ConditionType::Secure).unwrap_or_else(unsaid)
}

/// The methods that result from the spec, best first; none where it is not accepted.
fn methods(partner: &ObservedPartner<'_>) -> Vec<Method> {
    let spec = spec(partner);
    let methods = spec.and_then(|spec| spec.methods().ok());
    methods
        .map(|methods| methods.iter().collect())
        .unwrap_or_default()
}

/// Its spec, where it can be read.
fn spec<'o>(partner: &'o ObservedPartner<'_>) -> Option<&'o PartnerSpec> {
    partner.object.read().map(|partner| &partner.spec)
}

/// Whether its kill switch is on.
fn is_suspended(partner: &ObservedPartner<'_>) -> bool {
    match partner.object.as_ref() {
        Decoded::Valid(partner) => partner.spec.suspended,
        Decoded::Undecodable(unreadable) => unreadable.suspended == Some(true),
    }
}

/// How `new` differs from `old`. Conditions, methods, keys and outcomes are news; counts, latencies,
/// times and the texts around them alone can wait. That a stream or a fact is no more is no news
/// either: it comes back. How somebody fails who was never proven to be the partner can wait too: anybody can
/// fail in another way every second.
fn significance(old: &PartnerStatus, new: &PartnerStatus) -> Significance {
    if old == new {
        return Significance::None;
    }
    let conditions_same = Significance::conditions_same(
        &old.conditions,
        &new.conditions,
        &[ConditionType::Reachable],
    );
    let same = old.observed_generation == new.observed_generation
        && old.authentication_methods == new.authentication_methods
        && old.method_summary == new.method_summary
        && (old.why == new.why || may_be_anybodys(old) && may_be_anybodys(new))
        && conditions_same
        && new.pools.iter().all(|pool| {
            let before = old.pools.iter().find(|it| it.name == pool.name);
            says_nothing_new(before, pool)
        });
    if same {
        Significance::Deferrable
    } else {
        Significance::Immediate
    }
}

/// Whether `why` is the outcome of a step that anybody can cause in the name of the partner.
fn may_be_anybodys(status: &PartnerStatus) -> bool {
    let mut failed = status
        .pools
        .iter()
        .filter_map(|pool| Some((pool, failed_step(pool)?)));
    let first = failed
        .next()
        .filter(|(_, step)| status.why.as_ref() == Some(&step.outcome));
    first.is_some_and(|(pool, step)| is_anybodys(pool, step))
}

/// Whether a step may be of somebody who only claims to be the partner: an inbound one, where it never connected.
fn is_anybodys(pool: &PartnerPoolStatus, step: &AttemptStatus) -> bool {
    let is_inbound = step.direction.as_deref() == Some(Direction::Inbound.as_str());
    is_inbound && step.failed() && pool.last_connected_time.is_none()
}

fn says_nothing_new(old: Option<&PartnerPoolStatus>, new: &PartnerPoolStatus) -> bool {
    let none = PartnerPoolStatus::default();
    let old = old.unwrap_or(&none);
    let outcomes = |pool: &PartnerPoolStatus| -> Vec<(String, String, Option<String>)> {
        let steps = pool.last_attempt.iter();
        let steps = steps.filter(|step| !is_anybodys(pool, step));
        steps
            .map(|it| (it.step.clone(), it.outcome.clone(), it.direction.clone()))
            .collect()
    };
    let success = |pool: &PartnerPoolStatus| pool.probe.as_ref().map(|probe| probe.success);
    is_same_or_gone(&old.method, &new.method)
        && is_same_or_gone(&old.peer_key_sha256, &new.peer_key_sha256)
        && is_same_or_gone(&success(old), &success(new))
        && (new.last_attempt.is_empty() || outcomes(old) == outcomes(new))
}

fn is_same_or_gone<T: PartialEq>(old: &Option<T>, new: &Option<T>) -> bool {
    new.is_none() || old == new
}
