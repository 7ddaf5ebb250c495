//! Names to records, by the system's resolver or one that is given. Answers are cached by their TTL.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_net::{DnsError as WireError, NetError};
use hickory_proto::{
    op::{Edns, Message, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    lookup::Lookup,
    net::runtime::TokioRuntimeProvider,
    system_conf::read_system_conf,
};
use xmpp_edge_crds::domain::DomainName;

use super::{
    DnsError, Service,
    exchange::{Over, exchange},
};
use crate::tls::{Tlsa, TlsaSet};

/// Records beyond this many of one answer are left out.
const MAX_RECORDS: usize = 32;
/// How long one resolver is waited for; it is asked twice.
const TIMEOUT: Duration = Duration::from_secs(4);
/// When one address family has answered, the other is waited for this long (RFC 8305 section 3
/// wants 50 ms; slow resolvers are commoner here than impatient users).
const RESOLUTION_DELAY: Duration = Duration::from_millis(150);

/// Asks DNS. Cheap to clone.
#[derive(Clone)]
pub struct Resolver {
    inner: Arc<Inner>,
}

struct Inner {
    lookups: TokioResolver,
    upstreams: Vec<SocketAddr>,
    /// A validating resolver on this machine, whose AD bit counts.
    on_loopback: Option<SocketAddr>,
}

/// Where a domain's servers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    /// Unordered; without SRV records the domain itself on port 5269.
    pub records: Vec<Service>,
    /// No SRV record of either kind exists.
    pub fallback: bool,
    /// The SRV answers were secure (DNSSEC): TLSA records of the targets count (RFC 7673).
    pub secure: bool,
}

impl Resolver {
    /// What the system is configured to ask (`/etc/resolv.conf`; `/etc/hosts` counts for addresses).
    ///
    /// # Errors
    /// [`DnsError::NoResolver`] when there is no usable configuration.
    pub fn system() -> Result<Self, DnsError> {
        let (config, mut options) =
            read_system_conf().map_err(|cause| DnsError::NoResolver(cause.to_string()))?;
        options.use_hosts_file = ResolveHosts::Always;
        Self::build(config, options)
    }

    /// One resolver, by UDP and TCP; `/etc/hosts` does not count.
    ///
    /// # Errors
    /// [`DnsError::NoResolver`] when it cannot be set up.
    pub fn at(address: SocketAddr) -> Result<Self, DnsError> {
        let port = |mut connection: ConnectionConfig| {
            connection.port = address.port();
            connection
        };
        let mut server = NameServerConfig::udp_and_tcp(address.ip());
        server.connections = vec![port(ConnectionConfig::udp()), port(ConnectionConfig::tcp())];
        let mut options = ResolverOpts::default();
        options.use_hosts_file = ResolveHosts::Never;
        Self::build(ResolverConfig::from_name_servers(vec![server]), options)
    }

    fn build(config: ResolverConfig, mut options: ResolverOpts) -> Result<Self, DnsError> {
        let mut upstreams: Vec<SocketAddr> = Vec::new();
        for server in config.name_servers() {
            let port = server
                .connections
                .first()
                .map_or(53, |connection| connection.port);
            let address = SocketAddr::new(server.ip, port);
            if !upstreams.contains(&address) {
                upstreams.push(address);
            }
        }
        if upstreams.is_empty() {
            return Err(DnsError::NoResolver("it names no server".to_owned()));
        }
        options.timeout = TIMEOUT;
        options.attempts = 2;
        options.try_tcp_on_error = true;
        let lookups = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .map_err(|cause| DnsError::NoResolver(cause.to_string()))?;
        let on_loopback = upstreams
            .iter()
            .all(|upstream| upstream.ip().is_loopback())
            .then(|| upstreams[0]);
        Ok(Self {
            inner: Arc::new(Inner {
                lookups,
                upstreams,
                on_loopback,
            }),
        })
    }

    /// The resolvers that are asked, at least one.
    #[must_use]
    pub fn upstreams(&self) -> &[SocketAddr] {
        &self.inner.upstreams
    }

    /// The servers of `domain` by `_xmpps-server._tcp` and `_xmpp-server._tcp`. Without any SRV
    /// record: the domain itself on port 5269 (RFC 6120 section 3.2.2). Where only `_xmpps-server`
    /// cannot be looked up, `_xmpp-server` alone counts.
    ///
    /// # Errors
    /// [`DnsError`]; [`DnsError::NotOffered`] where `_xmpp-server` says `.` and nothing else is.
    pub async fn services(&self, domain: &DomainName) -> Result<Services, DnsError> {
        let (direct, starttls) = tokio::join!(self.srv(domain, true), self.srv(domain, false));
        let direct = direct.unwrap_or(Answer::Nothing);
        let secure = [&direct, starttls.as_ref().unwrap_or(&Answer::Nothing)]
            .iter()
            .filter_map(|answer| match answer {
                Answer::Records { secure, .. } => Some(*secure),
                _ => None,
            })
            .reduce(|left, right| left && right)
            .unwrap_or_default();
        let mut records = direct.records();
        match starttls {
            Ok(Answer::NotOffered) if records.is_empty() => {
                return Err(DnsError::NotOffered {
                    domain: domain.clone(),
                });
            }
            Ok(answer) => records.extend(answer.records()),
            Err(_) if !records.is_empty() => {}
            Err(fault) => return Err(fault),
        }
        let fallback = records.is_empty();
        if fallback {
            records.push(Service {
                priority: 0,
                weight: 0,
                port: 5269,
                target: domain.clone(),
                direct_tls: false,
            });
        }
        Ok(Services {
            records,
            fallback,
            secure,
        })
    }

