//! Sidecars that an edge refuses for their version, for whoever started the edge to tell people.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::{sync::watch, time::interval};
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::domain::DomainName;

use crate::{
    stream::context::StreamContext,
    telemetry::{attempt::Step, attempts::ShownStep},
};

/// A sidecar that is refused dials again every 10 s at least: one that did not for so long is gone.
const LATELY: SignedDuration = SignedDuration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// As [`crate::trunk::fault::TrunkFault::label`] has it.
const VERSION: &str = "Version";

/// A sidecar that is more than one minor version away from its edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutdatedSidecar {
    /// Name of its gateway.
    pub gateway: String,
    /// The address that it dials from, without the port, which is another each time.
    pub address: Option<String>,
    /// Both versions, in words.
    pub text: String,
}

/// The newest of each gateway.
#[must_use]
pub fn outdated(context: &StreamContext, now: Timestamp) -> Vec<OutdatedSidecar> {
    let config = context.config();
    let gateways = config.gateways().iter().map(|own| &own.config);
    let taking = gateways.filter(|own| own.takes_trunks());
    taking
        .filter_map(|gateway| {
            let domains = gateway.domains.iter();
            let refused = domains.filter_map(|domain| refused(context, domain, now));
            let newest = refused.max_by_key(|step| step.time)?;
            let address = newest.address.as_deref();
            let host = address.map(|it| it.rsplit_once(':').map_or(it, |(host, _)| host));
            Some(OutdatedSidecar {
                gateway: gateway.effective_name().to_owned(),
                address: host.map(str::to_owned),
                text: newest.text,
            })
        })
        .collect()
}

fn refused(context: &StreamContext, domain: &DomainName, now: Timestamp) -> Option<ShownStep> {
    let shown = context.attempts.gateway(domain);
    let (steps, connected) = (shown.last_attempt, shown.last_connected_time);
    // A trunk that stood later is that of a newer one in its place.
    let counts = |step: &ShownStep| {
        now.duration_since(step.time) <= LATELY && connected.is_none_or(|it| it <= step.time)
    };
    let refused = steps
        .into_iter()
        .filter(|step| step.step == Step::Trunk && step.outcome == VERSION && counts(step));
    refused.max_by_key(|step| step.time)
}

/// Tells of them whenever they are others, until `stop`.
pub async fn tell(
    context: Arc<StreamContext>,
    to: watch::Sender<Vec<OutdatedSidecar>>,
    stop: CancellationToken,
) {
    let mut tick = interval(PAUSE);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        let now = outdated(&context, Timestamp::now());
        to.send_if_modified(|told| {
            let is_new = *told != now;
            *told = now;
            is_new
        });
    }
}
