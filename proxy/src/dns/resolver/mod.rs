//! Names to records, by the system's resolver or one that is given. Answers are cached by their TTL.

mod forgetting;
mod lookups;
mod sip;

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use hickory_net::{DnsError as WireError, NetError};
use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RData, Record, RecordType},
};
use hickory_resolver::config::ResolveHosts;
use lookups::Lookups;
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::domain::DomainName;

use super::{
    Dane, DnsError, Dnssec, Service, TrustAnchors,
    cache::{DnsCache, Holds, LEAST_AGE, MAX_RECORDS, counted},
    dnssec::{Validated, Validator},
    resolv_conf::{Upstreams, Watched},
};
use crate::tls::{Tlsa, TlsaSet};

/// When one address family has answered, the other is waited for this long (RFC 8305 section 3
/// wants 50 ms; slow resolvers are commoner here than impatient users).
const RESOLUTION_DELAY: Duration = Duration::from_millis(150);

/// Asks DNS. Cheap to clone; clones ask the same resolvers, whatever these become.
#[derive(Debug, Clone)]
pub struct Resolver {
    servers: Arc<ArcSwap<Servers>>,
    anchors: TrustAnchors,
    /// From this age on answers are forgotten.
    least_age: Duration,
}

/// The resolvers that are asked, and what they answered.
struct Servers {
    /// None: there is no resolver yet.
    lookups: Option<Arc<Lookups>>,
    /// In place of the library's own cache, which believes that there is nothing for up to a day, and
    /// forgets nothing.
    answers: DnsCache<Result<Arc<[Record]>, DnsError>>,
    upstreams: Upstreams,
    validator: Validator,
}

impl std::fmt::Debug for Servers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Servers")
            .field("upstreams", &self.upstreams)
            .finish_non_exhaustive()
    }
}

const DNS_PORT: u16 = 53;
/// Where the system says which resolvers to ask.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Between two looks at it.
const LOOK: Duration = Duration::from_secs(2);

/// Where a domain's servers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    /// Unordered; without SRV records the domain itself on port 5269, of SIP servers the host itself on the
    /// transport's.
    pub records: Vec<Service>,
    /// No SRV record of either kind exists.
    pub fallback: bool,
    /// Of all SRV answers together. Where they are secure, TLSA records of the targets count
    /// (RFC 7673 section 3.1); without SRV records it is [`Dnssec::Unsigned`].
    pub dnssec: Dnssec,
}

impl Resolver {
    /// What the system is configured to ask (`/etc/resolv.conf`; `/etc/hosts` counts for addresses).
    /// Where that names no resolver yet, every question fails until [`Self::follow`] has found one.
    #[must_use]
    pub fn system() -> Self {
        Self::by_file(&mut Watched::new(Path::new(RESOLV_CONF)))
    }

    fn by_file(file: &mut Watched) -> Self {
        let resolver = Self {
            servers: Arc::new(ArcSwap::from_pointee(Servers::none(
                &TrustAnchors::default(),
                LEAST_AGE,
            ))),
            anchors: TrustAnchors::default(),
            least_age: LEAST_AGE,
        };
        resolver.look_at(file, true);
        resolver
    }

    /// One resolver, by UDP and TCP; `/etc/hosts` does not count.
    ///
    /// # Errors
    /// [`DnsError::NoResolver`] when it cannot be set up.
    pub fn at(address: SocketAddr) -> Result<Self, DnsError> {
        let anchors = TrustAnchors::default();
        let servers = Servers::asking(
            vec![address].into(),
            ResolveHosts::Never,
            &anchors,
            LEAST_AGE,
        )?;
        Ok(Self {
            servers: Arc::new(ArcSwap::from_pointee(servers)),
            anchors,
            least_age: LEAST_AGE,
        })
    }

    /// Takes these trust anchors in place of the root's keys.
    #[must_use]
    pub fn with_trust_anchors(self, anchors: TrustAnchors) -> Self {
        let servers = self.servers.load().afresh(&anchors, self.least_age);
        Self {
            servers: Arc::new(ArcSwap::from_pointee(servers)),
            anchors,
            least_age: self.least_age,
        }
    }

    /// Follows `/etc/resolv.conf` until `stop`: asks the resolvers that it names by now.
    pub async fn follow(self, stop: CancellationToken) {
        self.follow_file(Path::new(RESOLV_CONF), stop).await;
    }

