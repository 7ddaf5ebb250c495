//! From a domain to a connection, target by target: the caller takes the next one when the
//! negotiation on the last failed, until none is left.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use ipnet::IpNet;
use tokio::net::TcpStream;
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{Host, HostPort},
    verdict::Direction,
};

use super::{
    ConnectFault, Dane, DnsError, Resolver, Service, Services,
    happy::{Connect, RaceOutcome, interleave, race},
    socket, srv,
};
use crate::{
    telemetry::attempt::{AttemptStep, Step},
    tls::TlsaSet,
};

/// Addresses beyond this many of one domain are not tried.
const MAX_ADDRESSES: usize = 24;
/// Targets beyond this many are not looked at for an address that is connected already.
const MAX_LOOKED_AT: usize = 8;
/// One address is waited for this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// While further targets wait, each is waited for this part of it (2 s), and for the whole once they had
/// their chance: a silent one does not use up the time of the others.
const PART_WHILE_OTHERS_WAIT: u32 = 5;

/// Dials partners and gateways. Cheap to clone.
#[derive(Clone)]
pub struct Dialer {
    resolver: Resolver,
    forbidden: Forbidden,
    connect: Connect,
    connect_timeout: Duration,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer")
            .field("resolver", &self.resolver)
            .finish_non_exhaustive()
    }
}

/// Whether an address of a partner is not dialled; the networks are those of the [`TargetSource`].
pub type Forbidden = Arc<dyn Fn(SocketAddr, &[IpNet]) -> bool + Send + Sync>;

/// Which way to a domain.
#[derive(Clone, Debug)]
pub enum TargetSource {
    /// By SRV, else A and AAAA on 5269. What is forbidden, or within these networks, is not dialled.
    Discover { except: Arc<[IpNet]> },
    /// `proxyFqdn`, or a gateway's `address`: no SRV, any address. Speaks STARTTLS.
    Fixed(HostPort),
}

/// Where a connection leads.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// SRV target, host, or IP address as text.
    pub target: String,
    pub address: SocketAddr,
    /// TLS from the first byte; else STARTTLS.
    pub direct_tls: bool,
    /// Secure TLSA records of the target, for [`crate::tls::Trust::judge`].
    pub tlsa: Option<TlsaSet>,
    /// Whether DANE is used, and why not; none where the target's name came from no secure answer.
    pub dane: Option<String>,
}

/// An open connection; options are set, nothing was written.
#[derive(Debug)]
pub struct Connected {
    pub stream: TcpStream,
    pub candidate: Candidate,
}

/// What is left to try of a domain.
#[derive(Debug)]
pub struct Candidates {
    dialer: Dialer,
    domain: DomainName,
    direction: Direction,
    targets: VecDeque<Target>,
    current: Option<Current>,
    /// Whether the targets' names may be relied on, so that their TLSA records count.
    dane: bool,
    /// Networks where nothing is dialled; none: any address may be.
    except: Option<Arc<[IpNet]>>,
    addresses_left: usize,
    /// Hosts whose addresses were looked up.
    tried: Vec<DomainName>,
    steps: Vec<AttemptStep>,
}

#[derive(Debug, Clone)]
struct Target {
    host: Host,
    port: u16,
    direct_tls: bool,
    /// Of its SRV record: the lowest is preferred.
    priority: u16,
    /// It was silent while others waited, and has its whole time now.
    is_deferred: bool,
}

/// A target whose addresses are known and not all tried.
#[derive(Debug)]
struct Current {
    target: Target,
    name: String,
    dane: Option<Dane>,
    queue: VecDeque<SocketAddr>,
}

impl Current {
    fn candidate(&self, address: SocketAddr) -> Candidate {
        Candidate {
            target: self.name.clone(),
            address,
            direct_tls: self.target.direct_tls,
            tlsa: self.dane.clone().and_then(Dane::records),
            dane: self.dane.as_ref().map(ToString::to_string),
        }
    }
}

