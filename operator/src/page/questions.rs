//! What a person asks by the page: `explain`, of the documents in force, and `probe`, of a pod.
//!
//! Every replica answers: what it takes is read when it is asked for, with the operator's own rights.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{Api, Client, ResourceExt};
use tokio::{net::TcpStream, sync::Semaphore, time::timeout};
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{
        EdgeConfig,
        shards::{self, SHARD_KEY},
    },
    jid::BareJid,
    kinds::EdgePool,
    sip_address::asked_address,
    verdict::{self, Explanation, Known},
};

use crate::{
    proxy_status::{
        ownership,
        poll::{admin_port, is_ready},
        question::{PodAccess, PodAnswer, PodQuestionError},
    },
    runtime::caches::Caches,
};

/// Reading a document, or opening a connection to a pod, takes no longer.
const LONGEST: Duration = Duration::from_secs(10);
/// Questions at a time: each reads a document of up to 7 MiB.
const QUESTIONS: usize = 2;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum PageRefusal {
    #[error("give both: /explain?from=JID&to=JID")]
    NoAddresses,
    #[error("{text:?} is no address: {cause}")]
    Address { text: String, cause: String },
    #[error(
        "no EdgePool of the watched namespaces serves {from} or {to}: one side must be of an own domain"
    )]
    NotOwn { from: BareJid, to: BareJid },
    #[error("{0}")]
    Unexplained(#[from] verdict::ExplainError),
    #[error("EdgePool {0:?} has no document in force yet: its conditions say why")]
    NoDocument(String),
    #[error("the document of EdgePool {pool:?} cannot be read: {cause}")]
    Document { pool: String, cause: String },
    #[error("give both: /probe?pool=NAMESPACE/NAME&domain=DOMAIN")]
    NoPool,
    #[error("{text:?} is no domain: {cause}")]
    Domain { text: String, cause: String },
    #[error("no pod of EdgePool {0:?} is ready: nobody can probe")]
    NoPod(String),
    #[error("pod {pod:?} does not take a connection: {cause}")]
    Connect { pod: String, cause: String },
    #[error(transparent)]
    Pod(#[from] PodQuestionError),
    #[error("others ask already: try again when they have their answers")]
    Busy,
}

/// See the module.
pub struct PageQuestions {
    caches: Arc<Caches>,
    client: Client,
    places: Semaphore,
}

impl std::fmt::Debug for PageQuestions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageQuestions").finish_non_exhaustive()
    }
}

impl PageQuestions {
    #[must_use]
    pub fn new(caches: Arc<Caches>, client: Client) -> Self {
        Self {
            caches,
            client,
            places: Semaphore::new(QUESTIONS),
        }
    }

    /// What the document in force says of a chat message. Contacts are known to pods alone.
    ///
    /// # Errors
    /// [`PageRefusal`].
    pub async fn explain(
        &self,
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<Explanation, PageRefusal> {
        let (Some(from), Some(to)) = (from, to) else {
            return Err(PageRefusal::NoAddresses);
        };
        let (from, to) = (address(from)?, address(to)?);
        let _place = self.places.try_acquire().map_err(|_| PageRefusal::Busy)?;
        let Some(pool) = self.serving(&from, &to) else {
            return Err(PageRefusal::NotOwn { from, to });
        };
        let config = self.document(&pool).await?;
        Ok(verdict::explain(&config, &from, &to, Known::default())?)
    }

    /// The preferred pool that serves either side.
    fn serving(&self, from: &BareJid, to: &BareJid) -> Option<EdgePool> {
        let pools = self.caches.pools.all();
        let serves = |pool: &&EdgePool| {
            let domains = pool.spec.domains.iter();
            let mut domains = domains.filter_map(|domain| DomainName::parse(domain).ok());
            domains.any(|domain| domain == *from.domain() || domain == *to.domain())
        };
        let rank = |pool: &&EdgePool| {
            let age = pool.metadata.creation_timestamp.as_ref();
            let age = age.map_or(Timestamp::MAX, |created| created.0);
            (pool.spec.route.priority, age, pool.name_any())
        };
        let read = pools.iter().filter_map(|pool| pool.read());
        read.filter(serves).min_by_key(rank).cloned()
    }

    async fn document(&self, pool: &EdgePool) -> Result<EdgeConfig, PageRefusal> {
        let namespace = pool.namespace().unwrap_or_default();
        let name = pool.name_any();
        let whole = format!("{namespace}/{name}");
        let fault = |cause: String| PageRefusal::Document {
            pool: whole.clone(),
            cause,
        };
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &namespace);
        let mut slices = Vec::new();
        for shard in shards::shard_names(&name) {
            let map = timeout(LONGEST, maps.get_opt(&shard)).await;
            let map = map.map_err(|_| fault("the API server does not answer".to_owned()))?;
            let map = map.map_err(|error| fault(error.to_string()))?;
            let data = map.and_then(|map| map.binary_data);
            // They are numbered without a gap.
            let Some(slice) = data.and_then(|mut data| data.remove(SHARD_KEY)) else {
                break;
            };
            slices.push(slice.0);
        }
        match shards::decode(&slices) {
            Ok(document) => Ok(document.config),
            Err(error) if error.is_incomplete() => Err(PageRefusal::NoDocument(whole)),
            Err(error) => Err(fault(error.to_string())),
        }
    }

    /// Has a pod of the pool walk to a partner's domain; what the pod refuses is an answer.
    ///
    /// # Errors
    /// [`PageRefusal`].
    pub async fn probe(
        &self,
        pool: Option<&str>,
        domain: Option<&str>,
    ) -> Result<PodAnswer, PageRefusal> {
        let names = pool.and_then(|pool| pool.split_once('/'));
        let (Some((namespace, name)), Some(text)) = (names, domain) else {
            return Err(PageRefusal::NoPool);
        };
        let domain = DomainName::parse(text).map_err(|cause| PageRefusal::Domain {
            text: text.to_owned(),
            cause: cause.to_string(),
        })?;
        let _place = self.places.try_acquire().map_err(|_| PageRefusal::Busy)?;
        let pods = ownership::pods_of(&self.caches, namespace, name);
        let ready = pods.iter().find(|pod| is_ready(pod));
        let Some((pod, ip)) = ready.and_then(|pod| Some((pod, ip(pod)?))) else {
            return Err(PageRefusal::NoPod(format!("{namespace}/{name}")));
        };
        let access = PodAccess::read(&self.client, namespace, name).await?;
        let socket = timeout(LONGEST, TcpStream::connect((&*ip, admin_port(pod)))).await;
        let refused = |cause: String| PageRefusal::Connect {
            pod: pod.name_any(),
            cause,
        };
        let socket = socket.map_err(|_| refused("no answer".to_owned()))?;
        let socket = socket.map_err(|error| refused(error.to_string()))?;
        Ok(access.probe(socket, &domain, None).await?)
    }
}

fn ip(pod: &Pod) -> Option<String> {
    pod.status.as_ref()?.pod_ip.clone()
}

fn address(text: &str) -> Result<BareJid, PageRefusal> {
    asked_address(text).map_err(|cause| PageRefusal::Address {
        text: text.to_owned(),
        cause: cause.to_string(),
    })
}
