//! The command line: what was asked for, done, and the exit code that says how it went.
//!
//! Results go to stdout, logs and faults to stderr. 0: fine; 1: what was asked for is not so, or
//! could not be done; 2: wrong usage.

mod error;
mod offline;
mod preflight;
mod prepare_uninstall;
pub mod run;

use std::{
    collections::BTreeSet,
    io::Write,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    str::FromStr,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::{domain::DomainName, edge_config::HostPort, kinds};
use xmpp_edge_proxy::{
    arguments::{address, address_and_port},
    dns::TrustAnchors,
    logging::{self, LogFormat},
};

use self::error::CommandError;
use crate::{
    controllers::{
        namespace::snapshot::{AllowedDomains, OperatorConfig, allowed_dns_server},
        pool::sidecar_secrets::SidecarNamespace,
    },
    dns::OwnerId,
    page::server::loopback_address,
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

/// Form of the result on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
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
    /// Check manifests offline: the same diagnostics as the conditions in a cluster.
    ///
    /// Exit code 1 on any error; warnings are printed.
    Validate(ManifestArgs),
    /// Print the EdgeConfig and the objects that a cluster would get, secret data elided; or a file's
    /// workloads with their sidecars.
    ///
    /// With --sidecar every workload of FILE whose pod template has the label xmpp-edge.dev/sidecar gets what
    /// the admission policy gives to pods (Kubernetes 1.36); all else is printed as it is.
    Render(Render),
    /// Say whether a chat message would pass, and every rule that led to it.
    ///
    /// Exit code 0 whether it passes or not.
    Explain(Explain),
    /// Print the CustomResourceDefinitions, or the reference that is made from them.
    Crds(Crds),
    /// Turn an export of Lync's cmdlets (JSON or CLIXML) into manifests on stdout.
    ///
    /// Understands Get-CsXmppAllowedPartner, Get-CsExternalAccessPolicy and
    /// Get-CsXmppGatewayConfiguration; what has no equivalent is a warning on stderr.
    ImportLync(ImportLync),
}

#[derive(Debug, Args)]
struct Crds {
    /// `yaml` for `kubectl apply`, `markdown` for people.
    #[arg(long, value_enum, default_value_t = Definitions::Yaml)]
    output: Definitions,
}

/// Form in which the definitions are printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Definitions {
    Yaml,
    Markdown,
}

#[derive(Debug, Args)]
struct ImportLync {
    /// The export.
    file: PathBuf,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Which namespaces are an operator's.
#[derive(Debug, Args)]
struct WatchedArgs {
    /// Namespace to watch, in place of the operator's own; may be given again.
    #[arg(long, value_name = "NS", conflicts_with = "cluster_wide")]
    watch_namespace: Vec<String>,
    /// Watch all namespaces.
    #[arg(long)]
    cluster_wide: bool,
}

#[derive(Debug, Args)]
struct Check {
    /// Lease by which one of several replicas leads, in the operator's namespace.
    #[arg(long, value_name = "NAME", default_value = "xmpp-edge-operator")]
    lease_name: String,
    /// Admin port of an operator, to read its metrics.
    #[arg(long, value_name = "HOST:PORT")]
    admin: Option<String>,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Args)]
struct PrepareUninstall {
    #[command(flatten)]
    watched: WatchedArgs,
    /// Lease by which one of several replicas leads, in the operator's namespace.
    #[arg(long, value_name = "NAME", default_value = "xmpp-edge-operator")]
    lease_name: String,
    /// Leave the lease to the operators, which go on: for namespaces that they no longer watch.
    #[arg(long, requires = "watch_namespace")]
    keep_lease: bool,
    /// Give up after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120,
        value_parser = clap::value_parser!(u64).range(20..=3600))]
    timeout_seconds: u64,
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    watched: WatchedArgs,
    /// Image of the proxies of pools that name none.
    #[arg(long, value_name = "IMAGE")]
    proxy_image: Option<String>,
    /// Name of a pull Secret for pools that name none, in each pool's namespace; repeatable.
    #[arg(long, value_name = "NAME")]
    proxy_image_pull_secret: Vec<String>,
    /// Owner of this operator's DNS records; of two operators for one zone each needs its own.
    /// Default: the UID of the operator's namespace.
    #[arg(long, value_name = "ID")]
    dns_owner_id: Option<String>,
    /// Lease by which one of several replicas leads, in the operator's namespace.
    #[arg(long, value_name = "NAME", default_value = "xmpp-edge-operator")]
    lease_name: String,
    /// Address of /healthz, /readyz and /metrics.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:9090", value_parser = address_and_port)]
    admin_listen: SocketAddr,
    /// Loopback address of the status page, which kubectl port-forward leads to; without it there is
    /// none.
    #[arg(long, value_name = "ADDR", value_parser = loopback_address)]
    page_listen: Option<SocketAddr>,
    /// Domains that a namespace may have in DNS and certificates, with all below them; may be given
    /// again. Without any, all may have all.
    #[arg(long, value_name = "NS=DOMAIN,...")]
    allowed_domains: Vec<AllowedEntry>,
    /// Name server that pools may have their records updated at, with its port if that is not 53;
    /// repeatable. Without any, pools may name all.
    #[arg(long, value_name = "HOST[:PORT]", value_parser = allowed_dns_server)]
    allowed_dns_server: Vec<HostPort>,
    /// Namespace that Secrets of sidecars may be written into beside those of pools, with the names of the
    /// gateways; may be given again.
    #[arg(long, value_name = "NS=GATEWAY,...")]
    sidecar_namespace: Vec<SidecarNamespace>,
}