    async fn follow_file(self, path: &Path, stop: CancellationToken) {
        let mut file = Watched::new(path);
        let mut is_first = true;
        loop {
            self.look_at(&mut file, is_first);
            is_first = false;
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Takes what the file says by now; where it says nothing of use, what was taken before stays.
    fn look_at(&self, file: &mut Watched, is_first: bool) {
        let conf = match file.changed() {
            Ok(Some(conf)) => conf,
            Ok(None) => return,
            Err(error) => {
                if is_first {
                    tracing::warn!(%error, "{RESOLV_CONF} cannot be read; it is waited for");
                }
                return;
            }
        };
        if !conf.unusable.is_empty() {
            tracing::warn!(servers = ?conf.unusable, "name servers that cannot be asked: write IP addresses without an interface");
        }
        let addresses = conf.servers.iter();
        let addresses = addresses.map(|ip| SocketAddr::new(*ip, DNS_PORT));
        let upstreams = Upstreams {
            addresses: addresses.collect(),
            tcp_alone: conf.use_vc,
        };
        if upstreams.addresses.is_empty() {
            tracing::warn!(
                "{RESOLV_CONF} names no name server that can be asked; it is waited for"
            );
            return;
        }
        if self.servers.load().upstreams == upstreams {
            return;
        }
        let (hosts, least_age) = (ResolveHosts::Always, self.least_age);
        match Servers::asking(upstreams, hosts, &self.anchors, least_age) {
            Ok(servers) => {
                if !is_first {
                    let upstreams = &servers.upstreams.addresses;
                    tracing::info!(?upstreams, "other name servers are asked from now on");
                }
                self.servers.store(Arc::new(servers));
            }
            Err(error) => tracing::warn!(%error, "the name servers cannot be taken"),
        }
    }

    /// The resolvers that are asked by now; none where there is none yet.
    #[must_use]
    pub fn upstreams(&self) -> Vec<SocketAddr> {
        self.servers.load().upstreams.addresses.clone()
    }

    /// The servers of `domain` by `_xmpps-server._tcp` and `_xmpp-server._tcp`. Without any SRV
    /// record: the domain itself on port 5269 (RFC 6120 section 3.2.2). Where only `_xmpps-server`
    /// cannot be looked up, `_xmpp-server` alone counts.
    ///
    /// # Errors
    /// [`DnsError`]; [`DnsError::NotOffered`] where `_xmpp-server` says `.` and nothing else is;
    /// [`DnsError::Bogus`] where either does not validate, whatever the other says.
    pub async fn services(&self, domain: &DomainName) -> Result<Services, DnsError> {
        let by = |service: &str| format!("{service}._tcp.{domain}");
        let (direct, starttls) = (by("_xmpps-server"), by("_xmpp-server"));
        let (direct, starttls) = tokio::join!(self.srv(&direct, true), self.srv(&starttls, false));
        // A failure is no absence: nobody is told for good that nothing is offered while it may well be.
        let (direct, failure) = match direct {
            Err(bogus @ DnsError::Bogus { .. }) => return Err(bogus),
            Err(failure) => (SrvAnswer::Nothing, Some(failure)),
            Ok(answer) => (answer, None),
        };
        let dnssec = [&direct, starttls.as_ref().unwrap_or(&SrvAnswer::Nothing)]
            .iter()
            .filter_map(|answer| match answer {
                SrvAnswer::Records { dnssec, .. } => Some(*dnssec),
                SrvAnswer::Nothing | SrvAnswer::NotOffered => None,
            })
            .reduce(Dnssec::and)
            .unwrap_or(Dnssec::Unsigned);
        let mut records = direct.records();
        match starttls {
            Ok(SrvAnswer::NotOffered) if records.is_empty() => {
                return Err(failure.unwrap_or_else(|| DnsError::NotOffered {
                    domain: domain.clone(),
                }));
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

    async fn srv(&self, name: &str, direct_tls: bool) -> Result<SrvAnswer, DnsError> {
        let owner = absolute(name)?;
        let servers = self.servers.load_full();
        let (plain, assessed) = tokio::join!(
            self.lookup(name, RecordType::SRV),
            servers.validator.if_signed(&owner, RecordType::SRV)
        );
        let Validated {
            dnssec,
            records: secured,
        } = assessed?;
        // What was validated is what counts, not what another answer said.
        let answers = match plain {
            _ if dnssec.is_secure() => secured,
            Ok(records) if records.iter().all(|record| record.name == owner) => records.to_vec(),
            // It may have followed targets too, where these have SRV records of their own.
            Ok(records) => match servers.validator.aliased(&owner, RecordType::SRV).await {
                Ok(aliased) => aliased,
                Err(_) => records.to_vec(),
            },
            Err(fault @ (DnsError::NoResolver(_) | DnsError::Bogus { .. })) => return Err(fault),
            Err(fault) => servers.behind_alias(&owner, fault).await?,
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
        if !records.is_empty() {
            return Ok(SrvAnswer::Records { records, dnssec });
        }
        match unusable {
            _ if refused => Ok(SrvAnswer::NotOffered),
            Some(cause) => Err(DnsError::Unusable {
                name: name.to_owned(),
                cause,
            }),
            None => Ok(SrvAnswer::Nothing),
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
                Ok(records) => addresses.extend(records.iter().filter_map(address)),
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
        let servers = self.servers.load_full();
        let assessed = servers.validator.always(&name, RecordType::TLSA).await?;
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
            .collect();
        Ok(match TlsaSet::new(usable, target.clone()) {
            Some(set) => Dane::Counts(set),
            None => Dane::NoneUsable,
        })
    }

    /// One family that is secure suffices (RFC 7673 section 3.2).
    async fn addresses_secure(&self, host: &DomainName) -> Result<Dnssec, DnsError> {
        let name = absolute(host.as_str())?;
        let servers = self.servers.load_full();
        let validator = &servers.validator;
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

    async fn lookup(&self, name: &str, kind: RecordType) -> Result<Arc<[Record]>, DnsError> {
        let absolute = absolute(name)?;
        let servers = self.servers.load_full();
        if let Some(known) = servers.answers.get(&absolute, kind) {
            return known;
        }
        let Some(lookups) = &servers.lookups else {
            let text = format!("{RESOLV_CONF} names no name server yet");
            return Err(DnsError::NoResolver(text));
        };
        let found = lookups.lookup(absolute.clone(), kind).await;
        let holds = match &found {
            Ok(lookup) => {
                let until = lookup.valid_until();
                Holds::Records(until.saturating_duration_since(Instant::now()))
            }
            Err(NetError::Dns(WireError::NoRecordsFound(nothing))) => Holds::Nothing(
                Duration::from_secs(nothing.negative_ttl.unwrap_or(0).into()),
            ),
            // What failed may be well in a moment.
            Err(_) => Holds::Nothing(Duration::ZERO),
        };
        let found = found
            .map(|lookup| counted(lookup.answers().iter().cloned(), kind).into())
            .map_err(|cause| fault(name, kind, &cause));
        servers.answers.put(&absolute, kind, found.clone(), holds);
        found
    }
}

impl Servers {
    fn none(anchors: &TrustAnchors, least_age: Duration) -> Self {
        Self {
            lookups: None,
            answers: DnsCache::forgetting_after(least_age),
            upstreams: Upstreams::default(),
            validator: Validator::new(Upstreams::default(), anchors.clone(), least_age),
        }
    }

    /// The same resolvers, with nothing known.
    fn afresh(&self, anchors: &TrustAnchors, least_age: Duration) -> Self {
        let upstreams = self.upstreams.clone();
        Self {
            lookups: self.lookups.clone(),
            answers: DnsCache::forgetting_after(least_age),
            validator: Validator::new(upstreams.clone(), anchors.clone(), least_age),
            upstreams,
        }
    }

    /// What stands at the end of an alias. The library follows the target of an SRV record as if it were one more
    /// alias, so that this is nothing to it (RFC 1034 section 3.6.2: it is the answer), and what the target's own
    /// servers say to that question is its failure.
    async fn behind_alias(&self, owner: &Name, fault: DnsError) -> Result<Vec<Record>, DnsError> {
        match self.validator.aliased(owner, RecordType::SRV).await {
            Ok(records) if records.is_empty() && !fault.is_definite() => Err(fault),
            Err(_) if !fault.is_definite() => Err(fault),
            other => other,
        }
    }

    fn asking(
        upstreams: Upstreams,
        hosts: ResolveHosts,
        anchors: &TrustAnchors,
        least_age: Duration,
    ) -> Result<Self, DnsError> {
        Ok(Self {
            lookups: Some(Arc::new(Lookups::new(&upstreams, hosts)?)),
            answers: DnsCache::forgetting_after(least_age),
            validator: Validator::new(upstreams.clone(), anchors.clone(), least_age),
            upstreams,
        })
    }
}

enum SrvAnswer {
    Nothing,
    /// Target `.` alone.
    NotOffered,
    Records {
        records: Vec<Service>,
        dnssec: Dnssec,
    },
}

impl SrvAnswer {
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
