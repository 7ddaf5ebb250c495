//! What a partner asks of a domain whose server speaks SIP, and what it cannot have there.

use std::sync::Arc;

use crate::{
    negotiation::Side,
    routing::{
        batch::Batch,
        failure::{Failure, FailureKind},
        route::Route,
    },
    xml::{self, Condition, Element, ErrorType, stanza::Stanza},
};

use super::link_settings::LinkMoment;

mod ns {
    /// XEP-0199.
    pub(super) const PING: &str = "urn:xmpp:ping";
    /// XEP-0030.
    pub(super) const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
}

/// What becomes of a stanza for which there is nothing in SIP.
#[derive(Debug)]
pub(super) enum Inquiry {
    /// The domain itself answers.
    Result(Element),
    /// It is answered with this, where its like is answered.
    Refused(Failure),
}

/// What is answered to an iq or a presence.
pub(super) fn answer_to(stanza: &Stanza<'_>) -> Inquiry {
    let is_to_domain = stanza
        .to
        .as_deref()
        .is_some_and(|to| !to.contains(['@', '/']));
    let asked = stanza.children().next();
    if is_to_domain
        && stanza.type_.as_deref() == Some("get")
        && let Some((name, namespace, _)) = asked
    {
        match (name, namespace) {
            ("ping", ns::PING) => return Inquiry::Result(result(stanza)),
            ("query", ns::DISCO_INFO) => {
                return Inquiry::Result(result(stanza).with_child(identity()));
            }
            _ => {}
        }
    }
    Inquiry::Refused(Failure::new(
        FailureKind::Answered {
            condition: Condition::ServiceUnavailable,
            error_type: ErrorType::Cancel,
        },
        "",
    ))
}

fn result(asked: &Stanza<'_>) -> Element {
    let mut iq = Element::new(xml::ns::SERVER, "iq").with_attribute("type", "result");
    for (name, value) in [("from", &asked.to), ("to", &asked.from), ("id", &asked.id)] {
        if let Some(value) = value {
            iq = iq.with_attribute(name, value.as_ref());
        }
    }
    iq
}

/// A gateway to SIP/SIMPLE (XEP-0030, registry of identities).
fn identity() -> Element {
    let identity = Element::new(ns::DISCO_INFO, "identity")
        .with_attribute("category", "gateway")
        .with_attribute("type", "simple");
    let feature = |var: &str| Element::new(ns::DISCO_INFO, "feature").with_attribute("var", var);
    Element::new(ns::DISCO_INFO, "query")
        .with_child(identity)
        .with_child(feature(ns::DISCO_INFO))
        .with_child(feature(ns::PING))
}

/// Sends the answer to the one stanza of `batch`, which is settled with it.
pub(super) fn send(
    moment: &LinkMoment<'_>,
    route: &Arc<Route>,
    mut batch: Batch,
    inquiry: Inquiry,
) {
    let router = &moment.context.router;
    match inquiry {
        Inquiry::Refused(failure) => router.bounce(route, batch, &failure),
        Inquiry::Result(result) => {
            let receipt = batch.take_first().and_then(|(_, receipt)| receipt);
            let back = router.route(Side::Partner, &route.pair.reversed());
            let reply = Batch::reply(result.to_bytes(), receipt, moment.now);
            router.enqueue_own(&back, reply);
        }
    }
}
