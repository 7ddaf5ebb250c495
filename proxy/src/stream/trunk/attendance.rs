//! To a sidecar all partners are there while any trunk is: presence that crossed is taken back once none has
//! stood for a while, and asked for again when one does (as of a partner without a stream).

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{presence::tracker::Attendance, stream::context::StreamContext};

/// Whether partners are there.
#[derive(Debug)]
enum PartnersAtSidecar {
    Away,
    /// Those of which something was known when the first trunk came; of the others nobody is told that they
    /// are away.
    There(Vec<Attendance>),
}

impl PartnersAtSidecar {
    /// A trunk stands, or none does any more.
    fn follow(self, context: &Arc<StreamContext>, reaches_edges: bool) -> Self {
        let known = || context.presence.domains();
        match (self, reaches_edges) {
            (Self::Away, true) => {
                Self::There(known().iter().map(|own| context.attend(own)).collect())
            }
            (Self::There(_held), false) => {
                // Whoever leaves has to have been there.
                for domain in known() {
                    drop(context.attend(&domain));
                }
                Self::Away
            }
            (same, _) => same,
        }
    }
}

/// Follows the trunks, until `stop`.
pub async fn watch(context: Arc<StreamContext>, stop: CancellationToken) {
    let mut partners = PartnersAtSidecar::Away;
    loop {
        let mut news = std::pin::pin!(context.trunks.news());
        news.as_mut().enable();
        partners = partners.follow(&context, context.trunks.reaches_edges());
        tokio::select! {
            () = news => {}
            () = stop.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use xmpp_edge_crds::{domain::DomainName, verdict::Direction};

    use super::*;
    use crate::{
        config::fixture,
        negotiation::{Pair, Side},
        presence::tracker::ABSENCE,
        routing::{
            batch::Batch,
            failure::{Failure, FailureKind},
        },
        xml::{Item, Limits, Scanner},
    };

    const SEEN: &str = "<stream:stream xmlns='jabber:server' \
        xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>\
        <presence from='rob@x.partner.example/a' to='alice@org.example'/>";

    /// B-24.
    #[test]
    fn without_a_trunk_partners_are_gone_after_a_minute_and_asked_for_when_one_stands() {
        let (context, mut dials) = StreamContext::alone(fixture::active_config(|_| ()));
        let partners = PartnersAtSidecar::Away.follow(&context, true);
        let mut scanner = Scanner::new(Limits::default());
        let header = match scanner.next(SEEN.as_bytes()) {
            Ok(Some(Item::Header { len, .. })) => len,
            other => panic!("{other:?}"),
        };
        match scanner.next(&SEEN.as_bytes()[header..]) {
            Ok(Some(Item::Stanza(stanza))) => {
                context
                    .presence
                    .note(Some("partner"), Direction::Inbound, &stanza);
            }
            other => panic!("{other:?}"),
        }
        let later = Instant::now() + 2 * ABSENCE;
        let gone = |at| {
            context
                .presence
                .next_gone(at)
                .map(|gone| gone.stanzas.len())
        };
        assert_eq!(gone(later), None, "a trunk stands");
        let partners = partners.follow(&context, false);
        assert_eq!(gone(Instant::now()), None, "not at once");
        assert_eq!(gone(later), Some(1));
        let domain = |name| DomainName::parse(name).expect("valid");
        let pair = Pair {
            from: domain("org.example"),
            to: domain("x.partner.example"),
        };
        let asked = context.router.route(Side::Partner, &pair);
        // Whoever wrote meanwhile was refused, and the pause after that is not over.
        let refusal = Failure::new(FailureKind::Refused, "no edge is connected");
        for _ in 0..2 {
            let own = Batch::reply(b"<presence/>".to_vec(), None, Instant::now());
            context.router.enqueue(&asked, own);
            let ticket = dials.try_recv().expect("it is tried");
            assert!(context.router.failed(ticket, &refusal, false).0.is_none());
        }
        assert!(asked.resting_until().is_some());
        let _there = partners.follow(&context, true);
        assert_eq!(asked.waiting(), 1, "a probe");
    }
}
