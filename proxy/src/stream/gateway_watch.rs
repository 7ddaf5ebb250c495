//! Tries servers inside that the edge dials and could not reach, while nothing is on its way to them: what is
//! told of them is so, and a server that is back is used at once.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::{
    domain::{DomainName, DomainPattern},
    edge_config::GatewayMode,
};

use super::{connect, context::StreamContext};
use crate::negotiation::{Pair, Side};

/// Between two tries of a server.
const PAUSE: Duration = Duration::from_secs(60);
/// Tries at a time: a gateway may have thousands of domains, and its server is just starting.
const AT_A_TIME: usize = 8;

/// Tries what cannot be reached, until `stop`.
pub async fn watch(context: Arc<StreamContext>, stop: CancellationToken) {
    let tries = async {
        loop {
            tokio::time::sleep(PAUSE).await;
            try_unreachable(&context).await;
        }
    };
    tokio::select! {
        () = tries => {}
        () = stop.cancelled() => {}
    }
}

/// Opens a stream to each server inside that could not be reached, as a partner's domain, and ends it at once.
pub async fn try_unreachable(context: &Arc<StreamContext>) {
    let config = context.config();
    let mut partners = config.document.partners.iter().filter(|own| !own.suspended);
    let partner = partners.find_map(|own| {
        own.domains.iter().find_map(|domain| match domain {
            DomainPattern::Exact(domain) => Some(domain.clone()),
            DomainPattern::Below(_) => None,
        })
    });
    let Some(partner) = partner else { return };
    let dialled = config.gateways().iter().map(|own| &own.config);
    let unreachable = dialled
        // A sidecar asks its server itself.
        .filter(|own| own.mode == GatewayMode::Direct && config.edge_dials.is_none())
        .flat_map(|own| own.domains.iter())
        .filter(|domain| context.attempts.gateway_reachable(domain) == Some(false));
    let unreachable: Vec<DomainName> = unreachable.cloned().collect();
    let tries = unreachable.into_iter().map(|own| {
        let (context, from) = (Arc::clone(context), partner.clone());
        try_one(context, Pair { from, to: own })
    });
    stream::iter(tries)
        .buffer_unordered(AT_A_TIME)
        .collect::<()>()
        .await;
}

/// What comes of it stands with the attempts.
async fn try_one(context: Arc<StreamContext>, pair: Pair) {
    let own = pair.to.clone();
    if connect::establishes(&context, pair).await.is_ok() {
        let is_it = |side: Side, pair: &Pair| side == Side::Gateway && pair.to == own;
        context.router.signed(is_it);
    }
}
