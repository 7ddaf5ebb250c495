//! The page of the operator: every partner in every pool of the watched namespaces, as their statuses
//! say. Every replica shows it, since every replica watches; it reads the stores and asks nobody; what DNS answers is asked beside it.

pub mod questions;
pub mod rates;
mod refusals;
pub mod server;

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use xmpp_edge_crds::{
    kinds::{
        EdgePool, ExternalAccessPolicy, XmppFederatedPartner,
        conditions::ConditionType,
        partner::{AttemptStatus, PartnerPoolStatus},
        pool::status::SidecarState,
    },
    remedy,
};
use xmpp_edge_page::{
    board::{Contents, Look},
    model::{
        Cell, CellState, CertificateShown, ConditionShown, DnsRecordShown, GatewayRecord, Head,
        PartnerRecord, PoolRecord, RecordAnswers, Section, SidecarShown, StepShown, bounded_notes,
    },
};

use self::rates::PodRates;
use crate::{
    dns::answered::AnsweredRecords,
    proxy_status::Reports,
    runtime::{caches::Caches, decoded::Decoded},
    status::unwatched::UnwatchedWatch,
};

/// Where the page comes from.
#[derive(Debug)]
pub struct NamespacesPage {
    caches: Arc<Caches>,
    rates: Arc<PodRates>,
    reports: Arc<Reports>,
    answers: RecordAnswers,
    unwatched: Arc<UnwatchedWatch>,
}

impl NamespacesPage {
    #[must_use]
    pub fn new(
        caches: Arc<Caches>,
        rates: Arc<PodRates>,
        reports: Arc<Reports>,
        answers: &Arc<AnsweredRecords>,
        unwatched: Arc<UnwatchedWatch>,
    ) -> Self {
        Self {
            caches,
            rates,
            reports,
            answers: answers.shown(),
            unwatched,
        }
    }
}

impl Look for NamespacesPage {
    fn look(&self) -> Contents {
        let mut contents = Contents::default();
        let (pools, partners) = (self.caches.pools.all(), self.caches.partners.all());
        let policies = self.caches.policies.all();
        let readiness = self.caches.readiness();
        let mut notes = Notes(readiness.lines);
        notes.0.extend(self.unwatched.lines());
        for pool in &pools {
            notes.of(pool.as_ref(), "EdgePool", |it: &EdgePool| {
                it.status.as_ref().map(|status| &*status.conditions)
            });
        }
        for partner in &partners {
            notes.of(
                partner.as_ref(),
                "XmppFederatedPartner",
                |it: &XmppFederatedPartner| it.status.as_ref().map(|status| &*status.conditions),
            );
        }
        for policy in &policies {
            notes.of(
                policy.as_ref(),
                "ExternalAccessPolicy",
                |it: &ExternalAccessPolicy| it.status.as_ref().map(|status| &*status.conditions),
            );
        }
        let refusals = refusals::records(&self.reports);
        let head = Head {
            title: "xmpp-edge operator".to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            ready: readiness.ready,
            notes: bounded_notes(notes.0, "kubectl get xmpp -A"),
            explains: true,
            probes: true,
            refusals: refusals.is_some(),
        };
        contents.add(Section::Head, "", &head);
        let mut served: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pool in pools.iter().filter_map(|pool| pool.read()) {
            add_pool(&mut contents, pool, &self.answers);
            let of_namespace = served.entry(pool.namespace().unwrap_or_default());
            of_namespace.or_default().push(pool.name_any());
        }
        for partner in partners.iter().filter_map(|partner| partner.read()) {
            let namespace = partner.namespace().unwrap_or_default();
            let pools = served.get(&namespace).into_iter().flatten();
            let pools = pools.map(String::as_str);
            let record = partner_record(partner, &namespace, pools);
            let key = format!("{namespace}/{}", record.name);
            contents.add(Section::Partner, key, &record);
        }
        self.rates.show(&mut contents);
        for record in refusals.into_iter().flatten() {
            contents.add(Section::Refusal, record.key(), &record);
        }
        contents
    }
}

/// What wants somebody, a line each.
struct Notes(Vec<String>);

impl Notes {
    /// Why an object is not ready, or cannot be read.
    fn of<K: kube::Resource<DynamicType = ()>>(
        &mut self,
        object: &Decoded<K>,
        kind: &str,
        conditions: impl Fn(&K) -> Option<&[Condition]>,
    ) {
        let whose = format!(
            "{kind} {}/{}",
            object.namespace().unwrap_or_default(),
            object.name_any()
        );
        match object {
            Decoded::Undecodable(unreadable) => {
                self.0
                    .push(format!("{whose} cannot be read: {}", unreadable.error));
            }
            Decoded::Valid(read) => {
                let ready = ConditionType::Ready.as_str();
                let conditions = conditions(read).unwrap_or_default();
                let mut ready = conditions.iter().filter(|it| it.type_ == ready);
                match ready.next() {
                    Some(ready) if ready.status == "False" => self.0.push(format!(
                        "{whose} is not ready: {}: {}",
                        ready.reason, ready.message
                    )),
                    Some(_) => {}
                    None => self.0.push(format!(
                        "{whose} has no status: no operator that leads has looked at it yet"
                    )),
                }
            }
        }
    }
}

