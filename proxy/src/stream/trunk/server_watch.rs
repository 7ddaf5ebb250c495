//! Tries the server beside a sidecar: as it starts, and while it is away or in doubt, until it answers. Where it is
//! one of several that are one (`Clustered`), what was taken for it goes back to the edges meanwhile, for another.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::{domain::DomainName, edge_config::SidecarServers};

use super::server::{answers, is_away, is_now, reaches, told};
use crate::{
    negotiation::{Pair, Side},
    routing::failure::{Failure, FailureKind},
    stream::{connect, context::StreamContext},
    trunk::nonza::ServerState,
};

/// Between two tries of a server that is away.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two tries of one that was there. All that edges are told but that it is back follows from a try, so that
/// this also bounds how often they are told: an edge ends a trunk that says too much.
const DOUBT_PAUSE: Duration = Duration::from_secs(2);
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
        let began = Instant::now();
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
            () = until_due(&context, began + DOUBT_PAUSE) => {}
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
        // What came before the edges knew, too. A trunk of which something was given back acknowledges no more.
        let given_back = context.router.give_back_inbound() > 0;
        if given_back || *self == Self::Kept && context.trunks.owed_stanzas() > 0 {
            *self = Self::GivenBack;
            context.trunks.drain_all();
        }
    }
}

/// Until the server is to be tried; over a doubt not before `earliest`.
async fn until_due(context: &StreamContext, earliest: Instant) {
    loop {
        let mut news = std::pin::pin!(context.trunks.news());
        news.as_mut().enable();
        let pause = match context.trunks.own_server() {
            ServerState::Up => None,
            ServerState::Refuses { .. } => Some(REFUSED_PAUSE),
            ServerState::Down { .. } => return tokio::time::sleep(PAUSE).await,
        };
        let pause = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = context.trunks.server_in_doubt() => {
                return tokio::time::sleep_until(earliest.into()).await;
            }
            () = news => {}
            () = pause => return,
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
    let began = Instant::now();
    let mut trying = std::pin::pin!(connect::establishes(context, pair));
    let outcome = match tokio::time::timeout(ANSWER, trying.as_mut()).await {
        Ok(outcome) => outcome,
        // It is there, and looks for who is nobody.
        Err(_) if answers(context, began) => Err(Failure::new(
            FailureKind::Unproved,
            format!(
                "it answers, and takes no stream within {} s",
                ANSWER.as_secs()
            ),
        )),
        Err(_) => {
            let text = format!("it does not answer within {} s", ANSWER.as_secs());
            return Some(ServerState::Down { text });
        }
    };
    match outcome {
        Ok(()) => Some(ServerState::Up),
        Err(failure) if is_away(&failure) => (!reaches(context)).then(|| ServerState::Down {
            text: told(context, own, &failure),
        }),
        Err(_) if reaches(context) => Some(ServerState::Up),
        Err(failure) => Some(ServerState::Refuses {
            text: told(context, own, &failure),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::fixture, stream::trunk::events::MOST_CHANGES};

    /// What edges are told at most: that it is away, or refuses, after a try; and that it is back, by a dial between.
    #[test]
    fn a_server_that_comes_and_goes_is_told_no_more_often_than_an_edge_bears() {
        let tries = 60 / usize::try_from(DOUBT_PAUSE.as_secs()).expect("small");
        assert!(2 * tries <= MOST_CHANGES / 2);
    }

    #[tokio::test]
    async fn over_a_doubt_the_server_is_tried_and_not_before_its_time() {
        let (context, _dials) = StreamContext::alone(fixture::active_config(|_| ()));
        context.trunks.doubt_server();
        let earliest = Instant::now() + Duration::from_millis(50);
        until_due(&context, earliest).await;
        assert!(Instant::now() >= earliest);
    }
}
