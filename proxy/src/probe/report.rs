//! What a probe found, as JSON and as text.

use std::{borrow::Cow, fmt, net::SocketAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use xmpp_edge_crds::negotiation::Method;

use super::{ProbeOptions, verdict::Observed};
use crate::{
    dns::{Candidate, ConnectFault, Service},
    tls::VerifiedBy,
};

/// One of few.
type Word = Cow<'static, str>;

/// Everything that one probe found.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub domain: String,
    pub from: Option<String>,
    /// SRV records as found; empty where `proxyFqdn` was given.
    pub services: Vec<ServiceReport>,
    /// There is no SRV record: the domain itself is dialled on port 5269.
    pub fallback: bool,
    /// The SRV answers were secure (DNSSEC).
    pub secure: bool,
    /// How they were, in words; none without SRV records.
    pub dnssec: Option<String>,
    /// In the order in which they were dialled.
    pub targets: Vec<TargetReport>,
    /// What the edge would use at the first target that leaves a method; none: federation fails.
    pub method: Option<Method>,
    /// The method needs something of the peer that a probe cannot see.
    pub presumed: bool,
    /// Why nothing better, or why nothing at all.
    pub why: Vec<String>,
    /// Why there was nothing to dial.
    pub error: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceReport {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    pub target: String,
    pub direct_tls: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetReport {
    pub target: Option<String>,
    pub address: Option<SocketAddr>,
    pub direct_tls: bool,
    /// Usable TLSA records that count.
    pub tlsa_records: usize,
    /// Whether DANE is used, and why not; none where the SRV answers were not secure.
    pub dane: Option<String>,
    pub features_before_tls: Option<FeaturesReport>,
    pub tls: Option<TlsReport>,
    pub certificate: Option<CertificateReport>,
    /// Inside TLS.
    pub features: Option<FeaturesReport>,
    /// Where the walk broke off.
    pub error: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TlsReport {
    pub version: Word,
    pub cipher: Word,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateReport {
    pub valid: bool,
    pub verified_by: Option<Word>,
    pub fault: Option<Word>,
    pub text: Option<String>,
    pub dns_names: Vec<String>,
    pub not_after: Option<Timestamp>,
    pub spki_sha256: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FeaturesReport {
    pub starttls: Option<StartTlsOffer>,
    pub mechanisms: Vec<String>,
    pub dialback: bool,
    pub dialback_errors: bool,
    pub bidi: bool,
    /// Namespace of XEP-0198.
    pub acks: Option<Word>,
    /// XEP-0478.
    pub max_bytes: Option<u64>,
    pub idle_seconds: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartTlsOffer {
    Required,
    Optional,
}

impl From<VerifiedBy> for Word {
    fn from(by: VerifiedBy) -> Self {
        Cow::Borrowed(match by {
            VerifiedBy::Pkix => "Pkix",
            VerifiedBy::PartnerCa => "PartnerCa",
            VerifiedBy::Pin => "Pin",
            VerifiedBy::Dane => "Dane",
        })
    }
}

impl Report {
    pub(super) fn new(options: &ProbeOptions) -> Self {
        Self {
            domain: options.domain.to_string(),
            from: options.from.as_ref().map(ToString::to_string),
            services: Vec::new(),
            fallback: false,
            secure: false,
            dnssec: None,
            targets: Vec::new(),
            method: None,
            presumed: false,
            why: Vec::new(),
            error: None,
        }
    }

    /// Draws the conclusion: the first target with a method counts, as for the edge.
    pub(super) fn conclude(&mut self, seen: &[Observed]) {
        let verdicts: Vec<_> = seen.iter().map(Observed::verdict).collect();
        match verdicts.iter().find(|verdict| verdict.method.is_some()) {
            Some(verdict) => {
                self.method = verdict.method;
                self.presumed = !verdict.certain;
                self.why.clone_from(&verdict.why);
            }
            None => {
                self.why = self.error.iter().cloned().collect();
                for why in verdicts.into_iter().flat_map(|verdict| verdict.why) {
                    if !self.why.contains(&why) {
                        self.why.push(why);
                    }
                }
                let unreached = self.targets.iter().filter(|target| target.target.is_none());
                self.why
                    .extend(unreached.filter_map(|target| target.error.clone()));
                if self.why.is_empty() {
                    self.why.push("no target could be reached".to_owned());
                }
            }
        }
    }

    /// Whether federation can work: exit code 0.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.method.is_some()
    }
}

impl ServiceReport {
    pub(super) fn new(service: &Service) -> Self {
        Self {
            priority: service.priority,
            weight: service.weight,
            port: service.port,
            target: service.target.to_string(),
            direct_tls: service.direct_tls,
        }
    }
}

impl TargetReport {
    pub(super) fn unreached(fault: &ConnectFault) -> Self {
        Self {
            target: None,
            address: fault.address(),
            direct_tls: false,
            tlsa_records: 0,
            dane: None,
            features_before_tls: None,
            tls: None,
            certificate: None,
            features: None,
            error: Some(fault.to_string()),
        }
    }

    pub(super) fn reached(candidate: &Candidate) -> Self {
        Self {
            target: Some(candidate.target.clone()),
            address: candidate.endpoint.address(),
            direct_tls: candidate.direct_tls,
            tlsa_records: candidate
                .tlsa
                .as_ref()
                .map_or(0, |tlsa| tlsa.records().len()),
            dane: candidate.dane.clone(),
            features_before_tls: None,
            tls: None,
            certificate: None,
            features: None,
            error: None,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.domain)?;
        if self.fallback {
            writeln!(
                f,
                "  dns          no SRV record: the domain itself on port 5269"
            )?;
        } else {
            for service in &self.services {
                let kind = if service.direct_tls {
                    "_xmpps-server"
                } else {
                    "_xmpp-server"
                };
                let ServiceReport {
                    priority,
                    weight,
                    port,
                    target,
                    ..
                } = service;
                writeln!(
                    f,
                    "  dns          {kind} {priority} {weight} {port} {target}"
                )?;
            }
        }
        if let Some(dnssec) = &self.dnssec {
            writeln!(f, "               {dnssec}")?;
        }
        for target in &self.targets {
            target.fmt(f)?;
        }
        match self.method {
            Some(method) => {
                let presumed = if self.presumed { " (presumed)" } else { "" };
                writeln!(f, "  method       {method}{presumed}")?;
            }
            None => writeln!(f, "  method       none: federation fails")?,
        }
        self.why
            .iter()
            .try_for_each(|why| writeln!(f, "               {why}"))
    }
}

impl fmt::Display for TargetReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(target), Some(address)) = (&self.target, self.address) {
            let how = if self.direct_tls {
                "direct TLS"
            } else {
                "STARTTLS"
            };
            writeln!(f, "  tcp          {address} of {target}, for {how}")?;
        }
        if let Some(dane) = &self.dane {
            writeln!(f, "               {dane}")?;
        }
        if let Some(features) = &self.features_before_tls {
            writeln!(f, "  before TLS   {features}")?;
        }
        if let Some(tls) = &self.tls {
            writeln!(f, "  tls          {} {}", tls.version, tls.cipher)?;
        }
        if let Some(certificate) = &self.certificate {
            let verdict = certificate.text.clone().unwrap_or_else(|| {
                format!(
                    "valid by {}",
                    certificate.verified_by.as_deref().unwrap_or("Pkix")
                )
            });
            writeln!(f, "  certificate  {verdict}")?;
            writeln!(
                f,
                "               names {}",
                certificate.dns_names.join(" ")
            )?;
            if let Some(not_after) = certificate.not_after {
                writeln!(f, "               until {not_after}")?;
            }
        }
        if let Some(features) = &self.features {
            writeln!(f, "  inside TLS   {features}")?;
        }
        if let Some(error) = &self.error {
            writeln!(f, "  failed       {error}")?;
        }
        Ok(())
    }
}

impl fmt::Display for FeaturesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        match self.starttls {
            Some(StartTlsOffer::Required) => parts.push("STARTTLS required".to_owned()),
            Some(StartTlsOffer::Optional) => parts.push("STARTTLS".to_owned()),
            None => {}
        }
        if !self.mechanisms.is_empty() {
            parts.push(format!("SASL {}", self.mechanisms.join(" ")));
        }
        if self.dialback {
            let errors = if self.dialback_errors {
                " with errors"
            } else {
                ""
            };
            parts.push(format!("dialback{errors}"));
        }
        if self.bidi {
            parts.push("bidi".to_owned());
        }
        if let Some(acks) = &self.acks {
            parts.push(format!("acks ({acks})"));
        }
        if let Some(bytes) = self.max_bytes {
            parts.push(format!("stanzas up to {bytes} bytes"));
        }
        if let Some(seconds) = self.idle_seconds {
            parts.push(format!("idle up to {seconds} s"));
        }
        if parts.is_empty() {
            parts.push("nothing offered".to_owned());
        }
        f.write_str(&parts.join(", "))
    }
}
