//! A route that leads to a SIP server is given to its link, in place of being dialled.

use std::sync::Arc;

use crate::{
    routing::{
        dial_ticket::DialTicket,
        failure::{Failure, FailureKind},
    },
    stream::context::StreamContext,
};

/// Gives the route to the link of its gateway, and waits for one while something waits that may still be delivered in
/// time. The ticket comes back where the route is not of those that lead to a SIP server.
pub async fn hand_over(context: &Arc<StreamContext>, mut ticket: DialTicket) -> Option<DialTicket> {
    let route = Arc::clone(ticket.route());
    loop {
        // From here on, so that a link that is there after the look is not missed.
        let mut news = std::pin::pin!(context.sip.news());
        news.as_mut().enable();
        let config = context.config();
        if !config.goes_by_sip(route.side, &route.pair) {
            return Some(ticket);
        }
        let gateway = config.gateway(&route.pair.to);
        let link = gateway.and_then(|own| context.sip.of(own.config.effective_name()));
        if let Some(link) = link {
            link.carry(ticket);
            return None;
        }
        let text = format!(
            "nothing is sent to the SIP server of {} at the moment",
            route.pair.to
        );
        let away = Failure::new(FailureKind::Unreachable, text);
        let stopping = context.stopping.is_cancelled();
        let (again, _) = context.router.failed(ticket, &away, stopping);
        let (same, wait) = again?;
        ticket = same;
        tokio::select! {
            biased;
            () = route.overtaken(ticket.number()) => {
                ticket.done();
                return None;
            }
            () = news => {}
            () = context.stopping.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
        // What waited has expired: whoever comes from here on starts anew.
        if route.stop_dialling_if_empty(ticket.number()) {
            ticket.done();
            return None;
        }
    }
}
