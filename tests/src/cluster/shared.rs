//! A server that starts with the first test of a file that needs it and ends with the process; each
//! test has a namespace of its own.

use std::{
    future::Future,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use tokio::sync::{Mutex, OnceCell};

use super::{ApiServer, Missing, Tools, storage::of_this_process};
use crate::{runtime::runtime, wait};

/// What one test may take, the server's start and other tests' turns included.
const TEST: Duration = Duration::from_secs(300);

/// A server that a file's tests share, with the three kinds installed.
pub struct SharedCluster {
    running: OnceCell<ApiServer>,
    turn: Mutex<()>,
}

/// A test's own namespace.
pub struct Namespace<'s> {
    pub server: &'s ApiServer,
    /// Its name, unlike any other test's of this server.
    pub name: String,
    /// The admin's client, in this namespace by default.
    pub client: Client,
}

impl<'s> Namespace<'s> {
    /// Makes one.
    ///
    /// # Errors
    /// When the server refuses, as where there is one of that name.
    pub async fn new(server: &'s ApiServer, name: &str) -> Result<Self> {
        server.namespace(name, &[]).await?;
        Ok(Self {
            server,
            name: name.to_owned(),
            client: server.admin().client(name).await?,
        })
    }

    /// The admin's view of a kind in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }
}

impl SharedCluster {
    /// Nothing starts before the first test.
    pub const fn new() -> Self {
        Self {
            running: OnceCell::const_new(),
            turn: Mutex::const_new(()),
        }
    }

    /// Runs one test; says why and returns where the machine lacks the programs.
    ///
    /// # Panics
    /// When the test fails. In CI also when Go is here and the programs are not: they should have
    /// been built.
    pub fn test(&self, body: impl AsyncFnOnce(&Namespace<'_>) -> Result<()>) {
        alone(self.run(body));
    }

    /// As [`Self::test`], for a test that needs longer than others.
    ///
    /// # Panics
    /// As there.
    pub fn test_within(
        &self,
        limit: Duration,
        body: impl AsyncFnOnce(&Namespace<'_>) -> Result<()>,
    ) {
        alone_within(limit, self.run(body));
    }

    /// As [`Self::test`] for tests that take the server away: one at a time, none of [`Self::test`]
    /// beside them.
    ///
    /// # Panics
    /// As there.
    pub fn test_in_turn(&self, body: impl AsyncFnOnce(&Namespace<'_>) -> Result<()>) {
        alone(async {
            let _turn = self.turn.lock().await;
            self.run(body).await
        });
    }

    async fn run(&self, body: impl AsyncFnOnce(&Namespace<'_>) -> Result<()>) -> Result<()> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let server = self.running.get_or_try_init(started).await?;
        let name = format!("test-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let witness = Witness {
            server,
            subject: &name,
        };
        body(&Namespace::new(server, &name).await?).await?;
        std::mem::forget(witness);
        Ok(())
    }
}

/// Tells what logs say of a test that did not come to its end, however it ended.
struct Witness<'s> {
    server: &'s ApiServer,
    subject: &'s str,
}

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        eprintln!("{}", self.server.logs_about(self.subject));
    }
}

impl Default for SharedCluster {
    fn default() -> Self {
        Self::new()
    }
}

async fn started() -> Result<ApiServer> {
    let server = ApiServer::start().await?;
    server.install_kinds().await?;
    Ok(server)
}

/// Runs a test that starts servers of its own; says why and returns where the machine lacks the
/// programs.
///
/// # Panics
/// As [`SharedCluster::test`].
pub fn alone(body: impl Future<Output = Result<()>>) {
    alone_within(TEST, body);
}

/// As [`alone`], for a test that needs longer than others.
///
/// # Panics
/// As [`SharedCluster::test`].
pub fn alone_within(limit: Duration, body: impl Future<Output = Result<()>>) {
    if let Err(missing) = Tools::find() {
        return skip(&missing);
    }
    let outcome = runtime().block_on(async { tokio::time::timeout(limit, body).await });
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{error:#}\nlogs: {}", of_this_process()),
        Err(_) => panic!(
            "the test takes longer than {limit:?}; logs: {}",
            of_this_process()
        ),
    }
}

/// Says that a test is skipped, and why.
///
/// # Panics
/// In CI when Go is here and the program is not: it should have been built.
pub fn skip(missing: &Missing) {
    assert!(
        !missing.should_be_here(),
        "{missing}, though there is Go to build it"
    );
    say_skipped(missing);
}

/// Says that a test is skipped for what this computer is not.
pub(super) fn say_skipped(why: &dyn std::fmt::Display) {
    use std::io::Write;
    // Not by eprintln!, which the test harness keeps to itself when a test passes.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

impl ApiServer {
    /// Applies the definitions of the three kinds and waits until the server serves them.
    ///
    /// # Errors
    /// When it refuses one or does not establish it.
    pub async fn install_kinds(&self) -> Result<()> {
        for definition in xmpp_edge_crds::kinds::crds() {
            self.install(&definition).await?;
        }
        Ok(())
    }

    /// Applies one definition and waits until the server serves it as it is.
    ///
    /// # Errors
    /// As [`Self::install_kinds`].
    pub async fn install(&self, definition: &CustomResourceDefinition) -> Result<()> {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client());
        let name = definition.metadata.name.clone().context("it has a name")?;
        definitions
            .patch(
                &name,
                &PatchParams::apply("test-environment").force(),
                &Patch::Apply(definition),
            )
            .await?;
        wait::until(
            &format!("{name} is established"),
            wait::GENEROUS,
            async || {
                let found = definitions.get(&name).await.ok()?;
                found
                    .status?
                    .conditions?
                    .iter()
                    .any(|c| c.type_ == "Established" && c.status == "True")
                    .then_some(())
            },
        )
        .await
    }
}
