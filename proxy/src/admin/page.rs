//! The page of one pool: what this process knows of its partners, own servers, certificates and queues.
//!
//! It is looked at while somebody follows the page, never on the path of a stanza, and changes nothing.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use xmpp_edge_crds::{
    edge_config::{GatewayMode, Partner, SipDialect},
    verdict::Direction,
};
use xmpp_edge_page::{
    board::{Contents, Look},
    model::{
        Cell, CellState, CertificateShown, GatewayRecord, Head, PartnerRecord, PoolRecord, Queue,
        Section, SidecarShown, SipConnectionShown, SipShown, StepShown, bounded_notes,
    },
};

use super::{
    server::Admin,
    sip_status::{SipConnectionStatus, SipStatus},
    status,
};
use crate::{
    config::ActiveConfig,
    negotiation::Side,
    stream::{context::StreamContext, registry::AuthInfo},
    telemetry::attempts::ShownStep,
};

/// Where the page of a pool comes from.
#[derive(Debug)]
pub struct PoolPage {
    admin: Arc<Admin>,
}

impl PoolPage {
    #[must_use]
    pub fn new(admin: Arc<Admin>) -> Self {
        Self { admin }
    }
}

impl Look for PoolPage {
    fn look(&self) -> Contents {
        let mut contents = Contents::default();
        // Nobody is shown anything before.
        if let Some(context) = self.admin.context() {
            self.show(context, &mut contents);
        }
        contents
    }
}

impl PoolPage {
    fn show(&self, context: &StreamContext, contents: &mut Contents) {
        let config = context.config();
        let document = &config.document;
        let (namespace, pool) = (&document.namespace, &document.pool);
        let readiness = self.admin.readiness();
        let waits = readiness.waits.iter();
        let mut notes: Vec<_> = waits.map(|wait| format!("waiting for {wait}")).collect();
        notes.extend(readiness.remarks.iter().cloned());
        let control = self.admin.control();
        let records = control.records_shown();
        notes.extend(control.notes);
        let head = Head {
            title: format!("EdgePool {namespace}/{pool}"),
            version: env!("CARGO_PKG_VERSION"),
            ready: readiness.is_ready(),
            notes: bounded_notes(notes, "the log"),
            explains: true,
            probes: config.edge_dials.is_none(),
            refusals: true,
        };
        contents.add(Section::Head, "", &head);
        let shown = status::status(context, None, Vec::new());
        let facts = PairFacts::of(context, &config);
        let all = facts.of_pool;
        let record = PoolRecord {
            namespace: namespace.clone(),
            name: pool.clone(),
            site: document.site.clone(),
            replicas: None,
            generation: Some(document.generation),
            rejected: shown.config.rejected.map(|rejected| rejected.error),
            inbound_streams: all.inbound_streams,
            outbound_streams: all.outbound_streams,
            queue: Some(all.queue),
            conditions: control.conditions,
            certificates: certificates(&config),
            records,
        };
        contents.add(Section::Pool, format!("{namespace}/{pool}"), &record);
        for (own, status) in document.partners.iter().zip(shown.partners) {
            if own.name != status.name {
                // Another configuration came meanwhile: the next look is of that alone.
                break;
            }
            let facts = facts.of_partner.get(own.name.as_str());
            let cell = cell(&config, own, status, facts);
            let record = PartnerRecord {
                namespace: namespace.clone(),
                name: own.name.clone(),
                domains: own.domains.iter().map(ToString::to_string).collect(),
                partner_type: format!("{:?}", own.partner_type),
                conditions: Vec::new(),
                cells: vec![cell],
            };
            contents.add(
                Section::Partner,
                format!("{namespace}/{}", own.name),
                &record,
            );
        }
        for gateway in shown.gateways {
            let key = gateway.domains.first().cloned().unwrap_or_default();
            let own = config.gateways().iter().map(|own| &own.config);
            let mut own = own.filter(|own| own.effective_name() == gateway.name);
            let takes_trunks = own.any(|own| own.takes_trunks());
            let reachable = match gateway.mode {
                GatewayMode::Direct | GatewayMode::Sip => gateway.reachable,
                GatewayMode::Sidecar => Some(gateway.sidecars.iter().any(|own| own.server_up)),
            };
            let record = GatewayRecord {
                pool: pool.clone(),
                domains: gateway.domains,
                address: gateway.address,
                reachable,
                message: None,
                attempt: gateway.last_attempt.into_iter().map(step).collect(),
                sip: gateway.sip.map(sip),
                sidecars: takes_trunks.then(|| gateway.sidecars.into_iter().map(sidecar).collect()),
            };
            contents.add(Section::Gateway, key, &record);
        }
        self.admin.history().show(contents);
    }
}

/// What stands and what waits.
#[derive(Default)]
struct PairFacts<'a> {
    of_pool: StreamCounts,
    of_partner: HashMap<&'a str, PartnerStreams>,
}

#[derive(Clone, Copy, Default)]
struct StreamCounts {
    inbound_streams: u32,
    outbound_streams: u32,
    queue: Queue,
}

#[derive(Default)]
struct PartnerStreams {
    counts: StreamCounts,
    newest: Option<AuthInfo>,
}

