//! Walks to a domain step by step and says what would be used, and why nothing better.
//!
//! It dials every target as the edge would, looks at certificate and features, and hangs up: it
//! never authenticates and sends no stanza.

mod conversation;
mod report;
mod verdict;

pub use report::{
    CertificateReport, FeaturesReport, Report, ServiceReport, TargetReport, TlsReport,
};

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};
use xmpp_edge_crds::{domain::DomainName, verdict::Direction};

use crate::{
    dns::{Candidate, Connected, Dialer, SocksProxy, TargetSource},
    tls::{self, Identity, Mode, Role, Transport, Trust, not_after, spki_sha256},
};
use conversation::{Conversation, ConversationError};
use verdict::{External, Observed};

/// One target is given this long, TCP aside.
const TARGET_TIMEOUT: Duration = Duration::from_secs(15);

/// What to probe with.
#[derive(Debug)]
pub struct ProbeOptions {
    pub domain: DomainName,
    /// `from` of the streams; none is sent without.
    pub from: Option<DomainName>,
    /// By SRV, or as a partner's `proxyFqdn`.
    pub source: TargetSource,
    /// Presented to the peer; without it the peer cannot offer SASL EXTERNAL.
    pub identity: Option<Arc<Identity>>,
    pub trust: Trust,
    pub dialer: Dialer,
    /// The way to targets; none: they are dialled directly.
    pub egress: Option<Arc<SocksProxy>>,
}

/// Probes. Every failure is part of the report.
pub async fn probe(options: &ProbeOptions) -> Report {
    let mut report = Report::new(options);
    if let TargetSource::Discover { .. } = options.source
        && let Ok(services) = options.dialer.resolver().services(&options.domain).await
    {
        report.services = services.records.iter().map(ServiceReport::new).collect();
        report.fallback = services.fallback;
        report.secure = services.dnssec.is_secure();
        report.dnssec = (!services.fallback).then(|| services.dnssec.to_string());
    }
    let candidates = options
        .dialer
        .candidates(
            &options.domain,
            &options.source,
            options.egress.clone(),
            Direction::Outbound,
        )
        .await;
    let mut candidates = match candidates {
        Ok(candidates) => candidates,
        Err((fault, _)) => {
            report.error = Some(fault.to_string());
            report.conclude(&[]);
            return report;
        }
    };
    let mut seen = Vec::new();
    while let Some(result) = candidates.next().await {
        match result {
            Err(fault) => report.targets.push(TargetReport::unreached(&fault)),
            Ok(Connected { stream, candidate }) => {
                let mut target = TargetReport::reached(&candidate);
                seen.push(look(options, stream, &candidate, &mut target).await);
                report.targets.push(target);
            }
        }
    }
    report.conclude(&seen);
    report
}

/// Looks at one target; what is found goes into `target`.
async fn look(
    options: &ProbeOptions,
    socket: tokio::net::TcpStream,
    candidate: &Candidate,
    target: &mut TargetReport,
) -> Observed {
    let mut seen = Observed::default();
    let deadline = Instant::now() + TARGET_TIMEOUT;
    let walk = walk(options, socket, candidate, target, &mut seen, deadline);
    match timeout_at(deadline, walk).await {
        Ok(Ok(())) => {}
        Ok(Err(text)) => target.error = Some(text),
        Err(_) => target.error = Some("the peer did not answer in time".to_owned()),
    }
    seen.error.clone_from(&target.error);
    seen
}

async fn walk(
    options: &ProbeOptions,
    socket: tokio::net::TcpStream,
    candidate: &Candidate,
    target: &mut TargetReport,
    seen: &mut Observed,
    deadline: Instant,
) -> Result<(), String> {
    let text = |fault: ConversationError| fault.to_string();
    let (to, from) = (&options.domain, options.from.as_ref());
    let (socket, mode) = if candidate.direct_tls {
        (socket, Mode::Direct)
    } else {
        let mut plain = Conversation::new(Transport::Plain(socket));
        let features = plain.open(to, from).await.map_err(text)?;
        seen.dialback = features.dialback;
        let offered = features.starttls.is_some();
        target.features_before_tls = Some(features);
        if !offered {
            plain.close().await;
            return Ok(());
        }
        plain.starttls().await.map_err(text)?;
        let socket = plain.into_transport().into_plain();
        (
            socket.map_err(|_| "TLS runs already".to_owned())?,
            Mode::StartTls,
        )
    };
    let transport = tls::connect(socket, options.identity.as_deref(), to, mode, deadline)
        .await
        .map_err(|fault| {
            seen.tls_failed = true;
            fault.to_string()
        })?;
    let Some(facts) = transport.facts() else {
        return Err("TLS did not begin".to_owned());
    };
    seen.tls = true;
    seen.dialback = false;
    target.tls = Some(TlsReport {
        version: facts.version.into(),
        cipher: facts.cipher.into(),
    });
    let verdict = options
        .trust
        .judge(to, facts.peer_chain, Role::Server, candidate.tlsa.as_ref());
    seen.certificate = verdict.as_ref().map(|_| ()).map_err(ToString::to_string);
    target.certificate = Some(CertificateReport {
        valid: verdict.is_ok(),
        verified_by: verdict.as_ref().ok().map(|verified| verified.by.into()),
        fault: verdict.as_ref().err().map(|fault| fault.label().into()),
        text: verdict.as_ref().err().map(ToString::to_string),
        dns_names: facts
            .peer_chain
            .first()
            .map(tls::certificate::dns_names)
            .unwrap_or_default(),
        not_after: facts.peer_chain.first().and_then(|der| not_after(der).ok()),
        spki_sha256: facts
            .peer_chain
            .first()
            .and_then(|der| Some(spki_sha256(der).ok()?.to_string())),
    });
    let mut secured = Conversation::new(transport);
    let features = secured.open(to, from).await.map_err(text)?;
    seen.dialback = features.dialback;
    seen.external = match (
        features.mechanisms.iter().any(|m| m == "EXTERNAL"),
        &options.identity,
    ) {
        (true, _) => External::EnqueueOutcome,
        (false, Some(_)) => External::NotOffered,
        (false, None) => External::NotAsked,
    };
    target.features = Some(features);
    secured.close().await;
    Ok(())
}

#[cfg(test)]
mod tests;
