//! The control plane of controlled XMPP federation: it compiles the kinds into one `EdgeConfig` per
//! pool, and provides certificates. It must never know XMPP on the wire; only [`standalone`] links
//! the proxy in.

pub mod certificates;
pub mod cli;
pub mod cluster;
pub mod compile;
pub mod dns;
pub mod inspect;
pub mod lync;
pub mod partner;
pub mod policy;
pub mod pool;
pub mod standalone;