    async fn srv(&self, domain: &DomainName, direct_tls: bool) -> Result<Answer, DnsError> {
        let service = if direct_tls {
            "_xmpps-server"
        } else {
            "_xmpp-server"
        };
        let name = format!("{service}._tcp.{domain}");
        let lookup = match self.lookup(&name, RecordType::SRV).await {
            Ok(lookup) => lookup,
            Err(DnsError::NotFound { .. } | DnsError::NoRecords { .. }) => {
                return Ok(Answer::Nothing);
            }
            Err(fault) => return Err(fault),
        };
        let mut records = Vec::new();
        let mut refused = false;
        let mut unusable = None;
        for record in lookup.answers() {
            let RData::SRV(srv) = &record.data else {
                continue;
            };
            if srv.target.is_root() {
                refused = true;
                continue;
            }
            match DomainName::parse(&srv.target.to_ascii()) {
                Ok(target) if srv.port != 0 => records.push(Service {
                    priority: srv.priority,
                    weight: srv.weight,
                    port: srv.port,
                    target,
                    direct_tls,
                }),
                Ok(_) => unusable = Some(format!("{name} names port 0")),
                Err(cause) => unusable = Some(cause.to_string()),
            }
        }
        records.truncate(MAX_RECORDS);
        if !records.is_empty() {
            let secure = self.is_secure(&name, RecordType::SRV).await;
            return Ok(Answer::Records { records, secure });
        }
        match unusable {
            _ if refused => Ok(Answer::NotOffered),
            Some(cause) => Err(DnsError::Unusable { name, cause }),
            None => Ok(Answer::Nothing),
        }
    }

    /// The addresses of a host, both families, in the resolver's order.
    ///
    /// # Errors
    /// [`DnsError`] when neither family gives one.
    pub async fn addresses(&self, host: &DomainName) -> Result<Vec<IpAddr>, DnsError> {
        let v6 = self.lookup(host.as_str(), RecordType::AAAA);
        let v4 = self.lookup(host.as_str(), RecordType::A);
        tokio::pin!(v6, v4);
        let (first, second) = tokio::select! {
            answer = &mut v6 => {
                let other = wait_on(answer.is_ok(), &mut v4).await;
                (Some(answer), other)
            }
            answer = &mut v4 => {
                let other = wait_on(answer.is_ok(), &mut v6).await;
                (other, Some(answer))
            }
        };
        let mut addresses = Vec::new();
        let mut fault = None;
        for answer in [first, second].into_iter().flatten() {
            match answer {
                Ok(lookup) => addresses.extend(lookup.answers().iter().filter_map(address)),
                // What is not definite says more than that a family is missing.
                Err(cause) => match &fault {
                    Some(DnsError::NoRecords { .. } | DnsError::NotFound { .. }) | None => {
                        fault = Some(cause);
                    }
                    Some(_) => {}
                },
            }
        }
        addresses.truncate(MAX_RECORDS);
        if !addresses.is_empty() {
            return Ok(addresses);
        }
        Err(match fault {
            Some(DnsError::NoRecords { name, .. }) => DnsError::NoRecords {
                name,
                kind: "A or AAAA",
            },
            Some(fault) => fault,
            None => DnsError::NoRecords {
                name: host.to_string(),
                kind: "A or AAAA",
            },
        })
    }

    /// The usable TLSA records of a target whose delegation was secure. `None`: there are none, or
    /// they are not secure, and PKIX alone decides.
    ///
    /// # Errors
    /// [`DnsError`] when the zone is signed but the answer cannot be had: going on without would let
    /// whoever suppressed it choose (RFC 7672 section 2.1.2).
    pub async fn tlsa(&self, target: &DomainName, port: u16) -> Result<Option<TlsaSet>, DnsError> {
        let Some(resolver) = self.inner.on_loopback else {
            return Ok(None);
        };
        let name = format!("_{port}._tcp.{target}");
        let message = validated(resolver, &name, RecordType::TLSA).await?;
        if !message.metadata.authentic_data {
            return Ok(None);
        }
        let records = message
            .answers
            .iter()
            .filter_map(|record| match &record.data {
                RData::TLSA(tlsa) => Tlsa::from_wire(
                    tlsa.cert_usage.into(),
                    tlsa.selector.into(),
                    tlsa.matching.into(),
                    &tlsa.cert_data,
                ),
                _ => None,
            })
            .take(MAX_RECORDS)
            .collect();
        Ok(TlsaSet::new(records, target.clone()))
    }

