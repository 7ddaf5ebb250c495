//! One target of a domain: its addresses, and a connection to one of them.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::FutureExt;
use ipnet::IpNet;
use tokio::time::timeout;
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{Host, SipServers},
    verdict::Direction,
};

use super::{Candidate, Connected, Dialer, MAX_ADDRESSES, guard::is_inside_name};
use crate::{
    dns::{
        ConnectFault, DnsError, Endpoint, Service, SocksProxy,
        error::OpenFault,
        happy::{Opener, RaceOutcome, interleave, race},
        persistent::persistent,
    },
    telemetry::attempt::{AttemptStep, Step},
    tls::TlsaSet,
};

/// A host and port that a domain names.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) direct_tls: bool,
    /// Of its SRV record: the lowest is preferred.
    pub(super) priority: u16,
}

impl From<Service> for Target {
    fn from(service: Service) -> Self {
        Self {
            host: Host::Name(service.target),
            port: service.port,
            direct_tls: service.direct_tls,
            priority: service.priority,
        }
    }
}

/// A target whose addresses are known, with those that are not tried.
#[derive(Clone, Debug)]
pub(super) struct FoundTarget {
    pub(super) name: String,
    direct_tls: bool,
    tlsa: Option<TlsaSet>,
    dane: Option<String>,
    pub(super) queue: VecDeque<Endpoint>,
}

impl FoundTarget {
    pub(super) fn candidate(&self, endpoint: Endpoint) -> Candidate {
        Candidate {
            target: self.name.clone(),
            endpoint,
            direct_tls: self.direct_tls,
            tlsa: self.tlsa.clone(),
            dane: self.dane.clone(),
        }
    }
}

impl From<Candidate> for FoundTarget {
    fn from(candidate: Candidate) -> Self {
        Self {
            name: candidate.target,
            direct_tls: candidate.direct_tls,
            tlsa: candidate.tlsa,
            dane: candidate.dane,
            queue: [candidate.endpoint].into(),
        }
    }
}

/// What became of one target.
#[derive(Debug)]
pub(super) struct TargetOutcome {
    pub(super) steps: Vec<AttemptStep>,
    /// With what is left of the target.
    pub(super) result: Result<(Connected, FoundTarget), ConnectFault>,
}

/// What is spoken on a connection.
#[derive(Debug)]
pub(super) enum Speech {
    Xmpp,
    Sip(SipServers),
}

/// What all targets of a domain are dialled by.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) dialer: Dialer,
    pub(super) domain: DomainName,
    pub(super) speech: Speech,
    pub(super) direction: Direction,
    /// Whether the targets' names may be relied on, so that their TLSA records count.
    pub(super) dane: bool,
    /// Networks where nothing is dialled; none: any address may be.
    pub(super) except: Option<Arc<[IpNet]>>,
    pub(super) egress: Option<Arc<SocksProxy>>,
    pub(super) dialled: AtomicUsize,
}

impl Search {
    pub(super) fn has_dialled_enough(&self) -> bool {
        self.dialled.load(Ordering::Relaxed) >= MAX_ADDRESSES
    }

    /// Looks a target's addresses up and dials them.
    pub(super) async fn reach(self: Arc<Self>, target: Target) -> TargetOutcome {
        let mut steps = Vec::new();
        match self.resolve(target, &mut steps).await {
            Ok(found) => self.reach_found(found, steps).await,
            Err(fault) => TargetOutcome {
                steps,
                result: Err(fault),
            },
        }
    }

    /// Dials what is left of a target; its steps come after `steps`.
    pub(super) async fn reach_found(
        self: Arc<Self>,
        mut found: FoundTarget,
        mut steps: Vec<AttemptStep>,
    ) -> TargetOutcome {
        let result = self.race(&mut found, &mut steps).await;
        TargetOutcome {
            steps,
            result: result.map(|connected| (connected, found)),
        }
    }

    /// What there is to dial of a target.
    pub(super) async fn resolve(
        &self,
        target: Target,
        steps: &mut Vec<AttemptStep>,
    ) -> Result<FoundTarget, ConnectFault> {
        let began = Instant::now();
        let name = target.host.to_string();
        let looked_up = match &target.host {
            Host::Ip(ip) => Ok((interleave(vec![(*ip, target.port).into()]), None)),
            Host::Name(host) => {
                let dane = async {
                    if self.dane {
                        let resolver = &self.dialer.resolver;
                        resolver.dane(host, target.port).await.map(Some)
                    } else {
                        Ok(None)
                    }
                };
                match tokio::join!(self.endpoints(host, target.port), dane) {
                    (Err(fault), _) => Err(fault),
                    (Ok(queue), Ok(dane)) => Ok((queue, dane)),
                    (Ok(_), Err(cause)) => Err(ConnectFault::Dns {
                        target: name.clone(),
                        cause,
                    }),
                }
            }
        };
        match looked_up {
            Ok((queue, dane)) => {
                if let Some(dane) = &dane {
                    let text = format!("{name}: {dane}");
                    steps.push(self.step(Step::Dns, "Ok", None, text, began.elapsed()));
                }
                Ok(FoundTarget {
                    name,
                    direct_tls: target.direct_tls,
                    dane: dane.as_ref().map(ToString::to_string),
                    tlsa: dane.and_then(crate::dns::Dane::records),
                    queue,
                })
            }
            Err(fault) => {
                steps.push(self.failed(&fault, began));
                Err(fault)
            }
        }
    }