impl Dialer {
    /// `forbidden` says which addresses of partners are not dialled: see [`is_guarded`].
    #[must_use]
    pub fn new(resolver: Resolver, forbidden: Forbidden) -> Self {
        let connect: Connect = Arc::new(|address| socket::open(address).boxed());
        Self {
            resolver,
            forbidden,
            connect,
            connect_timeout: CONNECT_TIMEOUT,
        }
    }

    /// Takes another way to open connections.
    #[must_use]
    pub fn with_connect(mut self, connect: Connect) -> Self {
        self.connect = connect;
        self
    }

    /// Waits for one address this long (default 10 s).
    #[must_use]
    pub fn with_connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    #[must_use]
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Finds the targets of `domain`. `direction` is whose stanzas the stream will carry; it goes
    /// into the steps.
    ///
    /// # Errors
    /// [`DnsError`] and the step that tells it, when there is nothing to dial.
    pub async fn candidates(
        &self,
        domain: &DomainName,
        route: &TargetSource,
        direction: Direction,
    ) -> Result<Candidates, (DnsError, AttemptStep)> {
        let began = Instant::now();
        let step = |outcome, text, took| AttemptStep {
            step: Step::Dns,
            direction,
            domain: domain.clone(),
            outcome,
            address: None,
            text,
            took,
        };
        let (targets, dane, except, text) = match route {
            TargetSource::Fixed(to) => {
                let target = Target {
                    host: to.host.clone(),
                    port: to.port,
                    direct_tls: false,
                    priority: 0,
                    is_deferred: false,
                };
                let text = format!("{to} as configured; SRV is not asked");
                // A gateway is trusted by the internal authority, never by DNS.
                let dane = direction == Direction::Outbound;
                (VecDeque::from([target]), dane, None, text)
            }
            TargetSource::Discover { except } => match self.resolver.services(domain).await {
                Ok(services) => {
                    let text = described(&services);
                    let ordered = srv::order(services.records, srv::random_below);
                    let targets = ordered
                        .into_iter()
                        .map(|service| Target {
                            host: Host::Name(service.target),
                            port: service.port,
                            direct_tls: service.direct_tls,
                            priority: service.priority,
                            is_deferred: false,
                        })
                        .collect();
                    (
                        targets,
                        services.dnssec.is_secure(),
                        Some(Arc::clone(except)),
                        text,
                    )
                }
                Err(fault) => {
                    let step = step(fault.label(), fault.to_string(), began.elapsed());
                    return Err((fault, step));
                }
            },
        };
        Ok(Candidates {
            dialer: self.clone(),
            domain: domain.clone(),
            direction,
            targets,
            current: None,
            dane,
            except,
            addresses_left: MAX_ADDRESSES,
            tried: Vec::new(),
            steps: vec![step("Ok", text, began.elapsed())],
        })
    }
}

impl Candidates {
    /// The targets of the best priority, in a fixed order: domains that agree in them are served by
    /// the same server. Only before the first [`Self::next`].
    #[must_use]
    pub fn preferred(&self) -> Vec<(String, u16)> {
        let mut preferred: Vec<_> = self
            .best()
            .map(|target| (target.host.to_string(), target.port))
            .collect();
        preferred.sort();
        preferred.dedup();
        preferred
    }

    /// Whether a target of the best priority is at `address`; nothing is dialled. Only before the
    /// first [`Self::next`].
    pub async fn at(&mut self, address: SocketAddr) -> Option<Candidate> {
        let same_port = self.best().filter(|target| target.port == address.port());
        let targets: Vec<_> = same_port.take(MAX_LOOKED_AT).cloned().collect();
        for target in targets {
            let Ok(found) = self.resolve(target).await else {
                continue;
            };
            if found.queue.contains(&address) {
                return Some(found.candidate(address));
            }
        }
        None
    }

