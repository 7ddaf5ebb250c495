//! Names to records, by the system's resolver or one that is given. Answers are cached by their TTL.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_net::{DnsError as WireError, NetError};
use hickory_proto::{
    op::ResponseCode,
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
    Dane, DnsError, Dnssec, Service, TrustAnchors,
    dnssec::{Validated, Validator},
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
    validator: Validator,
}

/// Where a domain's servers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    /// Unordered; without SRV records the domain itself on port 5269.
    pub records: Vec<Service>,
    /// No SRV record of either kind exists.
    pub fallback: bool,
    /// Of all SRV answers together. Where they are secure, TLSA records of the targets count
    /// (RFC 7673 section 3.1); without SRV records it is [`Dnssec::Unsigned`].
    pub dnssec: Dnssec,
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
        let validator = Validator::new(upstreams.clone(), TrustAnchors::default());
        Ok(Self {
            inner: Arc::new(Inner {
                lookups,
                upstreams,
                validator,
            }),
        })
    }

    /// Takes these trust anchors in place of the root's keys.
    #[must_use]
    pub fn with_trust_anchors(self, anchors: TrustAnchors) -> Self {
        let upstreams = self.inner.upstreams.clone();
        Self {
            inner: Arc::new(Inner {
                lookups: self.inner.lookups.clone(),
                validator: Validator::new(upstreams.clone(), anchors),
                upstreams,
            }),
        }
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
    /// [`DnsError`]; [`DnsError::NotOffered`] where `_xmpp-server` says `.` and nothing else is;
    /// [`DnsError::Bogus`] where either does not validate, whatever the other says.
    pub async fn services(&self, domain: &DomainName) -> Result<Services, DnsError> {
        let (direct, starttls) = tokio::join!(self.srv(domain, true), self.srv(domain, false));
        let direct = match direct {
            Err(bogus @ DnsError::Bogus { .. }) => return Err(bogus),
            other => other.unwrap_or(Answer::Nothing),
        };
        let dnssec = [&direct, starttls.as_ref().unwrap_or(&Answer::Nothing)]
            .iter()
            .filter_map(|answer| match answer {
                Answer::Records { dnssec, .. } => Some(*dnssec),
                Answer::Nothing | Answer::NotOffered => None,
            })
            .reduce(Dnssec::and)
            .unwrap_or(Dnssec::Unsigned);
        let mut records = direct.records();
        match starttls {
            Ok(Answer::NotOffered) if records.is_empty() => {
                return Err(DnsError::NotOffered {
                    domain: domain.clone(),
                });
            }
            Ok(answer) => records.extend(answer.records()),
            Err(bogus @ DnsError::Bogus { .. }) => return Err(bogus),
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
            dnssec,
        })
    }

    async fn srv(&self, domain: &DomainName, direct_tls: bool) -> Result<Answer, DnsError> {
        let service = if direct_tls {
            "_xmpps-server"
        } else {
            "_xmpp-server"
        };
        let name = format!("{service}._tcp.{domain}");
        let owner = absolute(&name)?;
        let (plain, assessed) = tokio::join!(
            self.lookup(&name, RecordType::SRV),
            self.inner.validator.if_signed(&owner, RecordType::SRV)
        );
        let Validated {
            dnssec,
            records: secured,
        } = assessed?;
        // What was validated is what counts, not what another answer said.
        let answers = match plain {
            _ if dnssec.is_secure() => secured,
            Ok(lookup) => lookup.answers().to_vec(),
            Err(DnsError::NotFound { .. } | DnsError::NoRecords { .. }) => {
                return Ok(Answer::Nothing);
            }
            Err(fault) => return Err(fault),
        };
        let mut records = Vec::new();
        let mut refused = false;
        let mut unusable = None;
        for record in &answers {
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
            return Ok(Answer::Records { records, dnssec });
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

    /// Whether TLSA records of a target count, whose name comes from a secure answer or from the
    /// configuration.
    ///
    /// # Errors
    /// [`DnsError`] when an answer is bogus, or when the target's addresses are secure and the TLSA
    /// answer cannot be had: going on without would let whoever suppressed it choose (RFC 7673
    /// sections 3.2 and 3.3).
    pub async fn dane(&self, target: &DomainName, port: u16) -> Result<Dane, DnsError> {
        let addresses = self.addresses_secure(target).await?;
        if !addresses.is_secure() {
            return Ok(Dane::AddressesNotSecure(addresses));
        }
        let name = absolute(&format!("_{port}._tcp.{target}"))?;
        let assessed = self.inner.validator.always(&name, RecordType::TLSA).await?;
        if !assessed.dnssec.is_secure() {
            return Ok(Dane::RecordsNotSecure(assessed.dnssec));
        }
        if assessed.records.is_empty() {
            return Ok(Dane::NoRecords);
        }
        let usable = assessed
            .records
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
        Ok(match TlsaSet::new(usable, target.clone()) {
            Some(set) => Dane::Counts(set),
            None => Dane::NoneUsable,
        })
    }

    /// One family that is secure suffices (RFC 7673 section 3.2).
    async fn addresses_secure(&self, host: &DomainName) -> Result<Dnssec, DnsError> {
        let name = absolute(host.as_str())?;
        let validator = &self.inner.validator;
        let (v6, v4) = tokio::join!(
            validator.if_signed(&name, RecordType::AAAA),
            validator.if_signed(&name, RecordType::A)
        );
        match (v6, v4) {
            (Ok(v6), Ok(v4)) => Ok(v6.dnssec.min(v4.dnssec)),
            (Ok(one), Err(fault)) | (Err(fault), Ok(one)) => {
                if one.dnssec.is_secure() {
                    Ok(one.dnssec)
                } else {
                    Err(fault)
                }
            }
            (Err(fault), Err(_)) => Err(fault),
        }
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
        dnssec: Dnssec,
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
