//! The command line. Exit codes: 0 fine, 1 what was asked for is not so, 2 wrong usage.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, anyhow};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{EgressProxy, HostPort, NameResolution, StartSettings},
    egress::EgressCredentials,
};
use xmpp_edge_proxy::{
    admin::server::AdminSubject,
    app,
    arguments::{address, address_and_port},
    config::{follow, trunk_name::TrunkName},
    dns::{Dialer, Resolver, SocksProxy, TargetSource, TrustAnchors},
    logging::LogFormat,
    net,
    probe::{self, Report},
    sidecar::{self, SidecarIdentity, SidecarPaths, StateDir},
    tls::{Identity, Roots, Trust},
};

/// Of `listeners.admin` where nothing is said.
const ADMIN_PORT: u16 = 9090;

/// XMPP server-to-server edge proxy
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "Exit codes: 0 fine; 1 what was asked for is not so; 2 wrong usage."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: ProxyCommand,
    /// Form of the logs on stderr; RUST_LOG says what is logged
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
pub enum ProxyCommand {
    /// Runs a proxy on an EdgeConfig
    Run(Run),
    /// Walks to a domain and says which method would be used, and why not a better one
    Probe(ProbeArguments),
    /// Beside the organisation's XMPP server
    Sidecar(SidecarArguments),
}

#[derive(Debug, Args)]
pub struct Run {
    /// The EdgeConfig as JSON, or, in a pod, the directory of its shards shard-0 to shard-7, which
    /// may come later; either is followed, edits take effect live
    #[arg(long, value_name = "PATH")]
    config: PathBuf,
    /// Directory of certificates, keys and secrets [default: --config, or the directory of it]
    #[arg(long, value_name = "DIR")]
    secrets: Option<PathBuf>,
    /// Number of the admin port where --config is a directory: it is open before there is a
    /// configuration to say it; 0 is off [default: 9090]
    #[arg(long, value_name = "PORT")]
    admin_port: Option<u16>,
    /// Ports and kind of contacts that the pod was made for, as s2s=5269,contacts=Postgres: while the
    /// document has others it is taken for the one of before, and the next is waited for, 150 s at most
    #[arg(long, env = "XMPP_EDGE_MADE_FOR", value_name = "NAME=VALUE,…", value_parser = made_for)]
    made_for: Option<StartSettings>,
    /// Where the embedded contacts live
    #[arg(long, value_name = "DIR", default_value = "state")]
    state: PathBuf,
    /// Address of the listeners s2s and directTls; may be given twice [default: ::, or 0.0.0.0 where
    /// the kernel has no IPv6]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    bind: Vec<IpAddr>,
    /// Address of the listeners internal, admin and dns; may be given twice [default: ::, or 0.0.0.0
    /// where the kernel has no IPv6]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    internal_bind: Vec<IpAddr>,
    /// Resolver to ask instead of the system's
    #[arg(long, value_name = "IP:PORT", value_parser = address_and_port)]
    resolver: Option<SocketAddr>,
    /// DNSKEY records from which DNSSEC is validated, in place of the root's own keys
    #[arg(long, value_name = "FILE", value_parser = trust_anchors)]
    trust_anchors: Option<TrustAnchors>,
}

#[derive(Debug, Args)]
pub struct ProbeArguments {
    /// The partner's domain
    domain: DomainName,
    /// Own domain to come from; some servers refuse streams without
    #[arg(long, value_name = "DOMAIN")]
    from: Option<DomainName>,
    /// Prints the report as JSON
    #[arg(long)]
    json: bool,
    /// Same as --json, or text
    #[arg(long, value_enum, conflicts_with = "json")]
    output: Option<OutputFormat>,
    /// Resolver to ask instead of the system's
    #[arg(long, value_name = "IP:PORT", value_parser = address_and_port)]
    resolver: Option<SocketAddr>,
    /// DNSKEY records from which DNSSEC is validated, in place of the root's own keys
    #[arg(long, value_name = "FILE", value_parser = trust_anchors)]
    trust_anchors: Option<TrustAnchors>,
    /// Dials this instead of what SRV says (a partner's proxyFqdn)
    #[arg(long, value_name = "HOST[:PORT]", value_parser = proxy_fqdn)]
    proxy_fqdn: Option<HostPort>,
    /// SOCKS5 proxy by which targets are dialled (settings.egressProxy)
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port)]
    egress_proxy: Option<HostPort>,
    /// Directory of username and password for that proxy, as its Secret has them
    #[arg(long, value_name = "DIR", requires = "egress_proxy")]
    egress_credentials: Option<PathBuf>,
    /// Gives that proxy names of hosts, and not addresses (nameResolution: Proxy)
    #[arg(long, requires = "egress_proxy")]
    egress_names: bool,
    /// PEM of the partner's own authority, in place of the public ones
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// PEM chain to present, so that the peer can offer SASL EXTERNAL
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// PEM key of --certificate
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct SidecarArguments {
    #[command(subcommand)]
    command: Option<SidecarCommand>,
    #[command(flatten)]
    run: Option<RunSidecar>,
}

