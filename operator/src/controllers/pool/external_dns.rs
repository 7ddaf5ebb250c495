//! A namespace's DNSEndpoints for external-dns: written in the background, and compared with what
//! DNS answers.
//!
//! The objects are built whole from all pools of the namespace ([`crate::dns::backend::external_dns`]); each
//! pool's look starts the same work, which is done once. The kind is probed for, not watched. A
//! namespace that wants none is looked at once all the same: whoever led before may have left some.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::Service,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::json;
use xmpp_edge_crds::{
    domain::DomainName,
    kinds::{
        EdgePool,
        conditions::{ConditionType, Reason},
    },
};

use super::{
    apply::{APPLIED, MANAGER, print_of},
    in_force,
    plan::metadata,
    publish,
};
use crate::{
    controllers::namespace::snapshot::{Context, NamespaceSnapshot},
    dns::{
        Availability, DesiredRecords, DnsMetrics, DnsReport, LoadBalancer, RecordGroup,
        addresses::Ingress,
        backend::external_dns::{self, EndpointSpec},
        controller::{DnsBackend, DnsController, DnsOutcome},
        observe::Observer,
    },
    status::condition::{ConditionStatus, DesiredCondition},
};

/// After a failure, and while DNS does not answer yet what it should.
const SOON: Duration = Duration::from_secs(5);
/// While all is well: people edit zones.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Where nobody wants any.
const RARELY: Duration = Duration::from_secs(24 * 60 * 60);

/// What is done for all namespaces.
#[derive(Default)]
pub struct Endpoints {
    namespaces: DnsController<String, EndpointsBackend>,
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoints").finish_non_exhaustive()
    }
}

/// Why DNSEndpoints cannot be written: the condition's reason, and what to do.
type EndpointsFault = (Reason, String);

/// By pool; the message of a failure that concerns all.
#[derive(Clone)]
struct EndpointsOutcome {
    reports: Result<BTreeMap<String, DnsReport>, EndpointsFault>,
    /// Whether any pool wants objects.
    is_wanted: bool,
}

impl DnsOutcome for EndpointsOutcome {
    fn is_good(&self) -> bool {
        match &self.reports {
            // Nobody waits for it: the next look is soon enough.
            _ if !self.is_wanted => true,
            Ok(reports) => reports.values().all(DnsReport::is_good),
            Err(_) => false,
        }
    }

    fn look_again(&self) -> Duration {
        if !self.is_wanted {
            RARELY
        } else if self.is_good() {
            LOOK_AGAIN
        } else {
            SOON
        }
    }
}

/// One pool that wants records.
#[derive(Clone, PartialEq)]
struct EndpointTask {
    pool: EdgePool,
    standing: Availability,
    /// Domains for which it has no way inside, and another pool has.
    stranded: BTreeSet<DomainName>,
    ingress: Vec<Ingress>,
}

impl Endpoints {
    /// As [`DnsController::shutdown`].
    pub async fn shutdown(&self) {
        self.namespaces.shutdown().await;
    }

    /// Starts what there is to do for the namespace of `pool`, and says how far it is; `None` where
    /// external-dns has nothing to do with the pool.
    pub fn look(
        &self,
        context: &Context,
        publications: &publish::PoolDns,
        scene: &NamespaceSnapshot,
        pool: &EdgePool,
    ) -> Option<(DesiredCondition, Duration)> {
        let dns = pool.spec.dns.as_ref();
        let wants = dns.is_some_and(|dns| dns.external_dns.is_some());
        let kind = ConditionType::DnsPublished;
        let name = pool.name_any();
        let (tasks, held) = tasks(context, publications, scene);
        let backend = || EndpointsBackend {
            client: context.client.clone(),
            metrics: context.dns_metrics.clone(),
            namespace: scene.namespace.clone(),
            balancers: BTreeMap::new(),
        };
        let (caches, touched) = (context.caches.clone(), scene.namespace.clone());
        let wake = move || caches.triggers.enqueue(&touched);
        let progress = self.namespaces.look(&scene.namespace, backend, tasks, wake);
        let said = match progress.outcome.map(|outcome| outcome.reports) {
            Some(Ok(reports)) if reports.contains_key(&name) => {
                let said = reports[&name].condition();
                DesiredCondition::new(kind, said.status, said.reason, said.message)
            }
            Some(Err((reason, message))) => DesiredCondition::new(kind, false, reason, message),
            _ => DesiredCondition::new(
                kind,
                ConditionStatus::Unknown,
                Reason::Pending,
                "the records are being handed to external-dns",
            ),
        };
        let again = progress.again.unwrap_or(SOON);
        wants.then_some((said, held.map_or(again, |held| held.min(again))))
    }
}

