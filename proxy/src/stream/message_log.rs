//! Bodies of messages in the log, only where `settings.logMessageBodies` asks for each of them.

use xmpp_edge_crds::verdict::Direction;

use crate::xml::stanza::Stanza;

/// Every body of a message that passes.
pub(super) fn bodies(stanza: &Stanza<'_>, direction: Direction) {
    for (name, namespace, bytes) in stanza.children() {
        if name == "body" && namespace == "jabber:server" {
            tracing::info!(
                ?direction,
                from = %stanza.from.as_deref().unwrap_or_default().escape_debug(),
                to = %stanza.to.as_deref().unwrap_or_default().escape_debug(),
                body = %String::from_utf8_lossy(bytes).escape_debug(),
                "message"
            );
        }
    }
}
