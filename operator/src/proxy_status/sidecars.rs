//! What the pods of a pool say of a gateway's sidecars, merged.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::model::{self, Direction};

/// What an edge refused longer ago, by its own clock, is nobody's who tries still.
const LATELY: SignedDuration = SignedDuration::from_secs(60);

/// Of one gateway that takes trunks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SidecarFacts {
    /// Pods to which none has a trunk.
    pub missing_at: Vec<String>,
    /// Pods to which some have one, none of whom gets what comes in there (`Single`: another one does elsewhere).
    pub inactive_at: Vec<String>,
    /// Pods at which whoever gets what comes in does not reach its server.
    pub away_at: Vec<String>,
    /// How many pods have somebody who gets what comes in there, its server reached or not.
    pub active_at: usize,
    /// By instance.
    pub connected: BTreeMap<String, ConnectedSidecar>,
    /// What a pod without a trunk refused lately: the pod and the step.
    pub refused: Option<(String, model::AttemptStep)>,
}

/// One sidecar, as all pods see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectedSidecar {
    pub version: Option<String>,
    /// Pods that it has a trunk to.
    pub pods: usize,
    /// Whether any of them gives it what comes in.
    pub is_active: bool,
    /// What is wrong with its server, as any of them knows; none: nothing.
    pub server_fault: Option<String>,
    /// Of its oldest trunk.
    pub since: Option<Timestamp>,
    pub certificate_not_after: Option<Timestamp>,
}

impl SidecarFacts {
    /// Takes in what one pod says of the gateway, at `now` by its clock.
    pub(super) fn add(&mut self, pod: &str, gateway: &model::Gateway, now: Option<Timestamp>) {
        if gateway.sidecars.is_empty() {
            self.missing_at.push(pod.to_owned());
            if let Some(step) = refusal(gateway, now)
                && self.refused.is_none()
            {
                self.refused = Some((pod.to_owned(), step.clone()));
            }
        }
        let mut here: BTreeMap<&str, ConnectedSidecar> = BTreeMap::new();
        // While one is renewed there are two trunks.
        for sidecar in &gateway.sidecars {
            here.entry(&sidecar.instance).or_default().add(sidecar);
        }
        let mut active = here.values().filter(|own| own.is_active).peekable();
        if active.peek().is_none() {
            if !here.is_empty() {
                self.inactive_at.push(pod.to_owned());
            }
        } else {
            self.active_at += 1;
            if active.all(|own| own.server_fault.is_some()) {
                self.away_at.push(pod.to_owned());
            }
        }
        for (instance, own) in here {
            let known = self.connected.entry(instance.to_owned()).or_default();
            known.merge(own);
        }
    }
}

/// The newest step of a sidecar's attempt to connect, where it failed lately.
fn refusal(gateway: &model::Gateway, now: Option<Timestamp>) -> Option<&model::AttemptStep> {
    let theirs = gateway.last_attempt.iter();
    let theirs = theirs.filter(|step| step.direction == Direction::Outbound);
    let newest = theirs.max_by_key(|step| step.time)?;
    let is_late = now.is_none_or(|now| now.duration_since(newest.time) <= LATELY);
    (newest.failed() && is_late).then_some(newest)
}

impl ConnectedSidecar {
    fn add(&mut self, said: &model::Sidecar) {
        self.merge(Self {
            version: said.version.clone(),
            pods: 0,
            is_active: said.active,
            server_fault: (!said.server_up).then(|| said.server_text.clone().unwrap_or_default()),
            since: said.established_time,
            certificate_not_after: said.certificate_not_after,
        });
        self.pods = 1;
    }

