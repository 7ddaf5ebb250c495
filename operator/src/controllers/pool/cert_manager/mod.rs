//! What cert-manager says of the pools' Certificates: watched in a namespace once one was applied
//! there, since the kinds need not be installed.
//!
//! Only Certificates of ours are watched, and the CertificateRequests that cert-manager makes of
//! them, which carry their labels: why an issuer does not issue stands in those alone. Nothing here
//! writes, and issuers are not read: what is wrong with one is told in the requests.

use std::{collections::BTreeMap, fmt, fmt::Debug, sync::Arc};

use futures::StreamExt;
use kube::{
    Api, Client, ResourceExt,
    core::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::task::JoinSet;

use super::plan::ChildKind;
use crate::{
    runtime::{
        backoff::Backoff,
        caches::{Caches, MANAGED, status_code},
        store::{ObjectStore, WatchApplier},
    },
    secrets::source::Progress,
};

/// Annotation of a request: the Certificate that it was made for.
const OF_CERTIFICATE: &str = "cert-manager.io/certificate-name";
/// Annotation of a request: which revision of the Certificate it is to become.
const REVISION: &str = "cert-manager.io/certificate-revision";

/// Certificates and their requests in the namespaces that have any.
#[derive(Default)]
pub struct Certificates {
    held: Arc<HeldCertificate>,
    /// End with this.
    tasks: Mutex<JoinSet<()>>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct HeldCertificate {
    certificates: ObjectStore<DynamicObject>,
    requests: ObjectStore<DynamicObject>,
    watches: Mutex<BTreeMap<(WatchedCertificates, String), Watch>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum WatchedCertificates {
    Certificates,
    Requests,
}

/// How far a watch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    Listing,
    Listed,
}

impl WatchedCertificates {
    fn resource(self) -> ApiResource {
        match self {
            Self::Certificates => ChildKind::Certificate.resource(),
            Self::Requests => ApiResource::from_gvk_with_plural(
                &GroupVersionKind::gvk("cert-manager.io", "v1", "CertificateRequest"),
                "certificaterequests",
            ),
        }
    }
}

impl HeldCertificate {
    fn table(&self, of: WatchedCertificates) -> &ObjectStore<DynamicObject> {
        match of {
            WatchedCertificates::Certificates => &self.certificates,
            WatchedCertificates::Requests => &self.requests,
        }
    }
}

/// A Certificate as far as it is known.
#[derive(Debug)]
pub enum CertificateSeen {
    /// Nobody has listed the namespace yet.
    NotWatched,
    Absent,
    There(Arc<DynamicObject>),
}

impl Certificates {
    /// Watches a namespace from now on. A watch ends where the kind is not installed (any more), and
    /// is started again by the next call.
    pub fn follow(&self, client: &Client, caches: &Arc<Caches>, namespace: &str) {
        for of in [
            WatchedCertificates::Certificates,
            WatchedCertificates::Requests,
        ] {
            let key = (of, namespace.to_owned());
            let mut watches = self.held.watches.lock();
            if watches.contains_key(&key) {
                continue;
            }
            watches.insert(key, Watch::Listing);
            drop(watches);
            let resource = of.resource();
            let api = Api::namespaced_with(client.clone(), namespace, &resource);
            let (held, caches) = (self.held.clone(), caches.clone());
            let watch = watch(of, api, namespace.to_owned(), held, caches);
            let mut tasks = self.tasks.lock();
            while tasks.try_join_next().is_some() {}
            tasks.spawn(watch);
        }
    }

    /// Breaks the watches off, and returns once nothing of them runs any more.
    pub async fn shutdown(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        tasks.shutdown().await;
    }

    /// The Certificates that are known.
    #[must_use]
    pub fn store(&self) -> &ObjectStore<DynamicObject> {
        &self.held.certificates
    }

    #[must_use]
    pub fn seen(&self, namespace: &str, name: &str) -> CertificateSeen {
        let key = (WatchedCertificates::Certificates, namespace.to_owned());
        if self.held.watches.lock().get(&key) != Some(&Watch::Listed) {
            return CertificateSeen::NotWatched;
        }
        let found = self.held.certificates.get(namespace, name);
        found.map_or(CertificateSeen::Absent, CertificateSeen::There)
    }

    /// How far cert-manager is with a Certificate; `None` where all is well, or nothing is known.
    #[must_use]
    pub fn progress(&self, namespace: &str, name: &str) -> Option<Progress> {
        match self.seen(namespace, name) {
            CertificateSeen::There(certificate) => {
                progress(&certificate, &self.held.requests.in_namespace(namespace))
            }
            CertificateSeen::NotWatched | CertificateSeen::Absent => None,
        }
    }
}

async fn watch(
    of: WatchedCertificates,
    api: Api<DynamicObject>,
    namespace: String,
    held: Arc<HeldCertificate>,
    caches: Arc<Caches>,
) {
    let config = watcher::Config::default().labels(MANAGED);
    let events = watcher(api, config).backoff(Backoff::api_server());
    let mut events = std::pin::pin!(events);
    let mut feed = WatchApplier::of(Some(namespace.clone()));
    let key = (of, namespace);
    // Whatever ends it, another can begin.
    let _watched = Watched {
        held: &held,
        key: &key,
    };
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                let listed = matches!(event, Event::InitDone);
                let event = event.modify(|object| object.metadata.managed_fields = None);
                let touched = feed.take(held.table(of), event);
                if listed {
                    held.watches.lock().insert(key.clone(), Watch::Listed);
                }
                // The first list alone may tell what was not known.
                if listed || !touched.is_empty() {
                    caches.triggers.enqueue(&key.1);
                }
            }
            Err(error) => {
                tracing::warn!(namespace = key.1, ?of, %error, "cert-manager's objects cannot be watched");
                if status_code(&error) == Some(404) {
                    break;
                }
            }
        }
    }
}

