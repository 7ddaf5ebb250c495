//! Several replicas' answers as one: counts are sums, stream facts are the newest stream's, the
//! attempt is the newest failure since the last success of its direction.

use std::collections::BTreeMap;

use jiff::Timestamp;
use xmpp_edge_crds::{
    edge_config::{EdgeConfig, GatewayMode, Partner, SidecarServers},
    negotiation::Method,
    verdict::Partners,
};

use super::{
    PoolReport,
    model::{self, Direction, Side},
    sidecars::SidecarFacts,
};
use crate::compile::peer_keys::PeerKeyHash;

/// What a pool's pods say together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolFacts {
    /// By the partner object's name.
    pub partners: BTreeMap<String, PartnerFacts>,
    /// Ready ones.
    pub pods: usize,
    /// In the document's order.
    pub gateways: Vec<GatewayFacts>,
    /// Streams with partners that carry stanzas inbound.
    pub inbound_streams: u32,
    /// Streams with partners that carry stanzas outbound.
    pub outbound_streams: u32,
}

/// How a pool fares with a partner.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PartnerFacts {
    pub inbound_streams: u32,
    pub outbound_streams: u32,
    /// Of the newest stream that stands.
    pub stream: Option<model::Stream>,
    pub last_connected_time: Option<Timestamp>,
    pub attempt: Option<Attempt>,
    /// Of the replica that connected last.
    pub peer_key_sha256: Option<PeerKeyHash>,
    pub probe: Option<model::Probe>,
}

/// Steps of one attempt on one replica.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    pub replica: String,
    steps: Vec<model::AttemptStep>,
}

impl Attempt {
    /// Steps of who only claims to be the partner come first: where a list is cut it loses its beginning, and the step
    /// that is told is the last that failed.
    fn new(replica: &str, mut steps: Vec<model::AttemptStep>) -> Self {
        steps.sort_by_key(|step| !step.unproven);
        Self {
            replica: replica.to_owned(),
            steps,
        }
    }

    /// In their order, those that were only claimed first.
    #[must_use]
    pub fn steps(&self) -> &[model::AttemptStep] {
        &self.steps
    }

    /// When it failed, else when its last step was.
    #[must_use]
    pub fn told_time(&self) -> Option<Timestamp> {
        let step = self.failure().or(self.steps.last())?;
        Some(step.time)
    }

    /// The step that failed; what we saw ourselves before what somebody only claims. Pages and the status of a partner
    /// find it by the same rule.
    #[must_use]
    pub fn failure(&self) -> Option<&model::AttemptStep> {
        self.steps.iter().rfind(|step| step.failed())
    }

    fn time(&self) -> Timestamp {
        let times = self.steps.iter().map(|step| step.time);
        times.max().unwrap_or(Timestamp::MIN)
    }
}

/// How the pods reach one of the organisation's own servers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GatewayFacts {
    pub name: String,
    pub mode: Option<GatewayMode>,
    /// What servers with a sidecar each are to each other.
    pub servers: SidecarServers,
    pub domains: Vec<String>,
    pub address: String,
    /// `None`: not tried yet.
    pub reachable: Option<bool>,
    /// Where it is not reached: the replica, and what it saw.
    pub failure: Option<(String, model::AttemptStep)>,
    /// Of a SIP server that is reached: the replica, and what it saw the server refuse last.
    pub refused: Option<(String, model::AttemptStep)>,
    /// What its server showed on the newest stream.
    pub shown: Option<ShownCertificate>,
    /// Of one that takes trunks, used or not.
    pub sidecars: Option<SidecarFacts>,
}

/// The certificate of a server inside, as a proxy saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownCertificate {
    pub not_after: Timestamp,
    /// When the stream was established: what the server has since is not known.
    pub seen: Timestamp,
}

impl PartnerFacts {
    /// The method of the newest stream.
    #[must_use]
    pub fn method(&self) -> Option<Method> {
        self.stream.as_ref()?.method
    }
}

