//! What a sidecar knows of the server beside it, by what came of dialling it. Edges are told each time.

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

pub(super) fn is_away(failure: &Failure) -> bool {
    failure.kind.is_outage() || failure.kind == FailureKind::NotFound
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
