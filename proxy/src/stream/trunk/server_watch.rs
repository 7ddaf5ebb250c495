//! Tries the server beside a sidecar: as it starts, and while it is away or in doubt, until it answers. Where it is
//! one of several that are one (`Clustered`), what was taken for it goes back to the edges meanwhile, for another.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::{domain::DomainName, edge_config::SidecarServers};

use super::server::{is_away, is_now, reaches, told};
use crate::{
    negotiation::{Pair, Side},
    stream::{connect, context::StreamContext},
    trunk::nonza::ServerState,
};

/// Between two tries of a server that is away.
const PAUSE: Duration = Duration::from_secs(1);
/// Of one that refuses: somebody has to mend it.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// How long its answer may take.
const ANSWER: Duration = Duration::from_secs(2);
/// As whom the server is tried: nobody's domain, and no partner's that it may forbid.
const TRIES: &str = "probe.xmpp-edge.internal";

/// Tries the server at first, and whenever it is away or in doubt, until `stop`.
pub async fn watch(context: Arc<StreamContext>, stop: CancellationToken) {
    let mut custody = InboundCustody::Kept;
    loop {
        let tried = tokio::select! {
            tried = tried(&context) => tried,
            () = stop.cancelled() => return,
        };
        if let Some(state) = tried
            && is_now(&context, &state)
            && state == ServerState::Up
        {
            context.router.signed(|side, _| side == Side::Gateway);
        }
        custody.follow(&context);
        tokio::select! {
            () = until_due(&context) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Whether this sidecar keeps what it took for its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InboundCustody {
    Kept,
    /// Its server is away, and another one is as good. The trunks by which it was taken end in order, after which
    /// the edges have what was not acknowledged, and others are opened. Nothing goes out meanwhile: its server is away.
    GivenBack,
}

impl InboundCustody {
    fn follow(&mut self, context: &StreamContext) {
        let config = context.config();
        let dials = config.edge_dials.as_ref();
        let is_clustered = dials.is_some_and(|own| own.servers == SidecarServers::Clustered);
        let is_away = matches!(context.trunks.own_server(), ServerState::Down { .. });
        if !is_clustered || !is_away {
            *self = Self::Kept;
            return;
        }
        // What came before the edges knew, too.
        context.router.give_back_inbound();
        if *self == Self::Kept && context.trunks.owed_stanzas() > 0 {
            *self = Self::GivenBack;
            context.trunks.drain_all();
        }
    }
}

/// Until the server is to be tried.
async fn until_due(context: &StreamContext) {
    loop {
        let mut news = std::pin::pin!(context.trunks.news());
        news.as_mut().enable();
        match context.trunks.own_server() {
            ServerState::Up => tokio::select! {
                () = news => {}
                () = context.trunks.server_in_doubt() => return,
            },
            ServerState::Refuses { .. } => tokio::select! {
                () = news => {}
                () = tokio::time::sleep(REFUSED_PAUSE) => return,
            },
            ServerState::Down { .. } => return tokio::time::sleep(PAUSE).await,
        }
    }
}

/// How the server is, by a stream that nothing is sent on; none where that says nothing of streams that are
/// somebody's.
async fn tried(context: &Arc<StreamContext>) -> Option<ServerState> {
    let config = context.config();
    let own = config.document.domains.first()?;
    let pair = Pair {
        from: DomainName::parse(TRIES).ok()?,
        to: own.clone(),
    };
    let took = tokio::time::timeout(ANSWER, connect::establishes(context, pair)).await;
    let Ok(outcome) = took else {
        let text = format!("it does not answer within {} s", ANSWER.as_secs());
        return Some(ServerState::Down { text });
    };
    match outcome {
        Ok(()) => Some(ServerState::Up),
        Err(failure) if is_away(&failure) => Some(ServerState::Down {
            text: told(context, own, &failure),
        }),
        Err(_) if reaches(context) => None,
        Err(failure) => Some(ServerState::Refuses {
            text: told(context, own, &failure),
        }),
    }
}