    fn best(&self) -> impl Iterator<Item = &Target> {
        let best = self.targets.iter().map(|target| target.priority).min();
        self.targets
            .iter()
            .filter(move |target| Some(target.priority) == best)
    }

    /// The next connection, or why the next target gives none; `None` when all were tried. Call it
    /// again when the negotiation failed: further addresses of a target come before the next one.
    pub async fn next(&mut self) -> Option<Result<Connected, ConnectFault>> {
        loop {
            if let Some(mut current) = self.current.take()
                && !current.queue.is_empty()
                && self.addresses_left > 0
            {
                let before = current.queue.len();
                let result = self.race(&mut current).await;
                let tried = before.saturating_sub(current.queue.len()).max(1);
                self.addresses_left = self.addresses_left.saturating_sub(tried);
                self.current = Some(current);
                return Some(result);
            }
            if self.addresses_left == 0 {
                self.dialer.resolver.forget(&self.domain, &self.tried);
                return None;
            }
            let Some(target) = self.targets.pop_front() else {
                // None of them was of use: what DNS said may be out of date.
                self.dialer.resolver.forget(&self.domain, &self.tried);
                return None;
            };
            if let Host::Name(name) = &target.host {
                self.tried.push(name.clone());
            }
            match self.resolve(target).await {
                Ok(current) => self.current = Some(current),
                Err(fault) => return Some(Err(fault)),
            }
        }
    }

    /// The address that [`Self::next`] gave last shall come once more, before others.
    pub fn again(&mut self, address: SocketAddr) {
        if let Some(current) = &mut self.current {
            current.queue.push_front(address);
            self.addresses_left += 1;
        }
    }

    /// The steps since the last call: resolving and connecting. The caller adds what follows.
    pub fn take_steps(&mut self) -> Vec<AttemptStep> {
        std::mem::take(&mut self.steps)
    }

    async fn resolve(&mut self, target: Target) -> Result<Current, ConnectFault> {
        let began = Instant::now();
        let name = target.host.to_string();
        let fault = |cause| ConnectFault::Dns {
            target: name.clone(),
            cause,
        };
        let (addresses, dane) = match &target.host {
            Host::Ip(ip) => (vec![*ip], None),
            Host::Name(host) => {
                let resolver = &self.dialer.resolver;
                let dane = async {
                    if self.dane {
                        resolver.dane(host, target.port).await.map(Some)
                    } else {
                        Ok(None)
                    }
                };
                let (addresses, dane) = tokio::join!(resolver.addresses(host), dane);
                let found = addresses.and_then(|addresses| Ok((addresses, dane?)));
                match found {
                    Ok(found) => found,
                    Err(cause) => {
                        self.step(Step::Dns, cause.label(), None, cause.to_string(), began);
                        return Err(fault(cause));
                    }
                }
            }
        };
        let mut allowed = Vec::new();
        let mut refused = None;
        for ip in addresses {
            let address = SocketAddr::new(ip, target.port);
            if let Some(except) = &self.except
                && (self.dialer.forbidden)(address, except)
            {
                refused = Some(address);
            } else {
                allowed.push(address);
            }
        }
        if let (true, Some(address)) = (allowed.is_empty(), refused) {
            let fault = ConnectFault::Forbidden {
                target: name,
                address,
            };
            self.step(
                Step::Policy,
                fault.label(),
                Some(address),
                fault.to_string(),
                began,
            );
            return Err(fault);
        }
        let queue = interleave(allowed);
        if let Some(dane) = &dane {
            self.step(Step::Dns, "Ok", None, format!("{name}: {dane}"), began);
        }
        Ok(Current {
            target,
            name,
            dane,
            queue,
        })
    }

