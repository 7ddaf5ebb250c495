//! What a pool's status says. Pure: from what was found to the whole status.

mod sidecars;
mod sip;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use xmpp_edge_crds::{
    edge_config::GatewayMode,
    kinds::{
        EdgePool, PoolStatus,
        conditions::{ConditionType, Reason},
        pool::status::{CertificateStatus, ConfigStatus, StreamCounts},
    },
};

use super::plan::metadata;
use crate::{
    compile::{Diagnostic, Fault},
    controllers::pool::sidecar_secrets::SidecarIdentity,
    dns::records,
    proxy_status::{GatewayFacts, Loaded, PoolFacts, PoolReport},
    secrets::source::CertificateState,
    status::condition::{ConditionStatus, DesiredCondition, merge, previous, whole_seconds},
};

/// Counts alone are written this seldom.
const COUNTS: SignedDuration = SignedDuration::from_secs(300);

/// All that one look at a pool found.
#[derive(Debug)]
pub struct Findings<'a> {
    pub name: &'a str,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// As it can be read; absent: only what was written before is served.
    pub pool: Option<&'a EdgePool>,
    /// The generation that was compiled, where the pool is in force.
    pub compiled: Option<u64>,
    /// The generation whose shards are in place, where there is one.
    pub written: Option<u64>,
    /// Why something could not be written that is tried again, for longer than it mostly takes.
    pub failure: Option<&'a str>,
    /// Why pods are not there or do not run.
    pub blocked: Option<&'a str>,
    /// Why a newer one is not.
    pub unwritten: Option<&'a Fault>,
    /// What compiling and the plan have to say.
    pub diagnostics: Vec<&'a Diagnostic>,
    pub certificate: Certificate<'a>,
    pub deployment: Option<&'a Deployment>,
    /// Those that partners reach.
    pub addresses: Vec<String>,
    pub report: Option<&'a PoolReport>,
    pub facts: Option<&'a PoolFacts>,
    pub dns: DesiredCondition,
    /// Objects that could not be written, each with what to do.
    pub refused: Vec<String>,
    /// What the gateways' sidecars prove themselves by; none: it was not looked at.
    pub identities: Option<&'a [SidecarIdentity]>,
    /// What pods with sidecars say that are missing, by gateway; none: nobody was asked.
    pub sidecar_pods: Option<&'a BTreeMap<String, Vec<String>>>,
    /// The pool whose pods are replaced first.
    pub held_by: Option<&'a str>,
    pub now: Timestamp,
}

