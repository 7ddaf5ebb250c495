//! What a sidecar knows of the server beside it, by what came of dialling it. Edges are told each time.

use std::time::Instant;

use xmpp_edge_crds::{domain::DomainName, remedy};

use crate::{
    negotiation::{PeerRole, Side},
    routing::failure::{Failure, FailureKind},
    stream::context::StreamContext,
    telemetry::log_limiter::limited,
    trunk::nonza::ServerState,
};

/// Characters of the server's own words that are told on.
const WORDS: usize = 250;

/// The server was dialled for a stanza. What came of one pair is no word on the others: only a stream says that the
/// server is there, and a failure is reason to try how it is.
pub fn dialled(context: &StreamContext, failure: Option<&Failure>) {
    let refuses = || matches!(context.trunks.own_server(), ServerState::Refuses { .. });
    match failure {
        None => {
            is_now(context, &ServerState::Up);
        }
        Some(failure) if is_away(failure) => context.trunks.doubt_server(),
        Some(_) if reaches(context) || refuses() => {}
        Some(_) => context.trunks.doubt_server(),
    }
}

/// Whether nothing was heard of the server.
pub(super) fn is_away(failure: &Failure) -> bool {
    matches!(
        failure.kind,
        FailureKind::NotFound | FailureKind::Unreachable | FailureKind::TimedOut
    )
}

/// Whether the server has opened its stream on one of ours that began then or later, and is not over.
pub(super) fn answers(context: &StreamContext, since: Instant) -> bool {
    let streams = context.streams.all();
    let mut own = streams.iter().filter(|it| it.side == Side::Gateway);
    own.any(|it| it.peer == PeerRole::Server && it.opened >= since && it.has_answered())
}

/// Whether a stream of ours to the server stands.
pub(super) fn reaches(context: &StreamContext) -> bool {
    let streams = context.streams.all();
    let mut own = streams.iter().filter(|it| it.side == Side::Gateway);
    own.any(|it| it.peer == PeerRole::Server && it.facts().method.is_some())
}

pub(super) fn is_now(context: &StreamContext, state: &ServerState) -> bool {
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
pub(super) fn told(context: &StreamContext, domain: &DomainName, failure: &Failure) -> String {
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