#[derive(Debug, Args)]
struct RunSidecar {
    /// sidecar.json, as the operator writes it; it is followed, edits take effect live
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Directory of ca.crt and, where the operator issues it, tls.crt and tls.key [default: that of --config]
    #[arg(long, value_name = "DIR")]
    secrets: Option<PathBuf>,
    /// Where the sidecar keeps its keys; public/ca.crt in it is what the server is to trust
    #[arg(long, value_name = "DIR", default_value = "state")]
    state: PathBuf,
    /// The server, in place of what --config says
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port)]
    server: Option<HostPort>,
    /// A further edge to dial; may be given again
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port)]
    edge: Vec<HostPort>,
    /// Loopback address of the listener for the server; may be given twice
    #[arg(long, value_name = "ADDR", value_parser = address, default_value = "127.0.0.1")]
    bind: Vec<IpAddr>,
    /// Where the server's DNS view answers, or off
    #[arg(long, value_name = "IP:PORT|off", value_parser = dns_view, default_value = "127.0.0.1:53")]
    dns: DnsViewAt,
    /// Resolver to ask instead of the system's; may be given again
    #[arg(long, value_name = "IP:PORT", value_parser = address_and_port)]
    resolver: Vec<SocketAddr>,
    /// Address of /healthz, /readyz and /metrics [default: off]
    #[arg(long, value_name = "ADDR:PORT", value_parser = address_and_port)]
    admin: Option<SocketAddr>,
    /// Name among the sidecars of one gateway [default: POD_NAME, or the host's name]
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    instance: Option<TrunkName>,
    /// Secret that is mounted as the folders of --config and --secrets, for what is said while it is not there
    #[arg(long, value_name = "NAME", env = "SIDECAR_SECRET", hide = true)]
    secret: Option<String>,
}

/// `--dns`.
#[derive(Clone, Copy, Debug)]
enum DnsViewAt {
    Address(SocketAddr),
    Off,
}

fn dns_view(text: &str) -> Result<DnsViewAt, String> {
    match text {
        "off" => Ok(DnsViewAt::Off),
        text => address_and_port(text)
            .map(DnsViewAt::Address)
            .map_err(|fault| format!("{fault}, or off")),
    }
}

fn host_port(text: &str) -> Result<HostPort, String> {
    HostPort::parse(text, None).map_err(|fault| fault.to_string())
}

#[derive(Debug, Subcommand)]
enum SidecarCommand {
    /// Prints the SHA-256 of the sidecar's key, as spec.gateways[].sidecar.keys lists it; makes the key where
    /// there is none
    Key(KeyArguments),
}

#[derive(Debug, Args)]
struct KeyArguments {
    /// Where the sidecar keeps its key; run this as the sidecar's user
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    Text,
    Json,
}

fn proxy_fqdn(text: &str) -> Result<HostPort, String> {
    HostPort::parse(text, Some(5269)).map_err(|fault| fault.to_string())
}

fn made_for(text: &str) -> Result<StartSettings, Infallible> {
    text.parse()
}