/// What came of the certificate.
#[derive(Clone, Copy, Debug)]
pub enum Certificate<'a> {
    /// The pool is not in force: nothing was asked for.
    None,
    /// It was not looked at, or what was made could not be kept: it stays as it was said to be.
    NotLooked,
    Provided(&'a CertificateState),
    Failed(Reason, &'a str),
}

/// The status as it should be; `old` is the one that is there.
#[must_use]
pub fn status(old: &PoolStatus, found: &Findings<'_>) -> PoolStatus {
    let pods = found.deployment.and_then(|it| it.status.as_ref());
    let wanted = conditions(old, found);
    let provision = match found.certificate {
        Certificate::Provided(provision) => Some(provision),
        Certificate::None | Certificate::NotLooked | Certificate::Failed(..) => None,
    };
    let request = match found.certificate {
        Certificate::NotLooked => old.certificate_signing_request.clone(),
        _ => provision.and_then(|it| it.request.clone()),
    };
    PoolStatus {
        observed_generation: found.generation,
        replicas: pods.and_then(|it| it.replicas).unwrap_or(0),
        ready_replicas: ready_replicas(found),
        addresses: found.addresses.clone(),
        srv_records: found.pool.map_or_else(
            || old.srv_records.clone(),
            |pool| srv_records(pool, &found.addresses),
        ),
        certificate: provision.map_or_else(|| old.certificate.clone(), certificate),
        certificate_signing_request: request,
        config: found.written.map(|generation| ConfigStatus {
            generation: i64::try_from(generation).unwrap_or(i64::MAX),
            pods_in_sync: found.report.map_or(0, |report| {
                i32::try_from(report.in_sync(generation)).unwrap_or(i32::MAX)
            }),
        }),
        streams: found.facts.map_or_else(
            || old.streams.clone(),
            |facts| {
                Some(StreamCounts {
                    inbound: facts.inbound_streams,
                    outbound: facts.outbound_streams,
                })
            },
        ),
        gateways: found.facts.map_or_else(
            || old.gateways.clone(),
            |facts| sidecars::states(&facts.gateways),
        ),
        sidecars: found.facts.map_or_else(
            || old.sidecars.clone(),
            |facts| sidecars::shown(&facts.gateways, facts.pods),
        ),
        selector: Some(metadata::selector_text(found.name)),
        conditions: merge(&old.conditions, &wanted, found.generation, found.now),
    }
}

/// Whether `new` is to be written over `old`; counts alone wait until `counted` is long ago.
#[must_use]
pub fn is_due(
    old: &PoolStatus,
    new: &PoolStatus,
    counted: Option<Timestamp>,
    now: Timestamp,
) -> bool {
    if old == new {
        return false;
    }
    let with_old_counts = PoolStatus {
        streams: old.streams.clone(),
        ..new.clone()
    };
    with_old_counts != *old || counted.is_none_or(|counted| now.duration_since(counted) >= COUNTS)
}

fn ready_replicas(found: &Findings<'_>) -> i32 {
    let status = found.deployment.and_then(|it| it.status.as_ref());
    status.and_then(|it| it.ready_replicas).unwrap_or(0)
}

fn certificate(provision: &CertificateState) -> Option<CertificateStatus> {
    let facts = provision.facts.as_ref()?;
    Some(CertificateStatus {
        not_after: whole_seconds(facts.not_after),
        // A foreign certificate may name more than a status holds.
        dns_names: facts.dns_names.iter().take(128).cloned().collect(),
        serial: facts.serial.chars().take(64).collect(),
    })
}

/// Records with the addresses that are known, the load balancer's included.
fn srv_records(pool: &EdgePool, addresses: &[String]) -> Vec<String> {
    let mut spec = pool.spec.clone();
    spec.access_edge.addresses = Some(addresses.to_vec());
    let mut records = records::of_pool(&spec);
    records.truncate(512);
    records
}

fn conditions(old: &PoolStatus, found: &Findings<'_>) -> Vec<DesiredCondition> {
    let accepted = accepted(found);
    let certificate = certificate_ready(old, found);
    let replicated = replicated(found);
    let gateway = gateway(found);
    let identity = sidecars::identity(&old.conditions, found.identities);
    let ready = ready(found, [&accepted, &certificate, &replicated, &found.dns]);
    let always = [
        ready,
        accepted,
        certificate,
        replicated,
        found.dns.clone(),
        gateway,
    ];
    always.into_iter().chain(identity).collect()
}

fn accepted(found: &Findings<'_>) -> DesiredCondition {
    let kind = ConditionType::Accepted;
    let said = found.diagnostics.iter().filter(|it| it.condition == kind);
    // What is false outweighs what is true.
    let said = said.min_by_key(|it| it.status);
    said.map_or_else(
        || {
            DesiredCondition::new(
                kind,
                ConditionStatus::Unknown,
                Reason::Pending,
                "not looked at yet",
            )
        },
        |said| DesiredCondition::from(*said),
    )
}

fn certificate_ready(old: &PoolStatus, found: &Findings<'_>) -> DesiredCondition {
    let kind = ConditionType::CertificateReady;
    match found.certificate {
        Certificate::Provided(provision) => {
            let (status, reason, message) = provision.condition(found.now);
            DesiredCondition::new(kind, status, reason, message)
        }
        Certificate::Failed(reason, message) => DesiredCondition::new(kind, false, reason, message),
        Certificate::None => DesiredCondition::new(
            kind,
            ConditionStatus::Unknown,
            Reason::NotAccepted,
            "the pool is not accepted",
        ),
        Certificate::NotLooked => previous(&old.conditions, kind).unwrap_or_else(|| {
            let message = "not looked at yet";
            DesiredCondition::new(kind, ConditionStatus::Unknown, Reason::Pending, message)
        }),
    }
}

fn replicated(found: &Findings<'_>) -> DesiredCondition {
    let kind = ConditionType::ConfigReplicated;
    if let Some(fault) = found.unwritten {
        return DesiredCondition::new(kind, false, fault.reason, &fault.message);
    }
    let because = found
        .failure
        .map_or_else(String::new, |failure| format!(": {failure}"));
    let Some(generation) = found.written else {
        return DesiredCondition::new(
            kind,
            ConditionStatus::Unknown,
            Reason::Pending,
            format!("no configuration is written yet{because}"),
        );
    };
    // What pods have loaded of an older one says nothing about what should be in force.
    if found
        .compiled
        .is_some_and(|compiled| compiled != generation)
    {
        let compiled = found.compiled.unwrap_or_default();
        return DesiredCondition::new(
            kind,
            false,
            Reason::Pending,
            format!("generation {compiled} is not written yet{because}"),
        );
    }
    let none = PoolReport::default();
    let report = found.report.unwrap_or(&none);
    match report.loaded() {
        Loaded::NoPod => DesiredCondition::new(
            kind,
            ConditionStatus::Unknown,
            Reason::NoReadyReplica,
            "no pod is ready to load it",
        ),
        Loaded::All(loaded) if loaded >= generation => DesiredCondition::new(
            kind,
            true,
            Reason::InSync,
            format!("generation {generation}"),
        ),
        loaded => {
            if let Some((pod, rejected)) = report.rejected().next() {
                return DesiredCondition::new(
                    kind,
                    false,
                    Reason::ConfigRejected,
                    format!(
                        "pod {pod} refuses the configuration and keeps the one before: {}",
                        rejected.error
                    ),
                );
            }
            match loaded {
                Loaded::Unreachable { pod, error } => DesiredCondition::new(
                    kind,
                    ConditionStatus::Unknown,
                    Reason::Pending,
                    format!("pod {pod} does not answer on the admin port: {error}"),
                ),
                Loaded::Unknown => DesiredCondition::new(
                    kind,
                    ConditionStatus::Unknown,
                    Reason::Pending,
                    "the pods were not asked yet",
                ),
                _ => DesiredCondition::new(
                    kind,
                    false,
                    Reason::Pending,
                    format!(
                        "{} of {} ready pods have generation {generation}",
                        report.in_sync(generation),
                        report.pods.len()
                    ),
                ),
            }
        }
    }
}

fn gateway(found: &Findings<'_>) -> DesiredCondition {
    let kind = ConditionType::GatewayReachable;
    let gateways = found.facts.map_or(&[][..], |facts| &facts.gateways);
    let said = found.diagnostics.iter().filter(|it| it.condition == kind);
    if let Some(held) = said.clone().find(|it| !it.status) {
        return DesiredCondition::from(*held);
    }
    let lost: Vec<String> = gateways
        .iter()
        .filter(|gateway| {
            gateway.mode != Some(GatewayMode::Sidecar) && gateway.reachable == Some(false)
        })
        .map(|gateway| match &gateway.failure {
            Some((pod, step)) => format!(
                "{} ({}): {} from pod {pod}{}",
                gateway.address,
                gateway.domains.join(", "),
                step.step,
                step.text
                    .as_ref()
                    .map_or_else(String::new, |text| format!(": {text}"))
            ),
            None => gateway.address.clone(),
        })
        .collect();
    if !lost.is_empty() {
        return DesiredCondition::new(kind, false, Reason::Unreachable, lost.join("; "));
    }
    let mut missing = gateways.iter().filter_map(|gateway| {
        let sidecars = gateway.sidecars.as_ref()?;
        sidecars::fault(sidecars, gateway, found.sidecar_pods)
    });
    if let Some((reason, message)) = missing.next() {
        let others = missing.map(|(_, message)| message);
        let messages: Vec<_> = std::iter::once(message).chain(others).collect();
        return DesiredCondition::new(kind, false, reason, messages.join("; "));
    }
    let untried =
        |it: &GatewayFacts| it.mode != Some(GatewayMode::Sidecar) && it.reachable.is_none();
    if gateways.is_empty() || gateways.iter().any(untried) {
        return DesiredCondition::new(
            kind,
            ConditionStatus::Unknown,
            Reason::NotAttempted,
            "nothing was sent to every gateway yet",
        );
    }
    if let Some(stale) = said.clone().next() {
        return DesiredCondition::from(*stale);
    }
    if let Some(refused) = sip::refusal(gateways) {
        return refused;
    }
    let several: Vec<_> = gateways.iter().filter_map(sidecars::several).collect();
    if several.is_empty() {
        return DesiredCondition::new(kind, true, Reason::Reachable, "");
    }
    DesiredCondition::new(kind, true, Reason::SeveralSidecars, several.join("; "))
}

/// All but the gateway, one ready replica, and every object of the pool in place.
fn ready(found: &Findings<'_>, counted: [&DesiredCondition; 4]) -> DesiredCondition {
    let kind = ConditionType::Ready;
    let mut faults: Vec<DesiredCondition> = counted
        .into_iter()
        .filter(|it| it.state == ConditionStatus::False)
        .cloned()
        .collect();
    faults.extend(
        found
            .diagnostics
            .iter()
            .filter(|it| it.condition == kind && !it.status)
            .map(|it| DesiredCondition::from(*it)),
    );
    if let Some(failure) = found.failure {
        faults.push(DesiredCondition::new(
            kind,
            false,
            Reason::WriteFailed,
            failure,
        ));
    }
    if !found.refused.is_empty() {
        let message = found.refused.join("; ");
        faults.push(DesiredCondition::new(
            kind,
            false,
            Reason::ObjectRefused,
            message,
        ));
    }
    if found.pool.is_some_and(|pool| pool.spec.suspended) {
        let message = "the pool is suspended: set spec.suspended to false when it may go on";
        faults.push(DesiredCondition::new(
            kind,
            false,
            Reason::Suspended,
            message,
        ));
    }
    if ready_replicas(found) == 0 {
        let message = match (found.blocked, found.pool) {
            (Some(why), _) => format!("no pod is ready: {why}"),
            (None, Some(pool)) if pool.spec.desired_replicas() == 0 => {
                "no pod is ready: spec.replicas is 0".to_owned()
            }
            _ => "no pod is ready: /readyz of each says what it waits for (`kubectl describe pod` shows it)".to_owned(),
        };
        faults.push(DesiredCondition::new(
            kind,
            false,
            Reason::NoReadyReplica,
            message,
        ));
    }
    faults.extend(
        counted
            .into_iter()
            .filter(|it| it.state == ConditionStatus::Unknown)
            .cloned(),
    );
    match faults.into_iter().next() {
        Some(fault) => DesiredCondition::new(kind, fault.state, fault.reason, fault.message),
        None => {
            // With pods enough to serve, what keeps others from running is no fault yet.
            let message = match (found.blocked, found.held_by) {
                (Some(why), _) => why.to_owned(),
                (None, Some(other)) => {
                    format!("its pods are replaced after those of EdgePool {other:?}")
                }
                (None, None) => String::new(),
            };
            DesiredCondition::new(kind, true, Reason::Ready, message)
        }
    }
}

#[cfg(test)]
mod tests;
