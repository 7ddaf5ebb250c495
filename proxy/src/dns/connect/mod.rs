//! From a domain to a connection, target by target: the caller takes the next one when the
//! negotiation on the last failed, until none is left.
//!
//! A target that is silent does not hold up the others: the next one starts beside it ([`TARGET_DELAY`]),
//! as RFC 8305 has it for the addresses of one.

mod guard;
mod target;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use ipnet::IpNet;
use tokio::net::TcpStream;
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{Host, HostPort, SipServers, SipService, SipTransport},
    verdict::Direction,
};

use super::{
    ConnectFault, DnsError, Endpoint, Resolver, Service, Services, SocksProxy, happy::Connect,
    persistent::ASK_AGAIN, socket, srv,
};
use crate::{
    telemetry::attempt::{AttemptStep, Step},
    tls::TlsaSet,
};
pub use guard::is_guarded;
use target::{FoundTarget, Search, Speech, Target, TargetOutcome};

/// Addresses beyond this many of one domain are not tried.
const MAX_ADDRESSES: usize = 24;
/// Targets beyond this many of one domain are not looked up: also one that leads to no address costs questions.
const MAX_LOOKED_UP: usize = 24;
/// Targets beyond this many are not looked at for an address that is connected already.
const MAX_LOOKED_AT: usize = 8;
/// One address is waited for this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A target that gives no connection for this long lets the next one start beside it: by then one lost
/// SYN has been sent again (RFC 6298 section 2). Longer than between the addresses of one target, for
/// the next may be of a lower priority (RFC 2782).
pub const TARGET_DELAY: Duration = Duration::from_millis(1_200);

/// Dials partners and gateways. Cheap to clone.
#[derive(Clone)]
pub struct Dialer {
    resolver: Resolver,
    forbidden: Forbidden,
    connect: Connect,
    connect_timeout: Duration,
    ask_again: Duration,
    target_delay: Duration,
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
    /// A gateway's SIP servers: where `address` says, or, without a port, by SRV, else A and AAAA on the transport's;
    /// any address.
    Sip(SipServers),
}

/// Where a connection leads.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// SRV target, host, or IP address as text.
    pub target: String,
    pub endpoint: Endpoint,
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
    search: Arc<Search>,
    /// Not under way, the next first.
    waiting: VecDeque<WaitingTarget>,
    /// Under way, by number; the futures are only polled while [`Self::next`] is.
    under_way: Vec<(usize, WaitingTarget)>,
    attempts: FuturesUnordered<BoxFuture<'static, (usize, TargetOutcome)>>,
    started: usize,
    /// When the next one starts beside those under way.
    next_start: tokio::time::Instant,
    /// Hosts whose addresses were looked up, with the ports there.
    tried: Vec<(DomainName, u16)>,
    /// The caller has a connection, and did not come back for another.
    is_in_use: bool,
    steps: Vec<AttemptStep>,
}

/// A target that waits for its turn.
#[derive(Clone, Debug)]
enum WaitingTarget {
    New(Target),
    /// Addresses of it are left, or come once more.
    Found(FoundTarget),
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
            ask_again: ASK_AGAIN,
            target_delay: TARGET_DELAY,
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

    /// Asks for another connection where one is silent for this long (default [`ASK_AGAIN`]).
    #[must_use]
    pub fn with_ask_again(mut self, pause: Duration) -> Self {
        self.ask_again = pause;
        self
    }

    /// Starts the next target beside one that is silent for this long (default [`TARGET_DELAY`]).
    #[must_use]
    pub fn with_target_delay(mut self, delay: Duration) -> Self {
        self.target_delay = delay;
        self
    }

