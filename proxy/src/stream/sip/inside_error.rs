//! What comes back to a user of SIP for something that they sent.

use xmpp_edge_crds::jid::BareJid;

use crate::{
    sip::turns::TwoPeople,
    xml::{self, Condition, Element},
};

/// An error that came from outside, or of the edge's own, for a stanza from inside.
#[derive(Clone, Debug)]
pub(super) struct InsideError {
    /// Who it answers, and whom they asked.
    pub(super) people: TwoPeople,
    pub(super) id: String,
    pub(super) condition: Option<Condition>,
    pub(super) text: String,
}

impl InsideError {
    /// `None` for what answers nothing: it has no id, or no address.
    pub(super) fn of(stanza: &Element) -> Option<Self> {
        let error = stanza.child(xml::ns::SERVER, "error");
        let mut said = error.into_iter().flat_map(Element::children);
        let condition = said.find_map(|child| {
            let is_condition = child.namespace == xml::ns::STANZA_ERRORS;
            is_condition
                .then(|| Condition::of_name(&child.name))
                .flatten()
        });
        let text = error.and_then(|error| error.child(xml::ns::STANZA_ERRORS, "text"));
        let address = |name| BareJid::of_full(stanza.attribute(name)?).ok();
        Some(Self {
            // It goes back: its sender is whom the message went to.
            people: TwoPeople {
                from: address("to")?,
                to: address("from")?,
            },
            id: stanza.attribute("id")?.to_owned(),
            condition,
            text: text.map(Element::text).unwrap_or_default(),
        })
    }
}