/// One `--allowed-domains`.
#[derive(Clone, Debug)]
struct AllowedEntry {
    namespace: String,
    domains: BTreeSet<DomainName>,
}

impl FromStr for AllowedEntry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, domains) = text
            .split_once('=')
            .filter(|(namespace, _)| !namespace.is_empty())
            .ok_or("give a namespace and its domains, such as chat=example.org,example.com")?;
        let domains: Result<_, _> = domains
            .split(',')
            .filter(|domain| !domain.is_empty())
            .map(|domain| DomainName::parse(domain).map_err(|error| error.to_string()))
            .collect();
        Ok(Self {
            namespace: namespace.to_owned(),
            domains: domains?,
        })
    }
}

#[derive(Debug, Args)]
struct Standalone {
    /// Directory of the manifests (*.yaml, *.yml, *.json).
    #[arg(long, value_name = "DIR")]
    manifests: PathBuf,
    /// Directory of keys, certificates, contacts and status; one process at a time.
    #[arg(long, value_name = "DIR", default_value = "xmpp-edge-state")]
    state: PathBuf,
    /// The EdgePool to run, where there are several: NAME or NAMESPACE/NAME.
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Address of the listeners for partners (s2s, directTls); may be given again.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0", value_parser = address)]
    bind: Vec<IpAddr>,
    /// Address of the listeners internal, admin and dns; may be given again. Inside servers are
    /// led to it by the DNS view.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1", value_parser = address)]
    internal_bind: Vec<IpAddr>,
    /// Resolver to ask, in place of the system's.
    #[arg(long, value_name = "IP:PORT", value_parser = address_and_port)]
    resolver: Option<SocketAddr>,
    /// Whose the DNS records are among those that publish into the same zone; default: an id made
    /// once and kept in the state directory.
    #[arg(long, value_name = "ID")]
    dns_owner_id: Option<OwnerId>,
    /// DNSKEY records from which DNSSEC is validated, in place of the root's own keys.
    #[arg(long, value_name = "FILE", value_parser = trust_anchors)]
    trust_anchors: Option<TrustAnchors>,
}

#[derive(Debug, Args)]
struct ManifestArgs {
    /// Directory of the manifests (*.yaml, *.yml, *.json).
    #[arg(long, value_name = "DIR")]
    manifests: PathBuf,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Args)]
struct Render {
    /// Directory of the manifests (*.yaml, *.yml, *.json).
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "sidecar",
        conflicts_with = "sidecar"
    )]
    manifests: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    sidecars: RenderSidecars,
}

#[derive(Debug, Args)]
struct RenderSidecars {
    /// File of workloads.
    #[arg(long, value_name = "FILE", requires = "proxy_image")]
    sidecar: Option<PathBuf>,
    /// Print a strategic merge patch for each labelled workload in place of the workloads.
    #[arg(long, requires = "sidecar")]
    patch: bool,
    /// Image of the sidecars.
    #[arg(long, value_name = "IMAGE", requires = "sidecar")]
    proxy_image: Option<String>,
    /// The cluster's resolver, which the sidecar asks what it does not answer; may be given again.
    #[arg(long, value_name = "IP:PORT", requires = "sidecar", value_parser = address_and_port)]
    resolver: Vec<SocketAddr>,
    /// Zone of the cluster's Services.
    #[arg(
        long,
        value_name = "DOMAIN",
        requires = "sidecar",
        default_value = "cluster.local"
    )]
    cluster_domain: String,
    /// Namespace of objects that name none.
    #[arg(
        long,
        value_name = "NS",
        requires = "sidecar",
        default_value = "default"
    )]
    namespace: String,
}

#[derive(Debug, Args)]
struct Explain {
    #[command(flatten)]
    look: ManifestArgs,
    /// Sender, user@domain.
    #[arg(long, value_name = "JID")]
    from: String,
    /// Recipient, user@domain.
    #[arg(long, value_name = "JID")]
    to: String,
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
        Command::Validate(look) => offline::validate(&look),
        Command::Render(asked) => offline::render(asked),
        Command::Explain(asked) => offline::explain(&asked),
        Command::Crds(asked) => print(&match asked.output {
            Definitions::Yaml => kinds::yaml(),
            Definitions::Markdown => kinds::reference::markdown(),
        })
        .map(|()| 0),
        Command::ImportLync(asked) => offline::import(&asked),
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

fn trust_anchors(path: &str) -> Result<TrustAnchors, String> {
    TrustAnchors::from_file(path).map_err(|fault| fault.to_string())
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
