//! What the queues of a link's routes gave: whom each stanza is for on this side.

use std::sync::Arc;

use xmpp_edge_crds::{jid::BareJid, verdict::Direction};

use super::{
    answering::Answering, asking::Asking, inquiries, inside_error::InsideError,
    link_settings::LinkMoment, linked_stanza::StanzaReader, outgoing::malformed_address,
    outward::Outward, presence::LinkPresence,
};
use crate::{
    routing::{batch::Batch, route::Route},
    sip::turns::TwoPeople,
    xml::{Element, stanza::StanzaKind},
};

/// Reads what the queues gave.
#[derive(Debug)]
pub(super) struct StanzaIntake {
    reader: StanzaReader,
}

/// Who takes what a queue gave.
pub(super) struct StanzaReceivers<'a> {
    pub(super) asking: &'a mut Asking,
    pub(super) answering: &'a mut Answering,
    pub(super) presence: &'a mut LinkPresence,
    pub(super) outward: &'a mut Outward,
}

impl Default for StanzaIntake {
    fn default() -> Self {
        Self {
            reader: StanzaReader::new(u32::MAX as usize),
        }
    }
}

impl StanzaIntake {
    /// What a queue gave. Errors are told to whom they answer.
    pub(super) fn take(
        &mut self,
        moment: &LinkMoment<'_>,
        route: &Arc<Route>,
        batch: Batch,
        receivers: &mut StanzaReceivers<'_>,
    ) {
        let single = if batch.count() == 1 {
            vec![batch]
        } else {
            route.split(batch)
        };
        for batch in single {
            self.take_one(moment, route, batch, receivers);
        }
    }

    fn take_one(
        &mut self,
        moment: &LinkMoment<'_>,
        route: &Arc<Route>,
        batch: Batch,
        receivers: &mut StanzaReceivers<'_>,
    ) {
        let StanzaReceivers {
            asking,
            answering,
            presence,
            outward,
        } = receivers;
        let bytes = batch.unsettled();
        let Some((stanza, header)) = self.reader.stanza(&bytes) else {
            debug_assert!(false, "a queued stanza is one stanza");
            self.reader = StanzaReader::new(u32::MAX as usize);
            return batch.settle();
        };
        let router = &moment.context.router;
        let metrics = &moment.context.metrics;
        match (stanza.kind, stanza.type_.as_deref()) {
            (StanzaKind::Message, Some("error")) => {
                let error = Element::parse(stanza.bytes(), header).ok();
                if let Some(error) = error.as_ref().and_then(InsideError::of)
                    && !answering.error_came(moment, &error)
                {
                    metrics.sip_late_error();
                }
                batch.settle();
            }
            (StanzaKind::Message, _) => {
                let address = |text: &Option<std::borrow::Cow<'_, str>>| {
                    BareJid::of_full(text.as_deref().unwrap_or_default()).ok()
                };
                match (address(&stanza.from), address(&stanza.to)) {
                    (Some(from), Some(to)) => {
                        asking.push(TwoPeople { from, to }, Arc::clone(route), batch);
                    }
                    _ => router.bounce(route, batch, &malformed_address()),
                }
            }
            (StanzaKind::Iq, Some("get" | "set")) => {
                let answer = inquiries::answer_to(&stanza);
                inquiries::send(moment, route, batch, answer);
            }
            (StanzaKind::Iq, _) => {
                metrics.sip_untranslated(Direction::Inbound, "Iq");
                batch.settle();
            }
            (StanzaKind::Presence, Some("error")) => {
                let error = Element::parse(stanza.bytes(), header).ok();
                if let Some(error) = error.as_ref().and_then(InsideError::of)
                    && !answering.error_came(moment, &error)
                {
                    presence.users.failed(moment, &error);
                }
                batch.settle();
            }
            (StanzaKind::Presence, _) => match presence.take(moment, outward, &stanza, header) {
                Ok(()) => batch.settle(),
                Err(failure) => router.bounce(route, batch, &failure),
            },
        }
    }
}
