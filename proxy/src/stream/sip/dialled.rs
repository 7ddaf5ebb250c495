//! The one connection that requests go out on, and what is known of it.

use std::time::Instant;

use crate::sip::transaction::LinkConnection;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DialledConnection {
    /// Not before this time.
    None(Instant),
    UnderWay,
    /// It stands, and the server has not answered the first OPTIONS.
    Greeting(LinkConnection),
    Standing(LinkConnection),
    /// As before, and the server is asked whether it is still there.
    Asked(LinkConnection),
}

impl DialledConnection {
    /// The one that there is, whatever is known of its server.
    pub(super) fn id(self) -> Option<LinkConnection> {
        match self {
            Self::None(_) | Self::UnderWay => None,
            Self::Greeting(id) | Self::Standing(id) | Self::Asked(id) => Some(id),
        }
    }

    /// The one that requests may go on.
    pub(super) fn standing(self) -> Option<LinkConnection> {
        match self {
            Self::Standing(id) | Self::Asked(id) => Some(id),
            _ => None,
        }
    }
}
