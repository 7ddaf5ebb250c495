//! The data plane: an XMPP server-to-server edge.
//!
//! The tree reads like the way of a stanza: listen → tls → xml → stream → session → policy → route.
//! A room only calls rooms further along its way. Nothing here knows Kubernetes.

pub mod arguments;
pub mod config;
pub mod contacts;
pub mod dns;
pub mod edge;
pub mod listen;
pub mod observe;
pub mod policy;
pub mod probe;
pub mod random;
pub mod route;
pub mod serve;
pub mod session;
pub mod stream;
pub mod tls;
pub mod xml;