    fn merge(&mut self, other: Self) {
        self.pods += other.pods;
        self.is_active |= other.is_active;
        self.server_fault = match (self.server_fault.take(), other.server_fault) {
            // Words say more than none.
            (Some(own), Some(other)) if own.is_empty() => Some(other),
            (own, other) => own.or(other),
        };
        // A newer trunk knows better.
        if self.since.is_none() || other.since > self.since {
            self.version = other.version.or(self.version.take());
            self.certificate_not_after = other.certificate_not_after.or(self.certificate_not_after);
        }
        self.since = match (self.since, other.since) {
            (Some(own), Some(other)) => Some(own.min(other)),
            (own, other) => own.or(other),
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::*;

    fn gateway(sidecars: Value, attempt: Value) -> model::Gateway {
        let said = json!({"name": "org.example", "mode": "Sidecar", "domains": ["org.example"],
            "address": "", "sidecars": sidecars, "lastAttempt": attempt});
        serde_json::from_value(said).unwrap()
    }

    #[test]
    fn pods_without_a_trunk_are_named_and_a_server_is_up_where_every_pod_says_so() {
        let sidecar = |instance, up, since| {
            json!({"instance": instance, "active": up, "serverUp": up, "version": since,
                "establishedTime": format!("2026-01-01T00:00:0{since}Z"),
                "serverText": if up { Value::Null } else { json!("refused") }})
        };
        let mut facts = SidecarFacts::default();
        for (pod, sidecars) in [
            (
                "hq-0",
                json!([
                    sidecar("a", true, "1"),
                    sidecar("b", true, "1"),
                    sidecar("a", true, "4")
                ]),
            ),
            ("hq-1", json!([sidecar("a", false, "3")])),
            ("hq-2", json!([])),
        ] {
            facts.add(pod, &gateway(sidecars, json!([])), None);
        }
        assert_eq!(facts.missing_at, ["hq-2"]);
        assert_eq!(facts.inactive_at, ["hq-1"]);
        assert_eq!(facts.active_at, 1);
        let a = &facts.connected["a"];
        assert_eq!((a.pods, a.is_active), (2, true));
        assert_eq!(a.server_fault.as_deref(), Some("refused"));
        assert_eq!(a.since, Some("2026-01-01T00:00:01Z".parse().unwrap()));
        let b = &facts.connected["b"];
        assert_eq!((b.pods, b.server_fault.as_deref()), (1, None));
    }

    #[test]
    fn each_pod_is_judged_by_whoever_gets_what_comes_in_there() {
        let sidecar =
            |instance, active, up| json!({"instance": instance, "active": active, "serverUp": up});
        let mut facts = SidecarFacts::default();
        for (pod, sidecars) in [
            // Another that stands by does not serve in the place of the active one.
            (
                "hq-0",
                json!([sidecar("a", true, false), sidecar("b", false, true)]),
            ),
            ("hq-1", json!([sidecar("b", false, true)])),
            (
                "hq-2",
                json!([sidecar("a", true, false), sidecar("c", true, true)]),
            ),
            ("hq-3", json!([sidecar("c", true, true)])),
        ] {
            facts.add(pod, &gateway(sidecars, json!([])), None);
        }
        assert_eq!(facts.away_at, ["hq-0"]);
        assert_eq!(facts.inactive_at, ["hq-1"]);
        assert_eq!(facts.active_at, 3);
        assert!(facts.missing_at.is_empty());
    }

    #[test]
    fn what_a_pod_without_a_trunk_refused_lately_is_told() {
        let step = |outcome, direction, second| {
            json!({"step": "certificate", "outcome": outcome, "direction": direction, "text": "why",
                "time": format!("2026-01-01T00:00:{second}Z")})
        };
        let failed = || step("CertificateExpired", "outbound", "10");
        let now: Timestamp = "2026-01-01T00:01:05Z".parse().unwrap();
        let later = now + SignedDuration::from_secs(10);
        for (attempt, now, is_told) in [
            (json!([failed()]), now, true),
            (json!([failed()]), later, false),
            (json!([failed(), step("Ok", "outbound", "11")]), now, false),
            (json!([failed(), step("Ok", "inbound", "11")]), now, true),
            (json!([]), now, false),
        ] {
            let mut facts = SidecarFacts::default();
            facts.add("hq-0", &gateway(json!([]), attempt.clone()), Some(now));
            assert_eq!(facts.refused.is_some(), is_told, "{attempt} {now}");
        }
    }
}
