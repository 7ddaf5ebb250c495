//! The options of each command, as they are written.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use clap::{Args, ValueEnum};
use xmpp_edge_crds::{domain::DomainName, edge_config::HostPort};
use xmpp_edge_proxy::{
    arguments::{address, address_and_port},
    dns::TrustAnchors,
};

use super::inspect::inspection::{ClusterSource, InspectionSource};
use crate::{
    controllers::{
        namespace::snapshot::allowed_dns_server, pool::sidecar_secrets::SidecarNamespace,
    },
    dns::OwnerId,
    page::server::loopback_address,
    runtime::caches::Scope,
};

/// Form of the result on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub(super) struct Crds {
    /// `yaml` for `kubectl apply`, `markdown` for people.
    #[arg(long, value_enum, default_value_t = Definitions::Yaml)]
    pub(super) output: Definitions,
}

/// Form in which the definitions are printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Definitions {
    Yaml,
    Markdown,
}

#[derive(Debug, Args)]
pub(super) struct ImportLync {
    /// The export.
    pub(super) file: PathBuf,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(super) output: Output,
}

/// Which namespaces are an operator's.
#[derive(Debug, Args)]
pub(super) struct WatchedArgs {
    /// Namespace to watch, in place of the operator's own; may be given again.
    #[arg(long, value_name = "NS", conflicts_with = "cluster_wide")]
    pub(super) watch_namespace: Vec<String>,
    /// Watch all namespaces.
    #[arg(long)]
    pub(super) cluster_wide: bool,
}

#[derive(Debug, Args)]
pub(super) struct Check {
    /// Lease by which one of several replicas leads, in the operator's namespace.
    #[arg(long, value_name = "NAME", default_value = "xmpp-edge-operator")]
    pub(super) lease_name: String,
    /// Admin port of an operator, to read its metrics.
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) admin: Option<String>,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(super) output: Output,
}

#[derive(Debug, Args)]
pub(super) struct PrepareUninstall {
    #[command(flatten)]
    pub(super) watched: WatchedArgs,
    /// Lease by which one of several replicas leads, in the operator's namespace.
    #[arg(long, value_name = "NAME", default_value = "xmpp-edge-operator")]
    pub(super) lease_name: String,
    /// Leave the lease to the operators, which go on: for namespaces that they no longer watch.
    #[arg(long, requires = "watch_namespace")]
    pub(super) keep_lease: bool,
    /// Give up after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120,
        value_parser = clap::value_parser!(u64).range(20..=3600))]
    pub(super) timeout_seconds: u64,
}

#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) watched: WatchedArgs,
    /// Image of the proxies of pools that name none.
    #[arg(long, value_name = "IMAGE")]
    pub(super) proxy_image: Option<String>,
    /// Name of a pull Secret for pools that name none, in each pool's namespace; repeatable.
    #[arg(long, value_name = "NAME")]
    pub(super) proxy_image_pull_secret: Vec<String>,
    /// Owner of this operator's DNS records; of two operators for one zone each needs its own.
    /// Default: the UID of the operator's namespace.
    #[arg(long, value_name = "ID")]
    pub(super) dns_owner_id: Option<String>,
    /// Lease by which one of several replicas leads, in the operator's namespace.
    #[arg(long, value_name = "NAME", default_value = "xmpp-edge-operator")]
    pub(super) lease_name: String,
    /// Address of /healthz, /readyz and /metrics.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:9090", value_parser = address_and_port)]
    pub(super) admin_listen: SocketAddr,
    /// Loopback address of the status page, which kubectl port-forward leads to; without it there is
    /// none.
    #[arg(long, value_name = "ADDR", value_parser = loopback_address)]
    pub(super) page_listen: Option<SocketAddr>,
    /// Domains that a namespace may have in DNS and certificates, with all below them; may be given
    /// again. Without any, all may have all.
    #[arg(long, value_name = "NS=DOMAIN,...")]
    pub(super) allowed_domains: Vec<AllowedEntry>,
    /// Name server that pools may have their records updated at, with its port if that is not 53;
    /// repeatable. Without any, pools may name all.
    #[arg(long, value_name = "HOST[:PORT]", value_parser = allowed_dns_server)]
    pub(super) allowed_dns_server: Vec<HostPort>,
    /// Namespace that Secrets of sidecars may be written into beside those of pools, with the gateways and the
    /// namespaces of their pools; may be given again. A gateway without: of the only namespace watched.
    #[arg(long, value_name = "NS=POOLS/GATEWAY,...")]
    pub(super) sidecar_namespace: Vec<SidecarNamespace>,
}

