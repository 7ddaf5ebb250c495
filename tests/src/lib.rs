//! xmpp-edge