    async fn is_secure(&self, name: &str, kind: RecordType) -> bool {
        let Some(resolver) = self.inner.on_loopback else {
            return false;
        };
        validated(resolver, name, kind)
            .await
            .is_ok_and(|message| message.metadata.authentic_data)
    }

    async fn lookup(&self, name: &str, kind: RecordType) -> Result<Lookup, DnsError> {
        let absolute = absolute(name)?;
        self.inner
            .lookups
            .lookup(absolute, kind)
            .await
            .map_err(|cause| fault(name, kind, &cause))
    }
}

enum Answer {
    Nothing,
    /// Target `.` alone.
    NotOffered,
    Records {
        records: Vec<Service>,
        secure: bool,
    },
}

impl Answer {
    fn records(self) -> Vec<Service> {
        match self {
            Self::Records { records, .. } => records,
            Self::Nothing | Self::NotOffered => Vec::new(),
        }
    }
}

async fn wait_on<F: Future>(briefly: bool, other: F) -> Option<F::Output> {
    if briefly {
        tokio::time::timeout(RESOLUTION_DELAY, other).await.ok()
    } else {
        Some(other.await)
    }
}

/// Asks a validating resolver, with the wish for the AD bit (RFC 6840 section 5.7).
async fn validated(
    resolver: SocketAddr,
    name: &str,
    kind: RecordType,
) -> Result<Message, DnsError> {
    let unusable = |cause: String| DnsError::Unusable {
        name: name.to_owned(),
        cause,
    };
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.metadata.authentic_data = true;
    question.add_query(Query::query(absolute(name)?, kind));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    question.set_edns(edns);
    let bytes = question
        .to_vec()
        .map_err(|cause| unusable(cause.to_string()))?;
    for over in [Over::Udp, Over::Tcp] {
        let answer =
            exchange(resolver, &bytes, over, TIMEOUT)
                .await
                .map_err(|cause| match cause.kind() {
                    std::io::ErrorKind::TimedOut => DnsError::Timeout {
                        name: name.to_owned(),
                    },
                    _ => unusable(cause.to_string()),
                })?;
        let message = Message::from_vec(&answer).map_err(|cause| unusable(cause.to_string()))?;
        if message.metadata.truncation && over == Over::Udp {
            continue;
        }
        return match message.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => Ok(message),
            ResponseCode::ServFail => Err(DnsError::ServFail {
                name: name.to_owned(),
            }),
            ResponseCode::Refused => Err(DnsError::Refused {
                name: name.to_owned(),
            }),
            other => Err(unusable(other.to_string())),
        };
    }
    Err(unusable("the answer is truncated over TCP too".to_owned()))
}

fn absolute(name: &str) -> Result<Name, DnsError> {
    let unusable = |cause: hickory_proto::ProtoError| DnsError::Unusable {
        name: name.to_owned(),
        cause: cause.to_string(),
    };
    let mut parsed = Name::from_ascii(name).map_err(unusable)?;
    parsed.set_fqdn(true);
    Ok(parsed)
}

fn address(record: &Record) -> Option<IpAddr> {
    match &record.data {
        RData::A(a) => Some(a.0.into()),
        RData::AAAA(aaaa) => Some(aaaa.0.into()),
        _ => None,
    }
}

fn fault(name: &str, kind: RecordType, cause: &NetError) -> DnsError {
    let name = name.to_owned();
    let by_code = |code: ResponseCode, name: String| match code {
        ResponseCode::NXDomain => DnsError::NotFound { name },
        ResponseCode::ServFail => DnsError::ServFail { name },
        ResponseCode::Refused => DnsError::Refused { name },
        ResponseCode::NoError => DnsError::NoRecords {
            name,
            kind: shown(kind),
        },
        other => DnsError::Unusable {
            name,
            cause: other.to_string(),
        },
    };
    match cause {
        NetError::Timeout => DnsError::Timeout { name },
        NetError::Dns(WireError::NoRecordsFound(nothing)) => by_code(nothing.response_code, name),
        NetError::Dns(WireError::ResponseCode(code)) => by_code(*code, name),
        NetError::Dns(WireError::DnssecBogus) => DnsError::Bogus { name },
        NetError::Io(cause) if cause.kind() == std::io::ErrorKind::TimedOut => {
            DnsError::Timeout { name }
        }
        other => DnsError::Unusable {
            name,
            cause: other.to_string(),
        },
    }
}

fn shown(kind: RecordType) -> &'static str {
    kind.into()
}

#[cfg(test)]
mod tests;
