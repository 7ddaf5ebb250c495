//! A route that goes by trunk is given to one, in place of being dialled.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::absence::TrunkPlace;
use crate::{
    negotiation::Side,
    routing::{dial_ticket::DialTicket, route::Route},
    stream::{Command, TrunkCommand, context::StreamContext},
};

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
        let now = Instant::now();
        let absence = context.trunks.absence(&place(&route));
        let failure = absence.failure(&whom(&route), now);
        let stopping = context.stopping.is_cancelled();
        if absence.is_long(now) || stopping {
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

/// Where the route leads.
pub(super) fn place(route: &Route) -> TrunkPlace {
    match route.side {
        Side::Partner => TrunkPlace::Edges,
        Side::Gateway => TrunkPlace::Server(route.pair.to.clone()),
    }
}

/// Who would be at the other end.
pub(super) fn whom(route: &Route) -> String {
    match route.side {
        Side::Partner => "edge".to_owned(),
        Side::Gateway => format!("sidecar of {}", route.pair.to),
    }
}
