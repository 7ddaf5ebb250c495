//! Lookups without signatures, by the library, in the way that the resolvers of this network take.
//!
//! Some resolvers, and what stands before them, answer questions with EDNS by an error or not at all (RFC 6891
//! section 6.2.2), and some networks let no UDP through (RFC 7766 section 5). The library asks in one way. The way
//! that was found is kept for a while.

use std::time::{Duration, Instant};

use hickory_net::{DnsError as WireError, NetError};
use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RecordType},
};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    lookup::Lookup,
    net::runtime::TokioRuntimeProvider,
};
use parking_lot::Mutex;

use crate::dns::{DnsError, resolv_conf::Upstreams};

/// How long a question waits for its answer, each time that it is asked. All ways together take some 10 s of
/// resolvers that are silent.
const TIMEOUT: Duration = Duration::from_millis(2_500);
/// How long another way is taken first once it was found.
const KEPT: Duration = Duration::from_secs(600);

/// How questions travel, the best way first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LookupWay {
    Edns,
    /// By UDP too, with TCP for what is truncated.
    WithoutEdns,
    Tcp,
}

const WAYS: [LookupWay; 3] = [LookupWay::Edns, LookupWay::WithoutEdns, LookupWay::Tcp];

/// Asks the resolvers of a network.
pub(super) struct Lookups {
    by_way: Vec<(LookupWay, TokioResolver)>,
    /// The way that brought an answer where those before it brought none, and when.
    found: Mutex<Option<(LookupWay, Instant)>>,
}

impl Lookups {
    /// # Errors
    /// [`DnsError::NoResolver`] when they cannot be set up.
    pub(super) fn new(upstreams: &Upstreams, hosts: ResolveHosts) -> Result<Self, DnsError> {
        let ways = WAYS
            .into_iter()
            .filter(|way| !upstreams.tcp_alone || *way == LookupWay::Tcp);
        let by_way = ways
            .map(|way| Ok((way, resolver(upstreams, hosts, way)?)))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            by_way,
            found: Mutex::default(),
        })
    }

    /// # Errors
    /// What the best way said, where none brought an answer.
    pub(super) async fn lookup(&self, name: Name, kind: RecordType) -> Result<Lookup, NetError> {
        let found = self.found();
        let first = self.by_way.iter().filter(|(way, _)| Some(*way) == found);
        let others = self.by_way.iter().filter(|(way, _)| Some(*way) != found);
        let mut fault = None;
        for (way, resolver) in first.chain(others) {
            match resolver.lookup(name.clone(), kind).await {
                Err(cause) if is_no_answer(&cause) => fault = Some(fault.unwrap_or(cause)),
                answer => {
                    self.note(*way);
                    return answer;
                }
            }
        }
        Err(fault.unwrap_or(NetError::NoConnections))
    }

    fn found(&self) -> Option<LookupWay> {
        let (way, since) = (*self.found.lock())?;
        (since.elapsed() < KEPT).then_some(way)
    }

    fn note(&self, way: LookupWay) {
        let mut found = self.found.lock();
        let is_best = self.by_way.first().is_some_and(|(best, _)| *best == way);
        match *found {
            Some((known, _)) if known == way => {}
            _ if is_best => *found = None,
            _ => *found = Some((way, Instant::now())),
        }
    }
}

/// Whether another way may bring what this one did not.
fn is_no_answer(cause: &NetError) -> bool {
    use ResponseCode::{BADVERS, FormErr, NotImp};
    match cause {
        NetError::Dns(WireError::ResponseCode(code)) => matches!(code, FormErr | NotImp | BADVERS),
        NetError::Dns(_) => false,
        _ => true,
    }
}

fn resolver(
    upstreams: &Upstreams,
    hosts: ResolveHosts,
    way: LookupWay,
) -> Result<TokioResolver, DnsError> {
    let servers = upstreams.addresses.iter().map(|address| {
        let port = |mut connection: ConnectionConfig| {
            connection.port = address.port();
            connection
        };
        let mut server = NameServerConfig::udp_and_tcp(address.ip());
        server.connections = match way {
            LookupWay::Tcp => vec![port(ConnectionConfig::tcp())],
            LookupWay::Edns | LookupWay::WithoutEdns => {
                vec![port(ConnectionConfig::udp()), port(ConnectionConfig::tcp())]
            }
        };
        server
    });
    let config = ResolverConfig::from_name_servers(servers.collect());
    let mut options = ResolverOpts::default();
    options.use_hosts_file = hosts;
    options.timeout = TIMEOUT;
    options.attempts = usize::from(way == LookupWay::Edns);
    options.edns0 = way == LookupWay::Edns;
    options.cache_size = 0;
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(options)
        .build()
        .map_err(|cause| DnsError::NoResolver(cause.to_string()))
}