/// All pools of the namespace that external-dns is to publish, whatever their standing; and when one
/// of them may have another although nothing changes.
fn tasks(
    context: &Context,
    publications: &publish::PoolDns,
    scene: &NamespaceSnapshot,
) -> (Vec<EndpointTask>, Option<Duration>) {
    let namespace = &scene.namespace;
    // One that is not accepted or cannot be read is in force as last compiled, and keeps its place.
    let pools = scene.compiled.configs.iter().filter_map(|(name, config)| {
        let pool = context.caches.pools.get(namespace, name)?;
        in_force::for_external_dns(&pool, config)
    });
    let mut soonest: Option<Duration> = None;
    let tasks = pools
        .map(|pool| {
            let name = pool.name_any();
            let allowed = context.settings.allowed_domains.as_ref();
            let forbidden = scene
                .config(&name)
                .is_some_and(|config| !super::validate::not_allowed(config, allowed).is_empty());
            let service = super::plan::names::external_service(&name);
            let service: Option<Arc<Service>> = context.caches.services.get(namespace, &service);
            let ready = super::read::ready_replicas(&context.caches, namespace, &name);
            let (standing, held) = publications.availability(namespace, &name, &pool.spec, ready);
            soonest = soonest.into_iter().chain(held).min();
            EndpointTask {
                // Its own status must not make it another task.
                pool: EdgePool {
                    status: None,
                    metadata: kube::core::ObjectMeta {
                        name: Some(name.clone()),
                        namespace: Some(namespace.clone()),
                        uid: pool.uid(),
                        ..Default::default()
                    },
                    spec: pool.spec,
                },
                stranded: scene.stranded.get(&name).cloned().unwrap_or_default(),
                standing: if forbidden {
                    Availability::Removed
                } else {
                    standing
                },
                ingress: publish::ingress(service.as_deref()),
            }
        })
        .collect();
    (tasks, soonest)
}

/// Of one namespace.
struct EndpointsBackend {
    client: Client,
    metrics: DnsMetrics,
    namespace: String,
    /// By pool.
    balancers: BTreeMap<String, LoadBalancer>,
}

impl DnsBackend for EndpointsBackend {
    type Task = Vec<EndpointTask>;
    type Outcome = EndpointsOutcome;

    async fn carry_out(&mut self, tasks: &Vec<EndpointTask>) -> EndpointsOutcome {
        let reports = self.publish(tasks).await;
        let is_wanted = !tasks.is_empty();
        if let Err((_, error)) = &reports
            && is_wanted
        {
            tracing::warn!(
                namespace = self.namespace,
                error,
                "failed to write DNSEndpoints, will retry"
            );
        }
        EndpointsOutcome { reports, is_wanted }
    }
}

