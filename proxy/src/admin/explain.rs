//! `/explain`: the verdict for a chat message with the rules that led to it, contacts known.

use xmpp_edge_crds::{
    jid::BareJid,
    sip_address::asked_address,
    verdict::{self, Explanation, Known},
};

use crate::stream::context::StreamContext;

/// What policy says of a chat message from `from` to `to`.
///
/// # Errors
/// Where an address is none, or neither or both are own.
pub fn explain(context: &StreamContext, from: &str, to: &str) -> Result<Explanation, String> {
    let config = context.config();
    let jid = |text: &str| -> Result<BareJid, String> {
        asked_address(text).map_err(|error| format!("{text:?} is no address: {error}"))
    };
    let (from, to) = (jid(from)?, jid(to)?);
    let (user, remote) = if config.is_own(from.domain()) {
        (&from, &to)
    } else {
        (&to, &from)
    };
    let added = context
        .contacts
        .has_added(&user.to_string(), &remote.to_string());
    let known = Known {
        contact: Some(added),
    };
    verdict::explain(&config.document, &from, &to, known).map_err(|error| error.to_string())
}