    /// The servers of a host, without those that are not dialled on the word of DNS.
    async fn endpoints(
        &self,
        host: &DomainName,
        port: u16,
    ) -> Result<VecDeque<Endpoint>, ConnectFault> {
        let name = || host.to_string();
        if self.egress.as_ref().is_some_and(|it| it.resolves_names()) {
            if self.except.is_some() && is_inside_name(host) {
                return Err(ConnectFault::ForbiddenName { target: name() });
            }
            return Ok([Endpoint::Name(host.clone(), port)].into());
        }
        let addresses = self.dialer.resolver.addresses(host).await;
        let addresses = addresses.map_err(|cause| ConnectFault::Dns {
            target: name(),
            cause,
        })?;
        let addresses = addresses.into_iter().map(|ip| SocketAddr::new(ip, port));
        let Some(except) = &self.except else {
            return Ok(interleave(addresses.collect()));
        };
        let (forbidden, allowed): (Vec<_>, Vec<_>) =
            addresses.partition(|address| (self.dialer.forbidden)(*address, except));
        match forbidden.last() {
            Some(address) if allowed.is_empty() => Err(ConnectFault::Forbidden {
                target: name(),
                address: *address,
            }),
            _ => Ok(interleave(allowed)),
        }
    }

    async fn race(
        self: &Arc<Self>,
        found: &mut FoundTarget,
        steps: &mut Vec<AttemptStep>,
    ) -> Result<Connected, ConnectFault> {
        let began = Instant::now();
        let RaceOutcome { won, failed } = race(&mut found.queue, &self.open()).await;
        let mut last = None;
        for (endpoint, cause) in failed {
            let fault = ConnectFault::from_open(&found.name, endpoint, cause);
            steps.push(self.failed(&fault, began));
            last = Some(fault);
        }
        if let Some((stream, endpoint)) = won {
            let candidate = found.candidate(endpoint);
            steps.push(self.connected(&candidate, began));
            return Ok(Connected { stream, candidate });
        }
        Err(last.unwrap_or_else(|| ConnectFault::Dns {
            target: found.name.clone(),
            cause: DnsError::NoRecords {
                name: found.name.clone(),
                kind: "A or AAAA",
            },
        }))
    }

    /// One connection, directly or by the egress proxy.
    fn open(self: &Arc<Self>) -> Opener {
        let search = Arc::clone(self);
        Arc::new(move |endpoint| {
            let search = Arc::clone(&search);
            async move {
                if search.dialled.fetch_add(1, Ordering::Relaxed) >= MAX_ADDRESSES {
                    return Err(OpenFault::TooMany);
                }
                let Dialer {
                    resolver,
                    connect,
                    connect_timeout,
                    ask_again,
                    ..
                } = &search.dialer;
                let connect = &persistent(connect, *ask_again);
                match (&search.egress, &endpoint) {
                    (Some(egress), _) => egress
                        .connect(resolver, connect, &endpoint, *connect_timeout)
                        .await
                        .map_err(|cause| OpenFault::Egress(egress.address().clone(), cause)),
                    (None, Endpoint::Address(address)) => {
                        match timeout(*connect_timeout, connect(*address)).await {
                            Ok(opened) => Ok(opened?),
                            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
                        }
                    }
                    (None, Endpoint::Name(..)) => {
                        Err(io::Error::from(io::ErrorKind::Unsupported).into())
                    }
                }
            }
            .boxed()
        })
    }

    fn connected(&self, candidate: &Candidate, began: Instant) -> AttemptStep {
        let how = match (&self.speech, candidate.direct_tls) {
            (Speech::Xmpp, true) => "direct TLS",
            (Speech::Xmpp, false) => "STARTTLS",
            (Speech::Sip(_), true) => "SIP by TLS",
            (Speech::Sip(_), false) => "SIP without TLS",
        };
        let Candidate {
            target, endpoint, ..
        } = candidate;
        let (step, text) = match &self.egress {
            None => (
                Step::Tcp,
                format!("connected to {endpoint} of {target}, for {how}"),
            ),
            Some(egress) => (
                Step::EgressProxy,
                format!(
                    "connected by {} to {endpoint} of {target}, for {how}",
                    egress.address()
                ),
            ),
        };
        self.step(step, "Ok", endpoint.address(), text, began.elapsed())
    }

    fn failed(&self, fault: &ConnectFault, began: Instant) -> AttemptStep {
        self.step(
            fault.step(),
            fault.label(),
            fault.address(),
            fault.to_string(),
            began.elapsed(),
        )
    }

    pub(super) fn step(
        &self,
        step: Step,
        outcome: &'static str,
        address: Option<SocketAddr>,
        text: String,
        took: Duration,
    ) -> AttemptStep {
        AttemptStep {
            step,
            direction: self.direction,
            domain: self.domain.clone(),
            outcome,
            address,
            text,
            took,
        }
    }
}