impl<'a> PairFacts<'a> {
    /// Of all partners in one go: streams and routes are gone through once.
    fn of(context: &StreamContext, config: &'a ActiveConfig) -> Self {
        let mut found = Self::default();
        for entry in context.streams.all() {
            let facts = entry.facts();
            if entry.side != Side::Partner || facts.method.is_none() {
                continue;
            }
            let both = entry.is_bidirectional();
            let inbound = u32::from(both || entry.direction() == Direction::Inbound);
            let outbound = u32::from(both || entry.direction() == Direction::Outbound);
            let partner = facts.partner(entry.side, config);
            let own = partner.map(|partner| found.of_partner.entry(partner).or_default());
            let counts = own.map(|own| {
                let newest = own.newest.as_ref().and_then(|own| own.established);
                if newest <= facts.established {
                    own.newest = Some(facts);
                }
                &mut own.counts
            });
            for counts in [Some(&mut found.of_pool), counts].into_iter().flatten() {
                counts.inbound_streams += inbound;
                counts.outbound_streams += outbound;
            }
        }
        for route in context.router.all() {
            let (stanzas, bytes) = (route.waiting(), route.held() as u64);
            let partner = config.pair_partner(route.side, &route.pair);
            let own = partner.map(|partner| found.of_partner.entry(partner).or_default());
            let counts = own.map(|own| &mut own.counts);
            for counts in [Some(&mut found.of_pool), counts].into_iter().flatten() {
                counts.queue.stanzas += stanzas;
                counts.queue.bytes += bytes;
            }
        }
        found
    }
}

fn cell(
    config: &ActiveConfig,
    partner: &Partner,
    status: status::PartnerStatus,
    facts: Option<&PartnerStreams>,
) -> Cell {
    let counts = facts.map(|facts| facts.counts).unwrap_or_default();
    let newest = facts.and_then(|facts| facts.newest.as_ref());
    let text = |text: &'static str| text.to_owned();
    Cell {
        pool: config.document.pool.clone(),
        state: state(
            partner.suspended || config.document.suspended,
            counts,
            &status,
        ),
        inbound_streams: counts.inbound_streams,
        outbound_streams: counts.outbound_streams,
        method: newest.and_then(|own| Some(text(own.method?.as_str()))),
        tls_version: newest.and_then(|own| own.tls_version.map(text)),
        tls_cipher: newest.and_then(|own| own.tls_cipher.map(text)),
        peer_certificate_not_after: newest.and_then(|own| own.peer_certificate_not_after),
        last_connected_time: status.last_connected_time,
        next_attempt_time: status.next_attempt_time,
        attempt: status.last_attempt.into_iter().map(step).collect(),
        queue: Some(counts.queue),
        probe: status
            .probe
            .map(|probe| (probe.time, probe.latency_milliseconds)),
    }
}

fn state(suspended: bool, counts: StreamCounts, status: &status::PartnerStatus) -> CellState {
    let since = status.last_connected_time.unwrap_or(Timestamp::MIN);
    // Anybody can fail in the name of a partner.
    let is_known = status.last_connected_time.is_some();
    let mut steps = status.last_attempt.iter();
    let is_failure = |step: &ShownStep| step.failed() && !(step.unproven && is_known);
    if suspended {
        CellState::Suspended
    } else if steps.any(|step| is_failure(step) && step.time > since) {
        CellState::Failing
    } else if counts.inbound_streams + counts.outbound_streams > 0 {
        CellState::Connected
    } else {
        CellState::Idle
    }
}

fn sip(shown: SipStatus) -> SipShown {
    let connection = |own: SipConnectionStatus| SipConnectionShown {
        direction: match own.direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        },
        address: own.address,
        tls_version: own.tls_version.map(str::to_owned),
        tls_cipher: own.tls_cipher.map(str::to_owned),
        peer_certificate_not_after: own.peer_certificate_not_after,
        since: own.established_time,
    };
    let (dialect, sessions) = match shown.dialect {
        SipDialect::Simple => ("Simple", None),
        SipDialect::Lync => ("Lync", Some(shown.sessions)),
    };
    SipShown {
        dialect,
        sessions,
        connection_count: shown.connection_count,
        connections: shown.connections.into_iter().map(connection).collect(),
        watching: shown.watching,
        watched: shown.watched,
        pending: shown.pending,
        last_answer_time: shown.last_answer_time,
    }
}

fn sidecar(trunk: status::SidecarStatus) -> SidecarShown {
    SidecarShown {
        instance: trunk.instance,
        version: Some(trunk.version),
        active: trunk.active,
        server_up: trunk.server_up,
        server_text: trunk.server_text,
        trunks: 1,
        pairs: Some(trunk.pairs),
        unacknowledged: Some(Queue {
            stanzas: trunk.unacknowledged_stanzas,
            bytes: trunk.unacknowledged_bytes,
        }),
        since: Some(trunk.established_time),
        certificate_not_after: trunk.certificate_not_after,
    }
}

fn step(step: ShownStep) -> StepShown {
    StepShown {
        step: step.step.as_str().to_owned(),
        outcome: step.outcome.to_owned(),
        direction: step.direction.to_owned(),
        domain: step.domain,
        address: step.address,
        text: step.text,
        remedy: step.remedy,
        time: Some(step.time),
        replica: None,
    }
}

fn certificates(config: &ActiveConfig) -> Vec<CertificateShown> {
    let identity = config.identity.as_ref().map(|own| CertificateShown {
        name: "of the edge, for partners".to_owned(),
        not_after: own.not_after(),
        dns_names: own.dns_names().to_vec(),
    });
    let issuer = config.leaves.as_ref().map(|own| CertificateShown {
        name: "of the internal issuer".to_owned(),
        not_after: own.not_after(),
        dns_names: Vec::new(),
    });
    let sip = config
        .sip_certificates()
        .map(|(gateway, own)| CertificateShown {
            name: format!("for the SIP server of {gateway}"),
            not_after: own.not_after(),
            dns_names: own.dns_names().to_vec(),
        });
    identity.into_iter().chain(issuer).chain(sip).collect()
}
