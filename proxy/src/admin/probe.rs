//! `POST /probe`: the walk to a partner, now, with what the edge itself has: resolver, certificate, trust,
//! way out. What is found is told; nothing of the edge changes.
//!
//! Only domains that the edge may dial anyway, or of a partner that is suspended: nobody learns by it what
//! stands elsewhere in this network. One at a time.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, time::timeout};
use xmpp_edge_crds::domain::DomainName;

use crate::{
    config::ActiveConfig,
    dns::TargetSource,
    probe::{self, ProbeOptions, Report},
    stream::context::StreamContext,
};

/// It takes no longer: 24 addresses of which each takes its time would.
const LONGEST: Duration = Duration::from_secs(60);

/// Why nothing was probed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeRefusal {
    #[error("give the domain of a partner: /probe?domain=DOMAIN")]
    NoDomain,
    #[error("{text:?} is no domain: {cause}")]
    Domain { text: String, cause: String },
    #[error("{0} is an own domain of this pool: give that of a partner")]
    Own(DomainName),
    #[error(
        "{0} is of no partner that this pool may talk to, and nothing else is probed from here: add the partner, or run xmpp-edge-proxy probe"
    )]
    NotPartner(DomainName),
    #[error("{0} is no own domain of this pool: leave `from` out, or give one of its domains")]
    NotOwn(DomainName),
    #[error("a sidecar dials edges alone: probe from an edge")]
    Sidecar,
    #[error("a probe is under way already: try again when it is over")]
    Busy,
    #[error("the probe was not over after {} s", LONGEST.as_secs())]
    Late,
}

/// Probes one after the other.
#[derive(Debug)]
pub struct Prober {
    places: Semaphore,
}

impl Default for Prober {
    fn default() -> Self {
        Self {
            places: Semaphore::new(1),
        }
    }
}

impl Prober {
    /// Walks to `domain`, as `from` or as the first own domain.
    ///
    /// # Errors
    /// [`ProbeRefusal`]. What fails on the way is part of the report.
    pub async fn probe(
        &self,
        context: &StreamContext,
        domain: Option<&str>,
        from: Option<&str>,
    ) -> Result<Report, ProbeRefusal> {
        let domain = parsed(domain.ok_or(ProbeRefusal::NoDomain)?)?;
        let from = from.map(parsed).transpose()?;
        let config = context.config();
        let options = options(context, &config, domain, from)?;
        let _place = self.places.try_acquire().map_err(|_| ProbeRefusal::Busy)?;
        tracing::info!(domain = %options.domain, "probe asked for");
        timeout(LONGEST, probe::probe(&options))
            .await
            .map_err(|_| ProbeRefusal::Late)
    }
}

fn parsed(text: &str) -> Result<DomainName, ProbeRefusal> {
    DomainName::parse(text).map_err(|cause| ProbeRefusal::Domain {
        text: text.to_owned(),
        cause: cause.to_string(),
    })
}

fn options(
    context: &StreamContext,
    config: &Arc<ActiveConfig>,
    domain: DomainName,
    from: Option<DomainName>,
) -> Result<ProbeOptions, ProbeRefusal> {
    if config.edge_dials.is_some() {
        return Err(ProbeRefusal::Sidecar);
    }
    if config.is_namespace_domain(&domain) {
        return Err(ProbeRefusal::Own(domain));
    }
    let Some(partner) = config.partner_index(&domain) else {
        return Err(ProbeRefusal::NotPartner(domain));
    };
    let from = match from {
        Some(from) if !config.is_own(&from) => return Err(ProbeRefusal::NotOwn(from)),
        Some(from) => Some(from),
        None => config.document.domains.first().cloned(),
    };
    let index = partner.as_usize();
    let except = config.document.settings.dial_except.as_slice();
    let discover = || TargetSource::Discover {
        except: except.into(),
    };
    let fixed = config.document.partners[index].proxy_fqdn.clone();
    Ok(ProbeOptions {
        source: fixed.map_or_else(discover, TargetSource::Fixed),
        identity: config.identity.clone(),
        trust: config.partner_trust[index].clone(),
        dialer: context.dialer.clone(),
        egress: config.egress.clone(),
        domain,
        from,
    })
}