    #[must_use]
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Finds the targets of `domain`; they are dialled by `egress` where there is one. `direction` is
    /// whose stanzas the stream will carry; it goes into the steps.
    ///
    /// # Errors
    /// [`DnsError`] and the step that tells it, when there is nothing to dial.
    pub async fn candidates(
        &self,
        domain: &DomainName,
        source: &TargetSource,
        egress: Option<Arc<SocksProxy>>,
        direction: Direction,
    ) -> Result<Candidates, (DnsError, AttemptStep)> {
        let began = Instant::now();
        let step = |outcome, text| AttemptStep {
            step: Step::Dns,
            direction,
            domain: domain.clone(),
            outcome,
            address: None,
            text,
            took: began.elapsed(),
        };
        let found = match source {
            TargetSource::Fixed(to) => {
                // A gateway is trusted by the internal authority, never by DNS.
                let dane = direction == Direction::Outbound;
                Ok((DialPlan::fixed(to, false), dane, Speech::Xmpp))
            }
            TargetSource::Discover { .. } => self.resolver.services(domain).await.map(|services| {
                let dane = services.dnssec.is_secure();
                let text = described(&services);
                (DialPlan::by_records(services, text), dane, Speech::Xmpp)
            }),
            TargetSource::Sip(servers) => self
                .way_to_sip(servers)
                .await
                .map(|way| (way, false, Speech::Sip(servers.clone()))),
        };
        let (DialPlan { targets, text }, dane, speech) = match found {
            Ok(found) => found,
            Err(fault) => {
                match source {
                    TargetSource::Sip(servers) => self.resolver.forget_sip(servers, &[]),
                    _ => self.resolver.forget(domain, &[]),
                }
                let step = step(fault.label(), fault.to_string());
                return Err((fault, step));
            }
        };
        let except = match source {
            TargetSource::Discover { except } => Some(Arc::clone(except)),
            _ => None,
        };
        let search = Search {
            dialer: self.clone(),
            domain: domain.clone(),
            speech,
            direction,
            dane,
            except,
            egress,
            dialled: AtomicUsize::new(0),
        };
        Ok(Candidates::new(search, targets, vec![step("Ok", text)]))
    }

    async fn way_to_sip(&self, servers: &SipServers) -> Result<DialPlan, DnsError> {
        match servers {
            SipServers::At(to, transport) => {
                Ok(DialPlan::fixed(to, *transport == SipTransport::Tls))
            }
            SipServers::Named(service) => {
                let found = self.resolver.sip_servers(service).await?;
                let text = described_sip(service, &found);
                Ok(DialPlan::by_records(found, text))
            }
        }
    }
}

/// What is tried, in this order, and the words for it.
struct DialPlan {
    targets: Vec<Target>,
    text: String,
}

impl DialPlan {
    fn fixed(to: &HostPort, direct_tls: bool) -> Self {
        let target = Target {
            host: to.host.clone(),
            port: to.port,
            direct_tls,
            priority: 0,
        };
        Self {
            targets: vec![target],
            text: format!("{to} as configured; SRV is not asked"),
        }
    }

    fn by_records(services: Services, text: String) -> Self {
        let ordered = srv::order(services.records, srv::random_below);
        Self {
            targets: ordered.into_iter().map(Target::from).collect(),
            text,
        }
    }
}