/// Merges what the pods of the pool of `config` say.
#[must_use]
pub fn merge(report: &PoolReport, config: &EdgeConfig) -> PoolFacts {
    let mut facts = PoolFacts {
        pods: report.pods.len(),
        ..PoolFacts::default()
    };
    let answers = || {
        let pods = report.pods.iter();
        pods.filter_map(|(pod, report)| Some((pod, report.status.as_ref()?)))
    };
    let mut successes: BTreeMap<(String, Direction), Timestamp> = BTreeMap::new();
    if answers().any(|(_, status)| !status.streams.is_empty()) {
        let index = Partners::build(config);
        for (_, status) in answers() {
            for stream in status.streams.iter().filter(|it| it.side == Side::Partner) {
                add_stream(&mut facts, stream, config, &index, &mut successes);
            }
        }
    }
    let mut attempts: BTreeMap<&str, Vec<Attempt>> = BTreeMap::new();
    let mut keys: BTreeMap<&str, (Option<Timestamp>, PeerKeyHash)> = BTreeMap::new();
    // Of others nothing is to be told, whoever invents them.
    let exists = |name: &str| {
        let by_name = |it: &Partner| it.name.as_str().cmp(name);
        config.partners.binary_search_by(by_name).is_ok()
    };
    for (pod, status) in answers() {
        for partner in status.partners.iter().filter(|it| exists(&it.name)) {
            let known = facts.partners.entry(partner.name.clone()).or_default();
            known.last_connected_time = known.last_connected_time.max(partner.last_connected_time);
            if let Some(probe) = &partner.probe
                && known
                    .probe
                    .as_ref()
                    .is_none_or(|known| known.time < probe.time)
            {
                known.probe = Some(probe.clone());
            }
            if let Some(key) = partner.peer_key_sha256 {
                let newest = keys.entry(&partner.name).or_insert((None, key));
                if partner.last_connected_time >= newest.0 {
                    *newest = (partner.last_connected_time, key);
                }
            }
            if !partner.last_attempt.is_empty() {
                let attempt = Attempt::new(pod, partner.last_attempt.clone());
                attempts.entry(&partner.name).or_default().push(attempt);
            }
        }
        for gateway in &status.gateways {
            add_gateway(&mut facts.gateways, pod, gateway, config, status.time);
        }
    }
    for (_, status) in answers() {
        for stream in status.streams.iter().filter(|it| it.side == Side::Gateway) {
            add_shown(&mut facts.gateways, stream);
        }
    }
    for (name, (_, key)) in keys {
        if let Some(partner) = facts.partners.get_mut(name) {
            partner.peer_key_sha256 = Some(key);
        }
    }
    for (name, mut attempts) in attempts {
        // Anybody can fail in the name of a partner: that is told of one that nobody has heard of otherwise.
        let partner = facts.partners.get(name);
        let is_known = partner.is_some_and(|it| {
            it.last_connected_time.is_some() || it.inbound_streams + it.outbound_streams > 0
        });
        if is_known {
            for attempt in &mut attempts {
                attempt.steps.retain(|step| !step.unproven);
            }
            attempts.retain(|attempt| !attempt.steps.is_empty());
        }
        let success = |direction| successes.get(&(name.to_owned(), direction)).copied();
        let attempt = newest(attempts, success);
        if let Some(partner) = facts.partners.get_mut(name) {
            partner.attempt = attempt;
        }
    }
    facts
}