fn add_pool(contents: &mut Contents, pool: &EdgePool, answers: &RecordAnswers) {
    let (namespace, name) = (pool.namespace().unwrap_or_default(), pool.name_any());
    let status = pool.status.clone().unwrap_or_default();
    let streams = status.streams.unwrap_or_default();
    let count = |number: i32| u32::try_from(number).unwrap_or_default();
    let record = PoolRecord {
        namespace: namespace.clone(),
        name: name.clone(),
        site: pool.spec.site.clone(),
        replicas: Some((
            count(status.ready_replicas),
            count(pool.spec.desired_replicas()),
        )),
        generation: status
            .config
            .and_then(|config| u64::try_from(config.generation).ok()),
        rejected: None,
        inbound_streams: streams.inbound,
        outbound_streams: streams.outbound,
        queue: None,
        conditions: conditions(&status.conditions),
        certificates: status
            .certificate
            .into_iter()
            .map(|certificate| CertificateShown {
                name: "of the edge, for partners".to_owned(),
                not_after: certificate.not_after.0,
                dns_names: certificate.dns_names,
            })
            .collect(),
        records: status
            .srv_records
            .into_iter()
            .map(|wanted| DnsRecordShown {
                answered: (answers.0)(&wanted),
                wanted,
            })
            .collect(),
    };
    contents.add(Section::Pool, format!("{namespace}/{name}"), &record);
    let reachable = ConditionType::GatewayReachable.as_str();
    let reachable = status.conditions.iter().find(|it| it.type_ == reachable);
    for gateway in &pool.spec.gateways {
        let first = gateway.domains.first().map_or("", String::as_str);
        // One that is reached by sidecars need not have an address.
        let address = gateway.address.as_deref().unwrap_or(first);
        let is_told = |message: &str| message.contains(address) || message.contains(first);
        let record = GatewayRecord {
            pool: format!("{namespace}/{name}"),
            domains: gateway.domains.clone(),
            address: gateway.address.clone().unwrap_or_default(),
            // The condition speaks of all of them: its message names the one.
            reachable: reachable.and_then(|it| match it.status.as_str() {
                "True" => Some(true),
                "False" if is_told(&it.message) => Some(false),
                _ => None,
            }),
            message: reachable.map(|it| format!("{}: {}", it.reason, it.message)),
            attempt: Vec::new(),
            sip: None,
            sidecars: gateway.takes_trunks().then(|| {
                let name = gateway.effective_name();
                let known = status.gateways.iter().find(|it| it.name == name);
                let known = known.map_or(&[][..], |known| &known.sidecars);
                known.iter().map(sidecar).collect()
            }),
        };
        contents.add(
            Section::Gateway,
            format!("{namespace}/{name} {first}"),
            &record,
        );
    }
}

fn sidecar(state: &SidecarState) -> SidecarShown {
    SidecarShown {
        instance: state.instance.clone(),
        version: state.version.clone(),
        active: state.active,
        server_up: state.server_up,
        // The condition has it.
        server_text: None,
        trunks: u32::try_from(state.trunks).unwrap_or_default(),
        pairs: None,
        unacknowledged: None,
        since: state.connected_time.as_ref().map(|time| time.0),
        certificate_not_after: state.certificate_not_after.as_ref().map(|time| time.0),
    }
}

fn partner_record<'a>(
    partner: &XmppFederatedPartner,
    namespace: &str,
    pools: impl Iterator<Item = &'a str>,
) -> PartnerRecord {
    let spec = &partner.spec;
    let status = partner.status.clone().unwrap_or_default();
    let known = |pool: &str| status.pools.iter().find(|it| it.name == pool);
    PartnerRecord {
        namespace: namespace.to_owned(),
        name: partner.name_any(),
        domains: [&spec.domain]
            .into_iter()
            .chain(&spec.additional_domains)
            .cloned()
            .collect(),
        partner_type: format!("{:?}", spec.partner_type),
        conditions: conditions(&status.conditions),
        cells: pools
            .map(|pool| cell(pool, spec.suspended, known(pool)))
            .collect(),
    }
}

fn cell(pool: &str, suspended: bool, known: Option<&PartnerPoolStatus>) -> Cell {
    let nothing = PartnerPoolStatus::default();
    let known = known.unwrap_or(&nothing);
    let time = |time: &Option<Time>| time.as_ref().map(|time| time.0);
    let state = if suspended {
        CellState::Suspended
    } else if known.last_attempt.iter().any(AttemptStatus::failed) {
        CellState::Failing
    } else if known.inbound_streams + known.outbound_streams > 0 {
        CellState::Connected
    } else {
        CellState::Idle
    };
    Cell {
        pool: pool.to_owned(),
        state,
        inbound_streams: known.inbound_streams,
        outbound_streams: known.outbound_streams,
        method: known.method.map(|method| method.as_str().to_owned()),
        tls_version: known.tls_version.clone(),
        tls_cipher: known.tls_cipher.clone(),
        peer_certificate_not_after: time(&known.peer_certificate_not_after),
        last_connected_time: time(&known.last_connected_time),
        next_attempt_time: None,
        attempt: known
            .last_attempt
            .iter()
            .map(|one| step(one, time(&known.last_attempt_time)))
            .collect(),
        queue: None,
        probe: known.probe.as_ref().map(|probe| {
            let latency = probe.latency_milliseconds.map(u64::from);
            (probe.time.0, latency.filter(|_| probe.success))
        }),
    }
}

fn step(step: &AttemptStatus, time: Option<Timestamp>) -> StepShown {
    StepShown {
        step: step.step.clone(),
        outcome: step.outcome.clone(),
        direction: step.direction.clone().unwrap_or_default(),
        domain: step.domain.clone().unwrap_or_default(),
        address: step.address.clone(),
        text: step.text.clone().unwrap_or_default(),
        remedy: remedy::of_outcome(&step.outcome),
        time,
        replica: step.replica.clone(),
    }
}

fn conditions(of: &[Condition]) -> Vec<ConditionShown> {
    of.iter()
        .map(|condition| ConditionShown {
            r#type: condition.type_.clone(),
            status: condition.status.clone(),
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            since: Some(condition.last_transition_time.0),
        })
        .collect()
}

#[cfg(test)]
mod tests;