impl EndpointsBackend {
    async fn publish(
        &mut self,
        tasks: &[EndpointTask],
    ) -> Result<BTreeMap<String, DnsReport>, EndpointsFault> {
        let mut wanted = Vec::new();
        for task in tasks {
            let name = task.pool.name_any();
            let balancer = self.balancers.entry(name.clone()).or_default();
            let addresses = balancer.addresses(&task.pool.spec, &task.ingress).await;
            let records = DesiredRecords::new(&task.pool.spec, task.standing, &addresses);
            let records = records.map_err(|error| {
                (
                    Reason::DnsFailed,
                    format!("a name cannot stand in DNS: {error}"),
                )
            })?;
            wanted.push((name, task, records.stranded(&task.stranded)));
        }
        let pools: Vec<external_dns::PoolEndpoint<'_>> = wanted
            .iter()
            .filter_map(|(name, task, records)| {
                let dns = task.pool.spec.dns.as_ref()?;
                Some(external_dns::PoolEndpoint {
                    name,
                    priority: task.pool.spec.route.priority,
                    settings: dns.external_dns.as_ref()?,
                    wanted: records,
                })
            })
            .collect();
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.namespace, &resource());
        let there = self.list(&api).await?;
        let now: Vec<EndpointSpec> = there
            .iter()
            .filter_map(|object| serde_json::from_value(object.data["spec"].clone()).ok())
            .collect();
        let objects = external_dns::objects(&pools, &now);
        let published = external_dns::published(&pools, &now);
        self.write(&api, tasks, &there, &objects)
            .await
            .map_err(|error| failed(&error))?;
        if wanted.is_empty() {
            return Ok(BTreeMap::new());
        }
        let observer =
            Observer::system().map_err(|error| (Reason::DnsFailed, error.to_string()))?;
        let mut reports = BTreeMap::new();
        for (name, _, records) in &wanted {
            let meant = |place: &RecordGroup| published.contains(&(name.as_str(), place.clone()));
            let report = observer.look(records, meant).await;
            self.metrics.count(&self.namespace, name, &report);
            reports.insert(name.clone(), report);
        }
        Ok(reports)
    }

    async fn list(&self, api: &Api<DynamicObject>) -> Result<Vec<DynamicObject>, EndpointsFault> {
        let ours = format!("app.kubernetes.io/managed-by={}", metadata::MANAGED_BY);
        let listed = api.list(&ListParams::default().labels(&ours)).await;
        listed
            .map(|list| list.items)
            .map_err(|error| failed(&error))
    }

    async fn write(
        &self,
        api: &Api<DynamicObject>,
        tasks: &[EndpointTask],
        there: &[DynamicObject],
        objects: &[external_dns::DnsEndpoint],
    ) -> Result<(), kube::Error> {
        for object in objects {
            let owners: Vec<_> = tasks
                .iter()
                .filter(|task| object.pools.contains(&task.pool.name_any()))
                .filter_map(|task| task.pool.owner_ref(&()))
                .collect();
            let body = body(&self.namespace, object, &owners);
            let held = there.iter().find(|held| held.name_any() == object.name);
            if held.is_some_and(|held| is_as_applied(held, &body, object)) {
                continue;
            }
            let parameters = PatchParams::apply(MANAGER).force();
            api.patch(&object.name, &parameters, &Patch::Apply(&body))
                .await?;
        }
        for held in there {
            if objects.iter().any(|object| object.name == held.name_any()) {
                continue;
            }
            let parameters = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: held.uid(),
                    resource_version: None,
                }),
                ..DeleteParams::default()
            };
            match api.delete(&held.name_any(), &parameters).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                done => drop(done?),
            }
        }
        Ok(())
    }
}

/// The object as it is applied.
fn body(
    namespace: &str,
    object: &external_dns::DnsEndpoint,
    owners: &[OwnerReference],
) -> DynamicObject {
    let mut metadata = ObjectMeta {
        name: Some(object.name.clone()),
        namespace: Some(namespace.to_owned()),
        labels: Some(metadata::shared_labels()),
        owner_references: Some(owners.to_vec()),
        ..ObjectMeta::default()
    };
    metadata::add(&mut metadata, &object.labels, &object.annotations);
    let mut body = DynamicObject::new(&object.name, &resource());
    body.metadata = metadata;
    body.data = json!({ "spec": object.spec });
    // What is no longer wanted is told from what somebody else put there.
    let print = print_of(&json!([body.metadata, body.data]));
    let annotations = body.annotations_mut();
    annotations.insert(APPLIED.to_owned(), print);
    body
}

/// Whether an object is as it was applied, and nobody changed what is wanted of it.
fn is_as_applied(
    held: &DynamicObject,
    body: &DynamicObject,
    object: &external_dns::DnsEndpoint,
) -> bool {
    let has = |there: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>| {
        let mut wanted = wanted.iter();
        wanted.all(|(key, value)| there.get(key) == Some(value))
    };
    let owners = held.owner_references();
    let wanted = body.owner_references();
    serde_json::from_value(held.data["spec"].clone()).ok() == Some(object.spec.clone())
        && has(held.labels(), body.labels())
        && has(held.annotations(), body.annotations())
        && owners.len() == wanted.len()
        && wanted
            .iter()
            .all(|owner| owners.iter().any(|held| held.uid == owner.uid))
}

fn resource() -> ApiResource {
    let (group, version) = external_dns::API_VERSION
        .split_once('/')
        .unwrap_or_default();
    let kind = GroupVersionKind::gvk(group, version, external_dns::KIND);
    ApiResource::from_gvk_with_plural(&kind, "dnsendpoints")
}