/// One `--allowed-domains`.
#[derive(Clone, Debug)]
pub(super) struct AllowedEntry {
    pub(super) namespace: String,
    pub(super) domains: BTreeSet<DomainName>,
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
pub(super) struct Standalone {
    /// Directory of the manifests (*.yaml, *.yml, *.json).
    #[arg(long, value_name = "DIR")]
    pub(super) manifests: PathBuf,
    /// Directory of keys, certificates, contacts and status; one process at a time.
    #[arg(long, value_name = "DIR", default_value = "xmpp-edge-state")]
    pub(super) state: PathBuf,
    /// The EdgePool to run, where there are several: NAME or NAMESPACE/NAME.
    #[arg(long, value_name = "NAME")]
    pub(super) pool: Option<String>,
    /// Address of the listeners for partners (s2s, directTls); may be given again.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0", value_parser = address)]
    pub(super) bind: Vec<IpAddr>,
    /// Address of the listeners internal, admin and dns; may be given again. Inside servers are
    /// led to it by the DNS view.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1", value_parser = address)]
    pub(super) internal_bind: Vec<IpAddr>,
    /// Resolver to ask, in place of the system's.
    #[arg(long, value_name = "IP:PORT", value_parser = address_and_port)]
    pub(super) resolver: Option<SocketAddr>,
    /// Whose the DNS records are among those that publish into the same zone; default: an id made
    /// once and kept in the state directory.
    #[arg(long, value_name = "ID")]
    pub(super) dns_owner_id: Option<OwnerId>,
    /// DNSKEY records from which DNSSEC is validated, in place of the root's own keys.
    #[arg(long, value_name = "FILE", value_parser = trust_anchors)]
    pub(super) trust_anchors: Option<TrustAnchors>,
}

/// Where the objects are that are looked at.
#[derive(Debug, Args)]
pub(super) struct LookArgs {
    /// Directory of the manifests (*.yaml, *.yml, *.json).
    #[arg(long, value_name = "DIR", required_unless_present = "cluster")]
    pub(super) manifests: Option<PathBuf>,
    /// Look at the cluster of the kubeconfig, with one's own rights.
    #[arg(long)]
    pub(super) cluster: bool,
    /// Namespace to look at, in place of the kubeconfig's; may be given again.
    #[arg(long, short, value_name = "NS", requires = "cluster")]
    pub(super) namespace: Vec<String>,
    /// Look at all namespaces.
    #[arg(long, short = 'A', requires = "cluster", conflicts_with = "namespace")]
    pub(super) all_namespaces: bool,
    /// Context of the kubeconfig, in place of its current one.
    #[arg(long, value_name = "NAME", requires = "cluster")]
    pub(super) context: Option<String>,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(super) output: Output,
}

impl LookArgs {
    pub(super) fn source(&self) -> InspectionSource {
        let scope = match (self.all_namespaces, self.namespace.is_empty()) {
            (true, _) => Some(Scope::Cluster),
            (false, true) => None,
            (false, false) => Some(Scope::Namespaces(self.namespace.iter().cloned().collect())),
        };
        InspectionSource {
            manifests: self.manifests.clone(),
            cluster: self.cluster.then(|| ClusterSource {
                context: self.context.clone(),
                scope,
            }),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Validate {
    #[command(flatten)]
    pub(super) look: LookArgs,
}

#[derive(Debug, Args)]
pub(super) struct Render {
    /// Directory of the manifests (*.yaml, *.yml, *.json).
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "sidecar",
        conflicts_with = "sidecar"
    )]
    pub(super) manifests: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(super) output: Output,
    #[command(flatten)]
    pub(super) sidecars: RenderSidecars,
}

#[derive(Debug, Args)]
pub(super) struct RenderSidecars {
    /// File of workloads.
    #[arg(long, value_name = "FILE", requires = "proxy_image")]
    pub(super) sidecar: Option<PathBuf>,
    /// Print a strategic merge patch for each labelled workload in place of the workloads.
    #[arg(long, requires = "sidecar")]
    pub(super) patch: bool,
    /// Image of the sidecars.
    #[arg(long, value_name = "IMAGE", requires = "sidecar")]
    pub(super) proxy_image: Option<String>,
    /// The cluster's resolver, which the sidecar asks what it does not answer; may be given again.
    #[arg(long, value_name = "IP:PORT", requires = "sidecar", value_parser = address_and_port)]
    pub(super) resolver: Vec<SocketAddr>,
    /// Zone of the cluster's Services.
    #[arg(
        long,
        value_name = "DOMAIN",
        requires = "sidecar",
        default_value = "cluster.local"
    )]
    pub(super) cluster_domain: String,
    /// Namespace of objects that name none.
    #[arg(
        long,
        value_name = "NS",
        requires = "sidecar",
        default_value = "default"
    )]
    pub(super) namespace: String,
}

#[derive(Debug, Args)]
pub(super) struct ProbeByPod {
    /// The partner's domain.
    pub(super) domain: DomainName,
    /// EdgePool of which a pod is to probe, in the namespace of the kubeconfig where none is named.
    #[arg(long, value_name = "[NS/]NAME")]
    pub(super) pool: String,
    /// Own domain to come from; default: the pool's first.
    #[arg(long, value_name = "DOMAIN")]
    pub(super) from: Option<DomainName>,
    /// Context of the kubeconfig, in place of its current one.
    #[arg(long, value_name = "NAME")]
    pub(super) context: Option<String>,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(super) output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Explain {
    #[command(flatten)]
    pub(super) look: LookArgs,
    /// Sender: user@domain, or as SIP has it, sip:user@domain.
    #[arg(long, value_name = "JID")]
    pub(super) from: String,
    /// Recipient, likewise.
    #[arg(long, value_name = "JID")]
    pub(super) to: String,
}

fn trust_anchors(path: &str) -> Result<TrustAnchors, String> {
    TrustAnchors::from_file(path).map_err(|fault| fault.to_string())
}