impl Candidates {
    fn new(search: Search, targets: Vec<Target>, steps: Vec<AttemptStep>) -> Self {
        Self {
            search: Arc::new(search),
            waiting: targets.into_iter().map(WaitingTarget::New).collect(),
            under_way: Vec::new(),
            attempts: FuturesUnordered::new(),
            started: 0,
            next_start: tokio::time::Instant::now(),
            tried: Vec::new(),
            is_in_use: false,
            steps,
        }
    }

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
        let endpoint = Endpoint::Address(address);
        for target in targets {
            let Ok(found) = self.search.resolve(target, &mut self.steps).await else {
                continue;
            };
            if found.queue.contains(&endpoint) {
                return Some(found.candidate(endpoint));
            }
        }
        None
    }

    fn best(&self) -> impl Iterator<Item = &Target> {
        let new = || {
            self.waiting.iter().filter_map(|waiting| match waiting {
                WaitingTarget::New(target) => Some(target),
                WaitingTarget::Found(_) => None,
            })
        };
        let best = new().map(|target| target.priority).min();
        new().filter(move |target| Some(target.priority) == best)
    }

    /// The next connection, or why a target gives none; `None` when all were tried. Call it again when
    /// the negotiation failed: further addresses of its target come first, then those that another
    /// target was faster than.
    pub async fn next(&mut self) -> Option<Result<Connected, ConnectFault>> {
        self.is_in_use = false;
        loop {
            if self.attempts.is_empty() || tokio::time::Instant::now() >= self.next_start {
                self.start();
            }
            let finished = if self.waiting.is_empty() {
                self.attempts.next().await
            } else {
                match tokio::time::timeout_at(self.next_start, self.attempts.next()).await {
                    Ok(finished) => finished,
                    Err(_) => {
                        self.note_silence();
                        continue;
                    }
                }
            };
            let Some((number, outcome)) = finished else {
                self.forget();
                return None;
            };
            self.under_way.retain(|(own, _)| *own != number);
            self.steps.extend(outcome.steps);
            // A failure starts the next one at once, silence after a while.
            self.next_start = tokio::time::Instant::now();
            match outcome.result {
                Ok((connected, rest)) => {
                    self.yield_to(rest);
                    self.is_in_use = true;
                    return Some(Ok(connected));
                }
                Err(fault) => return Some(Err(fault)),
            }
        }
    }

    /// A server that [`Self::next`] gave shall come once more, before others.
    pub fn again(&mut self, candidate: Candidate) {
        self.search.dialled.fetch_sub(1, Ordering::Relaxed);
        self.waiting
            .push_front(WaitingTarget::Found(candidate.into()));
    }

    /// The steps since the last call: resolving and connecting. The caller adds what follows.
    pub fn take_steps(&mut self) -> Vec<AttemptStep> {
        std::mem::take(&mut self.steps)
    }

    /// Starts the next target, where one waits.
    fn start(&mut self) {
        if self.search.has_dialled_enough() {
            self.leave_out("addresses", |_| true);
        } else if self.tried.len() >= MAX_LOOKED_UP {
            self.leave_out("targets", |it| matches!(it, WaitingTarget::New(_)));
        }
        let Some(waiting) = self.waiting.pop_front() else {
            return;
        };
        if let WaitingTarget::New(target) = &waiting
            && let Host::Name(name) = &target.host
            && !self
                .tried
                .iter()
                .any(|own| *own == (name.clone(), target.port))
        {
            self.tried.push((name.clone(), target.port));
        }
        self.started += 1;
        let number = self.started;
        let search = Arc::clone(&self.search);
        self.under_way.push((number, waiting.clone()));
        let attempt = async move {
            let outcome = match waiting {
                WaitingTarget::New(target) => search.reach(target).await,
                WaitingTarget::Found(found) => search.reach_found(found, Vec::new()).await,
            };
            (number, outcome)
        };
        self.attempts.push(attempt.boxed());
        self.next_start = tokio::time::Instant::now() + self.search.dialer.target_delay;
    }

    /// Takes those that are one too many from the ones that wait, and says so.
    fn leave_out(&mut self, what: &str, is_one: impl Fn(&WaitingTarget) -> bool) {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| !is_one(waiting));
        let left_out = before - self.waiting.len();
        if left_out > 0 {
            let text = format!(
                "{left_out} more targets are not tried: the domain has led to too many {what} already"
            );
            let (step, label) = (Step::Policy, "TooManyAddresses");
            let step = self.search.step(step, label, None, text, Duration::ZERO);
            self.steps.push(step);
        }
    }

    /// None of them was of use: what DNS said may be out of date.
    fn forget(&mut self) {
        let tried = std::mem::take(&mut self.tried);
        let resolver = &self.search.dialer.resolver;
        match &self.search.speech {
            Speech::Sip(servers) => resolver.forget_sip(servers, &tried),
            Speech::Xmpp => resolver.forget(&self.search.domain, &tried),
        }
    }

    /// One was the first to connect: the others' attempts end, and come after what it has left.
    fn yield_to(&mut self, rest: FoundTarget) {
        self.attempts = FuturesUnordered::new();
        for (_, waiting) in std::mem::take(&mut self.under_way).into_iter().rev() {
            self.waiting.push_front(waiting);
        }
        if !rest.queue.is_empty() {
            self.waiting.push_front(WaitingTarget::Found(rest));
        }
    }

    /// Says of the one that started last that it is silent; the next starts beside it.
    fn note_silence(&mut self) {
        let Some((_, waiting)) = self.under_way.last() else {
            return;
        };
        let name = match waiting {
            WaitingTarget::New(target) => target.host.to_string(),
            WaitingTarget::Found(found) => found.name.clone(),
        };
        let text = format!("{name} gave no connection yet: the next target starts beside it");
        let took = self.search.dialer.target_delay;
        let step = self.search.step(Step::Tcp, "TcpSilent", None, text, took);
        self.steps.push(step);
    }
}

/// Whose time is over before any of them was of use is as one who has none left.
impl Drop for Candidates {
    fn drop(&mut self) {
        if !self.is_in_use && !self.tried.is_empty() {
            self.forget();
        }
    }
}

fn described(services: &Services) -> String {
    if services.fallback {
        return "no SRV record: the domain itself on port 5269".to_owned();
    }
    listed(
        services,
        |record| {
            if record.direct_tls { "xmpps " } else { "xmpp " }
        },
    )
}

fn described_sip(service: &SipService, servers: &Services) -> String {
    if servers.fallback {
        let port = service.transport.default_port();
        return format!("no SRV record {service}: the host itself on port {port}");
    }
    format!("{service}: {}", listed(servers, |_| ""))
}

fn listed(services: &Services, kind: impl Fn(&Service) -> &'static str) -> String {
    let Services {
        records, dnssec, ..
    } = services;
    let shown = records.iter().take(8).map(|record| {
        let Service {
            priority,
            weight,
            port,
            target,
            ..
        } = record;
        let kind = kind(record);
        format!("{kind}{priority} {weight} {port} {target}")
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
