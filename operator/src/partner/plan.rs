//! What a partner's status should say: its conditions, and how each pool fares with it. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use xmpp_edge_crds::kinds::{
    PartnerStatus,
    conditions::{ConditionType, Reason},
    partner::{AttemptStatus, PartnerPoolStatus, ProbeStatus},
};

use super::{
    read::{self, Observed},
    validate,
};
use crate::cluster::{
    PoolOutcome, Scene,
    conditions::{self, State, Wanted, whole_seconds},
    pods::{Attempt, PartnerFacts, PoolReport},
    programmed,
};

/// Bounds of the fields, in characters (`crds`).
const MAX_TEXT: usize = 1024;
const MAX_STEPS: usize = 64;

/// The status that the partner should have now.
#[must_use]
pub fn plan(
    scene: &Scene,
    outcomes: &BTreeMap<String, PoolOutcome>,
    partner: &Observed<'_>,
) -> PartnerStatus {
    let accepted = partner.accepted();
    let holds = accepted.state == State::True;
    let told = programmed::programmed(scene, outcomes, &partner.reference, holds);
    let old = &partner.status.conditions;
    let kept = conditions::kept(old, ConditionType::Programmed);
    let programmed = programmed::or_kept(told, kept);
    let pools = pools(scene, partner);
    let reachable = reachable(scene, partner, &pools);
    let mut wanted = vec![accepted, programmed, validate::secure(partner), reachable];
    let counted = [ConditionType::Accepted, ConditionType::Programmed];
    wanted.insert(0, conditions::ready(&wanted, &counted));
    let generation = partner.metadata().generation;
    PartnerStatus {
        observed_generation: generation,
        authentication_methods: validate::methods(partner),
        pools,
        conditions: conditions::merge(old, &wanted, generation, scene.now),
    }
}

/// Whether all pods that are ready have said what they know.
fn is_known(report: Option<&PoolReport>) -> bool {
    report.is_some_and(PoolReport::is_complete)
}

/// One entry for each pool that knows anything of the partner.
fn pools(scene: &Scene, partner: &Observed<'_>) -> Vec<PartnerPoolStatus> {
    let name = &partner.reference.name;
    let before = |pool: &str| partner.status.pools.iter().find(|it| it.name == pool);
    let mut pools = Vec::new();
    for pool in scene.compiled.configs.keys() {
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
        peer_key_sha256: bounded(facts.peer_key_sha256.as_ref(), 64),
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
    let surplus = attempt.steps.len().saturating_sub(MAX_STEPS);
    attempt.steps[surplus..]
        .iter()
        .map(|step| AttemptStatus {
            step: step.step.chars().take(32).collect(),
            outcome: step.outcome.chars().take(64).collect(),
            direction: Some(step.direction.as_str().to_owned()),
            domain: bounded(step.domain.as_ref(), 253),
            address: bounded(step.address.as_ref(), 64),
            text: bounded(step.text.as_ref().filter(|text| !text.is_empty()), MAX_TEXT),
            replica: Some(attempt.replica.chars().take(253).collect()),
        })
        .collect()
}

/// `Reachable`: the last attempt of each direction went well, in every pool that tried.
fn reachable(scene: &Scene, partner: &Observed<'_>, pools: &[PartnerPoolStatus]) -> Wanted {
    let say = |state, reason, message: String| {
        Wanted::new(ConditionType::Reachable, state, reason, message)
    };
    if read::is_suspended(partner) {
        return say(
            State::Unknown,
            Reason::Suspended,
            "suspended: nothing is tried".to_owned(),
        );
    }
    let failed = |pool: &PartnerPoolStatus| {
        pool.last_attempt
            .iter()
            .find(|step| step.outcome != "Ok")
            .cloned()
    };
    if let Some((pool, step)) = pools.iter().find_map(|pool| Some((pool, failed(pool)?))) {
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
        return say(
            State::False,
            Reason::Unreachable,
            format!(
                "EdgePool {:?}, {}{domain}: step {}{at}: {}{text}",
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
        return say(State::True, Reason::Reachable, String::new());
    }
    let all_said = scene
        .compiled
        .configs
        .keys()
        .all(|pool| is_known(scene.reports.get(pool)));
    let kept = conditions::kept(&partner.status.conditions, ConditionType::Reachable);
    match kept {
        Some(kept) if !all_said && kept.reason != Reason::Suspended => kept,
        _ => say(
            State::Unknown,
            Reason::NotAttempted,
            "nothing was tried yet".to_owned(),
        ),
    }
}
