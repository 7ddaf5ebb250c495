//! The negotiation machine, without sockets: inputs in, outputs out.
