//! Setting up streams: to a partner by DNS or `proxyFqdn`, to a gateway by its address.
//!
//! A partner's pair first looks for a stream that it can share ([`share`]).
//! Every target is tried before giving up, and again at short intervals while something waits that may
//! still be delivered in time ([`Route::failed`]).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{
    Stream,
    context::StreamContext,
    establish::ends,
    share, sip,
    targets::{self, LookedUp},
    trunk,
    walk::Walk,
};
use crate::{
    negotiation::{KeyVerification, Pair, Purpose, Side, Unavailable},
    routing::{
        dial_ticket::{DialRequests, DialTicket},
        failure::{Failure, FailureKind},
        route::Route,
    },
};

/// What an attempt may take beyond its deadline, to end in order.
const GRACE: Duration = Duration::from_secs(1);

/// Sets streams up as they are asked for, each in a task of its own, until `stop`.
pub async fn serve(context: Arc<StreamContext>, mut dials: DialRequests, stop: CancellationToken) {
    loop {
        let ticket = tokio::select! {
            ticket = dials.recv() => ticket,
            () = stop.cancelled() => return,
        };
        let Some(ticket) = ticket else { return };
        context.tasks.spawn(run(Arc::clone(&context), ticket));
    }
}

/// Sets a stream up for the route of this ticket, and tries again while something waits for it and
/// may be delivered in time.
async fn run(context: Arc<StreamContext>, ticket: DialTicket) {
    let route = Arc::clone(ticket.route());
    if let Some(until) = ticket.not_before {
        pause(&context, &route, until).await;
    }
    let Some(ticket) = trunk::hand_over::hand_over(&context, ticket).await else {
        return;
    };
    let Some(mut ticket) = sip::hand_over::hand_over(&context, ticket).await else {
        return;
    };
    let only_answers = route.side == Side::Gateway
        && context
            .config()
            .policy
            .admit(route.pair.from.as_str())
            .is_err();
    // What waits meanwhile expires like anything that waits.
    let mut permit = if only_answers {
        Arc::clone(&context.answer_streams)
            .acquire_owned()
            .await
            .ok()
    } else {
        None
    };
    if permit.is_some() && route.stop_dialling_if_empty(ticket.number()) {
        // What waited has expired meanwhile: nobody needs the stream any more.
        return ticket.done();
    }
    let Some(mut own) = Box::pin(share::find(&context, &route, ticket.number())).await else {
        return ticket.done();
    };
    loop {
        let attempt = reach(
            &context,
            route.side,
            Purpose::Stanzas(route.pair.clone()),
            own.looked_up.take(),
            Some(&ticket),
        );
        let outcome = tokio::select! {
            biased;
            outcome = Box::pin(attempt) => outcome,
            () = route.overtaken(ticket.number()) => return ticket.done(),
        };
        note_own_server(&context, &route, outcome.as_ref().err());
        let failure = match outcome {
            Ok(mut stream) => {
                if let Some(permit) = permit.take() {
                    stream.end_when_done(permit);
                }
                ticket.done();
                // A task of its own, so that what setting up needed is freed.
                context.tasks.spawn(stream.run());
                return;
            }
            Err(failure) => failure,
        };
        let stopping = context.stopping.is_cancelled();
        let (again, next) = context.router.failed(ticket, &failure, stopping);
        if let Some(next) = next {
            let config = context.config();
            let peer = config.attempt_peer(route.side, &route.pair.to);
            context.attempts.next_try(peer, &route.pair.to, next);
        }
        let Some((same, wait)) = again else { return };
        ticket = same;
        pause(&context, &route, Instant::now() + wait).await;
        // What waited has expired: whoever comes from here on starts anew.
        if route.stop_dialling_if_empty(ticket.number()) {
            return ticket.done();
        }
    }
}

/// A sidecar has dialled its server: edges know whether that was of any use.
fn note_own_server(context: &StreamContext, route: &Route, failure: Option<&Failure>) {
    if route.side == Side::Gateway && context.config().edge_dials.is_some() {
        trunk::server::dialled(context, failure);
    }
}

/// Waits, unless the peer shows itself or the process ends.
async fn pause(context: &StreamContext, route: &Route, until: Instant) {
    tokio::select! {
        () = tokio::time::sleep_until(until.into()) => {}
        () = route.sign() => {}
        () = context.stopping.cancelled() => {}
    }
}

/// Asks an authoritative server, once.
pub async fn ask(context: &Arc<StreamContext>, side: Side, purpose: Purpose) -> KeyVerification {
    match reach(context, side, purpose, None, None).await {
        Ok(mut stream) => {
            let verdict = stream.take_verdict();
            stream.finish().await;
            verdict.unwrap_or(KeyVerification::Unavailable(Unavailable::Refused))
        }
        Err(failure) => KeyVerification::Unavailable(match failure.kind {
            FailureKind::NotFound => Unavailable::NotFound,
            FailureKind::TimedOut => Unavailable::TimedOut,
            FailureKind::Forbidden => Unavailable::Policy,
            _ => Unavailable::ConnectionFailed,
        }),
    }
}

/// Whether the server beside a sidecar takes a stream of this pair, on which nothing is sent.
///
/// # Errors
/// [`Failure`], as for a stanza.
pub async fn establishes(context: &Arc<StreamContext>, pair: Pair) -> Result<(), Failure> {
    let mut stream = reach(context, Side::Gateway, Purpose::Stanzas(pair), None, None).await?;
    stream.finish().await;
    Ok(())
}

/// Walks over the targets until a stream does what it is for: all of it within
/// `streamEstablishmentTimeoutSeconds`. A negotiation that is not over soon lets the next target start
/// beside it.
async fn reach(
    context: &Arc<StreamContext>,
    side: Side,
    purpose: Purpose,
    looked_up: Option<LookedUp>,
    ticket: Option<&DialTicket>,
) -> Result<Box<Stream>, Failure> {
    let config = context.config();
    let seconds = config
        .document
        .settings
        .stream_establishment_timeout_seconds;
    let deadline = Instant::now() + Duration::from_secs(u64::from(seconds));
    let (peer, _) = ends(&purpose);
    let whose = config.attempt_peer(side, &peer);
    let looked_up = match looked_up {
        Some(looked_up) => looked_up,
        None => targets::look_up(context, &config, side, &peer).await,
    };
    let candidates = match looked_up {
        Ok(candidates) => candidates,
        Err((failure, step)) => {
            if let Some(step) = step {
                context.attempts.begin(whose, &peer);
                context.attempts.note(whose, step);
                context.attempts.failed(whose, &peer);
            }
            return Err(failure);
        }
    };
    context.attempts.begin(whose, &peer);
    let mut walk = Walk::new(context, &config, side, &purpose, ticket, deadline);
    // The streams' own deadline comes first, so that the attempt says how far it came.
    let outcome = tokio::time::timeout_at((deadline + GRACE).into(), walk.over(candidates)).await;
    let failure = match outcome {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(failure)) => failure,
        Err(_) => Failure::new(FailureKind::TimedOut, walk.last().text.clone()),
    };
    context.attempts.failed(whose, &peer);
    Err(failure)
}