/// A watch that goes on.
struct Watched<'a> {
    held: &'a HeldCertificate,
    key: &'a (WatchedCertificates, String),
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.held.watches.lock().remove(self.key);
    }
}

/// A condition of an object; one that was said of an older form of it is none.
struct IssuerCondition<'a> {
    status: &'a str,
    reason: &'a str,
    message: &'a str,
}

impl IssuerCondition<'_> {
    fn progress(&self) -> Progress {
        let (reason, message) = (self.reason.to_owned(), self.message.to_owned());
        Progress::Waiting { reason, message }
    }
}

fn condition<'a>(object: &'a DynamicObject, kind: &str) -> Option<IssuerCondition<'a>> {
    let conditions = object.data.pointer("/status/conditions")?.as_array()?;
    let found = conditions.iter().find(|it| it["type"] == kind)?;
    let said_of = found["observedGeneration"].as_i64();
    if said_of.is_some_and(|it| Some(it) < object.metadata.generation) {
        return None;
    }
    let text = |field: &str| found[field].as_str().unwrap_or_default();
    Some(IssuerCondition {
        status: text("status"),
        reason: text("reason"),
        message: text("message"),
    })
}

fn revision(request: &DynamicObject) -> u64 {
    let revision = request.annotations().get(REVISION);
    revision.and_then(|it| it.parse().ok()).unwrap_or(0)
}

/// How far the issuing is, by what the Certificate and its newest request say. `None`: what there
/// is, is what was asked for.
fn progress(certificate: &DynamicObject, requests: &[Arc<DynamicObject>]) -> Option<Progress> {
    let issuing = condition(certificate, "Issuing");
    if let Some(failed) = issuing.as_ref().filter(|it| it.status == "False") {
        return Some(Progress::Failed {
            reason: failed.reason.to_owned(),
            message: failed.message.to_owned(),
        });
    }
    let ready = condition(certificate, "Ready");
    if issuing.is_none() && ready.as_ref().is_some_and(|it| it.status == "True") {
        return None;
    }
    let name = certificate.name_any();
    let issued = certificate.data.pointer("/status/revision");
    let issued = issued.and_then(Value::as_u64).unwrap_or(0);
    let newest = requests
        .iter()
        .filter(|it| it.annotations().get(OF_CERTIFICATE) == Some(&name))
        .filter(|it| revision(it) > issued)
        .max_by_key(|it| revision(it));
    if let Some(request) = newest {
        if let Some(waits) = condition(request, "Ready") {
            return Some(waits.progress());
        }
        if condition(request, "Approved").is_none() {
            let message = format!(
                "nobody has approved CertificateRequest {:?} yet",
                request.name_any()
            );
            let reason = "NotApproved".to_owned();
            return Some(Progress::Waiting { reason, message });
        }
    }
    // With a good one in use there may be only word of the renewal.
    let said = ready.filter(|it| it.status != "True").or(issuing);
    Some(said.map_or(Progress::Unseen, |it| it.progress()))
}

#[cfg(test)]
mod tests;
