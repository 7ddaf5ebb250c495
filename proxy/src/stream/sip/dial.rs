//! A connection to the SIP server of a gateway, as its link asks for it: from the address to a server that has proved
//! itself.

use std::{
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::net::TcpStream;
use xmpp_edge_crds::{
    domain::DomainName,
    edge_config::{GatewayAddress, SipServers, SipTransport},
    verdict::Direction,
};

use super::{
    link_settings::LinkSettings,
    links::{DialReport, Dialled, LinkCommand, LinkHandle},
    silent_servers::{AskedServers, SPEAKS_WITHIN},
};
use crate::{
    config::ActiveConfig,
    dns::{self, Connected},
    negotiation::Side,
    routing::failure::{Failure, FailureKind},
    stream::{context::StreamContext, targets::kind_of_dns},
    telemetry::attempt::{AttemptStep, Step},
    tls::{self, Mode, Transport},
};

/// How long all of it may take.
const WHOLE: Duration = Duration::from_secs(15);
/// How long one server may take for TLS. The next begins beside it before that.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Dials once; the link is told what came of it. The turn of those in `last` comes after all others'.
pub(super) fn begin(
    context: &Arc<StreamContext>,
    config: &Arc<ActiveConfig>,
    settings: &Arc<LinkSettings>,
    link: &Arc<LinkHandle>,
    last: BTreeSet<SocketAddr>,
) {
    let (own, config) = (Arc::clone(context), Arc::clone(config));
    let (settings, link) = (Arc::clone(settings), Arc::clone(link));
    context.tasks.spawn(async move {
        let mut asked = AskedServers::default();
        let outcome = dial(&own, &config, &settings, &last, &mut asked).await;
        let silent = asked.into_silent(Instant::now());
        let report = DialReport { outcome, silent };
        link.task.tell(LinkCommand::Dialled(report));
    });
}

/// # Errors
/// Why there is no connection; the steps are noted.
async fn dial(
    context: &Arc<StreamContext>,
    config: &ActiveConfig,
    settings: &LinkSettings,
    last: &BTreeSet<SocketAddr>,
    asked: &mut AskedServers,
) -> Result<Dialled, Failure> {
    let known = settings
        .gateway
        .address
        .as_ref()
        .zip(settings.gateway.sip_servers());
    let Some((address, servers)) = known else {
        let text = "the gateway has no address";
        return Err(Failure::new(FailureKind::Unreachable, text));
    };
    let whose = settings.first_domain();
    context
        .attempts
        .begin(config.attempt_peer(Side::Gateway, whose), whose);
    let attempt = DialAttempt {
        context,
        config,
        settings,
        address,
        servers,
    };
    match tokio::time::timeout(WHOLE, attempt.over_targets(last, asked)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::new(
            FailureKind::TimedOut,
            format!("{address} gave no connection in {} s", WHOLE.as_secs()),
        )),
    }
}

struct DialAttempt<'a> {
    context: &'a Arc<StreamContext>,
    config: &'a ActiveConfig,
    settings: &'a LinkSettings,
    address: &'a GatewayAddress,
    servers: SipServers,
}

