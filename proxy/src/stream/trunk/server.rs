//! Whether a sidecar reaches the server beside it: tried as it starts, noticed when it is dialled for a stanza,
//! then tried until it answers. Edges are told each time.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use xmpp_edge_crds::{domain::DomainName, remedy};

use crate::{
    negotiation::{Pair, PeerRole, Side},
    routing::failure::{Failure, FailureKind},
    stream::{connect, context::StreamContext},
    telemetry::log_limiter::limited,
    trunk::nonza::ServerState,
};

/// Between two tries of a server that is away.
const PAUSE: Duration = Duration::from_secs(1);
/// Of one that refuses: somebody has to mend it.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// How long its answer may take.
const ANSWER: Duration = Duration::from_secs(2);
/// Characters of the server's own words that are told on.
const WORDS: usize = 250;
/// As whom the server is tried: nobody's domain, and no partner's that it may forbid.
const TRIES: &str = "probe.xmpp-edge.internal";

/// Tries the server at first, and whenever it is away or in doubt, until `stop`.
pub async fn watch(context: Arc<StreamContext>, stop: CancellationToken) {
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
        tokio::select! {
            () = until_due(&context) => {}
            () = stop.cancelled() => return,
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

/// The server was dialled for a stanza to `domain`. Edges are told where it is there, or is away; where it
/// refuses one stream it is tried whether it refuses all.
pub fn dialled(context: &StreamContext, domain: &DomainName, failure: Option<&Failure>) {
    match failure {
        None => {
            is_now(context, &ServerState::Up);
        }
        Some(failure) if is_away(failure) => {
            let text = told(context, domain, failure);
            is_now(context, &ServerState::Down { text });
        }
        Some(_) if reaches(context) => {}
        Some(_) => context.trunks.doubt_server(),
    }
}

fn is_away(failure: &Failure) -> bool {
    failure.kind.is_outage() || failure.kind == FailureKind::NotFound
}

/// Whether a stream of ours to the server stands.
fn reaches(context: &StreamContext) -> bool {
    let streams = context.streams.all();
    let mut own = streams.iter().filter(|it| it.side == Side::Gateway);
    own.any(|it| it.peer == PeerRole::Server && it.facts().method.is_some())
}

fn is_now(context: &StreamContext, state: &ServerState) -> bool {
    let is_another = context.trunks.own_server_is(state.clone());
    if is_another {
        match state {
            ServerState::Up => limited!(
                info,
                context.log.lines_of("server", "Up"),
                "the server is reached"
            ),
            ServerState::Refuses { text } | ServerState::Down { text } => limited!(
                warn,
                context.log.lines_of("server", "Down"),
                "the server is not reached: {}",
                text.escape_debug()
            ),
        }
    }
    is_another
}

/// The step that failed, the server's words, and what to do.
fn told(context: &StreamContext, domain: &DomainName, failure: &Failure) -> String {
    let steps = context.attempts.gateway(domain).last_attempt;
    let failed = steps.iter().rfind(|step| step.failed());
    match failed {
        None => failure.text.to_string(),
        Some(step) => {
            let words: String = step.text.chars().take(WORDS).collect();
            let (name, remedy) = (step.step.as_str(), remedy::of_server(step.outcome));
            format!("step {name} ({}): {words}; {remedy}", step.outcome)
        }
    }
}
