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