fn trust_anchors(path: &str) -> Result<TrustAnchors, String> {
    TrustAnchors::from_file(path).map_err(|fault| fault.to_string())
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(args: Run) -> anyhow::Result<ExitCode> {
    let in_pod = args.config.is_dir();
    let secrets = args.secrets.unwrap_or_else(|| match in_pod {
        true => args.config.clone(),
        false => beside(&args.config),
    });
    if args.admin_port.is_some() && !in_pod {
        eprintln!("error: --admin-port is for a directory; a file says listeners.admin");
        return Ok(ExitCode::from(2));
    }
    let shutdown = CancellationToken::new();
    let offers = follow::files(args.config, secrets, shutdown.clone())?;
    let options = app::RunOptions {
        bind: net::addresses_or_all(args.bind),
        internal_bind: net::addresses_or_all(args.internal_bind),
        resolver: args.resolver,
        trust_anchors: args.trust_anchors.unwrap_or_default(),
        state_dir: args.state,
        peer_keys: None,
        further_metrics: None,
        control: None,
        outdated_sidecars: None,
        pod: in_pod.then_some(app::Pod {
            admin_port: args.admin_port.unwrap_or(ADMIN_PORT),
            admin_address: None,
            subject: AdminSubject::EdgePod,
            made_for: args.made_for,
        }),
    };
    tokio::spawn(stop_on_signal(shutdown.clone()));
    let (ready, is_ready) = oneshot::channel();
    announce(is_ready);
    app::run(options, offers, shutdown, ready).await?;
    Ok(ExitCode::SUCCESS)
}

async fn stop_on_signal(shutdown: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        tracing::warn!("signals cannot be watched: the process will stop out of order");
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    shutdown.cancel();
}

/// Probes once and prints the report.
pub async fn probe(args: ProbeArguments) -> anyhow::Result<ExitCode> {
    let resolver = match args.resolver {
        Some(address) => Resolver::at(address)?,
        None => Resolver::system(),
    }
    .with_trust_anchors(args.trust_anchors.unwrap_or_default());
    let roots = match &args.ca {
        Some(path) => Roots::from_pem(read(path)?, &path.display().to_string())?,
        None => Roots::public(),
    };
    let identity = match (&args.certificate, &args.key) {
        (Some(chain), Some(key)) => Some(Arc::new(Identity::from_pem(
            read(chain)?,
            read(key)?,
            &chain.display().to_string(),
        )?)),
        _ => None,
    };
    let egress = match &args.egress_proxy {
        Some(address) => Some(Arc::new(egress_proxy(
            address.clone(),
            args.egress_credentials.as_deref(),
            args.egress_names,
        )?)),
        None => None,
    };
    // Whoever probes by hand may look anywhere, at his own machine too.
    let anywhere = TargetSource::Discover {
        except: Arc::new([]),
    };
    let report = probe::probe(&probe::ProbeOptions {
        domain: args.domain,
        from: args.from,
        source: args.proxy_fqdn.map_or(anywhere, TargetSource::Fixed),
        identity,
        trust: Trust::new(roots),
        dialer: Dialer::new(resolver, Arc::new(|_, _| false)),
        egress,
    })
    .await;
    print(
        &report,
        args.json || args.output == Some(OutputFormat::Json),
    )?;
    Ok(if report.succeeded() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The proxy as `settings.egressProxy` has it.
fn egress_proxy(
    address: HostPort,
    credentials: Option<&Path>,
    gives_names: bool,
) -> anyhow::Result<SocksProxy> {
    let credentials = match credentials {
        None => None,
        Some(directory) => {
            let (username, password) = (directory.join("username"), directory.join("password"));
            let (username, password) = (read(&username)?, read(&password)?);
            let given = EgressCredentials::parse(Some(&username), Some(&password));
            Some(given.with_context(|| directory.display().to_string())?)
        }
    };
    let config = EgressProxy {
        address,
        name_resolution: match gives_names {
            true => NameResolution::Proxy,
            false => NameResolution::Edge,
        },
        has_credentials: credentials.is_some(),
    };
    Ok(SocksProxy::new(config, credentials))
}

/// Runs beside a server until SIGTERM or SIGINT, or does what the subcommand says.
pub async fn sidecar(args: SidecarArguments) -> anyhow::Result<ExitCode> {
    match (args.command, args.run) {
        (Some(SidecarCommand::Key(args)), _) => {
            let key = SidecarIdentity::ensure(&StateDir::open(args.state)?)?;
            println!("sha256:{}", key.spki_sha256());
        }
        (None, Some(args)) => run_sidecar(args).await?,
        (None, None) => {
            eprintln!("error: give --config FILE, or the subcommand key");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_sidecar(args: RunSidecar) -> anyhow::Result<()> {
    let secrets = args.secrets.unwrap_or_else(|| beside(&args.config));
    let instance = match args.instance {
        Some(instance) => instance,
        None => host_name()?,
    };
    let shutdown = CancellationToken::new();
    tokio::spawn(stop_on_signal(shutdown.clone()));
    let (ready, is_ready) = oneshot::channel();
    announce(is_ready);
    let options = sidecar::SidecarOptions {
        paths: SidecarPaths {
            config: args.config,
            secrets,
            secret: args.secret,
        },
        state: args.state,
        instance,
        server: args.server,
        edges: args.edge,
        bind: args.bind,
        dns: match args.dns {
            DnsViewAt::Address(address) => Some(address),
            DnsViewAt::Off => None,
        },
        resolvers: args.resolver,
        admin: args.admin,
    };
    Ok(sidecar::run(options, shutdown, ready).await?)
}

/// The folder in which a file is.
fn beside(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn host_name() -> anyhow::Result<TrunkName> {
    const FILE: &str = "/proc/sys/kernel/hostname";
    let text = std::fs::read_to_string(FILE).unwrap_or_default();
    text.trim()
        .parse()
        .map_err(|fault| anyhow!("the host's name in {FILE} is no name ({fault}): give --instance"))
}

/// Says on stdout when it is ready.
fn announce(is_ready: oneshot::Receiver<()>) {
    tokio::spawn(async move {
        if is_ready.await.is_ok() {
            println!("xmpp-edge-proxy {} is ready", env!("CARGO_PKG_VERSION"));
        }
    });
}

fn print(report: &Report, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).map_err(|cause| anyhow!("cannot read {}: {cause}", path.display()))
}