impl DialAttempt<'_> {
    /// The first server that proves itself. One that says nothing lets the next begin beside it.
    async fn over_targets(
        &self,
        last: &BTreeSet<SocketAddr>,
        asked: &mut AskedServers,
    ) -> Result<Dialled, Failure> {
        let source = dns::TargetSource::Sip(self.servers.clone());
        let dialer = &self.context.dialer;
        let whose = self.settings.first_domain();
        let found = dialer.candidates(whose, &source, None, Direction::Inbound);
        let mut candidates = match found.await {
            Ok(candidates) => candidates,
            Err((fault, step)) => {
                self.note(step);
                return Err(Failure::new(
                    kind_of_dns(&fault),
                    self.told(fault.to_string()),
                ));
            }
        };
        let text = self.told(format!("{} has no address", self.address));
        let mut cause = Failure::new(FailureKind::Unreachable, text);
        let mut proofs = FuturesUnordered::new();
        // Connected to, and silent before: the others come first.
        let mut late = VecDeque::new();
        let mut are_left = true;
        let mut beside = Instant::now();
        loop {
            let is_due = proofs.is_empty() || Instant::now() >= beside;
            let mut begun = None;
            if is_due && !are_left {
                begun = late.pop_front();
            }
            if begun.is_none() && !are_left && late.is_empty() && proofs.is_empty() {
                return Err(cause);
            }
            if begun.is_none() {
                tokio::select! {
                    biased;
                    Some((address, outcome)) = proofs.next(), if !proofs.is_empty() => {
                        asked.ended(address, Instant::now());
                        match outcome {
                            Ok(dialled) => return Ok(dialled),
                            Err(failure) => cause = failure,
                        }
                        // Who fails leaves the turn to the next at once.
                        beside = Instant::now();
                    }
                    // Nothing is lost where it is not the first: what it began goes on with the next call.
                    next = candidates.next(), if is_due && are_left => {
                        for step in candidates.take_steps() {
                            self.note(step);
                        }
                        match next {
                            None => are_left = false,
                            Some(Err(fault)) => cause = self.unreachable(&fault),
                            Some(Ok(connected)) => {
                                let address = connected.candidate.endpoint.address();
                                if address.is_some_and(|address| last.contains(&address)) {
                                    late.push_back(connected);
                                } else {
                                    begun = Some(connected);
                                }
                            }
                        }
                    }
                    () = tokio::time::sleep_until(beside.into()), if !is_due => {}
                }
            }
            if let Some(connected) = begun {
                let (address, now) = (connected.candidate.endpoint.address(), Instant::now());
                asked.begun(address, now);
                beside = now + SPEAKS_WITHIN;
                proofs.push(self.prove(connected).map(move |outcome| (address, outcome)));
            }
        }
    }

    /// TLS, and whose certificate it is.
    async fn prove(&self, connected: Connected) -> Result<Dialled, Failure> {
        let Connected { stream, candidate } = connected;
        let address = candidate.endpoint.address();
        let transport = match self.settings.sip.transport {
            SipTransport::Tcp => Transport::Plain(stream),
            SipTransport::Tls => {
                let began = Instant::now();
                let step = |step, outcome, text| AttemptStep {
                    step,
                    direction: Direction::Inbound,
                    domain: self.settings.first_domain().clone(),
                    outcome,
                    address,
                    text,
                    took: began.elapsed(),
                };
                let transport = self.encrypt(stream).await.map_err(|error| {
                    self.note(step(Step::Tls, error.label(), error.to_string()));
                    self.unreachable(&error)
                })?;
                self.judge(&transport).map_err(|fault| {
                    self.note(step(Step::Certificate, fault.label(), fault.to_string()));
                    self.unreachable(&fault)
                })?;
                transport
            }
        };
        Ok(Dialled {
            transport: Box::new(transport),
            address,
        })
    }

    async fn encrypt(&self, stream: TcpStream) -> Result<Transport, tls::HandshakeError> {
        let identity = self.config.sip_identity(&self.settings.gateway);
        let deadline = tokio::time::Instant::now() + HANDSHAKE;
        let asked = self.server_name();
        // SIP has no ALPN here (RFC 7301 has a name for SIP, which servers do not ask for).
        tls::connect(stream, identity.as_deref(), asked, Mode::StartTls, deadline).await
    }

    fn judge(&self, transport: &Transport) -> Result<(), tls::CertificateFault> {
        let first = self.settings.first_domain();
        match self.config.gateway(first) {
            Some(gateway) => gateway.judge_sip_server(transport.peer_chain()),
            // The configuration changed just now; the link ends.
            None => Err(tls::CertificateFault::NotPresented),
        }
    }

    /// What SNI asks for.
    fn server_name(&self) -> &DomainName {
        let named = self.address.name();
        named.unwrap_or_else(|| self.settings.first_domain())
    }

    fn unreachable(&self, fault: &dyn std::fmt::Display) -> Failure {
        Failure::new(FailureKind::Unreachable, self.told(fault.to_string()))
    }

    /// With the records that were asked for: nothing in the configuration names them.
    fn told(&self, text: String) -> String {
        match self.servers.service() {
            Some(service) if !text.contains(&service.to_string()) => {
                format!("{text} (SRV {service} was asked)")
            }
            _ => text,
        }
    }

    fn note(&self, mut step: AttemptStep) {
        if step.outcome != "Ok" {
            step.text = self.told(step.text);
        }
        let whose = self.config.attempt_peer(Side::Gateway, &step.domain);
        self.context.attempts.note(whose, step);
    }
}