fn failed(error: &kube::Error) -> EndpointsFault {
    match error {
        kube::Error::Api(status) if status.code == 404 => (
            Reason::KindMissing,
            "the API server does not know the kind DNSEndpoint: install the CustomResourceDefinition of external-dns (v0.22 or later), or choose spec.dns.rfc2136".to_owned(),
        ),
        error => (Reason::DnsFailed, format!("DNSEndpoints cannot be written: {error}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::Value;

    use super::*;
    use crate::{
        compile::{Compiled, NamespaceInputs},
        controllers::namespace::snapshot::tests::{context, document},
    };

    /// An annotation that is taken out of the pool is taken off the object, and somebody else's stays.
    #[test]
    fn an_object_is_written_again_where_what_is_wanted_of_it_changed_and_not_else() {
        let endpoint = |label: &str, annotations: &[(&str, &str)]| external_dns::DnsEndpoint {
            name: "xmpp-edge-org.example".to_owned(),
            pools: ["hq".to_owned()].into(),
            labels: [
                ("zone".to_owned(), label.to_owned()),
                ("app.kubernetes.io/managed-by".to_owned(), "x".to_owned()),
            ]
            .into(),
            annotations: annotations
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            spec: EndpointSpec::default(),
        };
        let applied = |endpoint: &external_dns::DnsEndpoint| body("n", endpoint, &[]);
        let filtered = endpoint("public", &[("filter", "yes")]);
        let mut held = applied(&filtered);
        let labels = held.labels();
        assert_eq!(labels["zone"], "public");
        assert_eq!(labels["app.kubernetes.io/managed-by"], metadata::MANAGED_BY);
        held.annotations_mut()
            .insert("somebody".to_owned(), "else".to_owned());
        for (wanted, same) in [
            (filtered, true),
            (endpoint("public", &[("filter", "no")]), false),
            (endpoint("public", &[]), false),
            (endpoint("private", &[("filter", "yes")]), false),
        ] {
            let found = is_as_applied(&held, &applied(&wanted), &wanted);
            assert_eq!(found, same, "{wanted:?}");
        }
        let wanted = endpoint("public", &[("filter", "yes")]);
        held.annotations_mut().remove("filter");
        assert!(!is_as_applied(&held, &applied(&wanted), &wanted));
    }

    #[tokio::test]
    async fn a_pool_that_is_in_force_as_last_compiled_keeps_its_place_beside_the_others() {
        let silent = tower::service_fn(|_: hyper::Request<kube::client::Body>| {
            std::future::pending::<Result<hyper::Response<kube::client::Body>, kube::Error>>()
        });
        let context = context(Client::new(silent, "n"));
        let pool = |name: &str| {
            json!({
                "apiVersion": "xmpp-edge.dev/v1alpha1", "kind": "EdgePool",
                "metadata": {"name": name, "namespace": "n", "uid": name, "resourceVersion": "1"},
                "spec": {"site": "hq", "domains": ["org.example"], "accessEdge": {"fqdn": "edge.org.example"},
                    "gateways": [{"domains": ["org.example"], "address": "inside.example:5269"}],
                    "certificate": {"selfSigned": {}}, "dns": {"externalDns": {}}},
            })
        };
        let enter = |pool: Value| {
            let pools = &context.caches.pools;
            pools.created(serde_json::from_value(pool).unwrap(), pools.epoch());
        };
        let mut unknown = pool("dr");
        unknown["spec"]["certificate"] = json!("newer");
        enter(unknown);
        enter(pool("hq"));
        // As in a domain that another namespace has meanwhile.
        enter(pool("taken"));
        // Never in force.
        enter(pool("new"));
        let mut scene = NamespaceSnapshot::of("n", jiff::Timestamp::UNIX_EPOCH);
        scene.world = Arc::new(NamespaceInputs {
            pools: vec![serde_json::from_value(pool("hq")).unwrap()],
            ..NamespaceInputs::default()
        });
        let configs = ["dr", "hq", "taken"].map(|name| {
            let config = serde_json::from_value(document(name)).unwrap();
            (name.to_owned(), config)
        });
        scene.compiled = Arc::new(Compiled {
            configs: configs.into(),
            ..Compiled::default()
        });
        let (tasks, _) = tasks(&context, &publish::PoolDns::default(), &scene);
        let names: Vec<String> = tasks.iter().map(|task| task.pool.name_any()).collect();
        assert_eq!(names, ["dr", "hq", "taken"]);
    }
}
