//! SIP on a stream (RFC 3261 sections 7 and 18.3): bytes to messages, and back.
//!
//! [`Framer`] cuts a stream into messages and sign of life and holds the bounds; [`SipRequest`] and
//! [`SipResponse`] are what of a message the gateway has to know, each field checked; [`SipWriter`] alone
//! writes. Header fields that the gateway has no use for are counted and forgotten: it relays no SIP.

mod fault;
mod field;
mod frame;
mod headers;
mod name_addr;
mod request;
mod response;
#[cfg(test)]
mod tests;
mod value;
mod via;
mod write;

pub use fault::{FrameFault, RequestFault, ResponseFault};
pub use field::HeaderName;
pub use frame::{FrameError, Framed, Framer, StartLine};
pub use headers::{SeveralFields, SipHeaders};
pub use name_addr::NameAddr;
pub use request::SipRequest;
pub use response::SipResponse;
pub use value::{HeaderParameters, Parameterised, ValueFault, quoted, split_list};
pub use via::{MAGIC_COOKIE, Via};
pub use write::{SipWriter, WriteFault};

/// Most bytes of a start line and its header fields.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Most lines of a head, the start line and folded ones counted.
pub const MAX_HEAD_LINES: usize = 128;
/// Most bytes of one line of a head, and of one header field with the lines that it goes on in.
pub const MAX_LINE_BYTES: usize = 4 * 1024;
/// Most hops that a request may have behind it: values of Via, and of Record-Route.
pub const MAX_HOPS: usize = 20;
/// Most bytes of a body for which a connection stays: more is neither read nor skipped.
pub const MAX_BODY_BYTES: usize = 256 * 1024;
