//! Whether a sidecar reaches its server, to the trunk that leads to it. While it does not, what comes stays in
//! the queues here, where it has its time; after a while it is not waited for here any more.

use std::time::Instant;

use super::absence::PATIENCE;
use crate::trunk::nonza::ServerState;

/// The server behind the other end. A sidecar's edges have none, and are always reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FarServer {
    Reached,
    Away {
        /// Until then its routes stay.
        kept_until: Instant,
    },
    /// Its routes left, or are about to.
    GivenUp,
}

impl FarServer {
    /// The sidecar says this of it.
    pub(super) fn follow(&mut self, state: &ServerState, now: Instant) {
        *self = match (*self, state) {
            // One that refuses is there: what comes for it is answered with its words, not kept.
            (_, ServerState::Up | ServerState::Refuses { .. }) => Self::Reached,
            (Self::Reached, ServerState::Down { .. }) => Self::Away {
                kept_until: now + PATIENCE,
            },
            (same, ServerState::Down { .. }) => same,
        };
    }

    #[must_use]
    pub(super) fn is_reached(self) -> bool {
        self == Self::Reached
    }

    /// Whether its routes are to leave; once.
    pub(super) fn is_given_up(&mut self, now: Instant) -> bool {
        let is_over = self.deadline().is_some_and(|until| now >= until);
        if is_over {
            *self = Self::GivenUp;
        }
        is_over
    }

    /// When [`Self::is_given_up`].
    #[must_use]
    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Self::Away { kept_until } => Some(kept_until),
            Self::Reached | Self::GivenUp => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_away_is_waited_for_and_given_up_once() {
        let now = Instant::now();
        let away = ServerState::Down {
            text: "it hangs".to_owned(),
        };
        let mut server = FarServer::Reached;
        assert!(server.is_reached() && !server.is_given_up(now));
        server.follow(&away, now);
        server.follow(&away, now + PATIENCE);
        assert_eq!(
            server.deadline(),
            Some(now + PATIENCE),
            "from the first word on"
        );
        assert!(!server.is_reached() && !server.is_given_up(now));
        assert!(server.is_given_up(now + PATIENCE));
        assert!(!server.is_given_up(now + PATIENCE));
        server.follow(&away, now);
        assert_eq!(server, FarServer::GivenUp);
        server.follow(&ServerState::Up, now);
        assert!(server.is_reached());
    }
}