    async fn race(&mut self, current: &mut Current) -> Result<Connected, ConnectFault> {
        let began = Instant::now();
        let whole = self.dialer.connect_timeout;
        let has_whole = current.target.is_deferred || self.targets.is_empty();
        let limit = if has_whole {
            whole
        } else {
            whole / PART_WHILE_OTHERS_WAIT
        };
        let RaceOutcome { won, failed } =
            race(&mut current.queue, &self.dialer.connect, limit).await;
        let was_silent = |(_, cause): &(_, io::Error)| cause.kind() == io::ErrorKind::TimedOut;
        if won.is_none() && !has_whole && failed.iter().any(was_silent) {
            self.targets.push_back(Target {
                is_deferred: true,
                ..current.target.clone()
            });
        }
        let mut last = None;
        for (address, cause) in failed {
            let fault = ConnectFault::from_io(&current.name, address, cause);
            self.step(
                Step::Tcp,
                fault.label(),
                Some(address),
                fault.to_string(),
                began,
            );
            last = Some(fault);
        }
        if let Some((stream, address)) = won {
            let how = if current.target.direct_tls {
                "direct TLS"
            } else {
                "STARTTLS"
            };
            let text = format!("connected to {address} of {}, for {how}", current.name);
            self.step(Step::Tcp, "Ok", Some(address), text, began);
            let candidate = current.candidate(address);
            return Ok(Connected { stream, candidate });
        }
        Err(last.unwrap_or_else(|| ConnectFault::Dns {
            target: current.name.clone(),
            cause: DnsError::NoRecords {
                name: current.name.clone(),
                kind: "A or AAAA",
            },
        }))
    }

    fn step(
        &mut self,
        step: Step,
        outcome: &'static str,
        address: Option<SocketAddr>,
        text: String,
        began: Instant,
    ) {
        self.steps.push(AttemptStep {
            step,
            direction: self.direction,
            domain: self.domain.clone(),
            outcome,
            address,
            text,
            took: began.elapsed(),
        });
    }
}

/// Whether an address that DNS gave for a partner is not dialled: it is within `except`, or is never
/// another host's (loopback, link-local, unspecified, broadcast, multicast). IPv4 that is written as
/// IPv6 is judged as what it leads to: mapped, compatible, NAT64 (RFC 6052 section 2.1), 6to4.
#[must_use]
pub fn is_guarded(ip: IpAddr, except: &[IpNet]) -> bool {
    let ip = ip.to_canonical();
    let inner = match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => embedded(ip).map(IpAddr::V4),
    };
    [Some(ip), inner]
        .into_iter()
        .flatten()
        .any(|ip| is_never_dialled(ip) || except.iter().any(|network| network.contains(&ip)))
}

/// The IPv4 address that packets to this one reach in the end.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = ip.octets();
    let at = |from: usize| {
        let [a, b, c, d] = [0, 1, 2, 3].map(|n| octets[from + n]);
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match ip.segments() {
        // The well-known prefix, one of the network's own (RFC 8215), IPv4-compatible.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] | [0, 0, 0, 0, 0, 0, ..] => at(12),
        [0x2002, ..] => at(2),
        _ => None,
    }
}

fn is_never_dialled(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            // 0.0.0.0/8 is "this host" (RFC 1122 section 3.2.1.3): Linux dials itself.
            ip.is_loopback()
                || ip.is_link_local()
                || ip.octets()[0] == 0
                || ip.is_broadcast()
                || ip.is_multicast()
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unicast_link_local()
        }
    }
}

fn described(services: &Services) -> String {
    let Services {
        records,
        fallback,
        dnssec,
    } = services;
    if *fallback {
        return "no SRV record: the domain itself on port 5269".to_owned();
    }
    let shown = records.iter().take(8).map(|record| {
        let kind = if record.direct_tls { "xmpps" } else { "xmpp" };
        let Service {
            priority,
            weight,
            port,
            target,
            ..
        } = record;
        format!("{kind} {priority} {weight} {port} {target}")
    });
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if records.len() > 8 {
        text.push_str(&format!(" and {} more", records.len() - 8));
    }
    text.push_str(&format!("; {dnssec}"));
    text
}

#[cfg(test)]
mod tests;
