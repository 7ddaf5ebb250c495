//! The command line: what was asked for, done, and the exit code that says how it went.
//!
//! Results go to stdout, logs and faults to stderr. 0: fine; 1: what was asked for is not so, or
//! could not be done; 2: wrong usage.

mod arguments;
mod error;
mod inspect;
mod kubeconfig;
mod preflight;
mod prepare_uninstall;
mod probe;
pub mod run;

use std::{io::Write, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::kinds;
use xmpp_edge_proxy::logging::{self, LogFormat};

use self::{
    arguments::{
        Check, Crds, Definitions, Explain, ImportLync, Output, PrepareUninstall, ProbeByPod,
        Render, RenderSidecars, Run, Standalone, Validate,
    },
    error::CommandError,
};
use crate::{
    controllers::namespace::snapshot::{AllowedDomains, OperatorConfig},
    runtime::caches::Scope,
    standalone,
};

/// Controlled XMPP federation: operator, standalone edge, and the tools around them.
#[derive(Debug, Parser)]
#[command(name = "xmpp-edge-operator", version, arg_required_else_help = true)]
pub struct Cli {
    /// Form of the logs on stderr; what is logged is set by RUST_LOG.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, global = true)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the controllers in a cluster.
    ///
    /// Watches the kinds, provisions what EdgePools need and says in each object's status how it
    /// stands. Of several replicas one leads. Access as kubectl has it, or by the pod's
    /// ServiceAccount.
    Run(Run),
    /// Say from inside a cluster whether an operator works there.
    ///
    /// API server, definitions of the kinds, a leader, metrics; exit code 1 where one is not so.
    /// It changes nothing.
    Check(Check),
    /// Let go of what only an operator could finish, before it is gone for good.
    ///
    /// Takes the lease from the operators, so that none acts any more, and the finalizer for DNS
    /// off the pools, so that they can be deleted; says on stderr which records stay. Pods go on.
    /// Run by the chart before it is uninstalled; may be repeated.
    #[command(alias = "release")]
    PrepareUninstall(PrepareUninstall),
    /// Run an edge from YAML files, without Kubernetes.
    ///
    /// Reads the kinds, Secrets and ConfigMaps from the files, compiles them, runs the proxy, and
    /// follows edits. A broken edit keeps the last good state and is logged.
    Standalone(Standalone),
    /// Check manifests, or the objects of a cluster: the same diagnostics as the conditions there.
    ///
    /// With --manifests and --cluster it says how it would be with the manifests applied. What only an
    /// operator knows is left out: its --allowed-domains, and domains of pools of other namespaces. Exit
    /// code 1 on any error; warnings are printed.
    Validate(Validate),
    /// Print the EdgeConfig and the objects that a cluster would get, secret data elided; or a file's
    /// workloads with their sidecars.
    ///
    /// With --sidecar every workload of FILE whose pod template has the label xmpp-edge.dev/sidecar gets what
    /// the admission policy gives to pods (Kubernetes 1.36); all else is printed as it is.
    Render(Render),
    /// Say whether a chat message would pass, and every rule that led to it.
    ///
    /// From manifests, from the objects of a cluster, or from those with the manifests applied. Exit code 0
    /// whether it passes or not.
    Explain(Explain),
    /// Have a pod of a pool walk to a partner: which method federation with it would use, and why not a
    /// better one.
    ///
    /// With what the pod itself has: resolver, network, certificate, trust. It sends no stanza. Takes the
    /// rights to list pods, to forward ports to them, and to read the pool's Secrets. Exit code 1 where
    /// federation fails.
    Probe(ProbeByPod),
    /// Print the CustomResourceDefinitions, or the reference that is made from them.
    Crds(Crds),
    /// Turn an export of Lync's cmdlets (JSON or CLIXML) into manifests on stdout.
    ///
    /// Understands Get-CsXmppAllowedPartner, Get-CsExternalAccessPolicy and
    /// Get-CsXmppGatewayConfiguration; what has no equivalent is a warning on stderr.
    ImportLync(ImportLync),
}

/// What was asked for is not so.
const EXIT_FAILURE: u8 = 1;
/// Wrong usage; clap ends with the same.
const EXIT_USAGE: u8 = 2;

/// Does what the command line asks for.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // They say at length and for each try what we say once.
    logging::start(cli.log_format, &QUIET);
    let done = match cli.command {
        Command::Run(options) => operate(options),
        Command::Check(asked) => check(asked),
        Command::PrepareUninstall(options) => prepare_uninstall(options),
        Command::Standalone(options) => standalone(options),
        Command::Validate(asked) => until_signal(inspect::validate(asked)),
        Command::Render(asked) => until_signal(inspect::render(asked)),
        Command::Explain(asked) => until_signal(inspect::explain(asked)),
        Command::Probe(asked) => until_signal(show_probe(asked)),
        Command::Crds(asked) => print(&match asked.output {
            Definitions::Yaml => kinds::yaml(),
            Definitions::Markdown => kinds::reference::markdown(),
        })
        .map(|()| 0),
        Command::ImportLync(asked) => inspect::import(&asked),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "error: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

/// Libraries, and how loud they are where RUST_LOG does not speak of them.
const QUIET: [(&str, &str); 2] = [
    ("kube_runtime", "kube_runtime::watcher=error"),
    ("kube_client", "kube_client::client::builder=off"),
];

/// A reader that closed its end has what it wanted.
fn print(text: &str) -> Result<(), CommandError> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

fn print_json(value: &impl Serialize) -> Result<(), CommandError> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

fn operate(options: Run) -> Result<u8, CommandError> {
    let mut allowed = AllowedDomains::default();
    for entry in options.allowed_domains {
        allowed
            .0
            .entry(entry.namespace)
            .or_default()
            .extend(entry.domains);
    }
    let options = run::RunOptions {
        watch_namespaces: options.watched.watch_namespace.into_iter().collect(),
        cluster_wide: options.watched.cluster_wide,
        lease_name: options.lease_name,
        admin_listen: options.admin_listen,
        page_listen: options.page_listen,
        settings: OperatorConfig {
            proxy_image: options.proxy_image,
            proxy_pull_secrets: options.proxy_image_pull_secret,
            dns_owner_id: options.dns_owner_id,
            allowed_domains: (!allowed.0.is_empty()).then_some(allowed),
            allowed_dns_servers: options.allowed_dns_server,
            sidecar_namespaces: options.sidecar_namespace.into_iter().collect(),
        },
    };
    // Looks at large namespaces take a thread for a while, each with memory of its own. The lease is
    // on the main thread, which they do not hold up.
    run_until_signal(Some(2), |stop| async move {
        run::run(options, stop).await?;
        Ok(0)
    })
}

fn check(asked: Check) -> Result<u8, CommandError> {
    let options = preflight::PreflightOptions {
        lease_name: asked.lease_name,
        admin: asked.admin,
    };
    run_until_signal(None, |stop| async move {
        let found = tokio::select! {
            found = preflight::check(&options) => found,
            () = stop.cancelled() => return Ok(EXIT_FAILURE),
        };
        match asked.output {
            Output::Json => print_json(&found)?,
            Output::Text => {
                for finding in &found {
                    let verdict = if finding.fine { "ok" } else { "NOT OK" };
                    print(&format!("{verdict}  {}: {}\n", finding.what, finding.text))?;
                }
            }
        }
        Ok(if found.iter().all(|it| it.fine) {
            0
        } else {
            EXIT_FAILURE
        })
    })
}

async fn show_probe(asked: ProbeByPod) -> Result<u8, CommandError> {
    let probed = probe::probe(&asked).await?;
    match asked.output {
        Output::Json => print_json(&probed.report)?,
        Output::Text => print(&format!("{}  probed by    {}\n", probed.report, probed.pod))?,
    }
    Ok(if probed.report.succeeded() {
        0
    } else {
        EXIT_FAILURE
    })
}

fn prepare_uninstall(options: PrepareUninstall) -> Result<u8, CommandError> {
    let watched = options.watched;
    let options = prepare_uninstall::UninstallOptions {
        scope: if watched.cluster_wide {
            Some(Scope::Cluster)
        } else if watched.watch_namespace.is_empty() {
            None
        } else {
            Some(Scope::Namespaces(
                watched.watch_namespace.into_iter().collect(),
            ))
        },
        lease_name: options.lease_name,
        keep_lease: options.keep_lease,
        timeout: Duration::from_secs(options.timeout_seconds),
    };
    run_until_signal(None, |stop| async move {
        let released = tokio::select! {
            released = prepare_uninstall::prepare_uninstall(&options) => released?,
            () = stop.cancelled() => return Ok(EXIT_FAILURE),
        };
        let mut out = std::io::stderr().lock();
        for pool in &released {
            let _ = writeln!(out, "released: EdgePool {}/{}", pool.namespace, pool.name);
            for record in &pool.records {
                let _ = writeln!(out, "stays in DNS: {record}");
            }
        }
        let _ = writeln!(out, "done: {} EdgePools released", released.len());
        Ok(0)
    })
}

fn standalone(options: Standalone) -> Result<u8, CommandError> {
    let options = standalone::run::StandaloneOptions {
        manifests: options.manifests,
        state: options.state,
        pool: options.pool,
        bind: options.bind,
        internal_bind: options.internal_bind,
        resolver: options.resolver,
        dns_owner: options.dns_owner_id,
        trust_anchors: options.trust_anchors.unwrap_or_default(),
    };
    run_until_signal(None, |stop| async move {
        standalone::run::run(options, stop).await?;
        Ok(0)
    })
}

/// Runs what ends by itself, or by SIGTERM or SIGINT.
fn until_signal(work: impl Future<Output = Result<u8, CommandError>>) -> Result<u8, CommandError> {
    run_until_signal(None, |stop| async move {
        let ended = stop.run_until_cancelled(work).await;
        ended.unwrap_or(Ok(EXIT_FAILURE))
    })
}

/// Runs what runs until SIGTERM or SIGINT.
fn run_until_signal<F>(
    threads: Option<usize>,
    work: impl FnOnce(CancellationToken) -> F,
) -> Result<u8, CommandError>
where
    F: Future<Output = Result<u8, CommandError>>,
{
    // One provider for the whole process; a second attempt to install it changes nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        runtime.worker_threads(threads);
    }
    let runtime = runtime.enable_all().build()?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let (mut terminate, mut interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let told = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            told.cancel();
        });
        work(stop).await
    })
}
