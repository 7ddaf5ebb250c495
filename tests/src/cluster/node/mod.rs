//! A cluster with a real node: kubelet, containerd, kube-proxy, CoreDNS, scheduler and controllers
//! beside the [`ApiServer`], on a machine of its own (namespaces of this computer's kernel), and an
//! internet that clusters, partners and the test itself are on.
//!
//! ```text
//!  the test, partners, DNS, API servers        203.0.113.0/24 on one network namespace (Internet)
//!       │ site0                   │ site1      198.18.255.2, 198.19.255.2
//!  ┌────┴───── node0 ───┐    ┌────┴────┐       198.18.255.1, 198.19.255.1
//!  │ kubelet, pods, …   │    │ …       │       pods 198.18.0.0/24, Services 198.18.128.0/20,
//!  └────────────────────┘    └─────────┘       load balancers 198.51.100.0/25; site 1 alike
//! ```
//!
//! NetworkPolicies are not enforced: no plugin here does. Nothing assigns load balancers' addresses:
//! a test does ([`Cluster::balance`]).

mod containers;
mod internet;
mod kubelet;
mod lacking;
mod machine;
mod services;
mod site;

use std::{future::Future, path::Path, time::Duration};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node, Service};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use parking_lot::Mutex;
use serde_json::json;

pub use containers::BUSYBOX;
pub use internet::{DNS, Internet};
pub use lacking::Lacking;
pub use machine::Machine;
pub use site::Site;

use super::{
    ApiServer, ControllerManager, WITH_NODES, WITHOUT_NODES, images, place::ServerPlace, shared,
};
use crate::{process::Daemon, wait};
use containers::Containers;
use lacking::Programs;

/// The node's name.
pub const NODE: &str = "node1";

/// What the start of all may take on a loaded machine; idle, some 15 s.
const START: Duration = Duration::from_secs(120);

/// A running cluster; everything of it ends with it.
pub struct Cluster {
    // In the order in which they end.
    _agents: Vec<Daemon>,
    _containers: Containers,
    _controllers: ControllerManager,
    machine: Machine,
    server: ApiServer,
    site: Site,
}

impl Cluster {
    /// Starts one on the internet that the calling thread has entered; returns once its node is ready.
    ///
    /// # Errors
    /// [`Lacking`] when this computer has not what it needs; else what did not get ready.
    pub async fn start(site: Site) -> Result<Self> {
        let programs = Programs::find()?;
        // The machine first: the API server listens at its router's address.
        let place = ServerPlace::beside_nodes(site.router(), site.network());
        let storage = super::storage::Storage::new()?;
        let data = storage.data().join("node");
        let machine = Machine::start(site, storage.path(), &data)?;
        let server = ApiServer::start_in(storage, place).await?;
        let controllers: Vec<&str> = [WITHOUT_NODES, WITH_NODES].concat();
        let (controllers, containers) = tokio::try_join!(
            ControllerManager::start(&server, &controllers),
            Containers::start(&machine, site, &data)
        )?;
        let agents = vec![
            kubelet::start(&programs.kubelet, &server, &machine, site, &data)?,
            services::scheduler(&programs.kube_scheduler, &server, site)?,
            services::proxy(&programs.kube_proxy, &server, &machine, site)?,
            services::names(&programs.coredns, &server, &machine, site, &data).await?,
        ];
        let cluster = Self {
            _agents: agents,
            _containers: containers,
            _controllers: controllers,
            machine,
            server,
            site,
        };
        let ready = cluster.ready().await;
        ready.with_context(|| cluster.server.logs_about(NODE))?;
        Ok(cluster)
    }

    async fn ready(&self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.server.client());
        wait::until("the node is ready", START, async || {
            let conditions = nodes.get(NODE).await.ok()?.status?.conditions?;
            let ready = |it: &&_| -> bool {
                let it: &k8s_openapi::api::core::v1::NodeCondition = it;
                it.type_ == "Ready" && it.status == "True"
            };
            conditions.iter().find(ready).map(|_| ())
        })
        .await
    }

    /// Its control plane.
    pub fn server(&self) -> &ApiServer {
        &self.server
    }

    /// The node's machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Where it is.
    pub fn site(&self) -> Site {
        self.site
    }

    /// Takes in the images of an archive as `docker save` writes them (`docker-archive`).
    ///
    /// # Errors
    /// When it is none.
    pub fn import(&self, archive: &Path) -> Result<()> {
        containers::import(&self.machine, archive)
    }

    /// Gives an image that it has a second name, as a registry would. Both are `name:tag`.
    ///
    /// # Errors
    /// When there is no such image.
    pub fn tag(&self, image: &str, name: &str) -> Result<()> {
        containers::tag(&self.machine, image, name)
    }

    /// Gives a Service of type LoadBalancer the address [`Site::balancer`], as a load balancer would.
    ///
    /// # Errors
    /// When there is no such Service.
    pub async fn balance(&self, namespace: &str, service: &str, host: u8) -> Result<()> {
        let services: Api<Service> = Api::namespaced(self.server.client(), namespace);
        let ingress = json!([{"ip": self.site.balancer(host), "ipMode": "VIP"}]);
        let status = json!({"status": {"loadBalancer": {"ingress": ingress}}});
        let parameters = PatchParams::default();
        services
            .patch_status(service, &parameters, &Patch::Merge(status))
            .await?;
        Ok(())
    }
}

/// Runs a test on the internet; says why and returns where this computer cannot run a node.
///
/// # Panics
/// When the test fails, or takes longer than `limit`. In CI also when Go is here and a built program is
/// not.
pub fn on_the_internet<F: Future<Output = Result<()>>>(
    limit: Duration,
    body: impl FnOnce(&'static Internet) -> F,
) {
    static TURN: Mutex<()> = Mutex::new(());
    // Addresses of sites and wires are fixed: one test at a time is there.
    let _turn = TURN.lock();
    match Programs::find().and_then(|_| Internet::enter()) {
        Err(lacking) => skip(&lacking),
        Ok(internet) => shared::alone_within(limit, async {
            match body(internet).await {
                Err(error) => match error.downcast::<Lacking>() {
                    Ok(lacking) => {
                        skip(&lacking);
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
                done => done,
            }
        }),
    }
}

fn skip(lacking: &Lacking) {
    match lacking {
        Lacking::Program(missing) => shared::skip(missing),
        Lacking::Images(none) => images::skip(none),
        other => shared::say_skipped(other),
    }
}