fn add_stream(
    facts: &mut PoolFacts,
    stream: &model::Stream,
    config: &EdgeConfig,
    index: &Partners,
    successes: &mut BTreeMap<(String, Direction), Timestamp>,
) {
    let inbound = u32::from(stream.direction.covers(Direction::Inbound));
    let outbound = u32::from(stream.direction.covers(Direction::Outbound));
    facts.inbound_streams += inbound;
    facts.outbound_streams += outbound;
    // All domains of a stream outbound are one partner's; inbound, each pair may have its own.
    let mut names: Vec<&str> = stream
        .peer_domains
        .iter()
        .filter_map(|domain| {
            Some(
                config.partners[index.find(domain)?.as_usize()]
                    .name
                    .as_str(),
            )
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let partner = facts.partners.entry(name.to_owned()).or_default();
        partner.inbound_streams += inbound;
        partner.outbound_streams += outbound;
        let known = partner.stream.as_ref();
        if known.is_none_or(|known| known.established_time < stream.established_time) {
            partner.stream = Some(stream.clone());
        }
        for direction in [Direction::Inbound, Direction::Outbound] {
            if let Some(time) = stream
                .established_time
                .filter(|_| stream.direction.covers(direction))
            {
                let newest = successes
                    .entry((name.to_owned(), direction))
                    .or_insert(time);
                *newest = time.max(*newest);
            }
        }
    }
}

/// The newest failure that no later success of its direction made good, without the steps of a direction that had one;
/// else what came last.
fn newest(
    mut attempts: Vec<Attempt>,
    stood: impl Fn(Direction) -> Option<Timestamp>,
) -> Option<Attempt> {
    attempts.sort_by_key(Attempt::time);
    let good = |direction: Direction| {
        let well = attempts
            .iter()
            .filter(|attempt| attempt.failure().is_none());
        let well = well.filter(|it| it.steps.iter().any(|step| step.direction.covers(direction)));
        well.map(Attempt::time).chain(stood(direction)).max()
    };
    let made_good = [Direction::Inbound, Direction::Outbound, Direction::Both]
        .map(|direction| (direction, good(direction)));
    let is_open = |step: &model::AttemptStep| {
        let mut times = made_good.iter();
        let found = times.find(|(direction, _)| *direction == step.direction);
        found.is_none_or(|(_, time)| time.is_none_or(|time| time < step.time))
    };
    let open = attempts.iter().rposition(|attempt| {
        let mut steps = attempt.steps.iter();
        steps.any(|step| step.failed() && is_open(step))
    });
    // A failure that was made good says nothing any more.
    let well = || {
        attempts
            .iter()
            .rposition(|attempt| attempt.failure().is_none())
    };
    let chosen = open.or_else(well)?;
    let mut chosen = attempts.swap_remove(chosen);
    if open.is_some() {
        chosen.steps.retain(is_open);
    }
    Some(chosen)
}

fn add_shown(gateways: &mut [GatewayFacts], stream: &model::Stream) {
    let (Some(not_after), Some(seen)) =
        (stream.peer_certificate_not_after, stream.established_time)
    else {
        return;
    };
    let of = |gateway: &&mut GatewayFacts| {
        let domains = &stream.peer_domains;
        gateway
            .domains
            .iter()
            .any(|domain| domains.contains(domain))
    };
    if let Some(gateway) = gateways.iter_mut().find(of)
        // What a sidecar shows is not the certificate that its server has.
        && gateway.mode != Some(GatewayMode::Sidecar)
        && !stream.trunk
        && gateway.shown.is_none_or(|shown| shown.seen < seen)
    {
        gateway.shown = Some(ShownCertificate { not_after, seen });
    }
}

fn add_gateway(
    gateways: &mut Vec<GatewayFacts>,
    pod: &str,
    new: &model::Gateway,
    config: &EdgeConfig,
    now: Option<Timestamp>,
) {
    let own = config.gateways.iter().find(|it| {
        let domains = it.domains.iter().map(|domain| domain.as_str());
        domains.eq(new.domains.iter().map(String::as_str))
    });
    let known = gateways.iter().position(|it| it.domains == new.domains);
    let place = known.unwrap_or_else(|| {
        let first = new.domains.first().cloned();
        let sidecar = own.and_then(|it| it.sidecar.as_ref());
        gateways.push(GatewayFacts {
            name: new.name.clone().or(first).unwrap_or_default(),
            mode: new.mode,
            servers: sidecar.map(|it| it.server).unwrap_or_default(),
            domains: new.domains.clone(),
            address: new.address.clone(),
            ..GatewayFacts::default()
        });
        gateways.len() - 1
    });
    let known = &mut gateways[place];
    let takes_trunks = own.is_some_and(|it| it.takes_trunks());
    if takes_trunks || new.mode == Some(GatewayMode::Sidecar) {
        let sidecars = known.sidecars.get_or_insert_default();
        sidecars.add(pod, new, now);
    }
    if new.mode == Some(GatewayMode::Sidecar) {
        // Pods that have not loaded the mode yet say what is over.
        known.mode = new.mode;
        return;
    }
    known.reachable = match (known.reachable, new.reachable) {
        (Some(a), Some(b)) => Some(a && b),
        (a, b) => a.or(b),
    };
    let connections = new.sip.iter().flat_map(|sip| &sip.connections);
    for own in connections.filter(|own| own.direction == Direction::Inbound) {
        if let (Some(not_after), Some(seen)) =
            (own.peer_certificate_not_after, own.established_time)
            && known.shown.is_none_or(|shown| shown.seen < seen)
        {
            known.shown = Some(ShownCertificate { not_after, seen });
        }
    }
    if new.mode == Some(GatewayMode::Sip)
        && known.refused.is_none()
        && let Some(step) = standing_refusal(&new.last_attempt)
    {
        known.refused = Some((pod.to_owned(), step.clone()));
    }
    if new.reachable == Some(false)
        && known.failure.is_none()
        && let Some(step) = new.last_attempt.iter().find(|step| step.failed())
    {
        known.failure = Some((pod.to_owned(), step.clone()));
    }
}

/// What a SIP server was last seen to do, in either direction, where that is a refusal.
fn standing_refusal(steps: &[model::AttemptStep]) -> Option<&model::AttemptStep> {
    let mut last = [Direction::Inbound, Direction::Outbound]
        .into_iter()
        .filter_map(|direction| {
            let mut own = steps.iter();
            own.rfind(|it| it.step == "sip" && it.direction == direction)
        });
    last.find(|step| step.failed())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn time(second: i64) -> String {
        Timestamp::from_second(second).unwrap().to_string()
    }

    fn stream(id: u64, direction: &str, domain: &str, second: i64) -> Value {
        json!({"id": id, "side": "Partner", "direction": direction, "peerDomains": [domain],
            "method": if id == 1 { "SaslOverTls" } else { "TlsDialback" }, "establishedTime": time(second)})
    }

    fn step(direction: &str, outcome: &str, second: i64) -> Value {
        json!({"step": "tcp", "outcome": outcome, "direction": direction, "time": time(second)})
    }

    fn report(pods: Vec<(&str, Value, Value)>) -> PoolReport {
        let pods = pods.into_iter().map(|(pod, streams, partners)| {
            let status = json!({"pool": "hq", "version": "0", "config": {"generation": 1, "loadedTime": time(0)},
                "streams": streams, "partners": partners});
            let status = Some(serde_json::from_value(status).unwrap());
            (pod.to_owned(), super::super::PodReport { status, unreachable: None })
        });
        PoolReport {
            pods: pods.collect(),
            ..PoolReport::default()
        }
    }

    fn config() -> EdgeConfig {
        let manifests = "apiVersion: xmpp-edge.dev/v1alpha1\nkind: EdgePool\nmetadata: {name: hq}\nspec: {site: hq, domains: [org.example], accessEdge: {fqdn: e.org.example}, gateways: [{domains: [org.example], address: 'i.example:5269'}], certificate: {selfSigned: {}}}";
        let pool = serde_saphyr::from_str(manifests).unwrap();
        let partner = "apiVersion: xmpp-edge.dev/v1alpha1\nkind: XmppFederatedPartner\nmetadata: {name: p}\nspec: {domain: p.example, additionalDomains: ['*.p.example']}";
        let world = crate::compile::NamespaceInputs {
            namespace: "n".into(),
            pools: vec![pool],
            partners: vec![serde_saphyr::from_str(partner).unwrap()],
            ..Default::default()
        };
        crate::compile::compile(&world, &BTreeMap::new())
            .configs
            .remove("hq")
            .unwrap()
    }

    #[test]
    fn counts_are_sums_and_stream_facts_the_newest_streams() {
        let facts = merge(
            &report(vec![
                (
                    "a",
                    json!([
                        stream(1, "Inbound", "p.example", 10),
                        stream(2, "Both", "x.p.example", 5)
                    ]),
                    json!([]),
                ),
                (
                    "b",
                    json!([
                        stream(2, "Outbound", "p.example", 7),
                        stream(3, "Outbound", "stranger.example", 9)
                    ]),
                    json!([]),
                ),
            ]),
            &config(),
        );
        let partner = &facts.partners["p"];
        assert_eq!((partner.inbound_streams, partner.outbound_streams), (2, 2));
        assert_eq!(partner.method(), Some(Method::SaslOverTls));
        assert_eq!((facts.inbound_streams, facts.outbound_streams), (2, 3));
    }

    #[test]
    fn who_only_claims_to_be_a_partner_is_told_where_nobody_was_ever_proven_to_be_it() {
        let mut claim = step("inbound", "CertificateMissing", 30);
        claim["unproven"] = json!(true);
        let ours = step("outbound", "Timeout", 20);
        let failure = |steps: Value, connected: Value| {
            let partners =
                json!([{"name": "p", "lastAttempt": steps, "lastConnectedTime": connected}]);
            let facts = merge(&report(vec![("a", json!([]), partners)]), &config());
            let attempt = facts.partners["p"].attempt.clone()?;
            Some(attempt.failure()?.outcome.clone())
        };
        let never = Value::Null;
        let claimed = failure(json!([claim]), never.clone());
        assert_eq!(claimed.as_deref(), Some("CertificateMissing"));
        let dialled = failure(json!([claim, ours]), never);
        assert_eq!(
            dialled.as_deref(),
            Some("Timeout"),
            "what we saw ourselves comes first"
        );
        assert_eq!(failure(json!([claim]), json!(time(10))), None);
    }

    #[test]
    fn the_attempt_is_the_newest_failure_that_no_success_of_its_direction_followed() {
        let partner = |steps: Value| json!([{"name": "p", "lastAttempt": steps}]);
        let failed = |facts: &PoolFacts| {
            let attempt = facts.partners["p"].attempt.clone().unwrap();
            (
                attempt.replica.clone(),
                attempt.failure().map(|step| step.outcome.clone()),
            )
        };
        let two = |first: Value, second: Value, streams: Value| {
            merge(
                &report(vec![
                    ("a", streams, partner(first)),
                    ("b", json!([]), partner(second)),
                ]),
                &config(),
            )
        };
        let newer = two(
            json!([step("outbound", "Refused", 10)]),
            json!([step("outbound", "Timeout", 20)]),
            json!([]),
        );
        assert_eq!(failed(&newer), ("b".into(), Some("Timeout".into())));
        let made_good = two(
            json!([step("outbound", "Refused", 10)]),
            json!([step("outbound", "Ok", 20)]),
            json!([]),
        );
        assert_eq!(failed(&made_good), ("b".into(), None));
        let other_way = two(
            json!([step("outbound", "Refused", 10)]),
            json!([step("inbound", "Ok", 20)]),
            json!([]),
        );
        assert_eq!(failed(&other_way), ("a".into(), Some("Refused".into())));
        let stands = two(
            json!([step("outbound", "Ok", 3)]),
            json!([step("outbound", "Refused", 10)]),
            json!([stream(1, "Outbound", "p.example", 12)]),
        );
        assert_eq!(failed(&stands), ("a".into(), None));
        let inbound_only = two(
            json!([
                step("inbound", "PeerClosed", 9),
                step("outbound", "Refused", 10)
            ]),
            json!([]),
            json!([stream(1, "Outbound", "p.example", 12)]),
        );
        let told = ("a".into(), Some("PeerClosed".into()));
        assert_eq!(failed(&inbound_only), told, "the other was made good");
        let silent = json!([step("outbound", "TcpSilent", 10)]);
        let slow = two(silent, json!([]), json!([]));
        assert_eq!(failed(&slow), ("a".into(), None));
    }

    #[test]
    fn a_sip_server_that_refuses_something_is_told_until_it_takes_it() {
        let step = |direction: &str, outcome: &str, second| json!({"step": "sip", "outcome": outcome, "direction": direction, "time": time(second)});
        let dialled = json!({"step": "tcp", "outcome": "TcpTimeout", "direction": "Inbound", "time": time(1)});
        for (steps, expected) in [
            (json!([]), None),
            (json!([step("Inbound", "Ok", 2)]), None),
            // One address of several that were tried says nothing of the server.
            (json!([dialled, step("Inbound", "Ok", 2)]), None),
            (
                json!([step("Inbound", "Ok", 2), step("Inbound", "EventRefused", 2)]),
                Some("EventRefused"),
            ),
            (
                json!([step("Inbound", "EventRefused", 2), step("Inbound", "Ok", 2)]),
                None,
            ),
            (
                json!([
                    step("Inbound", "Ok", 2),
                    step("Outbound", "UnknownServer", 1)
                ]),
                Some("UnknownServer"),
            ),
        ] {
            let connection = |direction: &str, second, not_after| json!({"direction": direction, "peerCertificateNotAfter": time(not_after), "establishedTime": time(second)});
            let answer = json!({"pool": "hq", "version": "0",
                "config": {"generation": 1, "loadedTime": time(0)},
                "gateways": [{"name": "g", "mode": "Sip", "domains": ["org.example"], "address": "i.example:5061",
                    "reachable": true, "lastAttempt": steps.clone(), "sip": {"connections":
                        [connection("Inbound", 5, 100), connection("Outbound", 6, 200)]}}]});
            let status: model::ProxyStatus = serde_json::from_value(answer).unwrap();
            let mut gateways = Vec::new();
            add_gateway(&mut gateways, "hq-0", &status.gateways[0], &config(), None);
            let refused = gateways[0].refused.as_ref();
            let found = refused.map(|(_, step)| step.outcome.as_str());
            assert_eq!(found, expected, "{steps}");
            // What it shows on its own connections is nothing that it has from the Secret of the gateway.
            let shown = gateways[0].shown.map(|shown| shown.not_after.as_second());
            assert_eq!(shown, Some(100));
        }
    }
}
