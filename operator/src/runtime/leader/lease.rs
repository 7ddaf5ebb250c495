//! The lease of the operator's replicas on a real API server: what [`super::election`] asks for.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::election::{Election, LeaseAnswer, LeaseRecord, Request, Timing};
use crate::runtime::backoff::fraction;

/// A call without an answer ends after this: the next try still fits in before the deadline.
const LONGEST: Duration = Duration::from_secs(4);

/// The lease, and who this process is.
#[derive(Debug)]
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    timing: Timing,
    /// When this process took the lease over: a renewal writes the lease whole.
    acquired: Mutex<Option<MicroTime>>,
}

/// How a candidacy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop, and gave the lease up where it had it.
    Stopped,
    /// It led and lost the lease, or could not renew it in time.
    Lost,
    /// The API server went back in time, led or not: what the watches brought counts as newer than what is there now.
    WentBack { before: u64, now: u64 },
}

/// Versions of the lease, which never go back but where the API server's store was restored: each question is asked
/// after the last was answered, and answered from what is in force.
#[derive(Debug, Default)]
struct LeaseVersions {
    highest: Option<u64>,
}

impl LeaseVersions {
    /// Takes an answer; says from where to where the store went back, if it did.
    fn saw(&mut self, answer: &LeaseAnswer) -> Option<(u64, u64)> {
        let LeaseAnswer::Is(record) = answer else {
            return None;
        };
        let now = record.version.parse().ok()?;
        let before = self.highest.replace(now)?;
        (now < before).then_some((before, now))
    }
}

impl Candidate {
    /// A candidate for the lease `name` in a namespace; `identity` is of this process alone.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: String, identity: String) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name,
            identity,
            timing: Timing::default(),
            acquired: Mutex::new(None),
        }
    }

    /// Takes part until `stop`, or until it led and may not any more. `leads` says whether it leads.
    /// Whoever acts on it has to end by the time this returns.
    pub async fn run(&self, leads: &watch::Sender<bool>, stop: &CancellationToken) -> Ended {
        let start = Instant::now();
        let mut election = Election::new(self.identity.clone(), self.timing);
        let mut versions = LeaseVersions::default();
        loop {
            election.at(start.elapsed());
            if election.is_lost() {
                leads.send_replace(false);
                return Ended::Lost;
            }
            let deadline = election.acting_until().map(|until| start + until);
            let sent = start.elapsed();
            let request = election.request();
            let answer = tokio::select! {
                biased;
                () = stop.cancelled() => return self.stopped(&election, leads).await,
                () = at(deadline) => continue,
                answer = timeout(LONGEST, self.ask(&request)) => answer.unwrap_or(LeaseAnswer::Failed),
            };
            if let Some((before, now)) = versions.saw(&answer) {
                leads.send_replace(false);
                return Ended::WentBack { before, now };
            }
            let wait = election.answer(sent, start.elapsed(), &request, answer);
            let leading = election.acting_until().is_some();
            if leads.send_if_modified(|known| std::mem::replace(known, leading) != leading)
                && leading
            {
                tracing::info!(
                    identity = self.identity,
                    lease = self.name,
                    "this replica leads"
                );
            }
            let deadline = election.acting_until().map(|until| start + until);
            tokio::select! {
                () = stop.cancelled() => return self.stopped(&election, leads).await,
                () = at(deadline) => {}
                // Not all at the same moment.
                () = sleep(wait.mul_f64(0.9 + 0.2 * fraction())) => {}
            }
        }
    }

    async fn ask(&self, request: &Request) -> LeaseAnswer {
        let done = match request {
            Request::Get => match self.api.get_opt(&self.name).await {
                Ok(None) => return LeaseAnswer::Absent,
                Ok(Some(lease)) => Ok(lease),
                Err(error) => Err(error),
            },
            Request::Create => {
                let lease = self.lease(None, 0, true);
                self.api.create(&PostParams::default(), &lease).await
            }
            Request::Replace {
                version,
                transitions,
                taken_over,
            } => {
                let lease = self.lease(Some(version), *transitions, *taken_over);
                self.api
                    .replace(&self.name, &PostParams::default(), &lease)
                    .await
            }
        };
        match done {
            Ok(lease) => LeaseAnswer::Is(record(&lease)),
            Err(kube::Error::Api(status)) if status.code == 409 => LeaseAnswer::Conflict,
            Err(error) => {
                tracing::warn!(lease = self.name, %error, "the lease cannot be read or renewed; it is tried again");
                LeaseAnswer::Failed
            }
        }
    }

    fn lease(&self, version: Option<&String>, transitions: i32, acquired: bool) -> Lease {
        let now = MicroTime(Timestamp::now());
        let mut since = self.acquired.lock();
        if acquired {
            *since = Some(now.clone());
        }
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                resource_version: version.cloned(),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(self.timing.lease.as_secs()).ok(),
                lease_transitions: Some(transitions),
                acquire_time: since.clone(),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        }
    }

    /// Gives the lease up, so that the next need not wait.
    async fn stopped(&self, election: &Election, leads: &watch::Sender<bool>) -> Ended {
        let led = election.acting_until().is_some();
        leads.send_replace(false);
        if let (
            true,
            Request::Replace {
                version,
                transitions,
                ..
            },
        ) = (led, election.request())
        {
            let mut lease = self.lease(Some(&version), transitions, false);
            if let Some(spec) = &mut lease.spec {
                spec.holder_identity = Some(String::new());
            }
            let parameters = PostParams::default();
            let done = self.api.replace(&self.name, &parameters, &lease);
            match timeout(LONGEST, done).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the lease could not be given up; it runs out")
                }
                Err(_) => tracing::warn!("the lease could not be given up in time; it runs out"),
            }
        }
        Ended::Stopped
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn record(lease: &Lease) -> LeaseRecord {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec
        .lease_duration_seconds
        .and_then(|it| u64::try_from(it).ok());
    LeaseRecord {
        holder: spec.holder_identity.unwrap_or_default(),
        transitions: spec.lease_transitions.unwrap_or_default(),
        lease: Duration::from_secs(seconds.unwrap_or_default()),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_is_older_than_before_tells_of_a_restored_store() {
        let mut versions = LeaseVersions::default();
        let is = |version: &str| {
            LeaseAnswer::Is(LeaseRecord {
                holder: "other".to_owned(),
                transitions: 0,
                lease: Duration::from_secs(15),
                version: version.to_owned(),
            })
        };
        for (answer, expected) in [
            (is("9"), None),
            (is("10"), None),
            (is("10"), None),
            (LeaseAnswer::Failed, None),
            (LeaseAnswer::Absent, None),
            // Some API server may have versions that do not compare.
            (is("x"), None),
            (is("8"), Some((10, 8))),
        ] {
            assert_eq!(versions.saw(&answer), expected, "{answer:?}");
        }
    }
}
