//! A route that goes by trunk is given to one, in place of being dialled.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::registry::Absence;
use crate::{
    config::ActiveConfig,
    negotiation::Side,
    routing::{
        dial_ticket::DialTicket,
        failure::{Failure, FailureKind},
        route::Route,
    },
    stream::{Command, TrunkCommand, context::StreamContext},
};

/// So long stanzas wait for a trunk at all; where none has stood for longer they are answered at once.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks whether the configuration is another, or nobody waits any more.
const LOOK: Duration = Duration::from_secs(1);

/// Gives the route to the trunk that it takes, and waits for one while something waits that may still be
/// delivered in time. The ticket comes back where the route is not of those that go by trunk.
pub async fn hand_over(context: &Arc<StreamContext>, ticket: DialTicket) -> Option<DialTicket> {
    let route = Arc::clone(ticket.route());
    loop {
        // From here on, so that a trunk that comes after the look is not missed.
        let mut news = std::pin::pin!(context.trunks.news());
        news.as_mut().enable();
        let config = context.config();
        if !config.goes_by_trunk(route.side, &route.pair) {
            return Some(ticket);
        }
        if let Some((_, handle)) = context.trunks.choose(route.side, &route.pair) {
            handle.tell(Command::Trunk(TrunkCommand::Carry(ticket)));
            return None;
        }
        let absence = context.trunks.absence(absent(&config, &route));
        let (failure, is_long) = failure(&route, absence, Instant::now());
        let stopping = context.stopping.is_cancelled();
        if is_long || stopping {
            context.router.failed(ticket, &failure, stopping);
            return None;
        }
        route.note_failure(&failure);
        tokio::select! {
            biased;
            () = route.overtaken(ticket.number()) => {
                ticket.done();
                return None;
            }
            () = news => {}
            () = context.stopping.cancelled() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
        // What waited has expired: whoever comes from here on starts anew.
        if route.stop_dialling_if_empty(ticket.number()) {
            ticket.done();
            return None;
        }
    }
}

/// Under what it is remembered since when nobody is there.
fn absent<'a>(config: &'a ActiveConfig, route: &Route) -> &'a str {
    match route.side {
        Side::Partner => "",
        Side::Gateway => config
            .gateway(&route.pair.to)
            .map_or("", |gateway| gateway.config.effective_name()),
    }
}

/// Why nothing is delivered, and whether that is so for longer than stanzas wait.
fn failure(route: &Route, absence: Absence, now: Instant) -> (Failure, bool) {
    let who = match route.side {
        Side::Partner => "no edge".to_owned(),
        Side::Gateway => format!("no sidecar of {}", route.pair.to),
    };
    let is_long = now.saturating_duration_since(absence.since) >= PATIENCE;
    let kind = if is_long {
        FailureKind::Refused
    } else {
        FailureKind::Unreachable
    };
    let time = absence.since_time.strftime("%H:%M:%S");
    let text = format!("{who} is connected since {time}");
    (Failure::new(kind, text), is_long)
}
